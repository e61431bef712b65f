"""A run's config as plain values: to and from JSON, single values replaced, two compared."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from snapjax.errors import unknown_name
from zoo.config import old_names
from zoo.config.fields import coerce
from zoo.config.specs import RunConfig

ALL_KEYS = "`snapjax train --keys` lists all keys with their meaning"


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The config as nested dicts of plain values."""
    return asdict(config)


def from_dict(values: Mapping[str, Any]) -> RunConfig:
    """The inverse of `to_dict`, through JSON too.

    Raises:
      ValueError: an unknown key, with the nearest known one, or a value out of range.
    """
    return _build(RunConfig, values, "config")


def differences(old: RunConfig, new: RunConfig, ignored: tuple[str, ...] = ()) -> list[str]:
    """Every value in which two configs differ, as "train.epochs: 4, now 8".

    Args:
      ignored: sections, or single keys, that may differ.
    """
    before, after = pairs(old), pairs(new)
    return [
        f"{key}: {before[key]}, now {after[key]}"
        for key in before
        if before[key] != after[key] and not {key, key.partition(".")[0]} & set(ignored)
    ]


def pairs(config: RunConfig) -> dict[str, Any]:
    """The values of a config by "section.key"."""
    return {
        f"{section}.{key}": value
        for section, values in to_dict(config).items()
        if isinstance(values, dict)
        for key, value in values.items()
    }


def _build(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be a JSON object, got {type(values).__name__}")
    known = {entry.name: entry for entry in fields(kind)}
    made = {}
    section_name = where.rpartition(".")[2] if "." in where else ""
    for key, value in old_names.current_section(section_name, values).items():
        if key not in known:
            raise unknown_name(f"key in {where}", key, known)
        section = known[key].default_factory
        if is_dataclass(section):
            made[key] = _build(section, value, f"{where}.{key}")
        else:
            made[key] = coerce(kind, key, value, where)
    if kind is RunConfig and "name" not in made:
        raise ValueError(f"{where} has no 'name'")
    return kind(**made)


def _near(key: str, known: Iterable[str]) -> str:
    """A hint for an error: the keys that look most like one, by their last part too."""
    last = {name.rpartition(".")[2]: name for name in known}
    near = [
        *difflib.get_close_matches(key, known, n=3, cutoff=0.6),
        *(last[name] for name in difflib.get_close_matches(key.rpartition(".")[2], last, n=2)),
    ]
    shown = " or ".join(map(repr, dict.fromkeys(near[:3])))
    return f"; did you mean {shown}?" if near else "."


def override(config: RunConfig, assignments: list[str]) -> RunConfig:
    """A config with some values replaced, e.g. ["train.epochs=4", "model.layers=8"].

    Raises:
      ValueError: not KEY=VALUE, an unknown key (with the nearest known ones), a value that is not
        of the key's type, or out of range.

    Example:
      >>> override(RunConfig("demo"), ["train.epochs=4"]).train.epochs
      4
    """
    values, known = to_dict(config), pairs(config)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment!r} must be KEY=VALUE, e.g. train.epochs=4")
        key = old_names.current_key(key)
        if key not in known:
            raise ValueError(f"unknown key {key!r}{_near(key, known)} {ALL_KEYS}")
        section, _, name = key.partition(".")
        values[section][name] = text
    return from_dict(values)
