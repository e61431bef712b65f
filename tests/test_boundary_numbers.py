"""What a boundary does with numbers at the edge: NaN, infinity, the largest and the smallest."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from snapjax import Boundary, Neuron, make_mesh, run_neuron, split_plan, step_neuron
from snapjax.codes.code import CODES, SPIKE_CODES
from snapjax.codes.parameters import merge_plan
from snapjax.wire import dense
from snapjax.wire.rows import saturate

FEATURES = 7
DENSE = [code for code in CODES if code not in SPIKE_CODES]


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


apply = jax.jit(lambda boundary, params, x: boundary.apply(params, x), static_argnums=0)


def on_four_devices(function, *specs, check_vma=True):
    mesh = make_mesh(stage=4)
    return jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P("stage"),
                      check_vma=check_vma)
    )  # fmt: skip


class TestFinite:
    @pytest.mark.parametrize("code", CODES)
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_one_number_of_the_activation(self, code, value):
        boundary = Boundary(FEATURES, code)
        params, x = boundary.init(jax.random.key(0)), draw(0, 3, FEATURES)
        assert apply(boundary, params, x)[1].finite == 1
        assert apply(boundary, params, x.at[1, 2].set(value))[1].finite == 0

    @pytest.mark.parametrize("rank", [None, 3])
    @pytest.mark.parametrize("code", SPIKE_CODES)
    def test_one_number_of_each_parameter_of_the_encoder(self, code, rank):
        boundary = Boundary(FEATURES, code, rank=rank)
        params, x = boundary.init(jax.random.key(0)), draw(0, 3, FEATURES)
        trained = [name for name in params["encoder"] if name not in ("steps_per_feature", "code")]
        assert {"gain", "offset", "threshold"} <= {*trained}
        for name in trained:
            leaf = params["encoder"][name]
            bad = leaf.at[(0,) * leaf.ndim].set(np.nan)
            broken = {**params, "encoder": {**params["encoder"], name: bad}}
            assert apply(boundary, broken, x)[1].finite == 0, name
            with pytest.raises(ValueError, match=f"parameters are not finite: encoder/{name}"):
                boundary.check(broken)

    def test_the_decoder_hides_nothing(self):
        boundary = Boundary(FEATURES)
        params = boundary.init(jax.random.key(0))
        params["decoder"]["gain"] = params["decoder"]["gain"].at[3].set(np.nan)
        assert np.isnan(apply(boundary, params, draw(0, 3, FEATURES))[0][:, 3]).all()

    def test_an_activation_that_a_gain_takes_out_of_range_is_clipped_and_told(self):
        boundary = Boundary(FEATURES)
        params, x = boundary.init(jax.random.key(0)), draw(0, 3, FEATURES)
        largest = boundary.apply(params, jnp.full_like(x, 1e30))[0]
        params["encoder"]["gain"] = params["encoder"]["gain"].at[0].set(1e30)
        decoded, stats = apply(boundary, params, x.at[0, 0].set(1e30))
        assert stats.finite == 0
        assert decoded[0, 0] == largest[0, 0]


LARGEST = {dtype: float(jnp.finfo(dtype).max) for dtype in (jnp.float16, jnp.bfloat16, jnp.float32)}


class TestRange:
    @pytest.mark.parametrize("code", CODES)
    @pytest.mark.parametrize("dtype", LARGEST)
    def test_what_is_finite_stays_finite(self, code, dtype):
        boundary = Boundary(FEATURES, code)
        signs = np.array([1, -1, 1, -1, 1, -1, 1], np.float32)
        x = jnp.asarray(signs * LARGEST[dtype] * np.linspace(1, 0.97, 7), dtype)[None]
        decoded, stats = apply(boundary, boundary.init(jax.random.key(0)), x)
        assert stats.finite == 1
        assert decoded.dtype == dtype
        assert np.isfinite(np.asarray(decoded, np.float32)).all()
        if code in ("float32", "bfloat16", "int8", "topk"):  # all features of which are sent
            error = np.abs(np.asarray(decoded, np.float64) - np.asarray(x, np.float64))
            assert error.max() <= LARGEST[dtype] / 200

    @pytest.mark.parametrize("format", dense.DENSE_FORMATS)
    @pytest.mark.parametrize("magnitude", [3.4028234e38, 1.8e38, 1.6e38, 3.39e38])
    def test_dense_formats_hold_the_largest_numbers(self, format, magnitude):
        x = jnp.float32(magnitude) * jnp.array([[1.0, -1.0, 0.5, 0.0]])
        decoded = dense.unpack_dense(dense.pack_dense(x, format), 4, format, jnp.float32)
        assert np.isfinite(decoded).all()
        steps = {"float32": 0, "bfloat16": 2**-8, "int8": 1 / 127, "int4": 1 / 7, "int2": 0.5}
        limit = 0.75 * 2.0**127 if format == "int2" else np.inf  # as documented
        expected = np.clip(np.asarray(x, np.float64), -limit, limit)
        gap = np.abs(np.asarray(decoded, np.float64) - expected)
        assert gap.max() <= steps[format] * min(magnitude, 2 * limit) * 1.01

    @pytest.mark.parametrize("format", dense.DENSE_FORMATS)
    def test_infinity_and_nan_are_still_noticed(self, format):
        for value in (np.nan, np.inf, -np.inf):
            x = jnp.array([[1.0, value, 0.0]], jnp.float32)
            decoded = dense.unpack_dense(dense.pack_dense(x, format), 3, format, jnp.float16)
            assert not np.isfinite(decoded[0, 1])

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float8_e4m3fn])
    def test_saturate_clips_and_is_a_cast_elsewhere(self, dtype):
        largest = float(jnp.finfo(dtype).max)
        x = jnp.array([0.0, 1.5, -1.5, largest, -largest, 3e38, -3e38], jnp.float32)
        expected = np.clip(x, -largest, largest).astype(dtype)
        np.testing.assert_array_equal(saturate(x, dtype), expected)
        slope = jax.grad(lambda x: saturate(x, dtype).astype(jnp.float32).sum())(x)
        np.testing.assert_array_equal(slope, 1)

    @pytest.mark.parametrize("charge", [np.inf, 1e38])
    def test_a_hard_reset_is_to_zero_whatever_the_charge(self, charge):
        neuron = Neuron(reset="hard")
        currents = jnp.array([[charge], [0.5], [0.7]], jnp.float32)
        membrane, spikes = run_neuron(neuron, jnp.zeros(1), currents, 1.0, 1.0)
        np.testing.assert_array_equal(spikes[:, 0], [1, 0, 1])
        np.testing.assert_array_equal(membrane, 0)
        membrane, spike = step_neuron(neuron, jnp.zeros(1), currents[0], 1.0, 1.0)
        assert (membrane, spike) == (0, 1)

        def loop(currents):
            membrane, total = jnp.zeros(1), jnp.zeros(())
            for current in currents:
                membrane, spike = step_neuron(neuron, membrane, current, 1.0, 1.0)
                total = total + spike.sum() + membrane.sum()
            return total

        def scan(currents):
            membrane, spikes = run_neuron(neuron, jnp.zeros(1), currents, 1.0, 1.0)
            return spikes.sum() + membrane.sum()

        for loss in (loop, scan):
            assert np.isfinite(jax.grad(loss)(currents)).all()

    def test_a_hard_reset_has_the_derivative_of_the_product(self):
        neuron = Neuron(reset="hard")
        one = lambda h: step_neuron(neuron, jnp.zeros(1), h, 1.0, 1.0)[0].sum()
        product = lambda h: (h * (1 - neuron.surrogate.fires(h - 1).astype(h.dtype))).sum()
        for charge in (0.4, 1.7):
            h = jnp.array([charge], jnp.float32)
            spikes, slope = float(charge >= 1), float(neuron.surrogate.gradient(h - 1)[0])
            expected = (1 - spikes) - charge * slope
            np.testing.assert_allclose(jax.grad(one)(h), [expected], rtol=1e-6)
            assert one(h) == product(h)

    @pytest.mark.parametrize("code", SPIKE_CODES)
    @pytest.mark.parametrize("scale", [1e38, 3e-40])
    def test_calibration_on_samples_that_float32_cannot_scale(self, code, scale):
        boundary = Boundary(FEATURES, code)
        samples = np.random.default_rng(0).uniform(-1, 1, (200, FEATURES)).astype(np.float32)
        params = boundary.init(jax.random.key(0))
        samples = samples * np.float32(scale)
        if scale > 1 and code == "ternary":  # whose range of both signs needs half the gain
            fitted = boundary.calibrate(params, samples)
            error = np.asarray(boundary.apply(fitted, samples)[0], np.float64) - samples
            assert (error**2).mean() < 0.1 * (samples.astype(np.float64) ** 2).mean()
            return
        with pytest.raises(ValueError, match=r"feature \d has mean .* divide the activations"):
            boundary.calibrate(params, samples)

    @pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e-6, 1.0, 1e12, 1e30])
    def test_calibration_does_not_depend_on_the_scale(self, scale):
        boundary = Boundary(FEATURES)
        x = np.random.default_rng(0).standard_normal((500, FEATURES))
        x[:, 0] = 0  # hardly moves
        params = boundary.calibrate(boundary.init(jax.random.key(0)), x * scale)
        decoded = apply(boundary, params, jnp.asarray(x * scale, jnp.float32))[0]
        error = np.asarray(decoded, np.float64) - x * scale
        # Four bits of a Gaussian: 0.012 of the variance (Max 1960).
        np.testing.assert_array_less((error[:, 1:] ** 2).mean() / scale**2, 0.014)
        assert np.abs(error[:, 0]).max() <= 1e-5 * scale

    @pytest.mark.parametrize("code", CODES)
    def test_float64_is_read_alike_by_every_code(self, code):
        boundary = Boundary(FEATURES, code)
        with jax.enable_x64(True):
            params, x = boundary.init(jax.random.key(0)), draw(1, 4, FEATURES)
            wide, trained = x.astype(jnp.float64), split_plan(params)
            decoded, stats = boundary.apply(params, wide)
            assert decoded.dtype == jnp.float64
            assert stats.finite == 1
            np.testing.assert_allclose(decoded, boundary.apply(params, x)[0], rtol=1e-6)
            loss = lambda p, x: boundary.apply(merge_plan(p, trained[1]), x)[0].sum()
            gradients = jax.grad(loss, argnums=(0, 1))(trained[0], wide)
            assert gradients[1].dtype == jnp.float64
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


class TestWhoSendsToWhom:
    x = 3 + draw(3, 4, 2, FEATURES)

    def arrived(self, boundary, pairs, **options):
        params = boundary.init(jax.random.key(0))

        def device(params, x):
            return boundary.send(params, x[0], "stage", pairs)[0][None]

        run = on_four_devices(device, P(), P("stage"), **options)
        return np.asarray(run(params, self.x)), np.asarray(apply(boundary, params, self.x)[0])

    @pytest.mark.parametrize("check_vma", [True, False])
    @pytest.mark.parametrize("code", CODES)
    def test_a_device_that_nobody_sends_to_gets_zeros(self, code, check_vma):
        boundary = Boundary(FEATURES, code)
        found, expected = self.arrived(boundary, ((2, 0), (0, 3)), check_vma=check_vma)
        np.testing.assert_array_equal(found[0], expected[2])
        np.testing.assert_array_equal(found[3], expected[0])
        np.testing.assert_array_equal(found[1:3], 0)

    def test_a_ring_and_no_pair_at_all(self):
        boundary = Boundary(FEATURES)
        ring = tuple((i, (i + 1) % 4) for i in range(4))
        found, expected = self.arrived(boundary, ring)
        np.testing.assert_array_equal(found, np.roll(expected, 1, 0))
        np.testing.assert_array_equal(self.arrived(boundary, ())[0], 0)

    def test_nothing_flows_back_from_a_device_that_nobody_sends_to(self):
        boundary = Boundary(FEATURES)
        trainable, plans = split_plan(boundary.init(jax.random.key(0)))

        def device(trainable, x):
            made, _ = boundary.send(merge_plan(trainable, plans), x[0], "stage", ((0, 1),))
            return made.sum(keepdims=True)

        run = on_four_devices(device, P(), P("stage"))
        slope = jax.grad(lambda trainable: run(trainable, self.x).sum())(trainable)
        np.testing.assert_array_equal(slope["decoder"]["offset"], 2)  # device 1's two tokens

    @pytest.mark.parametrize(
        ("pairs", "message"),
        [
            (((-1, 0),), r"name a device that is not on axis 'stage', which has 0 to 3"),
            (((0, 9),), r"pairs=\(\(0, 9\),\) name a device"),
            (((0, 1), (0, 2)), "have a device send twice"),
            (((0, 1), (2, 1)), "have a device receive twice"),
            (((0, 1, 2),), r"must be \(source, destination\) pairs of ints"),
            ((0, 1), "pairs of ints"),
            (((0.5, 1),), "pairs of ints"),
            (7, "pairs=7 must be"),
        ],
    )
    @pytest.mark.parametrize("way", ["send", "transmit"])
    def test_bad_pairs(self, pairs, message, way):
        boundary = Boundary(FEATURES)
        params = boundary.init(jax.random.key(0))
        move = getattr(boundary, way)
        run = on_four_devices(lambda x: move(params, x[0], "stage", pairs)[0][None], P("stage"))
        with pytest.raises(ValueError, match=f"^{way}: .*{message}"):
            run(self.x)

    def test_an_axis_that_is_not_there(self):
        boundary = Boundary(FEATURES)
        params = boundary.init(jax.random.key(0))
        for name in ("send", "transmit", "all_gather"):
            with pytest.raises(ValueError, match=f"{name}: axis='stage' is no mesh axis here"):
                getattr(boundary, name)(params, self.x, "stage")
        run = on_four_devices(lambda x: boundary.send(params, x[0], "stages")[0][None], P("stage"))
        with pytest.raises(ValueError, match="axis='stages' is no mesh axis"):
            run(self.x)


class TestDerivatives:
    def test_the_plan_may_stay_in_the_tree_with_allow_int(self):
        boundary = Boundary(FEATURES)
        params, x = boundary.init(jax.random.key(0)), draw(0, 3, FEATURES)
        loss = lambda params: (boundary.apply(params, x)[0] ** 2).sum()
        with pytest.raises(TypeError, match="allow_int"):
            jax.grad(loss)(params)
        slope = jax.grad(loss, allow_int=True)(params)
        trainable, plans = split_plan(params)
        expected = jax.grad(lambda trainable: loss(merge_plan(trainable, plans)))(trainable)
        for end in ("encoder", "decoder"):
            assert slope[end]["steps_per_feature"].dtype == jax.dtypes.float0
            for name, leaf in expected[end].items():
                if leaf is not None:
                    np.testing.assert_array_equal(slope[end][name], leaf)

    def test_forward_mode_is_an_error_of_jax(self):
        boundary = Boundary(FEATURES)
        params, x = boundary.init(jax.random.key(0)), draw(0, 3, FEATURES)
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jvp(lambda x: boundary.apply(params, x)[0], (x,), (x,))


def test_a_boundary_prints_as_what_makes_it_again():
    boundary = Boundary(64, "rate", steps=8, budget=64, debug=True)
    assert repr(boundary) == "Boundary(features=64, code='rate', steps=8, budget=64, debug=True)"
    assert eval(repr(boundary)) == boundary
    assert repr(Boundary(3)) == "Boundary(features=3)"
    assert repr(dataclasses.replace(boundary, debug=False)).endswith("budget=64)")
