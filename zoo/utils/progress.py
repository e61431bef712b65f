"""How far long work is: a bar with the time left on a terminal, elsewhere a line now and then."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

FIRST, EVERY = 10.0, 30.0
"""Seconds to the first line of a piece of work, and between the later ones."""


Done = Callable[..., None]
"""Told how much of a piece of work is done: `done(count)` or `done(count, "what else to show")`."""

Begin = Callable[[str, int], Done]
"""Called with the name of a piece of work and how much it is, when it begins."""


def silent(what: str, total: int) -> Done:
    """A `Begin` that shows nothing."""
    return lambda count, shown="": None


def within(progress: Begin, name: str) -> Begin:
    """A `Begin` for the parts of other work, whose name goes before theirs."""
    return lambda what, total: progress(f"{name}: {what}", total)


def plain_console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console that prints texts as they are: "[b]" in the name of a folder is no markup."""
    return Console(stderr=stderr, width=width, markup=False, emoji=False)


class Progress:
    """A `Begin` that shows; a context manager.

    Args:
      console: where.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}", markup=False),
            console=console,
            disable=not console.is_interactive,
        )

    def __call__(
        self, what: str, total: int | None = None, *, start: int = 0, passing: bool = False
    ) -> Done:
        """Begins a piece of work.

        Args:
          what: its name.
          total: how much it is; None where that is not known.
          start: how much was done before.
          passing: it is a part of other work, and leaves no bar behind.
        """
        if self._bars.disable:
            return self._in_lines(what, total)
        task = self._bars.add_task(what, total=total, completed=start, shown="")

        def done(count: int, shown: str = "") -> None:
            self._bars.update(task, completed=count, shown=shown)
            if passing and count == total:
                self._bars.remove_task(task)

        return done

    def _in_lines(self, what: str, total: int | None) -> Done:
        began, due = time.monotonic(), time.monotonic() + FIRST
        first: tuple[float, int] | None = None

        def done(count: int, shown: str = "") -> None:
            nonlocal due, first
            now = time.monotonic()
            # What comes first takes longer, to be compiled, and says nothing about the rest.
            first = first or (now, count)
            if now < due:
                return
            due = now + EVERY
            each = (now - first[0]) / (count - first[1]) if count > first[1] else None
            text = line(what, count, total, now - began, each)
            self.console.print(f"{text}; {shown}" if shown else text, soft_wrap=True)

        return done

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()


def line(what: str, count: int, total: int | None, seconds: float, each: float | None) -> str:
    """How far a piece of work is, as a clause.

    Args:
      what: its name.
      count: how much is done.
      total: how much it is; None where that is not known.
      seconds: since it began.
      each: seconds that one more takes; None where that is not known.

    Example:
      >>> line("steps", 30, 120, 40.0, 2.0)
      'steps: 30 of 120 (25 %), 0:40 gone, about 3:00 left'
    """
    if total is None:
        return f"{what}: {count:,}, {clock(seconds)} gone"
    text = f"{what}: {count:,} of {total:,} ({100 * count // max(total, 1)} %), "
    text += f"{clock(seconds)} gone"
    if each is not None and count < total:
        text += f", about {clock(each * (total - count))} left"
    return text


def clock(seconds: float) -> str:
    """A length of time.

    Example:
      >>> clock(65), clock(7265)
      ('1:05', '2:01:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
