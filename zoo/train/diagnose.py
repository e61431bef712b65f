"""Where a step stopped being finite: the first module forward, or the parameters backward."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from zoo.data import Batch
from zoo.models.model import Params
from zoo.train import placement
from zoo.train.processes import first_said
from zoo.train.state import State
from zoo.train.step import Trainer
from zoo.utils.trees import listed, not_finite


def explain(trainer: Trainer, state: State, batch: Batch, put: Callable[[Batch], Any]) -> str:
    """What is not finite in a step from `state` on `batch`, as a clause naming modules.

    Runs the model once more, module by module on one device, without dropout. Of several processes
    each looks at its own rows; all of them call this, and all give the same answer.

    Args:
      trainer: of the run.
      state: sharded; the last good one, from before the step.
      batch: of the step, this process's rows, on the host.
      put: onto the mesh.
    """
    params = jax.tree.map(np.asarray, trainer.params(state))
    if reason := first_said(_forward(trainer, params, batch)):
        return reason
    (_, _), gradients = jax.jit(trainer.loss_and_gradients)(state, trainer.add_targets(put(batch)))
    if names := not_finite(placement.fetch(gradients, trainer.mesh)):
        return f"the forward pass is finite, the gradients of {listed(names)} are not"
    return "run again without dropout it is finite"


def _forward(trainer: Trainer, params: Params, batch: Batch) -> str:
    """What is not finite on this process's rows before or in the forward pass; "" for nothing."""
    for what, tree in (("parameter", params), ("batch array", batch)):
        if names := not_finite(tree):
            return f"{what} {listed(names)} was not finite before the step"
    for name, output in trainer.model.walk(params, batch):
        if names := not_finite({name: output}):
            return f"the first module whose output is not finite is {listed(names)}"
    return ""
