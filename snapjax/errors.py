"""Argument errors that name the argument, what it got and what it needs."""

import difflib
from collections.abc import Iterable


def unknown_name(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """The error for a name that is not in `known`, with the nearest name that is.

    Example:
      >>> str(unknown_name("code", "phse", ["phase", "rate"]))
      "unknown code 'phse'; did you mean 'phase'? Known: phase, rate"
      >>> str(unknown_name("model", "vit_base", ["bert_base", "vit_base_p16"]))
      "unknown model 'vit_base'; did you mean 'vit_base_p16'? Known: bert_base, vit_base_p16"
    """
    names = sorted(known)
    # A name that goes on where this one ends is nearer than one of as many letters.
    longer = [each for each in names if name and each.startswith(str(name))]
    near = longer or difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return ValueError(f"unknown {kind} {name!r}{hint} Known: {', '.join(names)}")
