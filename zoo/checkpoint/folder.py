"""A run's folder of checkpoints: their names, which is newest and which best, and what is whole."""

import hashlib
import math
import os
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo.utils.files import read_json

NAME = re.compile(r"checkpoint-(\d{6,})")
PARTIAL = ".partial-"
RECORD, CHECKSUMS = "record.json", "checksums.json"
# The line of checksums.json that is of its other lines; no file of a checkpoint has this name.
TOGETHER = "together"

PathLike = str | os.PathLike[str]


class DamagedCheckpoint(ValueError):
    """A checkpoint whose files are not those that were saved."""


def checkpoints(folder: PathLike) -> list[Path]:
    """The complete checkpoints of a run's folder, oldest first; none if there is no such folder."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    named = [path for path in folder.iterdir() if NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(named, key=lambda path: number([path]))


def latest(folder: PathLike) -> Path | None:
    """The newest complete checkpoint of a run's folder, or None (start afresh)."""
    paths = checkpoints(folder)
    return paths[-1] if paths else None


def best(folder: PathLike) -> Path | None:
    """The checkpoint with the best metric of those in a run's folder, the newest of equals.

    The metrics are those that `Saver.save` was given; with several names in the folder, that of the
    newest one counts. None if no checkpoint has one.
    """
    ranked = by_metric(checkpoints(folder))
    return ranked[0] if ranked else None


def load_record(folder: PathLike) -> dict[str, Any]:
    """The record of a checkpoint, given and returned as in `load`, without its arrays.

    Raises:
      ValueError: no checkpoint there.
      DamagedCheckpoint: its record is damaged (a ValueError).
    """
    path = find(folder)
    verify(path, ())
    return read_record(path)


def read_record(path: Path) -> dict[str, Any]:
    """The record of a verified checkpoint and, as "path", where it is.

    Raises:
      DamagedCheckpoint: it is no JSON object, though it has its checksum.
    """
    return {**_object(path, RECORD), "path": str(path)}


def _object(path: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint."""
    try:
        return read_json(path / name)
    except ValueError as error:
        raise damaged(path, str(error)) from error


def by_metric(paths: list[Path]) -> list[Path]:
    """Those of the checkpoints (oldest first) that have a metric, best first, newest of equals."""
    # A damaged record has no metric: it must not stop a save, nor be anyone's best.
    found = [(path, metric) for path in paths if (metric := _metric(path)) is not None]
    if not found:
        return []
    name, _, mode = found[-1][1]
    sign = 1.0 if mode == "max" else -1.0
    same = [(sign * m[1], place, path) for place, (path, m) in enumerate(found) if m[0] == name]
    return [path for *_, path in sorted(same, reverse=True)]


def _metric(path: Path) -> tuple[str, float, str] | None:
    """Name, value and mode ("max" or "min") of a checkpoint's metric; None if there is none."""
    try:
        metric = load_record(path)["metric"]
        name, value, mode = metric["name"], float(metric["value"]), metric["mode"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return (str(name), value, str(mode)) if math.isfinite(value) else None


def hidden(folder: Path) -> Path:
    """A new name that no reader takes for a checkpoint."""
    return folder / (PARTIAL + uuid.uuid4().hex)


def number(paths: list[Path]) -> int:
    """The number of the last of `paths`; 0 if there is none."""
    return int(paths[-1].name.rpartition("-")[2]) if paths else 0


def find(folder: PathLike) -> Path:
    """The checkpoint that `folder` is, or the newest one in it.

    Raises:
      ValueError: there is none.
    """
    path = Path(folder).absolute()
    if not path.is_dir():
        raise ValueError(f"folder={str(folder)!r} does not exist or is not a folder ({path})")
    if is_checkpoint(path):
        return path
    newest = latest(path)
    if newest is None:
        found = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
        raise ValueError(
            f"folder={str(folder)!r} holds no checkpoint: a folder checkpoint-NNNNNN is needed, "
            f"found {found}"
        )
    return newest


def is_checkpoint(path: Path) -> bool:
    """Whether the folder is a checkpoint's own (under any name) and not a run's."""
    return bool(NAME.fullmatch(path.name)) or (path / CHECKSUMS).is_file()


def checksums(path: Path, only: Callable[[str], bool] = lambda name: True) -> dict[str, str]:
    """Size and SHA-256 of every file below `path` by its relative name, without checksums.json."""
    sums = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_file() and name != CHECKSUMS and only(name):
            try:
                with open(file, "rb") as opened:
                    digest = hashlib.file_digest(opened, "sha256").hexdigest()
                sums[name] = f"{file.stat().st_size} bytes, SHA-256 {digest}"
            except OSError as error:  # a disk that no longer reads it, or no permission
                sums[name] = f"what cannot be read ({error})"
    return sums


def together(sums: Mapping[str, str]) -> str:
    """One digest over the lines of a checkpoint's files, which binds its parts to its record."""
    lines = "".join(f"{name}: {sums[name]}\n" for name in sorted(sums))
    return f"SHA-256 {hashlib.sha256(lines.encode()).hexdigest()}"


def verify(path: Path, parts: Iterable[str]) -> set[str]:
    """Compares the record's and the parts' files with their recorded checksums.

    Orbax by itself loads wrong numbers from an array file with one flipped bit. The recorded names
    are compared with those found on the disk, and never used to open anything.

    Returns:
      the names of all the parts that were saved.

    Raises:
      DamagedCheckpoint: naming every file that differs.
    """
    wanted = {RECORD, *parts}
    only = lambda name: name.partition("/")[0] in wanted
    recorded = _object(path, CHECKSUMS)
    # Checkpoints of version 0.1.0 have no such line.
    bound = recorded.pop(TOGETHER, None)
    asked = {name: value for name, value in recorded.items() if only(name)}
    asked.setdefault(RECORD, "a record")  # every checkpoint has one
    found = checksums(path, only)
    wrong = [
        f"{name}: saved {asked.get(name, 'nothing')}; found {found.get(name, 'nothing')}"
        for name in sorted(asked.keys() | found.keys())
        if asked.get(name) != found.get(name)
    ]
    if wrong:
        raise damaged(path, *wrong)
    if bound is not None and bound != together(recorded):
        raise damaged(path, f"{CHECKSUMS}: its lines are of more than one save")
    return {name.partition("/")[0] for name in recorded} - {RECORD}


def damaged(path: Path, *reasons: str) -> DamagedCheckpoint:
    """The error for a checkpoint whose files are not to be trusted, with what to do."""
    others = [other.name for other in checkpoints(path.parent) if other != path]
    remedy = (
        f"; also there: {', '.join(others)}; load with fallback (--fallback) to take the newest "
        "that is whole"
        if others
        else ""
    )
    lines = [f"checkpoint {path} is damaged{remedy}", *(f"  {reason}" for reason in reasons)]
    return DamagedCheckpoint("\n".join(lines))
