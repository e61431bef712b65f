"""Tables that say which tensor of a checkpoint is which parameter, read in both directions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.utils.trees import flatten, unflatten

Params = dict[str, Any]
FLOATS = ("float32", "float16", "bfloat16", "float64")


class Change(NamedTuple):
    """How an array differs in layout: functions of one layer's array."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


SAME = Change(lambda x: x, lambda x: x)
# PyTorch's Linear holds (outputs, inputs).
MATRIX = Change(np.transpose, np.transpose)


class Entry(NamedTuple):
    """One parameter.

    Attributes:
      ours: its flat name, "blocks.attention.query.kernel"; blocks are stacked over the layers.
      theirs: the tensor's name, "encoder.layer.{}.attention.self.query.weight"; {} is the layer.
      change: of the layout.
      stand_ins: other names that a file may hold it under, the likeliest to be used last.
    """

    ours: str
    theirs: str
    change: Change = SAME
    stand_ins: tuple[str, ...] = ()


def linear(ours: str, theirs: str) -> list[Entry]:
    """Kernel and bias of a dense layer."""
    return [
        Entry(f"{ours}.kernel", f"{theirs}.weight", MATRIX),
        Entry(f"{ours}.bias", f"{theirs}.bias"),
    ]


def norm(ours: str, theirs: str) -> list[Entry]:
    """Scale and bias of a LayerNorm."""
    return [
        Entry(f"{ours}.scale", f"{theirs}.weight"),
        Entry(f"{ours}.bias", f"{theirs}.bias"),
    ]


def to_ours(
    table: Sequence[Entry], source: Mapping[str, np.ndarray], shapes: Params, layers: int
) -> tuple[Params | None, list[str]]:
    """Canonical parameters out of a checkpoint's tensors, float32.

    Args:
      table: of the model.
      source: tensors by name.
      shapes: of the parameters that are wanted.
      layers: number of blocks.

    Returns:
      The parameters and no lines; or None and a line for each tensor without a parameter, parameter
      without a tensor, and tensor of another shape or dtype.
    """
    wanted, flat = flatten(shapes), {}
    problems, used = [], set()
    for entry in table:
        stacked = "{}" in entry.theirs
        parts = []
        for layer in range(layers) if stacked else (0,):
            names = [name.format(layer) for name in (entry.theirs, *entry.stand_ins)]
            used.update(names)
            name = next((name for name in names if name in source), None)
            if name is None:
                problems.append(f"parameter {entry.ours} is not filled: no tensor {names[0]}")
                continue
            array = source[name]
            shape = wanted[entry.ours].shape[stacked:]
            needed = entry.change.to_theirs(np.broadcast_to(np.float32(0), shape)).shape
            if array.shape != needed:
                problems.append(f"tensor {name} has shape {array.shape}, needs {needed}")
            elif str(array.dtype) not in FLOATS:
                problems.append(f"tensor {name} has dtype {array.dtype}, needs one of {FLOATS}")
            else:
                parts.append(entry.change.to_ours(np.asarray(array, np.float32)))
        if not problems:
            flat[entry.ours] = np.stack(parts) if stacked else parts[0]
    mapped = {entry.ours for entry in table}
    problems += [
        f"parameter {name} is not filled: no table names it"
        for name in sorted(wanted.keys() - mapped)
    ]
    problems += [
        f"tensor {name} of shape {source[name].shape} has no parameter"
        for name in source
        if name not in used
    ]
    return (None, problems) if problems else (unflatten(flat, shapes), [])


def to_theirs(table: Sequence[Entry], params: Params, layers: int) -> dict[str, np.ndarray]:
    """The inverse of `to_ours`: contiguous float32 arrays under a checkpoint's names."""
    flat, tensors = flatten(params), {}
    for entry in table:
        array = np.asarray(flat[entry.ours])
        for layer in range(layers) if "{}" in entry.theirs else (0,):
            part = array[layer] if "{}" in entry.theirs else array
            tensors[entry.theirs.format(layer)] = np.ascontiguousarray(entry.change.to_theirs(part))
    return tensors
