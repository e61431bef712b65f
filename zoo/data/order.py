"""The order in which an epoch visits the samples, and each sample's own random numbers.

Both are pure functions of counters: the order of (seed, epoch), the numbers of (seed, epoch,
sample). Nothing depends on the process, the batch, the step, or on what was drawn before, so that
runs on one process or many, resumed or not, see the same data.
"""

from __future__ import annotations

import numpy as np

WORD = 2**64
EVALUATION = (0, WORD - 1)
"""(seed, epoch) of the numbers that evaluation draws; no training run reaches this epoch."""
HELD_OUT = (0, WORD - 2)
"""(seed, epoch) of the order that picks a validation split where the data has none."""
BATCHES = WORD - 1
"""The stream of the order of batches: no data has as many samples."""


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
    return _ranked(size, seed, epoch, stream=0)


def pair_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """As `epoch_order`, with the samples 2 i and 2 i + 1 side by side: (size,) int64.

    Raises:
      ValueError: size is odd or < 2, or seed or epoch outside [0, 2**64).
    """
    if size < 2 or size % 2:
        raise ValueError(f"size={size} samples are not in pairs; give an even number of them")
    return (2 * epoch_order(size // 2, seed, epoch)[:, None] + np.arange(2)).reshape(-1)


def batch_order(steps: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of range(steps) for batches made beforehand, as `epoch_order` but from other
    words: (steps,) int64."""
    return _ranked(steps, seed, epoch, stream=BATCHES)


def _ranked(size: int, seed: int, epoch: int, stream: int) -> np.ndarray:
    words = _philox(seed, epoch, stream).random_raw(size)
    return np.argsort(words, kind="stable").astype(np.int64)


def sample_rng(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The generator of one sample in one epoch, independent of every other and of the order.

    Its raw words are those of `sample_words`, which draws them for many samples at once.

    Raises:
      ValueError: sample outside [0, 2**64 - 2), or seed or epoch outside [0, 2**64).
    """
    if not 0 <= sample < BATCHES - 1:
        raise ValueError(f"sample={sample} is not in [0, 2**64 - 2)")
    return np.random.Generator(_philox(seed, epoch, stream=sample + 1))


def sample_words(seed: int, epoch: int, samples: np.ndarray, count: int) -> np.ndarray:
    """The first `count` raw words of every sample's stream: (samples, count) uint64.

    One generator is moved from stream to stream, which takes 2 us a sample where making a generator
    takes 8; 128 samples of 200 words take 0.4 ms.

    Args:
      seed, epoch: see `sample_rng`.
      samples: (n,) whole numbers in [0, 2**63).
      count: how many words each.

    Raises:
      ValueError: a negative sample or count, or seed or epoch outside [0, 2**64).
    """
    if count < 0:
        raise ValueError(f"count={count} is negative")
    generator = _philox(seed, epoch, stream=0)
    state = generator.state
    counter = state["state"]["counter"]
    words = np.empty((len(samples), count), np.uint64)
    for row, sample in enumerate(np.asarray(samples).tolist()):
        if sample < 0:
            raise ValueError(f"samples: sample {sample} is negative")
        counter[3] = sample + 1
        # Assigning the state also empties the generator's buffer of words already made.
        generator.state = state
        words[row] = generator.random_raw(count)
    return words


def below(words: np.ndarray, bound: int) -> np.ndarray:
    """Whole numbers in [0, bound) from the upper halves of `words`: int64, of the same shape.

    Multiplying and keeping the upper part (Lemire, 2019) without rejection: no number's probability
    is off by more than 2**-32.
    """
    return (((words >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


def _philox(seed: int, epoch: int, stream: int) -> np.random.Philox:
    """The counter-based generator under the key (seed, epoch), at the start of one of its streams.

    The counter has four words; a stream is the last one and runs through the first, so that streams
    never meet.
    """
    for name, value in (("seed", seed), ("epoch", epoch)):
        if not 0 <= value < WORD:
            raise ValueError(f"{name}={value} is not in [0, 2**64)")
    key = np.array([seed, epoch], dtype=np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, 0, 0, stream], dtype=np.uint64))
