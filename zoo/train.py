"""Training and evaluation of a model on images, on a mesh or on one device."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from snapjax.boundary import BoundaryStats
from snapjax.parameters import merge_plan, split_plan
from snapjax.sharding import path_name, place, put_placed, unplace
from zoo import data, losses
from zoo.hybrid import Batch, Model, Params

Sums = dict[str, jax.Array]  # scalars "loss", "correct", "weight"; see zoo.losses


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
      epochs: passes over the training split.
      batch_size: samples a step, over all devices.
      learning_rate: peak of AdamW's warm-up and cosine schedule.
      warmup: share of all steps spent warming up.
      weight_decay: on matrices only; norms, biases, positions and boundaries have none.
      clip: largest global gradient norm.
      microbatches: how many the pipeline splits each device's part of the batch into.
      noise: augmentation, standard deviation of Gaussian noise added to the (normalised) images.
      shift: augmentation, images moved by up to so many pixels.
      seed: of the initial parameters, the data order and the augmentation.
      debug: raise FloatingPointError at the first step whose activations are not finite.
    """

    epochs: int = 40
    batch_size: int = 32
    learning_rate: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 0.5
    clip: float = 1.0
    microbatches: int = 4
    noise: float = 0.0
    shift: int = 0
    seed: int = 0
    debug: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "microbatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"TrainConfig: {name}={getattr(self, name)} must be at least 1")
        for name in ("warmup", "weight_decay", "noise", "shift", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"TrainConfig: {name}={getattr(self, name)} must not be negative")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"TrainConfig: {name}={getattr(self, name)} must be positive")
        if not self.warmup < 1:
            raise ValueError(f"TrainConfig: warmup={self.warmup} must be a share below 1")
        for name, bound in (("epochs", 10**6), ("seed", 2**32)):
            if getattr(self, name) >= bound:
                raise ValueError(f"TrainConfig: {name}={getattr(self, name)} must be below {bound}")


class State(NamedTuple):
    """What training carries from step to step; `trainable` and `plans` as in `split_plan`."""

    trainable: Any
    plans: Any
    optimiser: Any
    step: int


class Scores(NamedTuple):
    """Means over a split. `spike_rate` and `bits` are (stages - 1,), one entry a boundary."""

    loss: float
    accuracy: float
    spike_rate: np.ndarray
    bits: np.ndarray


@dataclass(frozen=True)
class Trainer:
    """Runs one model; `mesh` None means one device, which computes the same function.

    Attributes:
      model: what to train.
      config: how.
      steps_per_epoch: of the training split.
      mesh: where; its "stage" axis has the model's number of stages.
    """

    model: Model
    config: TrainConfig
    steps_per_epoch: int
    mesh: Mesh | None = None

    def start(self, params: Params) -> State:
        """The state before the first step, from canonical parameters."""
        if "boundaries" in params:
            self.model.boundary.check(params["boundaries"])
        if self.mesh is not None:
            params = put_placed(self.mesh, place(params, self.model.config.stages))
        trainable, plans = split_plan(params)
        return State(trainable, plans, self._place_optimiser(self.optimiser.init(trainable)), 0)

    def _place_optimiser(self, optimiser: Any) -> Any:
        """Moments on their parameters' stages, counters everywhere: as a step returns them."""
        if self.mesh is None:
            return optimiser
        stages = self.model.config.stages
        spec = lambda leaf: P("stage") if leaf.shape[:1] == (stages,) else P()
        put = lambda leaf: jax.device_put(leaf, NamedSharding(self.mesh, spec(leaf)))
        return jax.tree.map(put, optimiser)

    def params(self, state: State) -> Params:
        """Canonical parameters of a state."""
        params = merge_plan(state.trainable, state.plans)
        return params if self.mesh is None else jax.block_until_ready(_unplace(params))

    def __post_init__(self) -> None:
        if self.mesh is not None:
            parts = self.mesh.shape["data"] * self.config.microbatches
            if self.config.batch_size % parts:
                raise ValueError(
                    f"Trainer: batch_size={self.config.batch_size} must be a multiple of {parts}: "
                    f"data={self.mesh.shape['data']} x microbatches={self.config.microbatches}"
                )

    @cached_property
    def optimiser(self) -> optax.GradientTransformation:
        config, steps = self.config, self.config.epochs * self.steps_per_epoch
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, config.learning_rate, int(config.warmup * steps), steps
        )
        decays = lambda params: jax.tree_util.tree_map_with_path(
            lambda path, _: path_name(path).endswith("kernel"), params
        )
        return optax.chain(
            optax.clip_by_global_norm(config.clip),
            optax.adamw(schedule, weight_decay=config.weight_decay, mask=decays),
        )

    def batches(self, split: data.Arrays, epoch: int) -> Iterator[data.Batch]:
        """The augmented batches of one epoch."""
        config = self.config
        batches = data.batches(split, config.batch_size, seed=config.seed, epoch=epoch)
        for step, batch in enumerate(batches):
            rng, images = data.step_rng(config.seed, epoch, step), batch["image"]
            if config.shift:
                images = data.augment_shift(images, rng, config.shift)
            if config.noise:
                noise = rng.standard_normal(images.shape, dtype=np.float32)
                images = images + np.float32(config.noise) * noise
            yield {**batch, "image": images}

    def step(self, state: State, batch: data.Batch) -> tuple[State, Sums]:
        """One update; returns the next state and the sums before the update."""
        key = jax.random.fold_in(jax.random.key(self.config.seed), state.step)
        trainable, optimiser, sums, finite = self._update(
            state.trainable, state.plans, state.optimiser, batch, key
        )
        # One program at a time: the threads of XLA:CPU's fake devices are few, and a second program
        # that waits in a collective can keep the first from ever finishing.
        jax.block_until_ready(trainable)
        if self.config.debug and not np.all(finite := np.asarray(finite)[: self._cuts] == 1):
            cuts = (np.flatnonzero(~finite) + 1).tolist()
            raise FloatingPointError(
                f"step {state.step}: the activations at boundaries {cuts} are not finite; look "
                "for bad input or lower the learning rate"
            )
        return State(trainable, state.plans, optimiser, state.step + 1), sums

    def evaluate(self, params: Any, split: data.Arrays) -> Scores:
        """Scores of a split; `params` canonical."""
        if self.mesh is not None:
            params = put_placed(self.mesh, place(params, self.model.config.stages))
        totals, stats = [], []
        for batch in data.eval_batches(split, self.config.batch_size):
            sums, sent = jax.block_until_ready(self._forward(params, batch))
            totals.append(sums)
            stats.append(sent)
        mean = means(totals)
        # The pipeline's entry for the last stage is of no boundary; it is cut off here and not
        # inside jit, where slicing a sharded array would be one more collective.
        rate, bits = (
            np.mean([np.asarray(s[i]) for s in stats], axis=0)[: self._cuts] for i in range(2)
        )
        return Scores(mean["loss"], mean["accuracy"], rate, bits)

    @property
    def _cuts(self) -> int:
        return self.model.config.stages - 1

    @cached_property
    def _forward(self) -> Callable[..., tuple[Sums, BoundaryStats]]:
        return jax.jit(self._run)

    def _run(
        self, params: Any, batch: Batch, key: jax.Array | None = None
    ) -> tuple[Sums, BoundaryStats]:
        if self.mesh is None:
            logits, result = self.model.apply(params, batch, key)
            return losses.classification(logits, batch)[0], result.stats
        pipeline = self.model.pipeline(self.mesh, self.config.microbatches)
        outputs = pipeline(params, batch, key)
        return outputs.sums, outputs.stats

    @cached_property
    def _update(self) -> Callable[..., Any]:
        def update(trainable: Any, plans: Any, optimiser: Any, batch: Batch, key: jax.Array) -> Any:
            def loss(trainable: Any) -> tuple[jax.Array, Any]:
                sums, stats = self._run(merge_plan(trainable, plans), batch, key)
                return sums["loss"] / sums["weight"], (sums, stats.finite)

            grads, (sums, finite) = jax.grad(loss, has_aux=True)(trainable)
            updates, optimiser = self.optimiser.update(grads, optimiser, trainable)
            return optax.apply_updates(trainable, updates), optimiser, sums, finite

        return jax.jit(update)


_unplace = jax.jit(unplace)


def means(totals: Sequence[Sums]) -> dict[str, float]:
    """Loss and accuracy of several batches' sums."""
    total = jax.tree.map(lambda *leaves: float(np.sum([np.asarray(x) for x in leaves])), *totals)
    return {
        "loss": total["loss"] / total["weight"],
        "accuracy": total["correct"] / total["weight"],
    }
