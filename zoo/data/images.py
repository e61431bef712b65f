"""Labelled images: kept as bytes, normalised a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from zoo.data import augment
from zoo.data.batches import Batch
from zoo.data.order import sample_words


@dataclass(frozen=True, eq=False)
class Images:
    """A split of images, labelled or not; see `zoo.data.batches.Split`.

    A batch holds (pixels / scale - mean) / std, computed in float64 and rounded to float32 once.

    Attributes:
      pixels: (samples, height, width, channels) uint8.
      labels: (samples,) int32, in [0, classes); None of unlabelled images.
      classes: number of classes; None of unlabelled images.
      mean, std: one number a channel.
      scale: what the pixels are divided by first.
      shift, flip, noise: augmentation: the largest move in pixels, whether to mirror at random, and
        the standard deviation of Gaussian noise added to the normalised values.

    Raises:
      ValueError: another rank or dtype, not one label an image, no data, a label out of range, a
        mean or std that is not one finite number a channel, a std that is not positive, or a shift
        as large as the images.
    """

    pixels: np.ndarray = field(repr=False)
    labels: np.ndarray | None = field(repr=False)
    classes: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0
    shift: int = 0
    flip: bool = False
    noise: float = 0.0

    def __post_init__(self) -> None:
        pixels, labels = self.pixels, self.labels
        if pixels.ndim != 4 or pixels.dtype != np.uint8:
            raise ValueError(
                f"pixels: {pixels.dtype} {pixels.shape} is not a uint8 array of shape "
                "(samples, height, width, channels)"
            )
        if labels is not None and (labels.shape != pixels.shape[:1] or labels.dtype != np.int32):
            raise ValueError(
                f"labels: {labels.dtype} {labels.shape} is not an int32 array of one label an "
                f"image, {pixels.shape[:1]}"
            )
        if pixels.size == 0:
            raise ValueError(f"pixels: shape {pixels.shape} holds no data; give at least one image")
        if labels is not None:
            check_labels(labels, self.classes, "labels")
        channels = pixels.shape[3]
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != channels or not np.isfinite(values).all():
                raise ValueError(f"{name}={values} is not one finite number for each of {channels} "
                                 "channels")  # fmt: skip
        if not min(self.std) > 0:
            raise ValueError(
                f"std={self.std} must be positive; a channel with one value everywhere has none, "
                "give mean and std"
            )
        with np.errstate(over="ignore"):
            if not np.isfinite(self._table).all():
                raise ValueError(
                    f"mean={self.mean} and std={self.std} make images of values that float32 does "
                    "not hold; give those of pixels in units of the largest value"
                )
        if not 0 <= self.shift < min(self.shape[:2]):
            raise ValueError(
                f"shift={self.shift} is not in [0, {min(self.shape[:2])}), the side of the images "
                f"of shape {self.shape}"
            )

    @property
    def lengths(self) -> None:
        """No image has padding."""

    @property
    def samples(self) -> int:
        """Number of images."""
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        height, width, channels = self.pixels.shape[1:]
        return height, width, channels

    def take(self, index: np.ndarray) -> Batch:
        """The images at `index`, normalised."""
        return self._batch(self._normalised(self.pixels[index]), index)

    def augmented(self, index: np.ndarray, seed: int, epoch: int) -> Batch:
        """The images at `index`, moved, mirrored, normalised, and with noise added."""
        values = int(np.prod(self.shape))
        count = augment.words_needed(values, self.shift, self.flip, self.noise)
        if count == 0:
            return self.take(index)
        words = sample_words(seed, epoch, index, count)
        image = self._normalised(
            augment.shift_and_flip(self.pixels, index, words, self.shift, self.flip)
        )
        if self.noise > 0:
            noise = augment.gaussian(words, values) * np.float32(self.noise)
            image += noise.reshape(image.shape)
        return self._batch(image, index)

    def _batch(self, image: np.ndarray, index: np.ndarray) -> Batch:
        batch = {"image": image, "weight": np.ones(len(index), np.float32)}
        return batch if self.labels is None else {**batch, "label": self.labels[index]}

    @cached_property
    def _table(self) -> np.ndarray:
        """(channels, 256) float32: a byte has 256 values, so each is normalised only once."""
        values = np.arange(256) / self.scale
        mean, std = np.array(self.mean)[:, None], np.array(self.std)[:, None]
        return ((values - mean) / std).astype(np.float32)

    def _normalised(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.shape[-1] == 1:
            return np.take(self._table[0], pixels)
        image = np.empty(pixels.shape, np.float32)
        for channel, table in enumerate(self._table):
            image[..., channel] = np.take(table, pixels[..., channel])
        return image


def check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    """Raises ValueError unless all labels are in [0, classes)."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise ValueError(
            f"{where}: label {labels[wrong[0]]} of sample {wrong[0]} is not in "
            f"[0, classes={classes}); {wrong.size} of {labels.size} are out of range"
        )


def measure(pixels: np.ndarray, scale: float = 255.0) -> tuple[tuple[float, ...], ...]:
    """Mean and standard deviation of each channel of pixels / scale, exact up to one rounding.

    Args:
      pixels: (samples, height, width, channels) uint8.
      scale: as in `Images`.
    """
    means, stds = [], []
    for channel in range(pixels.shape[3]):
        count = np.bincount(pixels[..., channel].ravel(), minlength=256)
        values = np.arange(256)
        total, first = int(count.sum()), int(count @ values)
        second = int(count @ values**2)
        means.append(first / total / scale)
        # In whole numbers, which do not cancel: n sum x^2 - (sum x)^2 over n^2.
        stds.append(((total * second - first**2) / total**2) ** 0.5 / scale)
    return tuple(means), tuple(stds)
