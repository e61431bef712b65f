"""Two real processes over the loopback: both save, one writes, both load, and one loads alone."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import zoo
from zoo.checkpoint import checkpoints, load, load_record

VALUES = np.arange(32, dtype=np.float32).reshape(8, 4)

# One of two processes with two devices each. It prints a line when all of its asserts have held.
PROCESS = """
import errno, os, sys, threading, time
import jax

folder, port, index = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
import jax.numpy as jnp, ml_dtypes, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from zoo.checkpoint import Saver, check_writable, checkpoints, load, load_record, save, writing

assert len(jax.devices()) == 4 and len(jax.local_devices()) == 2
line = Mesh(np.array(jax.devices()), ("stage",))
grid = Mesh(np.array(jax.devices()).reshape(2, 2).T, ("data", "model"))  # data over processes
values = np.arange(32, dtype=np.float32).reshape(8, 4)
dtypes = {"float": np.float32, "short": ml_dtypes.bfloat16, "whole": np.int32}

def put(value, mesh, *spec):
    sharding = NamedSharding(mesh, P(*spec))
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

def tree(step):
    return {
        "params": {
            "stages": {name: put((values + step).astype(kind), line, "stage")
                       for name, kind in dtypes.items()},
            "tiled": put(values + step, grid, "model", "data"),
            "everywhere": put(values + step, line),
        },
        "optimiser": {"here": jnp.asarray(values + step), "count": np.int32(step)},
    }

# The training goes on with collectives of its own, in place, while process 0 writes.
advance = jax.jit(lambda x: jnp.roll(x, 1, axis=0), donate_argnums=0)
with Saver(folder, keep=2, keep_best=1, best=("loss", "min")) as saver:
    for step, loss in enumerate((0.5, 0.1, 0.4, 0.3)):
        state = tree(step)
        saver.save(state, {"step": step, "process": index}, metric=loss)
        moved = state["params"]["stages"]["float"]
        for _ in range(10):
            moved = advance(moved)
        jax.block_until_ready(moved)
    path = saver.wait()
    assert (path is not None) == (index == 0)
    assert [load_record(path)["step"] for path in checkpoints(folder)] == [1, 2, 3]
    assert threading.active_count() < 10  # none a save

    # A full disk of process 0 is heard by both, and neither waits for the other for ever.
    real = writing.write_part
    def full(*arguments):
        time.sleep(0.5)
        raise OSError(errno.ENOSPC, "No space left on device")
    writing.write_part = full
    for call in (saver.wait, lambda: saver.save(tree(5), {"step": 5})):
        saver.save(tree(4), {"step": 4})
        try:
            call()
        except OSError as error:
            assert "No space left on device" in str(error) and folder in str(error), error
            assert str(error).startswith("in process 0: ") == (index == 1), error
            assert "kept: checkpoint-000002, checkpoint-000003, checkpoint-000004" in str(error)
        else:
            raise AssertionError("no error")
    writing.write_part = real

try:
    check_writable("/proc/run", 10)
except OSError as error:
    assert "nothing can be written in /proc" in str(error), error
else:
    raise AssertionError("no error")
check_writable(folder, 10)

# Onto another mesh, over both processes.
shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree(0))
other = NamedSharding(grid, P("data", "model"))
scalar = NamedSharding(grid, P())
places = {"params": other, "optimiser": {"here": other, "count": scalar}}
loaded, record = load(folder, shapes, places)
assert record["step"] == 3
assert record["process"] == 0
for array in jax.tree.leaves(loaded):
    assert not array.is_fully_addressable
    assert array.sharding.is_equivalent_to(other if array.ndim else scalar, array.ndim)
    for shard in array.addressable_shards:
        expected = (values + 3)[shard.index] if array.ndim else np.asarray(3)
        np.testing.assert_array_equal(shard.data, expected.astype(array.dtype))
# One of them by itself, onto its own device: it waits for nobody.
if index == 1:
    part, _ = load(folder, {"params": {**shapes["params"]}})
    np.testing.assert_array_equal(part["params"]["tiled"], values + 3)

# An exception in one process does not wait for the other, which is still inside.
left = folder + "-left"
try:
    with Saver(folder) as saver:
        saver.save(tree(6), {"step": 6})
        deadline = time.monotonic() + 30
        while index == 1 and not os.path.exists(left):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        raise KeyboardInterrupt
except KeyboardInterrupt:
    assert load_record(folder)["step"] == 6
    if index == 0:
        open(left, "w").close()
print("held", flush=True)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """The folder that two processes have saved into."""
    folder, port = tmp_path_factory.mktemp("run"), str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(folder), port, str(index)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(zoo.__file__).parents[1],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        for index in range(2)
    ]
    try:
        ends = [process.communicate(timeout=90) for process in processes]
    finally:
        for process in processes:
            process.kill()  # nothing if it has ended
    for (printed, errors), process in zip(ends, processes, strict=True):
        assert process.returncode == 0, errors
        assert printed.endswith("held\n"), errors  # after what Gloo prints
    return folder


@pytest.mark.slow  # two processes
def test_what_two_processes_saved_is_loaded_by_one(saved):
    shape = jax.ShapeDtypeStruct((8, 4), np.float32)
    asked = {
        "params": {
            "stages": {
                "float": shape,
                "short": jax.ShapeDtypeStruct((8, 4), jax.numpy.bfloat16),
                "whole": jax.ShapeDtypeStruct((8, 4), np.int32),
            },
            "tiled": shape,
            "everywhere": shape,
        }
    }
    mesh = jax.make_mesh((8,), ("stage",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("stage"))
    steps = []
    for path in checkpoints(saved):
        tree, record = load(path, asked, place)
        steps.append(record["step"])
        for array in jax.tree.leaves(tree):
            expected = (VALUES + record["step"]).astype(array.dtype)
            np.testing.assert_array_equal(np.asarray(array), expected)
            assert len(array.sharding.device_set) == 8
    # The best of all four (0.1 at step 1) and the two newest, of which one process wrote each.
    assert steps == [1, 3, 6]
    assert all(load_record(path)["process"] == 0 for path in checkpoints(saved)[:2])
