"""Equations that run other jaxprs: calls, branches, maps, kernels; loops are in `loops.py`.

Each handler counts one such equation with the walker that met it, and returns what is known of its
results.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from jax.sharding import NamedSharding

from snapjax.cost.count import (
    _jax,
    fusion,
    known,
    layout,
    operations,
    primitives,
    resharding,
    spike_marks,
)
from snapjax.cost.count import marks as marked
from snapjax.cost.count.record import Record
from snapjax.cost.count.value import UNKNOWN, Value, join_values
from snapjax.cost.count.walk import Handlers, Visit, Walker

HANDLERS = Handlers()

BRANCHES = "branches are counted by the rule "

_JIT = ("jit", "pjit")
_CUSTOM_VJP = "custom_vjp_call"


@HANDLERS.register(*primitives.CALLS.difference(_JIT, [_CUSTOM_VJP]))
def call(walker: Walker, visit: Visit) -> list[Value]:
    """One jaxpr, run once on the operands."""
    inner = _jax.called(visit.equation)
    if inner is None or len(inner.invars) != len(visit.operands):
        walker.unpriced(visit, "what it calls could not be read")
        return [UNKNOWN] * len(visit.equation.outvars)
    results = walker.run(
        inner, visit.operands, visit.path, visit.weights, visit.plan, wanted=visit.wanted
    )
    return _fitting(visit, results)


def _fitting(visit: Visit, results: list[Value]) -> list[Value]:
    """The results of a jaxpr on references, some of which are what is left in these."""
    number = len(visit.equation.outvars)
    return results if len(results) == number else [UNKNOWN] * number


@HANDLERS.register(*_JIT)
def jit(walker: Walker, visit: Visit) -> list[Value]:
    """A call whose shardings say how its operands lie, where nothing else does."""
    if walker.manual and walker.whole_mesh:
        return call(walker, visit)
    taken = visit.equation.params["in_shardings"]
    place = lambda value, atom, sharding: (
        value._replace(spec=_jax.spec_axes(sharding.spec, len(atom.aval.shape), value.spec))
        if isinstance(sharding, NamedSharding)
        else value
    )
    operands = [
        value if value.spec is not None else place(value, atom, sharding)
        for value, atom, sharding in zip(visit.operands, visit.equation.invars, taken, strict=True)
    ]
    wanted = [
        place(UNKNOWN, atom, sharding).spec or asked
        for atom, sharding, asked in itertools.zip_longest(
            visit.equation.outvars, visit.equation.params["out_shardings"], visit.wanted
        )
    ]
    results = call(walker, visit._replace(operands=operands, wanted=wanted))
    given = visit.equation.params["out_shardings"]
    return list(map(place, results, visit.equation.outvars, given))


@HANDLERS.register(_CUSTOM_VJP)
def custom_vjp(walker: Walker, visit: Visit) -> list[Value]:
    """A call of a function with its own derivative; `spike` is one."""
    results = call(walker, visit)
    if not spike_marks.is_spike(visit.equation):
        return results
    mark = marked.of_site(visit.where or spike_marks.SPIKE)
    return [value._replace(mark=mark) for value in results]


@HANDLERS.register("cond")
def cond(walker: Walker, visit: Visit) -> list[Value]:
    """A branch: what each costs, weighted by the rule of `trace`."""
    branches = [_jax.opened(branch) for branch in visit.equation.params["branches"]]
    shares = _shares(walker, visit, len(branches))
    records, results = [], []
    for number, branch in enumerate(branches):
        share = visit.weights if shares is None else shares[number]
        with walker.recording(Record(walker.record.active)) as record:
            results.append(walker.run(branch, visit.operands[1:], visit.path, share))
        records.append(record)
    chosen = [max(records, key=Record.weight)] if shares is None else records
    for record in chosen:
        walker.record.merge(record)
    index = visit.operands[0]
    by_data = index.known is None and not index.static
    joined = [join_values(values, by_data) for values in zip(*results, strict=True)]
    if index.known is None:
        return joined
    return [
        value._replace(known=_taken(index.known, [known_.known for known_ in values]))
        for value, values in zip(joined, zip(*results, strict=True), strict=True)
    ]


def _taken(index: np.ndarray, values: Sequence[known.Known]) -> known.Known:
    """What a cond gives, where its branch and their results are known."""
    same = [value for value in values if value is not None and value.shape == index.shape]
    if len(same) < len(values):
        return None
    return np.choose(np.clip(index.astype(int), 0, len(same) - 1), same)


def _shares(walker: Walker, visit: Visit, branches: int) -> list[np.ndarray] | None:
    """Executions of each branch; None for the dearest one's."""
    weights, rules = visit.weights, walker.rules
    given = rules.weights(visit.where, branches)
    if rules.name != repr("max"):
        walker.note(f"{BRANCHES}{rules.name}")
    if given is not None:
        return [weights * float(share) for share in given]
    if rules.cond == "mean":
        return [weights / branches] * branches
    if rules.cond == "exact":
        index = visit.operands[0].known
        if index is not None:
            taken = np.clip(index.astype(int), 0, branches - 1)
            return [weights * (taken == number) for number in range(branches)]
        walker.note(
            f"{visit.title}: which branch a cond takes depends on data, or on the counter of a "
            "loop too long to follow; the dearest is counted"
        )
    return None


@HANDLERS.register("shard_map")
def shard_map(walker: Walker, visit: Visit) -> list[Value]:
    """A function of one device's shards: from here on each device is told apart.

    Arrays stay divided over the axes that it leaves to XLA.
    """
    equation, operands, weights = visit.equation, visit.operands, visit.weights
    params = equation.params
    walker.add_mesh(params["mesh"])
    manual = set(params.get("manual_axes", params.get("newly_manual_axes", walker.mesh)))
    manual -= walker.manual
    taken = [
        _jax.spec_axes(spec, len(operand.aval.shape))
        for operand, spec in zip(equation.invars, params["in_specs"], strict=True)
    ]
    inner = []
    for number, (value, spec) in enumerate(zip(operands, taken, strict=True)):
        produced, auto = layout.split(value.spec, manual)
        produced = spec if produced is None else produced
        steps = resharding.moves(produced, spec, walker.mesh)
        if steps:
            walker.note(resharding.resharded(equation, number, produced, spec))
            operations.reshard(walker, visit, equation.invars[number], value, steps, auto)
        mark = value.mark
        if mark is not None and layout.axes_of(spec):
            mark = mark.row()
        inner.append(Value(mark, spec=auto, static=value.static and not layout.axes_of(spec)))
    others = [
        axis
        for axis, size in walker.mesh.items()
        if axis not in manual and axis not in walker.manual and size > 1
    ]
    if others:
        walker.note(
            f"{visit.title}: a shard_map leaves {', '.join(others)} to XLA: operations are divided "
            "over it as far as the layouts say, and its collectives are only in the HLO"
        )
    if not walker.manual:
        # From here on every device is told apart: it knows what is whole on all of them, and what
        # it knew when an earlier shard_map returned the array, as the backward pass's takes it.
        devices = math.prod(walker.mesh.values())
        grow = lambda array: np.broadcast_to(array, (devices, *array.shape[1:]))
        for number, (outer, spec) in enumerate(zip(operands, taken, strict=True)):
            array = None
            if outer.known is not None and not layout.axes_of(spec):
                array = grow(outer.known)
            elif weights.ndim == 1 and outer.spec == spec:
                array = outer.local
            inner[number] = inner[number]._replace(known=array)
        weights = grow(weights)
    with walker.inside(manual):
        results = walker.run(_jax.opened(params["jaxpr"]), inner, visit.path, weights)
    found = []
    for value, result, spec in zip(results, equation.outvars, params["out_specs"], strict=True):
        axes = _jax.spec_axes(spec, len(result.aval.shape))
        found.append(Value(value.mark, None, layout.merge(axes, value.spec), value.known))
    return found


@HANDLERS.register("run_scoped")
def run_scoped(walker: Walker, visit: Visit) -> list[Value]:
    """A part of a kernel with references of its own, after its operands."""
    body = _jax.with_constants_first(visit.equation.params["jaxpr"])
    values = [*visit.operands, *[UNKNOWN] * (len(body.invars) - len(visit.operands))]
    return _fitting(visit, walker.run(body, values, visit.path, visit.weights))


@HANDLERS.register("pallas_call")
def pallas_call(walker: Walker, visit: Visit) -> list[Value]:
    """A kernel: its body, for every program of its grid, and the blocks that it brings on chip."""
    unknown = [UNKNOWN] * len(visit.equation.outvars)
    grid = _jax.pallas_grid(visit.equation.params)
    if grid is None:
        walker.unpriced(visit, "its grid is dynamic")
        return unknown
    programs = math.prod(grid.sizes)
    places = np.stack(np.unravel_index(np.arange(programs), grid.sizes)) if grid.sizes else None
    weights, place, index = visit.weights * programs, None, None
    if places is not None and visit.weights.size * programs <= known.LARGEST:
        weights, place = np.repeat(visit.weights[..., None], programs, -1), visit.weights.ndim
        index = places[list(grid.own)]
    body = _jax.opened(visit.equation.params["jaxpr"])
    path = (*visit.path, f"pallas[{programs}]")
    with walker.kernel(place, index):  # references are a device's own
        walker.run(body, [UNKNOWN] * len(body.invars), path, weights)
        bytes_ = [_copied(walker, block, places, programs) for block in grid.blocks]
    moved = list(zip(grid.blocks, bytes_, strict=True))
    read, written = (sum(n for block, n in moved if block.result == out) for out in (False, True))
    stored = fusion.Stored(read, written, starts=1)
    walker.record.work(visit.equation, "/".join(path), [], stored, visit.executions)
    return unknown


def _copied(walker: Walker, block: _jax.Block, places: np.ndarray | None, programs: int) -> float:
    """Bytes of a block that are brought on chip or back, in all programs: where its place is
    another than in the program before, and without what lies beyond the array.

    Where its place depends on data, it is brought whole for every program.
    """
    whole = math.prod(side.block for side in block.sides) * block.bits / 8
    values = [] if places is None else [Value(known=place) for place in places]
    values += [UNKNOWN] * (len(block.index.invars) - len(values))
    with walker.uncounted():
        found = walker.run(block.index, values, (), np.ones(programs))
    at = [np.broadcast_to(v.known, programs) for v in found if v.known is not None]
    if len(at) < len(block.sides):
        return whole * programs
    moves = np.ones(programs, bool)
    moves[1:] = np.any([np.diff(place) != 0 for place in at], 0) if at else False
    elements = np.ones(programs)
    for place, side in zip(at, block.sides, strict=True):
        elements = elements * np.clip(side.array - place * side.step, 0, side.block)
    return float((elements * moves).sum()) * block.bits / 8
