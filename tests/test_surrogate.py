"""Surrogate gradients against the peers' numbers, and against primitives written here."""

import json
import math
from functools import partial
from pathlib import Path

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax.sharding import AxisType, PartitionSpec

from snapjax.neurons.surrogate import SURROGATES, Surrogate, spike

GOLDEN = json.loads((Path(__file__).parent / "golden" / "surrogates.json").read_text())

DTYPES = ["float16", "bfloat16", "float32", "float64"]

# Smooth functions P with P' = dS/dv, in float64.
PRIMITIVES = {
    "atan": lambda v, a: np.arctan(math.pi / 2 * a * v) / math.pi,
    "sigmoid": lambda v, a: 1 / (1 + np.exp(-a * v)),
    "fast_sigmoid": lambda v, a: v / (1 + a * np.abs(v)),
    "superspike": lambda v, a: v / (1 + a * np.abs(v)),
    "triangular": lambda v, a: np.where(
        np.abs(v) < 1 / a, a * v - a**2 / 2 * v * np.abs(v), np.sign(v) / 2
    ),
    "gaussian": lambda v, a: np.vectorize(math.erf)(a * v) / 2,
    "rectangular": lambda v, a: np.clip(a * v, -0.5, 0.5),
    "straight_through": lambda v, a: v,
}

# (surrogate, peer, factor): factor * peer's gradient is ours.
PARITY = [
    (Surrogate("atan", 2), "spikingjelly.ATan", 1),
    (Surrogate("atan"), "snntorch.atan", 1),
    (Surrogate("sigmoid"), "spikingjelly.Sigmoid", 1),
    (Surrogate("sigmoid", 25), "snntorch.sigmoid", 1),
    (Surrogate("fast_sigmoid"), "snntorch.fast_sigmoid", 1),
    (Surrogate("superspike", 25), "snntorch.fast_sigmoid", 1),
    (Surrogate("superspike", 1), "spikingjelly.SuperSpike", 1),
    (Surrogate("fast_sigmoid", 1), "spikingjelly.SuperSpike", 1),
    # SoftSign(a) is a/2 times the fast sigmoid of slope a, and QPseudoSpike(2) is SoftSign(2).
    (Surrogate("fast_sigmoid", 2), "spikingjelly.SoftSign", 2 / 2),
    (Surrogate("fast_sigmoid", 2), "spikingjelly.QPseudoSpike", 1),
    (Surrogate("triangular"), "spikingjelly.PiecewiseQuadratic", 1),
    (Surrogate("gaussian"), "spikingjelly.Erf", 1),
    (Surrogate("rectangular"), "spikingjelly.Rect", 1),
    (Surrogate("straight_through"), "spikingjelly.DeterministicPass", 1),
    (Surrogate("straight_through"), "snntorch.straight_through_estimator", 1),
]


def gradient_of_spike(v, surrogate):
    """dS/dv by differentiating `spike`, not by asking the surrogate."""
    return jax.vjp(lambda v: spike(v, surrogate), v)[1](jnp.ones_like(v))[0]


@pytest.mark.parametrize(("surrogate", "peer", "factor"), PARITY)
def test_gradient_equals_the_peer(surrogate, peer, factor):
    x = jnp.asarray(GOLDEN["x"], jnp.float32)
    expected = factor * np.array(GOLDEN["peers"][peer]["gradient"])
    np.testing.assert_allclose(gradient_of_spike(x, surrogate), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("peer", GOLDEN["peers"])
def test_spike_equals_the_peer_on_both_sides_and_at_zero(peer):
    at_zero = GOLDEN["peers"][peer]["spike_at_zero"]
    x = np.array(GOLDEN["x"], np.float32)
    expected = np.where(x == 0, at_zero, x > 0).astype(np.float32)
    np.testing.assert_array_equal(spike(x, Surrogate(fires_at_zero=bool(at_zero))), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threshold_rules_differ_at_zero_only(dtype):
    with jax.enable_x64(True):
        tiny = float(jnp.finfo(dtype).tiny)
        v = jnp.array([-1, -tiny, -0.0, 0.0, tiny, 1], dtype)
        closed, opened = spike(v), spike(v, Surrogate(fires_at_zero=False))
    np.testing.assert_array_equal(np.asarray(closed, float), [0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(np.asarray(opened, float), [0, 0, 0, 0, 1, 1])


@pytest.mark.parametrize("name", SURROGATES)
@settings(max_examples=25, deadline=None)
@given(alpha=st.floats(0.25, 50), scaled=st.floats(-6, 6))
def test_gradient_is_the_derivative_of_a_primitive(name, alpha, scaled):
    # Away from the kinks at 0, 1/2 and 1 (in units of the width) the central difference of step h
    # is off by h^2 P''' / 6 <= 1e-10 alpha, plus 1e-16 / h = 1e-11 alpha from rounding.
    if min(abs(abs(scaled) - kink) for kink in (0, 0.5, 1)) < 1e-4:
        scaled += 2e-4
    alpha = 1.0 if name == "straight_through" else alpha
    v, h = scaled / alpha, 1e-5 / alpha
    primitive = PRIMITIVES[name]
    expected = (primitive(v + h, alpha) - primitive(v - h, alpha)) / (2 * h)
    with jax.enable_x64(True):
        actual = gradient_of_spike(jnp.float64(v), Surrogate(name, alpha))
        assert actual.dtype == jnp.float64
    assert float(actual) == pytest.approx(float(expected), rel=1e-8, abs=1e-8 * alpha)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SURROGATES)
def test_dtype_is_kept_and_the_gradient_is_as_accurate_as_it(name, dtype):
    points = np.array([-0.96875, -0.5625, -0.25, -0.0625, 0.0625, 0.375, 0.75])  # exact in all
    h = 1e-5
    primitive = PRIMITIVES[name]
    expected = (primitive(points + h, 1.0) - primitive(points - h, 1.0)) / (2 * h)
    with jax.enable_x64(True):
        v = jnp.asarray(points, dtype)
        spikes, gradient = spike(v, Surrogate(name, 1)), gradient_of_spike(v, Surrogate(name, 1))
        assert spikes.dtype == gradient.dtype == v.dtype
        epsilon = float(jnp.finfo(dtype).eps)
    # Every formula is at most 8 roundings of terms of size <= 3; 1e-9 is the difference quotient's.
    np.testing.assert_allclose(
        np.asarray(gradient, float), expected, rtol=0, atol=8 * epsilon + 1e-9
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SURROGATES)
def test_extreme_values_give_finite_even_gradients(name, dtype):
    with jax.enable_x64(True):
        largest = float(jnp.finfo(dtype).max)
        v = jnp.array([0, 1e-7, 1, 100, 1e4, largest, jnp.inf], dtype)
        up, down = gradient_of_spike(v, Surrogate(name)), gradient_of_spike(-v, Surrogate(name))
        spikes = spike(jnp.concatenate([-v[1:], v]), Surrogate(name))
    up, down = np.asarray(up, float), np.asarray(down, float)
    assert np.isfinite(up).all()
    np.testing.assert_array_equal(up, down)
    assert (np.diff(up) <= 0).all()  # never larger farther from the threshold
    expected = 1 if name == "straight_through" else 0
    np.testing.assert_allclose(up[-2:], expected, atol=1e-4)
    # Six points below the threshold, seven at or above it.
    np.testing.assert_array_equal(np.asarray(spikes, float), [0] * 6 + [1] * 7)


def test_nan_does_not_fire():
    assert float(spike(jnp.float32(jnp.nan))) == 0


def atan_gradient(v, alpha=2.0):
    return alpha / 2 / (1 + (math.pi * alpha * np.asarray(v, np.float64) / 2) ** 2)


class TestTransforms:
    v = np.random.default_rng(0).normal(0, 1, (4, 8)).astype(np.float32)
    weight = np.random.default_rng(1).normal(0, 1, (4, 8)).astype(np.float32)
    expected = weight * atan_gradient(v)

    def test_jit(self):
        actual = jax.jit(jax.grad(lambda v: jnp.sum(self.weight * spike(v))))(self.v)
        np.testing.assert_allclose(actual, self.expected, rtol=1e-6, atol=1e-7)

    def test_vmap(self):
        actual = jax.vmap(jax.vmap(jax.grad(lambda v, weight: weight * spike(v))))(
            self.v, self.weight
        )
        np.testing.assert_allclose(actual, self.expected, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("wrap", [lambda f: f, jax.checkpoint], ids=["plain", "checkpoint"])
    def test_scan(self, wrap):
        def loss(v):
            def body(total, row):
                v, weight = row
                return total + jnp.sum(weight * spike(v)), None

            return jax.lax.scan(wrap(body), jnp.float32(0), (v, self.weight))[0]

        value, actual = jax.value_and_grad(loss)(self.v)
        assert float(value) == pytest.approx(float(np.sum(self.weight * (self.v >= 0))), rel=1e-5)
        np.testing.assert_allclose(actual, self.expected, rtol=1e-6, atol=1e-7)

    def test_surrogate_is_a_static_argument(self):
        @partial(jax.jit, static_argnums=1)
        def gradient(v, surrogate):
            return gradient_of_spike(v, surrogate)

        for alpha in (1.0, 3.0):
            actual = gradient(self.v, Surrogate(alpha=alpha))
            np.testing.assert_allclose(actual, atan_gradient(self.v, alpha), rtol=1e-6)

    def test_shard_map_sums_a_shared_threshold_over_the_devices(self):
        mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
        split, shared = PartitionSpec("x", "y"), PartitionSpec()

        @partial(
            jax.shard_map, mesh=mesh, in_specs=(split, split, shared), out_specs=shared
        )  # check_vma is on by default
        def loss(v, weight, threshold):
            return jax.lax.psum(jnp.sum(weight * spike(v - threshold)), ("x", "y"))

        threshold = np.float32(0.25)
        value, (dv, dthreshold) = jax.jit(jax.value_and_grad(loss, argnums=(0, 2)))(
            self.v, self.weight, threshold
        )
        expected = self.weight * atan_gradient(self.v - threshold)
        fired = self.v >= threshold
        assert float(value) == pytest.approx(float(np.sum(self.weight * fired)), rel=1e-5)
        np.testing.assert_allclose(dv, expected, rtol=1e-6, atol=1e-7)
        assert float(dthreshold) == pytest.approx(-expected.sum(), rel=1e-5)

    def test_the_jaxpr_names_the_spike_under_a_gradient_too(self):
        assert "name=spike" in str(jax.make_jaxpr(spike)(self.v))
        gradient = jax.grad(lambda v: jnp.sum(jnp.square(spike(v))))
        assert "name=spike" in str(jax.make_jaxpr(gradient)(self.v))


class TestArguments:
    def test_unknown_name_proposes_the_nearest(self):
        with pytest.raises(ValueError, match=r"surrogate 'arctan'; did you mean 'atan'\?"):
            Surrogate("arctan")

    @pytest.mark.parametrize("alpha", [0, -1.0, math.nan, math.inf])
    def test_alpha_must_be_positive_and_finite(self, alpha):
        with pytest.raises(ValueError, match=r"alpha=.* 'sigmoid' must be finite and greater"):
            Surrogate("sigmoid", alpha)

    def test_straight_through_has_no_width(self):
        assert Surrogate("straight_through", 1) == Surrogate("straight_through")
        with pytest.raises(ValueError, match="alpha=2: surrogate 'straight_through' has no width"):
            Surrogate("straight_through", 2)

    def test_default_alpha_is_resolved_so_that_equal_surrogates_are_equal(self):
        defaults = {name: Surrogate(name).alpha for name in SURROGATES}
        assert defaults == {
            "atan": 2,
            "sigmoid": 4,
            "fast_sigmoid": 25,
            "superspike": 100,
            "triangular": 1,
            "gaussian": 2,
            "rectangular": 1,
            "straight_through": 1,
        }
        assert Surrogate() == Surrogate("atan", 2)
        assert hash(Surrogate()) == hash(Surrogate("atan", 2))

    @pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_])
    def test_integers_have_no_gradient(self, dtype):
        with pytest.raises(ValueError, match=r"v has dtype .*floating point"):
            spike(jnp.ones(3, dtype))
