"""Every damage to a checkpoint's files is found, named, and passed over only on request."""

import errno
import gc
import hashlib
import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.checkpoint import DamagedCheckpoint, checkpoints, folder, load, load_record, save


def small(value: int = 0) -> dict:
    params = {"a": {"w": jnp.full((3, 2), value, jnp.float32)}, "b": jnp.full((2,), value)}
    return {"params": params}


def abstract(tree: dict) -> dict:
    return jax.eval_shape(lambda: tree)


def bits(tree: dict) -> dict:
    return jax.tree.map(lambda x: (str(x.dtype), x.shape, np.asarray(x).tobytes()), tree)


def test_every_damaged_file_is_found_and_passed_over_on_request(tmp_path):
    params = {"w": jax.random.normal(jax.random.key(0), (300, 400)), "b": jnp.zeros(4)}
    tree, other = {"params": params}, {"params": jax.tree.map(lambda x: x + 1, params)}
    old = save(tmp_path, other, {"step": 1})
    path = save(tmp_path, tree, {"step": 2})
    # Orbax alone loads wrong numbers from an array file with a flipped bit.
    names = [file for file in sorted(path.rglob("*")) if file.is_file()]
    assert any(file.stat().st_size > 400_000 for file in names)
    for file in names:
        whole = file.read_bytes()
        flipped = bytes([whole[0] ^ 16]) + whole[1:] if whole else b"x"
        for damage in (whole[: len(whole) // 2] if whole else b"xx", flipped, None):
            if damage is None:
                file.unlink()
            else:
                file.write_bytes(damage)
            with pytest.raises(DamagedCheckpoint, match=f"checkpoint {path} is damaged") as caught:
                load(tmp_path, abstract(tree))
            message = str(caught.value)
            assert file.relative_to(path).as_posix() in message
            assert "also there: checkpoint-000001; load with fallback (--fallback)" in message
            if file.name == "record.json":
                with pytest.raises(DamagedCheckpoint, match="also there: checkpoint-000001"):
                    load_record(tmp_path)
            skipped = []
            loaded, record = load(tmp_path, abstract(tree), fallback=True, on_skip=skipped.append)
            assert skipped == [message]
            assert record == {"step": 1, "path": str(old)}
            assert bits(loaded) == bits(other)
            file.write_bytes(whole)
    skipped = []
    loaded, _ = load(tmp_path, abstract(tree), fallback=True, on_skip=skipped.append)
    assert bits(loaded) == bits(tree)
    assert skipped == []
    (path / "params" / "extra").write_text("x")
    with pytest.raises(DamagedCheckpoint, match=r"params/extra: saved nothing; found 1 bytes"):
        load(tmp_path, abstract(tree))


def test_fallback_goes_back_as_far_as_needed_and_says_when_nothing_is_whole(tmp_path):
    for step in range(4):
        save(tmp_path, small(step), {"step": step}, keep=4)
    paths = checkpoints(tmp_path)
    shutil.rmtree(paths[3] / "params")
    (paths[2] / "checksums.json").write_text("[]")
    (paths[1] / "record.json").unlink()
    assert load(tmp_path, abstract(small()), fallback=True)[1]["step"] == 0
    # One checkpoint by its own name is that one or nothing.
    with pytest.raises(DamagedCheckpoint, match="holds no checkpoint that is whole"):
        load(paths[3], abstract(small()), fallback=True)
    (paths[0] / "checksums.json").write_text("{}")
    skipped = []
    with pytest.raises(DamagedCheckpoint, match="holds no checkpoint that is whole") as caught:
        load(tmp_path, abstract(small()), fallback=True, on_skip=skipped.append)
    named = [line.split()[1] for line in skipped]  # "checkpoint PATH is damaged"
    assert named == [str(path) for path in paths[::-1]]
    assert all(reason in str(caught.value) for reason in skipped)
    (tmp_path / "new").mkdir()
    with pytest.raises(ValueError, match=r"holds no checkpoint: .* found nothing"):
        load(tmp_path / "new", abstract(small()), fallback=True)


def test_a_file_that_cannot_be_read_is_damage(tmp_path, monkeypatch):
    for step in (1, 2):
        path = save(tmp_path, small(step), {"step": step})
    real = hashlib.file_digest

    def failing(file, algorithm):
        if Path(file.name).is_relative_to(path / "params"):
            raise OSError(errno.EIO, "Input/output error")
        return real(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", failing)
    with pytest.raises(DamagedCheckpoint, match=r"found what cannot be read \(.*Input/output"):
        load(tmp_path, abstract(small()))
    assert load(tmp_path, abstract(small()), fallback=True)[1]["step"] == 1


def test_recorded_names_open_no_file(tmp_path):
    path = save(tmp_path / "run", small(), {})
    sums = json.loads((path / "checksums.json").read_text())
    (tmp_path / "secret").write_text("x")
    sums["params/../../../secret"] = "1 bytes, SHA-256 " + "0" * 64
    (path / "checksums.json").write_text(json.dumps(sums))
    with pytest.raises(DamagedCheckpoint, match=r"params/\.\..*secret: saved .*; found nothing"):
        load(path, abstract(small()))


def resign(path: Path) -> None:
    """Makes the checksums those of the files as they are now, as somebody would who edits them."""
    sums = folder.checksums(path)
    (path / "checksums.json").write_text(json.dumps({**sums, "together": folder.together(sums)}))


def test_parts_of_two_saves_do_not_load_as_one(tmp_path):
    """Each part with its own lines of checksums, as when files are copied from one to the other."""
    old, new = (save(tmp_path, {**small(step), "optimiser": {"m": small(step)["params"]}},
                     {"step": step}) for step in (1, 2))  # fmt: skip
    sums = [json.loads((path / "checksums.json").read_text()) for path in (old, new)]
    shutil.rmtree(new / "optimiser")
    shutil.copytree(old / "optimiser", new / "optimiser")
    mixed = {
        **{name: line for name, line in sums[1].items() if not name.startswith("optimiser/")},
        **{name: line for name, line in sums[0].items() if name.startswith("optimiser/")},
    }
    (new / "checksums.json").write_text(json.dumps(mixed))
    asked = abstract(small())
    # The part that is not asked for is not read, but that it is another's shows all the same.
    with pytest.raises(DamagedCheckpoint, match="its lines are of more than one save"):
        load(tmp_path, asked)
    with pytest.raises(DamagedCheckpoint, match="its lines are of more than one save"):
        load_record(tmp_path)
    assert load(tmp_path, asked, fallback=True)[1]["step"] == 1


def test_a_checkpoint_without_the_common_digest_loads_as_in_version_0_1_0(tmp_path):
    path = save(tmp_path, small(), {"step": 1})
    sums = json.loads((path / "checksums.json").read_text())
    del sums["together"]
    (path / "checksums.json").write_text(json.dumps(sums))
    assert load(tmp_path, abstract(small()))[1]["step"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"record.json: \[\] must be an object"),
        ("null", "record.json: null must be an object"),
        ("[" * 100_000, "record.json: its JSON is nested too deeply to be read"),
        ("\xff", "record.json: byte 0 is not UTF-8"),
    ],
)
def test_a_record_that_is_none_is_damage_with_the_right_checksum_too(tmp_path, text, message):
    path = save(tmp_path, small(), {"step": 1})
    (path / "record.json").write_bytes(text.encode("latin-1"))
    resign(path)
    for read in (load_record, lambda where: load(where, abstract(small()))):
        with pytest.raises(DamagedCheckpoint, match=message):
            read(tmp_path)


# What Orbax leaves of a failed read speaks to its closed event loop when it is collected: here, and
# not in whichever test comes next.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_orbax_cannot_read_is_damage_with_the_right_checksums_too(tmp_path):
    good = save(tmp_path, small(), {"step": 1})
    path = save(tmp_path, small(), {"step": 2})
    for name in ("_METADATA", "manifest.ocdbt"):
        whole = (path / "params" / name).read_bytes()
        (path / "params" / name).write_bytes(b"{}" if name == "_METADATA" else whole[:7])
        resign(path)
        with pytest.raises(ValueError, match=f"checkpoint {path}"):
            load(path, abstract(small()))
        (path / "params" / name).write_bytes(whole)
    assert load(good, abstract(small()))[1]["step"] == 1
    gc.collect()


def test_a_check_of_the_caller_makes_damage_that_is_passed_over_on_request(tmp_path):
    for step in (1, 2):
        save(tmp_path, small(step), {"step": step})

    def check(tree, record):
        if record["step"] == 2:
            assert bits(tree) == bits(small(2))
            raise ValueError("step=2 is too far")

    with pytest.raises(DamagedCheckpoint, match=r"checkpoint-000002 .*(?s:.*)step=2 is too far"):
        load(tmp_path, abstract(small()), check=check)
    assert load(tmp_path, abstract(small()), check=check, fallback=True)[1]["step"] == 1


@pytest.mark.parametrize("name", ["checksums.json", "record.json"])
def test_a_pipe_in_the_place_of_a_record_is_damage_and_not_waited_for(tmp_path, name):
    path = save(tmp_path, small(), {"step": 1})
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(DamagedCheckpoint, match=f"{name}"):
        load(tmp_path, abstract(small()))
