"""Leaky integrate-and-fire neurons over T time steps, as pure functions with explicit state.

A step charges the membrane, fires, and resets (S is the step function of
`snapjax.neurons.surrogate`):

    h_t = leak * v_{t-1} + x_t           charge
    s_t = S(h_t - threshold)             fire
    v_t = h_t - threshold * s_t          soft reset: what is over the threshold stays
    v_t = h_t * (1 - s_t)                hard reset: to zero

`leak` is the part of the membrane that a step keeps; 1 is the integrate-and-fire neuron without
leak. The gradient goes through the reset as well as through the spike. This is SpikingJelly's
`LIFNode(decay_input=False, detach_reset=False)` with leak = 1 - 1/tau and v_reset None (soft) or 0
(hard), and its `IFNode` with leak = 1. snnTorch's `Leaky` has the same charge with beta = leak, but
by default it resets one step later (so a soft reset takes the whole threshold after the leak) and
detaches the reset from the gradient.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from snapjax.errors import check_types, unknown_name
from snapjax.neurons.surrogate import Surrogate, spike
from snapjax.varying import match_varying

RESETS = ("soft", "hard")
"""What a spike does to the membrane: see the equations above."""

# Up to here the time loop is unrolled, and XLA fuses the steps: 0.2 to 0.8 of the time of a rolled
# scan on a CPU for T = 2 to 8 (scripts/bench_neuron.py). Beyond, XLA computes the early steps anew
# for each late one, and at T = 16 unrolled takes up to twice as long; partial unrolling is worse.
UNROLLED_STEPS = 8


@dataclass(frozen=True)
class Neuron:
    """The parts of a neuron that are not arrays.

    Attributes:
      reset: "soft" subtracts the threshold after a spike, "hard" sets the membrane to zero.
      surrogate: the firing rule and its gradient.

    Raises:
      ValueError: for an unknown reset.
    """

    reset: str = "soft"
    surrogate: Surrogate = field(default_factory=Surrogate)

    def __post_init__(self) -> None:
        check_types(
            "Neuron", {"reset": (self.reset, str), "surrogate": (self.surrogate, Surrogate)}
        )
        if self.reset not in RESETS:
            raise unknown_name("reset", self.reset, RESETS)


def step(
    neuron: Neuron, membrane: jax.Array, current: jax.Array, threshold: Any, leak: Any
) -> tuple[jax.Array, jax.Array]:
    """One time step, differentiated by autodiff.

    Args:
      neuron: reset and surrogate.
      membrane: (..., d), v_{t-1}, floating point.
      current: (..., d), x_t.
      threshold: a scalar, a vector (d,), or an array of the membrane's rank that broadcasts to it.
      leak: the same.

    Returns:
      (v_t, s_t), both (..., d) in the membrane's dtype.

    Raises:
      ValueError: if shapes or dtypes do not fit. A Python number takes the membrane's dtype.
    """
    check_types("step_neuron", {"neuron": (neuron, Neuron)})
    membrane, current = jnp.asarray(membrane), jnp.asarray(current)
    _check_like("current", current, membrane, membrane.shape)
    threshold = _parameter("threshold", threshold, membrane)
    leak = _parameter("leak", leak, membrane)
    return _fire(neuron, leak * membrane + current, threshold)


def run(
    neuron: Neuron, membrane: jax.Array, currents: jax.Array, threshold: Any, leak: Any
) -> tuple[jax.Array, jax.Array]:
    """T time steps: what `lax.scan` of `step` gives, with a backward pass written by hand.

    Of the forward pass only the charges (T, ..., d) are kept. Gradients of a threshold or a leak
    that is broadcast are summed in float32 at least. Reverse mode only.

    Args:
      neuron: reset and surrogate.
      membrane: (..., d), before the first step, floating point.
      currents: (T, ..., d), T >= 1.
      threshold: a scalar, a vector (d,), or an array of the membrane's rank that broadcasts to it.
      leak: the same.

    Returns:
      (membrane after the last step (..., d), spikes (T, ..., d)), in the membrane's dtype.

    Raises:
      ValueError: if T < 1, or shapes or dtypes do not fit. A Python number takes the membrane's
        dtype.
    """
    check_types("run_neuron", {"neuron": (neuron, Neuron)})
    membrane, currents = jnp.asarray(membrane), jnp.asarray(currents)
    if currents.ndim < 1 or currents.shape[0] < 1:
        raise ValueError(
            f"currents has shape {currents.shape}, but run() needs (T, ..., d) with T >= 1 steps"
        )
    _check_like("currents", currents, membrane, (currents.shape[0], *membrane.shape))
    threshold = _parameter("threshold", threshold, membrane)
    leak = _parameter("leak", leak, membrane)
    # Here and not inside: the transpose of this cast sums the gradients over devices.
    return _run(neuron, *match_varying(membrane, currents, threshold, leak))


def _check_like(name: str, value: jax.Array, membrane: jax.Array, shape: tuple[int, ...]) -> None:
    if not jnp.issubdtype(membrane.dtype, jnp.floating):
        raise ValueError(f"membrane has dtype {membrane.dtype}, but needs floating point")
    if value.dtype != membrane.dtype:
        raise ValueError(
            f"{name} has dtype {value.dtype}, but membrane has {membrane.dtype}; cast one of them"
        )
    if value.shape != shape:
        raise ValueError(
            f"{name} has shape {value.shape}, but membrane {membrane.shape} needs it to be {shape}"
        )


def _parameter(name: str, value: Any, membrane: jax.Array) -> jax.Array:
    """A threshold or leak in the membrane's rank, ready to broadcast."""
    value = jnp.asarray(value)
    if jax.typeof(value).weak_type:  # a Python number, or one that jit or grad traces
        value = value.astype(membrane.dtype)
    if value.dtype != membrane.dtype:
        raise ValueError(
            f"{name} has dtype {value.dtype}, but membrane has {membrane.dtype}; cast one of them"
        )
    if value.shape == () or value.shape == membrane.shape[-1:]:
        return value.reshape((1,) * (membrane.ndim - value.ndim) + value.shape)
    if value.ndim == membrane.ndim and all(
        size in (1, full) for size, full in zip(value.shape, membrane.shape, strict=True)
    ):
        return value
    raise ValueError(
        f"{name} has shape {value.shape}, but membrane {membrane.shape} needs a scalar, a vector "
        f"of its last dimension, or {membrane.ndim} dimensions, each 1 or the membrane's"
    )


def _reset(neuron: Neuron, charge: jax.Array, spikes: jax.Array, threshold: jax.Array) -> jax.Array:
    return charge - threshold * spikes if neuron.reset == "soft" else _to_zero(charge, spikes)


@jax.custom_jvp
def _to_zero(charge: jax.Array, spikes: jax.Array) -> jax.Array:
    """charge * (1 - spikes) for spikes of 0 and 1, also of an infinite charge."""
    return jnp.where(spikes > 0, jnp.zeros_like(charge), charge)


@_to_zero.defjvp
def _to_zero_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (charge, spikes), (d_charge, d_spikes) = primals, tangents
    made = (1 - spikes) * d_charge - _finite(charge) * d_spikes
    return _to_zero(charge, spikes), made


def _finite(charge: jax.Array) -> jax.Array:
    """The charge, 0 where it is infinite: a surrogate's slope there is 0, and 0 * inf is NaN."""
    return jnp.where(jnp.isinf(charge), jnp.zeros_like(charge), charge)


def _fire(neuron: Neuron, charge: jax.Array, threshold: jax.Array) -> tuple[jax.Array, jax.Array]:
    spikes = spike(charge - threshold, neuron.surrogate)
    return _reset(neuron, charge, spikes, threshold), spikes


def _forward(
    neuron: Neuron,
    membrane: jax.Array,
    currents: jax.Array,
    threshold: jax.Array,
    leak: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(last membrane, charges, spikes)."""

    def body(membrane: jax.Array, current: jax.Array) -> tuple[jax.Array, Any]:
        charge = leak * membrane + current
        membrane, spikes = _fire(neuron, charge, threshold)
        return membrane, (charge, spikes)

    unroll = currents.shape[0] <= UNROLLED_STEPS
    membrane, (charges, spikes) = lax.scan(body, membrane, currents, unroll=unroll)
    return membrane, charges, spikes


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(
    neuron: Neuron,
    membrane: jax.Array,
    currents: jax.Array,
    threshold: jax.Array,
    leak: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    membrane, _, spikes = _forward(neuron, membrane, currents, threshold, leak)
    return membrane, spikes


def _run_forward(
    neuron: Neuron,
    membrane: jax.Array,
    currents: jax.Array,
    threshold: jax.Array,
    leak: jax.Array,
) -> tuple[Any, Any]:
    last, charges, spikes = _forward(neuron, membrane, currents, threshold, leak)
    return (last, spikes), (membrane, charges, threshold, leak)


def _run_backward(neuron: Neuron, residuals: Any, cotangents: Any) -> Any:
    """The steps in reverse, with d_y for d loss / d y:

    d_s_t += -threshold d_v_t (soft)  or  -h_t d_v_t (hard)
    d_u_t  = S'(h_t - threshold) d_s_t
    d_h_t  = d_u_t + d_v_t (soft)     or  d_u_t + (1 - s_t) d_v_t (hard)
    d_x_t  = d_h_t,  d_v_{t-1} = leak d_h_t
    d_leak = sum_t d_h_t v_{t-1}
    d_threshold = -sum_t d_u_t + s_t d_v_t (soft)  or  -sum_t d_u_t (hard)
    """
    first, charges, threshold, leak = residuals
    d_last, d_spikes = cotangents
    dtype = first.dtype
    wide = jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype

    def body(carry: Any, inputs: Any) -> tuple[Any, jax.Array]:
        d_membrane, d_next_charge, d_threshold, d_leak = carry
        charge, d_spike = inputs
        over = charge - threshold
        spikes = neuron.surrogate.fires(over).astype(dtype)
        membrane = _reset(neuron, charge, spikes, threshold)
        # The membrane after this step is the one that the next step leaks.
        d_leak += _sum_to(d_next_charge.astype(wide) * membrane.astype(wide), leak.shape)
        if neuron.reset == "soft":
            d_over = (d_spike - threshold * d_membrane) * neuron.surrogate.gradient(over)
            d_charge = d_over + d_membrane
            d_step = d_over.astype(wide) + (spikes * d_membrane).astype(wide)
        else:
            d_over = (d_spike - _finite(charge) * d_membrane) * neuron.surrogate.gradient(over)
            d_charge = d_over + (1 - spikes) * d_membrane
            d_step = d_over.astype(wide)
        # Summed in every step: whole-sequence sums after the loop took 4 to 6 times as long.
        d_threshold -= _sum_to(d_step, threshold.shape)
        return (leak * d_charge, d_charge, d_threshold, d_leak), d_charge

    zeros = jnp.zeros_like(d_last), jnp.zeros_like(threshold, wide), jnp.zeros_like(leak, wide)
    carry, inputs = match_varying((d_last, *zeros), (charges, d_spikes))
    unroll = charges.shape[0] <= UNROLLED_STEPS
    (d_first, d_charge, d_threshold, d_leak), d_currents = lax.scan(
        body, carry, inputs, reverse=True, unroll=unroll
    )
    d_leak += _sum_to(d_charge.astype(wide) * first.astype(wide), leak.shape)
    return d_first, d_currents, d_threshold.astype(dtype), d_leak.astype(dtype)


def _sum_to(value: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`value` summed over the dimensions along which an array of `shape` is broadcast to it."""
    axes = [axis for axis, size in enumerate(shape) if size != value.shape[axis]]
    return jnp.sum(value, axis=axes, keepdims=True)


_run.defvjp(_run_forward, _run_backward)
