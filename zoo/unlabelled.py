"""Unlabelled samples as a model's inputs: what calibration and distillation look at."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from zoo.data import Batch, DataSpec
from zoo.data.prepare import different_texts
from zoo.data.sources import read_rows
from zoo.evaluate import data_for
from zoo.pretrained import Pretrained
from zoo.sentences import Encoder
from zoo.train.config import RunConfig
from zoo.train.config_values import override


def texts_spec(source: str, assignments: Sequence[str]) -> DataSpec:
    """How texts are read: in the column "text", unless the user says otherwise.

    Args:
      source: a file, folder or Hub name.
      assignments: what the user says, such as ["data.text_column=sentence"].

    Raises:
      ValueError: an assignment that does not fit.
    """
    spec = override(RunConfig("texts"), list(assignments)).data
    return replace(spec, source=source)


def read_texts(spec: DataSpec, *, whole: bool = False) -> list[str]:
    """Every different text of a source, in its order, of one column or of both of a pair.

    Args:
      spec: a file, folder or Hub name, and the columns; of a folder the training split is read.
      whole: of a folder without a validation split all of it, otherwise a part is held out.
    """
    return different_texts(read_rows(spec, validation=False, whole=whole), spec)


def batches(
    loaded: Pretrained, spec: DataSpec, count: int, batch_size: int, seed: int = 0
) -> list[Batch]:
    """Batches of `count` samples drawn from a source; all there are where it has fewer.

    Args:
      loaded: the model that shall read them.
      spec: where they are; pairs are of no account.
      count: how many.
      batch_size: samples a batch; texts are batched by length, so the batches are in no order.
      seed: of the draw.
    """
    if count < 2 or batch_size < 1:
        raise ValueError(f"samples={count} and batch_size={batch_size}: need at least 2 and 1")
    if seed < 0:
        raise ValueError(f"seed={seed} must be at least 0")
    draw = np.random.default_rng(seed)
    if loaded.model.config.task == "encode":
        encoder = Encoder.of(loaded, batch_size)
        return [batch for _, batch in encoder.batches(drawn(read_texts(spec), count, draw))]
    split = data_for(loaded, replace(spec, task=loaded.model.config.task, pairs=False)).train
    some = np.sort(draw.permutation(split.samples)[:count])
    return [split.take(some[i : i + batch_size]) for i in range(0, len(some), batch_size)]


def drawn(texts: Sequence[str], count: int, draw: np.random.Generator) -> list[str]:
    """`count` of the texts in a random order, or all."""
    return [texts[place] for place in draw.permutation(len(texts))[:count]]
