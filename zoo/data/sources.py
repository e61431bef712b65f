"""Where data are: an embedded name, a path or a name on the Hub becomes a table for each split."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.config.data import EMBEDDED, DataSpec
from zoo.data import embedded, pictures, prepare, tables
from zoo.data.files import nearest, stem, suffix
from zoo.data.idx import read_idx_pair
from zoo.data.labels import only_of_a_class
from zoo.data.order import HELD_OUT, epoch_order
from zoo.data.prepare import Data
from zoo.data.tables import Table
from zoo.utils.notes import note
from zoo.utils.paths import expanded

VALIDATION_NAMES = ("validation", "valid", "val", "dev", "test", "t10k")
"""Splits that validate where none is named: the first of them that is there."""
_IDX_IMAGES = re.compile(r"(?P<split>.+)-images(?P<mark>[-.])idx3-ubyte(\.gz)?")


class Source(NamedTuple):
    """Splits by name, read when they are asked for.

    Attributes:
      known: what there is, for errors.
      read: the table of a split; None if there is no such split.
    """

    known: list[str]
    read: Callable[[str], Table | None]


def load(
    spec: DataSpec,
    tokenizer: str | None = None,
    *,
    whole: bool = False,
    class_names: Sequence[str] | None = None,
    inputs: str | None = None,
    channels: int | None = None,
) -> Data:
    """Loads and prepares a data set.

    Everything that can be wrong with the data is an error here, before anything is trained. An
    embedded name goes before a file of that name; write "./digits" for the file.

    Args:
      spec: what, and how.
      tokenizer: text of a tokenizer.json to use whatever the spec says, such as a trained model's.
      whole: where there is no validation split, hold nothing out: all is for both. To evaluate.
      class_names: of a model, in its order, which then decides the numbers of the classes.
      inputs: "text" or "images", what a model reads; None for either.
      channels: of a model for images: grey ones are made what a model for colour takes.

    Raises:
      ValueError: the source is not there, or anything in it does not fit; names file, column, row.
    """
    model = {
        "tokenizer": tokenizer, "class_names": class_names, "inputs": inputs, "channels": channels,
    }  # fmt: skip
    if spec.source in EMBEDDED:
        return _load_embedded(spec, model)
    train, validation = _parts(spec, _find(spec, expanded(spec.source)), whole)
    return prepare.prepared(spec, train, validation, **model)


def read_rows(spec: DataSpec, validation: bool, *, whole: bool = False) -> Table:
    """The raw rows of a source: all of a file, or one of the two splits.

    Args:
      spec: where; of the rest only the names of splits are read.
      validation: which split.
      whole: where there is no validation split, hold nothing out of train.

    Raises:
      ValueError: the source, or the split, is not there or damaged.
    """
    if spec.source in EMBEDDED:
        return _embedded(spec)[0][validation]
    path = expanded(spec.source)
    if path.is_file():
        return tables.read_table(path, spec.tsv_quotes)
    return _parts(spec, _find(spec, path), whole)[validation]


def _load_embedded(spec: DataSpec, model: Mapping[str, Any]) -> Data:
    name, task = spec.source, EMBEDDED[spec.source]
    if spec.subset is not None:
        raise ValueError(
            f"data.subset={spec.subset!r} is for data sets on the Hub, but data.source={name!r} is "
            "in every installation; leave it out"
        )
    if spec.task not in (task, "unlabelled"):
        raise ValueError(
            f"data.source={name!r} is data for data.task={task!r} or 'unlabelled', got "
            f"{spec.task!r}"
        )
    parts, identity = _embedded(spec)
    scale = {"scale": embedded.DIGITS_LARGEST} if name == "digits" else {}
    data = prepare.prepared(spec, *parts, **scale, **model)
    data.record.update(identity)
    return data


def _embedded(spec: DataSpec) -> tuple[tuple[Table, Table], dict[str, str]]:
    """The rows to train on and to validate with, in the columns that the spec names, and what
    identifies them where that is more than their name."""
    if spec.source == "digits":
        first, first_labels, second, second_labels = embedded.digits()
        columns = (spec.image_column, spec.label_column)
        train, validation = (
            dict(zip(columns, arrays, strict=True))
            for arrays in ((first, first_labels), (second, second_labels))
        )
        identity = {}
    else:
        texts, more_texts, identity = embedded.topics()
        train, validation = {spec.text_column: texts}, {spec.text_column: more_texts}
    both = Table(train, f"{spec.source} (train)"), Table(validation, f"{spec.source} (validation)")
    return both, identity


def _find(spec: DataSpec, path: Path) -> Source:
    """The splits of a path, or of a data set on the Hub."""
    if spec.subset is not None and path.exists():
        raise ValueError(
            f"data.subset={spec.subset!r} is for data sets on the Hub, but "
            f"data.source={spec.source!r} is a path here; leave it out"
        )
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(
            f"data.source={spec.source!r} is a device or pipe; give a file or a folder"
        )
    if path.is_file():
        return _by_name({spec.train: partial(tables.read_table, path, spec.tsv_quotes)})
    if path.is_dir():
        return _find_in_folder(spec, path)
    # A name on the Hub is NAME or OWNER/NAME; what cannot be one was meant as a path.
    there = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    inside = len(path.parts) > 1 and path.parent.is_dir()
    if path.is_absolute() or inside or len(path.parts) > 2 or suffix(path) in tables.SUFFIXES:
        raise ValueError(f"data.source={spec.source!r} does not exist{nearest(path.name, there)}")
    splits = tables.read_hub(spec.source, spec.subset, [*EMBEDDED, *there])
    return Source(list(splits), splits.get)


def _find_in_folder(spec: DataSpec, folder: Path) -> Source:
    """The splits of a folder, in the first of the layouts that it has the signs of."""
    if (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file():
        splits = tables.read_saved(folder)
        return Source(list(splits), splits.get)
    entries = sorted(folder.iterdir())
    if found := _idx_files(entries):
        return _by_name({split: partial(_idx_table, spec, *pair) for split, pair in found.items()})
    with_classes = [entry for entry in entries if entry.is_dir() and pictures.has_classes(entry)]
    if folder / spec.train in with_classes:
        flat = [entry.name for entry in entries if pictures.is_flat(entry)]
        if flat:
            note(
                f"{folder}: {', '.join(flat)} {'hold' if len(flat) > 1 else 'holds'} pictures, but "
                "in no folder for each class, and so no labels: passed over"
            )
        return _by_name(
            {entry.name: partial(_picture_table, spec, entry) for entry in with_classes}
        )
    files = [entry for entry in entries if entry.is_file() and suffix(entry) in tables.SUFFIXES]
    if not _matching(files, spec.train) and pictures.has_classes(folder):
        return _by_name({spec.train: partial(_picture_table, spec, folder)})
    if files:
        return Source([file.name for file in files], partial(_files_table, spec, files))
    if with_classes:
        return Source([entry.name for entry in with_classes], lambda name: None)
    raise ValueError(
        f"data.source={spec.source!r}: the folder holds no {', '.join(tables.SUFFIXES)} file, "
        "no idx files and no folder of pictures for each class, directly in it or in a folder "
        f"data.train={spec.train!r}; pictures end in {', '.join(pictures.SUFFIXES)}. It holds "
        f"{', '.join(entry.name for entry in entries[:5]) or 'nothing'}"
        f"{', ...' if len(entries) > 5 else ''}"
    )


def _by_name(readers: dict[str, Callable[[], Table]]) -> Source:
    return Source(list(readers), lambda name: readers[name]() if name in readers else None)


def _idx_files(entries: list[Path]) -> dict[str, tuple[Path, Path]]:
    """Split -> (images, labels) of files named like MNIST's, plain rather than packed."""
    names = {entry.name: entry for entry in entries}
    found: dict[str, tuple[Path, Path]] = {}
    for name, images in names.items():
        match = _IDX_IMAGES.fullmatch(name)
        if match is None or match["split"] in found:
            continue
        labels = f"{match['split']}-labels{match['mark']}idx1-ubyte"
        if labels not in names and f"{labels}.gz" not in names:
            raise ValueError(f"{images}: has no labels beside it, {labels} or {labels}.gz")
        found[match["split"]] = images, names.get(labels) or names[f"{labels}.gz"]
    return found


def _idx_table(spec: DataSpec, images: Path, labels: Path) -> Table:
    pixels, numbers = read_idx_pair(images, labels)
    return Table(
        {spec.image_column: pixels, spec.label_column: numbers}, f"{images} and its labels"
    )


def _picture_table(spec: DataSpec, folder: Path) -> Table:
    """The pictures in folder/CLASS/."""
    files, classes = zip(*pictures.class_folders(folder), strict=True)
    return Table({spec.image_column: files, spec.label_column: classes}, str(folder))


def _matching(files: list[Path], split: str) -> list[Path]:
    """Files of a split: called so, or matched by a glob pattern, with or without their suffix; or
    one of several parts, named as on the Hub (train-00000-of-00002.parquet)."""
    patterns = (split, f"{split}-[0-9]*-of-[0-9]*")
    return [
        file
        for file in files
        if any(fnmatch.fnmatchcase(name, p) for name in (file.name, stem(file)) for p in patterns)
    ]


def _files_table(spec: DataSpec, files: list[Path], split: str) -> Table | None:
    found = _matching(files, split)
    both = [file for file in found if split != spec.train and file in _matching(files, spec.train)]
    if both:
        raise ValueError(
            f"{both[0]}: belongs to data.train={spec.train!r} and to the validation split "
            f"{split!r} alike; set data.train and data.validation to names that share no file"
        )
    return (
        tables.joined([tables.read_table(file, spec.tsv_quotes) for file in found])
        if found
        else None
    )


def _parts(spec: DataSpec, source: Source, whole: bool = False) -> tuple[Table, Table]:
    """Train and validation; without a validation split a part of train is held out, or if `whole`
    train is both."""

    def read(field: str, name: str) -> Table:
        table = source.read(name)
        if table is None:
            raise ValueError(
                f"data.source={spec.source!r}: no split data.{field}={name!r}"
                f"{nearest(name, source.known)}; it has {', '.join(source.known)}"
            )
        return table

    train = read("train", spec.train)
    if spec.validation is not None:
        return train, read("validation", spec.validation)
    for name in VALIDATION_NAMES:
        if name != spec.train and (table := source.read(name)) is not None:
            return train, table
    return (train, train) if whole else _held_out(spec, train)


def _held_out(spec: DataSpec, train: Table) -> tuple[Table, Table]:
    """A corpus gives up its end, so that it stays whole; labelled samples are drawn at random, but
    the last rows of a class stay to be trained on."""
    if len(train) < 2:
        raise ValueError(
            f"{train.where}: {len(train)} rows cannot be split in train and validation; give more, "
            "or a validation split of its own"
        )
    count = min(max(1, round(spec.held_out * len(train))), len(train) - 1)
    if spec.task == "mlm":
        order = np.arange(len(train))[::-1]
    else:
        order = epoch_order(len(train), *HELD_OUT)
    held, kept = order[:count], order[count:]
    if spec.task == "classify" and spec.label_column in train.columns:
        only = only_of_a_class(spec, train, kept, held)
        held, kept = held[~only], np.concatenate([kept, held[only]])
        if not held.size:
            raise ValueError(
                f"{train.where}: the {count} rows that data.held_out={spec.held_out} draws for "
                "validation are the only ones of their classes; give more rows of each class, or a "
                "validation split of its own"
            )
    return train.select(np.sort(kept)), train.select(np.sort(held))
