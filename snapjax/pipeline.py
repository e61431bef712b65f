"""A model's stages on the devices of the "stage" mesh axis, microbatches flowing through.

GPipe's schedule (Huang et al. 2019, arXiv 1811.06965) as one `jax.shard_map` around one `lax.scan`
of microbatches + stages - 1 ticks. In tick t stage s works on microbatch t - s; what a boundary
sends in one tick arrives for the next. The last device sends to nobody: there is no wrap-around.
Every tick of the scan sends, the ramps too, so of the hops a step makes the share
microbatches / (microbatches + stages - 1) carries data; more microbatches waste less.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, PartitionSpec

from snapjax.boundary import Boundary, BoundaryStats
from snapjax.varying import vary_over

Batch = dict[str, jax.Array]


class Outputs(NamedTuple):
    """What a pipelined pass returns.

    Attributes:
      sums: tree of scalars, summed over the whole batch; the same on every device.
      samples: tree of per-sample arrays, each (stages, batch, ...) sharded over "stage" and "data";
        only the last stage's, `[-1]`, mean anything. Taking them inside jit would send them over
        the stage axis, so take them outside.
      stats: `BoundaryStats` with leaves (stages,), a mean over the batch; the last stage's entry
        is of no boundary.
    """

    sums: Any
    samples: Any
    stats: BoundaryStats


@dataclass(frozen=True)
class Pipeline:
    """A model cut into stages, as functions of one stage's parameters.

    Attributes:
      embed: (embed params, microbatch) -> activation, run by the first stage.
      stage: (blocks params (layers / stages, ...), activation) -> activation, run by all.
      head: (head params, activation, microbatch) -> (tree of scalar sums, tree of per-sample
        arrays), run by the last stage.
      boundary: what lies between the stages.
      mesh: with axes "data" and "stage"; other axes replicate the work.
      microbatches: M, >= 1; each device's part of the batch is split into so many.
      remat: recompute each tick in the backward pass instead of storing its activations.
    """

    embed: Callable[[Any, Batch], jax.Array]
    stage: Callable[[Any, jax.Array], jax.Array]
    head: Callable[[Any, jax.Array, Batch], tuple[Any, Any]]
    boundary: Boundary
    mesh: Mesh
    microbatches: int
    remat: bool = False

    def __post_init__(self) -> None:
        if self.microbatches < 1:
            raise ValueError(f"Pipeline: microbatches={self.microbatches} must be at least 1")
        if not {"data", "stage"} <= set(self.mesh.axis_names):
            raise ValueError(
                f"Pipeline: the mesh has axes {self.mesh.axis_names}, needs 'data' and 'stage'; "
                "make it with snapjax.sharding.make_mesh"
            )
        if any(kind != AxisType.Auto for kind in self.mesh.axis_types):
            raise ValueError(
                f"Pipeline: the mesh has axis types {self.mesh.axis_types}, needs Auto ones; "
                "make it with snapjax.sharding.make_mesh"
            )

    @property
    def stages(self) -> int:
        return self.mesh.shape["stage"]

    @property
    def ticks(self) -> int:
        return self.microbatches + self.stages - 1

    def check(self, placed: Any, batch: Batch) -> None:
        """Raises ValueError for parameters or a batch that do not fit, before anything compiles."""
        parts = {"embed", "blocks", "head"} | ({"boundaries"} if self.stages > 1 else set())
        if not parts <= set(placed):
            raise ValueError(
                f"Pipeline: parameters have {sorted(placed)}, need {sorted(parts)} for "
                f"stages={self.stages}"
            )
        for path, leaf in jax.tree_util.tree_leaves_with_path(placed):
            if leaf.ndim < 1 or leaf.shape[0] != self.stages:
                raise ValueError(
                    f"Pipeline: parameter {jax.tree_util.keystr(path)} of shape {leaf.shape} is "
                    f"not placed on stages={self.stages}; use snapjax.sharding.place"
                )
        sizes = {name: leaf.shape[:1] for name, leaf in batch.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"Pipeline: the batch's arrays differ in their first axis: {sizes}")
        split = self.mesh.shape["data"] * self.microbatches
        for name, leaf in batch.items():
            if leaf.ndim < 1 or leaf.shape[0] % split or not leaf.shape[0]:
                raise ValueError(
                    f"Pipeline: batch[{name!r}] of shape {leaf.shape} does not split into "
                    f"data={self.mesh.shape['data']} x microbatches={self.microbatches}; "
                    f"its first axis must be a positive multiple of {split}"
                )

    def __call__(self, placed: Any, batch: Batch, key: jax.Array | None = None) -> Outputs:
        """One pass over a batch; differentiable in `placed`.

        Args:
          placed: parameters from `snapjax.sharding.place`, keys embed, blocks, head, and
            boundaries when there are 2 stages or more.
          batch: dict of arrays (batch, ...), the batch a multiple of data x microbatches.
          key: PRNG key for the stochastic rounding of an int8 or int4 gradient wire.
        """
        self.check(placed, batch)
        by_stage: Any = PartitionSpec("stage")
        run = jax.shard_map(
            self._on_device,
            mesh=self.mesh,
            in_specs=(by_stage, PartitionSpec("data"), PartitionSpec()),
            out_specs=Outputs(PartitionSpec(), PartitionSpec("stage", "data"), stats=by_stage),
        )
        return run(placed, batch, key)

    def _on_device(self, placed: Any, batch: Batch, key: jax.Array | None) -> Outputs:
        # Cast once, outside the scan: the transpose sums a gradient over "data" once, not per tick.
        params = _varying(jax.tree.map(lambda leaf: leaf[0], placed))
        stage = jax.lax.axis_index("stage")
        microbatches = _varying(
            jax.tree.map(lambda leaf: leaf.reshape(self.microbatches, -1, *leaf.shape[1:]), batch)
        )
        first, last = stage == 0, stage == self.stages - 1
        take = lambda index: jax.tree.map(
            lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), microbatches
        )

        def tick(carry: tuple[jax.Array, Any, BoundaryStats], time: jax.Array) -> Any:
            arrived, sums, stats = carry
            index = time - stage
            busy = (index >= 0) & (index < self.microbatches)
            microbatch = take(jnp.clip(index, 0, self.microbatches - 1))
            # What arrived is decoded here and not in the tick that received it: the backward pass
            # of a tick then needs nothing that came over the link, and remat sends nothing twice.
            receive = lambda: _varying(
                self.boundary.receive(params["boundaries"]["decoder"], arrived, example.dtype)
                if self.stages > 1
                else arrived
            )
            # Idle stages skip their work: on fake devices, which share cores, that is time saved.
            x = jax.lax.cond(
                first, lambda: _varying(self.embed(params["embed"], microbatch)), receive
            )
            y = jax.lax.cond(busy, lambda: _varying(self.stage(params["blocks"], x)), lambda: x)
            head = lambda: _varying(self.head(params["head"], y, microbatch))
            new_sums, samples = jax.lax.cond(last & busy, head, lambda: _zeros(head))
            sums = jax.tree.map(jnp.add, sums, new_sums)
            if self.stages > 1:
                tick_key = None if key is None else jax.random.fold_in(key, time)
                y, sent = self.boundary.transmit(params["boundaries"], y, "stage", key=tick_key)
                counts = (busy & ~last).astype(jnp.float32)
                stats = jax.tree.map(lambda total, new: total + counts * new, stats, sent)
            return (y, sums, stats), samples

        example = jax.eval_shape(self.embed, params["embed"], take(0))
        sums = _zeros(lambda x: self.head(params["head"], x, take(0))[0], example)
        # Before anything has arrived the carry holds zeros of what a boundary delivers.
        value = lambda x: self.boundary.transmit(params["boundaries"], x, "stage")[0]
        arrived = _zeros(value if self.stages > 1 else lambda x: x, example)
        nothing = _varying(BoundaryStats(*(jnp.float32(0) for _ in BoundaryStats._fields)))
        (_, sums, stats), samples = jax.lax.scan(
            jax.checkpoint(tick) if self.remat else tick,
            (arrived, sums, nothing),
            jnp.arange(self.ticks, dtype=jnp.int32),
        )
        # The last stage's sample outputs start when the first microbatch reaches it.
        samples = jax.tree.map(
            lambda leaf: leaf[self.stages - 1 :].reshape(1, -1, *leaf.shape[2:]), samples
        )
        mean = lambda total: jax.lax.pmean(total / self.microbatches, "data")[None]
        return Outputs(
            sums=jax.tree.map(lambda total: jax.lax.psum(total, ("data", "stage")), sums),
            samples=samples,
            stats=jax.tree.map(mean, stats),
        )


def _varying(tree: Any) -> Any:
    """A scan's carry and a cond's branches must vary over the same axes; here that is both."""
    return vary_over(tree, ("data", "stage"))


def _zeros(function: Callable[..., Any], *args: Any) -> Any:
    """Zeros of the shapes that a function returns."""
    shapes = jax.eval_shape(function, *args)
    return _varying(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))
