"""Counters of loops: carried values that follow from constants and the iteration alone.

They are computed step by step, by the walk itself over the few equations that make them, so that a
branch that depends on one is counted as often as it is taken, and a `while` as often as it turns.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from snapjax.cost.count import _jax
from snapjax.cost.count.known import LARGEST, Known, enter_loop
from snapjax.cost.count.value import Path, Value
from snapjax.cost.count.walk import Walker

# Iterations that are followed step by step; of a longer loop no counter is known.
MOST_STEPS = 10_000


class Turns(NamedTuple):
    """What is known of a loop's carried values.

    Attributes:
      carried: of each carried value, in every iteration: (context, iterations, shape); or None.
      final: of each, after the loop: (context, shape); or None.
      alive: (context, iterations) of a `while`, whether the iteration happens; None of a scan.
    """

    carried: list[Known]
    final: list[Known]
    alive: np.ndarray | None = None


def none(carry: int) -> Turns:
    """Of a loop of which nothing is known."""
    return Turns([None] * carry, [None] * carry)


class _Body:
    """The part of a loop's body that makes its counters.

    Attributes:
      places: of the counters among the carried values.
    """

    def __init__(
        self, walker: Walker, body: Any, fixed: Sequence[Value], state: Sequence[Value],
        rows: Sequence[Value], path: Path, weights: np.ndarray,
    ) -> None:  # fmt: skip
        self.walker, self.path, self.weights = walker, path, weights
        self.fixed, self.rows, self.carry = fixed, rows, len(state)
        self.body = body
        self.places = [number for number, value in enumerate(state) if value.known is not None]
        while self.places:
            self.jaxpr, self.used = _jax.outputs_of(body, self._outputs(self.places))
            left = [number for number in self.places if self._follows(number)]
            if left == self.places:
                # What is no small integer, such as a rate that decays, cannot be computed.
                first = self.step([state[number].known for number in left], 0)
                pairs = zip(left, first, strict=True)
                left = [number for number, value in pairs if value is not None]
            if left == self.places:
                break
            self.places = left

    def _outputs(self, places: Sequence[int]) -> list[bool]:
        return [number in places for number in range(len(self.body.outvars))]

    def _follows(self, number: int) -> bool:
        """Whether a carried value comes from the counters and other known values alone."""
        _, used = _jax.outputs_of(self.body, self._outputs([number]))
        given = [
            *(value.known is not None for value in self.fixed),
            *(place in self.places for place in range(self.carry)),
            *(row.known is not None for row in self.rows),
        ]
        return all(have for have, need in zip(given, used, strict=True) if need)

    def increments(self) -> list[int] | None:
        """What every iteration adds to each counter, where the body does nothing else to them."""
        needed = [number for number, need in enumerate(self.used) if need]
        inputs = dict(zip(needed, self.jaxpr.invars, strict=True))
        mine = [inputs.get(len(self.fixed) + place) for place in self.places]
        return _jax.increments(self.jaxpr, mine)

    def step(self, state: Sequence[Known], at: int) -> list[Known]:
        """The counters after an iteration, from those before it."""
        now: list[Known] = [None] * self.carry
        for place, value in zip(self.places, state, strict=True):
            now[place] = value
        context = self.weights.ndim
        rows = [
            Value() if row.known is None else Value(known=row.known.take(at, context))
            for row in self.rows
        ]
        values = [*self.fixed, *(Value(known=value) for value in now), *rows]
        given = [value for value, need in zip(values, self.used, strict=True) if need]
        with self.walker.uncounted():
            made = self.walker.run(self.jaxpr, given, self.path, self.weights)
        return [value.known for value in made]


def of_scan(
    walker: Walker,
    body: Any,
    fixed: Sequence[Value],
    state: Sequence[Value],
    rows: Sequence[Value],
    length: int,
    path: Path,
    weights: np.ndarray,
) -> Turns:
    """The counters of a scan.

    Args:
      body: its open jaxpr, of constants, carried values and rows.
      fixed: the constants.
      state: the carried values before the loop.
      rows: of the arrays that it goes through, in its order: known as (context, length, shape).
      length: iterations.
      path, weights: of the scan, as in `Walker.run`.
    """
    found = none(len(state))
    part = _Body(walker, body, fixed, state, rows, path, weights)
    counters = [state[place].known for place in part.places]
    if not part.places or not length:
        return found._replace(final=[value.known for value in state]) if not length else found
    stacks, counters = _turn(part, counters, length)
    for place, stack, last in zip(part.places, stacks, counters, strict=True):
        found.carried[place], found.final[place] = stack, last
    return found


def _turn(part: _Body, counters: list[Known], length: int) -> tuple[list[Known], list[Known]]:
    """(the counters in every iteration, after the last one); None where one cannot be computed."""
    context = part.weights.ndim
    steady = part.increments()
    if steady is not None:
        stacks = _steady(counters, steady, length + 1, context)
        within: list[Known] = [stack.take(range(length), context) for stack in stacks]
        after: list[Known] = [np.asarray(stack.take(length, context)) for stack in stacks]
        return within, after
    unknown: list[Known] = [None] * len(counters)
    if length > MOST_STEPS:
        return unknown, unknown
    made: list[list[Any]] = []
    for iteration in range(length):
        made.append(counters)
        counters = part.step(counters, iteration)
        if any(value is None for value in counters):
            return unknown, unknown
    return [np.stack(column, context) for column in zip(*made, strict=True)], counters


def _steady(
    counters: Sequence[Known], changes: Sequence[int], length: int, context: int
) -> list[np.ndarray]:
    """Counters to which every iteration adds the same, in so many iterations."""
    stacks = []
    for first, change in zip(counters, changes, strict=True):
        assert first is not None
        turns = np.arange(length).reshape(-1, *(1,) * first.ndim)
        stacks.append(np.moveaxis((first + change * turns).astype(first.dtype), 0, context))
    return stacks


def of_while(
    walker: Walker,
    test: Any,
    body: Any,
    test_fixed: Sequence[Value],
    fixed: Sequence[Value],
    state: Sequence[Value],
    path: Path,
    weights: np.ndarray,
) -> Turns:
    """The counters of a `while`, and how often it turns, if its test follows from them alone."""
    found = none(len(state))
    part = _Body(walker, body, fixed, state, (), path, weights)
    asked, used = _jax.outputs_of(test, [True])
    given = [
        *(value.known is not None for value in test_fixed),
        *(number in part.places for number in range(len(state))),
    ]
    if not all(have for have, need in zip(given, used, strict=True) if need):
        return found
    counters = [state[place].known for place in part.places]

    def ask(counters: Sequence[Known], weights: np.ndarray, fixed: Sequence[Value]) -> Known:
        now = [Value()] * len(state)
        for place, counter in zip(part.places, counters, strict=True):
            now[place] = Value(known=counter)
        values = [v for v, need in zip([*fixed, *now], used, strict=True) if need]
        with walker.uncounted():
            (answer,) = walker.run(asked, values, path, weights)
        return None if answer.known is None else answer.known.astype(bool)

    steady = part.increments() if part.places else None
    if steady is None:
        return _step_by_step(part, counters, lambda now: ask(now, weights, test_fixed), found)
    context, most_turns = weights.ndim, LARGEST // weights.size
    for length in sorted({min(64 * 8**power, most_turns) for power in range(6)}):
        stacks = _steady(counters, steady, length, context)
        enter = [
            Value(known=enter_loop(value.known, weights.shape, length)) for value in test_fixed
        ]
        answer = ask(stacks, np.repeat(weights[..., None], length, -1), enter)
        if answer is None:
            return found
        alive = np.logical_and.accumulate(answer, context)
        often = alive.sum(context)
        if often.max() < length:
            most = range(int(often.max()))
            for place, stack in zip(part.places, stacks, strict=True):
                last = often.reshape(often.shape + (1,) * (stack.ndim - context))
                found.carried[place] = stack.take(most, context)
                found.final[place] = np.take_along_axis(stack, last, context).squeeze(context)
            return found._replace(alive=alive.take(most, context))
    return found


def _step_by_step(
    part: _Body,
    counters: list[Known],
    ask: Callable[[Sequence[Known]], Known],
    found: Turns,
) -> Turns:
    """The turns of a `while` whose body does more to its counters than add."""
    weights, context = part.weights, part.weights.ndim
    alive = np.ones(weights.shape, bool)
    made: list[list[Any]] = []
    turns: list[np.ndarray] = []
    while len(turns) <= MOST_STEPS and weights.size * (len(turns) + 1) <= LARGEST:
        answer = ask(counters)
        if answer is None:
            return found
        alive = alive & answer
        if not alive.any():
            for number, (place, last) in enumerate(zip(part.places, counters, strict=True)):
                column = [row[number] for row in made]
                found.carried[place] = np.stack(column, context) if column else None
                found.final[place] = last
            none_ = np.ones((*weights.shape, 0), bool)
            return found._replace(alive=np.stack(turns, context) if turns else none_)
        turns.append(alive)
        made.append(counters)
        after = part.step(counters, 0) if part.places else []
        if any(value is None for value in after):
            return found
        counters = [
            np.where(alive.reshape(alive.shape + (1,) * (new.ndim - alive.ndim)), new, old)
            for new, old in zip(after, counters, strict=True)
            if new is not None and old is not None
        ]
    return found
