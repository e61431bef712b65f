"""What is known of an array of spikes: where they were made, and how often they fire."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from snapjax.cost import rates
from snapjax.cost.counts import SITE_SEPARATOR
from snapjax.cost.rates import Rate

SPIKES, FIELDS, NUMBERS = "spikes", "fields", "numbers"
# From what is most like spikes to what is least.
_FORMS = (SPIKES, FIELDS, NUMBERS)

# Whether any of several is 1: still spikes, but more often than at their site, so the site's name
# gets this ending and a rate of its own.
ANY = "/any"


@dataclass(frozen=True)
class Mark:
    """What is known of an array; no mark (None) says nothing.

    Attributes:
      sites: where its spikes were made, sorted; empty for a constant of zeros or ones.
      form: "spikes", an array of zeros and ones; "fields", integers whose bits are spikes; or
        "numbers", other integers made of spikes alone, such as addresses of events.
      mean: the share of the array that is 1; of fields, of what they were packed from.
      each: the rate of every one of its elements, which is that of whatever part of it is taken
        without looking at the data. A site's spikes are taken to fire equally often.
      part: whether it is a part of a site's spikes, so that this matters.
    """

    sites: tuple[str, ...] = ()
    form: str = SPIKES
    mean: Rate = rates.UNKNOWN
    each: Rate = rates.UNKNOWN
    part: bool = False

    @property
    def site(self) -> str:
        return SITE_SEPARATOR.join(self.sites)

    @property
    def packed(self) -> bool:
        return self.form != SPIKES

    def fires(self, mean: Rate, each: Rate | None = None) -> "Mark":
        """The same spikes at other rates."""
        return replace(self, mean=mean, each=mean if each is None else each)

    def of_any_rate(self) -> "Mark":
        """Zeros and ones of these sites, of which nothing else is known."""
        return Mark(self.sites)

    def silenced(self) -> "Mark":
        """Some of them, chosen by data, may have become 0."""
        return self.fires(rates.at_most(self.mean), rates.at_most(self.each))

    def taken(self, share: float, static: bool) -> "Mark":
        """A part of them.

        Args:
          share: of the array.
          static: where the part lies does not depend on data.
        """
        if self.packed:
            return self.fires(self.each)
        each = self.each if static else rates.UNKNOWN
        taken = self.fires(rates.part(self.mean, share, each), each)
        return replace(taken, part=self.part or (share < 1 and static))

    def row(self) -> "Mark":
        """Of each iteration of a loop, or on each device: of all together it is this array."""
        return self.fires(rates.evenly(rates.among(self.mean, self.each), self.each), self.each)

    def some(self, each: Rate | None = None) -> "Mark":
        """Any of the elements, chosen without looking at the data."""
        each = self.each if each is None else each
        return replace(self.fires(rates.evenly(rates.UNKNOWN, each), each), part=True)


Marks = Sequence[Mark | None]


def of_site(name: str) -> Mark:
    """Spikes that are made at a site."""
    rate = rates.of_site(name)
    return Mark((name,), SPIKES, rate, rate)


CONSTANTS = {
    value: Mark((), SPIKES, rate, rate) for value, rate in ((0, rates.ZEROS), (1, rates.ONES))
}


def of_constant(value: Any) -> Mark | None:
    """The mark of a literal or a constant array: all zeros, or all ones."""
    try:
        array = np.asarray(value)
        if array.size == 0:
            return CONSTANTS[0]
        return CONSTANTS.get(array.item()) if array.size == 1 else None
    except (TypeError, ValueError):
        return None


def combined(marks: Marks, combine: Callable[[Sequence[Rate]], Rate]) -> Mark | None:
    """The mark of an array that is made of several marked ones.

    Args:
      marks: None if any is unknown.
      combine: their rates, of the means and of the elements, to that of the result.
    """
    known = [mark for mark in marks if mark is not None]
    if not known or len(known) < len(marks):
        return None
    sites = tuple(sorted({site for mark in known for site in mark.sites}))
    form = max((mark.form for mark in known), key=_FORMS.index)
    mean, each = combine([mark.mean for mark in known]), combine([mark.each for mark in known])
    return Mark(sites, form, mean, each, any(mark.part for mark in known))


def join(*marks: Mark | None) -> Mark | None:
    """The mark of what may be any of these, whatever the data are."""
    return combined(marks, lambda found: rates.among(*found))


def join_by_data(*marks: Mark | None) -> Mark | None:
    """The mark of what is any of these, and the data say which."""
    if len(set(marks)) == 1 and marks[0] is not None and not marks[0].sites:
        return marks[0]
    return combined(marks, lambda found: rates.mixed(*found))


def put_together(weighted: Sequence[tuple[float, Mark | None]]) -> Mark | None:
    """The mark of arrays side by side, each with its share of the whole.

    Zeros lower only the least that it can fire: what they are put beside may be the busiest part of
    a site.
    """
    joined = join(*(mark for share, mark in weighted if share))
    if joined is None:
        return None
    means = [(share, mark.mean) for share, mark in weighted if mark is not None]
    beside = [(share, mean) for share, mean in means if mean != rates.ZEROS]
    whole = sum(share for share, _ in beside)
    most = rates.mean([(share / whole, mean) for share, mean in beside if share])
    return joined.fires(rates.among(rates.mean(means), most), joined.each)


def carried(
    first: Mark | None, before: Mark | None, after: Mark | None, share: float
) -> Mark | None:
    """The mark of a loop's carried value, over all iterations.

    Args:
      first: before the loop.
      before, after: of the iterations, as far as they are known, and what one of them makes of it.
      share: of the iterations that have the first.
    """
    joined = join(before, after)
    if joined is None or first is None or after is None or first == after:
        return joined
    # Of what they make the last is not among them, and may be the quietest or the busiest.
    most = rates.mean([(share, first.mean), (1.0, after.mean)])
    return joined.fires(rates.evenly(rates.at_most(most), joined.each), joined.each)


def widened(before: Mark | None, after: Mark | None, rounds: int) -> Mark | None:
    """A loop's carried mark after another round over its body, so that it settles.

    The rate of each element bounds the mean; where that still grows, nothing is known of it.
    """
    if before is None or after is None or before == after or rounds < 2:
        return after
    if rounds < 4:
        return after.some()
    return after.fires(rates.UNKNOWN)
