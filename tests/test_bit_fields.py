"""Bit fields against the same layout written out bit by bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapjax.wire import bit_fields

pack = jax.jit(bit_fields.pack, static_argnums=2)
unpack = jax.jit(bit_fields.unpack)


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([(), (3,), (2, 0), (2, 4)]),
    st.sampled_from([1, 3, 11]),
    st.sampled_from([0, 1, 9]),
    st.sampled_from([1, 3, 8]),
    st.integers(0, 2**32 - 1),
)
def test_fields_follow_one_another_and_come_back(lead, n, spare, most, seed):
    rng = np.random.default_rng(seed)
    widths = rng.integers(0, most + 1, n)
    fields = rng.integers(0, 256, (*lead, n))  # bits above the width must not be sent
    bits = max(int(widths.sum()) + spare, 1)
    packed = pack(jnp.asarray(fields, jnp.uint8), jnp.asarray(widths, jnp.int32), bits)
    assert packed.dtype == jnp.uint8
    assert packed.shape == (*lead, -(-bits // 8))
    for row in np.ndindex(*lead):
        number, place = 0, 0
        for value, width in zip(fields[row].tolist(), widths.tolist(), strict=True):
            number |= (value % 2**width) << place
            place += width
        assert bytes(np.asarray(packed[row])) == number.to_bytes(-(-bits // 8), "little")
    back = unpack(packed, jnp.asarray(widths, jnp.int32))
    assert back.dtype == jnp.uint8
    np.testing.assert_array_equal(back, fields % 2**widths)


@pytest.mark.parametrize("bits", [8, 64, 100])
def test_there_may_be_more_room_than_bits(bits):
    fields, widths = jnp.array([[7, 1]], jnp.uint8), jnp.array([3, 1], jnp.int32)
    packed = pack(fields, widths, bits)
    assert packed.tolist() == [[0b1111, *[0] * (-(-bits // 8) - 1)]]
    np.testing.assert_array_equal(unpack(packed, widths), fields)
