"""A model cut into stages with boundaries between them: the composition both families share.

A family brings a config and three functions (embed, block, head); here they become a model that
runs on one device (`apply`), on a mesh (`pipeline`), and that can be calibrated. Parameters are
plain nested dicts in the canonical layout of `snapjax.parallel.sharding`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from snapjax.boundary import Boundary, BoundaryStats
from snapjax.errors import check_types
from snapjax.parallel.keys import Key, PassKeys
from snapjax.parallel.pipeline import Pipeline
from snapjax.parallel.sharding import check_parts, split_layers, stack
from zoo.models.layers import init_stack, run_stack
from zoo.models.losses import LOSSES, Arrays
from zoo.utils.memory import check_memory

Params = dict[str, Any]
Batch = dict[str, jax.Array]
Fit = Callable[[int, np.ndarray, list[jax.Array]], Params]
Objective = Callable[[Any, jax.Array, Batch], tuple[Arrays, Arrays]]


class Config(Protocol):
    """What the composition reads of a family's frozen config."""

    name: str
    width: int
    layers: int
    stages: int
    boundary: Boundary
    precision: str  # of the activations, one of `zoo.config.specs.PRECISIONS`
    task: str  # which loss, one of `zoo.models.losses.LOSSES`


class Family(Protocol):
    """A family of models, as functions of its config; a key switches the dropout on."""

    def init_ends(self, config: Any, key: jax.Array) -> tuple[Params, Params]:
        """Parameters of the embedding and of the head."""

    def embed(self, config: Any, params: Params, batch: Batch, key: Key = None) -> jax.Array:
        """(batch, tokens, width) of a batch of inputs."""

    def block(self, config: Any) -> nn.Module:
        """One encoder block: (x, mask) -> x."""

    def head(self, config: Any, params: Params, x: jax.Array, batch: Batch, key: Key = None) -> Any:
        """Logits of the last block's output, or `zoo.models.layers.Encoded` of task "encode"."""

    def check_batch(self, config: Any, batch: Mapping[str, Any]) -> None:
        """Raises ValueError when an input does not fit the config; arrays or their shapes."""


class Result(NamedTuple):
    """What a forward pass made on the way.

    Attributes:
      stats: `BoundaryStats` with leaves (stages - 1,).
      cut: for each boundary the activation that reached it, (batch, tokens, width).
    """

    stats: BoundaryStats
    cut: list[jax.Array]

    def __repr__(self) -> str:
        cut = ", ".join(f"{x.dtype}{list(x.shape)}" for x in self.cut)
        return f"Result(stats={self.stats}, cut=[{cut}])"


@dataclass(frozen=True, repr=False)
class Model:
    """A family's functions bound to one config; holds no parameters."""

    family: Family
    config: Any

    def __repr__(self) -> str:
        config = self.config
        cut = f", boundary={config.boundary}" if config.stages > 1 else ""
        return (
            f"Model({config.name}, task={config.task!r}, layers={config.layers}, "
            f"width={config.width}, stages={config.stages}{cut})"
        )

    def __post_init__(self) -> None:
        check_types(self.config.name, {"boundary": (self.config.boundary, Boundary)})
        split_layers(self.config.layers, self.config.stages)
        if self.config.boundary.features != self.config.width:
            raise ValueError(
                f"{self.config.name}: boundary.features={self.config.boundary.features} must equal "
                f"the model's width={self.config.width}"
            )

    @property
    def boundary(self) -> Boundary:
        """What lies between the stages."""
        return self.config.boundary

    @property
    def loss(self) -> Callable[..., tuple[Arrays, Arrays]]:
        """(logits, batch, label_smoothing=0.0) -> (sums, per-sample arrays) of the task."""
        return LOSSES[self.config.task]

    def check(self, batch: Mapping[str, Any]) -> None:
        """Raises ValueError when a batch, of arrays or their shapes, is not one of the model's."""
        check_types(self.config.name, {"batch": (batch, Mapping)})
        self.family.check_batch(self.config, batch)

    def check_params(self, params: Params) -> None:
        """Raises ValueError where parts are missing, or stacked for other layers or stages: an
        index beyond the last one would read that again, and a slice would be short."""
        config = self.config
        check_parts(config.name, params, config.stages)
        cuts = {"boundaries": ("stages - 1", config.stages - 1)} if config.stages > 1 else {}
        for part, (what, number) in {"blocks": ("layers", config.layers), **cuts}.items():
            for path, leaf in jax.tree_util.tree_leaves_with_path(params[part]):
                if leaf.shape[:1] != (number,):
                    raise ValueError(
                        f"{config.name}: parameter {part}{jax.tree_util.keystr(path)} of shape "
                        f"{leaf.shape} is stacked for another model: the first axis is "
                        f"{what}={number}"
                    )

    def cut(self, stages: int, boundary: Boundary | None = None) -> "Model":
        """The same model in `stages` stages; make parameters for it by `with_new_boundaries`."""
        config = replace(self.config, stages=stages, boundary=boundary or self.boundary)
        return replace(self, config=config)

    def with_boundary(self, boundary: Boundary) -> "Model":
        """The same model with another boundary between its stages."""
        return replace(self, config=replace(self.config, boundary=boundary))

    def init(self, key: jax.Array) -> Params:
        """Canonical parameters, random, in float32.

        Raises:
          ValueError: they would not fit the memory of this machine.
        """
        # As one program: op by op it takes seconds longer.
        program = jax.jit(self._init)
        shapes = jax.tree.leaves(jax.eval_shape(program, key))
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in shapes)
        if jax.default_backend() == "cpu":  # others have a memory of their own
            check_memory(size, f"{self.config.name}: its parameters")
        return program(key)

    @cached_property
    def param_shape(self) -> Params:
        """Shapes and dtypes of the canonical parameters, as `jax.ShapeDtypeStruct`s; only to be
        read, because it is kept: `init` takes a while to trace."""
        return jax.eval_shape(self._init, jax.random.key(0))

    def _init(self, key: jax.Array) -> Params:
        config = self.config
        key_ends, key_blocks, key_boundary = jax.random.split(key, 3)
        embed, head = self.family.init_ends(config, key_ends)
        blocks = init_stack(self.family.block(config), key_blocks, config.layers, config.width)
        params = {"embed": embed, "blocks": blocks, "head": head}
        return self.with_new_boundaries(params, key_boundary)

    def with_new_boundaries(self, params: Params, key: jax.Array) -> Params:
        """`params` with fresh boundaries, for instance to cut a dense model with spikes."""
        params = without_boundaries(params)
        cuts = self.config.stages - 1
        if cuts:
            ends = [self.boundary.init(k) for k in jax.random.split(key, cuts)]
            params["boundaries"] = stack(ends)
        return params

    def embed(self, params: Params, batch: Batch, key: Key = None) -> jax.Array:
        """The first block's input, (batch, tokens, width), from canonical parameters."""
        return self._embed(params["embed"], batch, key)

    def head(self, params: Params, x: jax.Array, batch: Batch, key: Key = None) -> Any:
        """The task's output from the last block's, (batch, tokens, width)."""
        return self.family.head(self.config, params["head"], x, batch, key)

    def apply(self, params: Params, batch: Batch, key: Key = None) -> tuple[Any, Result]:
        """Logits, or what the task's head gives, on one device, through the same cuts as on a mesh.

        Args:
          params: canonical parameters.
          batch: the family's inputs.
          key: PRNG key of the dropout, and of the stochastic rounding of an int8 or int4 gradient
            wire; None for no dropout. The dropout is that of a pipeline with one microbatch and one
            data shard.
        """
        self.check_params(params)
        keys = PassKeys.of(key)
        x = self._embed(params["embed"], batch, keys.embed)
        cut, stats = [], []
        for stage in range(self.config.stages):
            x = self.run_stage(self.stage_blocks(params, stage), x, batch, keys.stage(stage))
            if stage < self.config.stages - 1:
                cut.append(x)
                with jax.named_scope(f"cut{stage}"):  # the place of its costs in a report
                    x, sent = self.boundary.apply(self._ends(params, stage), x, keys.cut(stage))
                stats.append(sent)
        nothing = BoundaryStats(*(jnp.zeros(0) for _ in BoundaryStats._fields))
        result = Result(stack(stats) if stats else nothing, cut)
        return self.head(params, x, batch, keys.head), result

    def walk(self, params: Params, batch: Batch) -> Iterator[tuple[str, jax.Array]]:
        """Name and output of every module of `apply` in turn, to find where something goes wrong.

        Args:
          params: canonical parameters.
          batch: the family's inputs.

        Yields:
          "embed", "blocks/0/attention" and every other module of each block as it returns,
          "boundaries/0" after each stage but the last, and "head", the logits; without dropout.
        """
        self.check_params(params)
        x, block = self.embed(params, batch), self.family.block(self.config)
        yield "embed", x
        for layer in range(self.config.layers):
            blocks = jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["blocks"])
            x, inner = block.apply(
                {"params": blocks}, x, batch.get("attention_mask"), capture_intermediates=True
            )
            for name, output in _outputs(inner["intermediates"]):
                yield f"blocks/{layer}{name}", output
            stage, rest = divmod(layer + 1, self.config.layers // self.config.stages)
            if not rest and stage < self.config.stages:
                x, _ = self.boundary.apply(self._ends(params, stage - 1), x)
                yield f"boundaries/{stage - 1}", x
        yield "head", self.head(params, x, batch)

    def calibrate(self, params: Params, *batches: Batch, fit: Fit | None = None) -> Params:
        """`params` with every boundary fitted to the activations of some batches.

        The boundaries are fitted in sequence, so that a later one sees the earlier ones' error.
        Padding is sent but not fitted to: tokens where "attention_mask" is false, rows of "weight"
        0.

        Args:
          params: canonical, boundaries included.
          batches: the family's inputs, at least one.
          fit: (stage, samples (n, width), states of the batches at the cut) -> the parameters of
            the boundary after that stage; None for `Boundary.calibrate` as it is.
        """
        self.check_params(params)
        if self.config.stages == 1:
            return params
        if not batches:
            raise ValueError(f"{self.config.name}: calibrate needs at least one batch")
        run = jax.jit(self.run_stage)
        send = jax.jit(lambda ends, x: self.boundary.apply(ends, x)[0])
        real = [real_tokens(batch) for batch in batches]
        states = [self.embed(params, batch) for batch in batches]
        fitted = []
        for stage in range(self.config.stages - 1):
            blocks = self.stage_blocks(params, stage)
            states = [run(blocks, x, batch) for x, batch in zip(states, batches, strict=True)]
            rows = [np.asarray(x.astype(jnp.float32)) for x in states]
            samples = np.concatenate([x[keep] for x, keep in zip(rows, real, strict=True)])
            samples = samples.reshape(-1, self.config.width)
            if fit is None:
                fitted.append(self.boundary.calibrate(self._ends(params, stage), samples))
            else:
                fitted.append(fit(stage, samples, states))
            states = [send(fitted[-1], x) for x in states]
        return {**params, "boundaries": stack(fitted)}

    def pipeline(
        self,
        mesh: Mesh,
        microbatches: int,
        *,
        remat: bool = False,
        label_smoothing: float = 0.0,
        objective: Objective | None = None,
    ) -> Pipeline:
        """The model on a mesh whose "stage" axis has a divisor of the config's stages as ranks.

        Its `sums` and `samples` are those of the task's loss in `zoo.models.losses`, which reads
        the batch's "label" and "weight". Dropout is active when a pass is given a key.

        Args:
          mesh: from `snapjax.parallel.sharding.make_mesh`.
          microbatches: see `Pipeline`.
          remat: see `Pipeline`.
          label_smoothing: of the loss, for training; leave it out to evaluate.
          objective: (the head's result, its input, batch) -> (sums, samples), instead of the loss.

        Raises:
          ValueError: for a mesh that does not fit, or smoothing outside of [0, 1).
        """
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"pipeline: label_smoothing={label_smoothing} must be in [0, 1)")
        if objective is None:
            objective = lambda result, _, batch: self.loss(result, batch, label_smoothing)
        objective = jax.named_scope("loss")(objective)  # the place of its costs in a report
        return Pipeline(
            embed=self._embed,
            stage=self.run_stage,
            head=lambda params, x, batch, key: objective(
                self.family.head(self.config, params, x, batch, key), x, batch
            ),
            boundary=self.boundary,
            stages=self.config.stages,
            mesh=mesh,
            microbatches=microbatches,
            remat=remat,
        )

    def _embed(self, params: Params, batch: Batch, key: Key = None) -> jax.Array:
        self.check(batch)
        x = self.family.embed(self.config, params, batch, key)
        return x.astype(self.config.precision)

    def run_stage(self, blocks: Params, x: jax.Array, batch: Batch, key: Key = None) -> jax.Array:
        """x: (batch, tokens, width) through the blocks of one stage."""
        return run_stack(
            self.family.block(self.config), blocks, x, batch.get("attention_mask"), key
        )

    def _ends(self, params: Params, cut: int) -> Params:
        return jax.tree.map(lambda leaf: leaf[cut], params["boundaries"])

    def stage_blocks(self, params: Params, stage: int) -> Params:
        """The stacked blocks of one stage, from canonical parameters."""
        each = split_layers(self.config.layers, self.config.stages)
        return jax.tree.map(lambda leaf: leaf[stage * each : (stage + 1) * each], params["blocks"])


def without_boundaries(params: Params) -> Params:
    """The dense part of parameters."""
    return {name: tree for name, tree in params.items() if name != "boundaries"}


def real_tokens(batch: Batch) -> Any:
    """Index, into arrays (batch, tokens, ...), of what is neither padding nor a row of weight 0."""
    weight = batch.get("weight")
    rows = None if weight is None or np.ndim(weight) != 1 else np.asarray(weight) > 0
    if "attention_mask" not in batch:
        return slice(None) if rows is None else rows
    mask = np.asarray(batch["attention_mask"])
    return mask if rows is None else mask & rows[:, None]


def _outputs(captured: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, jax.Array]]:
    """Name and output of each module that Linen captured, in the order in which they returned."""
    for name, entry in captured.items():
        if name == "__call__":
            yield prefix, entry[0]
        else:
            yield from _outputs(entry, f"{prefix}/{name}")
