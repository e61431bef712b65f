"""Files and commands of version 0.1.0, written before parts of them were renamed, still work.

`golden/v0.1.0/` was written at commit 97a3072 by `scripts/train.py digits_hnn` with
`train.trains=boundaries`, `model.calibration=metric_refit` and a very small model, and by
`scripts/convert.py`. The scores are what `scripts/evaluate.py` of that commit printed. Beside them,
of the same commit:

- `run_averaged/`: the same run at more steps with `train.ema=0.9`, `log.save=5` and `log.every=20`.
  Of its checkpoints the one of step 25 is kept, in the middle of a window of metrics; metrics.jsonl
  is that of the whole run.
- `model_on_base/`: what `zoo.pretrained.export` wrote of `vit_nano_patch2_8.ann_digits` with the
  boundaries of `vit_nano_patch2_8.hnn_digits`, on the first as its base.
- `compare_models.json`: of `scripts/compare_models.py vit_nano_patch2_8.ann_digits
  vit_nano_patch2_8.hnn_digits --data digits --codes int8`.
"""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from command_lines import cli
from safetensors.numpy import load_file

from snapjax.boundary import Boundary
from zoo.cli import calibrate, distill, evaluate
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
from zoo.train.logbook import TIMINGS, read_metrics
from zoo.train.run import train
from zoo.utils.trees import flatten

OLD = Path(__file__).parent / "golden" / "v0.1.0"
AVERAGED = OLD / "run_averaged"
BUILT = {"accuracy": 0.5277777777777778, "loss": 1.631728278266059}  # of model_on_base
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


@pytest.mark.slow  # trains twice
def test_an_old_run_with_averaged_weights_goes_on_in_the_middle_of_a_window(tmp_path):
    """Its line of step 40 is a mean over 5 steps that version 0.1.0 made and 15 of this one."""
    shutil.copytree(AVERAGED, tmp_path / "run")
    config = from_dict(json.loads((AVERAGED / "config.json").read_text()))
    record = json.loads(
        (AVERAGED / "checkpoints" / "checkpoint-000005" / "record.json").read_text()
    )
    assert (record["step"], len(record["window"])) == (25, 5)
    with jax.numpy_dtype_promotion("standard"):  # optax raises a decay rate to an integer count
        train(config, tmp_path / "run", resume=True)
    wanted, found = read_metrics(AVERAGED), read_metrics(tmp_path / "run")
    assert [line["step"] for line in found] == [line["step"] for line in wanted] == [20, 40, 44, 44]
    assert found[0] == wanted[0]
    for old, new in zip(wanted, found, strict=True):
        assert (old.keys(), old["kind"]) == (new.keys(), new["kind"])
        for name in old.keys() - {"kind", *TIMINGS}:
            # Held-out accuracy may differ by one of 360 samples on other machines.
            slack = {"accuracy": 1 / 360 + 1e-9}.get(name, 0)
            assert new[name] == pytest.approx(old[name], rel=1e-3, abs=slack), (name, old["step"])


def test_old_averaged_weights_load_and_score_as_they_did():
    loaded = load_pretrained(AVERAGED)
    assert "steps_per_feature" in loaded.params["boundaries"]["encoder"]
    scored = score(loaded, data_for(loaded, DataSpec()), ranks=1)
    assert scored["accuracy"] == pytest.approx(0.125, abs=1 / 360 + 1e-9)
    assert scored["loss"] == pytest.approx(2.3114454481336804, rel=1e-3)


def test_an_old_folder_on_a_base_scores_as_it_did_and_places_are_ranks():
    done = cli("evaluate", OLD / "model_on_base", "--places", "2", "--json")
    assert done.returncode == 0, done.stderr
    scored = json.loads(done.stdout)
    assert scored["ranks"] == 2
    assert scored["accuracy"] == pytest.approx(BUILT["accuracy"], abs=1 / 360 + 1e-9)
    assert scored["loss"] == pytest.approx(BUILT["loss"], rel=1e-3)


def test_trains_is_trainable_on_the_command_line():
    arguments = ["vit_nano_patch2_8.ann_digits", "--data", "digits", "--out", "run"]
    for given in ("--trains", "--trainable"):
        args = distill.parser().parse_args([*arguments, given, "boundaries"])
        assert distill.config_of(args, "vit_nano_patch2_8").train.trainable == "boundaries"


def test_rows_are_added_to_an_old_table(tmp_path):
    table = json.loads((OLD / "compare_models.json").read_text())
    assert "kept" in table["rows"][0]["boundary"]
    out = tmp_path / "table.json"
    # A table is of one version of jax, and this one need not be that of then.
    out.write_text(json.dumps({**table, "jax": jax.__version__}))
    names = ("vit_nano_patch2_8.ann_digits", "vit_nano_patch2_8.hnn_digits")
    more = ("--codes", "int4", "--append", "--out", out, "--json")
    done = cli("compare", "models", *names, "--data", "digits", *more)
    assert done.returncode == 0, done.stderr
    int8, int4, spiking = json.loads(out.read_text())["rows"]
    assert int8 == table["rows"][0]
    assert (int4["code"], int4["weights"]) == ("int4", "dense")
    assert (spiking["code"], spiking["weights"]) == ("phase", "trained")  # in place of the old row
    assert "kept_features" in spiking["boundary"]
    assert spiking["loss"] == pytest.approx(table["rows"][1]["loss"], rel=1e-3)


def test_old_keys_and_values_are_read_on_the_command_line():
    config = override(
        get_preset("digits_hnn"), ["train.trains=boundaries", "model.calibration=rotation"]
    )
    assert config.train.trainable == "boundaries"
    assert config.model.calibration == "pca"
    asked = ["minilm_l6", "--data", "x", "--out", "y", "--method", "metric_refit"]
    assert calibrate.parser().parse_args(asked).method == ["sensitivity_pca_refit"]
    assert distill.parser().parse_args(asked).method == "sensitivity_pca_refit"
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


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"surrogate": {"nme": "atan"}}, "surrogate has the fields nme, .* name, alpha, fires_at"),
        ({"surrogate": {"name": 3}}, "Surrogate: name=3 must be of type str"),
        ({"surrogate": {"alpha": "2"}}, "Surrogate: alpha='2' must be of type float or None"),
        (
            {"surrogate": {"fires_at_zero": "no"}},
            "Surrogate: fires_at_zero='no' must be of type bool",
        ),
        ({"surrogate": "atan"}, "surrogate='atan' must be of type Surrogate"),
        ({"features": "16"}, "features='16' must be of type int"),
        ({"features": True}, "features=True must be of type int"),
        ({"steps": None, "kept": 2.5}, "steps=None .* int; kept_features=2.5 .* int or None"),
        ({"code": ["phase"]}, r"code=\['phase'\] must be of type str"),
        ({"debug": 1}, "debug=1 must be of type bool"),
    ],
)
def test_a_value_of_another_type_in_a_boundary_is_named(fields, error):
    with pytest.raises(ValueError, match=f"^Boundary: {error}"):
        Boundary.from_dict({"features": 16, **fields})


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
