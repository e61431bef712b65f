"""Data that every installation has: scikit-learn's digits, and the text in CPython's help."""

from __future__ import annotations

import platform
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

EMBEDDED = ("digits", "topics")

_CHUNK = 4096
"""Characters in a run of paragraphs that goes to one split as a whole."""
_EVERY = 10
"""Of so many runs, one is for validation."""


class Digits(NamedTuple):
    """The two parts of the digits, and the training part's statistics in units of `scale`."""

    train: Dataset
    validation: Dataset
    mean: float
    std: float
    scale: float


def digits() -> Digits:
    """Handwritten digits as 8x8 grey scans, from the files that scikit-learn ships (no download).

    1,797 images (8, 8, 1; pixels of 0..16) of ten classes: scikit-learn's copy of the test set of
    "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI, 1998). The split is fixed
    and stratified by class: 1,437 train, 360 validation. Mean and deviation are of the raw pixels.
    """
    # Imported here: `datasets` costs 0.7 to 1.0 s and scikit-learn 1.3 s, and most users of this
    # package (a resumed run's order, an evaluation of given arrays) need neither.
    from datasets import Array3D, Dataset, Features, Value
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    scans = load_digits()
    pixels = scans.images[..., None].astype(np.uint8)  # whole numbers
    dataset = Dataset.from_dict(
        {"image": pixels, "label": scans.target},
        features=Features({"image": Array3D((8, 8, 1), "uint8"), "label": Value("int32")}),
    )
    first, second = train_test_split(
        np.arange(len(dataset)), test_size=0.2, stratify=scans.target, random_state=0
    )
    train = scans.images[first]
    return Digits(
        dataset.select(first),
        dataset.select(second),
        float(train.mean(dtype=np.float64)),
        float(train.std(dtype=np.float64)),
        1.0,
    )


class Topics(NamedTuple):
    """The two parts of the text, a paragraph a row, and the Python that it comes from."""

    train: Dataset
    validation: Dataset
    python: str


def topics() -> Topics:
    """English technical prose: the language reference that CPython ships as `pydoc_data.topics`.

    About 345,000 characters without repetitions; each version of Python has a text of its own (PSF
    licence). Topics quote each other at length, so a paragraph counts only where it first appears,
    or validation text would also be training text. Paragraphs are one row each, with single spaces
    and without the lines under headings. In the order of the topics' names, the paragraphs form
    runs of 4,096 characters, and every tenth run is for validation.
    """
    from datasets import Dataset
    from pydoc_data.topics import topics as text

    paragraphs: dict[str, None] = {}  # a set that keeps the order
    for name in sorted(text):
        for paragraph in re.split(r"\n\s*\n", text[name]):
            lines = [line for line in paragraph.split("\n") if not re.fullmatch(r"\W*", line)]
            plain = " ".join(" ".join(lines).split())
            if plain:
                paragraphs[plain] = None
    parts: tuple[list[str], list[str]] = ([], [])
    characters = 0
    for paragraph in paragraphs:
        held_out = characters // _CHUNK % _EVERY == _EVERY - 1
        parts[held_out].append(paragraph)
        characters += len(paragraph)
    train, validation = (Dataset.from_dict({"text": rows}) for rows in parts)
    return Topics(train, validation, platform.python_version())
