"""The baselines a user would pick instead of spikes, behind the same protocol as the spike codes.

They learn nothing. A gradient passes the rounding of the number formats unchanged (straight
through), and reaches only the features that top-k sent.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from snapjax.wire import dense

Params = dict[str, Any]


@dataclass(frozen=True)
class DenseCode:
    """A baseline that sends every feature as a number; `format` is one of `dense.DENSE_FORMATS`.

    It learns nothing, and its gradient is that of the identity (straight through the rounding).
    """

    features: int
    format: str

    @property
    def bits(self) -> int:
        return 8 * dense.dense_bytes(1, self.features, self.format)

    def init(self) -> dict[str, Params]:
        return {"encoder": {}, "decoder": {}}

    def encode(self, encoder: Params, x: jax.Array) -> jax.Array:
        return x

    def encode_and_check(self, encoder: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.encode(encoder, x), jnp.isfinite(x).all()

    def to_wire(self, encoder: Params, symbols: jax.Array) -> jax.Array:
        return dense.pack_dense(symbols, self.format)

    def from_wire(self, decoder: Params, buffer: jax.Array, dtype: Any) -> jax.Array:
        return dense.unpack_dense(buffer, self.features, self.format, dtype)

    def cotangent(self, encoder: Params, cotangent: jax.Array) -> jax.Array:
        return cotangent

    def kept_features(self, end: Params) -> jax.Array:
        return jnp.ones(self.features, bool)

    def decode(self, decoder: Params, value: jax.Array) -> jax.Array:
        return value


@dataclass(frozen=True)
class TopKCode(DenseCode):
    """Sends the `count` features of largest magnitude as (index, bfloat16 value), the rest as 0.

    The indices are each token's own, in 1 byte up to 256 features, else in 2. Only what was sent
    has a gradient, but the way back is as wide as for the other dense codes.
    """

    format: str = "bfloat16"
    count: int = 1

    @property
    def bits(self) -> int:
        return 8 * self.count * top_k_bytes(self.features)

    def encode(self, encoder: Params, x: jax.Array) -> jax.Array:
        index = self._largest(x)
        sent = jnp.put_along_axis(
            jnp.zeros(x.shape, bool), index, jnp.ones((), bool), axis=-1, inplace=False
        )
        return jnp.where(sent, x, jnp.zeros_like(x))

    def to_wire(self, encoder: Params, symbols: jax.Array) -> jax.Array:
        index = self._largest(symbols)
        values = jnp.take_along_axis(symbols, index, axis=-1)
        indices = jax.lax.bitcast_convert_type(index.astype(self._index_dtype), jnp.uint8)
        width = jnp.dtype(self._index_dtype).itemsize
        indices = indices.reshape(*index.shape[:-1], width * self.count)
        return jnp.concatenate([dense.pack_dense(values, self.format), indices], axis=-1)

    def from_wire(self, decoder: Params, buffer: jax.Array, dtype: Any) -> jax.Array:
        values, indices = jnp.split(buffer, [2 * self.count], axis=-1)
        values = dense.unpack_dense(values, self.count, self.format, dtype)
        width = jnp.dtype(self._index_dtype).itemsize
        shape = (*indices.shape[:-1], self.count, *((width,) if width > 1 else ()))
        index = jax.lax.bitcast_convert_type(indices.reshape(shape), self._index_dtype)
        index = index.astype(jnp.int32)
        empty = jnp.zeros((*buffer.shape[:-1], self.features), dtype)
        return jnp.put_along_axis(empty, index, values, axis=-1, inplace=False)

    @property
    def _index_dtype(self) -> Any:
        return jnp.uint8 if self.features <= 256 else jnp.uint16

    def _largest(self, x: jax.Array) -> jax.Array:
        return jax.lax.top_k(jnp.abs(x), self.count)[1]


def top_k_bytes(features: int) -> int:
    """Bytes of one (index, value) pair."""
    return 3 if features <= 256 else 4
