"""Where a run's arrays live: the mesh, the sharding of parameters and optimiser state, batches.

See `zoo.train.state` for what is put there.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from snapjax.parallel.sharding import make_mesh, path_name
from zoo.config.specs import RunConfig, TrainSpec

# Parameters under mesh.fsdp, matched in order: the input axis of each matrix and the rows of each
# table over "data" (fully sharded data parallelism: Rajbhandari et al. 2020, 1910.02054).
# A step gathers them once, before the pipeline, and its gradients come back sharded.
FSDP_RULES = (
    (r"(^|/)blocks/.*kernel$", P("stage", None, "data")),
    (r"(^|/)(embed|head)/.*(kernel|embedding)$", P("stage", "data")),
)


def choose_mesh(config: RunConfig) -> Mesh:
    """The mesh that the config asks for, on the devices at hand.

    Raises:
      ValueError: more ranks than devices, or a batch that does not split over the mesh.
    """
    ranks, stages = config.mesh.stage, config.model.stages
    if ranks is None:
        fits = len(jax.devices()) // config.mesh.data
        ranks = max([n for n in range(1, fits + 1) if stages % n == 0], default=1)
    mesh = make_mesh(data=config.mesh.data, stage=ranks)
    check_batch_size(mesh, config.train)
    return mesh


def check_batch_size(mesh: Mesh, spec: TrainSpec) -> None:
    """Raises ValueError when a batch does not split over "data" and into microbatches."""
    parts = mesh.shape["data"] * spec.microbatches
    if spec.batch_size % parts:
        raise ValueError(
            f"batch_size={spec.batch_size} must be a multiple of {parts}: "
            f"data={mesh.shape['data']} x microbatches={spec.microbatches}"
        )


def describe(mesh: Mesh) -> str:
    """The mesh in a few words."""
    kind, count = mesh.devices.flat[0].device_kind, mesh.size
    if count == 1:
        return f"1 {kind} device (cuts computed, no link crossed)"
    shape = " x ".join(f"{size} {axis}" for axis, size in mesh.shape.items() if size > 1)
    return f"{count} {kind} devices ({shape})"


def state_shardings(mesh: Mesh, state: Any, fsdp: bool) -> Any:
    """The sharding of every leaf of a sharded state: parameters, moments, counters.

    Args:
      mesh: with axes "data" and "stage".
      state: tree of arrays or `ShapeDtypeStruct`s in the layout of the mesh's ranks: parameters,
        or moments of them; scalars are on every device.
      fsdp: shard over "data" too, by `FSDP_RULES`.

    Raises:
      ValueError: a parameter that mesh.data does not divide.
    """

    def one(path: Any, leaf: Any) -> NamedSharding:
        if leaf.ndim == 0:
            return NamedSharding(mesh, P())
        name = path_name(path)
        for pattern, spec in FSDP_RULES if fsdp else ():
            if re.search(pattern, name):
                axis = len(spec) - 1
                if leaf.shape[axis] % mesh.shape["data"]:
                    raise ValueError(
                        f"mesh.fsdp: axis {axis} of {name!r} of shape {leaf.shape} is not a "
                        f"multiple of mesh.data={mesh.shape['data']}; use a divisor of "
                        f"{leaf.shape[axis]} or mesh.fsdp=false"
                    )
                return NamedSharding(mesh, spec)
        return NamedSharding(mesh, P("stage"))

    return jax.tree_util.tree_map_with_path(one, state)


def map_params(function: Callable[[Any], Any], tree: Any) -> Any:
    """`function` on every tree of parameters (or of moments of them) inside `tree`."""
    is_params = lambda part: isinstance(part, dict) and {"embed", "blocks", "head"} <= set(part)
    return jax.tree.map(
        lambda part: function(part) if is_params(part) else part, tree, is_leaf=is_params
    )


def put_tree(tree: Any, shardings: Any) -> Any:
    """Host or device arrays onto a mesh that may span several processes.

    Every process gives the same values; each keeps the parts of its own devices.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def one(leaf: Any, sharding: NamedSharding) -> jax.Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(one, tree, shardings)


def gather(tree: Any, mesh: Mesh) -> Any:
    """The same arrays on every device, so that any process can read them whole."""
    return _gather(mesh)(tree)


@cache
def _gather(mesh: Mesh) -> Callable[[Any], Any]:
    # One function a mesh: a new one would be compiled anew every time, which is every step.
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))


def fetch(tree: Any, mesh: Mesh) -> Any:
    """Small results on the host, as numpy arrays, on every process."""
    return jax.tree.map(np.asarray, gather(tree, mesh) if jax.process_count() > 1 else tree)


def process_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """The positions of a global batch that this process's devices hold, ascending (n,) int64."""
    indices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    rows = {row for (part,) in indices.values() for row in range(*part.indices(batch_size))}
    return np.array(sorted(rows), np.int64)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are split over "data" and held by every stage."""
    return NamedSharding(mesh, P("data"))


def batch_putter(mesh: Mesh, batch_size: int) -> Callable[[Any], Any]:
    """A function that puts this process's rows of a batch onto its devices, as a global array."""
    sharding, rows = batch_sharding(mesh), process_rows(mesh, batch_size)
    if len(rows) == batch_size and jax.process_count() == 1:
        return lambda batch: jax.device_put(batch, sharding)
    place_of = {int(row): place for place, row in enumerate(rows)}

    def one(local: np.ndarray) -> jax.Array:
        shape = (batch_size, *local.shape[1:])
        held = lambda index: local[[place_of[row] for row in range(*index[0].indices(batch_size))]]
        return jax.make_array_from_callback(shape, sharding, held)

    return lambda batch: {name: one(array) for name, array in batch.items()}
