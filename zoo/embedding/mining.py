"""Pairs of like texts out of texts alone, so that their similarity can be learned.

A greedy matching in a model's embeddings: every text is in one pair at most, so that pairs can be
held out with none of their texts trained on.
"""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zoo.embedding.encoder import WINDOW, Encoder
from zoo.embedding.similarity import COLUMNS, unit
from zoo.embedding.texts import drawn
from zoo.utils.files import write_atomic
from zoo.utils.progress import Begin, silent


class Matched(NamedTuple):
    """Two texts by their indices, and the cosine of their embeddings."""

    first: int
    second: int
    cosine: float


def mine(
    encoder: Encoder,
    texts: Sequence[str],
    neighbours: int,
    *,
    samples: int | None = None,
    seed: int = 0,
    progress: Begin = silent,
) -> tuple[list[str], list[Matched]]:
    """Texts, and pairs of them by their indices; every text is in one pair at most.

    Args:
      encoder: whose embeddings tell which texts are alike.
      texts: all different.
      neighbours: see `matched`.
      samples: how many of the texts are drawn at random; None for all.
      seed: of that draw, and of `matched`.
      progress: told how many texts are embedded, and then in pairs.

    Raises:
      ValueError: fewer than two texts with tokens, or as `matched`.
    """
    texts = with_tokens(encoder, texts)
    if len(texts) < 2:
        raise ValueError(f"{len(texts)} texts with tokens make no pair; give at least 2")
    if samples is not None:
        texts = drawn(texts, samples, np.random.default_rng(seed))
    vectors = embedded(encoder, texts, progress("embedded", len(texts)))
    return texts, matched(vectors, neighbours, seed, progress("in pairs", len(texts)))


def with_tokens(encoder: Encoder, texts: Sequence[str]) -> list[str]:
    """The texts that a tokenizer leaves anything of; a lone byte order mark, say, is nothing."""
    tokens = encoder.vocabulary.encode(texts)
    return [text for text, ids in zip(texts, tokens, strict=True) if ids]


def embedded(
    encoder: Encoder, texts: Sequence[str], progress: Callable[[int], None] = lambda done: None
) -> np.ndarray:
    """Embeddings of length 1, float32 (texts, width); `progress` is told how many are done."""
    window = WINDOW * encoder.batch_size
    made = np.empty((len(texts), encoder.model.config.width), np.float32)
    for first in range(0, len(texts), window):
        made[first : first + window] = encoder.embed(texts[first : first + window])
        progress(min(first + window, len(texts)))
    return unit(made)


def matched(
    vectors: np.ndarray,
    neighbours: int,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Matched]:
    """Pairs of which no two share a text: in a random order every text that is still free takes
    one, drawn at random, of the `neighbours` nearest that are free.

    So the first pairs are near ones and the last far, as many as neighbours are left; of an odd
    number of texts one is left over. n texts take n^2 / 3 dot products.

    Args:
      vectors: float32 (texts, width), of length 1.
      neighbours: 1 takes the nearest, as many as there are texts any.
      seed: of the order and the draws.
      progress: told how many texts are in a pair.

    Raises:
      ValueError: fewer than two texts, neighbours < 1, or a vector that is not finite.
    """
    if len(vectors) < 2:
        raise ValueError(f"{len(vectors)} different texts make no pair; give at least 2")
    if neighbours < 1:
        raise ValueError(f"neighbours={neighbours} must be at least 1")
    if not np.isfinite(vectors).all():
        row = int((~np.isfinite(vectors)).any(1).argmax())
        raise ValueError(
            f"vectors: that of text {row} is not finite; look at the weights of the model"
        )
    draw = np.random.default_rng(seed)
    free = np.ones(len(vectors), bool)
    # What is compared with: the places of texts, most of them free, and their vectors.
    places, pool = np.arange(len(vectors)), vectors
    pairs: list[Matched] = []
    for first in draw.permutation(len(vectors)).tolist():
        left = len(vectors) - 2 * len(pairs)
        if left < 2:
            break
        if not free[first]:
            continue
        free[first] = False
        if 2 * left < len(places):
            places = np.flatnonzero(free)
            pool = vectors[places]
        cosine = np.where(free[places], pool @ vectors[first], -np.inf)
        count = min(neighbours, left - 1)
        # Sorted, because the order in which a partition leaves them is numpy's own affair.
        nearest = np.sort(np.argpartition(-cosine, count - 1)[:count])
        chosen = nearest[draw.integers(count)]
        free[places[chosen]] = False
        pairs.append(Matched(first, int(places[chosen]), float(cosine[chosen])))
        progress(2 * len(pairs))
    return pairs


def write(path: Path, texts: Sequence[str], pairs: Sequence[Matched]) -> None:
    """Pairs as .csv in the columns of STS-B, the cosine as the score; the file appears when it is
    whole."""
    table = io.StringIO(newline="")
    # All are quoted: the writer would not see that a carriage return ends a line too.
    rows = csv.writer(table, quoting=csv.QUOTE_ALL, lineterminator="\n")
    rows.writerow(COLUMNS.values())
    for first, second, cosine in pairs:
        rows.writerow((texts[first], texts[second], f"{cosine:.4f}"))
    write_atomic(path, table.getvalue())
