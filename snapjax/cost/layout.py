"""How arrays are laid out over the mesh outside of `shard_map`, as far as the jaxpr says it.

The program outside is written for whole arrays and XLA divides it. What a `shard_map` returned
sharded stays so through elementwise work, which then is divided by the number of shards; everything
else may make XLA insert collectives that the jaxpr does not show, and is noted.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from snapjax.cost._jax import size_of

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
    if any(other != spec for _, other in sharded):
        return None
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


def resharded(equation: Any, operand: int, produced: Spec, consumed: Spec) -> str:
    """The note for an array that one shard_map returned and another takes differently."""
    aval = equation.invars[operand].aval
    return (
        f"resharding: operand {operand} of a shard_map, {size_of(aval)} elements of {aval.dtype}, "
        f"arrives laid out as {_show(produced)} and is taken as {_show(consumed)}; XLA inserts "
        "collectives between, and only the HLO shows them"
    )


def _show(spec: Spec) -> str:
    names = [axes[0] if len(axes) == 1 else axes or None for axes in spec]
    return f"P({', '.join(repr(name) for name in names)})"
