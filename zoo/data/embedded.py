"""Data that every installation has: scikit-learn's digits, and the text in CPython's help."""

from __future__ import annotations

import hashlib
import platform
import re

import numpy as np

DIGITS_LARGEST = 16.0
"""Largest value of a pixel of the digits."""
_RUN = 4096
"""Characters of paragraphs that go to one split together."""
_EVERY = 10
"""Of so many runs of paragraphs, one is for validation."""


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Handwritten digits as 8x8 grey scans, from the files that scikit-learn ships (no download).

    1,797 images of ten classes: scikit-learn's copy of the test set of "Optical Recognition of
    Handwritten Digits" (Alpaydin and Kaynak, UCI, 1998). The split is fixed and stratified by
    class.

    Returns:
      1,437 training images (n, 8, 8, 1) uint8 of 0..16 and their labels (n,) int64, then 360 for
      validation and theirs.
    """
    # Imported here: scikit-learn costs 1.3 s.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    scans = load_digits()
    pixels = scans.images[..., None].astype(np.uint8)  # whole numbers
    labels = scans.target.astype(np.int64)
    first, second = train_test_split(
        np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0
    )
    return pixels[first], labels[first], pixels[second], labels[second]


def topics() -> tuple[list[str], list[str], dict[str, str]]:
    """English technical prose: the language reference that CPython ships as `pydoc_data.topics`.

    About 345,000 characters without repetitions (PSF licence); each version of Python has a text of
    its own. Topics quote each other at length, so a paragraph counts only where it first appears,
    or validation text would be training text too. Spaces are single, and the lines under headings
    are left out. In the order of the topics' names the paragraphs form runs of 4,096 characters, of
    which every tenth is for validation.

    Returns:
      The paragraphs for training, those for validation, and what identifies the text: "python", the
      version, and "text_sha256".
    """
    from pydoc_data.topics import topics as pages

    paragraphs: dict[str, None] = {}  # a set that keeps its order
    for name in sorted(pages):
        for paragraph in re.split(r"\n\s*\n", pages[name]):
            lines = [line for line in paragraph.split("\n") if not re.fullmatch(r"\W*", line)]
            plain = " ".join(" ".join(lines).split())
            if plain:
                paragraphs[plain] = None
    parts: tuple[list[str], list[str]] = ([], [])
    characters = 0
    for paragraph in paragraphs:
        parts[characters // _RUN % _EVERY == _EVERY - 1].append(paragraph)
        characters += len(paragraph)
    train, validation = parts
    text = "\n".join([*train, "", *validation])
    digest = hashlib.sha256(text.encode()).hexdigest()
    return train, validation, {"python": platform.python_version(), "text_sha256": digest}
