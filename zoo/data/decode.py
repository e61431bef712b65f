"""Images from encoded bytes, files and nested numbers to one uint8 array."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_GREY, _COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")


def image_column(table: Dataset, name: str, size: int | None, where: str) -> np.ndarray:
    """The images of a column: (rows, height, width, channels) uint8.

    The column holds encoded images (an Image feature, or bytes), or numbers of 0..255 as nested
    lists of shape (height, width) or (height, width, channels).

    Args:
      table: rows with a column called `name`.
      name: the column.
      size: height and width to resize to, or None.
      where: the file, for errors.

    Raises:
      ValueError: see `stack`; or a value that is no image.
    """
    from datasets import Image as ImageFeature

    feature = table.features[name]
    if isinstance(feature, ImageFeature):
        table = table.cast_column(name, ImageFeature(decode=False))
    elif not hasattr(feature, "dtype") or str(feature.dtype) not in ("binary", "large_binary"):
        numbers = table.select_columns([name]).with_format("numpy")
        if isinstance(feature, dict):  # {"bytes": ..., "path": ...} without the feature's metadata
            numbers = table.select_columns([name])
        return stack((row[name] for row in numbers), len(table), size, f"{where}: row ")
    return stack((row[name] for row in table.select_columns([name])), len(table), size,
                 f"{where}: row ")  # fmt: skip


def stack(
    images: Iterable[Any], count: int, size: int | None, where: str, names: list[str] | None = None
) -> np.ndarray:
    """Images of one shape as one array: (count, height, width, channels) uint8.

    Grey images have one channel and others three; where both occur, grey ones get three.

    Args:
      images: `count` of paths, encoded bytes, {"bytes", "path"} or arrays of whole numbers 0..255.
      count: how many.
      size: height and width to resize to (bilinear, which averages when it shrinks), or None.
      where: what precedes the number (or the name) of an image in errors.
      names: of the images; None: their numbers.

    Raises:
      ValueError: an image that cannot be read, or images of different sizes without `size`.
    """
    result: np.ndarray | None = None
    for row, image in enumerate(images):
        name = where + (names[row] if names else str(row))
        pixels = _pixels(image, size, name)
        if result is None:
            result = np.empty((count, *pixels.shape), np.uint8)
        if pixels.shape[:2] != result.shape[1:3]:
            height, width = result.shape[1:3]
            raise ValueError(
                f"{name} is {pixels.shape[0]}x{pixels.shape[1]}, but the first image is {height}x"
                f"{width}; set image_size to resize all of them"
            )
        if pixels.shape[2] > result.shape[3]:
            result = np.repeat(result, 3, axis=3)
        result[row] = pixels  # a grey image fills all channels
    if result is None:
        raise ValueError(f"{where.rstrip(': row')}: no images; give at least one")
    return result


def _pixels(image: Any, size: int | None, name: str) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    if isinstance(image, dict):
        image = image["bytes"] if image.get("bytes") is not None else image.get("path")
    if image is None:
        raise ValueError(f"{name} holds no image; remove the row")
    if isinstance(image, bytes | str | Path):
        try:
            # No warnings about sizes or metadata: what cannot be used is an error below.
            with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
                opened.load()
                return _from_pil(_plain(opened, name), size)
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{name} cannot be read, or is damaged: {error}") from error
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.dtype.kind not in "iu":
        raise ValueError(
            f"{name} is a {pixels.dtype} array of shape {np.shape(image)}, not whole numbers of "
            "shape (height, width), (height, width, 1) or (height, width, 3)"
        )
    if pixels.size == 0 or pixels.min() < 0 or pixels.max() > 255:
        raise ValueError(f"{name} is empty or has values outside [0, 255]")
    pixels = pixels.astype(np.uint8)
    if size is None or pixels.shape[:2] == (size, size):
        return pixels
    return _from_pil(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), size)


def _plain(image: Image, name: str) -> Image:
    if image.mode in _GREY:
        return image.convert("L")
    if image.mode in _COLOUR:
        return image.convert("RGB")
    raise ValueError(f"{name} has mode {image.mode!r}; give images of 8 bits a channel")


def _from_pil(image: Image, size: int | None) -> np.ndarray:
    from PIL import Image as pil

    if size is not None and image.size != (size, size):
        image = image.resize((size, size), pil.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
