"""Labelled images in memory, and the order in which training and evaluation see them.

The order is a pure function of (seed, epoch), so that the state of a run is three numbers: seed,
epoch and step. Nothing here depends on the platform, the process or what was drawn before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

Batch = dict[str, np.ndarray]
"""image: (batch, height, width, channels) float32; label: (batch,) int32; weight: (batch,) float32,
1 for a sample that counts and 0 for padding."""


@dataclass(frozen=True, eq=False)
class Arrays:
    """Labelled images.

    Attributes:
      images: (samples, height, width, channels) float32.
      labels: (samples,) int32, in [0, classes).
      classes: number of classes.

    Raises:
      ValueError: another rank or dtype, not one label an image, no data, or a label out of range.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: int

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.dtype != np.float32:
            raise ValueError(
                f"images: {images.dtype} {images.shape} is not a float32 array of shape "
                "(samples, height, width, channels)"
            )
        if labels.shape != images.shape[:1] or labels.dtype != np.int32:
            raise ValueError(
                f"labels: {labels.dtype} {labels.shape} is not an int32 array of one label an "
                f"image, {images.shape[:1]}"
            )
        if images.size == 0:
            raise ValueError(f"images: shape {images.shape} holds no data; give at least one image")
        wrong = np.flatnonzero((labels < 0) | (labels >= self.classes))
        if wrong.size:
            raise ValueError(
                f"labels: label {labels[wrong[0]]} of sample {wrong[0]} is not in "
                f"[0, classes={self.classes}); {wrong.size} of {labels.size} are out of range"
            )

    @property
    def samples(self) -> int:
        """Number of labelled images."""
        return self.labels.size


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set in two parts, normalised by one mean and deviation.

    Attributes:
      train, validation: the two parts, with equal image shapes and classes.
      mean, std: of the train part's values before normalisation: x = (raw - mean) / std.

    Raises:
      ValueError: the parts differ in image shape or in classes.
    """

    train: Arrays
    validation: Arrays
    mean: float
    std: float

    def __post_init__(self) -> None:
        train, validation = self.train, self.validation
        if train.images.shape[1:] != validation.images.shape[1:]:
            raise ValueError(
                f"validation: images of shape {validation.images.shape[1:]}, but those of train "
                f"have {train.images.shape[1:]}"
            )
        if train.classes != validation.classes:
            raise ValueError(
                f"validation: {validation.classes} classes, but train has {train.classes}"
            )

    @property
    def classes(self) -> int:
        """Number of classes of both parts."""
        return self.train.classes


def from_dataset(dataset: Dataset, classes: int) -> Arrays:
    """The columns "image" (height, width, channels) and "label" of a map-style dataset, in memory.

    The values are converted to float32 and the labels to int32, and otherwise kept as they are.

    Raises:
      ValueError: a column is absent, or see `Arrays`.
    """
    absent = {"image", "label"} - set(dataset.column_names)
    if absent:
        raise ValueError(
            f"dataset: no column {sorted(absent)}; it has {dataset.column_names}. "
            "Rename its columns to 'image' and 'label'"
        )
    columns = dataset.with_format("numpy")[:]
    # The numpy format widens every integer to int64, whatever the feature's declared type is.
    images, labels = columns["image"].astype(np.float32), columns["label"].astype(np.int32)
    return Arrays(images, labels, classes)


def digits() -> Splits:
    """Handwritten digits as 8x8 grey scans, from the files that scikit-learn ships (no download).

    1,797 images (1, 8, 8 pixels of 0..16) of ten classes: scikit-learn's copy of the test set of
    "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI, 1998). The split is fixed
    and stratified by class: 1,437 train, 360 validation. Images are (n, 8, 8, 1), normalised by the
    train split.
    """
    # Imported here: `datasets` costs 0.7 to 1.0 s and scikit-learn 1.3 s, and most users of this
    # module (a resumed run's order, an evaluation of given arrays) need neither.
    from datasets import Array3D, Dataset, Features, Value
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    scans = load_digits()
    dataset = Dataset.from_dict(
        {"image": scans.images[..., None].astype(np.float32), "label": scans.target},
        features=Features({"image": Array3D((8, 8, 1), "float32"), "label": Value("int32")}),
    )
    first, second = train_test_split(
        np.arange(len(dataset)), test_size=0.2, stratify=scans.target, random_state=0
    )
    train = from_dataset(dataset.select(first), classes=10)
    validation = from_dataset(dataset.select(second), classes=10)
    mean = float(train.images.mean(dtype=np.float64))
    std = float(train.images.std(dtype=np.float64))

    def normalised(part: Arrays) -> Arrays:
        images = ((part.images.astype(np.float64) - mean) / std).astype(np.float32)
        return Arrays(images, part.labels, part.classes)

    return Splits(normalised(train), normalised(validation), mean, std)


def _philox(seed: int, epoch: int, stream: int) -> np.random.Philox:
    """The counter-based generator under the key (seed, epoch), at the start of one of its streams.

    The counter has four words; a stream is the last one and runs through the first, so that streams
    never meet.
    """
    for name, value in (("seed", seed), ("epoch", epoch)):
        if not 0 <= value < 2**64:
            raise ValueError(f"{name}={value} is not in [0, 2**64)")
    key = np.array([seed, epoch], dtype=np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, 0, 0, stream], dtype=np.uint64))


def epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of range(size) in which epoch `epoch` visits the samples: (size,) int64.

    Sample i is ranked by the i-th raw 64-bit word of Philox-4x64-10 (Salmon et al., SC 2011) under
    the key (seed, epoch). Those words are fixed by the algorithm, where numpy's own `permutation`
    may change between versions, so that an order is the same on every machine for good.

    Raises:
      ValueError: size < 1, or seed or epoch outside [0, 2**64).
    """
    if size < 1:
        raise ValueError(f"size={size} is not a number of samples; give at least 1")
    words = _philox(seed, epoch, stream=0).random_raw(size)
    return np.argsort(words, kind="stable").astype(np.int64)


def step_rng(seed: int, epoch: int, step: int) -> np.random.Generator:
    """The generator for the augmentation of one step, so that a resumed run draws the same.

    Independent of `epoch_order` and of every other (seed, epoch, step).

    Raises:
      ValueError: step < 0, or seed or epoch outside [0, 2**64).
    """
    if step < 0:
        raise ValueError(f"step={step} is negative")
    return np.random.Generator(_philox(seed, epoch, stream=step + 1))


def steps_per_epoch(arrays: Arrays, batch_size: int) -> int:
    """Number of full batches in an epoch.

    Raises:
      ValueError: batch_size < 1, or more than there are samples.
    """
    _check_batch_size(batch_size)
    if batch_size > arrays.samples:
        raise ValueError(
            f"batch_size={batch_size} is larger than the data, {arrays.samples} samples; an epoch "
            "would have no full batch"
        )
    return arrays.samples // batch_size


def batches(
    arrays: Arrays, batch_size: int, *, seed: int, epoch: int, start: int = 0
) -> Iterator[Batch]:
    """The full batches of one epoch in its order, from step `start` (for a resumed run) on.

    The remainder is dropped: every epoch leaves out other samples. Weights are all 1. Arguments are
    checked at the call, before the first batch is asked for.

    Raises:
      ValueError: batch_size < 1 or larger than the data, start not in [0, steps_per_epoch], or a
        bad seed or epoch.
    """
    steps = steps_per_epoch(arrays, batch_size)
    if not 0 <= start <= steps:
        raise ValueError(f"start={start} is not in [0, {steps}], the steps of an epoch")
    order = epoch_order(arrays.samples, seed, epoch)
    ones = np.ones(batch_size, np.float32)
    return (
        _batch(arrays, order[step * batch_size : (step + 1) * batch_size], ones)
        for step in range(start, steps)
    )


def eval_batches(arrays: Arrays, batch_size: int) -> Iterator[Batch]:
    """All samples in their own order, in batches of one shape.

    The last batch is filled up by starting again from the first sample, with weight 0, so that sums
    over `weight` count every sample exactly once. A batch larger than the data is filled up too.

    Raises:
      ValueError: batch_size < 1.
    """
    _check_batch_size(batch_size)
    padded = -(-arrays.samples // batch_size) * batch_size
    return (
        _batch(arrays, index % arrays.samples, (index < arrays.samples).astype(np.float32))
        for index in np.arange(padded).reshape(-1, batch_size)
    )


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is less than 1")


def _batch(arrays: Arrays, index: np.ndarray, weight: np.ndarray) -> Batch:
    # Every batch owns its arrays: one that a caller changes in place must not change the next.
    return {
        "image": arrays.images[index],
        "label": arrays.labels[index],
        "weight": weight.copy(),
    }


def augment_shift(images: np.ndarray, rng: np.random.Generator, pixels: int = 1) -> np.ndarray:
    """Moves each image by its own whole number of pixels, uniform in [-pixels, pixels] both ways.

    The border that a move lays open takes the value of the nearest edge pixel.

    Args:
      images: (batch, height, width, channels), any dtype; not changed.
      rng: draws (2, batch) integers, downward moves first; see `step_rng`.
      pixels: the largest move, less than height and width.

    Returns:
      An array like `images`.

    Raises:
      ValueError: images of another rank, or pixels out of range.
    """
    if images.ndim != 4:
        raise ValueError(f"images: shape {images.shape} is not (batch, height, width, channels)")
    count, height, width, _ = images.shape
    if not 0 <= pixels < min(height, width):
        raise ValueError(
            f"pixels={pixels} is not in [0, {min(height, width)}), the side of the images"
        )
    down, right = rng.integers(-pixels, pixels + 1, size=(2, count))
    rows = np.clip(np.arange(height)[None, :] - down[:, None], 0, height - 1)
    columns = np.clip(np.arange(width)[None, :] - right[:, None], 0, width - 1)
    return images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
