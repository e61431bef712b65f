"""Masked-language-model corruption (Devlin et al., 2018, section 3.1), drawn sample by sample."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from zoo.data.order import below

RANDOM = 8
"""Of ten equally likely fates of a chosen token, the one that makes it random; those before it make
it the mask token, and the one after it keeps the token."""


class Masked(NamedTuple):
    """What `corrupt` returns, for B samples of S tokens and P slots a sample."""

    input_ids: np.ndarray  # (B, S) int32, corrupted
    position: np.ndarray  # (B, P) int32, ascending; 0 in unused slots
    label: np.ndarray  # (B, P) int32, the true tokens; 0 in unused slots
    weight: np.ndarray  # (B, P) float32, 1 where a prediction counts


def slots(sequence: int, rate: float) -> int:
    """P: predictions in a block of `sequence` tokens of which the first and last are special."""
    return max(1, round(rate * (sequence - 2)))


def words_needed(sequence: int, rate: float) -> int:
    """How many words a sample needs: one to rank each token, one for each slot."""
    return sequence + slots(sequence, rate)


def corrupt(
    token: np.ndarray, words: np.ndarray, rate: float, mask: int, ordinary: np.ndarray
) -> Masked:
    """Chooses `rate` of the ordinary tokens of each sample and replaces most of them.

    Of the chosen, each is independently replaced by the mask token with probability 0.8 and by a
    random ordinary token (perhaps itself) with 0.1, and kept with 0.1. The number chosen is
    round(rate * ordinary tokens of the sample), at least 1 if there is any: special tokens, the
    unknown one included, are never chosen.

    Args:
      token: (B, S) int32, first and last token of each sample special; not changed.
      words: (B, `words_needed`) uint64, each sample's own.
      rate: share to choose, in (0, 1).
      mask: id of the mask token.
      ordinary: (vocabulary,) bool, false for special tokens.
    """
    samples, sequence = token.shape
    slot = slots(sequence, rate)
    maskable = ordinary[token]
    # The tokens with the smallest words are chosen; special ones rank last.
    rank = np.where(maskable, words[:, :sequence] >> np.uint64(1), np.uint64(2**64 - 1))
    chosen = np.argsort(rank, axis=1, kind="stable")[:, :slot]
    available = maskable.sum(axis=1)
    count = np.minimum(available, np.maximum(1, np.rint(rate * available)))
    used = np.arange(slot) < count[:, None]
    # Unused slots sort to the end, and stay there as the others are put in ascending order.
    chosen = np.sort(np.where(used, chosen, sequence), axis=1)
    position = np.where(used, chosen, 0)
    row = np.arange(samples)[:, None]
    label = np.where(used, token[row, position], 0)

    draw = words[:, sequence : sequence + slot]
    # The upper half of a word decides a token's fate, the lower half which random token it may get.
    fate = below(draw, 10)
    ids = np.flatnonzero(ordinary)
    other = ids[below(draw << np.uint64(32), len(ids))]
    which, place = np.nonzero(used & (fate <= RANDOM))
    corrupted = token.copy()
    corrupted[which, position[which, place]] = np.where(fate < RANDOM, mask, other)[which, place]
    return Masked(
        corrupted,
        position.astype(np.int32),
        label.astype(np.int32),
        used.astype(np.float32),
    )
