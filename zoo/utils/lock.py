"""A lock on a folder, so that one process at a time writes into it."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

NAME = ".lock"
SHOWN = 200  # bytes of a lock's text in a message


@contextlib.contextmanager
def locked(folder: Path, say: Callable[[str], object] = print) -> Iterator[None]:
    """Holds a folder, made if absent, for as long as the context lasts.

    The lock is `flock` on a hidden file in the folder, which names its holder. The system frees it
    when the holder dies, however that happens; what the file then still says is passed on as a
    note. At the end the file goes, and so do folders that were made here and hold nothing.

    Args:
      folder: to be held.
      say: told of a dead holder, and of a file system that knows no locks, where none is held.

    Raises:
      ValueError: another process holds it.
      OSError: nothing can be written there.
    """
    if "\0" in str(folder):
        raise ValueError(f"out={str(folder)!r} holds a NUL; give another folder")
    made: list[Path] = []
    try:
        try:
            made = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            file = _take(folder / NAME, say)
        except OSError as error:
            raise OSError(
                f"out={str(folder)!r}: nothing can be written there ({error.strerror}: "
                f"{error.filename or folder}); give another folder"
            ) from error
        try:
            yield
        finally:
            (folder / NAME).unlink(missing_ok=True)
            os.close(file)
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # it holds something by now
                path.rmdir()


def _take(path: Path, say: Callable[[str], object]) -> int:
    """The lock's file, open and locked."""
    while True:
        # Not through a link: what it leads to would be overwritten.
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _text(file)
            os.close(file)
            raise ValueError(
                f"out={str(path.parent)!r}: another run ({holder or 'just started'}) writes here; "
                "wait for its end, or give another folder"
            ) from None
        except OSError as error:  # some network file systems
            say(f"{path.parent} cannot be locked ({error.strerror}): start no second run into it")
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            break
        os.close(file)  # its holder has removed it in between
    if before := _text(file):
        say(f"{path.parent}: taken over from a run that ended without a word ({before})")
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except OSError as error:  # a full disk
        path.unlink()
        os.close(file)
        raise OSError(error.errno, error.strerror, str(path)) from error
    return file


def _text(file: int) -> str:
    return os.pread(file, SHOWN, 0).decode(errors="replace").strip()
