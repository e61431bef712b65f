"""The cost of what was trained: its own boundary, its own rate, its parameters counted once."""

import json
import math
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from command_lines import cli

from snapjax import cost as price
from zoo import create_model, list_pretrained, load_pretrained
from zoo.cost import models as cost
from zoo.cost import priced, quality
from zoo.models.registry import spike_boundary
from zoo.pretrained.locate import SHIPPED

# Multiply-accumulates of vit_nano_patch2_8, as in test_cost_script.py.
VIT_MACS = 16 * (4 * 64 + 4 * (4 * 64 * 64 + 2 * 64 * 128 + 2 * 16 * 64)) + 64 * 10


def record(*arguments):
    """What a command prints with --json."""
    done = cli(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# One object behind every row: a trained model is priced with its own boundary


def shipped_record(name):
    return json.loads((SHIPPED / name / "config.json").read_text())


@pytest.mark.parametrize("name", list_pretrained())
def test_a_shipped_model_is_priced_with_the_boundary_of_its_record(name):
    kept = shipped_record(name)
    found = record("cost", name)
    for key in ("features", "code", "steps", "budget", "rank"):
        assert found["boundary"][key] == kept["boundary"][key]
    spiking = kept["boundary"]["code"] == "phase"
    rates = kept["metrics"]["spike_rate"]
    assert found["rate"]["value"] == (pytest.approx(np.mean(rates)) if spiking else None)


def test_matmuls_of_a_boundary_at_batch_1_are_those_that_a_token_needs():
    """MiniLM in 3 stages: 2 cuts, a 384 x 384 matrix at either end, 128 tokens, once each. The
    program runs 9 encoders and 8 decoders, on 3 ranks in 3 ticks, less the embedding's."""
    whole = record("cost", "minilm_l6.hnn_1bit")
    layers = 6 * 128 * (4 * 384**2 + 2 * 384 * 1536 + 2 * 128 * 384) + 384**2 + 128 * 384
    matrix = 128 * 384**2
    assert whole["macs"] == layers + 4 * matrix
    model = priced.build("minilm_l6.hnn_1bit").model
    counts = cost.trace_step(model, cost.Setting(tokens=128))
    assert counts.global_macs == layers + 17 * matrix
    # A message of 48 bytes a token over each of 2 hops, once.
    (link,) = whole["links"]
    assert (link["bytes"], link["executions"]) == (2 * 128 * 48, 1)
    # The dense model's boundary multiplies nothing.
    dense = record("cost", "minilm_l6", "--variant", "ann")
    assert (dense["stages"], dense["macs"]) == (3, layers)


@pytest.mark.parametrize(
    ("batch", "microbatches", "data", "stages", "train"),
    [
        (1, 1, 1, 2, False), (1, 1, 1, 4, False), (4, 4, 1, 4, False), (8, 2, 1, 2, False),
        (8, 2, 2, 4, False), (4, 2, 1, 2, True), (8, 2, 2, 4, True),
    ],
)  # fmt: skip
def test_a_boundary_is_priced_once_a_microbatch_and_hop(batch, microbatches, data, stages, train):
    """Against its ends by hand: a matrix at either end of every hop, for every token once; in
    training twice more, for the gradients of what goes in and of the matrix."""
    boundary = replace(spike_boundary(64, steps=8), rank=64)
    model = create_model("vit_nano_patch2_8", "ann", stages, boundary)
    setting = cost.Setting(batch=batch, microbatches=microbatches, data=data, train=train)
    with jax.numpy_dtype_promotion("standard"):
        traced = cost.trace_step(model, setting)
        found = cost.estimate(model, setting, "snap-mesh")
    ends = found.counts.select(lambda entry: "boundary" in entry.path.split("/"))
    matrices = (stages - 1) * 2 * batch * 16 * 64 * 64
    assert ends.global_macs == pytest.approx((3 if train else 1) * matrices)
    whole = found.counts.global_macs + found.idle.global_macs
    assert whole == pytest.approx(traced.global_macs)
    # And bytes: 64 bits a token, and back a float32 of each feature that may be kept.
    sent = [link.bytes for link in found.links if link.transfer.pairs]
    back = boundary.gradient_message_bytes(1)
    tokens = (stages - 1) * batch * 16
    assert sent == pytest.approx([tokens * 8, tokens * back] if train else [tokens * 8])


def test_a_run_its_model_and_its_file_cost_the_same(tmp_path):
    """What was trained is priced by its name, by the folder of its run, and as one file."""
    name = "vit_nano_patch2_8.hnn_digits"
    run, file = tmp_path / "run", tmp_path / "whole.safetensors"
    shutil.copytree(SHIPPED / name, run / "model")
    assert cli("convert", run, file).returncode == 0
    whole, *others = (record("cost", path) for path in (name, run, run / "model", file))
    drop = lambda made: {k: v for k, v in made.items() if k != "model"}
    for other in others:
        assert drop(other) == drop(whole)


def test_a_calibrated_file_is_priced_with_its_matrices(tmp_path):
    file = tmp_path / "cut.safetensors"
    arguments = ["--stages", "2", "--bits", "1", "--steps", "4", "--method", "pca"]
    arguments += ["--samples", "64", "--out", file]
    assert cli("calibrate", "vit_nano_patch2_8.ann_digits", *arguments).returncode == 0
    found = record("cost", file)
    boundary = load_pretrained(file).model.boundary
    assert found["boundary"] == boundary.to_dict()
    assert boundary.rank == 64
    assert found["macs"] == VIT_MACS + 2 * 16 * 64 * 64
    # Nobody measured how often its spikes fire.
    assert found["rate"] == {"value": 1.0, "how": "not known, so the worst case"}


# One rule for the rate


def test_a_rate_that_nobody_gave_is_1_in_python_and_on_the_command_line():
    model = priced.build("bert_nano").model
    found = cost.estimate(model, cost.Setting(batch=8, microbatches=8), "loihi-like")
    shown = record("cost", "bert_nano", "--batch", "8", "--profile", "loihi-like")
    assert shown["rate"] == {"value": 1.0, "how": "not known, so the worst case"}
    assert shown["energy_pj"] == found.energy.value
    assert shown["traffic"][0]["rate"] == found.traffic[0].rate == 1.0
    plain = price.estimate(found.counts, "loihi-like")
    assert [row.rate for row in plain.traffic] == [1.0]


@pytest.mark.parametrize("rates", ["x", [2.0], [None], [math.nan], {"a": 1}])
def test_a_recorded_rate_that_is_none_is_said(rates):
    model = priced.build("vit_nano_patch2_8.hnn_digits").model
    with pytest.raises(ValueError, match=r"metrics\.spike_rate=.* is damaged"):
        priced.recorded_rate(model, {"metrics": {"spike_rate": rates}})


@pytest.mark.parametrize("record_", [{}, {"metrics": None}, {"metrics": {}}])
def test_no_recorded_rate_is_the_worst_case(record_):
    model = priced.build("vit_nano_patch2_8.hnn_digits").model
    assert priced.recorded_rate(model, record_) == priced.WORST
    dense = priced.build("vit_nano_patch2_8.ann_digits").model
    assert priced.recorded_rate(dense, {"metrics": {"spike_rate": [1.0]}}) == priced.WORST


# One rule for parameters


@pytest.fixture(scope="module")
def listing():
    return record("models")


@pytest.mark.parametrize("name", ["vit_nano_patch2_8.hnn_digits", "bert_nano.hnn_topics"])
def test_every_command_counts_the_same_parameters(listing, tmp_path, name):
    """Trainable numbers, boundaries included, each once; the plans of boundaries are none."""
    params = load_pretrained(name).params
    numbers = sum(
        leaf.size for leaf in jax.tree.leaves(params) if np.issubdtype(leaf.dtype, np.floating)
    )
    (listed,) = [row for row in listing["pretrained"] if row["name"] == name]
    converted = record("convert", name, tmp_path / "one.safetensors")
    inspected = record("inspect", name)
    priced_ = record("cost", name)
    counts = [made["parameters"] for made in (listed, converted, inspected, priced_)]
    assert counts == [numbers] * 4
    plans = inspected["numbers"] - numbers
    assert plans == 2 * 3 * 64
    for command in ("inspect", "cost"):
        shown = cli(command, name).stdout
        assert f"{numbers:,}" in shown
        assert "trainable" in shown


def test_the_card_and_the_price_count_the_same():
    found = record("cost", "minilm_l6.hnn_1bit")
    assert found["parameters"] == 23_307_648  # as its card has it
    # 22,713,216 of the encoder; two cuts of two matrices and six numbers a feature.
    assert found["boundary_parameters"] == 2 * (2 * 384**2 + 6 * 384)
    assert "23,307,648" in (SHIPPED / "minilm_l6.hnn_1bit" / "README.md").read_text()


def test_stages_that_divide_the_layers_are_taken():
    for name, stages in (("minilm_l6", 3), ("bert_base", 4), ("vit_nano_patch2_8", 4)):
        assert record("cost", name)["stages"] == stages
    assert [priced.default_stages(n) for n in (1, 2, 3, 5, 6, 7, 8, 9, 24)] == [
        1, 2, 3, 1, 3, 1, 4, 3, 4,
    ]  # fmt: skip


def test_an_uncut_model_of_others_is_cut_for_its_price(tmp_path):
    folder = tmp_path / "theirs"
    assert cli("convert", "bert_nano.ann_topics", folder).returncode == 0
    whole = record("cost", folder)
    assert (whole["stages"], whole["links"]) == (1, [])
    cut = record("cost", folder, "--stages", "2", "--steps", "8")
    assert (cut["stages"], cut["code"], cut["boundary"]["steps"]) == (2, "phase", 8)
    assert cut["rate"]["value"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere/run"], "nowhere/run"),
        (["cut.safetensors"], "unknown model, trained model, folder or .safetensors file"),
        (["minilm_l6.hnn_1bit", "--stages", "2"], "name the untrained minilm_l6 to change it"),
        (["bert_nano.ann_topics", "--bits", "2"], "as it was trained"),
        ([""], "unknown model, trained model, folder or .safetensors file ''"),
        (["bert_nano", "--depth", "0"], "--depth 0: must be at least 1"),
    ],
)
def test_what_cannot_be_priced_is_said_in_one_line(monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = cli("cost", *arguments)
    assert found.returncode == 2
    assert message in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_name_of_a_wrong_type_and_a_row_without_a_boundary():
    with pytest.raises(ValueError, match="name=None must be the name of a model, or a path"):
        priced.build(None)
    with pytest.raises(ValueError, match="lacks 'boundary', or steps, bits_per_feature, method"):
        quality.price({"t": {"model": "bert_nano", "stages": 2, "rows": [{}]}})
