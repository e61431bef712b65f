"""Where weights come from, and what they expect of their inputs."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.utils.schema import NUMBERS, TEXT, TEXTS, WHOLE, ListOf, Maybe, Object

ASSUMED = "assumed"
"""The pooling of an encoder whose folder does not state it."""
PREPROCESSING = Object(
    optional={
        **dict.fromkeys(("mean", "std"), NUMBERS),
        **dict.fromkeys(("size", "resize", "max_tokens", "sequence", "vocabulary"), WHOLE),
        **dict.fromkeys(("resample", "source", "sha256", "task"), TEXT),
        "image": ListOf(WHOLE),
        "class_names": Maybe(TEXTS),
    }
)
"""What is known of a `PretrainedConfig`'s preprocessing, and of the record of a run's data."""


@dataclass(frozen=True)
class PretrainedConfig:
    """What belongs to pretrained weights and is not in them.

    Attributes:
      source: a Hub id with its revision, a package, or the folder's name.
      sha256: of every weight file, by name.
      licence: of the weights, as the source states it; None where it says nothing.
      preprocessing: JSON-able; of text "max_tokens", "split_special_tokens", "prompts" by their
        names and "include_prompt", and "pooling": `ASSUMED` where nothing states it; of images
        "size", "mean", "std", "resample", and "resize" where they are larger before their middle is
        cut out.
    """

    source: str
    sha256: Mapping[str, str]
    licence: str | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)


def digests(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file, by its name, in hexadecimal."""
    found = {}
    for path in files:
        with open(path, "rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def check_digests(found: Mapping[str, str], wanted: Mapping[str, str], where: str) -> None:
    """Raises ValueError naming every file whose SHA-256 is not the one that is wanted."""
    wrong = [
        f"{name}: SHA-256 is {found.get(name)}, not {digest}"
        for name, digest in wanted.items()
        if found.get(name) != digest
    ]
    if wrong:
        lines = "\n  ".join(wrong)
        raise ValueError(
            f"{where}: damaged, or not the weights that are wanted; fetch them again\n  {lines}"
        )
