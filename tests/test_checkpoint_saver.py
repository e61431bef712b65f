"""Saving in the background: what is copied, who waits, who hears of errors, and what is kept."""

import math
import shutil
import tempfile
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from zoo.checkpoint import Saver, best, checkpoints, latest, load, load_record, save, writing


def small(value: float = 0) -> dict:
    return {"params": {"w": jnp.full((3, 2), value, jnp.float32)}}


def load_value(path: Path) -> float:
    tree, _ = load(path, jax.eval_shape(small))
    (value,) = set(np.asarray(tree["params"]["w"]).ravel().tolist())
    return value


def steps(folder: Path) -> list[int]:
    return [load_record(path)["step"] for path in checkpoints(folder)]


@pytest.fixture
def gate(monkeypatch):
    """Writes wait for the event; `gate.begun` counts those that have begun."""
    event, real = threading.Event(), writing.write_part
    event.begun = 0

    def held(*arguments):
        event.begun += 1
        assert event.wait(timeout=30)
        real(*arguments)

    monkeypatch.setattr(writing, "write_part", held)
    yield event
    event.set()


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    deadline = time.monotonic() + 10  # those of Orbax that are ending may
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [thread.name for thread in threading.enumerate()] == ["MainThread"]


def test_arrays_may_be_donated_and_changed_while_they_are_written(tmp_path, gate):
    mesh = jax.make_mesh((8,), ("stage",))
    sharded = NamedSharding(mesh, PartitionSpec("stage"))
    whole = NamedSharding(mesh, PartitionSpec())
    values = np.arange(64, dtype=np.float32)
    host = values.copy()
    # Computed, because what is put on a CPU may share numpy's memory, which is never given up.
    computed = lambda place: jax.device_put(values, place) + 0
    tree = {
        "params": {"one": jnp.asarray(values) + 0, "host": host},
        "optimiser": {"sharded": computed(sharded), "whole": computed(whole)},
    }
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
    update = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    with Saver(tmp_path) as saver:
        saver.save(tree, {})
        for array in (tree["params"]["one"], *tree["optimiser"].values()):
            pointer = array.addressable_data(0).unsafe_buffer_pointer()
            updated = update(array)
            # Given up in place, so the copy holds on to nothing.
            assert array.is_deleted()
            assert updated.addressable_data(0).unsafe_buffer_pointer() == pointer
        host[:] = -1
        assert latest(tmp_path) is None
        gate.set()
    loaded, _ = load(tmp_path, shapes)
    for array in jax.tree.leaves(loaded):
        np.testing.assert_array_equal(array, values)


def test_one_write_at_a_time_and_the_caller_goes_on(tmp_path, gate):
    with Saver(tmp_path) as saver:
        saver.save(small(1), {"step": 1})  # returns at once
        second = threading.Thread(target=saver.save, args=(small(2), {"step": 2}))
        second.start()
        second.join(timeout=0.3)
        assert second.is_alive()  # waits for the first
        assert gate.begun == 1
        assert latest(tmp_path) is None
        gate.set()
        second.join()
        assert saver.wait() == tmp_path / "checkpoint-000002"
        assert gate.begun == 2
    assert [load_value(path) for path in checkpoints(tmp_path)] == [1, 2]


@pytest.mark.parametrize("where", ["save", "wait", "close", "leave"])
def test_an_error_is_raised_once_at_the_next_call(tmp_path, monkeypatch, where):
    save(tmp_path, small(1), {"step": 1})

    def full(*arguments):
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device")  # as Orbax tells of it

    saver = Saver(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_part", full)
        saver.save(small(2), {"step": 2})
        call = {
            "save": lambda: saver.save(small(3), {"step": 3}),
            "wait": saver.wait,
            "close": saver.close,
            "leave": lambda: saver.__exit__(None, None, None),
        }[where]
        with pytest.raises(OSError, match="No space left on device") as caught:
            call()
    assert str(caught.value) == (
        f"no checkpoint could be saved into {tmp_path}: RESOURCE_EXHAUSTED: No space left on "
        "device. The earlier checkpoints are kept: checkpoint-000001"
    )
    assert isinstance(caught.value.__cause__, ValueError)
    if where in ("save", "wait"):
        saver.save(small(4), {"step": 4})
    saver.close()
    assert steps(tmp_path) == ([1, 4] if where in ("save", "wait") else [1])
    with pytest.raises(ValueError, match=f"the Saver of {tmp_path} is closed"):
        saver.save(small(5), {"step": 5})


def save_and_raise(folder: Path, error: BaseException) -> None:
    with Saver(folder) as saver:
        saver.save(small(1), {"step": 1})
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("loss is NaN")])
def test_leaving_by_an_exception_waits_for_the_write(tmp_path, gate, error):
    threading.Timer(0.2, gate.set).start()
    with pytest.raises(type(error)) as caught:
        save_and_raise(tmp_path, error)
    assert caught.value is error
    assert not getattr(error, "__notes__", [])
    assert load_value(tmp_path) == 1


def test_leaving_by_an_exception_tells_of_a_failed_write_as_well(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(writing, "write_part", full)
    with pytest.raises(RuntimeError, match="loss is NaN") as caught:
        save_and_raise(tmp_path, RuntimeError("loss is NaN"))
    (note,) = caught.value.__notes__
    assert note.startswith(f"besides: no checkpoint could be saved into {tmp_path}: No space left")


def test_a_folder_that_goes_or_cannot_be_made_is_an_error(tmp_path):
    run = tmp_path / "run"
    with Saver(run) as saver:
        saver.save(small(1), {"step": 1})
        saver.wait()
        shutil.rmtree(run)
        saver.save(small(2), {"step": 2})
        with pytest.raises(OSError, match=f"into {run}: the folder is gone.* are kept: none"):
            saver.wait()
    assert not run.exists()
    run.write_text("in the way")
    for folder in (run, run / "below"):
        with pytest.raises(OSError, match=f"no checkpoint could be saved into {folder}: "):
            save(folder, small(1), {"step": 1})


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"keep": 0}, "keep=0 would remove"),
        ({"keep_best": -1}, "keep_best=-1 must not be negative"),
        ({"best": ("loss", "least")}, r"best=\('loss', 'least'\) must be"),
        ({"best": ("loss",)}, r"best=\('loss',\) must be"),
    ],
)
def test_bad_options(tmp_path, options, match):
    with pytest.raises(ValueError, match=match):
        Saver(tmp_path, **options)


def test_a_metric_needs_a_name(tmp_path):
    with Saver(tmp_path) as saver, pytest.raises(ValueError, match=r"metric=0\.5 has no name"):
        saver.save(small(), {}, metric=0.5)


def kept_by_hand(metrics: list[float | None], keep: int, keep_best: int, sign: int) -> set[int]:
    """Which saves are left: the newest ones, and of all there ever were those with best metrics."""
    order = sorted(
        (n for n, metric in enumerate(metrics) if metric is not None and math.isfinite(metric)),
        key=lambda n: (sign * metrics[n], n),
    )
    return {n for n in range(len(metrics)) if n >= len(metrics) - keep} | set(
        order[len(order) - min(keep_best, len(order)) :]
    )


metrics_of_a_run = st.lists(
    st.sampled_from([None, math.nan, math.inf, -1.0, 0.0, 0.25, 0.5, 0.75, 1.0]), max_size=9
)


@settings(max_examples=40, deadline=None)
@given(metrics_of_a_run, st.integers(1, 3), st.integers(0, 3), st.sampled_from(["max", "min"]))
def test_the_newest_and_the_best_are_kept(metrics, keep, keep_best, mode):
    options = {"keep": keep, "keep_best": keep_best, "best": ("score", mode)}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # What is in the arrays does not matter, and Orbax takes its time.
        patch.setattr(writing, "write_part", lambda path, part: path.mkdir())
        for step, metric in enumerate(metrics):
            # A new Saver each time, as in a run that is resumed: the folder is all it knows.
            with Saver(folder, **options) as saver:
                saver.save(small(), {"step": step}, metric=metric)
            sign = 1 if mode == "max" else -1
            left = kept_by_hand(metrics[: step + 1], keep, keep_best, sign)
            assert steps(folder) == sorted(left)
        top = sorted(kept_by_hand(metrics, 0, 1, 1 if mode == "max" else -1))
        if keep_best:
            assert (best(folder) and [load_record(best(folder))["step"]]) == (top or None)


def test_the_best_survives_a_resumed_run_and_plain_saves(tmp_path):
    metrics = {1: 0.5, 2: 0.9, 3: 0.7, 4: None, 5: 0.8}
    for run in ([1, 2], [3, 4, 5]):
        with Saver(tmp_path, keep=1, keep_best=1, best=("accuracy", "max")) as saver:
            for step in run:
                saver.save(small(step), {"step": step}, metric=metrics[step])
    assert steps(tmp_path) == [2, 5]
    save(tmp_path, small(6), {"step": 6}, keep=1)
    assert steps(tmp_path) == [2, 6]
    assert best(tmp_path) == tmp_path / "checkpoint-000002"
    assert load_record(best(tmp_path))["metric"] == {
        "name": "accuracy",
        "value": 0.9,
        "mode": "max",
    }
    # A loaded record carries its metric; the checkpoint that it is saved into again has none.
    save(tmp_path, small(7), load_record(best(tmp_path)), keep=1)
    assert "metric" not in load_record(latest(tmp_path))


def test_another_metric_begins_afresh_and_a_damaged_record_is_not_best(tmp_path):
    for step, (name, value) in enumerate([("loss", 0.1), ("loss", 0.3), ("loss", 0.2)]):
        with Saver(tmp_path, keep=9, best=(name, "min")) as saver:
            saver.save(small(), {"step": step}, metric=value)
    assert load_record(best(tmp_path))["step"] == 0
    (best(tmp_path) / "record.json").write_text("{")
    assert load_record(best(tmp_path))["step"] == 2
    with Saver(tmp_path, keep=1, keep_best=2, best=("accuracy", "max")) as saver:
        saver.save(small(), {"step": 3}, metric=0.01)
        saver.save(small(), {"step": 4}, metric=jnp.float32(0.25))
    assert steps(tmp_path) == [3, 4]
    assert load_record(best(tmp_path))["metric"]["value"] == 0.25
    assert best(tmp_path / "absent") is None
