"""Batches of like lengths: texts are padded to the longest of their batch, not of the data."""

from __future__ import annotations

import numpy as np

from zoo.data.order import batch_order

MULTIPLE = 8
"""Padded lengths are rounded up to it: a step is compiled for each that occurs."""
WINDOW = 50
"""Batches that are sorted by length together: the more, the less padding and the less chance."""


def by_length(
    order: np.ndarray, length: np.ndarray, batch_size: int, seed: int, epoch: int
) -> np.ndarray:
    """An epoch's order with samples of like length in one batch, the batches in any order.

    Each WINDOW batches are sorted by length and cut into batches again; then all batches are
    shuffled, so that lengths do not come in order. The samples are those of the full batches of
    `order`; like it, the result is a function of (seed, epoch) alone.

    Args:
      order: (samples,) from `zoo.data.order`; neighbours of one length stay neighbours.
      length: (samples,) tokens of each sample.
      batch_size: at least 1 and at most the number of samples.
      seed, epoch: of `order`.

    Returns:
      (steps * batch_size,) int64.
    """
    steps = len(order) // batch_size
    whole = order[: steps * batch_size]
    windows = np.split(whole, range(WINDOW * batch_size, len(whole), WINDOW * batch_size))
    sorted_windows = [part[np.argsort(length[part], kind="stable")] for part in windows]
    batches = np.concatenate(sorted_windows).reshape(steps, batch_size)
    return batches[batch_order(steps, seed, epoch)].reshape(-1)


def padded_lengths(
    order: np.ndarray, length: np.ndarray, batch_size: int, sequence: int
) -> np.ndarray:
    """What every full batch of an order is padded to: (steps,) int64.

    Args:
      order: (samples,) of an epoch.
      length: (samples,) tokens of each sample, in [1, sequence].
      batch_size: samples a batch.
      sequence: the longest that a sample can be.
    """
    steps = len(order) // batch_size
    longest = length[order[: steps * batch_size]].reshape(steps, batch_size).max(1)
    return np.minimum(-(-longest.astype(np.int64) // MULTIPLE) * MULTIPLE, sequence)
