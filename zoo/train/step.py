"""One training step and one evaluation of a model on a mesh, as jitted functions of a state."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from snapjax.codes.parameters import merge_plan
from zoo.config.specs import TrainSpec
from zoo.data import Batch, Split, eval_batches
from zoo.models.finite import check_finite
from zoo.models.model import Model, Objective, Params
from zoo.train import placement
from zoo.train.distillation import Teacher
from zoo.train.optimiser import make_optimiser, move_average, schedule
from zoo.train.state import State, from_ranks, init_state, to_ranks
from zoo.utils.progress import Begin, silent


class Metrics(NamedTuple):
    """Of one step, before its update; scalars but for the boundaries' (stages,), whose last entry
    is of no boundary. One of accuracy and cosine is None, see `Scores`."""

    loss: jax.Array
    accuracy: jax.Array | None
    cosine: jax.Array | None
    weight: jax.Array
    gradient_norm: jax.Array
    spike_rate: jax.Array
    bits: jax.Array
    finite: jax.Array


class Trainer:
    """Runs one model on one mesh.

    Args:
      model: what to train.
      spec: how.
      steps_per_epoch: of the training split.
      mesh: whose "stage" axis divides the model's stages.
      fsdp: shard parameters and optimiser state over "data" too.
      teacher: gives the targets instead of labels.

    Raises:
      ValueError: a batch that does not split over the mesh.
    """

    def __init__(
        self,
        model: Model,
        spec: TrainSpec,
        steps_per_epoch: int,
        mesh: Mesh,
        fsdp: bool = False,
        teacher: Teacher | None = None,
    ) -> None:
        self.model, self.spec, self.mesh, self.fsdp = model, spec, mesh, fsdp
        self.teacher = teacher
        self.total_steps = spec.epochs * steps_per_epoch
        self.optimiser = make_optimiser(spec, self.total_steps)
        self.learning_rate = schedule(spec, self.total_steps)
        placement.check_batch_size(mesh, spec)

    # States

    @cached_property
    def state_shape(self) -> State:
        """Shapes and dtypes of a sharded state."""
        return jax.eval_shape(self._init, self.model.param_shape)

    @cached_property
    def state_sharding(self) -> State:
        """Where on the mesh each array of a sharded state lies."""
        return placement.state_shardings(self.mesh, self.state_shape, self.fsdp)

    def init_state(self, params: Params) -> State:
        """The state before the first step, made on the mesh from canonical parameters.

        Raises:
          ValueError: boundaries that are not the model's.
        """
        if "boundaries" in params:
            self.model.boundary.check(params["boundaries"])
        # From the host: what is committed to one device, or to one process, cannot go onto a mesh.
        return jax.jit(self._init, out_shardings=self.state_sharding)(jax.device_get(params))

    def _init(self, params: Params) -> State:
        return init_state(self._to_ranks(params), self.optimiser, bool(self.spec.ema))

    def _to_ranks(self, tree: Any) -> Any:
        return to_ranks(tree, self.mesh.shape["stage"], self.model.config.stages)

    def shard(self, state: State) -> State:
        """A canonical state, onto the mesh."""
        return placement.put_tree(self._to_ranks(state), self.state_sharding)

    def unshard(self, state: State) -> State:
        """A sharded state in the canonical layout, whole on every process."""
        state = placement.gather(state, self.mesh) if jax.process_count() > 1 else state
        return from_ranks(state)

    def params(self, state: State, averaged: bool = False) -> Params:
        """Canonical parameters of a sharded state: the moving average if asked for and there."""
        trainable = state.average if averaged and self.spec.ema else state.trainable
        params = merge_plan(trainable, state.plans)
        params = placement.gather(params, self.mesh) if jax.process_count() > 1 else params
        return from_ranks(params)

    # Steps

    def add_targets(self, batch: Batch) -> Batch:
        """A batch on the mesh with the teacher's targets in it, where there is a teacher."""
        teacher = self._replicated_teacher
        return batch if teacher is None else teacher.add_targets(batch)

    @cached_property
    def _replicated_teacher(self) -> Teacher | None:
        return None if self.teacher is None else self.teacher.replicate(self.mesh)

    @property
    def _objective(self) -> Objective | None:
        return None if self.teacher is None else self.teacher.loss

    def step(self, state: State, batch: Batch) -> tuple[State, Metrics]:
        """One update. The state given is consumed: its buffers are reused for the next."""
        return self._update(state, self.add_targets(batch))

    def forward(self, state: State, batch: Batch, averaged: bool = False) -> Any:
        """(sums, stats) of a batch, with no dropout and no update."""
        trainable = state.average if averaged and self.spec.ema else state.trainable
        return self._forward(merge_plan(trainable, state.plans), self.add_targets(batch))

    @cached_property
    def _forward(self) -> Callable[..., Any]:
        def forward(params: Params, batch: Batch) -> Any:
            pipeline = self.model.pipeline(
                self.mesh, self.spec.microbatches, objective=self._objective
            )
            outputs = pipeline(params, batch, None)
            return outputs.sums, outputs.stats

        return jax.jit(forward)

    def loss_and_gradients(self, state: State, batch: Batch) -> tuple[Any, Any]:
        """((sums, stats), gradients) of the mean loss at a sharded state; traceable.

        Args:
          state: sharded.
          batch: from `add_targets`.
        """
        key = jax.random.fold_in(jax.random.key(self.spec.seed), state.step)
        pipeline = self.model.pipeline(
            self.mesh,
            self.spec.microbatches,
            label_smoothing=self.spec.label_smoothing,
            objective=self._objective,
        )

        def loss(trainable: Any) -> tuple[jax.Array, Any]:
            outputs = pipeline(merge_plan(trainable, state.plans), batch, key)
            sums = outputs.sums
            return sums["loss"] / sums["weight"], (sums, outputs.stats)

        gradients, aux = jax.grad(loss, has_aux=True)(state.trainable)
        return aux, gradients

    @cached_property
    def _update(self) -> Callable[..., Any]:
        def update(state: State, batch: Batch) -> tuple[State, Metrics]:
            (sums, stats), gradients = self.loss_and_gradients(state, batch)
            norm, loss = optax.tree.norm(gradients), sums["loss"] / sums["weight"]
            # The last stage has no boundary; masked and not sliced, which would be a collective.
            no_cut = jnp.arange(stats.finite.shape[0]) == self.model.config.stages - 1
            crossed = ((stats.finite == 1) | no_cut).all()
            finite = state.finite & jnp.isfinite(loss) & jnp.isfinite(norm) & crossed
            updates, optimiser = self.optimiser.update(gradients, state.optimiser, state.trainable)
            trainable = optax.apply_updates(state.trainable, updates)
            average = state.average
            if self.spec.ema:
                average = move_average(average, trainable, self.spec.ema, state.step)
            new = State(trainable, state.plans, optimiser, average, state.step + 1, finite)
            # All or nothing, and nothing ever after: see `State.finite`.
            new = jax.tree.map(
                lambda fresh, old: jnp.where(finite, fresh, old), new, state._replace(finite=finite)
            )
            metrics = Metrics(
                loss,
                *_means(sums),
                sums["weight"],
                norm,
                stats.spike_rate,
                stats.bits,
                finite,
            )
            return new, metrics

        return jax.jit(update, donate_argnums=0, out_shardings=(self.state_sharding, None))


class Scores(NamedTuple):
    """Means over a split.

    Attributes:
      loss: what is minimised.
      accuracy: share of right predictions; None for an encoder.
      cosine: of an encoder's embeddings and its teacher's; None for other models.
      samples: in the split.
      spike_rate: (stages - 1,), one entry a boundary; None where none spikes.
      bits: as spike_rate, of all boundaries.
    """

    loss: float
    accuracy: float | None
    cosine: float | None
    samples: int
    spike_rate: np.ndarray | None
    bits: np.ndarray

    def record(self) -> dict[str, Any]:
        """The scores that there are, as JSON's own types."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in self._asdict().items()
            if value is not None
        }


def _means(sums: Mapping[str, Any]) -> list[Any]:
    """[accuracy, cosine] of a loss's sums, None for the one that it does not count."""
    return [sums[name] / sums["weight"] if name in sums else None for name in ("correct", "cosine")]


def evaluate(
    trainer: Trainer,
    state: State,
    split: Split,
    averaged: bool = False,
    progress: Begin = silent,
) -> Scores:
    """Scores of a whole split, each sample counted once.

    Args:
      trainer: with the mesh that `state` is sharded over.
      state: only its parameters are read.
      split: what to evaluate on.
      averaged: use the moving average of the weights where there is one.
      progress: told how many samples are scored.

    Raises:
      FloatingPointError: a boundary or the loss met NaN or infinity, naming boundary and batch.
    """
    done = progress("samples scored", split.samples)
    mesh, size = trainer.mesh, trainer.spec.batch_size
    put, rows = placement.batch_putter(mesh, size), placement.process_rows(mesh, size)
    totals, sent = [], []
    name, cuts = trainer.model.config.name, trainer.model.config.stages - 1
    for number, batch in enumerate(eval_batches(split, size, rows=rows), 1):
        sums, stats = trainer.forward(state, put(batch), averaged)
        sums, stats = placement.fetch((sums, stats), mesh)
        check_finite(f"{name}, batch {number} of the split", stats.finite[:cuts], sums["loss"])
        totals.append(sums)
        sent.append(stats)
        done(min(len(sent) * size, split.samples))
    total = {name: float(np.sum([sums[name] for sums in totals])) for name in totals[0]}
    mean = lambda name: np.mean([getattr(stats, name) for stats in sent], axis=0)[:cuts]
    return Scores(
        total["loss"] / total["weight"],
        *_means(total),
        split.samples,
        mean("spike_rate") if trainer.model.boundary.spiking else None,
        mean("bits"),
    )
