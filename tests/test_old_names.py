"""Files and commands of version 0.1.0, written before parts of them were renamed, still work.

`golden/v0.1.0/` was written at commit 97a3072 by `scripts/train.py digits_hnn` with
`train.trains=boundaries`, `model.calibration=metric_refit` and a very small model, and by
`scripts/convert.py`. The scores are what `scripts/evaluate.py` of that commit printed.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from snapjax.boundary import Boundary
from zoo.cli import distill, evaluate
from zoo.cli.completion import vocabulary
from zoo.config.data import DataSpec
from zoo.config.old_names import VALUES, current_tree, saved_tree
from zoo.config.presets import get_preset
from zoo.config.specs import CALIBRATIONS
from zoo.config.values import from_dict, override
from zoo.evaluation.inputs import data_for
from zoo.evaluation.score import score
from zoo.models.calibration import METHODS
from zoo.pretrained.load import load_pretrained
from zoo.train.run import train
from zoo.utils.trees import flatten

OLD = Path(__file__).parent / "golden" / "v0.1.0"
SAVED = {"accuracy": 0.10277777777777777, "loss": 2.3464811537000867}


@pytest.mark.parametrize("name", ["model.safetensors", "run", "run/checkpoints", "run/model"])
def test_old_files_load_and_score_as_they_did(name):
    loaded = load_pretrained(OLD / name)
    steps = loaded.params["boundaries"]["encoder"]["steps_per_feature"]
    saved = load_file(OLD / "model.safetensors")["boundaries.encoder.steps"]
    np.testing.assert_array_equal(steps, saved)
    assert loaded.model.boundary.kept_features == int((saved > 0).sum(-1).max())
    scored = score(loaded, data_for(loaded, DataSpec()), ranks=1)
    assert scored["accuracy"] == pytest.approx(SAVED["accuracy"], abs=1 / 360 + 1e-9)
    assert scored["loss"] == pytest.approx(SAVED["loss"], rel=1e-3)


def test_an_old_run_goes_on(tmp_path):
    shutil.copytree(OLD / "run", tmp_path / "run")
    config = from_dict(json.loads((OLD / "run" / "config.json").read_text()))
    assert config.train.trainable == "boundaries"
    assert config.model.calibration == "sensitivity_pca_refit"
    summary = train(config, tmp_path / "run", resume=True)
    assert summary["loss"] == pytest.approx(SAVED["loss"], rel=1e-3)
    assert summary["train"]["train"]["trainable"] == "boundaries"


def test_old_keys_and_values_are_read_on_the_command_line():
    config = override(
        get_preset("digits_hnn"), ["train.trains=boundaries", "model.calibration=rotation"]
    )
    assert config.train.trainable == "boundaries"
    assert config.model.calibration == "pca"
    assert tuple(METHODS) == CALIBRATIONS
    assert set(VALUES["model.calibration"].values()) <= set(METHODS)


def test_old_options_are_read_and_not_shown():
    scored, taught = evaluate.parser(), distill.parser()
    assert scored.parse_args(["model", "--places", "2"]).ranks == 2
    assert scored.parse_args(["model"]).ranks == 1
    given = ["minilm_l6", "--stages", "3", "--bits", "1", "--data", "a.txt", "--out", "runs/a"]
    assert taught.parse_args([*given, "--trains", "boundaries"]).trainable == "boundaries"
    assert taught.parse_args(given).trainable == "all"
    with pytest.raises(SystemExit):
        taught.parse_args([*given, "--trains", "nothing"])
    shown = scored.format_help() + taught.format_help()
    scripts = {flag for words in vocabulary() for flag in words.flags}
    for old, new in (("--places", "--ranks"), ("--trains", "--trainable")):
        assert re.search(rf"{new}\b", shown)
        assert not re.search(rf"{old}\b", shown)
        assert new in scripts
        assert old not in scripts


def test_an_old_boundary_is_read_and_an_unknown_field_is_named():
    boundary = Boundary(16, "phase", steps=3, budget=12, kept_features=7)
    old = boundary.to_dict()
    old["kept"] = old.pop("kept_features")
    assert Boundary.from_dict(json.loads(json.dumps(old))) == boundary
    assert Boundary.from_dict({"features": 16}) == Boundary(16)
    with pytest.raises(ValueError, match="fields buget, code_name are not known"):
        Boundary.from_dict({"features": 16, "buget": 3, "code_name": "phase"})
    with pytest.raises(ValueError, match="'features' is missing"):
        Boundary.from_dict({"code": "phase"})
    with pytest.raises(ValueError, match="is no mapping"):
        Boundary.from_dict([("features", 3)])


def test_names_of_trees_go_both_ways():
    old = {
        "blocks": {"steps": 1},  # not of a boundary
        "boundaries": {"encoder": {"gain": 2, "steps": 3}, "decoder": {"steps": 4}},
    }
    new = current_tree(old)
    assert flatten(new) == {
        "blocks.steps": 1,
        "boundaries.encoder.gain": 2,
        "boundaries.encoder.steps_per_feature": 3,
        "boundaries.decoder.steps_per_feature": 4,
    }
    assert saved_tree(new, old) == old
    assert saved_tree(new, new) == new
    assert current_tree(new) == new
    assert saved_tree({"params": new}["params"], old, "params") == old
