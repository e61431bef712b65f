"""Tables of raw columns become splits: checked, and turned into numbers."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
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
from zoo.data.labels import read_labels
from zoo.data.tables import Table
from zoo.data.tokenizer import Vocabulary, load_tokenizer, read_tokenizer, train_tokenizer
from zoo.utils.notes import note
from zoo.utils.paths import expanded

Pair = tuple[str, str]


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

    train: Split = dataclasses.field(repr=False)
    validation: Split = dataclasses.field(repr=False)
    task: str
    classes: int | None
    vocabulary: int | None
    tokenizer: str | None = dataclasses.field(repr=False)
    record: dict[str, Any] = dataclasses.field(repr=False)


def prepared(
    spec: DataSpec,
    train: Table,
    validation: Table,
    *,
    scale: float = 255.0,
    tokenizer: str | None = None,
    class_names: Sequence[str] | None = None,
    inputs: str | None = None,
    channels: int | None = None,
) -> Data:
    """Data out of a table for each split.

    Args:
      spec: which columns, and what to make of them.
      train, validation: the splits.
      scale: the largest value of a pixel.
      tokenizer: text of a tokenizer.json, which goes before the spec's.
      class_names: of a model, in its order, which then decides the numbers of the classes.
      inputs: "text" or "images", what a model reads; None for either.
      channels: of images, see `zoo.data.pictures.stack`.

    Raises:
      ValueError: anything in the tables does not fit; names file, column and row.
    """
    parts = train, validation
    as_images = _check_inputs(spec, train, inputs)
    if spec.task == "mlm":
        return _corpus(spec, parts, tokenizer)
    if spec.task == "unlabelled":
        classes, names, labels = None, None, [None, None]
    else:
        classes, names, labels = read_labels(spec, parts, class_names)
    if as_images:
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
        _check_columns(spec)
        firsts = [part.texts(spec.text_column, "text_column") for part in parts]
        seconds = [pair and part.texts(pair, "text_pair_column") for part in parts]
    vocabulary = _vocabulary(spec, [*firsts[0], *(seconds[0] or [])], tokenizer)
    train, validation = (
        text.tokenised(first, second, label, classes, vocabulary, sequence=spec.sequence,
                       truncate=spec.truncate is not False, place=place)
        for first, second, label, place in zip(firsts, seconds, labels, places, strict=True)
    )  # fmt: skip
    if spec.truncate is None:
        _note_cut(spec, parts[0].where, [train] if parts[0] is parts[1] else [train, validation])
    arrays = [
        a for part in (train, validation) for a in (part.input_ids, part.token_type_ids, part.label)
    ]
    record = {**_record(spec, train, validation), **_words(spec, vocabulary, arrays)}
    return Data(train, validation, spec.task, classes, vocabulary.size, vocabulary.text, record)


def _check_columns(spec: DataSpec) -> None:
    """Raises ValueError where a column would be read as two things, a text and its own label."""
    used = {
        "text_column": spec.text_column,
        "text_pair_column": spec.text_pair_column,
        "label_column": spec.label_column,
    }
    for (one, name), (other, again) in itertools.combinations(used.items(), 2):
        if name == again:
            raise ValueError(
                f"data.{one}={name!r} and data.{other}={again!r} are one column; name two"
            )


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

    Rows without a text are left out.

    Raises:
      ValueError: a column that is not there, a value that is no text, or none that is one.
    """
    texts: dict[str, None] = {}
    for name, field in (
        (spec.text_column, "text_column"),
        (spec.text_pair_column, "text_pair_column"),
    ):
        if name is not None:
            column = table.texts(name, field, missing=True)
            texts.update(dict.fromkeys(filter(_is_text, column)))
    if not texts:
        raise ValueError(f"{table.where}: has no text in column {spec.text_column!r}")
    return list(texts)


def different_pairs(table: Table, first: str, second: str) -> list[Pair]:
    """Every different pair of texts of two columns, in the table's order.

    Rows without two texts are left out.

    Raises:
      ValueError: a column that is not there, a value that is no text, or no row of two texts.
    """
    columns = (
        table.texts(first, "text_column", missing=True),
        table.texts(second, "text_pair_column", missing=True),
    )
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
    chunks = [text.chunks(part.texts(spec.text_column, "text_column")) for part in parts]
    vocabulary = _vocabulary(spec, chunks[0], tokenizer)
    wheres = [part.where for part in parts]
    if wheres[0] == wheres[1]:  # drawn from one table
        wheres = [f"{wheres[0]}, the rows to train on", f"{wheres[0]}, the rows held out"]
    tokens = [
        text.blocks(chunk, vocabulary, spec.sequence, where)
        for chunk, where in zip(chunks, wheres, strict=True)
    ]
    ordinary = vocabulary.ordinary()
    train, validation = (
        text.MaskedText(block, spec.mask_rate, vocabulary.mask, ordinary) for block in tokens
    )
    record = {**_record(spec, train, validation), **_words(spec, vocabulary, tokens)}
    record["mask_rate"] = spec.mask_rate
    return Data(train, validation, "mlm", None, vocabulary.size, vocabulary.text, record)


def _check_no_image_options(spec: DataSpec, where: str) -> None:
    for name, unset in (("image_size", None), ("resample", "bicubic"), ("resize", None),
                        ("mean", None), ("shift", 0), ("flip", False), ("noise", 0)):  # fmt: skip
        if getattr(spec, name) != unset:
            raise ValueError(
                f"data.{name}={getattr(spec, name)} is for images, but {where} has texts; leave it "
                "out"
            )


def _vocabulary(spec: DataSpec, texts: list[str], tokenizer: str | None) -> Vocabulary:
    split = bool(spec.split_special_tokens)
    if tokenizer is not None:
        return read_tokenizer(tokenizer, "of the model", split)
    if spec.tokenizer in TOKENIZERS:
        return train_tokenizer(spec.tokenizer, texts, spec.vocabulary)
    return load_tokenizer(expanded(spec.tokenizer), split)


def _check_inputs(spec: DataSpec, table: Table, inputs: str | None) -> bool:
    """Whether a table is read as images; of both a model's kind goes first.

    Raises:
      ValueError: a model is given what it does not read.
    """
    images, texts = spec.image_column in table.columns, spec.text_column in table.columns
    if inputs is None or (images if inputs == "images" else texts):
        return images if inputs is None else inputs == "images"
    named = "image_column" if inputs == "images" else "text_column"
    raise ValueError(
        f"{table.where}: the model reads {'images' if inputs == 'images' else 'texts'}, and there "
        f"is no column data.{named}={getattr(spec, named)!r}; it has {', '.join(table.columns)}. "
        f"Give data of the model's kind, or set data.{named} to one of them"
    )


def _note_cut(spec: DataSpec, where: str, splits: Sequence[text.Texts]) -> None:
    cut, total = (sum(getattr(s, name) for s in splits) for name in ("cut", "samples"))
    if cut:
        longest = max(split.longest for split in splits)
        note(
            f"{where}: {cut:,} of {total:,} texts have more than data.sequence={spec.sequence} "
            f"tokens and were cut; the longest has {longest:,}. Set data.sequence to keep more, "
            "data.truncate=true to cut without this note, or data.truncate=false for an error"
        )


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
        "split_special_tokens": vocabulary.tokenizer.encode_special_tokens,
        "sha256": _digest(*arrays),
    }


def _digest(*arrays: np.ndarray | None) -> str:
    digest = hashlib.sha256()
    for array in filter(lambda array: array is not None, arrays):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()
