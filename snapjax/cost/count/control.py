"""Equations that run other jaxprs: calls, loops, branches, maps, kernels.

Each handler counts one such equation with the walker that met it, and returns what is known of its
results.
"""

import fnmatch
import math
from collections.abc import Callable, Mapping

import numpy as np
from jax.sharding import NamedSharding

from snapjax.cost.count import _jax, known, layout, operations, primitives, spike_marks
from snapjax.cost.count.record import Record
from snapjax.cost.count.value import UNKNOWN, Value, join_values
from snapjax.cost.count.walk import Handlers, Visit, Walker

HANDLERS = Handlers()

BRANCHES = "branches are counted by the rule "
UNKNOWN_TRIPS = "trip count unknown: the body counts once; state while_trips"
_LARGEST = 1 << 20  # (device, iteration) pairs that are told apart

_JIT = ("jit", "pjit")
_CUSTOM_VJP = "custom_vjp_call"


@HANDLERS.register(*primitives.CALLS.difference(_JIT, [_CUSTOM_VJP]))
def call(walker: Walker, visit: Visit) -> list[Value]:
    """One jaxpr, run once on the operands."""
    inner = _jax.called(visit.equation)
    if inner is None or len(inner.invars) != len(visit.operands):
        walker.unpriced(visit, "what it calls could not be read")
        return [UNKNOWN] * len(visit.equation.outvars)
    return walker.run(inner, visit.operands, visit.path, visit.weights, visit.plan)


@HANDLERS.register(*_JIT)
def jit(walker: Walker, visit: Visit) -> list[Value]:
    """A call whose shardings say how its operands lie, where nothing else does."""
    if walker.manual:
        return call(walker, visit)
    taken = visit.equation.params["in_shardings"]
    for sharding in (*taken, *visit.equation.params["out_shardings"]):
        if isinstance(sharding, NamedSharding):
            walker.add_mesh(sharding.mesh)
    operands = [
        value._replace(spec=_jax.spec_axes(sharding.spec, len(operand.aval.shape)))
        if value.spec is None and isinstance(sharding, NamedSharding)
        else value
        for operand, value, sharding in zip(
            visit.equation.invars, visit.operands, taken, strict=True
        )
    ]
    return call(walker, visit._replace(operands=operands))


@HANDLERS.register(_CUSTOM_VJP)
def custom_vjp(walker: Walker, visit: Visit) -> list[Value]:
    """A call of a function with its own derivative; `spike` is one."""
    results = call(walker, visit)
    if not spike_marks.is_spike(visit.equation):
        return results
    mark = spike_marks.Mark((visit.where or spike_marks.SPIKE,))
    return [value._replace(mark=mark) for value in results]


@HANDLERS.register("scan")
def scan(walker: Walker, visit: Visit) -> list[Value]:
    """A loop of known length: its body, that often."""
    equation, operands, weights = visit.equation, visit.operands, visit.weights
    length = equation.params["length"]
    consts, carry = _jax.scan_parts(equation.params)
    body = _jax.opened(equation.params["jaxpr"])
    context, inner_weights = weights.shape, weights * length
    rows = operands[consts + carry :]
    # Only a loop over known counters, such as a pipeline's ticks, is told apart by iteration.
    counted = any(row.known is not None for row in rows) and weights.size * length <= _LARGEST
    if counted:
        inner_weights = np.repeat(weights[..., None], length, -1)
        fixed = [
            value._replace(known=known.enter_loop(value.known, context, length))
            for value in operands[:consts]
        ]
    else:
        fixed = operands[:consts]
    sliced = []
    for row in rows:
        value = _turned(visit, row.known) if counted else None
        sliced.append(Value(row.mark, value, None if row.spec is None else row.spec[1:]))
    path = (*visit.path, f"scan[{length}]")
    state = [Value(value.mark, None, value.spec) for value in operands[consts : consts + carry]]
    run = lambda state: walker.run(body, [*fixed, *state, *sliced], path, inner_weights, visit.plan)
    state, results = _fixpoint(walker, run, state, carry)
    # (context, iterations, shape) of a result is (context, shape) of the stack of them.
    stacked = [
        Value(
            value.mark,
            _turned(visit, value.known) if counted else None,
            None if value.spec is None else ((), *value.spec),
        )
        for value in results[carry:]
    ]
    return [Value(mark=value.mark, spec=value.spec) for value in state] + stacked


def _turned(visit: Visit, stacked: known.Known) -> known.Known:
    """Rows in the order in which a scan takes or makes them, or back."""
    if stacked is None or not visit.equation.params["reverse"]:
        return stacked
    return np.flip(stacked, visit.weights.ndim)


@HANDLERS.register("while")
def while_loop(walker: Walker, visit: Visit) -> list[Value]:
    """A loop of a length that depends on data: its body and its test, as often as stated."""
    params, operands, weights = visit.equation.params, visit.operands, visit.weights
    trips = _trips(walker, visit.where)
    if trips is None:
        walker.unpriced(visit, UNKNOWN_TRIPS)
    label = "?" if trips is None else f"{trips:g}"
    path, trips = (*visit.path, f"while[{label}]"), 1 if trips is None else trips
    test, body = (_jax.opened(params[name]) for name in ("cond_jaxpr", "body_jaxpr"))
    first, second = params["cond_nconsts"], params["body_nconsts"]
    strip = lambda value: Value(value.mark, None, value.spec)
    test_consts = operands[:first]
    body_consts = operands[first : first + second]
    state = [strip(value) for value in operands[first + second :]]
    run = lambda state: walker.run(body, [*body_consts, *state], path, weights * trips)
    state, _ = _fixpoint(walker, run, state, len(state))
    walker.run(test, [*test_consts, *state], path, weights * (trips + 1))
    return state


def _trips(walker: Walker, where: str) -> float | None:
    if isinstance(walker.while_trips, Mapping):
        for pattern, trips in walker.while_trips.items():
            if fnmatch.fnmatchcase(where, pattern):
                return trips
        return None
    return walker.while_trips


def _fixpoint(
    walker: Walker, run: Callable[[list[Value]], list[Value]], state: list[Value], carry: int
) -> tuple[list[Value], list[Value]]:
    """(what a loop's carried values are in every iteration, the body's results), counted once.

    What is known of a carried value is what its initial value and the body's have in common.
    """
    while any(value.mark is not None or value.spec is not None for value in state):
        with walker.uncounted():
            results = run(state)
        merged = [join_values([a, b]) for a, b in zip(state, results[:carry], strict=True)]
        if merged == state:
            break
        state = merged
    results = run(state)
    return [join_values([a, b]) for a, b in zip(state, results[:carry], strict=True)], results


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
    return [join_values(list(values)) for values in zip(*results, strict=True)]


def _shares(walker: Walker, visit: Visit, branches: int) -> list[np.ndarray] | None:
    """Executions of each branch; None for the dearest one's."""
    weights = visit.weights
    if walker.cond != "max":
        walker.note(f"{BRANCHES}{walker.cond!r}")
    if walker.cond == "mean":
        return [weights / branches] * branches
    if walker.cond == "exact":
        index = visit.operands[0].known
        if index is not None:
            taken = np.clip(index.astype(int), 0, branches - 1)
            return [weights * (taken == number) for number in range(branches)]
        walker.note(
            f"{visit.title}: which branch a cond takes depends on data; the dearest is counted"
        )
    if isinstance(walker.cond, Mapping):
        for pattern, given in walker.cond.items():
            if fnmatch.fnmatchcase(visit.where, pattern):
                if len(given) != branches:
                    raise ValueError(
                        f"cond[{pattern!r}] has {len(given)} weights; the cond at "
                        f"{visit.where!r} has {branches} branches"
                    )
                return [weights * float(share) for share in given]
    return None


@HANDLERS.register("shard_map")
def shard_map(walker: Walker, visit: Visit) -> list[Value]:
    """A function of one device's shards: from here on each device is told apart."""
    equation, operands, weights = visit.equation, visit.operands, visit.weights
    params = equation.params
    walker.add_mesh(params["mesh"])
    manual = set(params.get("newly_manual_axes", walker.mesh))
    taken = [
        _jax.spec_axes(spec, len(operand.aval.shape))
        for operand, spec in zip(equation.invars, params["in_specs"], strict=True)
    ]
    for number, (value, spec) in enumerate(zip(operands, taken, strict=True)):
        produced = spec if value.spec is None else value.spec
        steps = layout.moves(produced, spec, walker.mesh)
        if steps:
            walker.note(layout.resharded(equation, number, produced, spec))
            operations.reshard(walker, visit, equation.invars[number], value, steps)
    others = [axis for axis, size in walker.mesh.items() if axis not in manual and size > 1]
    if others and not walker.manual:
        walker.note(
            f"{visit.title}: a shard_map leaves {', '.join(others)} to XLA: "
            "operations are counted whole along it, and its collectives are only in the HLO"
        )
    inner = [Value(value.mark) for value in operands]
    if not walker.manual:
        # From here on every device is told apart: it knows what is whole on all of them, and what
        # it knew when an earlier shard_map returned the array, as the backward pass's takes it.
        devices = math.prod(walker.mesh.values())
        grow = lambda array: np.broadcast_to(array, (devices, *array.shape[1:]))
        if weights.ndim == 1:
            inner = [
                Value(value.mark, value.local if value.spec == spec else None)
                for value, spec in zip(operands, taken, strict=True)
            ]
        inner = [
            value._replace(known=grow(outer.known))
            if outer.known is not None and not layout.axes_of(spec)
            else value
            for value, outer, spec in zip(inner, operands, taken, strict=True)
        ]
        weights = grow(weights)
    with walker.inside():
        results = walker.run(_jax.opened(params["jaxpr"]), inner, visit.path, weights)
    return [
        Value(value.mark, None, _jax.spec_axes(spec, len(result.aval.shape)), value.known)
        for value, result, spec in zip(results, equation.outvars, params["out_specs"], strict=True)
    ]


@HANDLERS.register("pallas_call")
def pallas_call(walker: Walker, visit: Visit) -> list[Value]:
    """A kernel: its body, for every program of its grid."""
    params = visit.equation.params
    programs = _jax.pallas_grid(params)
    if programs is None:
        walker.unpriced(visit, "its grid is dynamic")
    else:
        body = _jax.opened(params["jaxpr"])
        path = (*visit.path, f"pallas[{programs}]")
        with walker.inside():  # references are a device's own
            walker.run(body, [UNKNOWN] * len(body.invars), path, visit.weights * programs)
    return [UNKNOWN] * len(visit.equation.outvars)
