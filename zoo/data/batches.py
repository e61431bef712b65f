"""Batches of one shape from a split: in an epoch's order to train, in the data's own to evaluate.

A process asks for the rows of the global batch that its devices hold. What those rows contain does
not depend on who asks, so that the batches of all processes together are the single process's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from zoo.data.lengths import by_length, padded_lengths
from zoo.data.order import epoch_order, pair_order

Batch = dict[str, np.ndarray]
"""Arrays with the samples on the first axis, B of them.

images: image (B, height, width, channels) float32; label (B,) int32; weight (B,) float32.
masked language model: token (B, S) int32, already corrupted; position, label (B, P) int32, where
  to predict and the true token; weight (B, P) float32, 0 in unused slots (whose position is 0).
text classification: token, type (B, S) int32; mask (B, S) bool, true for real tokens; label (B,)
  int32; weight (B,) float32.
unlabelled images and texts: the same without label; with data.pairs rows 2 i and 2 i + 1 are a
  pair of texts.

S is the data's, or with group_by_length the batch's own. A weight is 0 for a sample that only fills
up a batch.
"""

_TOKENS = ("input_ids", "token_type_ids", "attention_mask")


class Split(Protocol):
    """One part of a data set. Every batch owns its arrays: a caller may change them in place."""

    @property
    def samples(self) -> int:
        """Number of samples."""

    @property
    def lengths(self) -> np.ndarray | None:
        """(samples,) int32 tokens that are not padding; None where no sample has any padding."""

    def take(self, index: np.ndarray) -> Batch:
        """The samples at `index` ((B,) int64) as evaluation sees them: always the same."""

    def augmented(self, index: np.ndarray, seed: int, epoch: int) -> Batch:
        """The same as training sees them in an epoch: a function of (seed, epoch, sample) alone."""


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Number of full batches in an epoch.

    Raises:
      ValueError: batch_size < 1, or more than there are samples.
    """
    _check_batch_size(batch_size)
    if batch_size > split.samples:
        raise ValueError(
            f"batch_size={batch_size} is larger than the data, {split.samples} samples; an epoch "
            "would have no full batch; set train.batch_size to less"
        )
    return split.samples // batch_size


def train_batches(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    start: int = 0,
    rows: np.ndarray | None = None,
    group_by_length: bool = False,
    pairs: bool = False,
) -> Iterator[Batch]:
    """The full batches of one epoch in its order, from step `start` (for a resumed run) on.

    The remainder is dropped: every epoch leaves out other samples. Arguments are checked at the
    call, before the first batch is asked for.

    Args:
      split: the data.
      batch_size: samples in the global batch.
      seed, epoch: what order and augmentation are a function of.
      start: the first step to give.
      rows: (n,) positions within the global batch that this process holds; None: all of them.
      group_by_length: texts of like length in one batch, padded to its longest; see
        `zoo.data.lengths`.
      pairs: samples 2 i and 2 i + 1 stay side by side.

    Raises:
      ValueError: batch_size < 1 or larger than the data, start not in [0, steps_per_epoch], rows
        out of the batch, a bad seed or epoch, group_by_length of samples without padding, pairs of
        an odd number of samples or in odd batches.
    """
    steps = steps_per_epoch(split, batch_size)
    if pairs and batch_size % 2:
        raise ValueError(
            f"pairs=True with batch_size={batch_size} would tear a pair apart; give an even size"
        )
    if not 0 <= start <= steps:
        raise ValueError(f"start={start} is not in [0, {steps}], the steps of an epoch")
    rows = _checked_rows(rows, batch_size)
    padded = None
    if group_by_length:
        order, padded = grouped_epoch(split, batch_size, seed, epoch, pairs)
    else:
        order = _plain_epoch(split, seed, epoch, pairs)

    def batch(step: int) -> Batch:
        made = split.augmented(order[step * batch_size + rows], seed, epoch)
        return made if padded is None else trimmed(made, padded[step])

    return map(batch, range(start, steps))


def grouped_epoch(
    split: Split, batch_size: int, seed: int, epoch: int, pairs: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The order of an epoch grouped by length, and what each of its batches is padded to.

    Args:
      split, batch_size, seed, epoch: see `train_batches`.
      pairs: samples 2 i and 2 i + 1 stay side by side; a pair is as long as its longer text.

    Returns:
      (steps * batch_size,) and (steps,), both int64.

    Raises:
      ValueError: the samples have no lengths, or are an odd number and pairs.
    """
    if split.lengths is None:
        raise ValueError(
            "train.group_by_length=true is for texts of different lengths, and these samples are "
            "all of one; leave it out"
        )
    order, length = _plain_epoch(split, seed, epoch, pairs), split.lengths
    if pairs:
        # The two of a pair get one length: sorting by it, which is stable, keeps them together.
        length = np.repeat(length.reshape(-1, 2).max(1), 2)
    order = by_length(order, length, batch_size, seed, epoch)
    sequence = split.take(np.arange(1))["input_ids"].shape[1]
    return order, padded_lengths(order, split.lengths, batch_size, sequence)


def _plain_epoch(split: Split, seed: int, epoch: int, pairs: bool) -> np.ndarray:
    return (pair_order if pairs else epoch_order)(split.samples, seed, epoch)


def trimmed(batch: Batch, length: int) -> Batch:
    """A batch of texts with nothing behind the first `length` tokens."""
    return {
        name: np.ascontiguousarray(array[:, :length]) if name in _TOKENS else array
        for name, array in batch.items()
    }


def eval_batches(
    split: Split, batch_size: int, *, rows: np.ndarray | None = None
) -> Iterator[Batch]:
    """All samples in their own order, in batches of one shape.

    The last batch is filled up by starting again from the first sample, with weight 0, so that sums
    over `weight` count every sample exactly once. A batch larger than the data is filled up too.

    Args:
      split, batch_size, rows: see `train_batches`.

    Raises:
      ValueError: batch_size < 1, or rows out of the batch.
    """
    _check_batch_size(batch_size)
    rows = _checked_rows(rows, batch_size)
    steps = -(-split.samples // batch_size)
    return (_padded(split, step * batch_size + rows) for step in range(steps))


def _padded(split: Split, index: np.ndarray) -> Batch:
    batch = split.take(index % split.samples)
    batch["weight"][index >= split.samples] = 0
    return batch


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is less than 1")


def _checked_rows(rows: np.ndarray | None, batch_size: int) -> np.ndarray:
    if rows is None:
        return np.arange(batch_size)
    rows = np.asarray(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise ValueError(f"rows: {rows.dtype} {rows.shape} is not a one-dimensional integer array")
    outside = rows[(rows < 0) | (rows >= batch_size)]
    if outside.size:
        raise ValueError(
            f"rows: position {outside[0]} is not in [0, batch_size={batch_size}), the global batch"
        )
    return rows.astype(np.int64)
