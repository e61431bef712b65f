"""A save stopped at any moment, by an exception, Ctrl-C or SIGKILL, leaves complete checkpoints."""

import os
import random
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import checkpoint
from zoo.checkpoint import checkpoints, load, load_record, save


def small(value: int = 0) -> dict:
    return {"a": {"w": jnp.full((3, 2), value, jnp.float32)}, "b": jnp.full((2,), value, jnp.int32)}


def load_value(folder: Path) -> int:
    """The value that the newest checkpoint of `small` parameters is full of."""
    params, record = load(folder, jax.eval_shape(small))
    values = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(params)])
    assert values.tolist() == [record["step"]] * 8
    return record["step"]


def visible(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# Every place where save() hands over to the disk, in order.
STEPS = ["_write_params", "write_json 1", "_checksums", "write_json 2", "rename 1", "rename 2"]


def break_at(step: str, monkeypatch, action) -> None:
    """Makes save() call `action` right before one of its steps."""
    name, _, count = step.partition(" ")
    real = os.rename if name == "rename" else getattr(checkpoint, name)
    calls = []

    def broken(*arguments):
        calls.append(arguments)
        if len(calls) == int(count or 1):
            action()
        return real(*arguments)

    if name == "rename":  # the module's own renames and not Orbax's
        monkeypatch.setattr(checkpoint, "os", types.SimpleNamespace(rename=broken))
    else:
        monkeypatch.setattr(checkpoint, name, broken)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space left")])
def test_an_interrupted_save_leaves_old_or_new(tmp_path, monkeypatch, step, error):
    def stop():
        raise error

    for value in (1, 2):
        save(tmp_path, small(value), {"step": value})
    with monkeypatch.context() as patch:
        break_at(step, patch, stop)
        with pytest.raises(BaseException, match=r"^(no space left)?$"):
            save(tmp_path, small(3), {"step": 3})
    newest = 3 if step == "rename 2" else 2  # rename 2 removes an old one: the new one is there
    assert load_value(tmp_path) == newest
    assert all(name.startswith("checkpoint-") for name in visible(tmp_path))
    save(tmp_path, small(4), {"step": 4})
    assert [load_record(path)["step"] for path in checkpoints(tmp_path)] == [newest, 4]
    assert len(visible(tmp_path)) == 2


def test_an_interrupt_inside_orbax_leaves_the_old(tmp_path, monkeypatch):
    from orbax.checkpoint import v1 as ocp

    def half(path, params, **options):
        Path(path).mkdir()
        (Path(path) / "half").write_text("x")
        raise KeyboardInterrupt

    save(tmp_path, small(1), {"step": 1})
    with monkeypatch.context() as patch:
        patch.setattr(ocp, "save", half)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, small(2), {"step": 2})
    assert visible(tmp_path) == ["checkpoint-000001"]
    assert load_value(tmp_path) == 1


# Saves 1, 2, 3, ... and reports each; with a step's name, dies in it during the third save.
CHILD = """
import os, signal, sys
import jax.numpy as jnp, numpy as np
sys.path.insert(0, sys.argv[3])
from test_checkpoint_interrupts import break_at
from zoo.checkpoint import latest, load_record, save
import pytest

folder, step = sys.argv[1:3]
first = load_record(folder)["step"] + 1 if latest(folder) else 1
for value in range(first, first + (5 if step else 100_000)):
    if step and value == first + 2:
        die = lambda: os.kill(os.getpid(), signal.SIGKILL)
        break_at(step, pytest.MonkeyPatch(), die)
    noise = np.random.default_rng(value).standard_normal((200, 300)).astype(np.float32)
    save(folder, {"noise": noise, "value": jnp.full((4,), value)}, {"step": value})
    print(value, flush=True)
"""


# Interrupts saves and loads by Ctrl-C's signal, in turns, at moments over their whole length.
INTERRUPTED = """
import random, signal, sys, threading, time
import jax, jax.numpy as jnp
from zoo.checkpoint import load, save

folder, params = sys.argv[1], {"w": jnp.arange(60_000.0).reshape(200, 300)}
shapes, draw, hits, newest = jax.eval_shape(lambda: params), random.Random(0), [0, 0], 0
for _ in range(2):
    start = time.perf_counter()
    save(folder, params, {"step": 0})
    middle = time.perf_counter()
    load(folder, shapes)
    length = middle - start, time.perf_counter() - middle
for step in range(1, 41):
    reads, finished = step % 2, False
    try:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-4, length[reads]))
        load(folder, shapes) if reads else save(folder, params, {"step": step})
        finished = True
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        hits[reads] += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    loaded, record = load(folder, shapes)
    assert (loaded["w"] == params["w"]).all()
    assert record["step"] in ({newest} if reads else {step} if finished else {newest, step})
    newest = record["step"]
deadline = time.monotonic() + 20  # a thread that is ending may; one that waits for ever will not
while threading.active_count() > 1 and time.monotonic() < deadline:
    time.sleep(0.05)
print(min(hits) > 3, threading.active_count())
"""


def child(code: str, folder: Path, step: str = "") -> dict:
    """The arguments of subprocess for a process of one CPU device that runs `code`."""
    return {
        "args": [sys.executable, "-c", code, str(folder), step, str(Path(__file__).parent)],
        "stdout": subprocess.PIPE,
        "text": True,
        "cwd": Path(checkpoint.__file__).parents[1],
        "env": {**os.environ, "JAX_PLATFORMS": "cpu"},
    }


def newest_step(folder: Path) -> int:
    """The newest checkpoint's step, after its arrays were found to be those of that step."""
    shapes = {
        "noise": jax.ShapeDtypeStruct((200, 300), jnp.float32),
        "value": jax.ShapeDtypeStruct((4,), jnp.int32),
    }
    for path in checkpoints(folder):  # each of them, not only the newest
        params, record = load(path, shapes)
        noise = np.random.default_rng(record["step"]).standard_normal((200, 300))
        np.testing.assert_array_equal(params["noise"], noise.astype(np.float32))
        assert params["value"].tolist() == [record["step"]] * 4
    return load_record(folder)["step"]


def test_sigkill_at_random_moments_leaves_loadable_checkpoints(tmp_path):
    draw = random.Random(0)
    for _ in range(3):
        with subprocess.Popen(**child(CHILD, tmp_path)) as process:
            for _ in range(draw.randint(2, 6)):
                reported = int(process.stdout.readline())
            time.sleep(draw.uniform(0, 0.06))  # a save takes about 0.04 s
            process.send_signal(signal.SIGKILL)
            reported = max([reported, *(int(line) for line in process.stdout.read().split())])
        assert process.returncode == -signal.SIGKILL
        # A save that was not reported may have been complete.
        assert newest_step(tmp_path) in (reported, reported + 1)
    save(tmp_path, small(), {})
    assert len(visible(tmp_path)) == 2
    assert all(name.startswith("checkpoint-") for name in visible(tmp_path))


def test_interrupts_at_random_moments_leave_checkpoints_and_no_threads(tmp_path):
    # It has to end as well: a thread that waits for ever would hold it.
    done = subprocess.run(**child(INTERRUPTED, tmp_path), timeout=120, check=True)
    assert done.stdout == "True 1\n"
    save(tmp_path, small(), {})
    assert len(visible(tmp_path)) == 2


@pytest.mark.parametrize("step", ["write_json 2", "rename 1", "rename 2"])
def test_sigkill_between_two_steps_leaves_loadable_checkpoints(tmp_path, step):
    done = subprocess.run(**child(CHILD, tmp_path, step), timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == ["1", "2"]
    assert newest_step(tmp_path) == (3 if step == "rename 2" else 2)
    debris = [name for name in visible(tmp_path) if not name.startswith("checkpoint-")]
    assert len(debris) == (0 if step == "rename 2" else 1)
    save(tmp_path, small(), {})
    assert len(visible(tmp_path)) == 2
    assert all(name.startswith("checkpoint-") for name in visible(tmp_path))
