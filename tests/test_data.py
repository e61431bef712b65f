"""Data order against a Philox written from the paper; splits against scikit-learn's own files."""

import hashlib
import itertools
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data import (
    Arrays,
    Splits,
    augment_shift,
    batches,
    digits,
    epoch_order,
    eval_batches,
    from_dataset,
    step_rng,
    steps_per_epoch,
)

MASK = 2**64 - 1


def philox4x64(counter: list[int], key: list[int]) -> list[int]:
    """Ten rounds of Philox-4x64 in whole numbers, after Salmon et al. (SC 2011), section 3.3."""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (second >> 64) ^ b ^ k0, second & MASK, (first >> 64) ^ d ^ k1, first & MASK
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return [a, b, c, d]


def reference_words(count: int, seed: int, epoch: int) -> list[int]:
    # numpy advances the counter before each block of four words: the first block is number 1.
    blocks = [philox4x64([i + 1, 0, 0, 0], [seed, epoch]) for i in range(-(-count // 4))]
    return list(itertools.chain.from_iterable(blocks))[:count]


def numbered(samples: int, classes: int = 7) -> Arrays:
    """Images that are all their own index, so that a batch says which samples it holds."""
    index = np.arange(samples)
    images = np.broadcast_to(index[:, None, None, None], (samples, 2, 3, 1)).astype(np.float32)
    return Arrays(images, (index % classes).astype(np.int32), classes)


def test_the_reference_philox_meets_the_authors_known_answers():
    # Random123, kat_vectors: philox4x64 with 10 rounds, counter and key zero and all ones.
    assert philox4x64([0] * 4, [0] * 2) == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]
    assert philox4x64([MASK] * 4, [MASK] * 2) == [
        0x87B092C3013FE90B,
        0x438C3C67BE8D0224,
        0x9CC7D7C69CD777B6,
        0xA09CAEBF594F0BA0,
    ]


word = st.integers(0, MASK)


@given(size=st.integers(1, 300), seed=word, epoch=word)
@settings(max_examples=50, deadline=None)
def test_epoch_order_ranks_the_samples_by_philox_words(size, seed, epoch):
    words = reference_words(size, seed, epoch)
    order = epoch_order(size, seed, epoch)
    assert order.dtype == np.int64
    assert order.tolist() == sorted(range(size), key=words.__getitem__)


def test_epoch_order_is_uniform_over_permutations():
    counts = Counter(tuple(epoch_order(3, 0, epoch).tolist()) for epoch in range(6000))
    # Six permutations, 1000 each expected, deviation sqrt(6000 * 1/6 * 5/6) = 29; five of them.
    assert len(counts) == 6
    assert all(abs(count - 1000) < 145 for count in counts.values())


def test_seed_and_epoch_are_not_interchangeable():
    orders = {tuple(epoch_order(50, s, e).tolist()) for s in range(4) for e in range(4)}
    assert len(orders) == 16


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0, 0, 0), "size=0"),
        ((5, -1, 0), "seed=-1"),
        ((5, 0, -1), "epoch=-1"),
        ((5, 2**64, 0), "seed=18446744073709551616"),
    ],
)
def test_epoch_order_refuses(arguments, match):
    with pytest.raises(ValueError, match=match):
        epoch_order(*arguments)


def test_step_rng_draws_depend_on_all_three_numbers_and_never_on_the_order():
    drawn = [step_rng(s, e, t).bit_generator.random_raw(500) for s in (0, 1) for e in (0, 1)
             for t in (0, 1, 2**40)]  # fmt: skip
    drawn += [np.array(reference_words(500, s, e), np.uint64) for s in (0, 1) for e in (0, 1)]
    assert len(np.unique(np.concatenate(drawn))) == 16 * 500
    # Step t runs through the counters [1.., 0, 0, t + 1].
    assert step_rng(3, 4, 5).bit_generator.random_raw(4).tolist() == philox4x64(
        [1, 0, 0, 6], [3, 4]
    )
    with pytest.raises(ValueError, match="step=-1"):
        step_rng(0, 0, -1)


@given(data=st.data(), samples=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_batches_follow_the_order_and_resume_at_any_step(data, samples):
    size = data.draw(st.integers(1, samples))
    start = data.draw(st.integers(0, samples // size))
    arrays = numbered(samples)
    order = sorted(range(samples), key=reference_words(samples, 11, 5).__getitem__)
    got = list(batches(arrays, size, seed=11, epoch=5, start=start))
    assert len(got) == samples // size - start == steps_per_epoch(arrays, size) - start
    for step, batch in enumerate(got, start):
        expected = order[step * size : (step + 1) * size]
        assert set(batch) == {"image", "label", "weight"}
        assert batch["image"].shape == (size, 2, 3, 1)
        assert batch["image"][:, 1, 2, 0].tolist() == expected
        assert batch["label"].tolist() == [i % 7 for i in expected]
        assert batch["weight"].tolist() == [1.0] * size
        assert [batch[k].dtype for k in ("image", "label", "weight")] == ["f4", "i4", "f4"]


@given(samples=st.integers(1, 60), size=st.integers(1, 80))
@settings(max_examples=60, deadline=None)
def test_eval_batches_count_every_sample_once_in_one_shape(samples, size):
    counted: Counter = Counter()
    got = list(eval_batches(numbered(samples), size))
    for batch in got:
        assert batch["image"].shape == (size, 2, 3, 1)
        assert batch["label"].shape == batch["weight"].shape == (size,)
        assert [batch[k].dtype for k in ("image", "label", "weight")] == ["f4", "i4", "f4"]
        index = batch["image"][:, 0, 0, 0].astype(int)
        assert batch["label"].tolist() == (index % 7).tolist()  # padding is real samples too
        for i, weight in zip(index.tolist(), batch["weight"].tolist(), strict=True):
            counted[i] += weight
    assert counted == dict.fromkeys(range(samples), 1.0)
    assert len(got) == (samples + size - 1) // size


def test_a_batch_changed_in_place_changes_nothing_else():
    arrays = numbered(6)
    for make in (lambda: batches(arrays, 2, seed=0, epoch=0), lambda: eval_batches(arrays, 4)):
        untouched = list(make())
        seen = []
        for batch in make():
            seen.append({name: value.copy() for name, value in batch.items()})
            for value in batch.values():
                value[...] = 9
        for one, other in zip(untouched, seen, strict=True):
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 11}, "batch_size=11 is larger than the data, 10 samples"),
        ({"start": -1}, r"start=-1 is not in \[0, 3\]"),
        ({"start": 4}, r"start=4 is not in \[0, 3\]"),
        ({"seed": -1}, "seed=-1"),
        ({"epoch": -1}, "epoch=-1"),
    ],
)
def test_batches_refuse_at_the_call(change, match):
    with pytest.raises(ValueError, match=match):
        batches(numbered(10), **{"batch_size": 3, "seed": 0, "epoch": 0, **change})


def test_eval_batches_refuse_at_the_call():
    with pytest.raises(ValueError, match="batch_size=0"):
        eval_batches(numbered(10), 0)


@pytest.mark.parametrize(
    ("images", "labels", "match"),
    [
        (np.zeros((2, 8, 8), np.float32), np.zeros(2, np.int32), r"images: float32 \(2, 8, 8\)"),
        (np.zeros((2, 8, 8, 1)), np.zeros(2, np.int32), "images: float64"),
        (np.zeros((2, 8, 8, 1), np.float32), np.zeros(3, np.int32), r"labels: int32 \(3,\)"),
        (np.zeros((2, 8, 8, 1), np.float32), np.zeros(2, np.int64), "labels: int64"),
        (np.zeros((0, 8, 8, 1), np.float32), np.zeros(0, np.int32), "holds no data"),
        (np.zeros((2, 8, 8, 1), np.float32), np.array([0, 3], np.int32), "label 3 of sample 1"),
        (np.zeros((2, 8, 8, 1), np.float32), np.array([-1, 0], np.int32), "label -1 of sample 0"),
    ],
)
def test_arrays_refuse(images, labels, match):
    with pytest.raises(ValueError, match=match):
        Arrays(images, labels, classes=3)


def test_splits_refuse_parts_that_do_not_match():
    one = numbered(4)
    other = Arrays(np.zeros((1, 2, 2, 1), np.float32), np.zeros(1, np.int32), 7)
    with pytest.raises(ValueError, match=r"validation: images of shape \(2, 2, 1\)"):
        Splits(one, other, 0.0, 1.0)
    with pytest.raises(ValueError, match="validation: 8 classes, but train has 7"):
        Splits(one, numbered(4, classes=8), 0.0, 1.0)


def test_digits_hold_every_scan_of_scikit_learn_once_in_a_fixed_stratified_split():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    scans = load_digits()
    first, second = train_test_split(
        np.arange(1797), test_size=0.2, stratify=scans.target, random_state=0
    )
    # The split must outlive a scikit-learn that draws another one.
    assert hashlib.sha256(np.sort(second).astype("<i8").tobytes()).hexdigest() == (
        "2fbaae31b8c6aad12464a07771b64269876d904bfed86f77a63c8265fa201621"
    )
    splits = digits()
    assert splits.classes == 10
    raw = scans.images[first]
    assert splits.mean == pytest.approx(raw.mean(), rel=1e-12)
    assert splits.std == pytest.approx(raw.std(), rel=1e-12)
    for part, index, size in ((splits.train, first, 1437), (splits.validation, second, 360)):
        assert part.samples == size == index.size
        assert part.images.shape == (size, 8, 8, 1)
        np.testing.assert_array_equal(part.labels, scans.target[index])
        restored = part.images[..., 0].astype(np.float64) * splits.std + splits.mean
        np.testing.assert_allclose(restored, scans.images[index], atol=2e-6, rtol=0)
        share = np.bincount(part.labels) / np.bincount(scans.target)
        np.testing.assert_allclose(share, size / 1797, atol=1 / 174)  # one of the rarest class
    assert abs(splits.train.images.mean(dtype=np.float64)) < 1e-7
    assert abs(splits.train.images.std(dtype=np.float64) - 1) < 1e-7


def test_from_dataset_takes_a_map_style_dataset():
    from datasets import Dataset

    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3, 1)
    arrays = from_dataset(Dataset.from_dict({"image": pixels, "label": [1, 0]}), classes=2)
    np.testing.assert_array_equal(arrays.images, pixels.astype(np.float32))
    assert arrays.labels.tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"no column \['image'\]; it has \['img', 'label'\]"):
        from_dataset(Dataset.from_dict({"img": pixels, "label": [1, 0]}), classes=2)


def test_importing_the_module_imports_no_slow_library():
    code = "import sys, zoo.data; print({'datasets', 'sklearn', 'jax'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("pixels", [0, 1, 3])
def test_augment_shift_equals_padding_and_cutting(pixels):
    images = np.random.default_rng(0).standard_normal((200, 5, 4, 2)).astype(np.float32)
    before = images.copy()
    moved = augment_shift(images, np.random.default_rng(1), pixels)
    down, right = np.random.default_rng(1).integers(-pixels, pixels + 1, size=(2, 200))
    for image, result, dy, dx in zip(images, moved, down, right, strict=True):
        wide = np.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)), mode="edge")
        top, left = pixels - dy, pixels - dx
        np.testing.assert_array_equal(result, wide[top : top + 5, left : left + 4])
    assert set(zip(down, right, strict=True)) == set(
        itertools.product(range(-pixels, pixels + 1), repeat=2)
    )
    assert moved.dtype == images.dtype
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize(
    ("shape", "pixels", "match"),
    [
        ((2, 5, 4, 1), 4, r"pixels=4 is not in \[0, 4\)"),
        ((2, 5, 4, 1), -1, "pixels=-1"),
        ((5, 4, 1), 1, r"shape \(5, 4, 1\)"),
    ],
)
def test_augment_shift_refuses(shape, pixels, match):
    with pytest.raises(ValueError, match=match):
        augment_shift(np.zeros(shape, np.float32), np.random.default_rng(0), pixels)
