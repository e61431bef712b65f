"""Tables of raw columns: from files, from folders of `datasets`, and from the Hub."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data import hub
from zoo.data.files import nearest, read_bytes, read_text, suffix

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".txt")
"""Of files that hold a table; all but .parquet may be packed (.gz)."""

Column = Sequence[Any] | np.ndarray


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of raw values, which know where they came from.

    Attributes:
      columns: name -> one value a row.
      where: the file or split, for errors.
      folder: what relative paths in it start from.
      names: column -> names of its classes, where the data state them.
      files: (where, rows) of each file that was joined; () for one file.
      rows: (len,) numbers of the rows before any were left out; None: all are there.
    """

    columns: Mapping[str, Column]
    where: str
    folder: Path | None = None
    names: Mapping[str, list[str]] = field(default_factory=dict)
    files: tuple[tuple[str, int], ...] = ()
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def column(self, name: str, field: str) -> Column:
        """The values of a column.

        Args:
          name: of the column.
          field: of `DataSpec` that gave the name, for the error.

        Raises:
          ValueError: no such column; the message lists those there are.
        """
        if name not in self.columns:
            known = list(self.columns)
            raise ValueError(
                f"{self.where}: no column data.{field}={name!r}{nearest(name, known)}; it has "
                f"{', '.join(known)}"
            )
        return self.columns[name]

    def place(self, row: int) -> str:
        """What an error calls a row: its file, and its number (from 0) in that file."""
        number = int(row if self.rows is None else self.rows[row])
        for where, count in self.files:
            if number < count:
                return f"{where}: row {number}"
            number -= count
        return f"{self.where}: row {number}"

    def select(self, index: np.ndarray) -> Table:
        """The rows at `index`, in that order."""
        columns = {
            name: values[index]
            if isinstance(values, np.ndarray)
            else [values[row] for row in index.tolist()]
            for name, values in self.columns.items()
        }
        return replace(self, columns=columns, rows=index if self.rows is None else self.rows[index])


def read_table(path: Path) -> Table:
    """The table in a file. Fields of .csv and .tsv are texts as written: "NA" and "1" are not more.

    Raises:
      ValueError: the file is of another kind, damaged, or has no rows.
    """
    kind = suffix(path)
    if kind == ".parquet":
        return _parquet(path)
    if kind not in SUFFIXES:
        raise ValueError(f"{path}: its suffix is not one of {', '.join(SUFFIXES)}")
    text = read_text(path)
    if kind == ".txt":
        columns: dict[str, list[Any]] = {"text": text.removesuffix("\n").split("\n")}
    elif kind == ".jsonl":
        columns = _json_lines(text, path)
    else:
        columns = _columns(_comma_separated(text, path) if kind == ".csv" else [
            (number, line.split("\t")) for number, line in enumerate(text.split("\n"), 1) if line
        ], path)  # fmt: skip
    return _filled(Table(columns, str(path), path.parent))


def joined(tables: Sequence[Table]) -> Table:
    """The rows of several files, one after the other.

    Raises:
      ValueError: they differ in columns, or in the names of classes.
    """
    first, *others = tables
    if not others:
        return first
    for table in others:
        if set(table.columns) != set(first.columns):
            raise ValueError(
                f"{table.where}: has columns {', '.join(table.columns)}, but {first.where} has "
                f"{', '.join(first.columns)}; join files with the same columns"
            )
        if dict(table.names) != dict(first.names):
            raise ValueError(
                f"{table.where}: names its classes {dict(table.names)}, but {first.where} "
                f"{dict(first.names)}; join files with the same, in one order"
            )
    columns = {
        name: [value for table in tables for value in table.columns[name]] for name in first.columns
    }
    files = tuple((table.where, len(table)) for table in tables)
    where = f"{first.where} and {len(others)} more"
    return Table(columns, where, first.folder, first.names, files)


def read_saved(folder: Path) -> dict[str, Table]:
    """The splits in a folder that `datasets` saved; a single one is called "train".

    Raises:
      ValueError: the folder cannot be read.
    """
    import datasets

    try:
        made = datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever is in the folder
        raise ValueError(
            f"{folder}: looks like a folder of datasets.save_to_disk, but cannot be read: "
            f"{_line(error)}"
        ) from error
    splits = made if isinstance(made, dict) else {"train": made}
    return {name: _from_dataset(split, f"{folder} ({name})") for name, split in splits.items()}


def read_hub(name: str, subset: str | None, near: Sequence[str]) -> dict[str, Table]:
    """The splits of a data set on the Hugging Face Hub, or in the cache of `datasets`.

    Nothing that its author wrote is executed: `datasets` has no loading scripts any more.

    Args:
      name: of the data set.
      subset: of a data set in several, such as "mrpc" of "nyu-mll/glue"; None for its only one.
      near: what else the name could have meant.

    Raises:
      ValueError: it is not there, or there is no network.
    """
    import datasets

    with hub.offline_where_unreachable(name) as reason:
        try:
            made = datasets.load_dataset(name, subset)
        except Exception as error:  # from a wrong name to a proxy that answers in HTML
            why = f"{reason}, and in its cache it is not whole" if reason else _line(error)
            raise ValueError(
                f"data.source={name!r} is no embedded data set and no path here, and from the Hub "
                f"it could not be loaded: {why}. Where it has several subsets, name one in "
                "data.subset. Without a network give the path of a file or folder: "
                f"--set data.source=FOLDER{nearest(name, list(near))}"
            ) from error
    return {split: _from_dataset(made[split], f"{name} ({split})") for split in made}


def _from_dataset(dataset: Dataset, where: str) -> Table:
    from datasets import ClassLabel, Image

    dataset = dataset.with_format(None)
    for name, feature in dataset.features.items():
        if isinstance(feature, Image):  # as encoded bytes, which `pictures` decodes
            dataset = dataset.cast_column(name, Image(decode=False))
    names = {
        name: list(feature.names)
        for name, feature in dataset.features.items()
        if isinstance(feature, ClassLabel)
    }
    columns = {name: dataset[name][:] for name in dataset.column_names}
    return _filled(Table(columns, where, names=names))


def _parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet
    from datasets import Dataset

    try:
        # The file's metadata say which columns are images and which are named classes.
        dataset = Dataset(pyarrow.parquet.read_table(io.BytesIO(read_bytes(path))))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: is damaged or no .parquet file: {_line(error)}") from error
    return replace(_from_dataset(dataset, str(path)), folder=path.parent)


def _comma_separated(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """(line, fields) of every row that is not empty."""
    # Lines end at newlines alone; str.splitlines would also cut at form feeds and others.
    reader = csv.reader(io.StringIO(text, newline="\n"), strict=True)
    limit = csv.field_size_limit(max(len(text), csv.field_size_limit()))
    try:
        return [(reader.line_num, fields) for fields in reader if fields]
    except csv.Error as error:
        raise ValueError(
            f"{path}: line {reader.line_num} cannot be read: {error}; put a field with commas, "
            'quotes or newlines in "..." and double each quote within'
        ) from error
    finally:
        csv.field_size_limit(limit)


def _columns(lines: list[tuple[int, list[str]]], path: Path) -> dict[str, list[str]]:
    (_, header), *rows = lines
    if len(set(header)) < len(header):
        raise ValueError(f"{path}: two columns have the same name: {', '.join(header)}")
    for number, fields in rows:
        if len(fields) != len(header):
            remedy = (
                "a field of a .tsv file cannot hold a tab or a newline"
                if suffix(path) == ".tsv"
                else 'quote ("...") a field that holds a comma or a newline'
            )
            raise ValueError(
                f"{path}: line {number} has {len(fields)} fields, but the first line names "
                f"{len(header)} columns ({', '.join(header)}); {remedy}"
            )
    return {name: [fields[i] for _, fields in rows] for i, name in enumerate(header)}


def _json_lines(text: str, path: Path) -> dict[str, list[Any]]:
    """Columns of all keys; a row that lacks one holds None there."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number} is not a JSON object with a value a column")
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _filled(table: Table) -> Table:
    if not table.columns or len(table) == 0:
        raise ValueError(f"{table.where}: has no rows; give data with at least one")
    return table


def _line(error: Exception) -> str:
    """The first line of an error, or its name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
