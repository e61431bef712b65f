"""Tables of rows as map-style `datasets`, in memory, and their columns, checked."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data.files import nearest, read_bytes, read_text, suffix

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".txt")


def read_tables(paths: Sequence[Path], quoted: bool | None = None) -> Dataset:
    """The rows of one or more files of the same kind and columns, one after the other.

    Text files give the column "text", a row a line. All fields of .csv and .tsv files are strings,
    as written: no "NA", "null" or number is interpreted. Nothing is cached on disk.

    Args:
      paths: files with a suffix in SUFFIXES, perhaps followed by .gz.
      quoted: whether "..." quotes a field in .csv and .tsv; None: in .csv only.

    Raises:
      ValueError: a file that cannot be read, is empty or damaged, or has other columns than the
        first.
    """
    from datasets import concatenate_datasets

    tables = [_read(path, quoted) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if len(table) == 0:
            raise ValueError(f"{path}: has no rows; give a file with at least one")
        if table.column_names != tables[0].column_names:
            raise ValueError(
                f"{path}: columns {table.column_names}, but {paths[0]} has "
                f"{tables[0].column_names}; name files with the same columns"
            )
    return tables[0] if len(tables) == 1 else concatenate_datasets(tables)


def _read(path: Path, quoted: bool | None) -> Dataset:
    from datasets import Dataset

    kind = suffix(path)
    if kind == ".parquet":
        return _parquet(path)
    text = read_text(path)
    if kind == ".txt":
        return Dataset.from_dict({"text": text.removesuffix("\n").split("\n")})
    if kind == ".jsonl":
        return Dataset.from_dict(_jsonl(text, path))
    if kind in (".csv", ".tsv"):
        return Dataset.from_dict(_separated(text, path, "," if kind == ".csv" else "\t", quoted))
    raise ValueError(f"{path}: {kind or 'no suffix'} is not one of {', '.join(SUFFIXES)}")


def _parquet(path: Path) -> Dataset:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset

    data = read_bytes(path)
    if not data:
        raise ValueError(f"{path}: is empty; give a file with at least one row")
    try:
        # The table's metadata say which columns are images and which are named classes.
        return Dataset(pq.read_table(io.BytesIO(data)))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: is not a whole parquet file: {error}") from error


def _separated(text: str, path: Path, separator: str, quoted: bool | None) -> dict[str, list[str]]:
    if quoted is None:
        quoted = separator == ","
    rows: list[list[str]] = []
    # Lines end at newlines alone: str.splitlines would also cut at form feeds and others.
    reader = csv.reader(
        io.StringIO(text, newline="\n"),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=True,
    )
    try:
        for row in reader:
            if row:  # an empty line
                rows.append(row)
                if len(row) != len(rows[0]):
                    raise ValueError(
                        f"{path}: line {reader.line_num} has {len(row)} fields, but the header has "
                        f"{len(rows[0])}: {rows[0]}; quoted={quoted}, try {not quoted}"
                    )
    except csv.Error as error:
        raise ValueError(
            f"{path}: line {reader.line_num}: {error}; quoted={quoted}, try {not quoted}"
        ) from error
    header = rows[0]
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise ValueError(f"{path}: the header names {sorted(twice)} twice; rename one of them")
    return {name: [row[i] for row in rows[1:]] for i, name in enumerate(header)}


def _jsonl(text: str, path: Path) -> dict[str, list[Any]]:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number} is not an object with a column a key")
        if rows and row.keys() != rows[0].keys():
            raise ValueError(
                f"{path}: line {number} has the keys {sorted(row)}, but the first line has "
                f"{sorted(rows[0])}"
            )
        rows.append(row)
    return {name: [row[name] for row in rows] for name in rows[0]}


def column(table: Dataset, name: str, field: str, where: str) -> list[Any]:
    """The values of a column.

    Args:
      table: rows.
      name: of the column.
      field: of `DataSpec` that names it.
      where: the file, for errors.

    Raises:
      ValueError: no such column; the message lists those there are.
    """
    if name not in table.column_names:
        raise ValueError(
            f"{field}={name!r}: {where} has no such column{nearest(name, table.column_names)}; it "
            f"has {table.column_names}"
        )
    return table[name][:]


def texts(table: Dataset, name: str, field: str, where: str) -> list[str]:
    """A column of strings; arguments as in `column`.

    Raises:
      ValueError: see `column`; or a value is no string.
    """
    values = column(table, name, field, where)
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise ValueError(
                f"{where}: column {name!r} holds {value!r} in row {row} (counted from 0), which is "
                f"not text; give a column of strings as {field}"
            )
    return values


def labels(table: Dataset, name: str, where: str) -> tuple[np.ndarray, int | None]:
    """A column of class numbers, (rows,) int64, and the number of classes where it is declared.

    Raises:
      ValueError: see `column`; or a value is not a whole number.
    """
    from datasets import ClassLabel

    values = column(table, name, "label_column", where)
    for row, value in enumerate(values):
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", value):
            values[row] = int(value)
        elif isinstance(value, bool | int | np.integer):
            values[row] = int(value)
        else:
            raise ValueError(
                f"{where}: column {name!r} holds {value!r} in row {row} (counted from 0), which is "
                "not a whole number; task='classify' needs classes numbered 0, 1, 2, ... as "
                "label_column (scores are not classes)"
            )
    feature = table.features[name]
    return np.array(values, np.int64), (
        feature.num_classes if isinstance(feature, ClassLabel) else None
    )
