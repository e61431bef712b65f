"""What a boundary sent: statistics are outputs, never hidden state."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from snapjax.codes.code import Params
from snapjax.codes.spike_code import SpikeCode
from snapjax.transport import Link, events_fit


class BoundaryStats(NamedTuple):
    """What a boundary sent, as float32 scalars of this device, a mean over the messages.

    Attributes:
      spike_rate: spikes over planned planes and tokens, in [0, 1]; differentiable. 1 for the dense
        codes, which send every feature.
      bits: bits a token on the wire, padding and scales included.
      finite: 1 where all that was encoded was finite, else 0: the activation after projection and
        gain, and the thresholds and leaks. A spike code turns NaN into "no spike", which would hide
        a run that diverged.
    """

    spike_rate: jax.Array
    bits: jax.Array
    finite: jax.Array


def count(
    link: Link,
    encoder: Params,
    symbols: jax.Array,
    finite: jax.Array,
    message_bytes: Callable[[int, str], int],
) -> BoundaryStats:
    """The statistics of one message.

    Args:
      link: how it was sent.
      encoder: the sender's parameters; only the plan is read.
      symbols: what the code made of the activation.
      finite: bool scalar, whether what was encoded was finite.
      message_bytes: (tokens, "planes" or "events") -> bytes of a message.
    """
    is_finite = finite.astype(jnp.float32)
    if not isinstance(link.code, SpikeCode):
        per_token = jnp.float32(8 * message_bytes(1, "planes"))
        return BoundaryStats(jnp.float32(1), per_token, is_finite)
    spikes = link.code.count(encoder, symbols)
    number = max(math.prod(symbols.shape[:-2]), 1)
    planned = jnp.maximum(encoder["steps_per_feature"].sum() * link.code.planes_per_step, 1)
    rate = spikes.astype(jnp.float32) / (number * planned.astype(jnp.float32))
    sent = jnp.float32(8 * message_bytes(number, "planes") / number)
    if link.events is not None:
        exact = link.code.count(encoder, symbols.astype(jnp.int32))
        fits = events_fit(link.hop, exact, link.events)
        sent = jnp.where(fits, jnp.float32(8 * message_bytes(number, "events") / number), sent)
    return BoundaryStats(rate, sent, is_finite)
