"""A save stopped at any moment, by an error, Ctrl-C or SIGKILL, leaves complete checkpoints."""

import errno
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

import zoo
from zoo.checkpoint import Saver, checkpoints, load, load_record, save, writing


def small(value: int = 0) -> dict:
    part = lambda: {"a": {"w": jnp.full((3, 2), value, jnp.float32)}, "b": jnp.full((2,), value)}
    return {"params": part(), "optimiser": part()}


def load_value(folder: Path) -> int:
    """The value that the newest checkpoint of `small` parameters is full of."""
    tree, record = load(folder, jax.eval_shape(small))
    values = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])
    assert values.tolist() == [record["step"]] * 16
    return record["step"]


def visible(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# Every place where a save hands over to the disk, in order.
STEPS = [
    "write_part 1",
    "write_part 2",
    "write_json 1",
    "checksums",
    "write_json 2",
    "rename 1",
    "rename 2",
]


def break_at(step: str, monkeypatch, action) -> None:
    """Makes a save call `action` right before one of its steps."""
    name, _, count = step.partition(" ")
    real = os.rename if name == "rename" else getattr(writing, name)
    calls = []

    def broken(*arguments):
        calls.append(arguments)
        if len(calls) == int(count or 1):
            action()
        return real(*arguments)

    if name == "rename":  # the module's own renames and not Orbax's
        monkeypatch.setattr(writing, "os", types.SimpleNamespace(rename=broken))
    else:
        monkeypatch.setattr(writing, name, broken)


@pytest.mark.parametrize("step", STEPS)
def test_a_full_disk_at_any_step_leaves_old_or_new(tmp_path, monkeypatch, step):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device", "some file")

    for value in (1, 2):
        save(tmp_path, small(value), {"step": value})
    newest = 3 if step == "rename 2" else 2  # rename 2 removes an old one: the new one is there
    with Saver(tmp_path) as saver:
        with monkeypatch.context() as patch:
            break_at(step, patch, full)
            saver.save(small(3), {"step": 3})  # in the background
            with pytest.raises(OSError, match="No space left on device: 'some file'") as caught:
                saver.wait()
        there = visible(tmp_path)
        assert str(tmp_path) in str(caught.value)
        assert f"The earlier checkpoints are kept: {', '.join(there)}" in str(caught.value)
        assert all(name.startswith("checkpoint-") for name in there)
        assert load_value(tmp_path) == newest
        saver.save(small(4), {"step": 4})
    assert [load_record(path)["step"] for path in checkpoints(tmp_path)] == [newest, 4]
    assert len(visible(tmp_path)) == 2


def test_all_of_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Or a machine that loses power would be left with an empty one, and the older ones removed."""
    real, rename, synced, named = os.fsync, os.rename, set(), []

    def fsync(opened):
        real(opened)
        synced.add(os.fstat(opened).st_ino)

    def renamed(source, target):
        if Path(target).name == "checkpoint-000001":
            named.append(set(synced))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    path = save(tmp_path, small(1), {"step": 1})
    (before,) = named
    entries = [path, *path.rglob("*")]
    assert len(entries) > 10
    assert [entry for entry in entries if entry.stat().st_ino not in before] == []
    assert tmp_path.stat().st_ino in synced - before


# Saves into a file system that takes no file of more than 100 kB, as a full disk takes none.
LIMITED = """
import resource, sys
import jax.numpy as jnp, numpy as np
from zoo.checkpoint import Saver

noise = lambda count: np.random.default_rng(0).standard_normal(count).astype(np.float32)
with Saver(sys.argv[1]) as saver:
    for step in (1, 2):
        saver.save({"params": {"w": noise(100)}}, {"step": step})
    saver.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    saver.save({"params": {"w": noise(100_000)}}, {"step": 3})
    try:
        saver.wait()
    except OSError as error:
        print(error)
    saver.save({"params": {"w": noise(100)}}, {"step": 4})
"""


def test_a_real_write_error_inside_orbax(tmp_path):
    done = subprocess.run(**child(LIMITED, tmp_path), timeout=120, check=True)
    assert f"no checkpoint could be saved into {tmp_path}: " in done.stdout
    assert "File too large" in done.stdout
    assert "kept: checkpoint-000001, checkpoint-000002" in done.stdout
    assert visible(tmp_path) == ["checkpoint-000002", "checkpoint-000003"]
    shapes = {"params": {"w": jax.ShapeDtypeStruct((100,), jnp.float32)}}
    for path, step in zip(checkpoints(tmp_path), (2, 4), strict=True):
        tree, record = load(path, shapes)
        expected = np.random.default_rng(0).standard_normal(100).astype(np.float32)
        np.testing.assert_array_equal(tree["params"]["w"], expected)
        assert record["step"] == step


# Saves 1, 2, 3, ... in the background, computing meanwhile, and reports each that is on the disk;
# with a step's name, dies in it during the third save.
CHILD = """
import os, signal, sys
import jax.numpy as jnp, numpy as np
sys.path.insert(0, sys.argv[3])
from test_checkpoint_interrupts import break_at
from zoo.checkpoint import Saver, latest, load_record
import pytest

folder, step = sys.argv[1:3]
first = load_record(folder)["step"] + 1 if latest(folder) else 1
with Saver(folder) as saver:
    for value in range(first, first + (5 if step else 100_000)):
        noise = np.random.default_rng(value).standard_normal((200, 300)).astype(np.float32)
        if step and value == first + 2:
            saver.wait()
            print(value - 1, flush=True)
            die = lambda: os.kill(os.getpid(), signal.SIGKILL)
            break_at(step, pytest.MonkeyPatch(), die)
        saver.save({"params": {"noise": noise}, "more": {"value": jnp.full((4,), value)}},
                   {"step": value})  # the one before is complete
        if value > first and not (step and value == first + 2):
            print(value - 1, flush=True)
"""


# Interrupts saves and loads by Ctrl-C's signal, in turns, at moments over their whole length.
INTERRUPTED = """
import random, signal, sys, threading, time
import jax, jax.numpy as jnp
from zoo.checkpoint import load, save

folder, params = sys.argv[1], {"params": {"w": jnp.arange(60_000.0).reshape(200, 300)}}
shapes, draw, hits = jax.eval_shape(lambda: params), random.Random(0), [0, 0]
newest, step = 0, 0
for _ in range(2):
    start = time.perf_counter()
    save(folder, params, {"step": 0})
    middle = time.perf_counter()
    load(folder, shapes)
    length = middle - start, time.perf_counter() - middle
# On a busy machine a call ends before its signal more often than not: until each was hit enough.
while (step < 40 or min(hits) < 4) and step < 400:
    step += 1
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
    assert (loaded["params"]["w"] == params["params"]["w"]).all()
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
        "cwd": Path(zoo.__file__).parents[1],
        "env": {**os.environ, "JAX_PLATFORMS": "cpu"},
    }


def newest_step(folder: Path) -> int:
    """The newest checkpoint's step, after its arrays were found to be those of that step."""
    shapes = {
        "params": {"noise": jax.ShapeDtypeStruct((200, 300), jnp.float32)},
        "more": {"value": jax.ShapeDtypeStruct((4,), jnp.int32)},
    }
    for path in checkpoints(folder):  # each of them, not only the newest
        tree, record = load(path, shapes)
        noise = np.random.default_rng(record["step"]).standard_normal((200, 300))
        np.testing.assert_array_equal(tree["params"]["noise"], noise.astype(np.float32))
        assert tree["more"]["value"].tolist() == [record["step"]] * 4
    return load_record(folder)["step"]


@pytest.mark.slow  # processes that are killed
def test_sigkill_at_random_moments_leaves_loadable_checkpoints(tmp_path):
    draw = random.Random(0)
    for _ in range(2):
        with subprocess.Popen(**child(CHILD, tmp_path)) as process:
            for _ in range(draw.randint(2, 6)):
                reported = int(process.stdout.readline())
            time.sleep(draw.uniform(0, 0.06))  # a save takes about 0.04 s
            process.send_signal(signal.SIGKILL)
            reported = max([reported, *(int(line) for line in process.stdout.read().split())])
        assert process.returncode == -signal.SIGKILL
        # A save that was not reported may have been complete, and the one after it as well.
        assert newest_step(tmp_path) in range(reported, reported + 3)
    save(tmp_path, small(), {})
    assert len(visible(tmp_path)) == 2
    assert all(name.startswith("checkpoint-") for name in visible(tmp_path))


@pytest.mark.slow  # a process that is interrupted until each call was hit often enough
def test_interrupts_at_random_moments_leave_checkpoints_and_no_threads(tmp_path):
    # It has to end as well: a thread that waits for ever would hold it.
    done = subprocess.run(**child(INTERRUPTED, tmp_path), timeout=120, check=True)
    assert done.stdout == "True 1\n"
    save(tmp_path, small(), {})
    assert len(visible(tmp_path)) == 2


@pytest.mark.slow  # seven processes that are killed
@pytest.mark.parametrize("step", STEPS)
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
