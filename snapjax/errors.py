"""Argument errors that name the argument, what it got and what it needs."""

import difflib
import numbers
import reprlib
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, get_args

# What a Python type accepts beyond itself: numpy's scalars are numbers too.
_ACCEPTED: dict[type, type] = {int: numbers.Integral, float: numbers.Real}


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


def check_types(where: str, arguments: Mapping[str, tuple[Any, Any]]) -> None:
    """Raises ValueError that names every argument whose value is of another type than it needs.

    Args:
      where: the function or class, for the error.
      arguments: name -> (value, type), or a union such as `int | None`. A bool is no number.

    Example:
      >>> check_types("Boundary", {"features": (1.5, int), "budget": (None, int | None)})
      Traceback (most recent call last):
      ValueError: Boundary: features=1.5 must be of type int
    """
    wrong = []
    for name, (value, kind) in arguments.items():
        kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
        if not any(_is_of(value, each) for each in kinds):
            names = " or ".join("None" if k is type(None) else k.__name__ for k in kinds)
            wrong.append(f"{name}={reprlib.repr(value)} must be of type {names}")
    if wrong:
        raise ValueError(f"{where}: {'; '.join(wrong)}")


def _is_of(value: object, kind: type) -> bool:
    if isinstance(value, bool) and kind is not object:
        return kind is bool  # a bool is an int to Python, but no number of features
    return isinstance(value, _ACCEPTED.get(kind, kind))
