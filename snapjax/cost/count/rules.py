"""What the caller says of loops and branches whose course the program does not tell."""

import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Any

Trips = int | Mapping[str, int] | None
Rule = str | Mapping[str, Sequence[float]]

COND_RULES = ("max", "mean", "exact")


class Rules:
    """The arguments `while_trips` and `cond` of `trace`, checked.

    Attributes:
      cond: the rule's name; of weights by path "max", which holds for all other branches.
      name: of the rule for a reader.
    """

    def __init__(self, while_trips: Trips, cond: Rule) -> None:
        """
        Raises:
          ValueError: for an unknown rule, iterations below 0, or weights that are no shares.
        """
        self._trips = while_trips if isinstance(while_trips, Mapping) else {}
        self._everywhere = None if isinstance(while_trips, Mapping) else while_trips
        self._weights = cond if isinstance(cond, Mapping) else {}
        self.cond = "max" if isinstance(cond, Mapping) else cond
        self.name = repr(cond)
        self._met: dict[str, dict[str, None]] = {"while_trips": {}, "cond": {}}
        for trips in (*self._trips.values(), self._everywhere):
            if trips is not None and not _at_least_0(trips):
                raise ValueError(
                    f"while_trips={while_trips!r}: {trips!r} is no number of iterations; give one "
                    "of at least 0, or {path pattern: iterations}"
                )
        if self.cond not in COND_RULES:
            raise ValueError(
                f"cond={cond!r} must be one of {', '.join(COND_RULES)}, or "
                "{path pattern: weights}"
            )
        for pattern, weights in self._weights.items():
            if not all(map(_at_least_0, weights)) or not math.isclose(sum(weights), 1):
                raise ValueError(
                    f"cond[{pattern!r}]={tuple(weights)!r}: the weights of the branches are the "
                    "shares of the executions that take each; give numbers of at least 0 whose sum "
                    "is 1"
                )

    def trips(self, path: str) -> float | None:
        """The stated iterations of the `while` at this path; None where none are."""
        self._met["while_trips"][path] = None
        return self._matching(self._trips, path, self._everywhere)

    def weights(self, path: str, branches: int) -> Sequence[float] | None:
        """The stated share of each branch of the cond at this path; None where none is.

        Raises:
          ValueError: where that has another number of branches.
        """
        self._met["cond"][path] = None
        given: Sequence[float] | None = self._matching(self._weights, path, None)
        if given is not None and len(given) != branches:
            pattern = next(p for p in self._weights if fnmatch.fnmatchcase(path, p))
            raise ValueError(
                f"cond[{pattern!r}] has {len(given)} weights; the cond at {path!r} has {branches} "
                "branches"
            )
        return given

    def check_used(self) -> None:
        """
        Raises:
          ValueError: for a pattern that matched no path.
        """
        for argument, patterns in (("while_trips", self._trips), ("cond", self._weights)):
            paths = list(self._met[argument])
            for pattern in patterns:
                if not any(fnmatch.fnmatchcase(path, pattern) for path in paths):
                    raise ValueError(
                        f"{argument}: no path matches {pattern!r}; the paths are "
                        f"{', '.join(map(repr, paths)) or '(none)'}"
                    )

    @staticmethod
    def _matching(patterns: Mapping[str, Any], path: str, otherwise: Any) -> Any:
        found = (value for key, value in patterns.items() if fnmatch.fnmatchcase(path, key))
        return next(found, otherwise)


def _at_least_0(number: Any) -> bool:
    try:
        return not isinstance(number, bool) and math.isfinite(number) and number >= 0
    except TypeError:
        return False
