"""How arrays are laid out over the mesh, as far as the jaxpr says it.

Outside of `shard_map`, and on the axes that one leaves to XLA, the program is written for whole
arrays and XLA divides it. An axis that divides a dimension stays with it through whatever the
equation does with that dimension, as in GSPMD (Xu et al. 2021, arXiv 2105.04663), and the work is
divided by the number of shards of all operands. Where a divided dimension is summed or taken apart
XLA inserts collectives that the jaxpr does not show, which is noted.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Axes = tuple[str, ...]
Spec = tuple[Axes, ...]  # the mesh axes of each dimension


def axes_of(*specs: Spec | None) -> Axes:
    """All mesh axes that any of the arrays is sharded over, sorted."""
    return tuple(sorted({axis for spec in specs if spec for axes in spec for axis in axes}))


def shards(specs: Sequence[Spec | None], mesh: Mapping[str, int]) -> int:
    """Devices that work on arrays of these layouts is divided over."""
    return math.prod(mesh.get(axis, 1) for axis in axes_of(*specs))


def split(spec: Spec | None, axes: Iterable[str]) -> tuple[Spec | None, Spec | None]:
    """(the part of a layout that these axes make, the rest)."""
    if spec is None:
        return None, None
    wanted = set(axes)
    inside = tuple(tuple(a for a in axes if a in wanted) for axes in spec)
    return inside, tuple(tuple(a for a in axes if a not in wanted) for axes in spec)


def merge(outer: Spec, inner: Spec | None) -> Spec:
    """The layout of an array that is divided by one and then by the other."""
    return outer if inner is None else tuple(a + b for a, b in zip(outer, inner, strict=True))


def join(specs: Sequence[Spec | None]) -> Spec | None:
    """The layout of what may be any of these arrays, or is made of them element by element.

    What is whole on a device can be cut there for free. Where two dimensions are divided
    differently, or one axis would divide two, the first array's layout stays.
    """
    found: Spec | None = None
    for spec in specs:
        if spec is None or found is None or len(spec) != len(found):
            found = spec if found is None else found
            continue
        dimensions = list(found)
        for number, axes in enumerate(spec):
            used = axes_of(tuple(dimensions))
            if not dimensions[number] and not set(axes) & set(used):
                dimensions[number] = axes
        found = tuple(dimensions)
    return found


def propagate(
    equation: Any, specs: Sequence[Spec | None], mesh: Mapping[str, int]
) -> tuple[list[Spec | None], str | None]:
    """(layout of each result, a note where XLA may have to communicate, else None)."""
    none: list[Spec | None] = [None] * len(equation.outvars)
    over = axes_of(*specs)
    if not over:
        return none, None
    name = equation.primitive.name
    shapes = [getattr(operand.aval, "shape", ()) for operand in equation.invars]
    full = [
        ((),) * len(shape) if spec is None or len(spec) != len(shape) else spec
        for shape, spec in zip(shapes, specs, strict=True)
    ]
    found = none
    rule = _RULES.get(name) or _family(name)
    for number, result in enumerate(equation.outvars):
        shape = getattr(result.aval, "shape", ())
        spec = rule(equation, full, shapes, shape)
        if spec is not None:
            # A dimension that is not a multiple of its shards is not divided.
            found[number] = tuple(
                axes if size and size % math.prod(mesh.get(a, 1) for a in axes) == 0 else ()
                for axes, size in zip(_once(spec), shape, strict=True)
            )
    kept = axes_of(*found)
    crosses = name in _RUNNING and bool(full[0][equation.params["axis"]])
    crosses |= rule is _resized and any(
        axes and a != b
        for axes, a, b in zip(full[0], shapes[0], equation.outvars[0].aval.shape, strict=True)
    )
    if name == "dot_general" or (all(axis in kept for axis in over) and not crosses):
        return found, None  # a matmul's collectives are noted where it is counted
    return found, (
        f"{name} outside of shard_map on an array sharded over {', '.join(map(repr, over))}: XLA "
        "may insert collectives here, and only the HLO shows them"
    )


Rule = Callable[[Any, list[Spec], list[tuple[int, ...]], tuple[int, ...]], "Spec | None"]


def _once(spec: Spec) -> Spec:
    """An axis divides one dimension of an array, the first that asks for it."""
    seen: set[str] = set()
    found = []
    for axes in spec:
        found.append(tuple(axis for axis in axes if axis not in seen))
        seen.update(axes)
    return tuple(found)


def _elementwise(
    equation: Any, specs: list[Spec], shapes: list[tuple[int, ...]], shape: tuple[int, ...]
) -> Spec | None:
    """Dimensions that have the size of the result's keep their axes; another rank says nothing."""
    alike = [
        tuple(axes if a == b else () for axes, a, b in zip(spec, operand, shape, strict=True))
        for spec, operand in zip(specs, shapes, strict=True)
        if len(operand) == len(shape)
    ]
    return join(alike)


def _first(
    equation: Any, specs: list[Spec], shapes: list[tuple[int, ...]], shape: tuple[int, ...]
) -> Spec | None:
    """As elementwise, of the first operand; the others say where."""
    return _elementwise(equation, specs[:1], shapes[:1], shape)


def _resized(
    equation: Any, specs: list[Spec], shapes: list[tuple[int, ...]], shape: tuple[int, ...]
) -> Spec | None:
    """Of padding and slicing: neighbours exchange what their shards lack or have too much."""
    return specs[0]


def _along(parameter: str) -> Rule:
    """Of operations along one dimension, which therefore cannot stay divided."""

    def rule(equation: Any, specs: Any, shapes: Any, shape: Any) -> Spec | None:
        found = _elementwise(equation, specs, shapes, shape)
        at = equation.params[parameter]
        return found and tuple(() if i == at else axes for i, axes in enumerate(found))

    return rule


def _stacked(equation: Any, specs: Any, shapes: Any, shape: Any) -> Spec | None:
    axis, found = equation.params["axis"], join(specs) or ()
    return (*found[:axis], (), *found[axis:])


def _unstacked(equation: Any, specs: Any, shapes: Any, shape: Any) -> Spec | None:
    axis = equation.params["axis"]
    return (*specs[0][:axis], *specs[0][axis + 1 :])


def _transposed(equation: Any, specs: Any, shapes: Any, shape: Any) -> Spec | None:
    return tuple(specs[0][i] for i in equation.params["permutation"])


def _broadcast(equation: Any, specs: Any, shapes: Any, shape: Any) -> Spec | None:
    found: list[Axes] = [()] * len(shape)
    for axes, size, place in zip(
        specs[0], shapes[0], equation.params["broadcast_dimensions"], strict=True
    ):
        if size == shape[place]:
            found[place] = axes
    return tuple(found)


def _reduced(equation: Any, specs: Any, shapes: Any, shape: Any) -> Spec | None:
    params = equation.params
    gone = params.get("axes", params.get("dimensions", ()))
    spec = tuple(axes for i, axes in enumerate(specs[0]) if i not in gone)
    return spec if len(spec) == len(shape) else None


def _reshaped(equation: Any, specs: Any, shapes: Any, shape: Any) -> Spec | None:
    """Dimensions that are merged or taken apart: the outermost of them keeps its axes."""
    source = [(size, axes) for size, axes in zip(shapes[0], specs[0], strict=True) if size != 1]
    target = [number for number, size in enumerate(shape) if size != 1]
    found: list[Axes] = [()] * len(shape)
    while source and target:
        size, axes = source.pop(0)
        outermost = target.pop(0)
        made = shape[outermost]
        while size != made:  # of the fewest dimensions on either side that hold the same
            if size < made and source:
                size *= source.pop(0)[0]
            elif made < size and target:
                made *= shape[target.pop(0)]
            else:
                return None
        found[outermost] = axes
    return tuple(found)


def _dot(equation: Any, specs: Any, shapes: Any, shape: Any) -> Spec | None:
    """Batch dimensions, then the free ones of the left and of the right operand."""
    contracted, batch = equation.params["dimension_numbers"]
    together = [tuple(spec[i] for i in at) for spec, at in zip(specs, batch, strict=True)]
    found = list(join(together) or ())
    for spec, summed, same in zip(specs, contracted, batch, strict=True):
        found += [axes for i, axes in enumerate(spec) if i not in (*summed, *same)]
    return tuple(found)


def _convolved(equation: Any, specs: Any, shapes: Any, shape: Any) -> Spec | None:
    numbers = equation.params["dimension_numbers"]
    found: list[Axes] = [()] * len(shape)
    for place, out in zip(numbers.lhs_spec, numbers.out_spec, strict=True):
        if place != numbers.lhs_spec[1]:
            found[out] = specs[0][place]
    found[numbers.out_spec[1]] = specs[1][numbers.rhs_spec[0]]
    return tuple(found)


def _gathered(equation: Any, specs: Any, shapes: Any, shape: Any) -> Spec | None:
    """Rows of a table: the indices' dimensions, and those of the table that are taken whole."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    batching = tuple(numbers.operand_batching_dims)
    left = [i for i in range(len(sizes)) if i not in (*numbers.collapsed_slice_dims, *batching)]
    inner = [specs[0][i] if sizes[i] == shapes[0][i] else () for i in left]
    outer = list(specs[1][:-1])
    return tuple((inner if i in numbers.offset_dims else outer).pop(0) for i in range(len(shape)))


# Shards that are changed along a divided dimension, which takes messages between neighbours.
_RUNNING = ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")

_RULES: dict[str, Rule] = {
    "transpose": _transposed,
    "broadcast_in_dim": _broadcast,
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshaped),
    "dot_general": _dot,
    "conv_general_dilated": _convolved,
    "gather": _gathered,
    "concatenate": _along("dimension"),
    "sort": _along("dimension"),
    "split": _along("axis"),
    "stack": _stacked,
    "unstack": _unstacked,
    "dynamic_slice": _first,
    "dynamic_update_slice": _first,
    **dict.fromkeys(("pad", "slice", *_RUNNING), _resized),
    "reduce": _reduced,
    "ragged_dot_general": lambda *_: None,
}


def _family(name: str) -> Rule:
    if name.startswith(("reduce_", "arg")) and not name.startswith(
        ("reduce_precision", "reduce_window")
    ):
        return _reduced
    return _first if name.startswith("scatter") else _elementwise


def held(equation: Any, specs: Sequence[Spec | None], result: Spec | None) -> list[Spec | None]:
    """What of each operand a device needs for its part of the result.

    A matmul's operand is gathered along an axis that divides another dimension of its work, and is
    cut where only the other one is divided.
    """
    name, rule = equation.primitive.name, _RULES.get(equation.primitive.name)
    shapes = [getattr(operand.aval, "shape", ()) for operand in equation.invars]
    shape = getattr(equation.outvars[0].aval, "shape", ()) if equation.outvars else ()
    if name == "dot_general":
        spec = result or ((),) * len(shape)
        used = axes_of(spec)
        free = [
            found and tuple(tuple(a for a in axes if a not in used) for axes in found)
            for found in specs
        ]
        return _pulled_dot(equation.params["dimension_numbers"], shapes, free, spec, own=True)
    if rule is None and _family(name) is _elementwise and result is not None:
        pairs = zip(shapes, specs, strict=True)
        return [result if operand == shape else spec for operand, spec in pairs]
    return list(specs)


def pulled(equation: Any, specs: Sequence[Spec | None], result: Spec | None) -> list[Spec | None]:
    """The layout of each operand that makes a result of this one without communication, where it
    is plain.

    Args:
      specs: of the operands, as far as they are known: what a matmul contracts is divided alike.
      result: of the first result.
    """
    shapes = [getattr(operand.aval, "shape", ()) for operand in equation.invars]
    name, params = equation.primitive.name, equation.params
    shape = getattr(equation.outvars[0].aval, "shape", ()) if equation.outvars else ()
    spec = result or ((),) * len(shape)
    if name == "dot_general":
        return _pulled_dot(params["dimension_numbers"], shapes, specs, spec)
    if not axes_of(spec):
        return [None] * len(shapes)
    if name == "transpose":
        return [tuple(spec[params["permutation"].index(i)] for i in range(len(spec)))]
    if name in ("reshape", "squeeze", "expand_dims"):
        return [_reshaped(equation, [spec], [shape], shapes[0])]
    if name == "broadcast_in_dim":
        places = zip(shapes[0], params["broadcast_dimensions"], strict=True)
        return [tuple(spec[at] if size == shape[at] else () for size, at in places)]
    rule = _RULES.get(name) or _family(name)
    if rule is _reduced:
        gone = params.get("axes", params.get("dimensions", ()))
        kept = iter(spec)
        rank = len(shape) + len(gone)
        whole = tuple(() if i in gone else next(kept) for i in range(rank))
        return [whole if len(operand) == rank else None for operand in shapes]
    return [spec if rule is _elementwise and operand == shape else None for operand in shapes]


def _pulled_dot(
    numbers: Any,
    shapes: list[tuple[int, ...]],
    specs: Sequence[Spec | None],
    spec: Spec,
    own: bool = False,
) -> list[Spec | None]:
    """Of a matmul's operands; with `own`, what each is contracted over divides it too."""
    contracted, batch = numbers
    place = len(batch[0])
    asked: list[Spec | None] = []
    for number, (shape, summed, same) in enumerate(zip(shapes, contracted, batch, strict=True)):
        found: list[Axes] = [()] * len(shape)
        mine, beside = specs[number], specs[1 - number]
        for at, its in zip(summed, contracted[1 - number], strict=True):
            found[at] = (mine[at] if own and mine else ()) or (beside[its] if beside else ())
        for axes, at in zip(spec, same, strict=False):
            found[at] = axes
        for at in range(len(shape)):
            if at not in (*summed, *same):
                found[at] = spec[place]
                place += 1
        asked.append(_once(tuple(found)))
    return asked
