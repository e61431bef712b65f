"""Configs: presets, --set, JSON and back, and every error before anything runs."""

import json

import numpy as np
import pytest

from snapjax.neurons.surrogate import Surrogate
from zoo.config.data import DataSpec
from zoo.config.distillation import distillation
from zoo.config.presets import PRESETS, command, get_preset
from zoo.config.specs import DistillSpec, LogSpec, MeshSpec, ModelSpec, RunConfig, TrainSpec
from zoo.config.values import differences, from_dict, override, pairs, to_dict
from zoo.models.build import build_boundary, build_model
from zoo.models.registry import default_boundary


@pytest.mark.parametrize("name", PRESETS)
def test_presets_say_how_they_are_run_and_come_back_from_json(name):
    config = get_preset(name)
    assert config.name == name
    assert f"snapjax train {name}" in PRESETS[name].__doc__
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


BOUNDARIES = {"model.variant", "model.gradient_wire"}
LEARNS = {
    *("model.calibration", "model.steps"),
    *("distill.teacher", "train.epochs", "train.learning_rate"),
}


@pytest.mark.parametrize(
    ("task", "more"),
    [("digits", set()), *((task, LEARNS) for task in ("fashion", "topics", "gutenberg"))],
)
def test_the_hybrid_differs_from_the_dense_run_in_its_boundaries_and_its_teacher(task, more):
    changed = differences(get_preset(f"{task}_ann"), get_preset(f"{task}_hnn"))
    assert {line.partition(":")[0] for line in changed} == BOUNDARIES | more
    if more:
        assert get_preset(f"{task}_hnn").distill.teacher == f"runs/{task}_ann"
    boundary = build_boundary(get_preset(f"{task}_hnn").model, 144)
    assert (boundary.code, boundary.bytes_per_token) == ("phase", 18)


def test_the_surrogate_of_a_config_is_the_boundarys():
    usual = get_preset("digits_hnn")
    assert build_boundary(usual.model, 8).surrogate == default_boundary(8, "hnn").surrogate
    other = override(usual, ["model.surrogate=atan"])
    assert build_boundary(other.model, 8).surrogate == Surrogate("atan")
    wide = override(other, ["model.surrogate_alpha=0.5"])
    assert build_boundary(wide.model, 8).surrogate == Surrogate("atan", 0.5)
    assert build_model(wide.model, classes=10).boundary.surrogate == Surrogate("atan", 0.5)
    for dense in ("model.variant=ann", "model.code=int4"):
        with pytest.raises(ValueError, match="surrogate='atan' is for spikes"):
            build_boundary(override(other, [dense]).model, 8)


def test_override_reads_values_as_their_type():
    config = override(
        get_preset("digits_hnn"),
        ["train.epochs=4", "train.ema=0.99", "mesh.fsdp=no", "model.layers=8", "model.code=rate"],
    )
    assert (config.train.epochs, config.train.ema, config.mesh.fsdp) == (4, 0.99, False)
    assert (config.model.layers, config.model.code) == (8, "rate")
    assert override(config, ["model.layers=none"]).model.layers is None
    assert pairs(config)["train.epochs"] == 4


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.epoch=4", "unknown key 'train.epoch'; did you mean 'train.epochs'"),
        ("epochs=4", "unknown key 'epochs'; did you mean 'train.epochs'"),
        ("train.epochs_=4", "`snapjax train --keys` lists all keys"),
        ("train.epochs", "must be KEY=VALUE"),
        ("train.epochs=four", "train.epochs='four' is not a value of type int"),
        ("train.epochs=1.5", "train.epochs='1.5' is not a value of type int"),
        ("mesh.fsdp=maybe", "mesh.fsdp='maybe' is not a value of type bool"),
        ("train.epochs=0", "train.epochs=0 must be at least 1"),
        ("train.learning_rate=nan", "train.learning_rate=nan must be a finite number"),
        ("train.learning_rate=inf", "train.learning_rate=inf must be a finite number"),
        ("train.weight_decay=inf", "train.weight_decay=inf must be a finite number"),
        ("train.learning_rate=1e999", "train.learning_rate=1e999 must be a finite number"),
        ("train.clip=inf", "train.clip=inf must be a finite number"),
        ("data.noise=-inf", "data.noise=-inf must be a finite number"),
        ("data.mean=0.5,nan", "data.mean='0.5,nan' is not a value of type tuple"),
        ("model.precision=float16", "unknown precision 'float16'; did you mean 'bfloat16'"),
        ("mesh.stage=3", "mesh.stage=3 must divide model.stages=4"),
        ("train.batch_size=30", "train.batch_size=30 must be a multiple of 4"),
        ("model.dropout=1", r"model.dropout=1.0 must be in \[0, 1\)"),
        ("log.every=0", "log.every=0 must be at least 1"),
    ],
)
def test_bad_assignments(assignment, message):
    with pytest.raises(ValueError, match=message):
        override(get_preset("digits_hnn"), [assignment])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (TrainSpec, {"batch_size": 0}, "batch_size=0"),
        (TrainSpec, {"microbatches": 0}, "microbatches=0"),
        (TrainSpec, {"learning_rate": 0.0}, "learning_rate=0.0"),
        (TrainSpec, {"weight_decay": -1.0}, "weight_decay=-1.0"),
        (TrainSpec, {"seed": -1}, "seed=-1"),
        (TrainSpec, {"seed": 2**32}, "seed=4294967296"),
        (TrainSpec, {"clip": 0.0}, "clip=0.0"),
        (TrainSpec, {"learning_rate": float("inf")}, "train.learning_rate=inf must be a finite"),
        (TrainSpec, {"weight_decay": np.float32("inf")}, "train.weight_decay=inf must be a finite"),
        (TrainSpec, {"clip": 10**400}, "must be a finite number"),
        (TrainSpec, {"epochs": 2.5}, "train.epochs='2.5' is not a value of type int"),
        (TrainSpec, {"epochs": None}, "train.epochs='None' is not a value of type int"),
        (MeshSpec, {"fsdp": 2}, "mesh.fsdp='2' is not a value of type bool"),
        (LogSpec, {"keep": "many"}, "log.keep='many' is not a value of type int"),
        (DistillSpec, {"teacher": 5}, "distill.teacher='5' is not a value of type str"),
        (DataSpec, {"mean": 0.5, "std": 0.5}, "data.mean='0.5' is not a value of type tuple"),
        (RunConfig, {"name": "x", "model": {"layers": 2}}, "RunConfig: model=.* must be a Model"),
        (TrainSpec, {"epochs": 10**12}, "epochs=1000000000000"),
        (TrainSpec, {"warmup": 1.0}, "warmup=1.0"),
        (TrainSpec, {"ema": 1.0}, "ema=1.0"),
        (MeshSpec, {"data": 0}, "data=0"),
        (MeshSpec, {"fsdp": True}, "fsdp=True shards over mesh.data=1"),
        (ModelSpec, {"bits_per_feature": 0.0}, "bits_per_feature=0.0"),
        (ModelSpec, {"bits_per_feature": float("inf")}, "bits_per_feature=inf"),
        (ModelSpec, {"stages": 0}, "stages=0"),
        (ModelSpec, {"surrogate": "atann"}, "model.surrogate: unknown surrogate 'atann'"),
        (ModelSpec, {"surrogate": "atan", "surrogate_alpha": 0.0}, "model.surrogate: alpha=0.0"),
        (
            ModelSpec,
            {"surrogate_alpha": 2.0},
            "surrogate_alpha=2.0 is the width of a",
        ),
    ],
)
def test_bad_options(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)


def test_a_saved_config_with_unknown_or_missing_keys_is_refused():
    saved = to_dict(get_preset("digits_ann"))
    with pytest.raises(ValueError, match=r"unknown key in config.train 'epoch'.*'epochs'"):
        from_dict({**saved, "train": {"epoch": 3}})
    with pytest.raises(ValueError, match=r"config.train must be a JSON object"):
        from_dict({**saved, "train": 3})
    with pytest.raises(ValueError, match="no 'name'"):
        from_dict({})


def test_differences_name_the_key_and_both_values():
    config = RunConfig("x")
    changed = override(config, ["train.epochs=3", "log.every=5"])
    assert differences(config, changed) == ["train.epochs: 40, now 3", "log.every: 20, now 5"]
    assert differences(config, changed, ("log",)) == ["train.epochs: 40, now 3"]
    assert differences(config, changed, ("train.epochs",)) == ["log.every: 20, now 5"]


def test_a_distillation_fits_spikes_first_and_has_no_labels():
    student = ("a_teacher", "lines.txt", "bert_nano")
    config = distillation(*student, steps=4, assignments=["mesh.data=2"])
    assert (config.model.variant, config.model.calibration) == ("hnn", "sensitivity_pca_refit")
    assert (config.model.steps, config.mesh.data, config.data.task) == (4, 2, "unlabelled")
    assert (config.distill.teacher, config.data.source) == ("a_teacher", "lines.txt")
    named = distillation(student[0], "a/x.tsv:one", *student[2:]).data
    assert (named.source, named.text_column) == ("a/x.tsv", "one")
    dense = distillation(*student, code="int4")
    assert (dense.model.variant, dense.model.calibration) == ("ann", "variance")


def test_unknown_preset():
    with pytest.raises(ValueError, match="unknown preset 'digit_hnn'; did you mean 'digits_hnn'"):
        get_preset("digit_hnn")


def test_the_command_of_a_run_makes_its_config_again_and_names_no_place_of_a_machine(tmp_path):
    usual = ["train.epochs=3", "data.image_size=28", "data.mean=0.5,0.25", "data.std=1,2"]
    for source in ("topics", "fashion_mnist", "zalando/fashion_mnist"):
        config = override(get_preset("digits_ann"), [*usual, f"data.source={source}"])
        program, verb, name, *words = command(config).split()
        assert (program, verb, name) == ("snapjax", "train", "digits_ann")
        assert set(words[::2]) == {"--set"}
        assert override(get_preset(name), words[1::2]) == config
    for source in (str(tmp_path), "../data", "./digits", "~/books", "one/two/three"):
        config = override(get_preset("digits_ann"), [f"data.source={source}"])
        assert command(config).endswith("digits_ann --set data.source=FOLDER")
    config = override(get_preset("digits_ann"), [f"data.tokenizer={tmp_path / 'tokenizer.json'}"])
    assert str(tmp_path) not in command(config)
