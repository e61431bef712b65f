"""Where a step stopped being finite: the first module forward, or the parameters backward."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from snapjax.parallel.sharding import path_name
from zoo.data import Batch
from zoo.models.model import Params
from zoo.train import placement
from zoo.train.processes import first_said
from zoo.train.state import State
from zoo.train.step import Trainer

SHOWN = 4  # names in a message


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
        return f"the forward pass is finite, the gradients of {_listed(names)} are not"
    return "run again without dropout it is finite"


def _forward(trainer: Trainer, params: Params, batch: Batch) -> str:
    """What is not finite on this process's rows before or in the forward pass; "" for nothing."""
    for what, tree in (("parameter", params), ("batch array", batch)):
        if names := not_finite(tree):
            return f"{what} {_listed(names)} was not finite before the step"
    for name, output in trainer.model.walk(params, batch):
        if names := not_finite({name: output}):
            return f"the first module whose output is not finite is {_listed(names)}"
    return ""


def not_finite(tree: Any) -> list[str]:
    """Paths of the floating-point leaves that hold NaN or infinity, in the tree's order."""
    return list(_not_finite(tree))


def _not_finite(tree: Any) -> Iterator[str]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        if array.dtype.kind not in "biu" and not np.isfinite(array.astype(np.float64)).all():
            yield path_name(path)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
