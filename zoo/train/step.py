"""One training step and one evaluation of a model on a mesh, as jitted functions of a state."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from snapjax.codes.parameters import merge_plan, split_plan
from snapjax.parallel.sharding import place, unplace
from zoo.config.specs import TrainSpec
from zoo.data import Batch, Split, eval_batches
from zoo.models.model import Model, Objective, Params
from zoo.train import placement
from zoo.train.distillation import Teacher
from zoo.train.optimiser import make_optimiser, move_average, schedule


class State(NamedTuple):
    """What training carries from step to step, placed on a mesh.

    Attributes:
      trainable, plans: the parameters, parted by `snapjax.codes.parameters.split_plan`.
      optimiser: optax's state.
      average: moving average of `trainable`, or None.
      step: int32 scalar, updates made.
      finite: bool scalar; false from the first step whose loss or gradients are not finite. From
        then on nothing changes, so that the state is the last good one when the host looks.
    """

    trainable: Any
    plans: Any
    optimiser: Any
    average: Any
    step: jax.Array
    finite: jax.Array


class Metrics(NamedTuple):
    """Of one step, before its update; scalars but for the boundaries' (stages,), whose last entry
    is of no boundary."""

    loss: jax.Array
    accuracy: jax.Array
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
        parts = mesh.shape["data"] * spec.microbatches
        if spec.batch_size % parts:
            raise ValueError(
                f"batch_size={spec.batch_size} must be a multiple of {parts}: "
                f"data={mesh.shape['data']} x microbatches={spec.microbatches}"
            )

    # States

    def start(self, params: Params) -> State:
        """The state before the first step on the mesh, from canonical parameters."""
        return self.place(self.first(params))

    def abstract(self) -> State:
        """Shapes of a canonical state, to restore one into."""
        return jax.eval_shape(lambda key: self._first(self.model.init(key)), jax.random.key(0))

    def first(self, params: Params) -> State:
        """The canonical state before the first step, from canonical parameters."""
        if "boundaries" in params:
            self.model.boundary.check(params["boundaries"])
        return self._first(params)

    def _first(self, params: Params) -> State:
        trainable, plans = split_plan(params)
        average = trainable if self.spec.ema else None
        return State(
            trainable,
            plans,
            self.optimiser.init(trainable),
            average,
            jnp.zeros((), jnp.int32),
            jnp.ones((), bool),
        )

    def place(self, state: State) -> State:
        """A canonical state onto the mesh."""
        placed = self.placed(state)
        return placement.put_tree(placed, placement.state_shardings(self.mesh, placed, self.fsdp))

    def placed(self, state: State) -> State:
        """A canonical state in the layout of the mesh, wherever its arrays are; traceable."""
        ranks, stages = self.mesh.shape["stage"], self.model.config.stages
        return placement.map_params(lambda tree: place(tree, ranks, stages), state)

    def canonical(self, state: State) -> State:
        """A placed state in the canonical layout, whole on every process."""
        state = placement.gather(state, self.mesh) if jax.process_count() > 1 else state
        return placement.map_params(_unplace, state)

    def params(self, state: State, averaged: bool = False) -> Params:
        """Canonical parameters of a placed state: the moving average if asked for and there."""
        trainable = state.average if averaged and self.spec.ema else state.trainable
        params = merge_plan(trainable, state.plans)
        params = placement.gather(params, self.mesh) if jax.process_count() > 1 else params
        return _unplace(params)

    # Steps

    def label(self, batch: Batch) -> Batch:
        """A batch on the mesh with the teacher's targets in it, where there is a teacher."""
        return batch if self._placed_teacher is None else self._placed_teacher.label(batch)

    @cached_property
    def _placed_teacher(self) -> Teacher | None:
        return None if self.teacher is None else self.teacher.on(self.mesh)

    @property
    def _objective(self) -> Objective | None:
        return None if self.teacher is None else self.teacher.loss

    def step(self, state: State, batch: Batch) -> tuple[State, Metrics]:
        """One update. The state given is consumed: its buffers are reused for the next."""
        return self._update(state, self.label(batch))

    def forward(self, state: State, batch: Batch, averaged: bool = False) -> Any:
        """(sums, stats) of a batch, with no dropout and no update."""
        trainable = state.average if averaged and self.spec.ema else state.trainable
        return self._forward(merge_plan(trainable, state.plans), self.label(batch))

    @cached_property
    def _forward(self) -> Callable[..., Any]:
        def forward(placed: Params, batch: Batch) -> Any:
            pipeline = self.model.pipeline(
                self.mesh, self.spec.microbatches, objective=self._objective
            )
            outputs = pipeline(placed, batch, None)
            return outputs.sums, outputs.stats

        return jax.jit(forward)

    def loss_and_gradients(self, state: State, batch: Batch) -> tuple[Any, Any]:
        """((sums, stats), gradients) of the mean loss at a placed state; traceable.

        Args:
          state: placed.
          batch: from `label`.
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
                sums["correct"] / sums["weight"],
                sums["weight"],
                norm,
                stats.spike_rate,
                stats.bits,
                finite,
            )
            return new, metrics

        return jax.jit(update, donate_argnums=0, out_shardings=self._out_shardings)

    @property
    def _out_shardings(self) -> Any:
        state = jax.eval_shape(self.placed, self.abstract())
        return placement.state_shardings(self.mesh, state, self.fsdp), None


_unplace = jax.jit(unplace)


class Scores(NamedTuple):
    """Means over a split. `spike_rate` and `bits` are (stages - 1,), one entry a boundary."""

    loss: float
    accuracy: float
    samples: int
    spike_rate: np.ndarray
    bits: np.ndarray

    def record(self) -> dict[str, Any]:
        """The scores as JSON's own types."""
        return {
            **self._asdict(),
            "spike_rate": self.spike_rate.tolist(),
            "bits": self.bits.tolist(),
        }


def evaluate(trainer: Trainer, state: State, split: Split, averaged: bool = False) -> Scores:
    """Scores of a whole split, each sample counted once.

    Args:
      trainer: with the mesh that `state` is placed on.
      state: only its parameters are read.
      split: what to evaluate on.
      averaged: use the moving average of the weights where there is one.
    """
    mesh, size = trainer.mesh, trainer.spec.batch_size
    put, rows = placement.batch_putter(mesh, size), placement.process_rows(mesh, size)
    totals, sent = [], []
    for batch in eval_batches(split, size, rows=rows):
        sums, stats = trainer.forward(state, put(batch), averaged)
        sums, stats = placement.fetch((sums, stats), mesh)
        totals.append(sums)
        sent.append(stats)
    total = {name: float(np.sum([sums[name] for sums in totals])) for name in totals[0]}
    cuts = trainer.model.config.stages - 1
    mean = lambda name: np.mean([getattr(stats, name) for stats in sent], axis=0)[:cuts]
    return Scores(
        total["loss"] / total["weight"],
        total["correct"] / total["weight"],
        split.samples,
        mean("spike_rate"),
        mean("bits"),
    )
