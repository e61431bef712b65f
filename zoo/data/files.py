"""Reading files whole, gzip or not, with errors that name the file."""

from __future__ import annotations

import difflib
import gzip
import io
import re
import zlib
from pathlib import Path

from zoo.utils.files import read_file
from zoo.utils.memory import total_memory

_SURROGATE = re.compile("[\ud800-\udfff]")


LARGEST_RATIO, SMALL = 200, 1 << 26
"""Of what a .gz unpacks to, to its own size; texts and pictures reach 20. Up to `SMALL` bytes any
ratio will do."""


def read_bytes(path: Path, count: int = -1) -> bytes:
    """The content of a file, unpacked if its name ends in .gz.

    Args:
      path: of the file.
      count: how many bytes at most; -1: all.

    Raises:
      ValueError: the file cannot be read, is not whole, or unpacks to so much that it can only be
        meant to fill the memory.
    """
    data = read_file(path)
    # Not trusting the suffix alone: some tools unpack a download and keep its name.
    if path.suffix != ".gz" or data[:2] != b"\x1f\x8b":
        return data if count < 0 else data[:count]
    most = min(max(SMALL, LARGEST_RATIO * len(data)), total_memory())
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            unpacked = file.read(most + 1 if count < 0 else min(count, most + 1))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read, or is damaged: {error}") from error
    if len(unpacked) > most:
        raise ValueError(
            f"{path}: its {len(data):,} bytes unpack to more than {most:,}, which looks like a "
            "file made to fill the memory; unpack it yourself where you trust it"
        )
    return unpacked


def read_text(path: Path) -> str:
    """The content of a UTF-8 text file (plain or .gz), line ends as newlines, a byte mark removed.

    Raises:
      ValueError: the file cannot be read, is empty, or is not UTF-8.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: byte {error.start} is not UTF-8 text; convert the file to UTF-8"
        ) from error
    if not text.strip():
        raise ValueError(f"{path}: is empty; give a file with at least one row")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def suffix(path: Path) -> str:
    """The suffix that says what a file holds, in lower case: ".csv" for "a.CSV.gz"."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def stem(path: Path) -> str:
    """The name without any suffix that `suffix` sees: "train" for "train.csv.gz"."""
    name = path.name
    if name.lower().endswith(".gz"):
        name = name[:-3]
    return Path(name).stem


def half_character(text: str) -> str | None:
    """What an error says of a text that holds half of a surrogate pair, or None.

    JSON can write one, UTF-8 cannot, and tokenizers refuse it.
    """
    if text.isascii() or not (half := _SURROGATE.search(text)):
        return None
    return (
        f"holds half a character, {half[0]!a} at place {half.start()}, which UTF-8 cannot write; "
        "mend or remove it"
    )


def nearest(name: str, known: list[str]) -> str:
    """A hint for an error: the entry of `known` that looks most like `name`, or nothing.

    Suffixes do not count: two names are not alike because both end in .csv.
    """
    stems = {Path(entry).stem: entry for entry in reversed(known)}
    near = difflib.get_close_matches(Path(name).stem, stems, n=1, cutoff=0.5)
    return f"; did you mean {stems[near[0]]!r}?" if near else ""
