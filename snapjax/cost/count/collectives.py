"""What a collective sends over each mesh axis, under a stated algorithm: see `Transfer`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from snapjax.cost.count import complex_numbers
from snapjax.cost.count._jax import bytes_of, size_of
from snapjax.cost.count.primitives import Work
from snapjax.cost.count.resharding import Move

# primitive -> the collective that it is. Casts between kinds of replication are none.
COLLECTIVES = {
    "psum": "psum",
    "psum_invariant": "psum",
    "unreduced_psum": "psum",
    "pmax": "pmax",
    "pmin": "pmin",
    "unreduced_pmax": "pmax",
    "unreduced_pmin": "pmin",
    "ppermute": "ppermute",
    "psend": "ppermute",
    "all_gather": "all_gather",
    "all_gather_invariant": "all_gather",
    "all_gather_reduced": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "unreduced_reduce_scatter": "reduce_scatter",
    "all_to_all": "all_to_all",
    "ragged_all_to_all": "ragged_all_to_all",
    "pbroadcast": "broadcast",
    "pbroadcast_dynamic": "broadcast",
}
_REDUCING = {"psum": "add", "reduce_scatter": "add", "pmax": "compare", "pmin": "compare"}

# The other half of a collective that was counted: where an asynchronous one ends or a send arrives.
ENDS = frozenset(["precv", *(f"{name}_done" for name in COLLECTIVES)])


class NoPrice(LookupError):
    """A collective of which nothing says what it sends; it is listed as unpriced."""


class Collective(NamedTuple):
    """One execution of a collective."""

    name: str
    axes: tuple[str, ...]
    payload_bytes: int
    sent: tuple[float, ...]
    messages: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...] | None
    elements: int
    work: list[Work]
    groups: tuple[tuple[int, ...], ...] | None = None


def collective_of(primitive: str) -> str | None:
    """Which collective a primitive is, an asynchronous start included."""
    return COLLECTIVES.get(primitive.removesuffix("_start"))


def read(equation: Any, mesh: Mapping[str, int], shards: Sequence[int]) -> Collective:
    """What a collective equation sends.

    Args:
      shards: into which XLA divides each operand besides.

    Raises:
      NoPrice: for an axis that the mesh does not have, for groups of devices over several axes, or
        of unequal sizes.
    """
    name = COLLECTIVES[equation.primitive.name.removesuffix("_start")]
    params = equation.params
    axes = _axes(params)
    in_order = in_mesh_order(axes, mesh)
    if name != "ppermute":  # whose pairs count along the axes in their own order
        axes = in_order
    sizes = [mesh[axis] for axis in axes]
    groups = params.get("axis_index_groups")
    if groups is not None and len(axes) == 1:
        groups = tuple(tuple(map(int, group)) for group in groups)
        sizes = [len(groups[0])]
        if len({len(group) for group in groups}) > 1:
            raise NoPrice(f"no rule for groups of unequal sizes, {groups}")
    elif groups is not None:
        raise NoPrice(f"no rule for groups of devices over several axes, {', '.join(axes)}")
    # Of a ragged all-to-all only the first operand travels; the rest says where to.
    operands = equation.invars[:1] if name == "ragged_all_to_all" else equation.invars
    divided = list(zip(operands, shards, strict=False))
    payload = sum(-(-bytes_of(operand.aval) // parts) for operand, parts in divided)
    elements = sum(-(-size_of(operand.aval) // parts) for operand, parts in divided)
    pairs = None
    if name == "ppermute":
        pairs = tuple((int(a), int(b)) for a, b in params["perm"] if a != b)
    sent, messages = sends(name, payload, sizes, pairs)
    devices = math.prod(sizes)
    folded = elements * (devices - 1) / devices
    kind = _REDUCING.get(name) if devices > 1 else None
    if kind is not None and any(map(complex_numbers.is_complex, operands)):
        local = [Work(part, n * folded) for part, n in complex_numbers.parts(name, kind).items()]
    else:
        local = [] if kind is None else [Work(kind, folded)]
    return Collective(name, axes, payload, sent, messages, pairs, elements, local, groups)


def implied(move: Move, mesh: Mapping[str, int], payload: int, elements: int) -> Collective:
    """A collective that no equation states, of so many bytes and elements on each device."""
    name, axes, pairs = move.collective, move.axes, move.pairs
    if pairs is None:  # whose order would count
        axes = in_mesh_order(axes, mesh)
    sent, messages = sends(name, payload, [mesh[axis] for axis in axes], pairs)
    return Collective(name, axes, payload, sent, messages, pairs, elements, [])


def sends(
    name: str,
    payload: float,
    sizes: Sequence[int],
    pairs: Sequence[tuple[int, int]] | None = None,
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """(bytes, messages) that the busiest device sends over each axis.

    Args:
      name: a collective of `Transfer`.
      payload: bytes of one device's operand.
      sizes: of the axes, the last one innermost.
      pairs: of a ppermute, over the axes' flat index.
    """
    sent, messages = [0.0] * len(sizes), [0] * len(sizes)
    share = float(payload)  # bytes that a device holds when a phase begins
    for axis, size in reversed(list(enumerate(sizes))):
        rest = size - 1
        messages[axis] = rest
        if name == "ppermute":
            stride = math.prod(sizes[axis + 1 :])
            moves = any(a // stride % size != b // stride % size for a, b in pairs or ())
            sent[axis], messages[axis] = payload * moves, int(moves)
        elif name in ("psum", "pmax", "pmin"):
            # A reduce-scatter, the phases of the other axes on what is left, and an all-gather.
            sent[axis], messages[axis] = 2 * rest * share / size, 2 * rest
            share /= size
        elif name == "all_gather":
            sent[axis] = rest * share
            share *= size
        elif name == "reduce_scatter":
            sent[axis] = rest * share / size
            share /= size
        elif name in ("all_to_all", "ragged_all_to_all"):
            # A byte crosses every axis along which its destination differs.
            sent[axis] = rest * share / size
        elif name == "broadcast":
            sent[axis] = share if rest else 0.0
        else:
            raise ValueError(f"collective {name!r} has no rule")
    return tuple(sent), tuple(messages)


def in_mesh_order(axes: Sequence[str], mesh: Mapping[str, int]) -> tuple[str, ...]:
    """Axes in the order of the mesh; NoPrice for one that it does not have."""
    order = list(mesh)
    for axis in axes:
        if axis not in mesh:
            raise NoPrice(f"the mesh has no axis {axis!r}")
    return tuple(sorted(axes, key=order.index))


def _axes(params: Mapping[str, Any]) -> tuple[str, ...]:
    axes = params["axis_name"] if "axis_name" in params else params["axes"]
    return (axes,) if isinstance(axes, str) else tuple(axes)
