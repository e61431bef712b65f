"""This repository's trainer as runs to be timed: one step on one device, on a batch that stays."""

import jax

from snapjax.parallel.sharding import make_mesh
from zoo.bench.rounds import Run
from zoo.config.specs import TrainSpec
from zoo.data import Batch
from zoo.models.model import Model, without_boundaries
from zoo.train import placement
from zoo.train.state import State
from zoo.train.step import Trainer

# The schedule's length; the step's cost does not depend on it.
STEPS_PER_EPOCH = 10**4


class Ours:
    """A model that trains on one device, without accumulation of gradients.

    Attributes:
      state: after the steps made so far.

    Args:
      model: what trains.
      batch_size: samples a step.
    """

    def __init__(self, model: Model, batch_size: int) -> None:
        # One device and not fake ones, which would share the cores: the cuts are computed there.
        mesh = make_mesh()
        spec = TrainSpec(epochs=1, batch_size=batch_size, microbatches=1, learning_rate=1e-4)
        self.trainer = Trainer(model, spec, STEPS_PER_EPOCH, mesh)
        self.put = placement.batch_putter(mesh, batch_size)
        self.state: State = self.trainer.init_state(model.init(jax.random.key(0)))

    def step(self, placed: Batch) -> None:
        """One training step on a batch from `put`; returns when it is done."""
        self.state, metrics = self.trainer.step(self.state, placed)
        jax.block_until_ready((self.state, metrics))

    def forward(self, placed: Batch) -> None:
        """One evaluation of a batch from `put`, losses included; returns when it is done."""
        jax.block_until_ready(self.trainer.forward(self.state, placed))

    def runs(self, batch: Batch) -> dict[str, Run]:
        """{"train", "forward"} on one batch."""
        placed = self.put(batch)
        return {"train": lambda: self.step(placed), "forward": lambda: self.forward(placed)}


def parameter_count(model: Model) -> int:
    """Numbers that a model is made of; those of its boundaries are not counted."""
    return sum(leaf.size for leaf in jax.tree.leaves(without_boundaries(model.param_shape)))
