"""Files of embeddings, written as they are made: .npy, or .parquet with the texts beside them."""

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from zoo.data.tokenizer import several
from zoo.embedding.encoder import WINDOW, Encoder
from zoo.utils.files import naming
from zoo.utils.outputs import check_out

SUFFIXES = (".npy", ".parquet")
"""Of the files that are written."""


def write(
    path: Path, encoder: Encoder, texts: Iterable[str], progress: Callable[[int], None]
) -> int:
    """Embeds a stream of texts into a file, which appears when it is whole.

    Args:
      path: its suffix decides the format. .npy is float32 (texts, width); .parquet has the columns
        "text" and "embedding", a list of float32.
      encoder: of the texts.
      texts: any number of them.
      progress: called with the number of texts that are done.

    Returns:
      the number of texts.

    Raises:
      ValueError: another suffix, or no text.
    """
    formats = dict(zip(SUFFIXES, (_write_npy, _write_parquet), strict=True))
    check_out(path, *SUFFIXES)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of a name of its own: two that write the same file at once must not write into each other.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with naming(path, partial):
            rows = formats[path.suffix](partial, encoder, _windows(encoder, texts), progress)
            if not rows:
                raise ValueError("the input has no lines; nothing was written")
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return rows


def read_lines(file: BinaryIO, where: str) -> Iterator[str]:
    """The lines of a stream of UTF-8, whatever the locale is, without their ends.

    Raises:
      ValueError: a line that is not UTF-8, by its number.
    """
    for number, line in enumerate(file, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            yield text.rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{where}: line {number} is not UTF-8 ({error.reason}); convert it first, such as "
                "with iconv -t UTF-8"
            ) from error


def _windows(encoder: Encoder, texts: Iterable[str]) -> Iterator[list[str]]:
    several(texts)
    texts = iter(texts)
    while window := list(islice(texts, WINDOW * encoder.batch_size)):
        yield window


def _write_npy(
    path: Path, encoder: Encoder, windows: Iterator[list[str]], progress: Callable[[int], None]
) -> int:
    width, rows = encoder.model.config.width, 0
    # The header comes first and has the number of rows; its size does not depend on it, because
    # numpy leaves room for the longest number.
    header = lambda rows: {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header(0))
        start = file.tell()
        for window in windows:
            file.write(encoder.embed(window).astype("<f4").tobytes())
            rows += len(window)
            progress(rows)
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header(rows))
        if file.tell() != start:
            raise OSError(f"{path}: {rows} rows do not fit the header of the file")
    return rows


def _write_parquet(
    path: Path, encoder: Encoder, windows: Iterator[list[str]], progress: Callable[[int], None]
) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    rows, kind = 0, pa.list_(pa.float32(), encoder.model.config.width)
    schema = pa.schema([("text", pa.string()), ("embedding", kind)])
    with parquet.ParquetWriter(path, schema) as writer:
        for window in windows:
            flat = pa.array(encoder.embed(window).reshape(-1))
            vectors = pa.FixedSizeListArray.from_arrays(flat, encoder.model.config.width)
            writer.write_table(pa.table([pa.array(window), vectors], schema=schema))
            rows += len(window)
            progress(rows)
    return rows
