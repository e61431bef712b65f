"""Batches grouped by length against plain ones: the same texts, less padding, on any process."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data import epoch_order, train_batches
from zoo.data.images import Images
from zoo.data.lengths import MULTIPLE, WINDOW
from zoo.data.text import MaskedText, Texts


def texts(samples: int, sequence: int = 40, seed: int = 0) -> Texts:
    """Texts whose second token is their own number."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, sequence + 1, samples, np.int32)
    real = np.arange(sequence) < lengths[:, None]
    token = np.where(real, rng.integers(1, 50, (samples, sequence)), 0).astype(np.int32)
    token[:, 1] = np.arange(samples)
    kind = (real & (rng.random((samples, sequence)) < 0.5)).astype(np.int32)
    return Texts(token, kind, lengths, None, None)


def rows(batches) -> dict[int, dict]:
    """Number of a text -> its row, without the padding."""
    found = {}
    for batch in batches:
        for row, mask in enumerate(batch["attention_mask"]):
            number = int(batch["input_ids"][row, 1])
            assert number not in found
            found[number] = {
                name: batch[name][row][mask].tolist() for name in ("input_ids", "token_type_ids")
            } | {"weight": float(batch["weight"][row])}
            assert not batch["input_ids"][row][~mask].any()
    return found


@given(data=st.data(), samples=st.integers(1, 600))
@settings(max_examples=40, deadline=None)
def test_a_grouped_epoch_has_the_texts_of_a_plain_one(data, samples):
    size = data.draw(st.integers(1, samples))
    split, at = texts(samples), {"seed": 3, "epoch": data.draw(st.integers(0, 9))}
    grouped = list(train_batches(split, size, group_by_length=True, **at))
    plain = list(train_batches(split, size, **at))
    assert len(grouped) == len(plain)
    assert rows(grouped) == rows(plain)
    for batch in grouped:
        longest, width = batch["attention_mask"].sum(1).max(), batch["input_ids"].shape[1]
        assert longest <= width < longest + MULTIPLE
        assert width % MULTIPLE == 0 or width == 40
        assert (
            batch["input_ids"].shape
            == batch["token_type_ids"].shape
            == batch["attention_mask"].shape
            == (size, width)
        )
        assert all(array.flags.c_contiguous for array in batch.values())


@given(data=st.data(), pairs=st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_grouped_pairs_stay_together(data, pairs):
    size = 2 * data.draw(st.integers(1, pairs))
    split = texts(2 * pairs)
    at = {"seed": 3, "epoch": data.draw(st.integers(0, 9)), "pairs": True}
    grouped = list(train_batches(split, size, group_by_length=True, **at))
    assert rows(grouped) == rows(train_batches(split, size, **at))
    for batch in grouped:
        number = batch["input_ids"][:, 1]
        assert (number[::2] % 2 == 0).all()
        np.testing.assert_array_equal(number[1::2], number[::2] + 1)
        assert batch["attention_mask"].any(0)[: batch["input_ids"].shape[1] - MULTIPLE + 1].all()


def test_pairs_are_grouped_by_their_longer_text():
    split, size = texts(40 * 64), 64
    at = {"seed": 0, "epoch": 0, "pairs": True}
    spread = [
        np.ptp(batch["attention_mask"].sum(1).reshape(-1, 2).max(1))
        for batch in train_batches(split, size, group_by_length=True, **at)
    ]
    assert np.mean(spread) < 2
    with pytest.raises(ValueError, match="size=9 samples are not in pairs"):
        train_batches(texts(9), 2, seed=0, epoch=0, group_by_length=True, pairs=True)


def test_texts_of_like_length_share_a_batch_and_the_batches_come_in_no_order():
    split, size = texts(40 * 64), 64
    batches = list(train_batches(split, size, seed=0, epoch=0, group_by_length=True))
    spread = [np.ptp(batch["attention_mask"].sum(1)) for batch in batches]
    assert np.mean(spread) < 2  # of lengths of 2 to 40 in 40 batches: about 1
    widths = [batch["input_ids"].shape[1] for batch in batches]
    assert abs(np.corrcoef(widths, np.arange(len(widths)))[0, 1]) < 0.5
    again = [b["input_ids"].shape[1] for b in train_batches(split, size, seed=0, epoch=1,
                                                        group_by_length=True)]  # fmt: skip
    assert again != widths


def test_only_so_many_batches_are_sorted_together():
    """Otherwise the same texts would meet in every epoch."""
    samples, size = 2 * WINDOW * 8, 8
    split = texts(samples, 4)
    first = set(epoch_order(samples, 1, 0)[: WINDOW * size].tolist())
    for batch in train_batches(split, size, seed=1, epoch=0, group_by_length=True):
        inside = [int(number) in first for number in batch["input_ids"][:, 1]]
        assert all(inside) or not any(inside)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_resumed_run_on_many_processes_groups_as_one_process_does(data):
    split, at = texts(90), {"seed": 3, "epoch": 2, "group_by_length": True}
    size = data.draw(st.sampled_from([1, 4, 8, 23]))
    start = data.draw(st.integers(0, 90 // size))
    parts = np.array_split(data.draw(st.permutations(range(size))), data.draw(st.integers(1, 4)))
    whole = list(train_batches(split, size, **at))[start:]
    for part in parts:
        share = list(train_batches(split, size, start=start, rows=part.astype(int), **at))
        assert len(share) == len(whole)
        for mine, all_of_it in zip(share, whole, strict=True):
            for name, array in mine.items():
                np.testing.assert_array_equal(array, all_of_it[name][part.astype(int)])


def test_samples_of_one_length_are_refused_at_the_call():
    images = Images(np.ones((4, 2, 2, 1), np.uint8), None, None, (0.0,), (1.0,))
    masked = MaskedText(np.full((4, 8), 7, np.int32), 0.3, 4, np.ones(9, bool))
    for split in (images, masked):
        with pytest.raises(ValueError, match="group_by_length=true is for texts of different"):
            train_batches(split, 2, seed=0, epoch=0, group_by_length=True)
