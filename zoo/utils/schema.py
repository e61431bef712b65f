"""What a record that was read from a file must hold, and the one check of it.

A file may be of another version, damaged, or made to do harm. Checked here, right after it is read,
a value of another type is an error that names the field, and no surprise where it is used.
"""

import reprlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Kind:
    """What a single value must be.

    Attributes:
      needs: that in words, for errors.
      holds: whether a value is one.
    """

    needs: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Object:
    """An object with named fields; others may be in it, and are let be.

    Attributes:
      required, optional: field -> what it must hold.
    """

    required: Mapping[str, "Schema"] = field(default_factory=dict)
    optional: Mapping[str, "Schema"] = field(default_factory=dict)


@dataclass(frozen=True)
class ListOf:
    """A list; `each` is what its entries must be."""

    each: "Schema"


@dataclass(frozen=True)
class Maybe:
    """Null, or what `schema` says."""

    schema: "Schema"


Schema = Kind | Object | ListOf | Maybe


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


TEXT = Kind("a text", lambda value: isinstance(value, str))
WHOLE = Kind("a whole number of at least 0", _is_whole)
NUMBER = Kind("a finite number", _is_number)
OBJECT = Object()
NUMBERS, TEXTS = ListOf(NUMBER), ListOf(TEXT)


def check(value: Any, schema: Schema, where: str, name: str = "") -> Any:
    """The value, if it is what the schema says.

    Args:
      value: as JSON gives it.
      schema: what it must be.
      where: the file, for errors.
      name: of the field that holds it; empty for the whole file.

    Raises:
      ValueError: it is not; names the file, the field and the value.

    Example:
      >>> check({"rows": [{"code": 5}]}, Object({"rows": ListOf(Object({"code": TEXT}))}), "a.json")
      Traceback (most recent call last):
      ValueError: a.json: rows[0].code=5 must be a text
    """
    if isinstance(schema, Maybe) and value is None:
        return None
    inner = schema.schema if isinstance(schema, Maybe) else schema
    if not _fits(value, inner):
        shown = f"{name}={_shown(value)}" if name else _shown(value)
        raise ValueError(f"{where}: {shown} must be {words(schema)}")
    if isinstance(inner, ListOf):
        for index, each in enumerate(value):
            check(each, inner.each, where, f"{name}[{index}]")
    if isinstance(inner, Object):
        for key, of in {**inner.optional, **inner.required}.items():
            full = f"{name}.{key}" if name else key
            if key in value:
                check(value[key], of, where, full)
            elif key in inner.required:
                raise ValueError(f"{where}: lacks {full}, {words(of)}")
    return value


def words(schema: Schema) -> str:
    """What a schema asks for, for errors.

    Example:
      >>> words(Maybe(TEXTS))
      'a list or null'
    """
    if isinstance(schema, Maybe):
        return f"{words(schema.schema)} or null"
    if isinstance(schema, Kind):
        return schema.needs
    return "an object" if isinstance(schema, Object) else "a list"


def _fits(value: Any, schema: Schema) -> bool:
    if isinstance(schema, Kind):
        return schema.holds(value)
    return isinstance(value, Mapping if isinstance(schema, Object) else list | tuple)


def _shown(value: Any) -> str:
    return "null" if value is None else reprlib.repr(value)
