"""Tiny files of every kind that data are read from, written by means other than the reader's."""

import gzip
import io
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from zoo.data import DataSpec, load

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh")
"""Tokens of `letters`: the letter a is 5, b is 6, ..."""


def write(path: Path, content: str | bytes) -> Path:
    """A file and the folders to it; packed if its name ends in .gz."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def idx(array: np.ndarray) -> bytes:
    """Bytes in the idx format."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, split: str, pixels: np.ndarray, labels, ending: str = ".gz") -> None:
    """The two files of a split as MNIST has them."""
    write(folder / f"{split}-images-idx3-ubyte{ending}", idx(pixels))
    write(folder / f"{split}-labels-idx1-ubyte{ending}", idx(np.array(labels)))


def picture(array, form: str = "PNG", mode: str | None = None) -> bytes:
    """Bytes of a picture file, of an array or of (value, (width, height)) with a mode."""
    image = Image.fromarray(array) if isinstance(array, np.ndarray) else Image.new(
        mode, array[1], array[0])  # fmt: skip
    if mode is not None:
        image = image.convert(mode)
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()


def json_lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def letters(words=WORDS) -> str:
    """A tokenizer.json whose tokens are single letters between spaces."""
    vocabulary = {word: place for place, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([word for word in words if word.startswith("[")])
    return tokenizer.to_str()


def refused(match: str, source, **fields) -> None:
    """Loading is a ValueError whose message holds the parts of `match` between "..." in order; a
    row of a .jsonl file is told with its line, the next number because lines count from 1."""
    match = re.sub(r"jsonl: row (\d+)", lambda row: f"{row[0]} (line {int(row[1]) + 1})", match)
    pattern = ".*".join(re.escape(part.strip()) for part in match.split("..."))
    with pytest.raises(ValueError, match=f"(?s){pattern}"):
        load(DataSpec(source=str(source), **{"sequence": 8, "vocabulary": 300, **fields}))


def table(folder: Path, train, validation=({"text": "a", "label": 0},)) -> Path:
    write(folder / "d" / "train.jsonl", json_lines(train))
    write(folder / "d" / "test.jsonl", json_lines(validation))
    return folder / "d"


def rows(*labels) -> list[dict]:
    return [{"text": "a b", "label": label} for label in labels]


def pictures(folder: Path, **content: bytes) -> Path:
    for name, data in content.items():
        write(folder / "p" / name.replace("_", "/") / "1.png", data)
    return folder / "p"
