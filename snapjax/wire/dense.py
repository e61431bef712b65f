"""Numbers and gradients <-> one uint8 buffer, and the exact number of bytes of each format.

No collective sends less than a byte an element: on XLA:CPU int4 travels as one byte and bfloat16 as
float32. So codes and scales are packed into uint8 here, little-endian within a byte (bit i weighs
2^i) and between bytes. There are no parameters, collectives or gradients.

All functions take any leading dimensions ("tokens", also 0 of them).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from snapjax.errors import unknown_name
from snapjax.wire.rows import (
    check_buffer,
    check_rows,
    check_sizes,
    pack_codes,
    saturate,
    unpack_codes,
)

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

    @property
    def span(self) -> float:
        """The largest |c - zero|."""
        return self.reach if self.mid_tread else self.reach - 0.5

    @property
    def max_scale_bits(self) -> int:
        """Of the largest scale whose levels are finite and whose reciprocal is not flushed."""
        largest = np.float32(np.finfo(np.float32).max / self.span)
        return min(int(largest.view(np.uint32)) >> 16, _MAX_SCALE_BITS)


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
_INFINITE_BITS = 0x7F80
_NAN_BITS = 0x7FC0


def dense_bytes(tokens: int, d: int, format: str) -> int:
    """Bytes of `pack_dense` for `tokens` rows of `d` features, a token's 2-byte scale included.

    Example:
      >>> [dense_bytes(1, 384, format) for format in DENSE_FORMATS]
      [1536, 768, 386, 194, 98]
    """
    _check_format("dense format", format, DENSE_FORMATS)
    check_sizes("dense_bytes", tokens, "d", d)
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
    noticed. The float formats keep such an element as it is. No other token is affected. What is
    finite decodes to finite numbers: bfloat16 clips to its largest, and int2 clips magnitudes above
    2^127 to 0.75 * 2^127.

    Args:
      x: (..., d) of a floating dtype.
      format: one of DENSE_FORMATS.
      key: a jax PRNG key for stochastic rounding, or None to round to nearest. Devices that hold
        different tokens need different keys, or they round alike.

    Returns:
      (..., dense_bytes(1, d, format)) uint8.

    Raises:
      ValueError: unknown format, another dtype, or a key for a format that does not use it.
    """
    _check_format("dense format", format, DENSE_FORMATS)
    check_rows("pack_dense: x", x, floats=True)
    levels = _LEVELS.get(format)
    if key is not None and not (levels and levels.mid_tread):
        raise ValueError(f"pack_dense: format {format!r} got a key; only int8 and int4 use one")
    if levels is None:
        parts = lax.bitcast_convert_type(saturate(x, format), jnp.uint8)
        return parts.reshape(*x.shape[:-1], dense_bytes(1, x.shape[-1], format))
    ratio, scale = _scale_tokens(saturate(x, jnp.float32), levels)
    low = jnp.floor(ratio)
    if not levels.mid_tread:
        rounded = low + 0.5
    elif key is None:
        rounded = jnp.round(ratio)
    else:
        # Not floor(ratio + uniform): that sum rounds, at worst to a level too high.
        up = _uniform(key, ratio.shape) < ratio - low
        rounded = low + up.astype(jnp.float32)
    code = (jnp.clip(rounded, -levels.span, levels.span) + levels.zero).astype(jnp.uint8)
    return jnp.concatenate([scale, pack_codes(code, levels.bits)], axis=-1)


def unpack_dense(buffer: jax.Array, d: int, format: str, dtype: DTypeLike) -> jax.Array:
    """Inverse of `pack_dense`: (..., dense_bytes(1, d, format)) uint8 -> (..., d) in `dtype`.

    A buffer of zeros, which is what a device without a sender receives, decodes to zeros.
    """
    leading = buffer.shape[:-1]
    check_buffer("unpack_dense: buffer", buffer, (*leading, dense_bytes(1, d, format)))
    if format not in _LEVELS:
        parts = buffer.reshape(*leading, d, jnp.dtype(format).itemsize)
        return saturate(lax.bitcast_convert_type(parts, jnp.dtype(format)), dtype)
    levels = _LEVELS[format]
    scale = lax.bitcast_convert_type(buffer[..., :_SCALE_BYTES], jnp.bfloat16).astype(jnp.float32)
    code = unpack_codes(buffer[..., _SCALE_BYTES:], d, levels.bits).astype(jnp.float32)
    return saturate((code - levels.zero) * scale[..., None], dtype)


def _scale_tokens(x: jax.Array, levels: _Levels) -> tuple[jax.Array, jax.Array]:
    """x / scale, (..., d) float32, and the bytes of its bfloat16 scale, (..., 2) uint8.

    The scale is handled as bits: XLA may drop a float32 -> bfloat16 -> float32 round trip (it
    allows excess precision by default), and then the codes would disagree with the stored scale.
    """

    def as_float(bits: jax.Array) -> jax.Array:
        return lax.bitcast_convert_type(bits << 16, jnp.float32)

    absmax = jnp.max(jnp.abs(x), axis=-1)
    # Truncated, the quotient is the scale or one step below it. XLA may divide by multiplying with
    # a rounded reciprocal; the product that decides is exact in float32.
    bits = lax.bitcast_convert_type(absmax / levels.reach, jnp.uint32) >> 16
    bits = bits + (as_float(bits) * levels.reach < absmax).astype(jnp.uint32)
    bits = jnp.where(bits < _INFINITE_BITS, jnp.minimum(bits, levels.max_scale_bits), bits)
    usable = (bits >= _MIN_SCALE_BITS) & (bits < _INFINITE_BITS)
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
      g: (..., d) of a floating dtype.
      format: one of GRADIENT_FORMATS.
      key: a jax PRNG key. int8 and int4 need it: they round stochastically, because gradients that
        are rounded to nearest are biased. float32 and bfloat16 do not use it.

    Returns:
      (..., d) float32 or uint16, or for int8 and int4 the rows of `pack_dense`.

    Raises:
      ValueError: unknown format, another dtype, or int8 or int4 without a key.
    """
    _check_format("gradient format", format, GRADIENT_FORMATS)
    check_rows("pack_gradient: g", g, floats=True)
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
    check_sizes("unpack_gradient", 1, "d", d)
    wire_dtype = jnp.uint16 if format == "bfloat16" else jnp.float32
    check_buffer("unpack_gradient: buffer", buffer, (*buffer.shape[:-1], d), wire_dtype)
    return lax.bitcast_convert_type(buffer, jnp.dtype(format)).astype(dtype)


def _check_format(kind: str, format: str, known: tuple[str, ...]) -> None:
    if format not in known:
        raise unknown_name(kind, format, known)
