"""Tokenizers: trained on the spot, always to the same result, or read from a tokenizer.json."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from zoo.data.files import nearest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Ids 0 to 4 of the tokenizers trained here."""
ALIASES = {"[PAD]": "<pad>", "[UNK]": "<unk>", "[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>"}
"""What RoBERTa's and T5's families call them."""

_PLANE = 0xF0000
"""First code point of a private plane: stands for the characters that continue a word."""
_CHUNK = 4096


class Text(NamedTuple):
    """A tokenizer and what the data need to know of it."""

    tokenizer: Tokenizer
    json: str  # the content of its tokenizer.json
    vocabulary: int  # largest id plus 1
    ordinary: np.ndarray  # (vocabulary,) bool, false for special tokens and unused ids
    pad: int
    start: int
    end: int
    mask: int | None

    @property
    def sha256(self) -> str:
        """Of `json`."""
        return hashlib.sha256(self.json.encode()).hexdigest()

    def encode(self, rows: Sequence[str]) -> list[np.ndarray]:
        """The ids of each row, int32, without the special tokens around it."""
        encoded = []
        for first in range(0, len(rows), _CHUNK):  # an Encoding is far larger than its ids
            chunk = list(rows[first : first + _CHUNK])
            for row in self.tokenizer.encode_batch_fast(chunk, add_special_tokens=False):
                encoded.append(np.array(row.ids, np.int32))
        return encoded


def read(path: str, mlm: bool) -> Text:
    """The tokenizer in a tokenizer.json.

    Raises:
      ValueError: no such file, or see `parse`.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        folder = file.parent
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        raise ValueError(
            f"tokenizer={path!r} is neither 'wordpiece' nor 'bytes' nor a file"
            f"{nearest(file.name, names)}; give the path of a tokenizer.json"
        )
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"tokenizer={path!r} cannot be read: {error}") from error
    return parse(text, mlm, f"tokenizer={path!r}")


def parse(json: str, mlm: bool, where: str = "tokenizer") -> Text:
    """The tokenizer in the text of a tokenizer.json, without its own padding and truncation.

    Args:
      json: the text.
      mlm: whether a mask token is needed.
      where: for errors.

    Raises:
      ValueError: not a tokenizer, or one without a special token that is needed.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(json)
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{where} is not a tokenizer.json: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return _text(tokenizer, mlm, where)


def train(kind: str, rows: Sequence[str], vocabulary: int) -> Text:
    """A tokenizer trained on `rows`: the same rows give the same tokenizer, byte for byte.

    Args:
      kind: "wordpiece" or "bytes".
      rows: the text.
      vocabulary: tokens to make, at most; a short text gives fewer.
    """
    made = _train_bytes(rows, vocabulary) if kind == "bytes" else _train_wordpiece(rows, vocabulary)
    return _text(made, True, f"tokenizer={kind!r}")


def _text(tokenizer: Tokenizer, mlm: bool, where: str) -> Text:
    known = tokenizer.get_vocab()
    ids: dict[str, int | None] = {}
    for name in SPECIAL:
        found = known.get(name, known.get(ALIASES[name]))
        if found is None and name != "[UNK]" and (mlm or name != "[MASK]"):
            raise ValueError(
                f"{where} has no token {name!r} or {ALIASES[name]!r}, which "
                f"{'task mlm needs' if name == '[MASK]' else 'marks the text'}; "
                "give a tokenizer of a BERT-style model"
            )
        ids[name] = found
    size = max(known.values()) + 1
    ordinary = np.zeros(size, bool)
    ordinary[list(known.values())] = True
    ordinary[[i for i in ids.values() if i is not None]] = False
    added = tokenizer.get_added_tokens_decoder()
    ordinary[[i for i, token in added.items() if token.special]] = False
    if not ordinary.any():
        raise ValueError(f"{where} has {size} special tokens and no others; train it on more text")
    pad, start, end = ids["[PAD]"], ids["[CLS]"], ids["[SEP]"]
    assert pad is not None and start is not None and end is not None
    return Text(tokenizer, tokenizer.to_str(), size, ordinary, pad, start, end, ids["[MASK]"])


def _train_wordpiece(rows: Sequence[str], vocabulary: int) -> Tokenizer:
    """BERT's WordPiece, lower-cased and without accents.

    The library's own WordPiece trainer numbers the continuing characters in the order of a hash map
    and so gives another vocabulary every time (seen with tokenizers 0.23). It trains BPE in any
    case, and its BPE trainer is deterministic: here it sees every continuing character as one of a
    private plane, which "##" is written for afterwards.
    """
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for row in rows:
        pieces = splitter.pre_tokenize_str(normalizer.normalize_str(row))
        words.update(word for word, _ in pieces)
    # Each character may need two tokens, at the beginning and within a word; the rarest ones must
    # not push out the words. Text in them becomes [UNK].
    letters: Counter[str] = Counter()
    for word, count in words.items():
        for letter in word:
            letters[letter] += count
    kept = sorted(letters, key=lambda c: (-letters[c], c))[: (vocabulary - len(SPECIAL)) // 4]
    inner = {letter: chr(_PLANE + i) for i, letter in enumerate(sorted(kept))}
    outer = {private: letter for letter, private in inner.items()}
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learner.train_from_iterator(
        (
            " ".join([word[0] + "".join(inner[c] for c in word[1:])] * count)
            for word, count in words.items()
            if all(letter in inner for letter in word)
        ),
        trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False
        ),
    )
    pieces = {}
    for piece, number in learner.get_vocab().items():
        plain = "".join(outer.get(letter, letter) for letter in piece)
        pieces["##" + plain if piece[0] in outer else plain] = number
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece()
    return _finish(tokenizer, processors)


def _train_bytes(rows: Sequence[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE: any text can be written, nothing is unknown, case and spaces are kept."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        rows,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            special_tokens=list(SPECIAL),
            show_progress=False,
        ),
    )
    return _finish(tokenizer, processors)


def _finish(tokenizer: Tokenizer, processors: object) -> Tokenizer:
    """Marks the special tokens, and sets how other users of the file put them around a text."""
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[attr-defined]
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", SPECIAL.index("[CLS]")), ("[SEP]", SPECIAL.index("[SEP]"))],
    )
    return tokenizer
