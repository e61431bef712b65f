"""Boundaries out of files: of the code that the file names, with plans that both ends share."""

import json
import re
from dataclasses import replace

import jax
import numpy as np
import pytest

from zoo import checkpoint, load_pretrained
from zoo.config.old_names import is_added
from zoo.pretrained import single_file
from zoo.pretrained.model_folder import export
from zoo.utils.trees import flatten

SHIPPED = "vit_nano_patch2_8.hnn_digits"


@pytest.fixture(scope="module")
def digits():
    return load_pretrained(SHIPPED)


def as_file(loaded, folder):
    return single_file.save(
        folder / "m.safetensors", loaded.model, loaded.params, loaded.source, loaded.record
    )


def as_folder(loaded, folder):
    boundary = loaded.model.boundary.to_dict()
    return export(folder / "model", loaded.params, {**loaded.record, "boundary": boundary})


def as_checkpoint(loaded, folder):
    record = {**loaded.record, "boundary": loaded.model.boundary.to_dict(), "step": 1}
    checkpoint.save(folder / "run" / "checkpoints", {"params": loaded.params}, record)
    return folder / "run"


def with_plans(loaded, change):
    """The model with its (sent, received) plans put through a function."""
    ends = loaded.params["boundaries"]
    plans = change(*(np.array(ends[end]["steps_per_feature"]) for end in ("encoder", "decoder")))
    changed = {
        end: {**ends[end], "steps_per_feature": plan}
        for end, plan in zip(("encoder", "decoder"), plans, strict=True)
    }
    return replace(loaded, params={**loaded.params, "boundaries": changed})


def renamed(loaded, **fields):
    """The model with another boundary around parameters of the same shapes."""
    boundary = replace(loaded.model.boundary, **fields)
    return replace(loaded, model=loaded.model.with_boundary(boundary))


def marked(loaded):
    """The model with fresh boundaries: those that ship are of version 0.1.0, without a mark."""
    params = loaded.model.with_new_boundaries(loaded.params, jax.random.key(0))
    return replace(loaded, params=params)


@pytest.mark.parametrize("save", [as_file, as_folder, as_checkpoint])
class TestEveryLoader:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda sent, received: (sent, received[:, ::-1]), "hold different plans"),
            (lambda sent, received: (0 * sent - 1,) * 2, "a plan with -1 to -1 steps"),
            (
                lambda sent, received: (0 * sent + 4,) * 2,
                "256 bits does not fit steps=4 and budget",
            ),
        ],
    )
    def test_plans_that_do_not_fit_are_refused(self, digits, tmp_path, save, change, message):
        path = save(with_plans(digits, change), tmp_path)
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: Boundary: .*{message}"):
            load_pretrained(path)

    @pytest.mark.parametrize("fields", [{"code": "latency"}, {"steps": 5}])
    def test_another_code_in_the_record_is_refused(self, digits, tmp_path, save, fields):
        fresh = marked(digits)
        assert load_pretrained(save(fresh, tmp_path / "own")).model == digits.model
        path = save(renamed(fresh, **fields), tmp_path / "other")
        with pytest.raises(ValueError, match="got parameters of code='phase', steps=4 at the enco"):
            load_pretrained(path)

    def test_a_file_without_a_mark_is_taken_by_its_shapes(self, digits, tmp_path, save):
        marks = [leaf for name, leaf in flatten(digits.params).items() if is_added(name)]
        assert len(marks) == 2
        assert not np.any(marks)
        again = load_pretrained(save(digits, tmp_path))
        jax.tree.map(np.testing.assert_array_equal, again.params, digits.params)
        load_pretrained(save(renamed(digits, code="latency"), tmp_path / "latency"))


def test_the_config_of_a_folder_cannot_be_edited_to_another_code(digits, tmp_path):
    folder = as_folder(marked(digits), tmp_path)
    record = json.loads((folder / "config.json").read_text())
    record["boundary"]["code"] = "latency"
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="code='latency', steps=4 got parameters of code='phase'"):
        load_pretrained(folder)
