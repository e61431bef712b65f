"""Several runs timed in turn, so that what slows the machine for a while slows all of them."""

import statistics
import time
from collections.abc import Callable, Mapping

Run = Callable[[], None]
"""One step of something; returns when its results are there."""

Seconds = dict[str, list[float]]
"""Of each run, one entry a round."""


def time_in_turn(
    runs: Mapping[str, Run],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    done: Callable[[], object] = lambda: None,
) -> Seconds:
    """Seconds of one step of every run in each of `repeats` rounds.

    A round visits every run and starts one further than the round before. A visit makes two steps
    and times the second: the first fills the caches with the run's own data again, and sees off the
    worker threads of the run before, which spin for a moment (OpenMP's do). One visit to each comes
    before the rounds, for compilation.

    Args:
      runs: by name.
      repeats: number of rounds.
      clock: seconds since some moment.
      done: called after every visit.

    Raises:
      ValueError: repeats < 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats} must be at least 1")
    names = list(runs)
    seconds: Seconds = {name: [] for name in names}
    for turn in range(-1, repeats):
        first = turn % max(1, len(names))
        for name in names[first:] + names[:first]:
            runs[name]()
            began = clock()
            runs[name]()
            if turn >= 0:
                seconds[name].append(clock() - began)
            done()
    return seconds


def median_ratio(seconds: Seconds, name: str, base: str) -> float:
    """Median over the rounds of one run's time over another's in the same round."""
    return statistics.median(
        mine / other for mine, other in zip(seconds[name], seconds[base], strict=True)
    )
