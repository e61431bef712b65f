"""A data set for a model, and how long its training waits for batches made in the background."""

import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from zoo.bench.ours import Ours
from zoo.data import Batch, DataSpec, Split, load, prefetch, train_batches
from zoo.data.images import Images

# What the presets of these data do to an image before each epoch.
AUGMENTATION = {"shift": 2, "flip": True}
RANDOM_IMAGES = 4096
DEPTH = 2
"""Batches made ahead, as in training."""


def tokens_per_sample(config: Any) -> int:
    """Tokens that a sample of a model is made of: patches, or positions of a text."""
    return config.tokens if hasattr(config, "image_size") else config.positions


def split_for(config: Any, images: str | None = None, text: str | None = None) -> tuple[Split, str]:
    """A training split that fits a model, and what it is.

    Args:
      config: of the model.
      images: `DataSpec.source` for a ViT; None for scikit-learn's digits where they fit, else
        random bytes, which take as long to prepare as any others.
      text: the same for a BERT; None for "topics".

    Raises:
      ValueError: the source cannot be loaded, or its images have another shape than the model's.
    """
    if not hasattr(config, "image_size"):
        source = text or "topics"
        spec = DataSpec(
            task="mlm", source=source, vocabulary=config.vocabulary, sequence=config.positions
        )
        return load(spec).train, source
    shape = (config.image_size, config.image_size, config.channels)
    if images is None and shape != (8, 8, 1):
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (RANDOM_IMAGES, *shape), np.uint8)
        labels = rng.integers(0, config.classes, RANDOM_IMAGES, np.int32)
        level, spread = (0.5,) * config.channels, (0.29,) * config.channels
        split = Images(pixels, labels, config.classes, level, spread, **AUGMENTATION)
        return split, "random images"
    source = images or "digits"
    split = load(DataSpec(task="classify", source=source, **AUGMENTATION)).train
    found = split.take(np.arange(1))["image"].shape[1:]
    if found != shape:
        raise ValueError(
            f"images={source!r} has images of shape {found}, but {config.name} needs {shape}"
        )
    return split, source


def batches(split: Split, batch_size: int) -> Iterator[Batch]:
    """Training batches of one epoch after the other, without end."""
    epochs = (train_batches(split, batch_size, seed=0, epoch=epoch) for epoch in itertools.count())
    return itertools.chain.from_iterable(epochs)


class Waiting(NamedTuple):
    """What feeding costs a training step.

    Attributes:
      step: seconds of a step, all waiting included; mean over the steps.
      waiting: the share of it in which the step waits for its batch.
      making: seconds that one batch takes to be made and put on the device, while nothing else
        runs; median. On a CPU it also takes cores from the steps, which no waiting shows.
    """

    step: float
    waiting: float
    making: float


def waiting(ours: Ours, split: Split, batch_size: int, steps: int) -> Waiting:
    """Trains on a split through `zoo.data.prefetch` and measures what it waits for.

    Args:
      ours: compiled already.
      split, batch_size: the data.
      steps: how many, after those that use up the batches made while nothing ran.
    """
    source = batches(split, batch_size)
    making = []
    for _ in range(5):
        began = time.perf_counter()
        ours.put(next(source))
        making.append(time.perf_counter() - began)
    with prefetch(source, ours.put, DEPTH) as fed:
        for placed in itertools.islice(fed, DEPTH + 1):
            ours.step(placed)
        waited, began = fed.waited, time.perf_counter()
        for placed in itertools.islice(fed, steps):
            ours.step(placed)
        seconds, waited = time.perf_counter() - began, fed.waited - waited
    return Waiting(seconds / steps, waited / seconds, statistics.median(making))
