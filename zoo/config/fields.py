"""Values of dataclass fields from JSON and from the command line, checked against their types.

Nothing is evaluated: a text becomes a number, a truth value, None or itself, as the type says.
"""

import math
import os
import types
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

_WORDS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


def normalise(spec: Any, where: str) -> None:
    """Gives every field of a frozen dataclass its own type, whoever made it: a number of numpy
    becomes a float, a list a tuple.

    Args:
      spec: the dataclass, in its `__post_init__`.
      where: its name in a config, for errors.

    Raises:
      ValueError: a value that is not of its field's type, or a number that is not finite.
    """
    for entry in fields(spec):
        value = coerce(type(spec), entry.name, getattr(spec, entry.name), where)
        object.__setattr__(spec, entry.name, value)


def coerce(kind: type, name: str, value: Any, where: str) -> Any:
    """`value` as what the field `name` of the dataclass `kind` holds.

    Args:
      kind: a dataclass whose fields are bool, int, float, str, tuples of one of these, or None.
      name: of the field.
      value: from JSON, or a str from the command line, which is read as the field's type.
      where: for the error.

    Raises:
      ValueError: when the value is not of the type, or a number that is not finite.

    Example:
      >>> from dataclasses import make_dataclass
      >>> coerce(make_dataclass("Spec", [("rate", float | None)]), "rate", "1e-3", "spec")
      0.001
    """
    hint = _hints(kind)[name]
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if type(None) in options and (value is None or str(value).lower() == "none"):
        return None
    for option in options:
        if option is not type(None):
            made = _as(option, value)
            if made is not None:
                return made
    if float in options and not _finite(value):
        raise ValueError(f"{where}.{name}={value} must be a finite number")
    names = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise ValueError(f"{where}.{name}={str(value)!r} is not a value of type {names}")


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _as(kind: Any, value: Any) -> Any:
    """The value as `kind`, or None when it is none."""
    if get_origin(kind) is tuple:
        (inner, *_) = get_args(kind)
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            return None
        made = tuple(_as(inner, part) for part in parts)
        return None if any(part is None for part in made) else made
    if kind is bool:
        return value if isinstance(value, bool) else _WORDS.get(str(value).lower())
    if kind is str:
        return os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if isinstance(value, bool):
        return None
    try:
        if kind is int and (isinstance(value, str) or value == int(value)):
            return int(value)
        if kind is float:
            return float(value) if _finite(value) else None
    except (TypeError, ValueError, OverflowError):
        return None
    return None


def _finite(value: Any) -> bool:
    """Whether a value is no number that is infinite or NaN; what is no number at all is finite."""
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return True
    except OverflowError:  # a whole number beyond all floats
        return False
