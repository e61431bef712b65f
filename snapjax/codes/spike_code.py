"""Spike codes: how a feature becomes a few binary spikes, and how spikes become a value again.

A spike code turns v = gain * (x - offset) into T steps of binary planes and reads them back as
`value = sum_p amplitude_p * spike_p`, `x^ = gain' * value + offset'`. The amplitudes are constants
of the code, so gain, offset and threshold are the sender's alone, gain' and offset' the receiver's,
and nothing learned is shared over the link.

| code | planes a step | amplitude of step t | v range | a feature sends |
|---|---|---|---|---|
| phase | 1 | 2^-t | [0, 2] | the binary expansion of v (Kim et al. 2018, phase coding) |
| rate | 1 | 1 / T | [0, 1] | a LIF neuron's spikes under the constant current v |
| latency | 1 | (T - t) / T | [0, 1] | at most one spike, the earlier the larger v |
| ternary | 2 | 3^-t | [-1.5, 1.5] | balanced ternary digits, a plane for +1 and one for -1 |
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from snapjax.codes import plan
from snapjax.neurons import neuron
from snapjax.neurons.surrogate import Surrogate, spike
from snapjax.wire import bit_fields

Params = dict[str, Any]

# Before calibration a code covers inputs of mean 0 and standard deviation 1 up to two deviations.
INITIAL_COVERAGE = 2.0
STEPS_IN_MARK = 100  # above `MAX_STEPS`


def per_feature(vector: jax.Array, like: jax.Array) -> jax.Array:
    """`vector: (features,)` in the dtype of `like: (..., features)`, to broadcast against it."""
    return vector.astype(like.dtype).reshape((1,) * (like.ndim - 1) + vector.shape)


@dataclass(frozen=True)
class SpikeCode(ABC):
    """A code of binary spikes under a bit budget; the subclasses say when a neuron fires.

    Attributes:
      features: width of x.
      steps: T, the most steps a feature may use, >= 1.
      budget: bits a token; the plan never uses more.
      surrogate: the gradient of the firing.
    """

    features: int
    steps: int
    budget: int
    surrogate: Surrogate = field(default_factory=Surrogate)

    number: ClassVar[
        int
    ]  # of the code in the parameters; never another's, not even a removed one's
    planes_per_step: ClassVar[int] = 1
    input_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    @property
    def mark(self) -> int:
        """Code and steps as one number, which goes with the parameters: 104 is phase in 4 steps.

        The parameters of the codes have equal shapes, and mean something else.
        """
        return STEPS_IN_MARK * self.number + self.steps

    @property
    def planes(self) -> int:
        """Bits a feature at most: the steps, times the bits of a step."""
        return self.steps * self.planes_per_step

    @property
    def bits(self) -> int:
        return self.budget

    @abstractmethod
    def step_amplitudes(self) -> np.ndarray:
        """float32 (T,): what a spike of each step is worth."""

    def amplitudes(self) -> np.ndarray:
        """float32 (planes,): step by step."""
        return np.repeat(self.step_amplitudes(), self.planes_per_step).astype(np.float32)

    def step_of_plane(self) -> np.ndarray:
        """int32 (planes,): the step that each plane belongs to."""
        return np.repeat(np.arange(self.steps, dtype=np.int32), self.planes_per_step)

    @abstractmethod
    def fire(self, encoder: Params, v: jax.Array) -> list[jax.Array]:
        """The spikes of v (..., features), a list of one 0/1 array a plane."""

    def neuron_params(self) -> Params:
        """Initial values of what the firing rule learns, {name: scalar}."""
        return {"threshold": 1.0}

    def init(self, kept: int | None = None) -> dict[str, Params]:
        """Parameters whose plan shares the budget out evenly.

        Args:
          kept: how many features may be sent, the first ones; None for all.
        """
        kept = self.features if kept is None else kept
        steps = plan.uniform_steps(kept, self.steps, self.budget // self.planes_per_step)
        steps = np.pad(steps, (0, self.features - kept))
        low, high = self.input_range
        gain = (high - low) / (2 * INITIAL_COVERAGE)
        # The largest value that so many steps can express; half of it stands for the mean.
        amplitudes, symmetric = self.step_amplitudes(), self.planes_per_step == 2
        reach = np.concatenate([[0.0], np.cumsum(amplitudes)])[steps]
        full = lambda number: jnp.full(self.features, number, jnp.float32)
        return {
            "encoder": {
                "gain": full(gain),
                "offset": full(-(low + high) / 2 / gain),
                **{name: full(number) for name, number in self.neuron_params().items()},
                "steps_per_feature": jnp.asarray(steps),
                "code": jnp.int32(self.mark),
            },
            "decoder": {
                "gain": full(1 / gain),
                "offset": jnp.asarray(0 * reach if symmetric else -reach / 2 / gain, jnp.float32),
                "steps_per_feature": jnp.asarray(steps),
                "code": jnp.int32(self.mark),
            },
        }

    def encode(self, encoder: Params, x: jax.Array) -> jax.Array:
        return self.encode_and_check(encoder, x)[0]

    def encode_and_check(self, encoder: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Elementwise and cheap: the backward pass fires again instead of storing every plane.
        return jax.checkpoint(self._encode)(encoder, x)

    def _encode(self, encoder: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Subtracting first keeps small deviations from a large mean exact.
        v = per_feature(encoder["gain"], x) * (x - per_feature(encoder["offset"], x))
        finite = jnp.isfinite(v).all()
        for name in self.neuron_params():
            finite = finite & jnp.isfinite(encoder[name]).all()
        # The name tells the cost model that these are spikes, however the code combined them.
        return checkpoint_name(jnp.stack(self.fire(encoder, v), axis=-2), "spikes"), finite

    def value(self, end: Params, symbols: jax.Array) -> jax.Array:
        """What `from_wire` makes of `to_wire`, to the last bit, without packing."""
        return self._weigh(end, symbols, self.amplitudes().tolist())

    def count(self, encoder: Params, symbols: jax.Array) -> jax.Array:
        """How many planned spikes there are: a scalar in the symbols' dtype, differentiable."""
        return self._weigh(encoder, symbols, [1] * self.planes).sum(dtype=symbols.dtype)

    def to_wire(self, encoder: Params, symbols: jax.Array) -> jax.Array:
        """Feature after feature, its planned planes in order, in fields of up to 8 planes."""
        planes = [
            (symbols[..., plane, :] != 0).astype(jnp.uint8) << plane % 8
            for plane in range(self.planes)
        ]
        fields = [reduce(jnp.bitwise_or, planes[i : i + 8]) for i in range(0, self.planes, 8)]
        return bit_fields.pack(jnp.concatenate(fields, -1), self._widths(encoder), self.budget)

    def from_wire(self, decoder: Params, buffer: jax.Array, dtype: Any) -> jax.Array:
        fields = bit_fields.unpack(buffer, self._widths(decoder))
        fields = fields.reshape(*buffer.shape[:-1], -(-self.planes // 8), self.features)
        # In the order of `value`, so that a link delivers what one device computes.
        terms = (
            amplitude * (fields[..., plane // 8, :] >> plane % 8 & 1).astype(dtype)
            for plane, amplitude in enumerate(self.amplitudes().tolist())
        )
        return reduce(jnp.add, terms)

    def _weigh(self, end: Params, symbols: jax.Array, factors: list[Any]) -> jax.Array:
        """sum_p factors[p] * planned spikes of plane p, (..., features), plane after plane.

        XLA fuses this with what made the planes. The factor goes to the plan first: of
        `factor * (sent * spikes)` it stores every plane, which takes twice as long.
        """
        sent = self._sent(end).astype(symbols.dtype)
        planes = [symbols[..., plane, :] for plane in range(self.planes)]
        terms = (
            per_feature(factor * on, spikes) * spikes
            for factor, on, spikes in zip(factors, sent, planes, strict=True)
        )
        return reduce(jnp.add, terms)

    def _widths(self, end: Params) -> jax.Array:
        """Planes that each field of 8 sends, int32 (fields * features,)."""
        first = np.arange(0, self.planes, 8, dtype=np.int32)[:, None]
        return jnp.clip(
            self.planes_per_step * end["steps_per_feature"][None] - first, 0, 8
        ).reshape(-1)

    def cotangent(self, encoder: Params, cotangent: jax.Array) -> jax.Array:
        amplitudes = jnp.asarray(self.amplitudes(), cotangent.dtype)[:, None]
        weight = amplitudes * self._sent(encoder).astype(cotangent.dtype)
        lead = (1,) * (cotangent.ndim - 1)
        return cotangent[..., None, :] * weight.reshape(lead + weight.shape)

    def kept_features(self, end: Params) -> jax.Array:
        return end["steps_per_feature"] > 0

    def decode(self, decoder: Params, value: jax.Array) -> jax.Array:
        return per_feature(decoder["gain"], value) * value + per_feature(decoder["offset"], value)

    def _sent(self, end: Params) -> jax.Array:
        return plan.planned(end["steps_per_feature"], self.step_of_plane())


@dataclass(frozen=True)
class PhaseCode(SpikeCode):
    """Step t spikes where what is left of v reaches 2^-t, and takes 2^-t away.

    The spike's argument is divided by the amplitude, so that the surrogate is as wide, relative to
    its step, at the last step as at the first; with a straight-through surrogate dvalue/dv = 1.
    """

    number: ClassVar[int] = 1
    input_range: ClassVar[tuple[float, float]] = (0.0, 2.0)

    def step_amplitudes(self) -> np.ndarray:
        return 2.0 ** -np.arange(self.steps, dtype=np.float32)

    def fire(self, encoder: Params, v: jax.Array) -> list[jax.Array]:
        threshold, spikes = per_feature(encoder["threshold"], v), []
        for amplitude in self.step_amplitudes().tolist():
            spikes.append(spike(v / amplitude - threshold, self.surrogate))
            v = v - amplitude * spikes[-1]
        return spikes


@dataclass(frozen=True)
class RateCode(SpikeCode):
    """A leaky integrate-and-fire neuron with soft reset under the constant current v.

    The membrane starts at half the threshold, which turns the floor of the spike count into
    rounding (Bu et al. 2022, arXiv 2303.04347). The leak starts at 1 (no leak), where the count is
    linear in v, and is learned.
    """

    number: ClassVar[int] = 2

    def step_amplitudes(self) -> np.ndarray:
        return np.full(self.steps, 1 / self.steps, np.float32)

    def neuron_params(self) -> Params:
        return {"threshold": 1.0, "leak": 1.0}

    def fire(self, encoder: Params, v: jax.Array) -> list[jax.Array]:
        threshold = per_feature(encoder["threshold"], v)
        _, spikes = neuron.run(
            neuron.Neuron(reset="soft", surrogate=self.surrogate),
            jnp.broadcast_to(threshold / 2, v.shape),
            jnp.broadcast_to(v[None], (self.steps, *v.shape)),
            encoder["threshold"].astype(v.dtype),
            encoder["leak"].astype(v.dtype),
        )
        return list(spikes)


@dataclass(frozen=True)
class LatencyCode(SpikeCode):
    """One spike at the first step whose falling threshold (T - t) / T lies under v, or none."""

    number: ClassVar[int] = 3

    def step_amplitudes(self) -> np.ndarray:
        return (self.steps - np.arange(self.steps, dtype=np.float32)) / self.steps

    def fire(self, encoder: Params, v: jax.Array) -> list[jax.Array]:
        threshold, spikes = per_feature(encoder["threshold"], v), []
        silent = jnp.ones_like(v)
        for amplitude in self.step_amplitudes().tolist():
            spikes.append(spike(v - amplitude * threshold, self.surrogate) * silent)
            silent = silent - spikes[-1]
        return spikes


@dataclass(frozen=True)
class TernaryCode(SpikeCode):
    """Balanced ternary: step t sends the sign of what is left of v where it exceeds 3^-t / 2."""

    number: ClassVar[int] = 4
    planes_per_step: ClassVar[int] = 2
    input_range: ClassVar[tuple[float, float]] = (-1.5, 1.5)

    def step_amplitudes(self) -> np.ndarray:
        return 3.0 ** -np.arange(self.steps, dtype=np.float32)

    def amplitudes(self) -> np.ndarray:
        return np.stack([self.step_amplitudes(), -self.step_amplitudes()], axis=1).reshape(-1)

    def neuron_params(self) -> Params:
        return {"threshold": 0.5}

    def fire(self, encoder: Params, v: jax.Array) -> list[jax.Array]:
        threshold, spikes = per_feature(encoder["threshold"], v), []
        for amplitude in self.step_amplitudes().tolist():
            up = spike(v / amplitude - threshold, self.surrogate)
            down = spike(-v / amplitude - threshold, self.surrogate)
            v = v - amplitude * (up - down)
            spikes += [up, down]
        return spikes
