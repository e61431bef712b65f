"""How arrays are laid out over the mesh outside of `shard_map`, as far as the jaxpr says it.

The program outside is written for whole arrays and XLA divides it. What a `shard_map` returned
sharded stays so through elementwise work, which then is divided by the number of shards. Where the
next `shard_map` takes it in another layout, XLA moves it, which is counted; everything else may
make XLA insert collectives that the jaxpr does not show, and is noted.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from snapjax.cost.count._jax import size_of

Spec = tuple[tuple[str, ...], ...]  # the mesh axes of each dimension


def axes_of(*specs: Spec | None) -> tuple[str, ...]:
    """All mesh axes that any of the arrays is sharded over, sorted."""
    return tuple(sorted({axis for spec in specs if spec for axes in spec for axis in axes}))


def shards(specs: Sequence[Spec | None], mesh: Mapping[str, int]) -> int:
    """Devices that work on arrays of these layouts is divided over."""
    return math.prod(mesh.get(axis, 1) for axis in axes_of(*specs))


def propagate(equation: Any, specs: Sequence[Spec | None]) -> tuple[list[Spec | None], str | None]:
    """(layout of each result, a note where XLA may have to communicate, else None)."""
    sharded = [
        (operand.aval.shape, spec)
        for operand, spec in zip(equation.invars, specs, strict=True)
        if spec and axes_of(spec)
    ]
    if not sharded:
        return [None] * len(equation.outvars), None
    name = equation.primitive.name
    found: list[Spec | None] = []
    for result in equation.outvars:
        spec = _result(equation, name, getattr(result.aval, "shape", ()), sharded)
        if spec is None:
            over = ", ".join(repr(axis) for axis in axes_of(*(spec for _, spec in sharded)))
            return [None] * len(equation.outvars), (
                f"{name} outside of shard_map on an array sharded over {over}: XLA may insert "
                "collectives here, and only the HLO shows them"
            )
        found.append(spec)
    return found, None


def _result(
    equation: Any, name: str, shape: tuple[int, ...], sharded: list[tuple[tuple[int, ...], Spec]]
) -> Spec | None:
    source, spec = sharded[0]
    for other_shape, other in sharded[1:]:
        merged = _finer(spec, other) if other_shape == source else None
        if merged is None:
            return None
        spec = merged
    if name == "transpose":
        return tuple(spec[i] for i in equation.params["permutation"])
    if name in ("squeeze", "reshape", "expand_dims", "broadcast_in_dim"):
        return _reshaped(source, shape, spec)
    if name.startswith(("reduce_", "arg", "cum")):
        reduced = equation.params.get("axes", (equation.params.get("axis"),))
        if any(spec[i] for i in reduced if i is not None):
            return None
        if name.startswith("cum"):
            return spec
        return tuple(axes for i, axes in enumerate(spec) if i not in reduced)
    if name in ("dot_general", "conv_general_dilated", "sort", "gather", "scatter", "rev"):
        return None
    return spec if shape == source else None


def _reshaped(source: tuple[int, ...], shape: tuple[int, ...], spec: Spec) -> Spec | None:
    """Dimensions of 1 come and go; anything else changes what a shard holds."""
    kept = [(size, axes) for size, axes in zip(source, spec, strict=True) if size != 1 or axes]
    result, left = [], list(kept)
    for size in shape:
        if left and size == left[0][0]:
            result.append(left.pop(0)[1])
        elif size == 1:
            result.append(())
        else:
            return None
    return None if left else tuple(result)


def _finer(one: Spec, other: Spec) -> Spec | None:
    """The layout of an elementwise result: what is whole on a device can be cut there for free."""
    if any(a and b and a != b for a, b in zip(one, other, strict=True)):
        return None
    return tuple(a or b for a, b in zip(one, other, strict=True))


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
