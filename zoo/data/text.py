"""Splits of text: blocks with masked tokens to predict, and texts or pairs, labelled or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from zoo.data import masking
from zoo.data.batches import Batch
from zoo.data.order import EVALUATION, sample_words
from zoo.data.tokenizer import Vocabulary

CHUNK = 4096
"""Characters that are tokenised as one text, at least: lines are short and calls are not free."""


@dataclass(frozen=True, eq=False)
class MaskedText:
    """Blocks of running text for a masked language model; see `zoo.data.batches.Split`.

    Evaluation corrupts a sample always in the same way, training in every epoch in another.

    Attributes:
      tokens: (samples, sequence) int32, first and last token special, no padding.
      mask_rate: share of the tokens to predict.
      mask: id of the mask token.
      ordinary: (vocabulary,) bool, false for special tokens.
    """

    tokens: np.ndarray = field(repr=False)
    mask_rate: float
    mask: int
    ordinary: np.ndarray = field(repr=False)

    @property
    def lengths(self) -> None:
        """No block has padding."""

    @property
    def samples(self) -> int:
        """Number of blocks."""
        return len(self.tokens)

    def take(self, index: np.ndarray) -> Batch:
        """The blocks at `index` in their fixed corruption."""
        return self.augmented(index, *EVALUATION)

    def augmented(self, index: np.ndarray, seed: int, epoch: int) -> Batch:
        """The blocks at `index` in the corruption of an epoch."""
        count = masking.words_needed(self.tokens.shape[1], self.mask_rate)
        words = sample_words(seed, epoch, index, count)
        return masking.corrupt(
            self.tokens[index], words, self.mask_rate, self.mask, self.ordinary
        )._asdict()


def chunks(rows: Sequence[str]) -> list[str]:
    """Rows with a newline after each, joined to texts of at least CHUNK characters but the last."""
    made: list[str] = []
    waiting: list[str] = []
    length = 0
    for row in rows:
        waiting.append(row + "\n")
        length += len(row) + 1
        if length >= CHUNK:
            made.append("".join(waiting))
            waiting, length = [], 0
    return [*made, "".join(waiting)] if waiting else made


def blocks(texts: Sequence[str], vocabulary: Vocabulary, sequence: int, where: str) -> np.ndarray:
    """Texts as one stream of tokens, cut into full blocks: (blocks, sequence) int32.

    Each block is [CLS], sequence - 2 tokens and [SEP]; what does not fill the last is left out.

    Args:
      texts: see `chunks`; they are joined without anything between.
      vocabulary: the tokenizer.
      sequence: tokens of a block, at least 3.
      where: the file, for errors.

    Raises:
      ValueError: fewer tokens than a block needs, or a tokenizer without [CLS], [SEP] or [MASK].
    """
    vocabulary.require("[CLS]", "[SEP]", "[MASK]")
    stream = vocabulary.encode_joined(texts)
    inner = sequence - 2
    count = stream.size // inner
    if count == 0:
        raise ValueError(
            f"{where}: {stream.size} tokens are less than one sample of data.sequence={sequence}; "
            "give more text or a smaller data.sequence"
        )
    made = np.empty((count, sequence), np.int32)
    made[:, 0], made[:, -1] = vocabulary.start, vocabulary.separator
    made[:, 1:-1] = stream[: count * inner].reshape(count, inner)
    return made


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts, or pairs of texts, with a class each or none; see `zoo.data.batches.Split`.

    Attributes:
      input_ids: (samples, sequence) int32: [CLS] text [SEP], or [CLS] text [SEP] other [SEP], then
        padding.
      token_type_ids: (samples, sequence) int32: 1 for the tokens of the other text and its [SEP],
        else 0.
      lengths: (samples,) int32: how many tokens are not padding.
      label: (samples,) int32, in [0, classes); None of unlabelled texts.
      classes: number of classes; None of unlabelled texts.
      cut: how many texts, or pairs, were longer than the sequence and lost their end.
      longest: tokens of the longest before it was cut, special ones included.
    """

    input_ids: np.ndarray = field(repr=False)
    token_type_ids: np.ndarray = field(repr=False)
    lengths: np.ndarray = field(repr=False)
    label: np.ndarray | None = field(repr=False)
    classes: int | None
    cut: int = 0
    longest: int = 0

    @property
    def samples(self) -> int:
        """Number of texts, or of pairs."""
        return len(self.input_ids)

    def take(self, index: np.ndarray) -> Batch:
        """The texts at `index`."""
        batch = {
            "input_ids": self.input_ids[index],
            "attention_mask": np.arange(self.input_ids.shape[1]) < self.lengths[index, None],
            "token_type_ids": self.token_type_ids[index],
            "weight": np.ones(len(index), np.float32),
        }
        return batch if self.label is None else {**batch, "label": self.label[index]}

    def augmented(self, index: np.ndarray, seed: int, epoch: int) -> Batch:
        """The same: texts are not augmented."""
        del seed, epoch
        return self.take(index)


def tokenised(
    texts: Sequence[str],
    others: Sequence[str] | None,
    labels: np.ndarray | None,
    classes: int | None,
    vocabulary: Vocabulary,
    *,
    sequence: int,
    truncate: bool,
    place: Callable[[int], str],
) -> Texts:
    """Texts, or pairs of texts, as tokens.

    Args:
      texts, others: the texts, and their seconds or None.
      labels: (texts,) int32, in [0, classes), or None.
      classes: number of classes, or None.
      vocabulary: the tokenizer.
      sequence: tokens of a sample, special ones included.
      truncate: cut what is too long, of a pair the longer text first, as transformers does.
      place: what an error calls a row.

    Raises:
      ValueError: a text without tokens; one that is too long, unless `truncate`; or a tokenizer
        without [PAD], [CLS] or [SEP].
    """
    vocabulary.require("[PAD]", "[CLS]", "[SEP]")
    columns = [texts] if others is None else [texts, others]
    encoded = [vocabulary.encode(column) for column in columns]
    around = 1 + len(columns)
    room, cut, longest = sequence - around, 0, 0
    if room < len(columns):
        raise ValueError(
            f"data.sequence={sequence} has no room for a token of each text; give 5 or more"
        )
    token = np.full((len(texts), sequence), vocabulary.pad, np.int32)
    kind = np.zeros((len(texts), sequence), np.int32)
    lengths = np.empty(len(texts), np.int32)
    for row, parts in enumerate(zip(*encoded, strict=True)):
        for part, column in zip(parts, columns, strict=True):
            if not part:
                raise ValueError(
                    f"{place(row)} has a text without tokens, {column[row]!r:.40}; remove it"
                )
        total = sum(map(len, parts))
        longest, cut = max(longest, total + around), cut + (total > room)
        if total > room and not truncate:
            raise ValueError(
                f"{place(row)} has {total} tokens, more than the {room} that fit "
                f"data.sequence={sequence}; set data.sequence={total + around} or more, "
                "or data.truncate=true"
            )
        ids, begin = [vocabulary.start], 0
        for part, kept in zip(parts, _kept(*map(len, parts), room=room), strict=True):
            begin = len(ids)
            ids += [*part[:kept], vocabulary.separator]
        token[row, : len(ids)] = ids
        lengths[row] = len(ids)
        if others is not None:
            kind[row, begin : len(ids)] = 1
    return Texts(token, kind, lengths, labels, classes, cut, longest)


def _kept(one: int, other: int | None = None, *, room: int) -> tuple[int, ...]:
    """Tokens that stay of a text, or of two of which the longer one is cut first.

    What both must lose leaves them equally long, of an odd room the longer one or else the second
    with one token more: the rule of the `tokenizers` library, and so of transformers' default.
    """
    if other is None:
        return (min(one, room),)
    short, long = sorted((one, other))
    if short + long > room:
        short = min(short, room // 2)
        long = room - short
    return (long, short) if one > other else (short, long)
