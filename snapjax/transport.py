"""Symbols over a link and back: one custom_vjp around pack -> collective -> unpack.

Without it a straight-through estimator would send the float tensor too (it is a residual that both
sides need). With it, the forward pass sends the packed symbols and nothing else, and the backward
pass sends the cotangent of the decoded *values*, one number per kept feature and token in the
gradient wire's format, never one per spike; the sender applies the local derivative of its encoder.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from snapjax.codes import plan
from snapjax.codes.code import Code, Params
from snapjax.codes.spike_code import SpikeCode
from snapjax.varying import manual_axes, vary_over
from snapjax.wire import dense, spikes


class Hop(Protocol):
    """Who sends to whom. `forward` moves a buffer, `backward` a cotangent the other way."""

    @property
    def axes(self) -> frozenset[str]:
        """The mesh axis that is crossed, if any."""

    def busiest(self, count: jax.Array) -> jax.Array:
        """The largest count of any device that sends; the same on every device."""

    def forward(self, buffer: jax.Array) -> jax.Array: ...

    def backward(self, buffer: jax.Array) -> jax.Array: ...

    def accumulate(self, cotangent: jax.Array) -> jax.Array:
        """Sums what several receivers returned to one sender."""


@dataclass(frozen=True)
class Stay:
    """No link: one device plays both ends, and computes exactly what two would."""

    @property
    def axes(self) -> frozenset[str]:
        return frozenset()

    def busiest(self, count: jax.Array) -> jax.Array:
        return count

    def forward(self, buffer: jax.Array) -> jax.Array:
        return buffer

    def backward(self, buffer: jax.Array) -> jax.Array:
        return buffer

    def accumulate(self, cotangent: jax.Array) -> jax.Array:
        return cotangent


@dataclass(frozen=True)
class Permute:
    """Each (source, destination) of `pairs` is a hop; devices without a source receive zeros. Make
    it with `permute`, which checks the pairs."""

    axis: str
    pairs: tuple[tuple[int, int], ...]

    def receives(self) -> jax.Array:
        """Whether any pair sends to this device, a bool scalar."""
        return self._is_one_of([destination for _, destination in self.pairs])

    def _is_one_of(self, devices: list[int]) -> jax.Array:
        return (jax.lax.axis_index(self.axis) == jnp.asarray(devices, jnp.int32)).any()

    @property
    def axes(self) -> frozenset[str]:
        return frozenset({self.axis})

    def busiest(self, count: jax.Array) -> jax.Array:
        sends = self._is_one_of([source for source, _ in self.pairs])
        return _largest(jnp.where(sends, count, 0))

    def forward(self, buffer: jax.Array) -> jax.Array:
        return jax.lax.ppermute(buffer, self.axis, self.pairs)

    def backward(self, buffer: jax.Array) -> jax.Array:
        return jax.lax.ppermute(buffer, self.axis, [(b, a) for a, b in self.pairs])

    def accumulate(self, cotangent: jax.Array) -> jax.Array:
        return cotangent


def axis_size(where: str, axis: str) -> int:
    """Devices along a mesh axis, inside `jax.shard_map`.

    Raises:
      ValueError: no such axis here.
    """
    if axis not in manual_axes():
        raise ValueError(
            f"{where}: axis={axis!r} is no mesh axis here; call it inside jax.shard_map, over "
            "a mesh that has the axis"
        )
    return jax.lax.axis_size(axis)


def permute(where: str, axis: str, pairs: Any) -> tuple[Permute, int]:
    """The hop of `pairs`, and the devices on the axis.

    Args:
      where: the function that was called, for errors.
      axis: name of a mesh axis.
      pairs: (source, destination) of each hop, positions on the axis; None for i -> i + 1.

    Raises:
      ValueError: no such axis here; a pair that names no device, or a device that sends or receives
        twice, because a collective would wrap around, or wait for ever.
    """
    size = axis_size(where, axis)
    if pairs is None:
        pairs = tuple((i, i + 1) for i in range(size - 1))
    try:
        hops = tuple((operator.index(a), operator.index(b)) for a, b in pairs)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: pairs={pairs!r} must be (source, destination) pairs of ints, such as "
            "((0, 1), (1, 2))"
        ) from error
    if not all(0 <= device < size for pair in hops for device in pair):
        raise ValueError(
            f"{where}: pairs={hops} name a device that is not on axis {axis!r}, which has 0 to "
            f"{size - 1}"
        )
    for what, devices in (("send", [a for a, _ in hops]), ("receive", [b for _, b in hops])):
        if len(set(devices)) < len(devices):
            raise ValueError(
                f"{where}: pairs={hops} have a device {what} twice; a hop is from one device to "
                "another. Use `all_gather` for more"
            )
    return Permute(axis, hops), size


@dataclass(frozen=True)
class Gather:
    """Every device receives every device's buffer, stacked along a new leading axis.

    The way back is an all-to-all in the gradient wire's format and a sum on arrival, because
    quantised codes cannot be summed on the way (a reduce-scatter of uint8 would wrap around).
    """

    axis: str

    @property
    def axes(self) -> frozenset[str]:
        return frozenset({self.axis})

    def busiest(self, count: jax.Array) -> jax.Array:
        return _largest(count)

    def forward(self, buffer: jax.Array) -> jax.Array:
        return jax.lax.all_gather(buffer, self.axis)

    def backward(self, buffer: jax.Array) -> jax.Array:
        return jax.lax.all_to_all(buffer, self.axis, split_axis=0, concat_axis=0)

    def accumulate(self, cotangent: jax.Array) -> jax.Array:
        return cotangent.sum(0)


class Link(NamedTuple):
    """What `transport` needs to know and cannot differentiate; hashable.

    Attributes:
      code: packs symbols and unpacks values.
      hop: the collective.
      events: capacity in spikes of one message of events (AER), or None for bit planes.
      gradient_format: one of `dense.GRADIENT_FORMATS`.
      gradient_features: r, the static width of the cotangent on the wire; at least the number of
        features that the plan keeps.
    """

    code: Code
    hop: Hop
    events: int | None
    gradient_format: str
    gradient_features: int


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def transport(
    link: Link, symbols: jax.Array, encoder: Params, decoder: Params, key: jax.Array | None
) -> jax.Array:
    """Symbols of this device -> values that arrive here.

    Args:
      link: the static part.
      symbols: what `code.encode` returned.
      encoder: parameters of the code on the sender; only its plan is read, and nothing of it
        receives a gradient here.
      decoder: likewise on the receiver.
      key: PRNG key for the stochastic rounding of an int8 or int4 gradient, else None.

    Returns:
      values (..., features), with a leading device axis under `Gather`.
    """
    if isinstance(link.code, SpikeCode):
        if isinstance(link.hop, Stay):
            return link.code.value(decoder, symbols)
        if link.events is not None:
            return _send_events(link, link.code, link.events, symbols, encoder, decoder)
    buffer = link.hop.forward(link.code.to_wire(encoder, symbols))
    return link.code.from_wire(decoder, buffer, symbols.dtype)


def _forward(
    link: Link, symbols: jax.Array, encoder: Params, decoder: Params, key: jax.Array | None
) -> tuple[jax.Array, tuple[Any, ...]]:
    return transport(link, symbols, encoder, decoder, key), (encoder, decoder, key)


def _backward(
    link: Link, residuals: tuple[Any, ...], cotangent: jax.Array
) -> tuple[jax.Array, None, None, None]:
    encoder, decoder, key = residuals
    code, dtype = link.code, cotangent.dtype
    planned = plan.gather(cotangent, code.kept_features(decoder), link.gradient_features)
    buffer = link.hop.backward(dense.pack_gradient(planned, link.gradient_format, key))
    received = dense.unpack_gradient(buffer, link.gradient_features, link.gradient_format, dtype)
    received = plan.scatter(link.hop.accumulate(received), code.kept_features(encoder))
    return code.cotangent(encoder, received), None, None, None


transport.defvjp(_forward, _backward)


def _send_events(
    link: Link,
    code: SpikeCode,
    capacity: int,
    symbols: jax.Array,
    encoder: Params,
    decoder: Params,
) -> jax.Array:
    """Events (AER) when every device's spikes fit the capacity, bit planes when any one's do not.

    All devices must take the same branch, or the collectives of the two would wait for each other
    for ever; one scalar maximum over the mesh settles it.
    """
    buffer = code.to_wire(encoder, symbols)
    bits = spikes.unpack_bits(buffer, code.budget, jnp.uint8).reshape(-1, code.budget)

    def events() -> jax.Array:
        sent = link.hop.forward(spikes.pack_events(bits, capacity))
        unpack: Callable[[jax.Array], jax.Array] = lambda row: spikes.pack_bits(
            spikes.unpack_events(row, bits.shape[0], code.budget, capacity, jnp.uint8)
        )
        rows = jax.vmap(unpack)(sent) if sent.ndim == 2 else unpack(sent)
        return rows.reshape(sent.shape[:-1] + buffer.shape)

    fits = events_fit(link.hop, spikes.event_count(bits), capacity)
    arrived = jax.lax.cond(fits, events, lambda: link.hop.forward(buffer))
    return code.from_wire(decoder, arrived, symbols.dtype)


def events_fit(hop: Hop, spikes: jax.Array, capacity: int) -> jax.Array:
    """Whether every sender's spikes, () int32, fit the capacity: the same everywhere."""
    return hop.busiest(spikes) <= capacity


def _largest(count: jax.Array) -> jax.Array:
    """Over all manual axes, not the hop's alone: one collective serves all rows of the mesh."""
    axes = manual_axes()
    return jax.lax.pmax(vary_over(count, axes), axes)
