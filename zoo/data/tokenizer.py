"""Tokenizers: trained on the spot, always to the same result, or read from a tokenizer.json."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from snapjax.errors import unknown_name
from zoo.config.data import TOKENIZERS
from zoo.data.files import half_character, nearest
from zoo.utils.files import read_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Ids 0 to 4 of the tokenizers that are trained here."""
ALIASES = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
"""What RoBERTa and its family call them."""

_PRIVATE = 0xF0000
"""First code point of a private plane, whose characters stand for pieces of one character."""
_BATCH = 4096
"""Texts that are encoded at once: what the library returns is far larger than the ids."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A tokenizer, and what the data need to know of it.

    Attributes:
      tokenizer: adds no special tokens, pads and truncates nothing; whether it finds a special
        token in a text that spells one, see `read_tokenizer`.
      text: its tokenizer.json.
      origin: "wordpiece", "bytes", or where it was read, for errors and records.
      size: largest id plus 1.
      pad, unknown, start, separator, mask: ids of the special tokens; -1 for one that is absent,
        see `require`.
    """

    tokenizer: Tokenizer = field(repr=False)
    text: str = field(repr=False)
    origin: str
    size: int
    pad: int
    unknown: int
    start: int
    separator: int
    mask: int

    @cached_property
    def sha256(self) -> str:
        """Of `text`."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def require(self, *tokens: str) -> None:
        """Raises ValueError if one of `tokens`, out of SPECIAL, is absent."""
        ids = dict(
            zip(
                SPECIAL,
                (self.pad, self.unknown, self.start, self.separator, self.mask),
                strict=True,
            )
        )
        absent = [token for token in tokens if ids[token] < 0]
        if absent:
            raise ValueError(
                f"tokenizer {self.origin}: has no {', '.join(absent)} token; use a BERT-style "
                "tokenizer.json, or 'wordpiece' or 'bytes' to train one"
            )

    def ordinary(self) -> np.ndarray:
        """(size,) bool: false for special tokens and for ids without a token."""
        made = np.zeros(self.size, bool)
        made[list(self.tokenizer.get_vocab().values())] = True
        added = self.tokenizer.get_added_tokens_decoder()
        made[[number for number, token in added.items() if token.special]] = False
        special = (self.pad, self.unknown, self.start, self.separator, self.mask)
        made[[number for number in special if number >= 0]] = False
        return made

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without special tokens around it.

        Raises:
          ValueError: see `checked_texts`.
        """
        texts = checked_texts(texts)
        made: list[list[int]] = []
        for first in range(0, len(texts), _BATCH):
            batch = texts[first : first + _BATCH]
            encoded = self.tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            made.extend(each.ids for each in encoded)
        return made

    def encode_joined(self, chunks: Sequence[str]) -> np.ndarray:
        """The ids of all chunks, one after the other: int32."""
        parts = [np.array(ids, np.int32) for ids in self.encode(chunks)]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)


def several(texts: Iterable[str]) -> None:
    """Raises ValueError for one text where several belong: its letters would be taken for them."""
    if isinstance(texts, str | bytes):
        raise ValueError(f"texts={texts!r:.60} is one text where several belong; put it in a list")


def checked_texts(
    texts: Sequence[str], place: Callable[[int], str] = "text {}".format
) -> list[str]:
    """The texts as a list, each one that a tokenizer can read.

    Args:
      texts: in their order.
      place: what an error calls the text of a number.

    Raises:
      ValueError: one text instead of several, no sequence, or an entry that is no text or holds
        half a character.
    """
    several(texts)
    if isinstance(texts, Mapping | Set) or not isinstance(texts, Iterable):
        raise ValueError(
            f"texts must be a list of texts in an order, got {type(texts).__name__}; give list(...)"
        )
    made = list(texts)
    for row, text in enumerate(made):
        if not isinstance(text, str):
            raise ValueError(f"{place(row)} is {text!r:.40}, which is no text; mend or remove it")
        if half := half_character(text):
            raise ValueError(f"{place(row)} {half}")
    return made


def load_tokenizer(path: Path, split_special_tokens: bool = False) -> Vocabulary:
    """The tokenizer in a tokenizer.json; `split_special_tokens` as in `read_tokenizer`.

    Raises:
      ValueError: the file cannot be read, or see `read_tokenizer`.
    """
    try:
        text = read_text(path)
    except ValueError as error:
        there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, [*TOKENIZERS, *there])
        if path.is_dir():
            hint = f"; in this folder that is {str(path / 'tokenizer.json')!r}"
        raise ValueError(
            f"data.tokenizer={str(path)!r} cannot be read: {error}; give the path of a "
            f"tokenizer.json, or one of {', '.join(TOKENIZERS)}{hint}"
        ) from error
    return read_tokenizer(text, str(path), split_special_tokens)


def read_tokenizer(text: str, origin: str, split_special_tokens: bool = False) -> Vocabulary:
    """The tokenizer in the text of a tokenizer.json, without its padding and truncation.

    Special tokens are found by name, BERT's or RoBERTa's; which are needed depends on the task.

    Args:
      text: the content of a tokenizer.json.
      origin: for errors and records.
      split_special_tokens: read "[SEP]" in a text as the words that it is made of. By default it
        is the token, as in transformers, whose name for this it is.

    Raises:
      ValueError: not a tokenizer.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing more special
        raise ValueError(f"tokenizer {origin}: is not a tokenizer.json: {error}") from error
    return _vocabulary(tokenizer, text, origin, split_special_tokens)


def train_tokenizer(kind: str, texts: Sequence[str], size: int) -> Vocabulary:
    """A tokenizer trained on texts; the same texts, in any order, give the same, byte for byte.

    No text can write a special token of it: a text about "[MASK]" would otherwise hold one.

    Args:
      kind: "wordpiece" (BERT's: lower case, without accents) or "bytes" (byte-level BPE: nothing is
        unknown, case and spaces are kept).
      texts: to count words in.
      size: tokens, special ones included; short texts give fewer.

    Raises:
      ValueError: a size less than the tokens that single characters need, or what is no text.
    """
    if kind not in TOKENIZERS:
        raise unknown_name("tokenizer", kind, TOKENIZERS)
    texts = checked_texts(texts)
    made = _train_bytes(texts, size) if kind == "bytes" else _train_wordpiece(texts, size)
    made.add_special_tokens(list(SPECIAL))
    return _vocabulary(made, made.to_str(), kind, True)


def _vocabulary(tokenizer: Tokenizer, text: str, origin: str, split: bool) -> Vocabulary:
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = split
    known = tokenizer.get_vocab()
    special = [
        known.get(name, known.get(alias, -1)) for name, alias in zip(SPECIAL, ALIASES, strict=True)
    ]
    return Vocabulary(tokenizer, text, origin, max(known.values(), default=-1) + 1, *special)


def _train_wordpiece(texts: Sequence[str], size: int) -> Tokenizer:
    """The library's own trainer numbers the pieces of one character in the order of a hash map, and
    so gives another vocabulary every time (tokenizers 0.23). It trains BPE in any case, and its BPE
    trainer is deterministic: that one gets words in which each piece of one character, "##a" as
    well as "a", is a character of a private plane.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        split = splitter.pre_tokenize_str(normalizer.normalize_str(text))
        words.update(word for word, _ in split)
    # Whatever occurs in a word of several characters may also begin or continue another one.
    inside = sorted({letter for word in words if len(word) > 1 for letter in word})
    singles = ["##" + letter for letter in inside] + sorted({c for word in words for c in word})
    _check_size(size, len(singles))
    private = {single: chr(_PRIVATE + place) for place, single in enumerate(singles)}
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learner.train_from_iterator(
        (
            f"{private[word[0]]}{''.join(private['##' + c] for c in word[1:])} " * count
            for word, count in words.items()
        ),
        trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=list(private.values()),
            special_tokens=list(SPECIAL),
            show_progress=False,
        ),
    )
    single_of = {letter: single for single, letter in private.items()}
    pieces = {}
    for learned, number in learner.get_vocab().items():
        if number < len(SPECIAL):
            pieces[learned] = number
        else:
            first, *rest = (single_of[letter] for letter in learned)
            pieces[first + "".join(single.removeprefix("##") for single in rest)] = number
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _train_bytes(texts: Sequence[str], size: int) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    _check_size(size, len(alphabet))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=alphabet,
            special_tokens=list(SPECIAL),
            show_progress=False,
        ),
    )
    return tokenizer


def _check_size(size: int, singles: int) -> None:
    least = len(SPECIAL) + singles
    if size < least:
        raise ValueError(
            f"data.vocabulary={size} is less than the {least} tokens that single characters and "
            "the special tokens take; give a larger one, or data.tokenizer='bytes'"
        )
