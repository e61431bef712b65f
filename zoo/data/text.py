"""Text splits: blocks with masked tokens to predict, and labelled texts or pairs of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.data import masking
from zoo.data.batches import Batch
from zoo.data.images import check_labels
from zoo.data.order import EVALUATION, sample_words
from zoo.data.tokenizer import Text


@dataclass(frozen=True, eq=False)
class MaskedText:
    """Blocks of running text for a masked language model; see `zoo.data.batches.Split`.

    Evaluation corrupts sample i always in the same way, training in every epoch in another.

    Attributes:
      tokens: (samples, sequence) int32, [CLS] first and [SEP] last, no padding.
      text: the tokenizer.
      mask_rate: share of the tokens to predict.
    """

    tokens: np.ndarray
    text: Text
    mask_rate: float

    @property
    def samples(self) -> int:
        """Number of blocks."""
        return len(self.tokens)

    def take(self, index: np.ndarray) -> Batch:
        """The blocks at `index` with their fixed corruption."""
        return self.augmented(index, *EVALUATION)

    def augmented(self, index: np.ndarray, seed: int, epoch: int) -> Batch:
        """The blocks at `index` with the corruption of an epoch."""
        mask = self.text.mask
        assert mask is not None  # the tokenizer was made for this task
        count = masking.words_needed(self.tokens.shape[1], self.mask_rate)
        words = sample_words(seed, epoch, index, count)
        made = masking.corrupt(
            self.tokens[index], words, self.mask_rate, mask, self.text.ordinary
        )
        return made._asdict()


def blocks(rows: Sequence[str], text: Text, sequence: int, where: str) -> np.ndarray:
    """Rows of text as one stream, cut into full blocks: (blocks, sequence) int32.

    Every row ends with a newline; what does not fill the last block is left out.

    Raises:
      ValueError: the text has no ordinary token, or not enough tokens for one block.
    """
    ids = text.encode([row + "\n" for row in rows])
    stream = np.concatenate(ids) if ids else np.empty(0, np.int32)
    if not text.ordinary[stream].any():
        raise ValueError(
            f"{where}: the text has {stream.size} tokens and none that the tokenizer knows; give "
            "text in the tokenizer's language and alphabet"
        )
    inner = sequence - 2
    count = stream.size // inner
    if count == 0:
        raise ValueError(
            f"{where}: {stream.size} tokens do not fill one block of sequence={sequence} "
            f"({inner} and two special ones); give more text or a smaller sequence"
        )
    made = np.empty((count, sequence), np.int32)
    made[:, 0], made[:, -1] = text.start, text.end
    made[:, 1:-1] = stream[: count * inner].reshape(count, inner)
    return made


@dataclass(frozen=True, eq=False)
class LabelledText:
    """Texts or pairs of texts with a class each; see `zoo.data.batches.Split`.

    Attributes:
      tokens: (samples, sequence) int32: [CLS] text [SEP], or [CLS] text [SEP] other [SEP], then
        padding.
      first: (samples,) how many tokens belong to the first text, with [CLS] and its [SEP].
      length: (samples,) how many tokens are not padding.
      labels: (samples,) int32, in [0, classes).
      classes: number of classes.
    """

    tokens: np.ndarray
    first: np.ndarray
    length: np.ndarray
    labels: np.ndarray
    classes: int

    def __post_init__(self) -> None:
        check_labels(self.labels, self.classes, "labels")

    @property
    def samples(self) -> int:
        """Number of labelled texts."""
        return len(self.tokens)

    def take(self, index: np.ndarray) -> Batch:
        """The texts at `index`."""
        place = np.arange(self.tokens.shape[1])
        mask = place < self.length[index, None]
        return {
            "token": self.tokens[index],
            "mask": mask,
            "type": (mask & (place >= self.first[index, None])).astype(np.int32),
            "label": self.labels[index],
            "weight": np.ones(len(index), np.float32),
        }

    def augmented(self, index: np.ndarray, seed: int, epoch: int) -> Batch:
        """The same: texts are not augmented."""
        del seed, epoch
        return self.take(index)


def padded(
    texts: Sequence[str],
    others: Sequence[str] | None,
    text: Text,
    sequence: int,
    truncate: bool,
    where: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts, or pairs, with special tokens and padding: `tokens`, `first`, `length` above.

    Of a pair that is too long, the longer text is cut first (as BERT does).

    Raises:
      ValueError: a text without tokens, or longer than `sequence` where `truncate` is false.
    """
    first = text.encode(texts)
    second = None if others is None else text.encode(others)
    room = sequence - (2 if second is None else 3)
    for part, ids in (("text", first), ("second text", second or [])):
        for row, tokens in enumerate(ids):
            if tokens.size == 0:
                raise ValueError(
                    f"{where}: the {part} of row {row} (counted from 0) has no tokens; remove the "
                    "row"
                )
    sizes = np.array([len(ids) for ids in first])
    if second is not None:
        sizes += [len(ids) for ids in second]
    if not truncate and sizes.max() > room:
        row, longest = int(np.argmax(sizes > room)), int(sizes.max())
        special = sequence - room
        raise ValueError(
            f"{where}: row {row} (counted from 0) has {sizes[row] + special} tokens with its "
            f"special ones, more than sequence={sequence}, as have {int((sizes > room).sum())} of "
            f"{len(sizes)} rows; set sequence={longest + special} or truncate=True"
        )
    tokens = np.full((len(first), sequence), text.pad, np.int32)
    begins, lengths = np.empty(len(first), np.int64), np.empty(len(first), np.int64)
    for row, one in enumerate(first):
        other = None if second is None else second[row]
        keep, keep_other = _kept(len(one), 0 if other is None else len(other), room)
        parts = [[text.start], one[:keep], [text.end]]
        begins[row] = keep + 2
        if other is not None:
            parts += [other[:keep_other], [text.end]]
        joined = np.concatenate(parts)
        lengths[row] = len(joined)
        tokens[row, : len(joined)] = joined
    return tokens, begins, lengths


def _kept(one: int, other: int, room: int) -> tuple[int, int]:
    """How much of two texts stays when the longer one is cut, token by token, until both fit."""
    excess = max(0, one + other - room)
    cut = min(excess, abs(one - other))
    if one >= other:
        one -= cut
    else:
        other -= cut
    rest = excess - cut
    # From equal lengths, BERT's loop (`len(a) > len(b)`: cut a, else b) takes from b first.
    return one - rest // 2, other - (rest + 1) // 2
