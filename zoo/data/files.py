"""Reading files whole, gzip or not, with errors that name the file."""

from __future__ import annotations

import difflib
import gzip
import re
import zlib
from pathlib import Path

_SURROGATE = re.compile("[\ud800-\udfff]")


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked if its name ends in .gz.

    Raises:
      ValueError: the file cannot be read or is not whole.
    """
    try:
        data = path.read_bytes()
        # Not trusting the suffix alone: some tools unpack a download and keep its name.
        if path.suffix == ".gz" and data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read, or is damaged: {error}") from error
    return data


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
