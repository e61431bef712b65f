"""Symbols <-> one uint8 buffer, and the exact number of bytes each buffer takes.

No collective sends less than a byte an element: on XLA:CPU bool and int4 travel as one byte and
bfloat16 as float32. So bits, codes and scales are packed into uint8 here, little-endian within a
byte (bit i weighs 2^i) and between bytes. There are no parameters, collectives or gradients.

`pack_*` and `unpack_*` take any leading dimensions ("tokens", also 0 of them) unless they say so.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from snapjax.errors import unknown_name

DENSE_FORMATS = ("float32", "bfloat16", "int8", "int4", "int2")
"""Number formats that send every feature."""

GRADIENT_FORMATS = ("float32", "bfloat16", "int8", "int4")
"""Number formats of a gradient on the way back; int8 and int4 round stochastically."""


class _Levels(NamedTuple):
    """A uniform quantiser: code c stands for (c - zero) * scale, and scale = absmax / reach."""

    bits: int
    zero: float
    reach: int
    mid_tread: bool


# int8 and int4 are mid-tread (zero is a level). int2 is mid-rise, with levels ±0.25 and ±0.75
# absmax: its four cells tile [-absmax, absmax], so the error is at most absmax / 4. Mid-tread would
# leave one code of four unused and keep -absmax, 0, absmax: on Gaussian tokens of 384 features the
# mean square error is then 0.68 of the variance instead of 0.21.
_LEVELS = {
    "int8": _Levels(bits=8, zero=128, reach=127, mid_tread=True),
    "int4": _Levels(bits=4, zero=8, reach=7, mid_tread=True),
    "int2": _Levels(bits=2, zero=1.5, reach=2, mid_tread=False),
}
_SCALE_BYTES = 2  # one bfloat16 a token
_MIN_SCALE_BITS = 0x0080  # bfloat16 2^-126: XLA:CPU flushes smaller numbers to zero
_MAX_SCALE_BITS = 0x7E80  # bfloat16 2^126: the reciprocal of a larger one would be flushed
_NAN_BITS = 0x7FC0


def bit_plane_bytes(tokens: int, k: int) -> int:
    """Bytes of `pack_bits` for `tokens` rows of `k` bits."""
    _check_sizes("bit_plane_bytes", tokens, "k", k)
    return tokens * -(-k // 8)


def pack_bits(bits: jax.Array) -> jax.Array:
    """Packs (..., k) of any dtype, where anything but 0 is a 1, into (..., ceil(k / 8)) uint8.

    Bit i of byte j is `bits[..., 8 * j + i]`; the last byte is padded with zeros.

    Example:
      >>> pack_bits(jnp.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 1])).tolist()
      [1, 2]
    """
    _check_rows("pack_bits: bits", bits)
    return _pack_codes(bits.astype(bool).astype(jnp.uint8), 1)


def unpack_bits(packed: jax.Array, k: int, dtype: DTypeLike) -> jax.Array:
    """Inverse of `pack_bits`: (..., ceil(k / 8)) uint8 -> (..., k) zeros and ones in `dtype`."""
    _check_buffer("unpack_bits: packed", packed, (*packed.shape[:-1], bit_plane_bytes(1, k)))
    return _unpack_codes(packed, k, 1).astype(dtype)


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
    ends = jnp.cumsum(population)
    owner = _owner(ends, capacity)  # len(words) past the last spike, where a word of zeros is read
    word = words.at[owner].get(mode="fill", fill_value=0)
    rank = jnp.arange(capacity, dtype=jnp.int32) - (ends - population)[owner]
    position = _position_of_set_bit(word, rank.astype(jnp.uint32)).astype(jnp.int32)
    index = jnp.where(word == 0, 0, owner % row_words * 32 + position)
    return jnp.concatenate([_to_bytes(counts, count_dtype), _to_bytes(index, index_dtype)])


def unpack_events(
    buffer: jax.Array, tokens: int, k: int, capacity: int, dtype: DTypeLike
) -> jax.Array:
    """Inverse of `pack_events`: its buffer -> (tokens, k) zeros and ones in `dtype`.

    Exact whenever there are at most `capacity` spikes; of more, the first `capacity` are decoded.
    """
    count_dtype, index_dtype = _event_dtypes("unpack_events", tokens, k, capacity)
    _check_buffer("unpack_events: buffer", buffer, (event_bytes(tokens, k, capacity),))
    split = tokens * count_dtype.itemsize
    counts = _from_bytes(buffer[:split], count_dtype)
    column = _from_bytes(buffer[split:], index_dtype)
    row = _owner(jnp.cumsum(counts), capacity)  # past the last spike: `tokens`, dropped
    return jnp.zeros((tokens, k), dtype).at[row, column].set(jnp.ones((), dtype), mode="drop")


def _owner(ends: jax.Array, slots: int) -> jax.Array:
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


def dense_bytes(tokens: int, d: int, format: str) -> int:
    """Bytes of `pack_dense` for `tokens` rows of `d` features, a token's 2-byte scale included.

    Example:
      >>> [dense_bytes(1, 384, format) for format in DENSE_FORMATS]
      [1536, 768, 386, 194, 98]
    """
    _check_format("dense format", format, DENSE_FORMATS)
    _check_sizes("dense_bytes", tokens, "d", d)
    if format in _LEVELS:
        return tokens * (_SCALE_BYTES - (-d * _LEVELS[format].bits // 8))
    return tokens * d * jnp.dtype(format).itemsize


def pack_dense(x: jax.Array, format: str, key: jax.Array | None = None) -> jax.Array:
    """Packs floats into rows of bytes.

    `float32` and `bfloat16` are the bytes of the rounded values. The integer formats are a bfloat16
    scale for each token, then its codes c of 8, 4 or 2 bits, 1, 2 or 4 a byte, padded with zeros:

        int8, int4   c = round(x / scale) + zero             scale = absmax / 127, absmax / 7
        int2         c = min(floor(x / scale) + 2, 3)        scale = absmax / 2
        decoded      (c - zero) * scale                      zero = 128, 8, 1.5

    The stored scale is the smallest bfloat16 that is not below this quotient, so the error is at
    most scale / 2. With a `key`, int8 and int4 round up with a probability
    equal to the fraction (to 2^-17): unbiased, and the error is below one scale.

    In the integer formats a token of zeros, or one whose scale would be below 2^-126, decodes to
    zeros; a token with a NaN or an infinity decodes to NaN in all its features, so that it is
    noticed (magnitudes above 2^127 may decode to infinity, or NaN in int2). The float formats keep
    such an element as it is. No other token is affected.

    Args:
      x: (..., d) float32, bfloat16 or float16.
      format: one of DENSE_FORMATS.
      key: a jax PRNG key for stochastic rounding, or None to round to nearest. Devices that hold
        different tokens need different keys, or they round alike.

    Returns:
      (..., dense_bytes(1, d, format)) uint8.

    Raises:
      ValueError: unknown format, another dtype, or a key for a format that does not use it.
    """
    _check_format("dense format", format, DENSE_FORMATS)
    _check_rows("pack_dense: x", x, floats=True)
    levels = _LEVELS.get(format)
    if key is not None and not (levels and levels.mid_tread):
        raise ValueError(f"pack_dense: format {format!r} got a key; only int8 and int4 use one")
    if levels is None:
        parts = lax.bitcast_convert_type(x.astype(format), jnp.uint8)
        return parts.reshape(*x.shape[:-1], dense_bytes(1, x.shape[-1], format))
    ratio, scale = _scale_tokens(x.astype(jnp.float32), levels.reach)
    low = jnp.floor(ratio)
    if not levels.mid_tread:
        rounded = low + 0.5
    elif key is None:
        rounded = jnp.round(ratio)
    else:
        # Not floor(ratio + uniform): that sum rounds, at worst to a level too high.
        up = _uniform(key, ratio.shape) < ratio - low
        rounded = low + up.astype(jnp.float32)
    span = levels.reach if levels.mid_tread else levels.reach - 0.5
    code = (jnp.clip(rounded, -span, span) + levels.zero).astype(jnp.uint8)
    return jnp.concatenate([scale, _pack_codes(code, levels.bits)], axis=-1)


def unpack_dense(buffer: jax.Array, d: int, format: str, dtype: DTypeLike) -> jax.Array:
    """Inverse of `pack_dense`: (..., dense_bytes(1, d, format)) uint8 -> (..., d) in `dtype`.

    A buffer of zeros, which is what a device without a sender receives, decodes to zeros.
    """
    leading = buffer.shape[:-1]
    _check_buffer("unpack_dense: buffer", buffer, (*leading, dense_bytes(1, d, format)))
    if format not in _LEVELS:
        parts = buffer.reshape(*leading, d, jnp.dtype(format).itemsize)
        return lax.bitcast_convert_type(parts, jnp.dtype(format)).astype(dtype)
    levels = _LEVELS[format]
    scale = lax.bitcast_convert_type(buffer[..., :_SCALE_BYTES], jnp.bfloat16).astype(jnp.float32)
    code = _unpack_codes(buffer[..., _SCALE_BYTES:], d, levels.bits).astype(jnp.float32)
    return ((code - levels.zero) * scale[..., None]).astype(dtype)


def _scale_tokens(x: jax.Array, reach: int) -> tuple[jax.Array, jax.Array]:
    """x / scale, (..., d) float32, and the bytes of its bfloat16 scale, (..., 2) uint8.

    The scale is handled as bits: XLA may drop a float32 -> bfloat16 -> float32 round trip (it
    allows excess precision by default), and then the codes would disagree with the stored scale.
    """

    def as_float(bits: jax.Array) -> jax.Array:
        return lax.bitcast_convert_type(bits << 16, jnp.float32)

    absmax = jnp.max(jnp.abs(x), axis=-1)
    # Truncated, the quotient is the scale or one step below it. XLA may divide by multiplying with
    # a rounded reciprocal; the product that decides is exact in float32.
    bits = lax.bitcast_convert_type(absmax / reach, jnp.uint32) >> 16
    bits = bits + (as_float(bits) * reach < absmax).astype(jnp.uint32)
    usable = (bits >= _MIN_SCALE_BITS) & (bits <= _MAX_SCALE_BITS)
    inverse = 1 / jnp.where(usable, as_float(bits), 1)
    stored = jnp.where(usable, bits, jnp.where(bits < _MIN_SCALE_BITS, 0, _NAN_BITS))
    ratio = jnp.where(usable[..., None], x * inverse[..., None], 0)
    return ratio, lax.bitcast_convert_type(stored.astype(jnp.uint16), jnp.uint8)


def _uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform float32 in (0, 1) of 16 bits, two from a random word: 2.2 times as fast as jax's."""
    words = jax.random.bits(key, (*shape[:-1], -(-shape[-1] // 2)), jnp.uint32)
    halves = jnp.concatenate([words & 0xFFFF, words >> 16], axis=-1)[..., : shape[-1]]
    return (halves.astype(jnp.float32) + 0.5) * 2.0**-16


def gradient_bytes(tokens: int, d: int, format: str) -> int:
    """Bytes of `pack_gradient` for `tokens` rows of `d` features."""
    _check_format("gradient format", format, GRADIENT_FORMATS)
    return dense_bytes(tokens, d, format)


def pack_gradient(g: jax.Array, format: str, key: jax.Array | None) -> jax.Array:
    """Packs a gradient for the way back over the boundary.

    `bfloat16` is rounded to nearest even and bit-cast to uint16: an XLA:CPU collective widens real
    bfloat16 to float32, twice the bytes, but leaves an integer as it is.

    Args:
      g: (..., d) float32, bfloat16 or float16.
      format: one of GRADIENT_FORMATS.
      key: a jax PRNG key. int8 and int4 need it: they round stochastically, because gradients that
        are rounded to nearest are biased. float32 and bfloat16 do not use it.

    Returns:
      (..., d) float32 or uint16, or for int8 and int4 the rows of `pack_dense`.

    Raises:
      ValueError: unknown format, another dtype, or int8 or int4 without a key.
    """
    _check_format("gradient format", format, GRADIENT_FORMATS)
    _check_rows("pack_gradient: g", g, floats=True)
    if format == "float32":
        return g.astype(jnp.float32)
    if format == "bfloat16":
        return lax.bitcast_convert_type(g.astype(jnp.bfloat16), jnp.uint16)
    if key is None:
        raise ValueError(f"pack_gradient: key is None; {format}'s stochastic rounding needs a key")
    return pack_dense(g, format, key)


def unpack_gradient(buffer: jax.Array, d: int, format: str, dtype: DTypeLike) -> jax.Array:
    """Inverse of `pack_gradient`: (..., d) in `dtype`."""
    _check_format("gradient format", format, GRADIENT_FORMATS)
    if format in _LEVELS:
        return unpack_dense(buffer, d, format, dtype)
    _check_sizes("unpack_gradient", 1, "d", d)
    wire_dtype = jnp.uint16 if format == "bfloat16" else jnp.float32
    _check_buffer("unpack_gradient: buffer", buffer, (*buffer.shape[:-1], d), wire_dtype)
    return lax.bitcast_convert_type(buffer, jnp.dtype(format)).astype(dtype)


def _pack_codes(codes: jax.Array, width: int) -> jax.Array:
    """(..., n) uint8 below 2^width -> (..., ceil(n * width / 8)) uint8; width 1, 2, 4 or 8.

    Strided: 0.33 ms for 4096 x 381 float32 spikes on 2 CPU cores; jnp.packbits takes 0.70, shift
    and reduce 0.72, multiply and sum 0.65. For 384, without padding, all four take 0.34.
    """
    per_byte = 8 // width
    padding = -codes.shape[-1] % per_byte
    codes = jnp.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, padding)])
    packed = codes[..., ::per_byte]
    for i in range(1, per_byte):
        packed = packed | codes[..., i::per_byte] << (width * i)
    return packed


def _unpack_codes(packed: jax.Array, n: int, width: int) -> jax.Array:
    """Inverse of `_pack_codes`: (..., n) uint8; for bits as fast as jnp.unpackbits."""
    per_byte = 8 // width
    shifts = jnp.arange(0, 8, width, dtype=jnp.uint8).reshape((1,) * packed.ndim + (per_byte,))
    codes = packed[..., None] >> shifts & (2**width - 1)
    return codes.reshape(*packed.shape[:-1], packed.shape[-1] * per_byte)[..., :n]


def _event_dtypes(where: str, tokens: int, k: int, capacity: int) -> tuple[np.dtype, np.dtype]:
    """Dtypes of a token's spike count (0 to k) and of a feature index (0 to k - 1)."""
    _check_sizes(where, tokens, "k", k)
    if k > 65535:
        raise ValueError(f"{where}: k={k}; a two-byte spike count ends at 65535, send bit planes")
    if capacity < 1:
        raise ValueError(f"{where}: capacity={capacity}; it must be at least 1, room for one spike")
    return np.min_scalar_type(k), np.min_scalar_type(k - 1)


def _check_sizes(where: str, tokens: int, name: str, width: int) -> None:
    if tokens < 0 or width < 1:
        raise ValueError(f"{where}: tokens={tokens}, {name}={width}; need at least 0 and 1")


def _check_format(kind: str, format: str, known: tuple[str, ...]) -> None:
    if format not in known:
        raise unknown_name(kind, format, known)


def _check_rows(what: str, x: jax.Array, floats: bool = False) -> None:
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"{what} has shape {x.shape}; its last dimension must be at least 1")
    if floats and x.dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
        raise ValueError(f"{what} is {x.dtype}; cast it to float32, bfloat16 or float16")


def _check_buffer(
    what: str, buffer: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.uint8
) -> None:
    if buffer.shape != shape or buffer.dtype != dtype:
        wanted = f"{jnp.dtype(dtype)} {shape}"
        raise ValueError(f"{what} is {buffer.dtype} {buffer.shape}; it must be {wanted}")
