"""Labels of tables as numbers of classes: whole numbers as they are, and names by a list of them.

Spaces around a name, of any width, and the two Unicode spellings of an accent are no part of it;
case is.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.config.data import DataSpec
from zoo.data.files import nearest
from zoo.data.tables import Column, Table

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
"""What looks like a number."""
_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.0*)?")
"""The ones of them that are the number of a class, as programs write it: "01" and "1" are two
codes that would be one class, "2e3" would make 2,001."""
NOTHING = ("nan", "none", "null", "na", "n/a", "<na>", "-", "?")
"""What files hold, in any case, where a label is missing."""
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
FEW = 10
"""Classes that may be without a row where most are: a number that is no class makes more."""


class Labels(NamedTuple):
    """What the labels of a data set are.

    Attributes:
      classes: how many there are.
      names: of the classes, or None where they are numbers.
      parts: int32 (rows,) in [0, classes) of train and of validation.
    """

    classes: int
    names: list[str] | None
    parts: list[np.ndarray]


def read_labels(
    spec: DataSpec, parts: tuple[Table, Table], known: Sequence[str] | None = None
) -> Labels:
    """The labels of both parts.

    Args:
      spec: which column, and how many classes where it says so.
      parts: train and validation.
      known: names of a model's classes, in its order, which then decides the numbers. None: the
        names that the data state, or train's in sorted order unless all are written numbers.

    Raises:
      ValueError: a value that is no class, or none of those that are known; names file and row.
    """
    columns = [part.column(spec.label_column, "label_column") for part in parts]
    stated, others = (part.names.get(spec.label_column) for part in parts)
    if stated and others and stated != others:
        raise ValueError(
            f"{parts[1].where}: column {spec.label_column!r} has the classes {', '.join(others)}, "
            f"but {', '.join(stated)} in {parts[0].where}; save both with the same, in one order"
        )
    names, whose, written = stated, "the data's", any(map(_are_names, columns))
    for column, part in zip(columns, parts, strict=True):
        _check_not_missing(column, part, spec.label_column)
    if known is not None:
        names, whose = _by_name(known), "the model's"
        if stated and stated != names:
            columns = [
                _named(column, stated, part, spec)
                for column, part in zip(columns, parts, strict=True)
            ]
            written = True
        elif not stated and not written:
            _check_not_ambiguous(names, parts[0].where)
    elif names is None and _are_names(columns[0]):
        names, whose = sorted({_plain(value) for value in columns[0] if _is_word(value)}), "train's"
    if names is not None and written:
        columns = [
            _numbered(column, names, whose, part, spec.label_column)
            for column, part in zip(columns, parts, strict=True)
        ]
    made = [
        _whole(column, part, spec.label_column) for column, part in zip(columns, parts, strict=True)
    ]
    classes = spec.classes or (len(names) if names else int(made[0].max()) + 1)
    _check_range(parts, made, classes, "Set data.classes or mend" if known is None else "Mend")
    if classes < 2:
        raise ValueError(
            f"{parts[0].where}: column {spec.label_column!r} holds one class alone; give data of "
            "at least two, or set data.classes"
        )
    if spec.classes is None and names is None:
        _check_gaps(made, classes, parts[0].where, spec.label_column)
    return Labels(classes, names, made)


def only_of_a_class(spec: DataSpec, table: Table, kept: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Which of the rows that are held out training cannot do without: the first of each class whose
    name no row that is kept has, or of numbers the first with the largest.

    Args:
      spec: which column the labels are in.
      table: the rows, whose labels may yet be none.
      kept, held: numbers of rows.

    Returns:
      (held,) bool.
    """
    values, only = table.columns[spec.label_column], np.zeros(len(held), bool)
    if spec.label_column in table.names:  # it says itself which classes there are
        return only
    if _are_names(values):
        known = {_plain(str(values[row])) for row in kept.tolist()}
        for place, row in enumerate(held.tolist()):
            only[place] = _plain(str(values[row])) not in known
            known.add(_plain(str(values[row])))
    elif spec.classes is None:
        numbers = np.array([_number(value) for value in values])
        largest = numbers[held].max()
        if largest > numbers[kept].max():
            only[numbers[held].tolist().index(largest)] = True
    return only


def _number(value: Any) -> float:
    """A label as a number; -1 of what is none, which is told when labels are read."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return -1.0
    return number if math.isfinite(number) else -1.0


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip().strip(_INVISIBLE).strip())


def _are_names(values: Column) -> bool:
    """Whether any value is a text that does not look like a number."""
    if isinstance(values, np.ndarray):
        return False
    return any(_is_word(value) and not _NUMBER.fullmatch(value.strip()) for value in values)


def _check_not_missing(values: Column, part: Table, column: str) -> None:
    """Raises ValueError where a word for nothing stands among numbers: it would make all names."""
    if isinstance(values, np.ndarray):
        return
    words = [
        row
        for row, value in enumerate(values)
        if _is_word(value) and not _NUMBER.fullmatch(value.strip())
    ]
    if words and len(words) < len(values) and all(_nothing(values[row]) for row in words):
        raise ValueError(
            f"{part.place(words[0])} holds {values[words[0]]!r} in column {column!r}, where others "
            "hold the number of a class; mend the data, or leave the row out"
        )


def _nothing(word: str) -> bool:
    return word.strip().casefold() in NOTHING


def _by_name(known: Sequence[str]) -> list[str]:
    if isinstance(known, str):
        raise ValueError(f"class_names={known!r} is one name where several belong; give a list")
    names = [_plain(str(name)) for name in known]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(
            f"the model has {', '.join(map(repr, twice))} as the name of two classes; mend its "
            "id2label"
        )
    return names


def _named(values: Column, names: list[str], part: Table, spec: DataSpec) -> list[str]:
    """Names for the numbers by which a data set that states its classes gives them."""
    numbers = _whole(values, part, spec.label_column)
    _check_range((part,), [numbers], len(names), "Mend")
    return [names[number] for number in numbers.tolist()]


def _check_not_ambiguous(names: list[str], where: str) -> None:
    if all(map(_WHOLE.fullmatch, names)) and names != [str(i) for i in range(len(names))]:
        raise ValueError(
            f"{where}: its labels are numbers, and so are the names of the model's classes, "
            f"{', '.join(names)}, in another order; write words as the names, in the model's "
            "id2label and in the data"
        )


def _numbered(
    values: Column, names: Sequence[str], whose: str, part: Table, column: str
) -> list[int]:
    number = {name: place for place, name in enumerate(names)}
    made = []
    for row, value in enumerate(values):
        if not _is_word(value):
            raise ValueError(
                f"{part.place(row)} holds {value!r} in column {column!r}, where others hold the "
                "name of a class; mend the data"
            )
        name = _plain(value)
        if name not in number:
            raise ValueError(
                f"{part.place(row)} has class {name!r}, which is none of {whose}: "
                f"{', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
                f"{nearest(name, list(names))}; {_REMEDY[whose]}"
            )
        made.append(number[name])
    return made


_REMEDY = {
    "train's": "give training rows of it, or leave the row out",
    "the data's": "mend the row, or leave it out",
    "the model's": "write the classes by these names or as their numbers, or leave the row out",
}


def _whole(values: Column, part: Table, name: str) -> np.ndarray:
    """int32 labels out of whole numbers, written ones ("3", "3.0") too."""
    if isinstance(values, np.ndarray) and np.can_cast(values.dtype, np.int32):
        return values.astype(np.int32)
    made = np.empty(len(values), np.int32)
    for row, value in enumerate(values):
        number = value
        if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
            number = float(value)
        whole = isinstance(number, int | float | np.number) and number == number // 1
        if not (whole and abs(number) < 2**31):
            raise ValueError(
                f"{part.place(row)} holds {value!r:.40} in column {name!r}, which is no class; "
                "data.task='classify' needs whole numbers from 0 on, written as 0, 1, 2, or names"
            )
        made[row] = number
    return made


def _check_range(
    parts: Sequence[Table], made: Sequence[np.ndarray], classes: int, remedy: str
) -> None:
    for part, labels in zip(parts, made, strict=True):
        wrong = np.flatnonzero((labels < 0) | (labels >= classes))
        if wrong.size:
            raise ValueError(
                f"{part.place(wrong[0])} has label {labels[wrong[0]]}, which is not in "
                f"[0, classes={classes}); {wrong.size} rows are out of range. {remedy} the data"
            )


def _check_gaps(made: Sequence[np.ndarray], classes: int, where: str, column: str) -> None:
    found = np.unique(np.concatenate(made))
    empty = classes - len(found)
    if empty > max(FEW, len(found)):
        raise ValueError(
            f"{where}: column {column!r} has {len(found)} different labels, the largest of which, "
            f"{found[-1]}, would make {classes:,} classes, {empty:,} of them without a row; number "
            f"the classes from 0 on, or set data.classes={classes} if they are as many"
        )
