"""The one check of what a command is to write: before its work, not when all is done."""

import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from zoo.utils.paths import there

NEVER_READ = (".html", "curves.png")
"""Ends of what we write into the folder of a run and read nowhere."""


def check_out(path: Path, *suffixes: str, name: str = "out", inputs: Iterable[Path] = ()) -> None:
    """Whether a file can and may be written.

    Args:
      path: of the file.
      suffixes: that it may have.
      name: of the argument that says where, for the error.
      inputs: what is read: neither one of them nor a file in one of them may be overwritten.

    Raises:
      ValueError: another suffix, a folder, a device, or what is read.
      OSError: nothing can be written there.
    """
    shown = f"{name}={str(path)!r}"
    if "\0" in str(path):
        raise ValueError(f"{shown} is no name of a file; leave the NUL out")
    if path.is_dir():
        raise ValueError(f"{shown} is a folder; give the name of a file")
    if path.suffix not in suffixes:
        raise ValueError(f"{shown} must end in {' or '.join(suffixes)}")
    if path.exists() and not path.is_file():
        raise ValueError(f"{shown} is a device or pipe; give the name of a file")
    for read in inputs if path.exists() else ():
        inside = read.resolve() in path.resolve().parents and not path.name.endswith(NEVER_READ)
        if there(read) and (read.samefile(path) or inside):
            raise ValueError(
                f"{shown} belongs to what is read, {str(read)!r}, and would be overwritten; name "
                "another file"
            )
    check_place(path.parent, shown)


def check_out_folder(path: Path, *, name: str = "out", inputs: Iterable[Path] = ()) -> None:
    """Whether files can and may be written into a folder.

    Args:
      path: of the folder, which need not be there.
      name: of the argument that says where, for the error.
      inputs: what is read: the folder must be none of them.

    Raises:
      ValueError: it is what is read.
      OSError: nothing can be written there.
    """
    shown = f"{name}={str(path)!r}"
    for read in inputs if path.exists() else ():
        if there(read) and read.samefile(path):
            raise ValueError(
                f"{shown} is what is read, whose files would be overwritten; name another folder"
            )
    check_place(path, shown)


def check_place(folder: Path, shown: str) -> Path:
    """Where a file can be made: a folder, or the nearest above it that is there.

    Args:
      folder: which need not be there.
      shown: what an error begins with.

    Raises:
      OSError: a file is in the way, or nothing can be written there.
    """
    nearest = Path(os.path.abspath(folder))
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise OSError(f"{shown}: {nearest} is a file, not a folder; give another place")
    # A file is tried because mode bits say nothing: root passes them, read-only disks do not.
    trial = nearest / f".writable-{uuid.uuid4().hex}"
    try:
        try:
            trial.write_bytes(b"x")
        finally:
            trial.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            f"{shown}: nothing can be written in {nearest}: {error.strerror}; give another place"
        ) from error
    return nearest
