"""Equations that run nothing else: arithmetic, copies, collectives.

`operation` handles every primitive that has no handler of its own.
"""

import itertools
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from jax.sharding import NamedSharding

from snapjax.cost.count import (
    _jax,
    collectives,
    fusion,
    known,
    layout,
    primitives,
    resharding,
    spike_marks,
)
from snapjax.cost.count.record import Share
from snapjax.cost.count.value import Value
from snapjax.cost.count.walk import Handlers, Visit, Walker
from snapjax.cost.counts import Unpriced

HANDLERS = Handlers()

AUTO = (
    "auto-sharded: XLA divides this program over the mesh and inserts its collectives; the jaxpr "
    "has none of them, so the compiled HLO (snapjax.cost.hlo.counts) is the source for transfers"
)


EVEN = (
    "some matmuls take a part of a site's spikes, which is taken to fire as often as the whole: "
    "where that is not so, mark the part by `spikes` under a name of its own and give its rate"
)


def operation(walker: Walker, visit: Visit) -> list[Value]:
    """An equation whose work is in the table of `primitives.py`, or that has no price."""
    results = _results(walker, visit)
    if walker.record.active:
        _count(walker, visit, primitives.work(visit.equation), results)
    return results


@HANDLERS.register("reduce", "reduce_window")
def fold(walker: Walker, visit: Visit) -> list[Value]:
    """A reduction by a function of the user's: its body for every element folded away."""
    results = _results(walker, visit)
    if walker.record.active:
        _count(walker, visit, _folded(visit.equation), results)
    return results


@HANDLERS.register(*primitives.HOST)
def host(walker: Walker, visit: Visit) -> list[Value]:
    """What the host does: it costs the device nothing that can be known, and is noted."""
    walker.note(f"{visit.title}: {visit.name} runs on the host and is not counted")
    return operation(walker, visit)


@HANDLERS.register("sharding_constraint", "reshard")
def constraint(walker: Walker, visit: Visit) -> list[Value]:
    """A layout that XLA brings about, by collectives of its own."""
    results = operation(walker, visit)
    params = visit.equation.params
    sharding = params.get("sharding", params.get("dst_sharding"))
    if isinstance(sharding, NamedSharding):
        walker.add_mesh(sharding.mesh)
        rank = len(visit.equation.invars[0].aval.shape)
        spec = _jax.spec_axes(sharding.spec, rank, results[0].spec)
        results = [results[0]._replace(spec=layout.split(spec, walker.manual)[1])]
    large = any(_jax.size_of(operand.aval) > 1 for operand in visit.equation.invars)
    if large and not walker.whole_mesh:
        walker.note(AUTO)
    return results


@HANDLERS.register("axis_index")
def axis_index(walker: Walker, visit: Visit) -> list[Value]:
    """Each device's index along an axis (or several) is known, in every iteration."""
    results = operation(walker, visit)
    if not walker.manual:
        return results
    axis = visit.equation.params["axis_name"]
    axes = (axis,) if isinstance(axis, str) else tuple(axis)
    sizes = tuple(walker.mesh.values())
    coordinates = np.unravel_index(np.arange(math.prod(sizes)), sizes)
    along = dict(zip(walker.mesh, coordinates, strict=True))
    index = np.ravel_multi_index([along[a] for a in axes], [walker.mesh[a] for a in axes])
    index = index.reshape(-1, *(1,) * (visit.weights.ndim - 1))
    index = np.broadcast_to(index, visit.weights.shape)
    return [value._replace(known=index, static=True) for value in results]


@HANDLERS.register("program_id")
def program_id(walker: Walker, visit: Visit) -> list[Value]:
    """The place of a kernel's program in its grid is known, as its programs are told apart."""
    (value,) = operation(walker, visit)
    if not walker.programs:
        return [value]
    place, index = walker.programs[-1]
    index = index[visit.equation.params["axis"]]
    shape = visit.weights.shape
    index = index.reshape(*(1,) * place, -1, *(1,) * (len(shape) - place - 1))
    return [value._replace(known=np.broadcast_to(index, shape), static=True)]


@HANDLERS.register("num_programs")
def num_programs(walker: Walker, visit: Visit) -> list[Value]:
    """The grid's size is known where its programs are."""
    (value,) = operation(walker, visit)
    if not walker.programs:
        return [value]
    _, index = walker.programs[-1]
    number = index[visit.equation.params["axis"]].max() + 1
    return [value._replace(known=np.broadcast_to(number, visit.weights.shape), static=True)]


@HANDLERS.register(*collectives.COLLECTIVES, *(f"{name}_start" for name in collectives.COLLECTIVES))
def collective(walker: Walker, visit: Visit) -> list[Value]:
    """A collective that the program states, or the beginning of an asynchronous one."""
    if walker.record.active:
        _send(walker, visit)
    return _results(walker, visit)


@HANDLERS.register(*collectives.ENDS)
def end(walker: Walker, visit: Visit) -> list[Value]:
    """What was counted at its beginning."""
    return _results(walker, visit)


def reshard(
    walker: Walker,
    visit: Visit,
    operand: Any,
    value: Value,
    steps: Sequence[resharding.Move],
    auto: layout.Spec | None,
) -> None:
    """Counts the collectives that bring an operand of an equation into another layout.

    Args:
      auto: its layout on the axes that stay XLA's.
    """
    for step in steps:
        shards = layout.shards([step.spec, auto], walker.mesh)
        payload = -(-_jax.bytes_of(operand.aval) // shards)
        elements = _jax.size_of(operand.aval) // shards
        found = collectives.implied(step, walker.mesh, payload, elements)
        moved = SimpleNamespace(invars=[operand])
        where = "/".join((*visit.path, "reshard"))
        walker.record.collective(moved, where, found, visit.executions, [value.mark])


def _count(
    walker: Walker,
    visit: Visit,
    found: Sequence[primitives.Work] | None,
    results: Sequence[Value],
) -> None:
    """Records an equation's work; None is work without a price."""
    if found is None:
        walker.unpriced(visit)
        return
    matmul = visit.name in primitives.MATMULS
    specs = [value.spec for value in visit.operands]
    share = _share(walker, visit, results)
    if matmul and layout.axes_of(*specs, *visit.wanted):
        walker.note(AUTO)
    spikes: tuple[spike_marks.Mark, ...] = ()
    if matmul:
        spikes = spike_marks.operands(visit.equation, [value.mark for value in visit.operands])
    if any(mark.part for mark in spikes):
        walker.note(EVEN)
    assert isinstance(visit.moved, fusion.Stored)  # only calls have plans
    equation, times = visit.equation, visit.executions
    walker.record.work(equation, visit.where, found, visit.moved, times, share, spikes)


def _share(walker: Walker, visit: Visit, results: Sequence[Value]) -> Share | None:
    """What one device does of an equation that XLA divides; None for all of it."""
    given, made = [[value.spec for value in row] for row in (visit.operands, results)]
    if not layout.axes_of(*given, *made):
        return None
    held = layout.held(visit.equation, given, made[0] if made else None)
    work = layout.shards(held if visit.constrained else [*given, *made], walker.mesh)
    sizes = [
        0 if _jax.is_literal(operand) else _jax.bytes_of(operand.aval)
        for operand in visit.equation.invars
    ]
    written = made[0] if made else None
    if visit.name in primitives.READS_PART and made:  # as large as the result, and as divided
        sizes[0], held[0] = _jax.bytes_of(visit.equation.outvars[0].aval), made[0]
    elif visit.name in primitives.WRITES_PART:
        sizes[0], written = 0, held[2 if visit.name.startswith("scatter") else 1]
    parts = [layout.shards([spec], walker.mesh) for spec in (*held, written)]
    read = sum(size / part for size, part in zip(sizes, parts[:-1], strict=True))
    return Share(1 / work, read / (sum(sizes) or 1), 1 / parts[-1])


def _folded(equation: Any) -> list[primitives.Work] | None:
    """Work of a fold's body, times the elements that are folded away; None for unknown work."""
    body = _jax.inner_jaxprs(equation.params)[0]
    size = _jax.size_of(equation.outvars[0].aval)
    if equation.primitive.name == "reduce":
        folds = _jax.size_of(equation.invars[0].aval) - size
    else:
        folds = size * (math.prod(equation.params["window_dimensions"]) - 1)
    found = []
    for inner in body.eqns:
        work = primitives.work(inner)
        if work is None:
            return None
        found += [primitives.Work(kind, folds * count) for kind, count in work]
    return found


def _send(walker: Walker, visit: Visit) -> None:
    """Records what a collective sends."""
    equation, times = visit.equation, visit.executions
    try:
        shards = [layout.shards([value.spec], walker.mesh) for value in visit.operands]
        found = collectives.read(equation, walker.mesh, shards)
    except collectives.NoPrice as error:
        size = sum(_jax.size_of(operand.aval) for operand in equation.invars)
        walker.record.unpriced(Unpriced(visit.name, visit.where, size, times, str(error)))
        return
    if found.name == "ragged_all_to_all":
        walker.note(f"{visit.title}: ragged_all_to_all counts its whole operand as sent")
    marks = [value.mark for value in visit.operands]
    walker.record.collective(equation, visit.where, found, times, marks)


def _results(walker: Walker, visit: Visit) -> list[Value]:
    """What is known of an equation's results: marks, small integers, and the layout."""
    equation, operands = visit.equation, visit.operands
    second = lambda: known.constant(operands[1].known)
    static = [value.static or value.known is not None for value in operands]
    found = [value.mark for value in operands]
    marks = spike_marks.propagate(equation, found, static, second, visit.where)
    value: known.Known = None
    if len(equation.outvars) == 1:
        value = known.evaluate(equation, [value.known for value in operands], visit.weights.shape)
    specs, note = layout.propagate(equation, [value.spec for value in operands], walker.mesh)
    if note:
        walker.note(f"{visit.title}: {note}")
    specs = [
        asked if asked and (visit.constrained or not layout.axes_of(spec)) else spec
        for spec, asked in itertools.zip_longest(specs, visit.wanted)
    ]
    if not walker.manual:
        specs = [
            _jax.typed_spec(result.aval) or spec
            for spec, result in zip(specs, equation.outvars, strict=True)
        ]
    fixed = all(static) and visit.name not in primitives.EFFECTS
    return [Value(mark, value, spec, None, fixed) for mark, spec in zip(marks, specs, strict=True)]
