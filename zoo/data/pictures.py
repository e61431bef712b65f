"""Pictures of any kind as one uint8 array: decoded, of one size, grey or in colour."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config.data import RESAMPLES

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
_GREY = ("1", "L", "LA", "La")
_MORE_THAN_BYTES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def stack(
    pictures: Sequence[Any] | np.ndarray,
    size: int | None,
    place: Callable[[int], str],
    folder: Path | None = None,
    resample: str = "bicubic",
    resize: int | None = None,
) -> np.ndarray:
    """(samples, height, width, channels) uint8; 1 channel if all are grey, else 3 (red, green,
    blue). Transparency is left out.

    Args:
      pictures: paths, bytes of a picture file, dicts with "bytes" or "path" (as `datasets` has
        them), or arrays (height, width) or (height, width, channels) of whole numbers in [0, 255].
      size: side that all are resized to, whatever their shape was; None to take them as they are.
      place: what an error calls the picture of a row.
      folder: what relative paths start from.
      resample: how they are resized, one of `RESAMPLES`.
      resize: side that they are resized to instead, before the middle of `size` is cut out.

    Raises:
      ValueError: a picture that cannot be read, or pictures of different sizes without `size`.
    """
    whole = isinstance(pictures, np.ndarray) and pictures.ndim == 4 and pictures.dtype == np.uint8
    if whole and (size is None or (pictures.shape[1:3] == (size, size) and resize is None)):
        return pictures
    reshape = partial(_reshaped, size=size, resize=resize, resample=RESAMPLES[resample])
    arrays: list[np.ndarray] = []
    for row, picture in enumerate(pictures):
        array = _decoded(picture, reshape, place(row), folder)
        if arrays and array.shape[:2] != arrays[0].shape[:2]:
            raise ValueError(
                f"{place(row)} is a picture of {array.shape[:2]}, but {place(0)} is one of "
                f"{arrays[0].shape[:2]} (height, width); set data.image_size to resize all"
            )
        arrays.append(array)
    channels = max(array.shape[2] for array in arrays)
    made = np.empty((len(arrays), *arrays[0].shape[:2], channels), np.uint8)
    for row, array in enumerate(arrays):
        made[row] = array  # a grey one is repeated in all channels
    return made


def _reshaped(image: Any, size: int | None, resize: int | None, resample: int) -> Any:
    """A PIL image of the side `size`."""
    side = resize or size
    if side is not None and image.size != (side, side):
        image = image.resize((side, side), resample)
    if resize is None:
        return image
    edge = (resize - size) // 2
    return image.crop((edge, edge, edge + size, edge + size))


def _decoded(
    picture: Any, reshape: Callable[[Any], Any], where: str, folder: Path | None
) -> np.ndarray:
    """(height, width, 1 or 3) uint8."""
    if isinstance(picture, dict):
        picture = picture.get("bytes") or picture.get("path")
    try:
        if isinstance(picture, str | Path):
            path = (folder or Path()) / picture
            where = f"{where} ({path})" if str(path) not in where else where
            picture = path.read_bytes()
        image = _opened(picture)
        image = reshape(image.convert("L" if image.mode in _GREY else "RGB"))
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and others
        raise ValueError(f"{where} is not a picture that can be read: {error}") from error
    array = np.asarray(image, np.uint8)
    return array[..., None] if array.ndim == 2 else array


def _opened(picture: Any) -> Any:
    """A PIL image."""
    from PIL import Image

    if isinstance(picture, bytes):
        image = Image.open(io.BytesIO(picture))  # decoded when it is converted
        if image.mode in _MORE_THAN_BYTES:
            raise ValueError(f"its mode is {image.mode}; convert it to 8 bits a channel")
        return image
    array = np.asarray(picture)
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise ValueError(f"a {type(picture).__name__} that is no path, no bytes of a file and no "
                         "array of whole numbers in [0, 255]")  # fmt: skip
    array = array.astype(np.uint8)
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def class_folders(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, class) of every picture in a folder with a subfolder for each class, sorted; hidden
    folders are passed over."""
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if inner.name.startswith("."):
            continue
        for file in sorted(inner.iterdir()):
            if file.suffix.lower() in SUFFIXES and file.is_file():
                yield file, inner.name
