"""A model's stages on the ranks of the "stage" mesh axis, microbatches flowing through.

GPipe's schedule (Huang et al. 2019, arXiv 1811.06965) as one `jax.shard_map` around one `lax.scan`
of microbatches + ranks - 1 ticks. In tick t rank p works on microbatch t - p; what a boundary
sends in one tick arrives for the next. The last rank sends to nobody: there is no wrap-around.
Every tick of the scan sends, the ramps too, so of the hops a step makes the share
microbatches / (microbatches + ranks - 1) carries data; more microbatches waste less.

A rank runs one stage or several, with the boundaries between its own stages computed and no link
crossed: the function is the same for any number of ranks. On one rank the microbatches are plain
gradient accumulation.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, PartitionSpec

from snapjax.boundary import Boundary, BoundaryStats
from snapjax.parallel.sharding import split_stages
from snapjax.varying import vary_over

Batch = dict[str, jax.Array]
Key = jax.Array | None


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


class PassKeys(NamedTuple):
    """The randomness of one microbatch's pass: one key a use, or None everywhere.

    The keys depend on the data shard, the microbatch and the stage, and on nothing of the mesh's
    "stage" axis, so that a pass draws the same numbers on any number of ranks.

    Attributes:
      base: key of this data shard's microbatch; see `of`.
    """

    base: Key

    @classmethod
    def of(cls, key: Key, shard: Any = 0, microbatch: Any = 0) -> "PassKeys":
        """The keys of a microbatch (int or int32 scalar) of a data shard (likewise)."""
        if key is None:
            return cls(None)
        work, _ = jax.random.split(key)  # the other half is of the links; see `Pipeline`
        return cls(jax.random.fold_in(jax.random.fold_in(work, shard), microbatch))

    @property
    def embed(self) -> Key:
        return self._part(0)

    @property
    def head(self) -> Key:
        return self._part(1)

    def stage(self, stage: Any) -> Key:
        """Of the work of a stage (int or int32 scalar)."""
        return self._part(2 + 2 * stage)

    def cut(self, stage: Any) -> Key:
        """Of the boundary after a stage, where no link is crossed."""
        return self._part(3 + 2 * stage)

    def _part(self, part: Any) -> Key:
        return None if self.base is None else jax.random.fold_in(self.base, part)


@dataclass(frozen=True)
class Pipeline:
    """A model cut into stages, as functions of one stage's parameters.

    A function's key is None when the pass has none; otherwise it is used nowhere else.

    Attributes:
      embed: (embed params, microbatch, key) -> activation, run by the first rank.
      stage: (one stage's blocks params (layers / stages, ...), activation, microbatch, key) ->
        activation of the same shape and dtype, run by all.
      head: (head params, activation, microbatch, key) -> (tree of scalar sums, tree of per-sample
        arrays), run by the last rank.
      boundary: what lies between the stages. Its `debug` has no effect here: a device that raised
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

    @property
    def ranks(self) -> int:
        """D, the size of the mesh's "stage" axis."""
        return self.mesh.shape["stage"]

    @property
    def virtual_stages(self) -> int:
        return split_stages(self.stages, self.ranks)

    @property
    def ticks(self) -> int:
        return self.microbatches + self.ranks - 1

    def check(self, placed: Any, batch: Batch) -> None:
        """Raises ValueError for parameters or a batch that do not fit, before anything compiles."""
        parts = {"embed", "blocks", "head"} | ({"boundaries"} if self.stages > 1 else set())
        if not parts <= set(placed):
            raise ValueError(
                f"Pipeline: parameters have {sorted(placed)}, need {sorted(parts)} for "
                f"stages={self.stages}"
            )
        for path, leaf in jax.tree_util.tree_leaves_with_path(placed):
            part, slots = path[0].key, self.virtual_stages
            fits = leaf.shape[:1] == (self.ranks,)
            if part == "blocks":
                fits = fits and leaf.ndim > 1 and leaf.shape[1] % slots == 0
            elif part == "boundaries":
                fits = leaf.shape[:2] == (self.ranks, slots)
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
        # Cast and cut into slots once, outside the scan: the transpose then sums a gradient over
        # "data" once, and pads none per tick.
        params = self._by_slot(_varying(jax.tree.map(lambda leaf: leaf[0], placed)))
        rank, shard = (jax.lax.axis_index(name) for name in ("stage", "data"))
        microbatches = _varying(
            jax.tree.map(lambda leaf: leaf.reshape(self.microbatches, -1, *leaf.shape[1:]), batch)
        )
        first, last = rank == 0, rank == self.ranks - 1
        take = lambda index: jax.tree.map(
            lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), microbatches
        )
        # What a link's ends draw is of the tick and not of the microbatch: idle ranks send too.
        link_key = None if key is None else jax.random.split(key)[1]

        def tick(carry: tuple[Any, Any, BoundaryStats], time: jax.Array) -> Any:
            arrived, sums, stats = carry
            index = time - rank
            busy = (index >= 0) & (index < self.microbatches)
            index = jnp.clip(index, 0, self.microbatches - 1)
            microbatch, keys = take(index), PassKeys.of(key, shard, index)
            # What arrived is decoded here and not in the tick that received it: the backward pass
            # of a tick then needs nothing that came over the link, and remat sends nothing twice.
            receive = lambda: self.boundary.receive(params["decoder"][0], arrived, example.dtype)
            embed = lambda: self.embed(params["embed"], microbatch, keys.embed)
            # Idle ranks skip their work: on fake devices, which share cores, that is time saved.
            x = self._either(first & busy, embed, receive)
            work = lambda: self._run_stages(params, x, microbatch, keys, rank)
            idle = lambda: (x, jax.tree.map(lambda leaf: jnp.zeros_like(leaf[:-1]), stats))
            y, inner = self._either(busy, work, idle)
            head = lambda: self.head(params["head"], y, microbatch, keys.head)
            new_sums, samples = self._either(last & busy, head, lambda: _zeros(head))
            sums = jax.tree.map(jnp.add, sums, new_sums)
            if self.ranks > 1:
                tick_key = None if link_key is None else jax.random.fold_in(link_key, time)
                y, sent = self._transmit(params, y, tick_key)
                counts = (busy & ~last).astype(jnp.float32)
                outer = jax.tree.map(lambda leaf: counts * leaf[None], sent)
            else:
                y, outer = None, _no_stats(1)
            new_stats = jax.tree.map(lambda *parts: jnp.concatenate(parts), inner, outer)
            return (y, sums, jax.tree.map(jnp.add, stats, _varying(new_stats))), samples

        example = jax.eval_shape(self.embed, params["embed"], take(0), PassKeys.of(key).embed)
        head_sums = lambda x: self.head(params["head"], x, take(0), PassKeys.of(key).head)[0]
        # Before anything has arrived the carry holds zeros of what a boundary delivers.
        value = lambda x: self._transmit(params, x, None)[0]
        arrived = _zeros(value, example) if self.ranks > 1 else None
        (_, sums, stats), samples = jax.lax.scan(
            jax.checkpoint(tick) if self.remat else tick,
            (arrived, _zeros(head_sums, example), _varying(_no_stats(self.virtual_stages))),
            jnp.arange(self.ticks, dtype=jnp.int32),
        )
        # The last rank's sample outputs start when the first microbatch reaches it.
        samples = jax.tree.map(
            lambda leaf: leaf[self.ranks - 1 :].reshape(1, -1, *leaf.shape[2:]), samples
        )
        mean = lambda total: jax.lax.pmean(total / self.microbatches, "data")
        return Outputs(
            sums=jax.tree.map(lambda total: jax.lax.psum(total, ("data", "stage")), sums),
            samples=samples,
            stats=jax.tree.map(mean, stats),
        )

    def _run_stages(
        self, params: Any, x: jax.Array, microbatch: Batch, keys: PassKeys, rank: jax.Array
    ) -> tuple[jax.Array, BoundaryStats]:
        """This rank's stages and the boundaries between them, with leaves (stages here - 1,)."""
        boundary, inner = replace(self.boundary, debug=False), [_no_stats(0)]
        for slot in range(self.virtual_stages):
            stage = rank * self.virtual_stages + slot
            x = self.stage(params["blocks"][slot], x, microbatch, keys.stage(stage))
            if slot < self.virtual_stages - 1:
                ends = {"encoder": params["encoder"][slot], "decoder": params["decoder"][slot + 1]}
                x, sent = boundary.apply(ends, x, keys.cut(stage))
                inner.append(jax.tree.map(lambda leaf: leaf[None], sent))
        return x, jax.tree.map(lambda *parts: jnp.concatenate(parts), *inner)

    def _transmit(self, params: Any, x: jax.Array, key: Key) -> tuple[jax.Array, BoundaryStats]:
        """From the last stage here to the first stage of the next rank."""
        ends = {"encoder": params["encoder"][-1], "decoder": params["decoder"][0]}
        return self.boundary.transmit(ends, x, "stage", key=key)

    def _by_slot(self, params: Any) -> dict[str, Any]:
        """A rank's parameters, those of its stages as lists with an entry a stage."""
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
