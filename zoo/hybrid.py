"""A model cut into stages with boundaries between them: the composition both families share.

A family brings a config and three functions (embed, block, head); here they become a model that
runs on one device (`apply`), on a mesh (`pipeline`), and that can be calibrated. Parameters are
plain nested dicts in the canonical layout of `snapjax.sharding`.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from snapjax.boundary import Boundary, BoundaryStats
from snapjax.pipeline import Pipeline
from snapjax.sharding import split_layers, stack
from zoo import losses
from zoo.transformer import init_stack, run_stack

Params = dict[str, Any]
Batch = dict[str, jax.Array]


class Config(Protocol):
    """What the composition reads of a family's frozen config."""

    name: str
    width: int
    layers: int
    stages: int
    boundary: Boundary


class Family(Protocol):
    """A family of models, as functions of its config."""

    def init_ends(self, config: Any, key: jax.Array) -> tuple[Params, Params]:
        """Parameters of the embedding and of the head."""

    def embed(self, config: Any, params: Params, batch: Batch) -> jax.Array:
        """(batch, tokens, width) of a batch of inputs."""

    def block(self, config: Any) -> nn.Module:
        """One encoder block."""

    def head(self, config: Any, params: Params, x: jax.Array, batch: Batch) -> jax.Array:
        """Logits of the last block's output."""

    def check_batch(self, config: Any, batch: Batch) -> None:
        """Raises ValueError when an input does not fit the config."""


class Result(NamedTuple):
    """What a forward pass made on the way.

    Attributes:
      stats: `BoundaryStats` with leaves (stages - 1,).
      cut: for each boundary the activation that reached it, (batch, tokens, width).
    """

    stats: BoundaryStats
    cut: list[jax.Array]


@dataclass(frozen=True)
class Model:
    """A family's functions bound to one config; holds no parameters."""

    family: Family
    config: Any

    def __post_init__(self) -> None:
        split_layers(self.config.layers, self.config.stages)
        if self.config.boundary.features != self.config.width:
            raise ValueError(
                f"{self.config.name}: boundary.features={self.config.boundary.features} must equal "
                f"the model's width={self.config.width}"
            )

    @property
    def boundary(self) -> Boundary:
        return self.config.boundary

    def with_boundary(self, boundary: Boundary) -> "Model":
        """The same model with another boundary between its stages."""
        return replace(self, config=replace(self.config, boundary=boundary))

    def init(self, key: jax.Array) -> Params:
        """Canonical parameters, random."""
        config = self.config
        key_ends, key_blocks, key_boundary = jax.random.split(key, 3)
        embed, head = self.family.init_ends(config, key_ends)
        blocks = init_stack(self.family.block(config), key_blocks, config.layers, config.width)
        params = {"embed": embed, "blocks": blocks, "head": head}
        return self.with_new_boundaries(params, key_boundary)

    def with_new_boundaries(self, params: Params, key: jax.Array) -> Params:
        """`params` with fresh boundaries, for instance to cut a dense model with spikes."""
        params = {name: value for name, value in params.items() if name != "boundaries"}
        cuts = self.config.stages - 1
        if cuts:
            ends = [self.boundary.init(k) for k in jax.random.split(key, cuts)]
            params["boundaries"] = stack(ends)
        return params

    def apply(
        self, params: Params, batch: Batch, key: jax.Array | None = None
    ) -> tuple[jax.Array, Result]:
        """Logits on one device, through the same cuts as on a mesh.

        Args:
          params: canonical parameters.
          batch: the family's inputs.
          key: PRNG key for the stochastic rounding of an int8 or int4 gradient wire.
        """
        x = self._embed(params["embed"], batch)
        cut, stats = [], []
        for stage in range(self.config.stages):
            x = self._run_stage(self._stage_blocks(params, stage), x)
            if stage < self.config.stages - 1:
                cut.append(x)
                cut_key = None if key is None else jax.random.fold_in(key, stage)
                x, sent = self.boundary.apply(self._ends(params, stage), x, cut_key)
                stats.append(sent)
        nothing = BoundaryStats(*(jnp.zeros(0) for _ in BoundaryStats._fields))
        result = Result(stack(stats) if stats else nothing, cut)
        return self.family.head(self.config, params["head"], x, batch), result

    def calibrate(self, params: Params, batch: Batch) -> Params:
        """`params` with every boundary fitted to the activations of a batch.

        The boundaries are fitted in sequence, so that a later one sees the earlier ones' error.
        """
        if self.config.stages == 1:
            return params
        run = jax.jit(self._run_stage)
        x = self._embed(params["embed"], batch)
        fitted = []
        for stage in range(self.config.stages - 1):
            x = run(self._stage_blocks(params, stage), x)
            fitted.append(self.boundary.calibrate(self._ends(params, stage), x))
            x, _ = self.boundary.apply(fitted[-1], x)
        return {**params, "boundaries": stack(fitted)}

    def pipeline(self, mesh: Mesh, microbatches: int, remat: bool = False) -> Pipeline:
        """The model on a mesh whose "stage" axis has as many places as the config has stages.

        Its `sums` and `samples` are those of `zoo.losses.classification`, which reads the batch's
        "label" and "weight".
        """
        if mesh.shape["stage"] != self.config.stages:
            raise ValueError(
                f"{self.config.name}: stages={self.config.stages} needs a mesh with as many places "
                f"on its 'stage' axis, got {mesh.shape['stage']}"
            )
        return Pipeline(
            embed=self._embed,
            stage=self._run_stage,
            head=lambda params, x, batch: losses.classification(
                self.family.head(self.config, params, x, batch), batch
            ),
            boundary=self.boundary,
            mesh=mesh,
            microbatches=microbatches,
            remat=remat,
        )

    def _embed(self, params: Params, batch: Batch) -> jax.Array:
        self.family.check_batch(self.config, batch)
        return self.family.embed(self.config, params, batch)

    def _run_stage(self, blocks: Params, x: jax.Array) -> jax.Array:
        return run_stack(self.family.block(self.config), blocks, x)

    def _ends(self, params: Params, cut: int) -> Params:
        return jax.tree.map(lambda leaf: leaf[cut], params["boundaries"])

    def _stage_blocks(self, params: Params, stage: int) -> Params:
        each = split_layers(self.config.layers, self.config.stages)
        return jax.tree.map(lambda leaf: leaf[stage * each : (stage + 1) * each], params["blocks"])
