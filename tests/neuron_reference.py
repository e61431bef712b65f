"""The neuron in float64 numpy, and its surrogate gradient as a true derivative; no jax in here."""

from functools import partial

import numpy as np
from test_surrogate import PRIMITIVES


def simulate(reset, fire, membrane, currents, threshold, leak):
    """Membranes after each step and spikes, float64; `fire(t, h - threshold)` gives the spikes."""
    membranes, spikes = [], []
    for t, current in enumerate(np.asarray(currents, np.float64)):
        charge = leak * membrane + current
        fired = fire(t, charge - threshold)
        membrane = {"soft": charge - threshold * fired, "hard": (1 - fired) * charge}[reset]
        membranes.append(membrane)
        spikes.append(fired)
    return np.stack(membranes), np.stack(spikes)


def heaviside(t, over):
    return (over >= 0).astype(np.float64)


def reference_gradients(model, arguments, weights):
    """d loss / d (membrane, currents, threshold, leak), loss = sum(weights * (last, spikes)).

    Where the spikes are replaced by S(u*) + P(u) - P(u*), with u* the values of u at the point in
    question, P' the surrogate and S(u*) constant, the model takes the same values there and its
    true derivative is the surrogate gradient: central differences of it need no backward pass.
    Neurons do not see each other, so that one difference moves the same argument of all of them.
    """
    overs = []

    def record(t, over):
        overs.append(over)
        return heaviside(t, over)

    arguments = [np.asarray(argument, np.float64) for argument in arguments]
    membrane, currents, threshold, leak = arguments
    simulate(model.reset, record, *arguments)
    primitive = partial(PRIMITIVES[model.surrogate.name], a=model.surrogate.alpha)

    def smooth(t, over):
        return heaviside(t, overs[t]) + primitive(over) - primitive(overs[t])

    def loss(membrane, currents, threshold, leak):
        membranes, spikes = simulate(model.reset, smooth, membrane, currents, threshold, leak)
        return weights[0] * membranes[-1] + np.sum(weights[1] * spikes, axis=0)

    h = 1e-6

    def difference(move):
        return (loss(*move(h)) - loss(*move(-h))) / (2 * h)

    def shift(t, h):
        return currents + h * (np.arange(len(currents)) == t).reshape(-1, *[1] * membrane.ndim)

    d_currents = [
        difference(lambda h, t=t: (membrane, shift(t, h), threshold, leak))
        for t in range(len(currents))
    ]
    return (
        difference(lambda h: (membrane + h, currents, threshold, leak)),
        np.stack(d_currents),
        sum_to(difference(lambda h: (membrane, currents, threshold + h, leak)), threshold.shape),
        sum_to(difference(lambda h: (membrane, currents, threshold, leak + h)), leak.shape),
    )


def sum_to(value, shape):
    """`value` summed to `shape`, which numpy's rules broadcast to value's."""
    value = value.sum(axis=tuple(range(value.ndim - len(shape))))
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return value.sum(axis=axes, keepdims=True)
