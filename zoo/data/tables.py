"""Tables of raw columns: from files, from folders of `datasets`, and from the Hub."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data import hub
from zoo.data.files import half_character, nearest, read_bytes, read_text, suffix
from zoo.utils.files import parse_json
from zoo.utils.notes import note

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".txt")
"""Of files that hold a table; all but .parquet may be packed (.gz)."""

Column = Sequence[Any] | np.ndarray
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of raw values, which know where they came from.

    A row is counted from 0 beneath the header, as in pandas, a line of a file from 1, as in
    editors; errors give both where there are lines.

    Attributes:
      columns: name -> one value a row.
      where: the file or split, for errors.
      folder: what relative paths in it start from, and the files that it names must be in.
      names: column -> names of its classes, where the data state them.
      files: (where, rows) of each file that was joined; () for one file.
      rows: (len,) numbers of the rows before any were left out; None: all are there.
      lines: (len,) line of its file in which each row begins, from 1; None: it has no lines.
      cached: further folders that files may be in which it names.
    """

    columns: Mapping[str, Column]
    where: str
    folder: Path | None = None
    names: Mapping[str, list[str]] = field(default_factory=dict)
    files: tuple[tuple[str, int], ...] = ()
    rows: np.ndarray | None = None
    lines: np.ndarray | None = None
    cached: tuple[Path, ...] = ()

    @property
    def roots(self) -> tuple[Path, ...]:
        """Folders that the files must be in which it names."""
        return self.cached if self.folder is None else (self.folder, *self.cached)

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
                f"{', '.join(known)}: set data.{field} to one of them"
            )
        return self.columns[name]

    def texts(self, name: str, field: str, *, missing: bool = False) -> list[str | None]:
        """The values of a column of texts.

        Args:
          name, field: see `column`.
          missing: None where a row has no text; otherwise that is an error.

        Raises:
          ValueError: no such column, or a value that is no text or holds half a character.
        """
        values = self.column(name, field)
        for row, value in enumerate(values):
            if missing and value is None:
                continue
            if not isinstance(value, str):
                raise ValueError(
                    f"{self.place(row)} holds {value!r:.40} in column {name!r}, which is no text; "
                    f"set data.{field} to a column of texts or mend the data"
                )
            if half := half_character(value):
                raise ValueError(f"{self.place(row)}, column {name!r}, {half}")
        return list(values)

    def place(self, row: int) -> str:
        """What an error calls a row: its file, its number in it, and its line where it has one."""
        line = "" if self.lines is None else f" (line {self.lines[row]})"
        number = int(row if self.rows is None else self.rows[row])
        for where, count in self.files:
            if number < count:
                return f"{where}: row {number}{line}"
            number -= count
        return f"{self.where}: row {number}{line}"

    def select(self, index: np.ndarray) -> Table:
        """The rows at `index`, in that order."""
        columns = {
            name: values[index]
            if isinstance(values, np.ndarray)
            else [values[row] for row in index.tolist()]
            for name, values in self.columns.items()
        }
        rows = index if self.rows is None else self.rows[index]
        lines = None if self.lines is None else self.lines[index]
        return replace(self, columns=columns, rows=rows, lines=lines)


def read_table(path: Path, tsv_quotes: bool = False) -> Table:
    """The table in a file. Fields of .csv and .tsv are texts as written: "NA" and "1" are not more.

    Args:
      path: of the file.
      tsv_quotes: see `DataSpec`.

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
        texts = text.removesuffix("\n").split("\n")
        columns, lines = {"text": texts}, range(1, len(texts) + 1)
    elif kind == ".jsonl":
        columns, lines = _json_lines(text, path)
    elif kind == ".csv" or tsv_quotes:
        columns, lines = _columns(_quoted(text, path, "," if kind == ".csv" else "\t"), path)
    else:
        fields = [
            (number, line.split("\t")) for number, line in enumerate(text.split("\n"), 1) if line
        ]
        columns, lines = _columns(fields, path)
        _note_quotes(columns, path)
    return _filled(Table(columns, str(path), path.parent, lines=np.array(lines)))


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
    lines = [table.lines for table in tables]
    numbers = None if any(line is None for line in lines) else np.concatenate(lines)
    return Table(columns, where, first.folder, first.names, files, lines=numbers)


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
    return {
        name: replace(_from_dataset(split, f"{folder} ({name})"), folder=folder)
        for name, split in splits.items()
    }


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
    from huggingface_hub import constants

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
    # Pictures that are not in the tables themselves are in one of these.
    cached = Path(datasets.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE)
    return {
        split: replace(_from_dataset(made[split], f"{name} ({split})"), cached=cached)
        for split in made
    }


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
    except Exception as error:  # of pyarrow, and of `datasets` on what the metadata hold
        raise ValueError(f"{path}: is damaged or no .parquet file: {_line(error)}") from error
    return replace(_from_dataset(dataset, str(path)), folder=path.parent)


def _quoted(text: str, path: Path, delimiter: str) -> list[tuple[int, list[str]]]:
    """(first line, fields) of every row that is not empty, fields taken out of their quotes."""
    # Lines end at newlines alone; str.splitlines would also cut at form feeds and others.
    reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter, strict=True)
    rows, first = [], 1
    limit = csv.field_size_limit(max(len(text), csv.field_size_limit()))
    try:
        for fields in reader:
            if fields:
                rows.append((first, fields))
            first = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{path}: line {reader.line_num} cannot be read: {error}; put a field with commas, "
            'quotes or newlines in "..." and double each quote within'
        ) from error
    finally:
        csv.field_size_limit(limit)
    return rows


def _columns(
    lines: list[tuple[int, list[str]]], path: Path
) -> tuple[dict[str, list[str]], list[int]]:
    """Columns by the names in the first row, and the line of every other row."""
    (_, header), *rows = lines
    if len(set(header)) < len(header):
        raise ValueError(f"{path}: two columns have the same name: {', '.join(header)}")
    for number, fields in rows:
        if len(fields) != len(header):
            remedy = (
                "a field of a .tsv file cannot hold a tab or a newline, unless they are in quotes "
                "and data.tsv_quotes=true says so"
                if suffix(path) == ".tsv"
                else 'quote ("...") a field that holds a comma or a newline'
            )
            raise ValueError(
                f"{path}: line {number} has {len(fields)} fields, but the first line names "
                f"{len(header)} columns ({', '.join(header)}); {remedy}"
            )
    columns = {name: [fields[i] for _, fields in rows] for i, name in enumerate(header)}
    return columns, [number for number, _ in rows]


def _note_quotes(columns: dict[str, list[str]], path: Path) -> None:
    """Says so where a .tsv file looks as pandas writes it, with fields in quotes."""
    for name, fields in columns.items():
        quoted = [field for field in fields if _QUOTED.fullmatch(field)]
        doubled = sum('""' in field[1:-1] for field in quoted)
        if doubled or (len(quoted) == len(fields) > 1):
            seen = textwrap.shorten(quoted[0], 40)
            note(
                f"{path}: column {name!r} has fields in quotes, such as {seen}, and the quotes "
                "are taken for a part of the text, as GLUE's files need it; if pandas or "
                "a spreadsheet wrote the file, set data.tsv_quotes=true"
            )
            return


def _json_lines(text: str, path: Path) -> tuple[dict[str, list[Any]], list[int]]:
    """Columns of all keys, None where a row lacks one; and the line of every row."""
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path}: line {number}")
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number} is not a JSON object with a value a column")
        rows.append(row)
        lines.append(number)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}, lines


def _filled(table: Table) -> Table:
    if not table.columns or len(table) == 0:
        raise ValueError(f"{table.where}: has no rows; give data with at least one")
    return table


def _line(error: Exception) -> str:
    """The first line of an error, or its name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
