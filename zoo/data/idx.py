"""The idx format of MNIST and Fashion-MNIST: sizes in a header, then bytes.

http://yann.lecun.com/exdb/mnist: two zero bytes, a type (8: unsigned byte), the number of axes, one
big-endian 32-bit size an axis, and the data.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from zoo.data.files import read_bytes
from zoo.utils.memory import check_memory


def read_idx(path: Path, axes: int) -> np.ndarray:
    """The unsigned bytes of an idx file, plain or gzip (.gz), with `axes` axes.

    Raises:
      ValueError: the file cannot be read, has another magic number, holds nothing, or is not as
        long as it says.
    """
    start = 4 + 4 * axes
    header = read_bytes(path, start)
    magic = bytes([0, 0, 8, axes])
    if header[:4] != magic:
        raise ValueError(
            f"{path}: begins with {header[:4].hex(' ') or 'nothing'}, where an idx file of "
            f"unsigned bytes on {axes} axes begins with {magic.hex(' ')}"
        )
    if len(header) < start:
        raise ValueError(f"{path}: {len(header)} bytes end within the idx header of {start}")
    sizes = [int.from_bytes(header[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes)]
    announced, shown = math.prod(sizes), " x ".join(map(str, sizes))
    if announced == 0:
        raise ValueError(f"{path}: the header announces {shown} = 0 bytes, which is no data")
    check_memory(announced, f"{path}: the header announces {shown} bytes, which")
    data = read_bytes(path, start + announced + 1)  # one more, to see that nothing follows
    if len(data) - start != announced:
        raise ValueError(
            f"{path}: {len(data) - start}{' or more' * (len(data) - start > announced)} bytes of "
            f"data, but the header announces {shown} = {announced}; the file is damaged"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(sizes)


def read_idx_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (samples, height, width, 1) uint8 and their labels (samples,) int64.

    Raises:
      ValueError: see `read_idx`; or the two files hold different numbers of samples.
    """
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise ValueError(
            f"{images}: {len(pixels)} images, but {labels} holds {len(classes)} labels"
        )
    return pixels[..., None], classes.astype(np.int64)
