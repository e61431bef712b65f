"""Argument errors that name the argument, what it got and what it needs."""

import difflib
from collections.abc import Iterable


def unknown_name(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """The error for a name that is not in `known`, with the nearest name that is.

    Example:
      >>> str(unknown_name("code", "phse", ["phase", "rate"]))
      "unknown code 'phse'; did you mean 'phase'? Known: phase, rate"
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return ValueError(f"unknown {kind} {name!r}{hint} Known: {', '.join(names)}")
