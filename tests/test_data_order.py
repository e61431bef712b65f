"""Data order against a Philox written from the paper; batches of one process against those of many,
of the real splits: augmented images, masked and labelled texts."""

import itertools
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data import (
    epoch_order,
    eval_batches,
    sample_rng,
    steps_per_epoch,
    train_batches,
)
from zoo.data.images import Images
from zoo.data.order import batch_order, below, pair_order, sample_words
from zoo.data.text import MaskedText, Texts

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


def reference_words(count: int, seed: int, epoch: int, stream: int = 0) -> list[int]:
    # numpy advances the counter before each block of four words: the first block is number 1.
    blocks = [philox4x64([i + 1, 0, 0, stream], [seed, epoch]) for i in range(-(-count // 4))]
    return list(itertools.chain.from_iterable(blocks))[:count]


def numbered(samples: int) -> Images:
    """Images that hold their own index in two pixels, so that a batch says which it has."""
    index = np.arange(samples)
    pixels = np.stack([index // 256, index % 256], 1).astype(np.uint8)[:, :, None, None]
    return Images(pixels, (index % 7).astype(np.int32), 7, (0.0,), (1.0,), scale=1.0)


def which(batch) -> list[int]:
    return (batch["image"][:, 0, 0, 0] * 256 + batch["image"][:, 1, 0, 0]).astype(int).tolist()


def augmented_images(samples: int = 23) -> Images:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (samples, 5, 4, 3), np.uint8)
    labels = rng.integers(0, 4, samples, np.int32)
    return Images(pixels, labels, 4, (0.5,) * 3, (0.2,) * 3, shift=2, flip=True, noise=0.3)


def masked_text(samples: int = 23) -> MaskedText:
    tokens = np.random.default_rng(1).integers(5, 40, (samples, 16), np.int32)
    tokens[:, 0], tokens[:, -1] = 2, 3
    return MaskedText(tokens, 0.3, 4, np.arange(40) >= 5)


def labelled_text(samples: int = 23) -> Texts:
    rng = np.random.default_rng(2)
    token, kind = rng.integers(0, 40, (2, samples, 9), np.int32)
    length = rng.integers(1, 10, samples, np.int32)
    return Texts(token, kind % 2, length, rng.integers(0, 3, samples, np.int32), 3)


SPLITS = {"images": augmented_images, "masked": masked_text, "labelled": labelled_text}
split_names = pytest.mark.parametrize("name", SPLITS)


def assert_equal(one, other):
    assert set(one) == set(other)
    for key in one:
        assert one[key].dtype == other[key].dtype
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


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
@settings(max_examples=40, deadline=None)
def test_epoch_order_ranks_the_samples_by_philox_words(size, seed, epoch):
    words = reference_words(size, seed, epoch)
    order = epoch_order(size, seed, epoch)
    assert order.dtype == np.int64
    assert order.tolist() == sorted(range(size), key=words.__getitem__)


def test_epoch_order_is_uniform_over_permutations():
    counts = Counter(tuple(epoch_order(3, 0, epoch).tolist()) for epoch in range(3000))
    # Six permutations, 500 each expected, deviation sqrt(3000 * 1/6 * 5/6) = 20; five of them.
    assert len(counts) == 6
    assert all(abs(count - 500) < 102 for count in counts.values())


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


@given(seed=word, epoch=word, samples=st.lists(st.integers(0, 2**63 - 1), max_size=6),
       count=st.integers(0, 9))  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_samples_words_are_philox_under_its_own_counter(seed, epoch, samples, count):
    words = sample_words(seed, epoch, np.array(samples, np.int64), count)
    assert words.shape == (len(samples), count)
    assert words.dtype == np.uint64
    for sample, row in zip(samples, words.tolist(), strict=True):
        # Sample i runs through the counters [1.., 0, 0, i + 1]; stream 0 is the order's.
        assert row == reference_words(count, seed, epoch, sample + 1)
        assert sample_rng(seed, epoch, sample).bit_generator.random_raw(count).tolist() == row


def test_words_of_samples_epochs_seeds_and_orders_never_meet():
    drawn = [sample_words(s, e, np.arange(3), 200) for s in (0, 1) for e in (0, 1)]
    drawn += [np.array([reference_words(200, s, e)], np.uint64) for s in (0, 1) for e in (0, 1)]
    assert len(np.unique(np.concatenate(drawn))) == 16 * 200


def test_batches_are_ranked_by_a_stream_of_their_own():
    words = reference_words(50, 5, 6, stream=MASK)
    assert batch_order(50, 5, 6).tolist() == sorted(range(50), key=words.__getitem__)
    with pytest.raises(ValueError, match=r"is not in \[0, 2\*\*64 - 2\)"):
        sample_rng(5, 6, MASK - 1)  # whose stream it is


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0, 0, np.array([3, -2]), 1), "sample -2 is negative"),
        ((0, 0, np.array([3]), -1), "count=-1"),
        ((-1, 0, np.array([3]), 1), "seed=-1"),
        ((0, 2**64, np.array([3]), 1), "epoch=18446744073709551616"),
    ],
)
def test_sample_words_refuse(arguments, match):
    with pytest.raises(ValueError, match=match):
        sample_words(*arguments)
    with pytest.raises(ValueError, match="sample=-1"):
        sample_rng(0, 0, -1)


@given(words=st.lists(word, max_size=20), bound=st.integers(1, 2**31))
def test_below_scales_the_upper_half_of_a_word(words, bound):
    got = below(np.array(words, np.uint64), bound)
    assert got.dtype == np.int64
    assert got.tolist() == [(w >> 32) * bound >> 32 for w in words]
    edges = below(np.array([0, 2**32 - 1, MASK], np.uint64), bound).tolist()
    assert edges == [0, 0, bound - 1]


@given(data=st.data(), samples=st.integers(1, 400))
@settings(max_examples=50, deadline=None)
def test_batches_follow_the_order_and_resume_at_any_step(data, samples):
    size = data.draw(st.integers(1, samples))
    start = data.draw(st.integers(0, samples // size))
    split = numbered(samples)
    order = sorted(range(samples), key=reference_words(samples, 11, 5).__getitem__)
    got = list(train_batches(split, size, seed=11, epoch=5, start=start))
    assert len(got) == samples // size - start == steps_per_epoch(split, size) - start
    for step, batch in enumerate(got, start):
        expected = order[step * size : (step + 1) * size]
        assert set(batch) == {"image", "label", "weight"}
        assert which(batch) == expected
        assert batch["label"].tolist() == [i % 7 for i in expected]
        assert batch["weight"].tolist() == [1.0] * size
        assert [batch[k].dtype for k in ("image", "label", "weight")] == ["f4", "i4", "f4"]


@given(pairs=st.integers(1, 60), half=st.integers(1, 60), start=st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_pairs_stay_side_by_side_in_an_order_of_their_own(pairs, half, start):
    half = min(half, pairs)
    start = min(start, pairs // half)
    got = train_batches(numbered(2 * pairs), 2 * half, seed=11, epoch=5, start=start, pairs=True)
    order = sorted(range(pairs), key=reference_words(pairs, 11, 5).__getitem__)
    shown = order[start * half : pairs // half * half]
    assert [i for b in got for i in which(b)] == [i for p in shown for i in (2 * p, 2 * p + 1)]


def test_no_sample_is_lost_or_repeated_within_an_epoch_nor_left_out_for_good():
    split, left_out = numbered(31), Counter()
    for epoch in range(30):
        seen = [i for b in train_batches(split, 8, seed=4, epoch=epoch) for i in which(b)]
        assert len(seen) == len(set(seen)) == 24
        left_out.update(set(range(31)) - set(seen))
    assert max(left_out.values()) < 20  # 7 of 31 each time: 6.8 expected, deviation 2.3


@split_names
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_resumed_run_on_many_processes_sees_what_one_process_sees(name, data):
    split = SPLITS[name]()
    size = data.draw(st.sampled_from([1, 4, 8, 23]))
    start = data.draw(st.integers(0, split.samples // size))
    processes = data.draw(st.sampled_from([1, 2, 4]))
    rows = [np.array(r, np.int64) for r in np.array_split(
        data.draw(st.permutations(range(size))), processes)]  # fmt: skip
    whole = list(train_batches(split, size, seed=3, epoch=2))[start:]
    shares = [list(train_batches(split, size, seed=3, epoch=2, start=start, rows=r)) for r in rows]
    assert {len(share) for share in shares} == {len(whole)}
    for step, batch in enumerate(whole):
        union = {key: np.empty_like(value) for key, value in batch.items()}
        for share, r in zip(shares, rows, strict=True):
            for key, value in share[step].items():
                union[key][r] = value
        assert_equal(union, batch)


@split_names
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_what_becomes_of_a_sample_does_not_depend_on_its_batch(name, data):
    split = SPLITS[name]()
    index = np.array(data.draw(st.lists(st.integers(0, split.samples - 1), min_size=1)), np.int64)
    whole = split.augmented(np.arange(split.samples), 5, 6)
    assert_equal(split.augmented(index, 5, 6), {key: v[index] for key, v in whole.items()})


@pytest.mark.parametrize("name", ["images", "masked"])
def test_epochs_and_seeds_differ_and_evaluation_is_always_the_same(name):
    split, every = SPLITS[name](), np.arange(23)
    key = {"images": "image", "masked": "position"}[name]
    seen = [split.augmented(every, s, e)[key].tobytes() for s in (0, 1) for e in (0, 1)]
    assert len({*seen, split.take(every)[key].tobytes()}) == 5
    assert_equal(split.take(every), SPLITS[name]().take(every))


@given(samples=st.integers(1, 60), size=st.integers(1, 80))
@settings(max_examples=60, deadline=None)
def test_eval_batches_count_every_sample_once_in_one_shape(samples, size):
    counted: Counter = Counter()
    got = list(eval_batches(numbered(samples), size))
    for batch in got:
        assert batch["image"].shape == (size, 2, 1, 1)
        assert batch["label"].shape == batch["weight"].shape == (size,)
        index = which(batch)
        assert batch["label"].tolist() == [i % 7 for i in index]  # padding is real samples too
        for i, weight in zip(index, batch["weight"].tolist(), strict=True):
            counted[i] += weight
    assert counted == dict.fromkeys(range(samples), 1.0)
    assert len(got) == (samples + size - 1) // size


@split_names
@pytest.mark.parametrize("size", [1, 5, 23, 40])
def test_eval_batches_of_many_processes_are_those_of_one_and_keep_the_datas_order(name, size):
    split = SPLITS[name]()
    everything = split.take(np.arange(split.samples))
    whole = list(eval_batches(split, size))
    flat = {k: np.concatenate([b[k] for b in whole])[: split.samples] for k in everything}
    assert_equal(flat, everything)
    weights = np.concatenate([b["weight"].reshape(size, -1) for b in whole])
    assert not weights[split.samples :].any()
    halves = [list(eval_batches(split, size, rows=np.arange(size)[i::2])) for i in (0, 1)]
    for batch, even, odd in zip(whole, *halves, strict=True):
        assert_equal(even, {key: value[0::2] for key, value in batch.items()})
        assert_equal(odd, {key: value[1::2] for key, value in batch.items()})


@split_names
def test_a_batch_changed_in_place_changes_nothing_else(name):
    split = SPLITS[name]()
    for make in (
        lambda: train_batches(split, 5, seed=0, epoch=0),
        lambda: eval_batches(split, 5),
    ):
        untouched = list(make())
        for batch, before in zip(make(), untouched, strict=True):
            assert_equal(batch, before)
            for value in batch.values():
                value[...] = 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 11}, "batch_size=11 is larger than the data, 10 samples"),
        ({"start": -1}, r"start=-1 is not in \[0, 3\]"),
        ({"start": 4}, r"start=4 is not in \[0, 3\]"),
        ({"seed": -1}, "seed=-1"),
        ({"epoch": -1}, "epoch=-1"),
        ({"rows": np.array([0, 3])}, r"rows: position 3 is not in \[0, batch_size=3\)"),
        ({"rows": np.array([-1])}, "rows: position -1"),
        ({"rows": np.array([[0]])}, r"rows: int64 \(1, 1\)"),
        ({"rows": np.array([0.0])}, r"rows: float64"),
        ({"pairs": True}, "pairs=True with batch_size=3 .* give an even size"),
    ],
)
def test_train_batches_refuse_at_the_call(change, match):
    with pytest.raises(ValueError, match=match):
        train_batches(numbered(10), **{"batch_size": 3, "seed": 0, "epoch": 0, **change})


@pytest.mark.parametrize("size", [0, 1, 9])
def test_samples_that_are_not_in_pairs_have_no_order_of_pairs(size):
    with pytest.raises(ValueError, match=f"size={size} samples are not in pairs"):
        pair_order(size, 0, 0)


def test_eval_batches_refuse_at_the_call():
    with pytest.raises(ValueError, match="batch_size=0"):
        eval_batches(numbered(10), 0)
    with pytest.raises(ValueError, match="rows: position 4"):
        eval_batches(numbered(10), 4, rows=np.array([4]))


def test_importing_the_package_imports_no_slow_library():
    slow = "{'datasets', 'sklearn', 'pyarrow', 'PIL', 'pandas'}"
    code = f"import sys, zoo.data; print({slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
