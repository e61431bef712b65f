"""Where a step stopped being finite: the first module forward, or the parameters backward."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from snapjax.sharding import path_name
from zoo.data import Batch
from zoo.train.step import State, Trainer

SHOWN = 4  # names in a message


def explain(trainer: Trainer, state: State, batch: Batch) -> str:
    """What is not finite in a step from `state` on `batch`, as a clause naming modules.

    Runs the model once more, module by module on one device, without dropout.

    Args:
      trainer: of the run.
      state: placed; the last good one, from before the step.
      batch: of the step, on the mesh or on the host.
    """
    params, batch = trainer.params(state), jax.tree.map(np.asarray, batch)
    for what, tree in (("parameter", params), ("batch array", batch)):
        if names := not_finite(tree):
            return f"{what} {_listed(names)} was not finite before the step"
    for name, output in trainer.model.walk(params, batch):
        if names := not_finite({name: output}):
            return f"the first module whose output is not finite is {_listed(names)}"
    (_, _), gradients = jax.jit(trainer.loss_and_gradients)(state, batch)
    if names := not_finite(gradients):
        return f"the forward pass is finite, the gradients of {_listed(names)} are not"
    return "run again without dropout it is finite"


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
