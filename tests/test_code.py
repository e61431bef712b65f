"""Codes against independent numpy encoders, known quantiser errors, and a smooth model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapjax.codes import calibrate
from snapjax.codes import spike_code as spike_code_module
from snapjax.codes.code import CODES, SPIKE_CODES, make_code
from snapjax.neurons import neuron as neuron_module
from snapjax.neurons.surrogate import Surrogate

# Mean squared error of the best uniform quantiser of a unit Gaussian (Max 1960, table II).
UNIFORM_GAUSSIAN = {1: 0.363, 2: 0.119, 3: 0.037, 4: 0.012}


# Jitted: one compilation a code and shape instead of one an operation. Four programs and not one:
# between them are only the arrays that a link would carry.
encode = jax.jit(lambda code, encoder, x: code.encode(encoder, x), static_argnums=0)
to_wire = jax.jit(lambda code, encoder, symbols: code.to_wire(encoder, symbols), static_argnums=0)
from_wire = jax.jit(
    lambda code, decoder, buffer: code.from_wire(decoder, buffer, jnp.float32), static_argnums=0
)
decode = jax.jit(lambda code, decoder, value: code.decode(decoder, value), static_argnums=0)


def through_the_wire(code, params, x):
    """(the buffer, the decoded x)."""
    buffer = to_wire(code, params["encoder"], encode(code, params["encoder"], x))
    return buffer, decode(code, params["decoder"], from_wire(code, params["decoder"], buffer))


def spikes_of(code, v):
    """Spikes of v (n, features) through the code's public encode, with gain 1 and offset 0."""
    encoder = dict(code.init()["encoder"])
    encoder["gain"] = jnp.ones(code.features)
    encoder["offset"] = jnp.zeros(code.features)
    return np.asarray(encode(code, encoder, jnp.asarray(v, jnp.float32)))


def reference_spikes(name, v, steps):
    """The codes written again, one float64 number at a time."""
    out = np.zeros((v.shape[0], steps * (2 if name == "ternary" else 1), v.shape[1]))
    for n, d in np.ndindex(*v.shape):
        value = float(v[n, d])
        if name == "phase":
            for t in range(steps):
                if value >= 2.0**-t:
                    out[n, t, d], value = 1, value - 2.0**-t
        elif name == "rate":
            membrane = 0.5
            for t in range(steps):
                membrane += value
                if membrane >= 1:
                    out[n, t, d], membrane = 1, membrane - 1
        elif name == "latency":
            for t in range(steps):
                if value >= (steps - t) / steps:
                    out[n, t, d] = 1
                    break
        else:
            for t in range(steps):
                for sign, plane in ((1, 2 * t), (-1, 2 * t + 1)):
                    if sign * value >= 3.0**-t / 2:
                        out[n, plane, d] = 1
                value -= 3.0**-t * (out[n, 2 * t, d] - out[n, 2 * t + 1, d])
    return out


@pytest.mark.parametrize("name", SPIKE_CODES)
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_encode_equals_the_code_written_out(name, steps):
    rng = np.random.default_rng(steps)
    v = rng.uniform(-2.2, 2.5, (40, 5)).astype(np.float32)
    code = make_code(name, 5, steps)
    np.testing.assert_array_equal(spikes_of(code, v), reference_spikes(name, v, steps))


@pytest.mark.parametrize("name", SPIKE_CODES)
def test_values_are_the_amplitude_weighted_sum_of_the_planned_spikes(name):
    rng = np.random.default_rng(3)
    steps, features = 4, 6
    code = make_code(name, features, steps, budget=12)  # 6 steps a token, or 12 binary ones
    plan = np.array([0, 1, 2, 3, 0, 0], np.int32)
    params = code.init()
    encoder = {**params["encoder"], "steps_per_feature": jnp.asarray(plan)}
    decoder = {**params["decoder"], "steps_per_feature": jnp.asarray(plan)}
    x = jnp.asarray(rng.standard_normal((7, features)), jnp.float32)
    spikes = np.asarray(encode(code, encoder, x))
    buffer = to_wire(code, encoder, jnp.asarray(spikes))
    assert buffer.dtype == jnp.uint8
    assert buffer.shape == (7, 2)
    value = from_wire(code, decoder, buffer)
    per_step = {
        "phase": [1, 0.5, 0.25, 0.125],
        "rate": [0.25] * 4,
        "latency": [1, 0.75, 0.5, 0.25],
        "ternary": [1, 1 / 3, 1 / 9, 1 / 27],
    }[name]
    expected = np.zeros((7, features))
    for i, n in enumerate(plan):
        for t in range(n):
            if name == "ternary":
                expected[:, i] += per_step[t] * (spikes[:, 2 * t, i] - spikes[:, 2 * t + 1, i])
            else:
                expected[:, i] += per_step[t] * spikes[:, t, i]
    np.testing.assert_allclose(value, expected, atol=1e-6)


@settings(deadline=None, max_examples=12)
@given(
    st.sampled_from(sorted(SPIKE_CODES)),
    st.lists(st.integers(0, 4), min_size=1, max_size=3),
    st.integers(1, 19),
    st.integers(1, 16),
    st.integers(0, 2**32 - 1),
)
def test_any_planned_spikes_cross_the_wire_unchanged(name, lead, features, steps, seed):
    rng = np.random.default_rng(seed)
    width = SPIKE_CODES[name].planes_per_step
    code = make_code(
        name, features, steps, budget=int(rng.integers(width, features * steps * width + 1))
    )
    plan = np.zeros(features, np.int32)
    for i in rng.integers(features, size=code.budget // width):
        plan[i] = min(plan[i] + 1, steps)
    end = {"steps_per_feature": jnp.asarray(plan)}
    spikes = (rng.random((*lead, steps * width, features)) < rng.random()).astype(np.float32)
    buffer = to_wire(code, end, jnp.asarray(spikes))
    assert buffer.dtype == jnp.uint8
    assert buffer.shape == (*lead, -(-code.budget // 8))
    sent = np.repeat(np.arange(steps), width)[:, None] < plan[None, :]
    kept = np.where(sent, spikes, 0)
    every_bit = np.unpackbits(np.asarray(buffer), axis=-1, bitorder="little")
    assert every_bit.sum() == kept.sum()
    amplitudes = code.amplitudes().astype(np.float64)
    expected = np.einsum("p,...pd->...d", amplitudes, kept)
    value = from_wire(code, end, buffer)
    np.testing.assert_allclose(value, expected, atol=1e-5)
    np.testing.assert_array_equal(jax.jit(code.value)(end, jnp.asarray(spikes)), value)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_calibrated_phase_code_reaches_the_uniform_quantiser_of_a_gaussian(steps):
    key = jax.random.key(steps)
    mean, deviation = np.array([0.0, 3.0, -40.0, 1e-3]), np.array([1.0, 0.1, 7.0, 1e-4])
    draw = lambda k: np.asarray(jax.random.normal(k, (60_000, 4))) * deviation + mean
    code = make_code("phase", 4, steps)
    params = calibrate.fit(code, code.init(), jnp.asarray(draw(key), jnp.float32), None)
    np.testing.assert_array_equal(params["encoder"]["steps_per_feature"], [steps] * 4)
    fresh = draw(jax.random.fold_in(key, 1)).astype(np.float32)
    decoded = np.asarray(through_the_wire(code, params, jnp.asarray(fresh))[1], np.float64)
    error = ((decoded - fresh) ** 2).mean(0) / deviation**2
    assert (error <= 1.05 * UNIFORM_GAUSSIAN[steps]).all(), error


@pytest.mark.parametrize("name", SPIKE_CODES)
def test_calibration_spends_the_budget_where_the_variance_is(name):
    rng = np.random.default_rng(0)
    deviation = np.array([10, 10, 1, 1, 1, 1, 0.01, 0.01], np.float32)
    x = (rng.standard_normal((4000, 8)) * deviation + 1).astype(np.float32)
    code = make_code(name, 8, steps=4, budget=8)
    start = code.init()
    params = calibrate.fit(code, start, jnp.asarray(x), None)
    steps = np.asarray(params["encoder"]["steps_per_feature"])
    np.testing.assert_array_equal(steps, params["decoder"]["steps_per_feature"])
    assert steps.sum() * code.planes_per_step <= 8
    assert steps[:2].min() > steps[2:].max()
    assert steps[6:].max() == 0

    def error(params):
        decoded = through_the_wire(code, params, jnp.asarray(x))[1]
        return float(((np.asarray(decoded) - x) ** 2).sum(1).mean())

    assert error(params) < 0.35 * (deviation**2).sum()
    weight = 1 / deviation**2  # all features matter alike: no feature is starved for another
    balanced = calibrate.fit(code, start, jnp.asarray(x), weight)
    spread = np.asarray(balanced["encoder"]["steps_per_feature"])
    assert spread[6:].sum() > 0 or code.planes_per_step == 2


@pytest.mark.parametrize("name", SPIKE_CODES)
def test_encoder_gradients_equal_finite_differences_of_the_same_code_with_smooth_spikes(
    name, monkeypatch
):
    """With the Heaviside replaced by a smooth step whose derivative is the surrogate, autodiff of
    the code must agree with finite differences in float64; with the Heaviside in place, the same
    program must use exactly that derivative, which `test_surrogate` pins to the peers.
    """
    smooth = lambda v, surrogate: 0.5 + jnp.arctan(jnp.pi * surrogate.alpha / 2 * v) / jnp.pi
    features, steps = 3, 3
    code = make_code(name, features, steps, surrogate=Surrogate("atan", 2.0))
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4, features))
    weights = rng.standard_normal((4, code.planes, features))
    with jax.enable_x64(True):
        encoder = {
            k: v if k == "steps_per_feature" else jnp.asarray(rng.uniform(0.6, 1.2, features))
            for k, v in code.init()["encoder"].items()
        }
        trainable = {k: v for k, v in encoder.items() if k != "steps_per_feature"}

        @jax.jit
        def loss(trainable, x):
            spikes = code.encode(
                {**trainable, "steps_per_feature": encoder["steps_per_feature"]}, x
            )
            return (spikes * weights).sum()

        if name == "rate":  # the neuron's backward pass is written by hand; see test_neuron

            def run(cell, membrane, currents, threshold, leak):
                spikes = []
                row = lambda p: p.reshape(1, -1)
                for current in currents:
                    membrane = row(leak) * membrane + current
                    spikes.append(smooth(membrane - row(threshold), cell.surrogate))
                    membrane = membrane - row(threshold) * spikes[-1]
                return membrane, jnp.stack(spikes)

            monkeypatch.setattr(neuron_module, "run", run)
        monkeypatch.setattr(spike_code_module, "spike", smooth)
        gradients = jax.grad(loss, argnums=(0, 1))(trainable, jnp.asarray(x))
        step = 1e-6
        for k in trainable:
            for i in range(features):
                up = {**trainable, k: trainable[k].at[i].add(step)}
                down = {**trainable, k: trainable[k].at[i].add(-step)}
                difference = (loss(up, x) - loss(down, x)) / (2 * step)
                np.testing.assert_allclose(gradients[0][k][i], difference, rtol=1e-6, atol=1e-7)
        for n, d in np.ndindex(*x.shape):
            bump = np.zeros_like(x)
            bump[n, d] = step
            difference = (loss(trainable, x + bump) - loss(trainable, x - bump)) / (2 * step)
            np.testing.assert_allclose(gradients[1][n, d], difference, rtol=1e-6, atol=1e-7)


def test_straight_through_phase_code_has_slope_one():
    code = make_code("phase", 2, 4, surrogate=Surrogate("straight_through"))
    encoder = code.init()["encoder"]
    value = lambda x: jnp.einsum("p,npd->nd", code.amplitudes(), code.encode(encoder, x)).sum()
    x = jnp.asarray(np.random.default_rng(0).standard_normal((5, 2)), jnp.float32)
    slope = jax.jit(jax.grad(value))(x)
    np.testing.assert_allclose(slope, np.full((5, 2), 0.5), rtol=1e-6)  # the gain


@pytest.mark.parametrize("name", CODES)
def test_every_code_honours_the_protocol(name):
    code = make_code(name, 10)
    params = code.init()
    x = jnp.asarray(np.random.default_rng(0).standard_normal((6, 10)), jnp.float32)
    params = calibrate.fit(code, params, x, None)
    buffer, decoded = through_the_wire(code, params, x)
    assert buffer.dtype == jnp.uint8
    assert buffer.shape == (6, -(-code.bits // 8))
    assert decoded.shape == x.shape
    # Every code at its full budget (4 steps or 2 bits and more) explains most of the variance.
    assert float(((decoded - x) ** 2).mean()) < 0.2 * float((x**2).mean())


@pytest.mark.parametrize("features", [1, 10, 256, 300])
def test_top_k_sends_the_largest_features_and_zeros_the_rest(features):
    pair = 3 if features <= 256 else 4  # bytes of an index and a bfloat16 value
    count = min(3, features)
    code = make_code("topk", features, budget=8 * pair * count + 7)
    assert code.bits == 8 * pair * count
    x = np.random.default_rng(features).standard_normal((5, features)).astype(np.float32)
    buffer, decoded = through_the_wire(code, {"encoder": {}, "decoder": {}}, jnp.asarray(x))
    assert buffer.shape == (5, pair * count)
    expected = np.zeros_like(x)
    for row, values in enumerate(x):
        for i in sorted(range(features), key=lambda i: -abs(values[i]))[:count]:
            expected[row, i] = jnp.float32(jnp.bfloat16(values[i]))
    np.testing.assert_array_equal(decoded, expected)
    slope = jax.jit(jax.grad(lambda x: code.encode({}, x).sum()))(jnp.asarray(x))
    np.testing.assert_array_equal(slope, expected != 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "topk", "budget": 23}, "budget=23 .* at least 24"),
        ({"name": "topk", "features": 70000}, "features=70000"),
        ({"name": "phse"}, "did you mean 'phase'"),
        ({"steps": 0}, "steps=0"),
        ({"steps": 25}, "steps=25"),
        ({"features": 0}, "features=0"),
        ({"budget": 0}, "budget=0"),
        ({"budget": 41}, "budget=41 .* 40"),
        ({"name": "ternary", "budget": 1}, "budget=1"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_code(**{"name": "phase", "features": 10, **arguments})


@pytest.mark.parametrize(("mean", "deviation"), [(1e4, 0.1), (-3.0, 1e-3), (0.0, 1e3)])
def test_calibration_survives_large_means_and_odd_scales(mean, deviation):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((4000, 2)) * deviation + mean, jnp.float32)
    code = make_code("phase", 2, 4)
    params = calibrate.fit(code, code.init(), x, None)
    _, decoded = through_the_wire(code, params, x)
    error = np.mean((np.asarray(decoded, np.float64) - np.asarray(x, np.float64)) ** 2)
    assert error < 1.1 * 0.012 * deviation**2


def test_a_constant_feature_costs_nothing_and_is_kept():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((500, 3)), jnp.float32)
    x = x.at[:, 1].set(7.0)
    code = make_code("phase", 3, 4, budget=6)
    params = calibrate.fit(code, code.init(), x, None)
    assert int(params["encoder"]["steps_per_feature"][1]) == 0
    value = jnp.zeros((1, 3))
    np.testing.assert_allclose(code.decode(params["decoder"], value)[0, 1], 7.0, rtol=1e-6)


def test_bad_calibration_input():
    code = make_code("phase", 3)
    good = jnp.ones((5, 3)) * jnp.arange(5.0)[:, None]
    for x, message in (
        (good[:, :2], "features=3"),
        (good[:1], "samples >= 2"),
        (good.at[0, 0].set(jnp.nan), "non-finite"),
    ):
        with pytest.raises(ValueError, match=message):
            calibrate.fit(code, code.init(), x, None)
    with pytest.raises(ValueError, match="sensitivity"):
        calibrate.fit(code, code.init(), good, np.array([1.0, -1.0, 1.0]))
