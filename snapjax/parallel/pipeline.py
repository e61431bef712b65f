"""A model's stages on the ranks of the "stage" mesh axis, microbatches flowing through.

GPipe's schedule (Huang et al. 2019, arXiv 1811.06965) as one `jax.shard_map` around one `lax.scan`
of microbatches + ranks - 1 ticks. In tick t rank p works on microbatch t - p; what a boundary
sends in one tick arrives for the next. The last rank sends to nobody: there is no wrap-around.
Every tick of the scan sends, the ramps too, so of the hops a step makes the share
microbatches / (microbatches + ranks - 1) carries data; more microbatches waste less.

A rank runs one stage or several, its virtual stages, with the boundaries between them computed and
no link crossed: the function is the same for any number of ranks. On one rank the microbatches are
plain gradient accumulation.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, Mesh, PartitionSpec

from snapjax.boundary import Boundary, BoundaryStats
from snapjax.errors import check_types
from snapjax.parallel.keys import Key, PassKeys
from snapjax.parallel.sharding import check_parts, split_stages
from snapjax.varying import vary_over

Batch = dict[str, jax.Array]


class Outputs(NamedTuple):
    """What a pipelined pass returns.

    Attributes:
      sums: tree of scalars, summed over the whole batch; the same on every device.
      samples: tree of per-sample arrays, each (ranks, batch, ...) sharded over "stage" and "data";
        only the last rank's, `[-1]`, mean anything. Taking them inside jit would send them over
        the stage axis, so take them outside.
      stats: `BoundaryStats` with leaves (stages,), a mean over the batch, for any number of ranks;
        the last stage's entry is of no boundary.
    """

    sums: Any
    samples: Any
    stats: BoundaryStats

    def __repr__(self) -> str:
        shapes = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", self.samples)
        return f"Outputs(sums={self.sums}, samples={shapes}, stats={self.stats})"


class _Rank(NamedTuple):
    """What a rank holds through all ticks of a pass.

    Attributes:
      rank, shard: int32 scalars, the device's position on the mesh's "stage" and "data" axes.
      first, last: bool scalars, whether it is the first or the last rank.
      params: this rank's; of the blocks and of the boundaries' ends a list, an entry a virtual
        stage.
      microbatches: the device's part of the batch, arrays (microbatches, samples, ...).
      key: of the pass, or None; for the work.
      link_key: for what the links draw, or None.
    """

    rank: jax.Array
    shard: jax.Array
    first: jax.Array
    last: jax.Array
    params: dict[str, Any]
    microbatches: Batch
    key: Key
    link_key: Key

    def microbatch(self, index: Any) -> Batch:
        take = partial(jax.lax.dynamic_index_in_dim, index=index, keepdims=False)
        return jax.tree.map(take, self.microbatches)


class _Task(NamedTuple):
    """A rank's work in one tick; in the ramps it is idle, and `busy`, a bool scalar, False."""

    busy: jax.Array
    microbatch: Batch
    keys: PassKeys


class _Carry(NamedTuple):
    """What a tick hands to the next.

    Attributes:
      arrived: values that came over the link, not yet decoded; None on a single rank.
      sums: of the head, over the ticks so far.
      stats: likewise, with leaves (virtual stages,).
    """

    arrived: Any
    sums: Any
    stats: BoundaryStats


@dataclass(frozen=True, repr=False)
class Pipeline:
    """A model cut into stages, as functions of one stage's parameters.

    A function's key is None when the pass has none; otherwise it is used nowhere else.

    Attributes:
      embed: (embed params, microbatch, key) -> activation, run by the first rank.
      stage: (one stage's blocks params (layers / stages, ...), activation, microbatch, key) ->
        activation of the same shape and dtype, run by all.
      head: (head params, activation, microbatch, key) -> (tree of scalar sums, tree of per-sample
        arrays), run by the last rank.
      boundary: what lies between the stages. Its `debug` raises nothing here: a device that raised
        would leave the others waiting; look at `BoundaryStats.finite`.
      stages: S, of the model; the ranks on the mesh's "stage" axis must divide them.
      mesh: with axes "data" and "stage"; other axes replicate the work.
      microbatches: M, >= 1; each device's part of the batch is split into so many.
      remat: recompute each tick in the backward pass instead of storing its activations.
    """

    embed: Callable[[Any, Batch, Key], jax.Array]
    stage: Callable[[Any, jax.Array, Batch, Key], jax.Array]
    head: Callable[[Any, jax.Array, Batch, Key], tuple[Any, Any]]
    boundary: Boundary
    stages: int
    mesh: Mesh
    microbatches: int
    remat: bool = False

    def __post_init__(self) -> None:
        check_types(
            "Pipeline",
            {"boundary": (self.boundary, Boundary), "stages": (self.stages, int),
             "mesh": (self.mesh, Mesh | AbstractMesh), "microbatches": (self.microbatches, int),
             "remat": (self.remat, bool)},
        )  # fmt: skip
        if self.microbatches < 1:
            raise ValueError(f"Pipeline: microbatches={self.microbatches} must be at least 1")
        if not {"data", "stage"} <= set(self.mesh.axis_names):
            raise ValueError(
                f"Pipeline: the mesh has axes {self.mesh.axis_names}, needs 'data' and 'stage'; "
                "make it with snapjax.parallel.sharding.make_mesh"
            )
        if any(kind != AxisType.Auto for kind in self.mesh.axis_types):
            raise ValueError(
                f"Pipeline: the mesh has axis types {self.mesh.axis_types}, needs Auto ones; "
                "make it with snapjax.parallel.sharding.make_mesh"
            )
        split_stages(self.stages, self.ranks)

    def __repr__(self) -> str:
        return (
            f"Pipeline(stages={self.stages}, mesh={dict(self.mesh.shape)}, "
            f"microbatches={self.microbatches}, remat={self.remat}, boundary={self.boundary})"
        )

    @property
    def ranks(self) -> int:
        """D, the size of the mesh's "stage" axis."""
        return self.mesh.shape["stage"]

    @property
    def virtual_stages(self) -> int:
        """Stages of each rank, S / D."""
        return split_stages(self.stages, self.ranks)

    @property
    def ticks(self) -> int:
        """Steps of the schedule: M + D - 1."""
        return self.microbatches + self.ranks - 1

    def check(self, placed: Any, batch: Batch) -> None:
        """Raises ValueError for parameters or a batch that do not fit, before anything compiles."""
        check_parts("Pipeline", placed, self.stages)
        for path, leaf in jax.tree_util.tree_leaves_with_path(placed):
            part = path[0].key
            fits = leaf.shape[:1] == (self.ranks,)
            if part == "blocks":
                fits = fits and leaf.ndim > 1 and leaf.shape[1] % self.virtual_stages == 0
            elif part == "boundaries":
                fits = leaf.shape[:2] == (self.ranks, self.virtual_stages)
            if not fits:
                raise ValueError(
                    f"Pipeline: parameter {jax.tree_util.keystr(path)} of shape {leaf.shape} is "
                    f"not placed on stages={self.stages} at {self.ranks} ranks; use "
                    "snapjax.parallel.sharding.place"
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

    def __call__(self, placed: Any, batch: Batch, key: Key = None) -> Outputs:
        """One pass over a batch; differentiable in `placed`.

        Args:
          placed: parameters from `snapjax.parallel.sharding.place`, keys embed, blocks, head, and
            boundaries when there are 2 stages or more.
          batch: dict of arrays (batch, ...), the batch a multiple of data x microbatches.
          key: PRNG key of the functions' randomness, and of the stochastic rounding of an int8 or
            int4 gradient wire.
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

    def _on_device(self, placed: Any, batch: Batch, key: Key) -> Outputs:
        """One device's part of a pass: a scan of its ticks, then the sums over the mesh."""
        here = self._rank(placed, batch, key)
        x = jax.eval_shape(
            self.embed, here.params["embed"], here.microbatch(0), PassKeys.of(key).embed
        )
        tick = partial(self._tick, here, x.dtype)
        end, samples = jax.lax.scan(
            jax.checkpoint(tick) if self.remat else tick,
            self._start(here, x),
            jnp.arange(self.ticks, dtype=jnp.int32),
        )
        # The last rank's sample outputs start when the first microbatch reaches it.
        samples = jax.tree.map(
            lambda leaf: leaf[self.ranks - 1 :].reshape(1, -1, *leaf.shape[2:]), samples
        )
        mean = lambda total: jax.lax.pmean(total / self.microbatches, "data")
        return Outputs(
            sums=jax.tree.map(lambda total: jax.lax.psum(total, ("data", "stage")), end.sums),
            samples=samples,
            stats=jax.tree.map(mean, end.stats),
        )

    def _tick(self, here: _Rank, dtype: Any, carry: _Carry, time: jax.Array) -> tuple[_Carry, Any]:
        """What a rank does in one tick; `time` counts the ticks, an int32 scalar.

        Returns:
          the next tick's carry, and the samples that the head gave, zeros on all but the last rank.
        """
        task = self._task(here, time)
        x = self._receive(here, task, carry.arrived, dtype)
        y, inner = self._run_stages(here, task, x)
        sums, samples = self._head(here, task, y)
        sums = jax.tree.map(jnp.add, carry.sums, sums)
        arrived, outer = self._transmit(here, task, y, time)
        stats = jax.tree.map(lambda *parts: jnp.concatenate(parts), inner, outer)
        stats = jax.tree.map(jnp.add, carry.stats, _varying(stats))
        return _Carry(arrived, sums, stats), samples

    def _task(self, here: _Rank, time: jax.Array) -> _Task:
        """Microbatch `time - rank`; before the first and after the last one a rank is idle."""
        index = time - here.rank
        busy = (index >= 0) & (index < self.microbatches)
        index = jnp.clip(index, 0, self.microbatches - 1)
        return _Task(busy, here.microbatch(index), PassKeys.of(here.key, here.shard, index))

    def _receive(self, here: _Rank, task: _Task, arrived: Any, dtype: Any) -> jax.Array:
        """The activation to work on: the first rank embeds, the others decode what arrived.

        It is decoded here and not in the tick that received it: the backward pass of a tick then
        needs nothing that came over the link, and remat sends nothing twice.
        """
        params = here.params
        embed = lambda: self.embed(params["embed"], task.microbatch, task.keys.embed)
        # The scopes are where a report has the costs of a boundary's two ends.
        decode = jax.named_scope("receive")(
            lambda: self.boundary.receive(params["decoder"][0], arrived, dtype)
        )
        return self._either(here.first & task.busy, embed, decode)

    def _run_stages(
        self, here: _Rank, task: _Task, x: jax.Array
    ) -> tuple[jax.Array, BoundaryStats]:
        """This rank's stages and the boundaries between them, with leaves (virtual stages - 1,).

        An idle rank skips its work: on fake devices, which share cores, that is time saved.
        """
        boundary, params = replace(self.boundary, debug=False), here.params

        def work() -> tuple[jax.Array, BoundaryStats]:
            y, inner = x, [_no_stats(0)]
            for slot in range(self.virtual_stages):
                stage = here.rank * self.virtual_stages + slot
                y = self.stage(params["blocks"][slot], y, task.microbatch, task.keys.stage(stage))
                if slot < self.virtual_stages - 1:
                    ends = {
                        "encoder": params["encoder"][slot],
                        "decoder": params["decoder"][slot + 1],
                    }
                    y, sent = boundary.apply(ends, y, task.keys.cut(stage))
                    inner.append(jax.tree.map(lambda leaf: leaf[None], sent))
            return y, jax.tree.map(lambda *parts: jnp.concatenate(parts), *inner)

        return self._either(task.busy, work, lambda: (x, _no_stats(self.virtual_stages - 1)))

    def _head(self, here: _Rank, task: _Task, y: jax.Array) -> tuple[Any, Any]:
        """The head's sums and samples on the last rank, zeros on the others."""
        head = lambda: self.head(here.params["head"], y, task.microbatch, task.keys.head)
        return self._either(here.last & task.busy, head, lambda: _zeros(head))

    def _transmit(
        self, here: _Rank, task: _Task, y: jax.Array, time: jax.Array
    ) -> tuple[Any, BoundaryStats]:
        """Sends to the next rank: values that arrived from the one before, and what was sent.

        The leaves of the statistics are (1,), zeros where no data was sent.
        """
        if self.ranks == 1:
            return None, _no_stats(1)
        # What a link's ends draw is of the tick and not of the microbatch: idle ranks send too.
        key = None if here.link_key is None else jax.random.fold_in(here.link_key, time)
        arrived, sent = self._send(here.params, y, key)
        counts = (task.busy & ~here.last).astype(jnp.float32)
        return arrived, jax.tree.map(lambda leaf: counts * leaf[None], sent)

    def _send(self, params: Any, y: jax.Array, key: Key) -> tuple[jax.Array, BoundaryStats]:
        """From the last stage of a rank to the first stage of the next."""
        ends = {"encoder": params["encoder"][-1], "decoder": params["decoder"][0]}
        with jax.named_scope("transmit"):
            return self.boundary.transmit(ends, y, "stage", key=key)

    def _rank(self, placed: Any, batch: Batch, key: Key) -> _Rank:
        # Cast and cut into stages once, outside the scan: the transpose then sums a gradient over
        # "data" once, and pads none per tick.
        params = self._by_virtual_stage(_varying(jax.tree.map(lambda leaf: leaf[0], placed)))
        rank, shard = (jax.lax.axis_index(name) for name in ("stage", "data"))
        split = lambda leaf: leaf.reshape(self.microbatches, -1, *leaf.shape[1:])
        return _Rank(
            rank=rank,
            shard=shard,
            first=rank == 0,
            last=rank == self.ranks - 1,
            params=params,
            microbatches=_varying(jax.tree.map(split, batch)),
            key=key,
            link_key=None if key is None else jax.random.split(key)[1],
        )

    def _start(self, here: _Rank, x: Any) -> _Carry:
        """The first tick's carry: zeros of what a link delivers, of the head's sums, of statistics.

        Args:
          here: this rank.
          x: shape and dtype of an activation.
        """
        key = lambda: PassKeys.of(here.key).head
        sums = lambda x: self.head(here.params["head"], x, here.microbatch(0), key())[0]
        value = lambda x: self._send(here.params, x, None)[0]
        return _Carry(
            arrived=_zeros(value, x) if self.ranks > 1 else None,
            sums=_zeros(sums, x),
            stats=_varying(_no_stats(self.virtual_stages)),
        )

    def _by_virtual_stage(self, params: Any) -> dict[str, Any]:
        """A rank's parameters, those of its stages as lists with an entry a virtual stage."""
        ends = params["boundaries"] if self.stages > 1 else {}
        cut = lambda leaf: leaf.reshape(self.virtual_stages, -1, *leaf.shape[1:])
        slots = {
            name: [
                jax.tree.map(lambda leaf, slot=slot: leaf[slot], tree)
                for slot in range(self.virtual_stages)
            ]
            for name, tree in {"blocks": jax.tree.map(cut, params["blocks"]), **ends}.items()
        }
        return {"embed": params["embed"], "head": params["head"], **slots}

    def _either(self, condition: jax.Array, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
        """A branch of what ranks do; a single rank is the first, the last, and always busy."""
        if self.ranks == 1:
            return _varying(yes())
        return jax.lax.cond(condition, lambda: _varying(yes()), lambda: _varying(no()))


def _no_stats(boundaries: int) -> BoundaryStats:
    return BoundaryStats(*(jnp.zeros(boundaries, jnp.float32) for _ in BoundaryStats._fields))


def _varying(tree: Any) -> Any:
    """A scan's carry and a cond's branches must vary over the same axes; here that is both."""
    return vary_over(tree, ("data", "stage"))


def _zeros(function: Callable[..., Any], *args: Any) -> Any:
    """Zeros of the shapes that a function returns."""
    shapes = jax.eval_shape(function, *args)
    return _varying(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))
