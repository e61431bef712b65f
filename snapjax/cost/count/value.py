"""What a walk knows of an array of the program."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from snapjax.cost.count import spike_marks
from snapjax.cost.count.known import Known
from snapjax.cost.count.layout import Spec
from snapjax.cost.count.spike_marks import Mark

Path = tuple[str, ...]


class Value(NamedTuple):
    """What is known of an array.

    Attributes:
      mark: whether it holds spikes.
      known: its value in every iteration on every device, of small integers alone.
      spec: its layout over the mesh, outside of shard_map.
      local: what each device knew of its shard when a shard_map returned it so laid out.
    """

    mark: Mark | None = None
    known: Known = None
    spec: Spec | None = None
    local: Known = None


UNKNOWN = Value()


def join_values(values: list[Value]) -> Value:
    """What is known of an array that may be any of these."""
    specs = {value.spec for value in values}
    mark = spike_marks.join(*(value.mark for value in values))
    return Value(mark, None, specs.pop() if len(specs) == 1 else None)


def executions(weights: np.ndarray) -> float:
    """Executions on one device, the mean over the devices.

    Args:
      weights: (devices, iterations of the loops around, ...).
    """
    total = float(weights.sum()) / weights.shape[0]
    return int(total) if total.is_integer() else total


def elements_of(parameters: Any) -> int | None:
    """Elements of a pytree of arrays; a number, or None, is itself."""
    if parameters is None or isinstance(parameters, int):
        return parameters
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(parameters))


def place(path: Path) -> str:
    """A path for a reader, also of the top level."""
    return "/".join(path) or "top level"
