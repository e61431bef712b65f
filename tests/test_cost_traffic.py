"""Spikes in other encodings, dense activations, and the rates at which they break even."""

import numpy as np
import pytest
from cost_inputs import LINE4, profile, send

from snapjax import cost
from snapjax.cost import Counts, Cut
from snapjax.cost.price.traffic import address_bits, break_even, entropy


def test_entropy_and_addresses():
    assert entropy(0.5) == 1
    assert entropy(0.11) == pytest.approx(0.49992, abs=1e-5)
    assert [entropy(rate) for rate in (0.0, 1.0)] == [0, 0]
    assert [address_bits(n) for n in (1, 2, 3, 4, 1024, 1025)] == [1, 1, 2, 2, 10, 11]


def test_one_message_in_every_encoding():
    # 16 tokens of 64 features, T = 4, all 4096 spikes planned, 512 bytes; 3 senders, 5 times.
    transfer = send(512, LINE4, 5, "packed", ("s",), elements=512)
    counts = Counts(4, {"stage": 4}, transfers=(transfer,)).with_rates({"s": 0.11})
    (row,) = cost.estimate(counts, profile(), cut=Cut(activations=1024, steps=4)).traffic
    assert row.messages == 15
    assert row.known
    each = {name: sent / 15 for name, sent in row.bytes.items()}
    assert each["compiled"] == each["planes"] == 512
    assert each["events"] == pytest.approx(0.11 * 4096 * 12 / 8)
    assert each["entropy"] == pytest.approx(1024 * 4 * 0.49992 / 8, rel=1e-4)  # n T H(rate)
    assert each["dense_packets"] == 1024 * 64 / 8
    assert each["dense_8bit"] == 1024


def test_spikes_sent_unpacked():
    # As float32 a spike takes 32 bits; as a plane one.
    transfer = send(4 * 4096, LINE4, 1, "spikes", ("s",), elements=4096)
    counts = Counts(4, {"stage": 4}, transfers=(transfer,))
    found = cost.estimate(counts, profile())
    (row,) = found.traffic
    assert (row.bytes["compiled"], row.bytes["planes"]) == (3 * 16384, 3 * 512)
    assert (row.rate, row.known) == (1.0, False)
    assert any("rates of 1 of 1 sites are not known" in note for note in found.notes)
    assert any("(cut)" in note for note in found.notes)


def test_a_plan_sends_fewer_spikes_than_its_buffer_holds():
    transfer = send(512, LINE4, 1, "packed", ("s",), elements=512)
    counts = Counts(4, {"stage": 4}, transfers=(transfer,)).with_rates({"s": 0.5})
    (row,) = cost.estimate(counts, profile(), cut=Cut(1024, 4, bits=1024)).traffic
    assert row.bytes["planes"] == 3 * 128
    assert row.bytes["entropy"] == 3 * 128
    assert row.break_even.planes_bits == 1  # of 3 that a dense value of 5 levels takes
    assert row.break_even.planes_win


def test_dense_transfers_have_no_row():
    counts = Counts(4, {"stage": 4}, transfers=(send(400, LINE4),))
    assert cost.estimate(counts, profile()).traffic == ()


@pytest.mark.parametrize(
    ("steps", "dense"), [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (15, 4), (16, 5)]
)
def test_dense_bits_tell_as_many_levels_apart(steps, dense):
    found = break_even(steps, steps, 10, 4.6, 0.9)
    assert found.dense_bits == dense
    assert 2**dense >= steps + 1 > 2 ** (dense - 1)
    # At the break-even rates both sides are equal, from independent formulas.
    assert steps * found.events * 10 == pytest.approx(min(dense, 10 * steps))
    if dense < steps:
        rate = found.entropy
        bits = -rate * np.log2(rate) - (1 - rate) * np.log2(1 - rate)
        assert steps * bits == pytest.approx(dense, rel=1e-12)
        assert not found.planes_win
    assert found.compute * steps * 0.9 == pytest.approx(min(4.6, steps * 0.9))


@pytest.mark.parametrize("field", ["activations", "steps", "bits"])
def test_a_cut_of_nothing(field):
    with pytest.raises(ValueError, match=f"Cut: {field}=0 must be at least 1"):
        Cut(**{"activations": 8, "steps": 4, "bits": 8, field: 0})
