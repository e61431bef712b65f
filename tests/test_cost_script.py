"""Zoo models priced: hand counts of work and hops, rates, the scripts' output and errors."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from scripts import cost as script
from snapjax import cost as price
from snapjax.boundary import Boundary
from zoo import create_model
from zoo.cost import models as cost
from zoo.cost import priced

ROOT = Path(__file__).parents[1]
PRETRAINED = "vit_nano_patch2_8.hnn_digits"
BATCH = 8

# vit_nano_patch2_8: 16 tokens, 64 wide, 4 layers, MLP 128. A layer: 4 x 64 x 64 and 2 x 64 x 128 a
# token, and 2 x 16 x 64 a token for scores and mixing; 4 pixels a patch; 10 classes.
VIT_MACS = 16 * (4 * 64 + 4 * (4 * 64 * 64 + 2 * 64 * 128 + 2 * 16 * 64)) + 64 * 10
# bert_nano at 128 tokens, MLP 256: the same, then 19 masked tokens (15 %), each a 64 x 64 transform
# and a 64 x 2048 decoder.
ENCODER_MACS = 128 * 4 * (4 * 64 * 64 + 2 * 64 * 256 + 2 * 128 * 64)
BERT_MACS = ENCODER_MACS + 19 * (64 * 64 + 64 * 2048)


@pytest.fixture(autouse=True)
def _optax_mixes_types():
    """optax raises its decay rates to an integer count, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def trace(name, variant, stages, **setting):
    model = create_model(name, variant, stages)
    return cost.trace_step(model, cost.Setting(batch=BATCH, **setting))


@pytest.mark.parametrize(
    ("name", "macs"), [("vit_nano_patch2_8", VIT_MACS), ("bert_nano", BERT_MACS)]
)
@pytest.mark.parametrize(
    ("variant", "stages", "microbatches"), [("ann", 1, 1), ("ann", 4, 4), ("hnn", 4, 2)]
)
def test_work_does_not_depend_on_the_cut(name, macs, variant, stages, microbatches):
    counts = trace(name, variant, stages, microbatches=microbatches)
    assert counts.devices == stages
    assert counts.global_macs == BATCH * macs
    assert not counts.unpriced


def test_a_training_step_is_three_forwards_less_the_gradient_of_the_images():
    # Each matmul has two more in the backward pass; nobody needs the gradient of the pixels.
    counts = trace("vit_nano_patch2_8", "hnn", 4, microbatches=4, train=True)
    assert counts.global_macs == BATCH * (3 * VIT_MACS - 16 * 4 * 64)


@pytest.mark.parametrize(
    ("boundary", "forward", "backward"),
    [
        (Boundary(64, "phase", budget=64, gradient_wire="bfloat16"), 8, 2 * 64),
        (Boundary(64, "phase", budget=32, gradient_wire="int8"), 4, 32 + 2),
        (Boundary(64, "float32"), 256, 256),
        (Boundary(64, "int8"), 66, 256),
    ],
)
def test_bytes_on_every_hop(boundary, forward, backward):
    """Bytes of a token each way, from the formats: bits / 8, and one number a kept feature."""
    model = create_model("vit_nano_patch2_8", "ann", 4).with_boundary(boundary)
    assert boundary.bytes_per_token == forward
    assert boundary.gradient_message_bytes(1) == backward
    counts = cost.trace_step(model, cost.Setting(batch=BATCH, microbatches=4, train=True))
    there, back = [t for t in counts.transfers if t.collective == "ppermute"]
    tokens = 2 * 16  # of a microbatch
    assert there.payload_bytes == tokens * forward == boundary.message_bytes(tokens)
    assert back.payload_bytes == boundary.gradient_message_bytes(tokens)
    assert there.executions == back.executions == 4 + 4 - 1
    assert there.pairs == ((0, 1), (1, 2), (2, 3))
    assert set(back.pairs) == {(1, 0), (2, 1), (3, 2)}
    assert there.symbol == ("packed" if boundary.spiking else "uint8")
    (link, *_) = price.estimate(counts, "snap-mesh").links
    assert link.bytes == 3 * 7 * tokens * forward


def test_more_stages_than_devices():
    assert len(jax.devices()) == 8
    model = create_model("vit_nano_patch2_8", "hnn", 16, layers=16)
    counts = cost.trace_step(model, cost.Setting(batch=4, microbatches=2, data=2))
    assert (counts.devices, dict(counts.mesh)) == (32, {"data": 2, "stage": 16, "model": 1})
    layer = 16 * (4 * 64 * 64 + 2 * 64 * 128 + 2 * 16 * 64)
    assert counts.global_macs == 4 * (16 * layer + 16 * 4 * 64 + 640)


def test_the_schedule_knows_the_heavier_ends():
    setting = cost.Setting(batch=BATCH, microbatches=8)
    even = cost.schedule_of(create_model("vit_nano_patch2_8", "hnn", 4), setting, "snap-mesh")
    heavy = cost.schedule_of(create_model("bert_micro", "hnn", 4), setting, "snap-mesh")
    assert (even.stages, even.microbatches, even.idle_counted) == (4, 8, False)
    assert 1 < even.imbalance < heavy.imbalance < 4  # a decoder of 4096 words


def test_default_microbatches_divide_the_batch():
    assert [cost.default_microbatches(n, 4) for n in (1, 12, 16, 17, 64)] == [1, 12, 16, 1, 16]


def test_the_cut_is_the_boundarys():
    model = create_model("vit_nano_patch2_8", "hnn", 4)
    cut = cost.cut_of(model, cost.Setting(batch=BATCH, microbatches=2))
    assert cut == price.Cut(activations=4 * 16 * 64, steps=4, bits=4 * 16 * 64)
    assert cost.cut_of(create_model("vit_nano_patch2_8", "ann", 4), cost.Setting()) is None
    assert cost.cut_of(create_model("vit_nano_patch2_8", "hnn", 1), cost.Setting()) is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"batch": 0}, "batch=0 must be at least 1"),
        ({"batch": 10**12}, "batch=1000000000000 must be at least 1 and below 1000000"),
        ({"batch": 8, "microbatches": 3}, "batch=8 must be a multiple of data=1 x microbatches=3"),
        ({"batch": 2.5}, "batch=2.5 must be a whole number"),
        ({"batch": "8"}, "batch='8' must be a whole number"),
        ({"microbatches": True}, "microbatches=True must be a whole number"),
    ],
)
def test_settings_that_do_not_split(setting, message):
    with pytest.raises(ValueError, match=message):
        cost.Setting(**setting)


# Rates


def test_the_measured_rate_is_the_models_statistics():
    found = priced.build(PRETRAINED)
    loaded = found.trained()
    rate, how = priced.measured_rate(found, 16)
    assert "trained weights" in how
    # The same from the spikes themselves: the symbols of each cut, before anything is packed.
    batch, _ = priced.real_batch(loaded.model, 64, 16)
    _, result = jax.jit(loaded.model.apply)(loaded.params, batch)
    code, shares = loaded.model.boundary.codec, []
    for index, x in enumerate(result.cut):
        encoder = jax.tree.map(lambda leaf, i=index: leaf[i], loaded.params["boundaries"])
        symbols = np.asarray(code.encode(encoder["encoder"], x))
        planned = (
            np.arange(code.steps)[:, None]
            < np.asarray(encoder["encoder"]["steps_per_feature"])[None]
        )
        kept = symbols * (planned if symbols.shape[-2:] == planned.shape else planned.T)
        shares.append(kept.sum() / (planned.sum() * x.shape[0] * x.shape[1]))
    assert rate == pytest.approx(np.mean(shares), rel=1e-6)


def test_large_models_are_not_run(monkeypatch):
    monkeypatch.setattr(priced, "LARGEST_MEASURED", 1000)
    # 136,010 of the model, and 5 a feature of each of 3 boundaries.
    with pytest.raises(ValueError, match=r"136,970 parameters.*give a number"):
        priced.measured_rate(priced.build("vit_nano_patch2_8", "hnn", 4), 16)


# scripts/cost.py


def run(capsys, *argv):
    code = script.main(list(argv))
    out = capsys.readouterr()
    return code, out.out, out.err


def test_the_json_object(capsys):
    code, out, err = run(capsys, "vit_nano_patch2_8", "--batch", "8", "--json", "--rate", "0.25")
    assert (code, err) == (0, "")
    record = json.loads(out)
    assert {"macs", "acs", "parameters", "links", "energy_pj", "latency_s"} <= set(record)
    assert record["macs"] == BATCH * VIT_MACS
    # 5 trainable numbers a feature; the plans at both ends are none.
    assert record["boundary_parameters"] == 3 * 5 * 64
    assert record["parameters"] == 136_010 + 3 * 5 * 64
    assert record["rate"] == {"value": 0.25, "how": "assumed"}
    assert record["traffic"][0]["rate"] == 0.25
    assert (record["stages"], record["microbatches"], record["tokens"]) == (4, 8, 16)
    # Hops x microbatches x tokens x bytes; 3 more ticks send what nobody needs.
    assert record["links"][0]["bytes"] == 3 * 8 * 16 * 8
    idle = record["idle_ticks_pj"]["links"]["value"]
    assert idle == pytest.approx(3 / 8 * record["links"][0]["energy_pj"])


def test_steps_and_bits_and_train(capsys):
    arguments = ["bert_nano", "--steps", "8", "--bits", "2", "--tokens", "32", "--train", "--json"]
    code, out, _ = run(capsys, *arguments, "--stages", "2", "--batch", "4", "--profile", "tpu-v5p")
    record = json.loads(out)
    assert (code, record["step"], record["tokens"], record["profile"]) == (
        0, "train", 32, "tpu-v5p",
    )  # fmt: skip
    there, back = [link for link in record["links"] if link["collective"] == "ppermute"]
    assert there["bytes_per_message"] == 32 * 2 * 64 // 8
    assert back["pairs"] == [[1, 0]]
    assert record["traffic"][0]["break_even"]["dense_bits"] == 4  # 9 levels


@pytest.mark.parametrize(
    ("arguments", "task", "macs", "parameters"),
    [
        # 339,456 of the encoder; the pooler's 64 x 64 and 64 on the first token.
        (["bert_nano"], "encode", ENCODER_MACS + 64 * 64, 339_456 + 4_160),
        (["bert_nano", "--task", "mlm"], "mlm", BERT_MACS, 339_456 + 137_408),
        (["bert_nano", "--train"], "mlm", 3 * BERT_MACS, 339_456 + 137_408),
        (
            ["bert_nano", "--task", "classify"],
            "classify",
            ENCODER_MACS + 64 * 64 + 2 * 64,
            339_456 + 4_290,
        ),
        # 6 layers of 384 and 1536; the embedding is a mean over 128 tokens, as the preset says.
        (
            ["minilm_l6"],
            "encode",
            6 * 128 * (4 * 384**2 + 2 * 384 * 1536 + 2 * 128 * 384) + 384**2 + 128 * 384,
            22_713_216,
        ),
    ],
)
def test_a_bert_is_priced_as_published_unless_a_task_is_named(
    capsys, arguments, task, macs, parameters
):
    code, out, _ = run(capsys, *arguments, "--tokens", "128", "--stages", "1", "--json")
    record = json.loads(out)
    assert (code, record["task"]) == (0, task)
    assert (record["macs"], record["parameters"]) == (macs, parameters)


def test_the_heavier_end_of_an_encoder_is_its_pooler():
    model = priced.build("bert_nano", "hnn", 4).model
    assert cost.schedule_of(model, cost.Setting(), "snap-mesh").imbalance > 1


def test_the_table_and_the_page(capsys, tmp_path):
    page = tmp_path / "cost.html"
    code, out, _ = run(capsys, PRETRAINED, "--rate", "measured", "--html", str(page))
    assert code == 0
    assert "trained weights" in out
    assert "PreNormBlock/mlp" in out
    assert page.read_text().startswith("<!DOCTYPE html>")
    code, out, _ = run(capsys, "vit_nano_patch2_8", "--variant", "ann")
    assert "no spikes" in out.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vit_nano_patch2"], "did you mean 'vit_nano_patch2_8'"),
        (["vit_nano_patch2_8", "--tokens", "9"], "cuts its images into 16 tokens"),
        (["bert_nano", "--tokens", "129"], "more than the 128 positions"),
        (["bert_nano", "--stages", "3"], "stages=3 must divide layers=4"),
        (["bert_nano", "--profile", "snap-mess"], "did you mean 'snap-mesh'"),
        (["bert_nano", "--batch", "4", "--microbatches", "3"], "must be a multiple"),
        (["bert_nano", "--bits", "-1"], "bits=-1.0 a feature must be a positive number"),
        (["bert_nano", "--bits", "nan"], "bits=nan a feature must be a positive number"),
        (["bert_nano", "--batch", "0"], "batch=0 must be at least 1"),
        (["bert_nano", "--microbatches", "0"], "microbatches=0 must be at least 1"),
        ([PRETRAINED, "--steps", "2"], "as it was trained"),
        (["bert_nano", "--variant", "ann", "--bits", "2"], "variant='ann' has no spikes"),
        (["bert_nano", "--steps", "0"], "steps=0 must be"),
        (["bert_nano", "--task", "mln"], "unknown task 'mln'; did you mean 'mlm'"),
        (["vit_nano_patch2_8", "--task", "mlm"], "task='mlm' is of a BERT"),
        ([PRETRAINED, "--task", "mlm"], "as it was trained"),
        (["minilm_l6", "--stages", "2", "--train"], "predicts no label that a step could learn"),
    ],
)
def test_errors_are_one_line(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "remedy"),
    [
        (["bert_nano", "--rate", "1.5"], "must be measured, or a number in [0, 1]"),
        (["bert_nano", "--rate", "x"], "must be measured, or a number in [0, 1]"),
        ([], "name a MODEL; --list shows which there are"),
    ],
)
def test_bad_usage(capsys, argv, remedy):
    with pytest.raises(SystemExit) as caught:
        script.main(argv)
    assert caught.value.code == 2
    assert remedy in capsys.readouterr().err


def test_names(capsys):
    code, out, _ = run(capsys, "--list")
    assert code == 0
    for name in ("vit_nano_patch2_8", PRETRAINED, "loihi-like"):
        assert name in out


def test_as_a_command():
    """Alone in a process, with one device and no fake ones: 16 stages are traced all the same."""
    command = [sys.executable, "-W", "error", "scripts/cost.py", "bert_nano", "--json"]
    done = subprocess.run(
        [*command, "--stages", "4", "--batch", "2"],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["macs"] == 2 * (ENCODER_MACS + 64 * 64)
