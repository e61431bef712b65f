"""The collectives that bring an array from one layout over the mesh to another."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from snapjax.cost.count._jax import size_of
from snapjax.cost.count.layout import Spec


class Move(NamedTuple):
    """A collective that brings an array into another layout.

    Attributes:
      collective, axes: as in `Transfer`.
      spec: the layout whose shards travel.
      pairs: of a ppermute, along the axes.
    """

    collective: str
    axes: tuple[str, ...]
    spec: Spec
    pairs: tuple[tuple[int, int], ...] | None = None


def moves(produced: Spec, consumed: Spec, mesh: Mapping[str, int]) -> list[Move]:
    """The collectives that bring an array from one layout to another.

    An axis that divides another dimension than before takes an all-to-all, and one that divides
    none any more an all-gather. One that divides a dimension for the first time takes nothing if it
    is the dimension's innermost; where the order of a dimension's axes changes, shards change
    places.
    """
    place = {axis: dimension for dimension, axes in enumerate(produced) for axis in axes}
    wanted = {axis: dimension for dimension, axes in enumerate(consumed) for axis in axes}
    turned = tuple(axis for axis in place if axis in wanted and wanted[axis] != place[axis])
    gathered = tuple(axis for axis in place if axis not in wanted)
    if turned or gathered:
        steps = [Move("all_to_all", (axis,), produced) for axis in turned]
        return [*steps, *([Move("all_gather", gathered, produced)] if gathered else [])]
    found = []
    for before, after in zip(produced, consumed, strict=True):
        pairs = _reordered(before, after, mesh)
        if pairs:
            found.append(Move("ppermute", after, consumed, pairs))
    return found


def _reordered(
    before: tuple[str, ...], after: tuple[str, ...], mesh: Mapping[str, int]
) -> tuple[tuple[int, int], ...]:
    """(from, to) along the axes `after` of each shard of a dimension that must change places.

    Shard i of the new layout lies where the old one, cut further by the axes that it did not have,
    has its shard i.
    """
    order = (*before, *(axis for axis in after if axis not in before))
    if order == after:
        return ()
    sizes = [mesh[axis] for axis in after]
    devices = np.arange(math.prod(sizes)).reshape(sizes)
    holder = devices.transpose([after.index(axis) for axis in order]).ravel()
    return tuple((int(a), b) for b, a in enumerate(holder) if a != b)


def resharded(equation: Any, operand: int, produced: Spec, consumed: Spec) -> str:
    """The note for an array that one shard_map returned and another takes differently."""
    aval = equation.invars[operand].aval
    return (
        f"resharding: operand {operand} of a shard_map, {size_of(aval)} elements of {aval.dtype}, "
        f"arrives laid out as {_show(produced)} and is taken as {_show(consumed)}; counted as the "
        "collectives that XLA inserts for it, which the HLO shows"
    )


def _show(spec: Spec) -> str:
    names = [axes[0] if len(axes) == 1 else axes or None for axes in spec]
    return f"P({', '.join(repr(name) for name in names)})"
