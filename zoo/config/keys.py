"""Every key of a run's config with its type, meaning and allowed values, out of the docstrings."""

import re
import textwrap
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from snapjax.codes.code import CODES
from snapjax.neurons.surrogate import SURROGATES
from snapjax.wire.dense import GRADIENT_FORMATS
from zoo.config.data import RESAMPLES, TASKS, TOKENIZERS
from zoo.config.specs import CALIBRATIONS, PRECISIONS, TRAINABLE, RunConfig

ALLOWED: Mapping[str, tuple[str, ...]] = {
    "model.variant": ("ann", "hnn"),
    "model.precision": PRECISIONS,
    "model.code": CODES,
    "model.surrogate": SURROGATES,
    "model.gradient_wire": GRADIENT_FORMATS,
    "model.calibration": CALIBRATIONS,
    "data.task": TASKS,
    "data.resample": tuple(RESAMPLES),
    "data.tokenizer": tuple(TOKENIZERS),
    "train.trainable": TRAINABLE,
}
"""Of the keys that take a name."""


class Key(NamedTuple):
    """One value that `--set` can change.

    Attributes:
      name: "section.key".
      value: in the config at hand.
      kind: its type.
      meaning: from the docstring of the section's dataclass.
      allowed: names that it may have; empty where it is no name of a fixed set.
    """

    name: str
    value: Any
    kind: str
    meaning: str
    allowed: tuple[str, ...]


def describe(config: RunConfig) -> list[Key]:
    """The keys of a config, in its own order.

    Example:
      >>> key = next(key for key in describe(RunConfig("demo")) if key.name == "train.clip")
      >>> key.value, key.kind, key.meaning
      (1.0, 'float', 'largest global gradient norm.')
    """
    made = []
    for section in fields(config):
        spec = getattr(config, section.name)
        if not is_dataclass(spec):
            continue
        meanings, hints = attributes(type(spec).__doc__ or ""), get_type_hints(type(spec))
        for entry in fields(spec):
            name = f"{section.name}.{entry.name}"
            value = getattr(spec, entry.name)
            kind, meaning = _kind(hints[entry.name]), meanings.get(entry.name, "")
            made.append(Key(name, value, kind, meaning, ALLOWED.get(name, ())))
    return made


def attributes(docstring: str) -> dict[str, str]:
    """The texts of a docstring's "Attributes:" section, by name.

    Example:
      >>> attributes("What.\\n\\n    Attributes:\\n      a, b: two\\n        lines.\\n")
      {'a': 'two lines.', 'b': 'two lines.'}
    """
    _, _, rest = docstring.partition("Attributes:\n")
    section = textwrap.dedent(re.split(r"\n\s*\n", rest)[0])
    made: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if found := re.match(r"(\w+(?:, \w+)*): (.*)", line):
            names, text = found[1].split(", "), found[2]
            made.update(dict.fromkeys(names, text))
        else:
            made.update({name: f"{made[name]} {line.strip()}" for name in names})
    return made


def _kind(hint: Any) -> str:
    """A type as a reader would write it."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_kind, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"{_kind(get_args(hint)[0])}s with commas"
    return "none" if hint is type(None) else hint.__name__
