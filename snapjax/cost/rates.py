"""How often the spikes of an array fire: an expression of its sites' rates, and its bounds.

A site's rate is measured where its spikes are made. Of what a program makes of them it says all
(the complement, the mean of arrays put together) or leaves a range, since nobody says which spikes
coincide: of sites that fire with a and b

| array | share that is 1 |
|---|---|
| not a | 1 - a |
| a and b | max(0, a + b - 1) to min(a, b) |
| a or b | max(a, b) to min(1, a + b) |
| a share s of an array | max(0, 1 - (1 - a) / s) to min(1, a / s) |

The second and third are the bounds of Frechet (1935); each end is reached by some arrays. A cost
takes the upper end, so that no saving is invented.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

# Nodes of an expression; a longer one says nothing any more, which is always true.
LARGEST = 500


class Bounds(NamedTuple):
    """The least and the largest share of an array that can be 1."""

    low: float
    high: float


@dataclass(frozen=True)
class Rate:
    """The share of an array that is 1, as an expression of the rates of sites.

    Attributes:
      rule: "site", "fixed", "unknown", "not", "all", "any", "among", "sum", "part" or "even".
      parts: what it is made of.
      name: of a site.
      numbers: the rate that is fixed, the weights of a sum, the share of a part.
      size: nodes.
    """

    rule: str
    parts: tuple["Rate", ...] = ()
    name: str = ""
    numbers: tuple[float, ...] = ()
    size: int = field(default=1, compare=False)

    def bounds(self, rates: Mapping[str, float], even: bool = False) -> Bounds:
        """Its ends, for the rates of sites that are known; of others anything is possible.

        Args:
          rates: site -> rate.
          even: whether the spikes of a site are taken to fire equally often, so that a part of them
            fires as the whole.
        """
        if self.rule == "site":
            known = rates.get(self.name)
            return Bounds(0.0, 1.0) if known is None else Bounds(known, known)
        if self.rule == "fixed":
            return Bounds(self.numbers[0], self.numbers[0])
        if self.rule == "unknown":
            return Bounds(0.0, 1.0)
        if self.rule == "even":
            return self.parts[even].bounds(rates, even)
        lows, highs = zip(*(part.bounds(rates, even) for part in self.parts), strict=True)
        if self.rule == "not":
            low, high = 1 - highs[0], 1 - lows[0]
        elif self.rule == "all":
            low, high = sum(lows) - (len(lows) - 1), min(highs)
        elif self.rule == "any":
            low, high = max(lows), sum(highs)
        elif self.rule == "among":
            low, high = min(lows), max(highs)
        elif self.rule == "sum":
            low, high = (
                sum(w * x for w, x in zip(self.numbers, ends, strict=True))
                for ends in (lows, highs)
            )
        else:  # a part, of which the elements' own rate may be known too
            (share,) = self.numbers
            low, high = 1 - (1 - lows[0]) / share, highs[0] / share
            if even and len(self.parts) == 2:
                low, high = max(low, lows[1]), min(high, highs[1])
        high = min(1.0, max(0.0, high))
        return Bounds(min(high, max(0.0, low)), high)


UNKNOWN = Rate("unknown")


def _made(rule: str, parts: Sequence[Rate], numbers: Sequence[float] = (), least: int = 2) -> Rate:
    size = 1 + sum(part.size for part in parts)
    if size > LARGEST:
        return UNKNOWN
    if len(parts) < least:
        return parts[0]
    return Rate(rule, tuple(parts), numbers=tuple(numbers), size=size)


def of_site(name: str) -> Rate:
    """What fires at a site."""
    return Rate("site", name=name)


def fixed(rate: float) -> Rate:
    """A share that is no site's, such as 0 of zeros and 1 of ones."""
    return Rate("fixed", numbers=(float(rate),))


ZEROS, ONES = fixed(0), fixed(1)


def not_(rate: Rate) -> Rate:
    """The complement.

    Example:
      >>> not_(of_site("a")).bounds({"a": 0.25})
      Bounds(low=0.75, high=0.75)
    """
    if rate.rule == "not":
        return rate.parts[0]
    if rate.rule == "fixed":
        return fixed(1 - rate.numbers[0])
    return rate if rate == UNKNOWN else _made("not", [rate], least=1)


def all_(*rates: Rate) -> Rate:
    """Of several arrays, element by element, where all are 1.

    Example:
      >>> all_(of_site("a"), of_site("b")).bounds({"a": 0.5, "b": 0.75})
      Bounds(low=0.25, high=0.5)
    """
    if ZEROS in rates:
        return ZEROS
    parts = [rate for rate in rates if rate != ONES]
    return _made("all", parts) if parts else ONES


def any_(*rates: Rate) -> Rate:
    """Of several arrays, element by element, where any is 1.

    Example:
      >>> any_(of_site("a"), of_site("b")).bounds({"a": 0.5, "b": 0.25})
      Bounds(low=0.5, high=0.75)
    """
    if ONES in rates:
        return ONES
    parts = [rate for rate in rates if rate != ZEROS]
    return _made("any", parts) if parts else ZEROS


def among(*rates: Rate) -> Rate:
    """One of these, or a mixture of them."""
    flat = [part for rate in rates for part in (rate.parts if rate.rule == "among" else (rate,))]
    parts = list(dict.fromkeys(flat))
    return UNKNOWN if UNKNOWN in parts else _made("among", parts)


def at_most(rate: Rate) -> Rate:
    """What is left of an array when any of its elements may have become 0."""
    return among(ZEROS, rate)


def mean(weighted: Sequence[tuple[float, Rate]]) -> Rate:
    """Of arrays put together; weights are their shares of the whole.

    Example:
      >>> mean([(0.5, of_site("a")), (0.5, ONES)]).bounds({"a": 0.25})
      Bounds(low=0.625, high=0.625)
    """
    weights: dict[Rate, float] = {}
    for weight, rate in weighted:
        if weight:
            weights[rate] = weights.get(rate, 0.0) + weight
    if not weights:
        return ZEROS
    if len(weights) == 1 and abs(sum(weights.values()) - 1) < 1e-9:
        return next(iter(weights))
    return _made("sum", list(weights), list(weights.values()), least=1)


def chosen(which: Rate, off: Rate, on: Rate) -> Rate:
    """Where `which` is 1 the element of `on`, elsewhere that of `off`.

    Example:
      >>> chosen(of_site("a"), ONES, ZEROS).bounds({"a": 0.25})  # the complement
      Bounds(low=0.75, high=0.75)
    """
    return _added([all_(which, on), all_(not_(which), off)])


def mixed(*rates: Rate) -> Rate:
    """Each element of any of these arrays, and the data say of which."""
    return _added([at_most(rate) for rate in rates])


def _added(rates: Sequence[Rate]) -> Rate:
    """Of arrays of which no two are 1 at the same place, laid over each other."""
    found = [rate for rate in rates if rate != ZEROS]
    return _made("sum", found, [1.0] * len(found)) if found else ZEROS


def part(rate: Rate, share: float, each: Rate = UNKNOWN) -> Rate:
    """A share of an array.

    Args:
      rate: of the whole.
      share: of its elements.
      each: the rate of every element, if all fire equally often.

    Example:
      >>> a = of_site("a")
      >>> part(a, 0.5).bounds({"a": 0.25})
      Bounds(low=0.0, high=0.5)
      >>> part(a, 0.5, each=a).bounds({"a": 0.25}, even=True)
      Bounds(low=0.25, high=0.25)
    """
    if share >= 1 or rate in (ZEROS, ONES, UNKNOWN):
        return rate
    if share <= 0:
        return UNKNOWN
    return _made("part", [rate] if each == UNKNOWN else [rate, each], [share], least=1)


def evenly(rate: Rate, even: Rate) -> Rate:
    """`rate` whatever the spikes, and `even` if those of a site fire equally often."""
    return rate if rate == even else _made("even", [rate, even])
