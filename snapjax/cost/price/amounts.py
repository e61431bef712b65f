"""An amount with the range that a profile's constants leave open."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from snapjax.cost.price.profile import Profile


@dataclass(frozen=True)
class Amount:
    """An energy or a time.

    Attributes:
      value: at the constants' values.
      low: with every constant at the end of its range that costs the least.
      high: likewise the most.
    """

    value: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.value + other.value, self.low + other.low, self.high + other.high)

    def to_dict(self) -> dict[str, float]:
        """The value and its range, for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def total(amounts: Iterable[Amount]) -> Amount:
    """Their sum: the ranges add up, since errors of a constant are errors everywhere."""
    return sum(amounts, Amount())


def over_range(price: Callable[[Profile], float], profile: Profile) -> Amount:
    """What `price` makes of a profile at its values and at both ends of its ranges."""
    return Amount(price(profile), price(profile.best()), price(profile.worst()))
