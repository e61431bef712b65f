"""Tables of raw columns become splits: checked, and turned into numbers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config.data import TOKENIZERS, DataSpec
from zoo.data import pictures, text
from zoo.data.batches import Split
from zoo.data.images import Images, measure
from zoo.data.tables import Table
from zoo.data.tokenizer import Vocabulary, load_tokenizer, read_tokenizer, train_tokenizer

Pair = tuple[str, str]
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, eq=False)
class Data:
    """A data set ready to be trained on.

    Attributes:
      train, validation: its two parts.
      task: the spec's.
      classes: number of classes; None unless the task is "classify".
      vocabulary: number of token ids; None for images.
      tokenizer: text of a tokenizer.json; None for images.
      record: what identifies the data and their preparation, JSON-able; "sha256" is of the
        prepared arrays of both parts, so that two runs with the same one see the same data.
    """

    train: Split
    validation: Split
    task: str
    classes: int | None
    vocabulary: int | None
    tokenizer: str | None
    record: dict[str, Any]


def prepared(
    spec: DataSpec,
    train: Table,
    validation: Table,
    *,
    scale: float = 255.0,
    tokenizer: str | None = None,
    channels: int | None = None,
) -> Data:
    """Data out of a table for each split.

    Args:
      spec: which columns, and what to make of them.
      train, validation: the splits.
      scale: the largest value of a pixel.
      tokenizer: text of a tokenizer.json, which goes before the spec's.
      channels: of images, see `zoo.data.pictures.stack`.

    Raises:
      ValueError: anything in the tables does not fit; names file, column and row.
    """
    parts = train, validation
    if spec.task == "mlm":
        return _corpus(spec, parts, tokenizer)
    if spec.task == "unlabelled":
        classes, names, labels = None, None, [None, None]
    else:
        classes, names, labels = _labels(spec, parts)
    if spec.image_column in train.columns:
        made = _images(spec, parts, labels, classes, scale, channels)
    elif spec.text_column in train.columns:
        made = _texts_or_pairs(spec, parts, labels, classes, tokenizer)
    else:
        raise ValueError(
            f"{train.where}: has neither data.image_column={spec.image_column!r} nor "
            f"data.text_column={spec.text_column!r}; it has {', '.join(train.columns)}"
        )
    if classes is not None:
        made.record.update(classes=classes, class_names=names)
    return made


def _images(
    spec: DataSpec,
    parts: tuple[Table, Table],
    labels: Sequence[np.ndarray | None],
    classes: int | None,
    scale: float,
    channels: int | None,
) -> Data:
    if spec.text_pair_column is not None:
        raise ValueError(
            f"data.text_pair_column={spec.text_pair_column!r} is for texts, but "
            f"{parts[0].where} has images; leave it out, or set data.image_column to no column"
        )
    pixels, more_pixels = (
        pictures.stack(part.column(spec.image_column, "image_column"), spec.image_size, part.place,
                       part.folder, spec.resample, spec.resize, channels=channels,
                       roots=None if spec.pictures_anywhere else part.roots)
        for part in parts
    )  # fmt: skip
    if pixels.shape[1:] != more_pixels.shape[1:]:
        raise ValueError(
            f"{parts[1].where}: images of (height, width, channels) {more_pixels.shape[1:]}, but "
            f"{pixels.shape[1:]} in {parts[0].where}; set data.image_size to resize all, and save "
            "all grey or all in colour"
        )
    mean, std = (spec.mean, spec.std) if spec.mean is not None else measure(pixels, scale)
    train = Images(pixels, labels[0], classes, mean, std, scale, spec.shift, spec.flip, spec.noise)
    validation = Images(more_pixels, labels[1], classes, mean, std, scale)
    record = {
        **_record(spec, train, validation),
        "image": list(train.shape),
        "mean": list(mean),
        "std": list(std),
        "sha256": _digest(pixels, labels[0], more_pixels, labels[1]),
    }
    if spec.image_size is not None:
        record["size"] = spec.image_size
    return Data(train, validation, spec.task, classes, None, None, record)


def _texts_or_pairs(
    spec: DataSpec,
    parts: tuple[Table, Table],
    labels: Sequence[np.ndarray | None],
    classes: int | None,
    tokenizer: str | None,
) -> Data:
    _check_no_image_options(spec, parts[0].where)
    pair = spec.text_pair_column
    places: list[Callable[[int], str]] = [part.place for part in parts]
    if labels[0] is None:
        if spec.pairs:
            assert pair is not None  # the spec says so
            firsts = _pairs_apart([different_pairs(part, spec.text_column, pair) for part in parts])
            places = [partial(_of_pair, part.where) for part in parts]
        else:
            firsts = _texts_apart([different_texts(part, spec) for part in parts])
            places = [partial("{}: different text {}".format, part.where) for part in parts]
        seconds: list[list[str] | None] = [None, None]
    else:
        firsts = [_texts(part, spec.text_column, "text_column") for part in parts]
        seconds = [pair and _texts(part, pair, "text_pair_column") for part in parts]
    vocabulary = _vocabulary(spec, [*firsts[0], *(seconds[0] or [])], tokenizer)
    train, validation = (
        text.tokenised(first, second, label, classes, vocabulary, sequence=spec.sequence,
                       truncate=spec.truncate, place=place)
        for first, second, label, place in zip(firsts, seconds, labels, places, strict=True)
    )  # fmt: skip
    arrays = [
        a for part in (train, validation) for a in (part.input_ids, part.token_type_ids, part.label)
    ]
    record = {**_record(spec, train, validation), **_words(spec, vocabulary, arrays)}
    return Data(train, validation, spec.task, classes, vocabulary.size, vocabulary.text, record)


def _texts_apart(parts: list[list[str]]) -> list[list[str]]:
    """Train, and validation without what is in train; where that is all, nothing was meant to be
    held out, and all stay."""
    train, held_out = parts
    known = set(train)
    return [train, [text for text in held_out if text not in known] or held_out]


def _pairs_apart(parts: list[list[Pair]]) -> list[list[str]]:
    """Train, and validation without the pairs that share a text with train, unless both parts are
    the same. Texts one after the other, pair by pair.

    Raises:
      ValueError: nothing would be left.
    """
    train, held_out = parts
    if held_out != train:
        known = {text for pair in train for text in pair}
        held_out = [pair for pair in held_out if known.isdisjoint(pair)]
    if not held_out:
        raise ValueError(
            "data.pairs=True: every held-out pair has a text that is trained on; set "
            "data.validation to other texts, or leave out data.pairs and distill.similarity"
        )
    return [[text for pair in part for text in pair] for part in (train, held_out)]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _of_pair(where: str, row: int) -> str:
    return f"{where}: different pair {row // 2}, {('first', 'second')[row % 2]} text"


def different_texts(table: Table, spec: DataSpec) -> list[str]:
    """Every different text of a table, in its order, of one column or of both of a pair.

    Raises:
      ValueError: a column that is not there, or none that holds a text.
    """
    texts: dict[str, None] = {}
    for name, field in (
        (spec.text_column, "text_column"),
        (spec.text_pair_column, "text_pair_column"),
    ):
        if name is not None:
            column = table.column(name, field)
            texts.update(dict.fromkeys(filter(_is_text, column)))
    if not texts:
        raise ValueError(f"{table.where}: has no text in column {spec.text_column!r}")
    return list(texts)


def different_pairs(table: Table, first: str, second: str) -> list[Pair]:
    """Every different pair of texts of two columns, in the table's order.

    Rows without two texts are left out.

    Raises:
      ValueError: a column that is not there, or no row that holds two texts.
    """
    columns = table.column(first, "text_column"), table.column(second, "text_pair_column")
    pairs = dict.fromkeys(pair for pair in zip(*columns, strict=True) if all(map(_is_text, pair)))
    if not pairs:
        raise ValueError(
            f"{table.where}: no row has two texts, in columns {first!r} and {second!r}; give rows "
            "that do, or leave out data.pairs and distill.similarity"
        )
    return list(pairs)


def _corpus(spec: DataSpec, parts: tuple[Table, Table], tokenizer: str | None) -> Data:
    _check_no_image_options(spec, parts[0].where)
    if spec.text_pair_column is not None:
        raise ValueError(
            f"data.text_pair_column={spec.text_pair_column!r} is for data.task='classify'; leave "
            "it out for 'mlm'"
        )
    chunks = [text.chunks(_texts(part, spec.text_column, "text_column")) for part in parts]
    vocabulary = _vocabulary(spec, chunks[0], tokenizer)
    tokens = [
        text.blocks(chunk, vocabulary, spec.sequence, part.where)
        for chunk, part in zip(chunks, parts, strict=True)
    ]
    ordinary = vocabulary.ordinary()
    train, validation = (
        text.MaskedText(block, spec.mask_rate, vocabulary.mask, ordinary) for block in tokens
    )
    record = {**_record(spec, train, validation), **_words(spec, vocabulary, tokens)}
    record["mask_rate"] = spec.mask_rate
    return Data(train, validation, "mlm", None, vocabulary.size, vocabulary.text, record)


def _labels(
    spec: DataSpec, parts: tuple[Table, Table]
) -> tuple[int, list[str] | None, list[np.ndarray]]:
    """(number of classes, their names, labels of train and of validation as int32).

    Names are those that the data state, or the sorted texts of train's labels unless all are
    written numbers.
    """
    columns = [part.column(spec.label_column, "label_column") for part in parts]
    names, others = (part.names.get(spec.label_column) for part in parts)
    if names and others and names != others:
        raise ValueError(
            f"{parts[1].where}: column {spec.label_column!r} has the classes {', '.join(others)}, "
            f"but {', '.join(names)} in {parts[0].where}; save both with the same, in one order"
        )
    if names is None and _are_names(columns[0]):
        names = sorted({value for value in columns[0] if isinstance(value, str) and value.strip()})
        columns = [
            _numbered(values, names, part, spec.label_column)
            for values, part in zip(columns, parts, strict=True)
        ]
    made = [
        _whole(values, part, spec.label_column) for values, part in zip(columns, parts, strict=True)
    ]
    classes = spec.classes or (len(names) if names else int(made[0].max()) + 1)
    for part, labels in zip(parts, made, strict=True):
        wrong = np.flatnonzero((labels < 0) | (labels >= classes))
        if wrong.size:
            raise ValueError(
                f"{part.place(wrong[0])} has label {labels[wrong[0]]}, which is not in "
                f"[0, classes={classes}); {wrong.size} rows are out of range. Set data.classes or "
                "mend the data"
            )
    if classes < 2:
        raise ValueError(
            f"{parts[0].where}: column {spec.label_column!r} holds one class alone; give data of "
            "at least two, or set data.classes"
        )
    return classes, names, made


def _are_names(values: Sequence[Any] | np.ndarray) -> bool:
    if isinstance(values, np.ndarray):
        return False
    words = (value.strip() for value in values if isinstance(value, str))
    return any(word and not _NUMBER.fullmatch(word) for word in words)


def _numbered(values: Sequence[Any], names: list[str], part: Table, column: str) -> list[int]:
    number = {name: place for place, name in enumerate(names)}
    for row, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(
                f"{part.place(row)} holds {value!r} in column {column!r}, where others hold the "
                "name of a class; mend the data"
            )
        if value not in number:
            raise ValueError(
                f"{part.place(row)} has class {value!r}, which is none of train's: "
                f"{', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
            )
    return [number[value] for value in values]


def _whole(values: Sequence[Any] | np.ndarray, part: Table, name: str) -> np.ndarray:
    """int32 labels out of whole numbers, written ones ("3", "3.0") too."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        return values.astype(np.int32)
    made = np.empty(len(values), np.int32)
    for row, value in enumerate(values):
        number = value
        if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
            number = float(value)
        whole = isinstance(number, int | float | np.number) and number == number // 1
        if not (whole and abs(number) < 2**31):
            raise ValueError(
                f"{part.place(row)} holds {value!r} in column {name!r}, which is no class; "
                "data.task='classify' needs whole numbers from 0 on, or names"
            )
        made[row] = number
    return made


def _texts(part: Table, name: str, field: str) -> list[str]:
    values = part.column(name, field)
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise ValueError(
                f"{part.place(row)} holds {value!r:.40} in column {name!r}, which is no text; set "
                f"data.{field} to a column of texts or mend the data"
            )
    return list(values)


def _check_no_image_options(spec: DataSpec, where: str) -> None:
    for name, unset in (("image_size", None), ("resample", "bicubic"), ("resize", None),
                        ("mean", None), ("shift", 0), ("flip", False), ("noise", 0)):  # fmt: skip
        if getattr(spec, name) != unset:
            raise ValueError(
                f"data.{name}={getattr(spec, name)} is for images, but {where} has texts; leave it "
                "out"
            )


def _vocabulary(spec: DataSpec, texts: list[str], tokenizer: str | None) -> Vocabulary:
    if tokenizer is not None:
        return read_tokenizer(tokenizer, "of the model")
    if spec.tokenizer in TOKENIZERS:
        return train_tokenizer(spec.tokenizer, texts, spec.vocabulary)
    return load_tokenizer(Path(spec.tokenizer).expanduser())


def _record(spec: DataSpec, train: Split, validation: Split) -> dict[str, Any]:
    return {
        "task": spec.task,
        # The name alone: a path says where a file was on one machine.
        "source": Path(spec.source).name,
        "samples": {"train": train.samples, "validation": validation.samples},
    }


def _words(spec: DataSpec, vocabulary: Vocabulary, arrays: list[np.ndarray]) -> dict[str, Any]:
    return {
        "sequence": spec.sequence,
        "vocabulary": vocabulary.size,
        "tokenizer_kind": Path(vocabulary.origin).name,
        "tokenizer_sha256": vocabulary.sha256,
        "sha256": _digest(*arrays),
    }


def _digest(*arrays: np.ndarray | None) -> str:
    digest = hashlib.sha256()
    for array in filter(lambda array: array is not None, arrays):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()
