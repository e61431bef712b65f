"""Texts of a source to embed: how they are read, and some of them drawn at random."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from zoo.config.data import source_and_column
from zoo.config.specs import RunConfig
from zoo.config.values import override
from zoo.data import DataSpec
from zoo.data.prepare import different_texts
from zoo.data.sources import read_rows


def texts_spec(source: str, assignments: Sequence[str]) -> DataSpec:
    """How texts are read: in the column "text", unless the user says otherwise.

    Args:
      source: a file, folder or Hub name. "FILE:COLUMN" names the column too.
      assignments: what the user says, such as ["data.text_column=sentence"].

    Raises:
      ValueError: an assignment that does not fit.
    """
    spec = override(RunConfig("texts"), list(assignments)).data
    name, column = source_and_column(source)
    return replace(spec, source=name, text_column=column or spec.text_column)


def read_texts(spec: DataSpec, *, whole: bool = False) -> list[str]:
    """Every different text of a source, in its order, of one column or of both of a pair.

    Args:
      spec: a file, folder or Hub name, and the columns; of a folder the training split is read.
      whole: of a folder without a validation split all of it, otherwise a part is held out.
    """
    return different_texts(read_rows(spec, validation=False, whole=whole), spec)


def drawn(texts: Sequence[str], count: int, draw: np.random.Generator) -> list[str]:
    """`count` of the texts in a random order, or all."""
    return [texts[place] for place in draw.permutation(len(texts))[:count]]
