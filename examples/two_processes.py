"""Two processes on one machine, each with one device; one sends the other spikes.

python examples/two_processes.py

The first process starts the second. On several hosts start one process on each instead, with the
address of the first: `python examples/two_processes.py HOST:PORT ID`.
"""

import socket
import subprocess
import sys

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from snapjax import Boundary, make_mesh

WIDTH = 64


def work(coordinator: str, process: int) -> None:
    """What each of the two processes does."""
    jax.config.update("jax_num_cpu_devices", 1)
    jax.distributed.initialize(coordinator, num_processes=2, process_id=process)
    mesh = make_mesh(stage=2)
    boundary = Boundary(WIDTH, code="phase", steps=4, budget=WIDTH)
    x = np.random.default_rng(0).standard_normal((2, 16, WIDTH), np.float32)  # alike on both
    params = boundary.calibrate(boundary.init(jax.random.key(0)), x[0])
    send = jax.shard_map(
        lambda params, x: boundary.send(params, x, axis="stage")[0],
        mesh=mesh,
        in_specs=(P(), P("stage")),
        out_specs=P("stage"),
    )
    shared = jax.make_array_from_callback(
        x.shape, NamedSharding(mesh, P("stage")), lambda index: x[index]
    )
    arrived = jax.jit(send)(params, shared)
    mine = np.asarray(arrived.addressable_shards[0].data)[0]
    error = np.mean((mine - x[0]) ** 2)
    what = f"received x with an error of {error:.2f} of its variance" if process else "sent x"
    print(f"process {process} of {jax.process_count()}: {what}", flush=True)
    jax.distributed.shutdown()


def main() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    second = subprocess.Popen([sys.executable, __file__, address, "1"])
    work(address, 0)
    if second.wait(timeout=120):
        raise SystemExit("the second process failed")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        work(sys.argv[1], int(sys.argv[2]))
    else:
        main()
