"""Loops: a scan, and a `while` whose length its counters or the caller say."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from snapjax.cost.count import _jax, counters, fusion, known
from snapjax.cost.count import marks as marked
from snapjax.cost.count.value import Path, Value, join_values
from snapjax.cost.count.walk import Handlers, Visit, Walker

HANDLERS = Handlers()

UNKNOWN_TRIPS = "trip count unknown: the body counts once; state while_trips"


@HANDLERS.register("scan")
def scan(walker: Walker, visit: Visit) -> list[Value]:
    """A loop of known length: its body, that often."""
    equation, operands, weights = visit.equation, visit.operands, visit.weights
    length = equation.params["length"]
    consts, carry = _jax.scan_parts(equation.params)
    body = _jax.opened(equation.params["jaxpr"])
    path = (*visit.path, f"scan[{length}]")
    fixed, state = operands[:consts], operands[consts : consts + carry]
    rows = [
        row._replace(known=_turned(visit, row.known), local=None)
        for row in operands[consts + carry :]
    ]
    turns = counters.none(carry)
    if weights.size * length <= known.LARGEST:
        turns = counters.of_scan(walker, body, fixed, state, rows, length, path, weights)
    # Only a loop over known counters, such as a pipeline's ticks, is told apart by iteration.
    counted = any(row.known is not None for row in rows) or any(
        value is not None for value in turns.carried
    )
    counted = counted and weights.size * length <= known.LARGEST
    inner_weights = np.repeat(weights[..., None], length, -1) if counted else weights * length
    state, results = _loop(
        walker,
        body,
        fixed=_entering(fixed, weights.shape, length, counted),
        state=state,
        rows=[_row(row, counted) for row in rows],
        turns=turns,
        counted=counted,
        where=(path, inner_weights, visit.plan),
        share=1 / max(length, 1),
    )
    # (context, iterations, shape) of a result is (context, shape) of the stack of them.
    stacked = [
        Value(
            value.mark,
            _turned(visit, value.known) if counted else None,
            None if value.spec is None else ((), *value.spec),
            static=value.static,
        )
        for value in results[carry:]
    ]
    return state + stacked


def _turned(visit: Visit, stacked: known.Known) -> known.Known:
    """Rows in the order in which a scan takes or makes them, or back."""
    if stacked is None or not visit.equation.params["reverse"]:
        return stacked
    return np.flip(stacked, visit.weights.ndim)


def _entering(
    values: Sequence[Value], context: tuple[int, ...], length: int, counted: bool
) -> list[Value]:
    """A loop's constants, as each of its iterations has them."""
    enter = lambda array: known.enter_loop(array, context, length) if counted else None
    return [
        value._replace(
            known=enter(value.known), local=None, static=value.static or value.known is not None
        )
        for value in values
    ]


def _row(array: Value, counted: bool) -> Value:
    """What each iteration knows of its row of an array."""
    mark = None if array.mark is None else array.mark.row()
    spec = None if array.spec is None else array.spec[1:]
    static = array.static or array.known is not None
    return Value(mark, array.known if counted else None, spec, static=static)


@HANDLERS.register("while")
def while_loop(walker: Walker, visit: Visit) -> list[Value]:
    """A loop that turns as often as its counters say, or else as often as it is stated."""
    params, operands, weights = visit.equation.params, visit.operands, visit.weights
    test, body = (_jax.opened(params[name]) for name in ("cond_jaxpr", "body_jaxpr"))
    first, second = params["cond_nconsts"], params["body_nconsts"]
    test_fixed, fixed = operands[:first], operands[first : first + second]
    state = operands[first + second :]
    turns = counters.of_while(
        walker, test, body, test_fixed, fixed, state, (*visit.path, "while"), weights
    )
    counted = turns.alive is not None and turns.alive.shape[-1] > 0
    stated = walker.rules.trips(visit.where)
    if turns.alive is not None:
        often = turns.alive.sum(-1)
        label = f"{often.max():g}" if often.size else "0"
    else:
        if stated is None:
            walker.unpriced(visit, UNKNOWN_TRIPS)
        label = "?" if stated is None else f"{stated:g}"
        often = np.asarray(1 if stated is None else stated)
    path = (*visit.path, f"while[{label}]")
    length = turns.alive.shape[-1] if counted and turns.alive is not None else 0
    inner = weights[..., None] * turns.alive if counted else weights * often
    enter = lambda values: _entering(values, weights.shape, length, counted)
    found, _ = _loop(
        walker,
        body,
        fixed=enter(fixed),
        state=state,
        rows=[],
        turns=turns,
        counted=counted,
        where=(path, inner, visit.plan),
    )
    strip = lambda values: [value._replace(known=None, local=None) for value in values]
    walker.run(test, strip([*test_fixed, *found]), path, weights * (often + 1))
    return found


def _loop(
    walker: Walker,
    body: Any,
    fixed: Sequence[Value],
    state: Sequence[Value],
    rows: Sequence[Value],
    turns: counters.Turns,
    counted: bool,
    where: tuple[Path, np.ndarray, fusion.Plan | None],
    share: float = 1.0,
) -> tuple[list[Value], list[Value]]:
    """(what a loop's carried values are after it, the body's results), counted once.

    What is known of a carried value is what its initial value and the body's have in common, and
    of a counter its value in every iteration. `share` of the iterations, at most, have the initial
    values.
    """
    path, weights, plan = where
    carry = len(state)

    def run(state: Sequence[Value]) -> list[Value]:
        inside = [
            value._replace(known=stack if counted else None, static=stack is not None)
            for value, stack in zip(state, turns.carried, strict=True)
        ]
        return walker.run(body, [*fixed, *inside, *rows], path, weights, plan)

    def joined(state: Sequence[Value], results: Sequence[Value]) -> list[Value]:
        rows = zip(started, state, results[:carry], strict=True)
        return [
            join_values([before, after])._replace(
                mark=marked.carried(first.mark, before.mark, after.mark, share)
            )
            for first, before, after in rows
        ]

    started = state = [Value(value.mark, spec=value.spec, static=value.static) for value in state]
    follows = lambda: any(value.mark is not None or value.spec is not None for value in state)
    for rounds in itertools.count(1):
        if not follows() and (not walker.mesh or walker.whole_mesh):
            break
        with walker.uncounted():
            results = run(state)
        merged = [
            value._replace(mark=marked.widened(before.mark, value.mark, rounds))
            for before, value in zip(state, joined(state, results), strict=True)
        ]
        settled = [v[:3:2] for v in merged] == [v[:3:2] for v in state]
        state = merged
        if settled:
            break
    results = run(state)
    after = [
        value._replace(
            mark=None if value.mark is None else value.mark.some(value.mark.mean),
            known=last,
            static=last is not None,
        )
        for value, last in zip(joined(state, results), turns.final, strict=True)
    ]
    return after, results
