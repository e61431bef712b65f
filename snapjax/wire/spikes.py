"""Spikes <-> one uint8 buffer: bit planes or events (AER), and the exact number of bytes of each.

Bits are packed into uint8, little-endian within a byte (bit i weighs 2^i) and between bytes: a bool
would travel as a byte. There are no parameters, collectives or gradients.

`pack_bits` and `unpack_bits` take any leading dimensions ("tokens", also 0 of them); events are of
(tokens, k).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from snapjax.wire.rows import check_buffer, check_rows, check_sizes, pack_codes, unpack_codes


def bit_plane_bytes(tokens: int, k: int) -> int:
    """Bytes of `pack_bits` for `tokens` rows of `k` bits."""
    check_sizes("bit_plane_bytes", tokens, "k", k)
    return tokens * -(-k // 8)


def pack_bits(bits: jax.Array) -> jax.Array:
    """Packs (..., k) of any dtype, where anything but 0 is a 1, into (..., ceil(k / 8)) uint8.

    Bit i of byte j is `bits[..., 8 * j + i]`; the last byte is padded with zeros.

    Example:
      >>> pack_bits(jnp.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 1])).tolist()
      [1, 2]
    """
    check_rows("pack_bits: bits", bits)
    return pack_codes(bits.astype(bool).astype(jnp.uint8), 1)


def unpack_bits(packed: jax.Array, k: int, dtype: DTypeLike) -> jax.Array:
    """Inverse of `pack_bits`: (..., ceil(k / 8)) uint8 -> (..., k) zeros and ones in `dtype`."""
    check_buffer("unpack_bits: packed", packed, (*packed.shape[:-1], bit_plane_bytes(1, k)))
    return unpack_codes(packed, k, 1).astype(dtype)


def event_bytes(tokens: int, k: int, capacity: int) -> int:
    """Bytes of `pack_events`: a spike count a token and `capacity` feature indices.

    A count takes 1 byte if k <= 255, an index 1 byte if k <= 256, otherwise 2 each.

    Raises:
      ValueError: k is not in [1, 65535], or capacity < 1.

    Example:
      >>> event_bytes(4096, 384, capacity=31457)  # room for 2% spikes
      71106
    """
    count_dtype, index_dtype = _event_dtypes("event_bytes", tokens, k, capacity)
    return tokens * count_dtype.itemsize + capacity * index_dtype.itemsize


def event_count(bits: jax.Array) -> jax.Array:
    """Elements that are not 0, () int32: `pack_events` is lossless if its capacity reaches this."""
    return jnp.sum(bits.astype(bool), dtype=jnp.int32)


def pack_events(bits: jax.Array, capacity: int) -> jax.Array:
    """Address-event representation (AER): spikes as feature indices.

    Shorter than bit planes when few features spike. The token is not written with every event, as
    AER's address would have it, but follows from the counts.

    The buffer is every token's spike count, then the features that spike, token after token and in
    ascending order, then zeros; widths as in `event_bytes`. With more than `capacity` spikes the
    buffer does not hold them all: ask `event_count` first and send bit planes instead.

    Args:
      bits: (tokens, k) of any dtype, k <= 65535 and fewer than 2^31 elements; an element that is
        not 0 is a spike.
      capacity: indices that the buffer has room for, at least 1.

    Returns:
      (event_bytes(tokens, k, capacity),) uint8.

    Example:
      >>> pack_events(jnp.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]]), capacity=4).tolist()
      [2, 0, 1, 1, 2, 0, 0]
    """
    if bits.ndim != 2:
        raise ValueError(f"pack_events: bits has shape {bits.shape}; reshape it to (tokens, k)")
    tokens, k = bits.shape
    count_dtype, index_dtype = _event_dtypes("pack_events", tokens, k, capacity)
    if tokens == 0:  # there is no word to gather from
        return jnp.zeros(event_bytes(tokens, k, capacity), jnp.uint8)

    # Every slot of the buffer finds its 32-bit word from the words' populations, then its bit in
    # the word by bisection: 1.7 ms at 4096 x 384 and 5% spikes on 2 CPU cores; jnp.nonzero takes
    # 15.0, cumsum and scatter 13.8, cumsum and searchsorted 18.0 (scripts/bench_wire.py).
    row_words = -(-k // 32)
    padded = jnp.pad(bits.astype(bool), ((0, 0), (0, 32 * row_words - k)))
    quads = pack_bits(padded).reshape(tokens * row_words, 4)
    words = lax.bitcast_convert_type(quads, jnp.uint32)
    population = lax.population_count(words).astype(jnp.int32)
    counts = jnp.sum(population.reshape(tokens, row_words), axis=1)
    position = set_bits(words, capacity)
    index = jnp.where(position == 32 * words.shape[0], 0, position % (32 * row_words))
    return jnp.concatenate([_to_bytes(counts, count_dtype), _to_bytes(index, index_dtype)])


def unpack_events(
    buffer: jax.Array, tokens: int, k: int, capacity: int, dtype: DTypeLike
) -> jax.Array:
    """Inverse of `pack_events`: its buffer -> (tokens, k) zeros and ones in `dtype`.

    Exact whenever there are at most `capacity` spikes; of more, the first `capacity` are decoded.
    """
    count_dtype, index_dtype = _event_dtypes("unpack_events", tokens, k, capacity)
    check_buffer("unpack_events: buffer", buffer, (event_bytes(tokens, k, capacity),))
    split = tokens * count_dtype.itemsize
    counts = _from_bytes(buffer[:split], count_dtype)
    column = _from_bytes(buffer[split:], index_dtype)
    row = owner_of_slot(jnp.cumsum(counts), capacity)  # past the last spike: `tokens`, dropped
    return jnp.zeros((tokens, k), dtype).at[row, column].set(jnp.ones((), dtype), mode="drop")


def set_bits(words: jax.Array, capacity: int) -> jax.Array:
    """Positions of the bits that are set in words, (n,) uint32, ascending: (capacity,) int32.

    Bit i of word j is position 32 j + i. Past the last one stands 32 n.
    """
    population = lax.population_count(words).astype(jnp.int32)
    ends = jnp.cumsum(population)
    owner = owner_of_slot(
        ends, capacity
    )  # len(words) past the last one, where a word of zeros is read
    word = words.at[owner].get(mode="fill", fill_value=0)
    rank = jnp.arange(capacity, dtype=jnp.int32) - (ends - population)[owner]
    position = _position_of_set_bit(word, rank.astype(jnp.uint32)).astype(jnp.int32)
    return jnp.where(word == 0, 32 * words.shape[0], 32 * owner + position)


def owner_of_slot(ends: jax.Array, slots: int) -> jax.Array:
    """For slots 0, 1, ... the first group whose exclusive end is beyond the slot, (slots,) int32.

    The ends at or before a slot, counted by a scatter and a cumsum: 0.5 ms for the tokens of
    4096 x 384 and 5% spikes; searchsorted takes 1.9.
    """
    return jnp.cumsum(jnp.zeros(slots, jnp.int32).at[ends].add(1, mode="drop"))


def _position_of_set_bit(word: jax.Array, rank: jax.Array) -> jax.Array:
    """Position of the set bit that has `rank` set bits below it; all uint32."""
    position = jnp.zeros_like(rank)
    for half in (16, 8, 4, 2, 1):
        below = lax.population_count(word & jnp.uint32(2**half - 1))
        upper = rank >= below
        rank = jnp.where(upper, rank - below, rank)
        word = jnp.where(upper, word >> half, word)
        position = jnp.where(upper, position + half, position)
    return position


def _to_bytes(values: jax.Array, dtype: DTypeLike) -> jax.Array:
    return lax.bitcast_convert_type(values.astype(dtype), jnp.uint8).reshape(-1)


def _from_bytes(buffer: jax.Array, dtype: DTypeLike) -> jax.Array:
    rows = buffer.reshape(-1, jnp.dtype(dtype).itemsize)
    return lax.bitcast_convert_type(rows, dtype).reshape(-1).astype(jnp.int32)


def _event_dtypes(where: str, tokens: int, k: int, capacity: int) -> tuple[np.dtype, np.dtype]:
    """Dtypes of a token's spike count (0 to k) and of a feature index (0 to k - 1)."""
    check_sizes(where, tokens, "k", k)
    if k > 65535:
        raise ValueError(f"{where}: k={k}; a two-byte spike count ends at 65535, send bit planes")
    if capacity < 1:
        raise ValueError(f"{where}: capacity={capacity}; it must be at least 1, room for one spike")
    return np.min_scalar_type(k), np.min_scalar_type(k - 1)
