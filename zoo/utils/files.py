"""Files that are either whole or absent: atomic writes, JSON, and the metrics log of a run.

JSON has no NaN and no infinity. Every non-finite number is written as `null`, so that a diverged
run still leaves a log that any JSON reader accepts. What is read was maybe made elsewhere: only
regular files are opened, and every error names the file.
"""

import json
import math
import os
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from zoo.utils.schema import OBJECT, Schema, check


@contextmanager
def naming(path: Path, hidden: Path | None = None) -> Iterator[None]:
    """Has every OSError name a file: that of a full disk names none.

    Args:
      path: of the file.
      hidden: where it is written first, which a user does not know.

    Example:
      >>> with naming(Path("a.npy")):
      ...     raise OSError(28, "No space left on device")
      Traceback (most recent call last):
      OSError: [Errno 28] No space left on device: 'a.npy'
    """
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None or error.filename == str(hidden)
        if error.errno is None or not unnamed:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Replaces the file at `path` by `data`; readers see the old file or the new one, no mixture.

    The data go to a hidden file in the same folder (made if absent), are synced to the disk and
    take the name in one rename. Any exception, KeyboardInterrupt included, removes the hidden file
    and leaves the old one as it was. Text is written as UTF-8.

    Raises:
      OSError: it cannot be written, such as on a full disk; names `path`.
    """
    path = Path(path)
    content = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with naming(path, hidden):
            with open(hidden, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(hidden, path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Has the disk hold what is written in a file, or which files a folder has."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError:
        if not path.is_dir():  # some network file systems do not sync folders
            raise
    finally:
        os.close(opened)


def write_json(path: str | os.PathLike[str], obj: object) -> None:
    """Writes `obj` as indented JSON, atomically; see `to_json` for what it may hold."""
    write_atomic(path, json.dumps(to_json(obj), indent=2, allow_nan=False) + "\n")


def read_file(path: Path) -> bytes:
    """The content of a regular file; of a device or a pipe, which may never end, nothing is read.

    Raises:
      ValueError: it is not there, something else, or cannot be read.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
            raise ValueError(f"{path}: is {kind}; a file is needed")
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_text(path: Path) -> str:
    """The text in a regular file of UTF-8; raises as `read_file`."""
    data = read_file(path)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8; convert the file") from error


def parse_json(text: str, where: str) -> Any:
    """A value out of JSON; the only place where text of others becomes one.

    Args:
      text: the JSON.
      where: it is from, for errors.

    Raises:
      ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{where}: its JSON is nested too deeply to be read") from error


def read_json(path: Path, schema: Schema = OBJECT) -> Any:
    """What a JSON file holds.

    Args:
      path: of the file.
      schema: what that must be; an object with any fields where nothing is said.

    Raises:
      ValueError: not there, not JSON, or something else than the schema asks for.
    """
    return check(parse_json(read_text(path), str(path)), schema, str(path))


def to_json(obj: object, where: str = "object") -> object:
    """`obj` in JSON's own types: dict, list, str, int, float, bool and None.

    Tuples become lists, numpy and jax arrays become numbers or nested lists, and NaN and infinities
    become None. `where` is the name of `obj` in errors.

    Raises:
      ValueError: a key is not a string (JSON would turn it into one), or a value has another type.

    Example:
      >>> to_json({"loss": float("nan"), "shape": (2, 3), "rate": np.float32(0.25)})
      {'loss': None, 'shape': [2, 3], 'rate': 0.25}
    """
    if obj is None or isinstance(obj, str | bool | int):
        return obj
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else None
    if isinstance(obj, Mapping):
        for key in obj:
            if not isinstance(key, str):
                raise ValueError(f"{where}: key {key!r} is not a string; JSON keys are strings")
        return {key: to_json(value, f"{where}[{key!r}]") for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [to_json(value, f"{where}[{index}]") for index, value in enumerate(obj)]
    if isinstance(obj, np.generic | np.ndarray) or hasattr(obj, "__array__"):
        array = np.asarray(obj)
        if array.dtype.kind in "fV":  # V: bfloat16 and the other floats that numpy lacks
            array = array.astype(np.float64)
        if array.dtype.kind in "biuf":
            return to_json(array.tolist(), where)
    raise ValueError(
        f"{where}: {type(obj).__name__} cannot be written as JSON; "
        "give a dict, list, string, number, bool, None or array of numbers"
    )


class MetricsLog:
    """Appends one JSON object a line to the file at `path` (made if absent, with its folder).

    Every line reaches the operating system in one write before `write` returns, so that a killed
    run loses nothing it reported, and a line is either whole or absent: a last line without its
    newline, left by a machine that died, is dropped when the log is opened again. Non-finite
    numbers are written as null. One writer at a time.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
      >>> with MetricsLog(path) as log:
      ...     log.write({"step": 1, "loss": np.float32(0.5)})
      >>> path.read_text()
      '{"step": 1, "loss": 0.5}\\n'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: one line is one system call, and nothing waits in the process.
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed by __exit__)
        if self._file.tell():
            whole = self.path.read_bytes().rfind(b"\n") + 1
            self._file.truncate(whole)

    def write(self, metrics: Mapping[str, object]) -> None:
        """Appends `metrics` as one line.

        Raises:
          ValueError: `metrics` is not a mapping, holds what JSON cannot (see `to_json`), or the log
            is closed.
          OSError: the disk took only a part of the line, which is then removed again.
        """
        if not isinstance(metrics, Mapping):
            raise ValueError(f"metrics must be a mapping of names to values, got {metrics!r}")
        line = json.dumps(to_json(metrics, "metrics"), allow_nan=False).encode() + b"\n"
        with naming(self.path):
            written = self._file.write(line)
        if written != len(line):
            self._file.truncate(self._file.tell() - written)
            raise OSError(
                f"{self.path}: only {written} of {len(line)} bytes were written; the disk is full"
            )

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
