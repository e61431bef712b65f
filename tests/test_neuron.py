"""Neurons against a float64 loop, finite differences of it, autodiff of a scan, and hand counts."""

from functools import partial

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax.sharding import AxisType, PartitionSpec
from neuron_reference import heaviside, reference_gradients, simulate

from snapjax.neurons import neuron
from snapjax.neurons.neuron import RESETS, Neuron
from snapjax.neurons.surrogate import SURROGATES, Surrogate


def scan_of_step(model, membrane, currents, threshold, leak):
    def body(membrane, current):
        return neuron.step(model, membrane, current, threshold, leak)

    return jax.lax.scan(body, membrane, currents)


@partial(jax.jit, static_argnums=(0, 1))
def outputs_and_gradients(function, model, arguments, weights):
    outputs, vjp = jax.vjp(partial(function, model), *arguments)
    return outputs, vjp(weights)


SHAPE = (3, 4, 5)
# Scalars, vectors, and arrays of the membrane's rank.
PARAMETER_SHAPES = [
    ((), ()),
    ((5,), ()),
    ((), (5,)),
    ((5,), (1, 1, 5)),
    ((3, 1, 1), (1, 4, 5)),
    (SHAPE, (5,)),
]


def random_arguments(steps, shapes=((5,), ()), dtype=np.float64, seed=0):
    """(membrane, currents, threshold, leak) and the weights of the outputs."""
    rng = np.random.default_rng(seed)
    arguments = (
        rng.normal(0, 1, SHAPE),
        rng.normal(0.4, 0.8, (steps, *SHAPE)),
        rng.uniform(0.7, 1.3, shapes[0]),
        rng.uniform(0.5, 1.0, shapes[1]),
    )
    weights = rng.normal(0, 1, SHAPE), rng.normal(0, 1, (steps, *SHAPE))
    cast = partial(jax.tree.map, lambda x: np.asarray(x, dtype))
    return cast(arguments), cast(weights)


# Every surrogate with both resets, and every number of steps and pair of shapes on the way: 1 to 8
# steps are unrolled, more are not.
STEPS = (1, 2, 3, 4, 8, 9, 12, 16)
CASES = [
    pytest.param(
        Neuron(reset, Surrogate(name, alpha)),
        STEPS[(i + 3 * j) % len(STEPS)],
        PARAMETER_SHAPES[(i + j) % len(PARAMETER_SHAPES)],
        id=f"{reset}-{name}-{STEPS[(i + 3 * j) % len(STEPS)]}",
    )
    for j, reset in enumerate(RESETS)
    for i, name in enumerate(SURROGATES)
    # The default widths, except the two narrowest: finite differences of 1e-6 want wider ones.
    for alpha in [{"fast_sigmoid": 5.0, "superspike": 10.0}.get(name)]
]


def assert_close(actual, expected, relative):
    """Relative to the largest value of each array: every sum here has terms of that size."""
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        e = np.asarray(e, np.float64)
        assert a.shape == e.shape
        np.testing.assert_allclose(
            np.asarray(a, np.float64), e, rtol=0, atol=relative * max(1, np.abs(e).max())
        )


class TestRun:
    @pytest.mark.parametrize(("model", "steps", "shapes"), CASES)
    def test_values_and_gradients_in_float64(self, model, steps, shapes):
        arguments, weights = random_arguments(steps, shapes)
        with jax.enable_x64(True):
            (last, spikes), gradients = outputs_and_gradients(neuron.run, model, arguments, weights)
            scanned = outputs_and_gradients(scan_of_step, model, arguments, weights)
            assert all(x.dtype == jnp.float64 for x in [last, spikes, *gradients])
        membranes, expected_spikes = simulate(model.reset, heaviside, *arguments)
        assert 0.1 < expected_spikes.mean() < 0.9
        np.testing.assert_array_equal(spikes, expected_spikes)
        assert_close(last, membranes[-1], 1e-14)
        # 1e-10 / alpha of the difference quotient's rounding, amplified by up to 16 steps.
        assert_close(gradients, reference_gradients(model, arguments, weights), 2e-8)
        assert_close(((last, spikes), gradients), scanned, 1e-13)

    @pytest.mark.parametrize(("model", "steps", "shapes"), CASES[::3])
    def test_float32_equals_autodiff_of_a_scan(self, model, steps, shapes):
        arguments, weights = random_arguments(steps, shapes, np.float32, seed=1)
        actual = outputs_and_gradients(neuron.run, model, arguments, weights)
        expected = outputs_and_gradients(scan_of_step, model, arguments, weights)
        assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(actual))
        assert_close(actual, expected, 2e-6)

    @pytest.mark.parametrize("steps", [4, 12])
    @pytest.mark.parametrize("fires_at_zero", [True, False])
    @pytest.mark.parametrize("reset", RESETS)
    @pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
    def test_values_are_exact_on_a_grid_full_of_ties(self, reset, fires_at_zero, steps, dtype):
        # Quarters, and no leak: every charge is a multiple of 1/4 that bfloat16 holds exactly, and
        # many meet the threshold exactly.
        rng = np.random.default_rng(steps)
        currents = rng.integers(-4, 7, (steps, 6, 50)) / 4
        membrane = rng.integers(-4, 4, (6, 50)) / 4
        ties = 0

        def fire(t, over):
            nonlocal ties
            ties += np.sum(over == 0)
            return (over >= 0 if fires_at_zero else over > 0).astype(np.float64)

        membranes, expected = simulate(reset, fire, membrane, currents, 1.0, 1.0)
        assert ties > 50
        model = Neuron(reset, Surrogate(fires_at_zero=fires_at_zero))
        cast = partial(jnp.asarray, dtype=dtype)
        last, spikes = neuron.run(model, cast(membrane), cast(currents), 1.0, 1)
        assert last.dtype == spikes.dtype == dtype
        np.testing.assert_array_equal(np.asarray(last, float), membranes[-1])
        np.testing.assert_array_equal(np.asarray(spikes, float), expected)

    @pytest.mark.parametrize("steps", [4, 12])
    @pytest.mark.parametrize("reset", RESETS)
    def test_bfloat16_gradients_where_every_product_is_exact(self, reset, steps):
        # With these values d h_t / d h_{t-1} is 1/2 (soft) or one of 1, -1, 2, -2 (hard), and each
        # neuron has one weighted spike: no term needs more than 8 bits, and the sums over neurons
        # and steps fit float32. What is left is one rounding of each sum.
        model = Neuron(reset, Surrogate("straight_through"))
        rng = np.random.default_rng(steps)
        arguments = (
            rng.integers(-1, 1, SHAPE),
            rng.integers(0, 3, (steps, *SHAPE)),
            np.full(5, 0.5),
            np.ones(()),
        )
        weighted = rng.integers(0, steps, SHAPE) == np.arange(steps).reshape(-1, 1, 1, 1)
        weights = np.zeros(SHAPE), weighted * rng.integers(-3, 4, (steps, *SHAPE))
        cast = partial(jax.tree.map, lambda x: jnp.asarray(x, jnp.bfloat16))
        _, actual = outputs_and_gradients(neuron.run, model, cast(arguments), cast(weights))
        for a, e in zip(actual, reference_gradients(model, arguments, weights), strict=True):
            exact = np.round(e * 2**12) / 2**12  # without the rounding of the difference quotient
            assert np.abs(exact - e).max() < 2**-16
            assert a.dtype == jnp.bfloat16
            np.testing.assert_array_equal(a, jnp.asarray(exact, jnp.bfloat16))

    @pytest.mark.parametrize("steps", [1, 3])
    @pytest.mark.parametrize("reset", RESETS)
    def test_bfloat16_gradients_round_as_often_as_there_are_operations(self, reset, steps):
        # The forward pass is exact (quarters, no leak). A step of the backward pass is at most 12
        # roundings (7 of them in the surrogate), each eps / 2 of a number no larger than the
        # largest gradient: 6 eps a step.
        model = Neuron(reset, Surrogate("atan", 1))
        rng = np.random.default_rng(steps)
        arguments = (
            rng.integers(-4, 4, SHAPE) / 4,
            rng.integers(-4, 7, (steps, *SHAPE)) / 4,
            np.full(5, 1.125),
            np.ones(()),
        )
        weights = rng.integers(-4, 5, SHAPE) / 4, rng.integers(-4, 5, (steps, *SHAPE)) / 4
        cast = partial(jax.tree.map, lambda x: jnp.asarray(x, jnp.bfloat16))
        _, actual = outputs_and_gradients(neuron.run, model, cast(arguments), cast(weights))
        expected = reference_gradients(model, arguments, weights)
        epsilon = float(jnp.finfo(jnp.bfloat16).eps)
        assert_close(actual[:2], expected[:2], 6 * steps * epsilon)

    @pytest.mark.parametrize("steps", [1, 12])
    def test_broadcast_gradients_are_summed_in_float32(self, steps):
        # Silent neurons with a straight-through surrogate: the threshold's gradient is minus their
        # number times the steps left to act. A bfloat16 sum of ones sticks at 256.
        model = Neuron("hard", Surrogate("straight_through"))
        membrane = jnp.zeros((64, 64), jnp.bfloat16)
        currents = jnp.zeros((steps, 64, 64), jnp.bfloat16)

        def loss(threshold):
            spikes = neuron.run(model, membrane, currents, threshold, 1.0)[1]
            return jnp.vdot(spikes, jnp.ones_like(spikes))

        gradient = jax.grad(loss)(jnp.bfloat16(1))
        assert gradient.dtype == jnp.bfloat16
        assert float(gradient) == -64 * 64 * steps  # 3 * 2^14 for 12 steps: exact in bfloat16

    @pytest.mark.parametrize("reset", RESETS)
    def test_keeps_the_charges_and_nothing_else_of_their_size(self, reset):
        arguments, _ = random_arguments(6, dtype=np.float32)
        _, vjp = jax.vjp(partial(neuron.run, Neuron(reset)), *arguments)
        residuals = [x for x in jax.tree.leaves(vjp) if x.ndim == 1 + len(SHAPE)]
        assert [x.shape for x in residuals] == [(6, *SHAPE)]

    @settings(max_examples=25, deadline=None)
    @given(
        quanta=st.lists(st.integers(-8, 24), min_size=10, max_size=10),
        threshold=st.integers(1, 16),
    )
    def test_soft_reset_without_leak_loses_no_charge(self, quanta, threshold):
        # Multiples of 1/8 add without rounding: what came in is what is left plus what was fired.
        currents = np.array(quanta, np.float32)[:, None] / 8
        last, spikes = neuron.run(
            Neuron("soft"), jnp.full(1, 0.5, jnp.float32), currents, threshold / 8, 1.0
        )
        assert 0.5 + currents.sum() == float(last[0]) + threshold / 8 * float(jnp.sum(spikes))

    def test_counts_of_a_constant_current_by_hand(self):
        # 0.375 a step against 1: 0.375 0.75 1.125! 0.5 0.875 1.25! 0.625 1.0! 0.375 (soft reset),
        # and with a hard reset every third step.
        currents = jnp.full((9, 1), 0.375)
        for reset, expected in [("soft", [2, 5, 7]), ("hard", [2, 5, 8])]:
            spikes = neuron.run(Neuron(reset), jnp.zeros(1), currents, 1.0, 1.0)[1]
            assert np.flatnonzero(spikes).tolist() == expected

    @pytest.mark.parametrize("reset", RESETS)
    def test_the_jaxpr_names_the_spike_under_a_gradient_too(self, reset):
        arguments, _ = random_arguments(4, dtype=np.float32)
        gradient = jax.grad(lambda *xs: jnp.sum(neuron.run(Neuron(reset), *xs)[1] ** 2))
        assert "name=spike" in str(jax.make_jaxpr(gradient)(*arguments))


class TestTransforms:
    """Each transform of `run` against the same gradients without it, or finite differences."""

    model = Neuron("soft", Surrogate("sigmoid"))

    @pytest.mark.parametrize("steps", [4, 12])
    @pytest.mark.parametrize("reset", RESETS)
    def test_shard_map_gives_the_gradients_of_one_device(self, reset, steps):
        model = Neuron(reset, self.model.surrogate)
        mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
        rng = np.random.default_rng(steps)
        arguments = (
            rng.normal(0, 1, 8),  # the same for all rows: shared over "data"
            rng.normal(0.4, 0.8, (steps, 6, 8)),
            rng.uniform(0.7, 1.3, 8),  # split as the features are, shared over "data"
            rng.uniform(0.5, 1.0, ()),  # shared by all devices
        )
        weights = rng.normal(0, 1, (6, 8)), rng.normal(0, 1, (steps, 6, 8))
        cast = partial(jax.tree.map, lambda x: jnp.asarray(x, jnp.float32))
        features, shared = PartitionSpec("model"), PartitionSpec()
        rows, sequence = PartitionSpec("data", "model"), PartitionSpec(None, "data", "model")

        @partial(
            jax.shard_map,
            mesh=mesh,
            in_specs=((features, sequence, features, shared), (rows, sequence)),
            out_specs=shared,
        )
        def loss(arguments, weights):
            membrane, currents, threshold, leak = arguments
            membrane = jnp.broadcast_to(membrane[None], currents.shape[1:])
            last, spikes = neuron.run(model, membrane, currents, threshold, leak)
            total = jnp.sum(weights[0] * last) + jnp.sum(weights[1] * spikes)
            return jax.lax.psum(total, ("data", "model"))

        actual = jax.jit(jax.grad(loss))(cast(arguments), cast(weights))
        arguments = (np.tile(arguments[0], (6, 1)), *arguments[1:])
        expected = reference_gradients(model, arguments, weights)
        assert_close(actual, (expected[0].sum(axis=0), *expected[1:]), 5e-6)

    @pytest.mark.parametrize("steps", [4, 12])
    def test_explicitly_sharded_arrays(self, steps):
        mesh = jax.make_mesh((1, 5), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
        arguments, weights = random_arguments(steps, dtype=np.float32)
        split = PartitionSpec(None, None, "model"), PartitionSpec(None, None, None, "model")
        specs = (*split, PartitionSpec("model"), PartitionSpec())
        with jax.set_mesh(mesh):
            put = partial(jax.tree.map, jax.device_put)
            _, actual = outputs_and_gradients(
                neuron.run, self.model, put(arguments, specs), put(weights, split)
            )
        assert actual[2].sharding.spec == specs[2]
        assert_close(actual, reference_gradients(self.model, arguments, weights), 5e-6)

    @pytest.mark.parametrize("steps", [3, 10])
    def test_vmap_of_the_gradient(self, steps):
        arguments, weights = random_arguments(steps, dtype=np.float32)
        thresholds = np.stack([arguments[2], arguments[2] + np.float32(0.2)])

        def gradients(threshold):
            _, vjp = jax.vjp(
                lambda *xs: neuron.run(self.model, *xs), *arguments[:2], threshold, arguments[3]
            )
            return vjp(weights)

        actual = jax.jit(jax.vmap(gradients))(thresholds)
        for i, threshold in enumerate(thresholds):
            expected = reference_gradients(
                self.model, (*arguments[:2], threshold, arguments[3]), weights
            )
            assert_close([x[i] for x in actual], expected, 5e-6)

    @pytest.mark.parametrize("steps", [3, 10])
    def test_checkpoint(self, steps):
        arguments, weights = random_arguments(steps, dtype=np.float32)

        def function(model, *xs):
            return jax.checkpoint(partial(neuron.run, model))(*xs)

        _, actual = outputs_and_gradients(function, self.model, arguments, weights)
        expected = reference_gradients(self.model, arguments, weights)
        assert_close(actual, expected, 5e-6)

    def test_without_jit_and_with_python_numbers(self):
        arguments, weights = random_arguments(4, ((), ()), np.float32)
        numbers = [float(x) for x in arguments[2:]]

        def loss(threshold, leak):
            last, spikes = neuron.run(self.model, *arguments[:2], threshold, leak)
            return jnp.sum(weights[0] * last) + jnp.sum(weights[1] * spikes)

        actual = jax.grad(loss, argnums=(0, 1))(*numbers)
        expected = reference_gradients(self.model, arguments, weights)
        assert_close(actual, expected[2:], 5e-6)


class TestArguments:
    membrane = np.zeros((2, 3), np.float32)
    currents = np.zeros((4, 2, 3), np.float32)

    def test_unknown_reset(self):
        with pytest.raises(ValueError, match=r"unknown reset 'sof'; did you mean 'soft'\?"):
            Neuron("sof")

    @pytest.mark.parametrize("shape", [(), (0, 2, 3)])
    def test_at_least_one_step(self, shape):
        with pytest.raises(ValueError, match=r"currents has shape .* T >= 1 steps"):
            neuron.run(Neuron(), self.membrane, np.zeros(shape, np.float32), 1.0, 1.0)

    @pytest.mark.parametrize("shape", [(4, 2, 1), (4, 3), (2, 3)])
    def test_shape_of_currents(self, shape):
        with pytest.raises(ValueError, match=r"currents has shape .*, but membrane \(2, 3\)"):
            neuron.run(Neuron(), self.membrane, np.zeros(shape, np.float32), 1.0, 1.0)

    @pytest.mark.parametrize("name", ["threshold", "leak"])
    @pytest.mark.parametrize("shape", [(2,), (1, 1, 3), (3, 3), (2, 1, 1)])
    def test_shape_of_parameters(self, name, shape):
        parameters = {"threshold": 1.0, "leak": 1.0, name: np.ones(shape, np.float32)}
        for function, current in [(neuron.run, self.currents), (neuron.step, self.currents[0])]:
            with pytest.raises(ValueError, match=rf"{name} has shape .*membrane \(2, 3\) needs"):
                function(Neuron(), self.membrane, current, **parameters)

    @pytest.mark.parametrize("name", ["currents", "threshold", "leak"])
    def test_dtypes_must_be_equal(self, name):
        arguments = {"currents": self.currents, "threshold": np.float32(1), "leak": np.float32(1)}
        arguments[name] = jnp.asarray(arguments[name], jnp.bfloat16)
        with pytest.raises(ValueError, match=f"{name} has dtype bfloat16, but membrane has float3"):
            neuron.run(Neuron(), self.membrane, **arguments)

    def test_integers_are_refused(self):
        with pytest.raises(ValueError, match="membrane has dtype int32, but needs floating point"):
            neuron.step(Neuron(), jnp.zeros(3, int), jnp.zeros(3, int), 1, 1)
