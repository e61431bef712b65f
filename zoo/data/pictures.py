"""Pictures of any kind as one uint8 array: decoded, of one size, grey or in colour."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config.data import RESAMPLES
from zoo.utils.files import read_file
from zoo.utils.memory import check_memory
from zoo.utils.notes import note

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
    *,
    channels: int | None = None,
    roots: Sequence[Path] | None = None,
) -> np.ndarray:
    """(samples, height, width, channels) uint8, upright as their EXIF says.

    Transparency is left out, and of an animated picture all but its first frame.

    Args:
      pictures: paths, bytes of a picture file, dicts with "bytes" or "path" (as `datasets` has
        them), or arrays (height, width) or (height, width, channels) of whole numbers in [0, 255].
      size: side that all are resized to, whatever their shape was; None to take them as they are.
      place: what an error calls the picture of a row.
      folder: what relative paths start from.
      resample: how they are resized, one of `RESAMPLES`.
      resize: side that they are resized to instead, before the middle of `size` is cut out.
      channels: 1 of grey pictures, 3 (red, green, blue) of all; None: 1 if all are grey, else 3.
      roots: folders that the files must be in which texts name; None: anywhere.

    Raises:
      ValueError: a picture that cannot be read, is in colour where `channels` is 1, or is a file
        outside of `roots`; pictures of different sizes without `size`, or more than fit the memory.
    """
    if size is not None:
        what = f"data.image_size={size}: {len(pictures)} pictures"
        check_memory(len(pictures) * size**2 * (channels or 1), what)
        if resize is not None:
            check_memory(3 * resize**2, f"data.resize={resize}: a picture")
    whole = isinstance(pictures, np.ndarray) and pictures.ndim == 4 and pictures.dtype == np.uint8
    if whole and (size is None or (pictures.shape[1:3] == (size, size) and resize is None)):
        return (
            pictures if channels in (None, pictures.shape[3]) else _with(channels, pictures, place)
        )
    reshape = partial(_reshaped, size=size, resize=resize, resample=RESAMPLES[resample])
    arrays: list[np.ndarray] = []
    for row, picture in enumerate(pictures):
        array = _decoded(picture, reshape, place(row), folder, roots)
        if arrays and array.shape[:2] != arrays[0].shape[:2]:
            raise ValueError(
                f"{place(row)} is a picture of {array.shape[:2]}, but {place(0)} is one of "
                f"{arrays[0].shape[:2]} (height, width); set data.image_size to resize all"
            )
        arrays.append(array)
    return _with(channels or max(array.shape[2] for array in arrays), arrays, place)


def _with(
    channels: int, arrays: Sequence[np.ndarray] | np.ndarray, place: Callable[[int], str]
) -> np.ndarray:
    """Pictures of one size as one array, the grey ones repeated in all channels."""
    made = np.empty((len(arrays), *arrays[0].shape[:2], channels), np.uint8)
    for row, array in enumerate(arrays):
        if array.shape[2] not in (1, channels):
            raise ValueError(
                f"{place(row)} is a picture in colour, of {array.shape[2]} channels, but the model "
                f"takes {channels}; save all pictures grey, or take a model for colour"
            )
        made[row] = array
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
    picture: Any,
    reshape: Callable[[Any], Any],
    where: str,
    folder: Path | None,
    roots: Sequence[Path] | None,
) -> np.ndarray:
    """(height, width, 1 or 3) uint8."""
    if isinstance(picture, dict):
        picture = picture.get("bytes") or picture.get("path")
    try:
        if isinstance(picture, str | Path):
            path = (folder or Path()) / picture
            where = f"{where} ({path})" if str(path) not in where else where
            if isinstance(picture, str) and roots is not None:
                _check_inside(path, roots)
            picture = read_file(path)
        image = _opened(picture)
        image = reshape(image.convert("L" if image.mode in _GREY else "RGB"))
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and others
        raise ValueError(f"{where} is not a picture that can be read: {error}") from error
    array = np.asarray(image, np.uint8)
    return array[..., None] if array.ndim == 2 else array


def _check_inside(path: Path, roots: Sequence[Path]) -> None:
    """A table comes with the download; it must not choose what is read on this machine. Links that
    are in a folder are followed: to make one takes more than a table."""
    plain = Path(os.path.abspath(path))
    if not any(plain.is_relative_to(Path(os.path.abspath(root))) for root in roots):
        raise ValueError(
            f"it is outside of {' and '.join(map(str, roots)) or 'the data'}; move it there, or "
            "where you trust the table set data.pictures_anywhere=true"
        )


def _opened(picture: Any) -> Any:
    """A PIL image."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if isinstance(picture, bytes):
        try:
            image = Image.open(io.BytesIO(picture))
        except UnidentifiedImageError as error:  # whose message has no more than an address
            raise ValueError(f"cannot identify the format of its {len(picture):,} bytes") from error
        if image.format == "EPS":
            raise ValueError("it is PostScript, which is not run; convert it to PNG")
        if image.mode in _MORE_THAN_BYTES:
            raise ValueError(f"its mode is {image.mode}; convert it to 8 bits a channel")
        # Cameras save as the sensor lies, and say how it was held.
        return ImageOps.exif_transpose(image)
    array = np.asarray(picture)
    numbers = array.dtype.kind in "iu" and array.ndim in (2, 3) and array.size > 0
    if not numbers or array.min() < 0 or array.max() > 255:
        raise ValueError(f"a {type(picture).__name__} that is no path, no bytes of a file and no "
                         "array of whole numbers in [0, 255]")  # fmt: skip
    array = array.astype(np.uint8)
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def has_classes(folder: Path) -> bool:
    """Whether a folder has a subfolder with pictures."""
    return any(_is_picture(file) for inner in _subfolders(folder) for file in inner.iterdir())


def is_flat(path: Path) -> bool:
    """Whether a path is a folder with pictures and none of them in a folder of a class."""
    inside = path.is_dir() and not _is_junk(path) and not has_classes(path)
    return inside and any(map(_is_picture, path.iterdir()))


def class_folders(folder: Path) -> list[tuple[Path, str]]:
    """(file, class) of every picture in a folder with a subfolder for each class, sorted.

    Hidden files and folders are passed over; what else is passed over is told by a note.

    Raises:
      ValueError: a class without a picture.
    """
    found: list[tuple[Path, str]] = []
    passed = [path for path in sorted(folder.iterdir()) if _is_picture(path)]  # of no class
    for inner in _subfolders(folder):
        entries = sorted(path for path in inner.iterdir() if not _is_junk(path))
        files = [path for path in entries if _is_picture(path)]
        others = [path for path in entries if path not in files]
        if not files:
            raise ValueError(
                f"{inner}: the class has no picture{_named(inner, others)}. Pictures are files in "
                f"it that end in {', '.join(SUFFIXES)}; convert or move them, or remove the folder"
            )
        found += [(file, inner.name) for file in files]
        passed += others
    if passed:
        note(
            f"{folder}: {len(passed)} entries are passed over{_named(folder, passed)}. A picture "
            f"lies in the folder of its class and ends in {', '.join(SUFFIXES)}"
        )
    return found


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_junk(path))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not _is_junk(path) and path.is_file()


def _is_junk(path: Path) -> bool:
    """Whether an entry is hidden, or one that systems leave in every folder."""
    return path.name.startswith(".") or path.name in ("Thumbs.db", "desktop.ini")


def _named(folder: Path, entries: Sequence[Path]) -> str:
    """Some entries below a folder, for a message."""
    shown = ", ".join(str(path.relative_to(folder)) for path in entries[:5])
    return f": {shown}{', ...' if len(entries) > 5 else ''}" if entries else ""
