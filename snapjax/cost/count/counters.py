"""Counters of loops: carried values that follow from constants and the iteration alone.

They are computed step by step, by the walk itself over the few equations that make them, so that a
branch that depends on one is counted as often as it is taken, and a `while` as often as it turns.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from snapjax.cost.count import _jax
from snapjax.cost.count.known import LARGEST, Known
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
        known = lambda value: value.known is not None
        self.places = [number for number, value in enumerate(state) if known(value)]
        first = len(fixed)
        while self.places:
            wanted = [number in self.places for number in range(len(body.outvars))]
            self.jaxpr, self.used = _jax.outputs_of(body, wanted)
            given = [
                *map(known, fixed),
                *(number in self.places for number in range(self.carry)),
                *map(known, rows),
            ]
            if all(have for have, need in zip(given, self.used, strict=True) if need):
                break
            # Without those that a value of unknown origin comes into.
            self.places = [n for n in self.places if self._follows(body, n, given, first)]

    def _follows(self, body: Any, number: int, given: list[bool], first: int) -> bool:
        wanted = [n == number for n in range(len(body.outvars))]
        _, used = _jax.outputs_of(body, wanted)
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
        stacks: list[np.ndarray] = []
        for first, change in zip(counters, steady, strict=True):
            assert first is not None
            turns = np.arange(length + 1).reshape(-1, *(1,) * first.ndim)
            stacks.append(np.moveaxis((first + change * turns).astype(first.dtype), 0, context))
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
    alive, context = np.ones(weights.shape, bool), weights.ndim
    made: list[list[Any]] = []
    turns: list[np.ndarray] = []
    while len(turns) <= MOST_STEPS:
        now = [Value()] * len(state)
        for place, counter in zip(part.places, counters, strict=True):
            now[place] = Value(known=counter)
        values = [v for v, need in zip([*test_fixed, *now], used, strict=True) if need]
        with walker.uncounted():
            (answer,) = walker.run(asked, values, path, weights)
        if answer.known is None:
            return found
        alive = alive & answer.known.astype(bool)
        if not alive.any():
            stack = lambda column: np.stack(column, context) if column else None
            for number, (place, last) in enumerate(zip(part.places, counters, strict=True)):
                found.carried[place] = stack([row[number] for row in made])
                found.final[place] = last
            shape = (*weights.shape, 0)
            return found._replace(alive=np.stack(turns, context) if turns else np.ones(shape))
        if weights.size * (len(turns) + 1) > LARGEST:
            return found
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
