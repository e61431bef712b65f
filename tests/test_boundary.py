"""A boundary on its own: send and all_gather against apply, its gradients, options and errors."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec as P
from meshes import largest_gap

from snapjax import transport as transport_module
from snapjax.boundary import Boundary
from snapjax.codes import spike_code as spike_code_module
from snapjax.codes.code import CODES, SPIKE_CODES
from snapjax.codes.parameters import merge_plan, split_plan
from snapjax.neurons.surrogate import Surrogate
from snapjax.parallel.sharding import make_mesh

FEATURES, BATCH, TOKENS = 11, 2, 3


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def boundary_of(code, **options):
    budget = 17 if code in SPIKE_CODES else None
    return Boundary(FEATURES, code, **{"steps": 3, "budget": budget, **options})


# Jitted: one compilation a boundary and shape instead of one an operation.
apply = jax.jit(lambda boundary, params, x: boundary.apply(params, x), static_argnums=0)


@cache
def send_to_next(boundary, mesh, dtype=jnp.float32):
    """(params, x (4, ...)) -> what arrives on each of 4 devices, (4, ...)."""

    def device(params, x, key):
        y, _ = boundary.send(params, x[0].astype(dtype), "stage", key=key)
        return y[None].astype(jnp.float32)

    specs = (P(), P("stage"), P())
    return jax.jit(jax.shard_map(device, mesh=mesh, in_specs=specs, out_specs=P("stage")))


@cache
def gather_everywhere(boundary, mesh, dimension):
    """(params, x (4, ...), w (4, ...)) -> each device's gathered x times its own w, summed."""

    def device(params, x, w, key):
        y, _ = boundary.all_gather(params, x[0], "stage", dimension, key)
        return jax.lax.psum((y * w[0]).sum(), "stage")

    specs = (P(), P("stage"), P("stage"), P())
    return jax.jit(jax.shard_map(device, mesh=mesh, in_specs=specs, out_specs=P()))


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(stage=4)


@pytest.mark.parametrize("code", CODES)
def test_send_delivers_what_apply_computes(code, mesh):
    boundary = boundary_of(code)
    params, x = boundary.init(jax.random.key(0)), draw(0, 4, BATCH, TOKENS, FEATURES)
    arrived = send_to_next(boundary, mesh)(params, x, None)
    expected, _ = apply(boundary, params, x)
    np.testing.assert_array_equal(arrived[1:], expected[:3])
    np.testing.assert_array_equal(arrived[0], 0)  # nobody sends to it


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("dimension", [0, 1])
def test_all_gather_and_its_gradient_equal_apply(code, dimension, mesh):
    boundary = boundary_of(code)
    params, x = boundary.init(jax.random.key(0)), draw(1, 4, BATCH, TOKENS, FEATURES)
    shape = [BATCH, TOKENS, FEATURES]
    shape[dimension] *= 4
    w = draw(2, 4, *shape)
    trainable, plans = split_plan(params)

    def one_device(trainable, x):
        y, _ = boundary.apply(merge_plan(trainable, plans), x)
        joined = jnp.concatenate(list(y), dimension)
        return (joined[None] * w).sum()

    gathered = gather_everywhere(boundary, mesh, dimension)
    many = lambda trainable, x: gathered(merge_plan(trainable, plans), x, w, None)
    (one, expected), (found, gradients) = (
        jax.jit(jax.value_and_grad(function, argnums=(0, 1)))(trainable, x)
        for function in (one_device, many)
    )
    np.testing.assert_allclose(found, one, rtol=1e-5)
    assert largest_gap(expected, gradients) < 1e-5


@pytest.mark.parametrize(
    ("gradient_wire", "error"),
    # Error of one gradient value over its token's largest: half a bfloat16 ulp, or one level.
    [("float32", 1e-6), ("bfloat16", 2**-8), ("int8", 1 / 127), ("int4", 1 / 7)],
)
@pytest.mark.parametrize("way", ["send", "all_gather"])
def test_gradient_wires_stay_within_their_error(gradient_wire, error, way, mesh):
    # With straight-through spikes of gain 1 the cotangent arrives as it was sent, up to the wire.
    boundary = Boundary(
        FEATURES, "phase", surrogate=Surrogate("straight_through"), gradient_wire=gradient_wire
    )
    params = boundary.init(jax.random.key(0))
    for end in params.values():
        end["gain"] = jnp.ones(FEATURES)
    x = draw(3, 4, BATCH, TOKENS, FEATURES)
    key = jax.random.key(1)
    if way == "send":
        w = draw(4, 4, BATCH, TOKENS, FEATURES)
        send = send_to_next(boundary, mesh)
        gradient = jax.jit(jax.grad(lambda x: (send(params, x, key) * w).sum()))(x)
        np.testing.assert_array_equal(gradient[3], 0)  # the last device sends to nobody
        gradient, parts = gradient[:3], w[1:, None]
    else:
        w = draw(4, 4, 4 * BATCH, TOKENS, FEATURES)
        gather = gather_everywhere(boundary, mesh, 0)
        gradient = jax.jit(jax.grad(lambda x: gather(params, x, w, key)))(x)
        # Device i's x is weighed by every device's w: four messages, each with its own error.
        parts = np.asarray(w).reshape(4, 4, BATCH, TOKENS, FEATURES).swapaxes(0, 1)
    bound = error * np.abs(parts).max(-1, keepdims=True).sum(1) + 1e-6
    gap = np.abs(np.asarray(gradient) - np.asarray(parts).sum(1))
    assert (gap <= bound).all()
    if gradient_wire != "float32":
        assert gap.max() > 1e-5


@pytest.mark.parametrize("way", ["send", "all_gather"])
def test_gradients_equal_finite_differences_of_a_smooth_boundary(way, mesh, monkeypatch):
    """Smooth spikes in float64, values carried over the link unpacked: then the loss is smooth, and
    the cotangents that the real backward pass sends must be its derivative.
    """
    smooth = lambda v, surrogate: 0.5 + jnp.arctan(jnp.pi * surrogate.alpha / 2 * v) / jnp.pi
    monkeypatch.setattr(spike_code_module, "spike", smooth)

    class SmoothPhase(spike_code_module.PhaseCode):
        def to_wire(self, encoder, symbols):  # nothing to pack: spikes are fractions here
            return self.value(encoder, symbols)

        def from_wire(self, decoder, buffer, dtype):
            return buffer

    monkeypatch.setitem(SPIKE_CODES, "phase", SmoothPhase)
    monkeypatch.setattr(
        transport_module.dense, "pack_gradient", lambda gradient, name, key: gradient
    )
    monkeypatch.setattr(
        transport_module.dense, "unpack_gradient", lambda buffer, d, name, dtype: buffer
    )
    with jax.enable_x64(True):
        boundary = Boundary(4, "phase", steps=3, budget=7)
        rng = np.random.default_rng(0)
        params = jax.tree.map(
            lambda leaf: (
                leaf
                if jnp.issubdtype(leaf.dtype, jnp.integer)
                else jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape))
            ),
            boundary.init(jax.random.key(0)),
        )
        x = jnp.asarray(rng.standard_normal((4, 1, 2, 4)))
        w = jnp.asarray(rng.standard_normal((4, 4 if way == "all_gather" else 1, 2, 4)))
        trainable, plans = split_plan(params)
        specs = (P(), P("stage"), P("stage"))

        @jax.jit
        def loss(trainable, x):
            def device(params, x, w):
                move = boundary.send if way == "send" else boundary.all_gather
                y, _ = move(params, x[0], "stage")
                return jax.lax.psum((y * w[0]).sum(), "stage")

            run = jax.shard_map(device, mesh=mesh, in_specs=specs, out_specs=P())
            return run(merge_plan(trainable, plans), x, w)

        gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(trainable, x)
        flat, rebuild = ravel_pytree((trainable, x))
        expected, step = [], 1e-6
        for i in range(flat.size):
            up, down = flat.at[i].add(step), flat.at[i].add(-step)
            expected.append((loss(*rebuild(up)) - loss(*rebuild(down))) / (2 * step))
        got = ravel_pytree(gradients)[0]
        np.testing.assert_allclose(got, np.array(expected), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("code", CODES)
def test_stats_count_the_spikes_and_bits_that_were_sent(code):
    boundary = boundary_of(code)
    params, x = boundary.init(jax.random.key(0)), draw(5, BATCH, TOKENS, FEATURES)
    _, stats = apply(boundary, params, x)
    assert float(stats.bits) == 8 * boundary.bytes_per_token
    if code not in SPIKE_CODES:
        assert float(stats.spike_rate) == 1
        return
    spike_code = boundary.codec
    symbols = jax.jit(spike_code.encode)(params["encoder"], x)
    buffer = np.asarray(jax.jit(spike_code.to_wire)(params["encoder"], symbols))
    planned = int(params["encoder"]["steps_per_feature"].sum()) * spike_code.planes_per_step
    counted = np.unpackbits(buffer).sum() / (BATCH * TOKENS * planned)
    np.testing.assert_allclose(stats.spike_rate, counted, rtol=1e-6)


def test_events_are_exact_and_fall_back_when_one_device_overflows(mesh):
    planes = Boundary(FEATURES, "phase", steps=2)
    events = Boundary(FEATURES, "phase", steps=2, wire="events", event_capacity=3)
    params = planes.init(jax.random.key(0))
    quiet = jnp.full((4, BATCH, TOKENS, FEATURES), -5.0).at[:, 0, 0, :4].set(1.0)
    busy = quiet.at[2].set(5.0)
    sent_bits = jax.jit(
        jax.shard_map(
            lambda params, x: events.send(params, x[0], "stage")[1].bits[None],
            mesh=mesh,
            in_specs=(P(), P("stage")),
            out_specs=P("stage"),
        )
    )
    by_events, by_planes = send_to_next(events, mesh), send_to_next(planes, mesh)
    for x, fits in ((quiet, True), (busy, False)):
        np.testing.assert_array_equal(by_events(params, x, None), by_planes(params, x, None))
        bits = sent_bits(params, x)
        wire = "events" if fits else "planes"
        tokens = BATCH * TOKENS
        np.testing.assert_allclose(bits, [8 * events.message_bytes(tokens, wire) / tokens] * 4)


@pytest.mark.parametrize("code", ["phase", "int8"])
def test_bfloat16_activations_keep_their_type(code, mesh):
    boundary = boundary_of(code)
    params, x = boundary.init(jax.random.key(0)), draw(6, 4, BATCH, TOKENS, FEATURES)
    y, _ = apply(boundary, params, x.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    arrived = send_to_next(boundary, mesh, jnp.bfloat16)(params, x, None)
    np.testing.assert_array_equal(arrived[1:], y[:3].astype(jnp.float32))


def test_projection_is_calibrated_to_the_principal_axes():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((12, 12)))[0][:3]
    x = (rng.standard_normal((2000, 3)) * [5, 3, 2]) @ basis + rng.standard_normal(12)
    boundary = Boundary(12, "phase", steps=6, rank=3)
    params = boundary.calibrate(boundary.init(jax.random.key(0)), x)
    y, _ = apply(boundary, params, jnp.asarray(x, jnp.float32))
    # Three axes hold all the variance: what is left is the error of 6-bit quantisers (about 1e-3).
    assert np.mean((np.asarray(y) - x) ** 2) < 3e-3 * np.var(x, axis=0).mean()
    assert boundary.bytes_per_token == 3  # 18 bits


def test_shrink_to_plan_keeps_the_gradient_and_sends_less_of_it():
    boundary = Boundary(FEATURES, "phase", steps=4, budget=8)
    x = draw(7, 500, FEATURES) * 4.0 ** -jnp.arange(float(FEATURES))[None]
    params = boundary.calibrate(boundary.init(jax.random.key(0)), x)
    tight = boundary.shrink_to_plan(params)
    kept = int((params["encoder"]["steps_per_feature"] > 0).sum())
    assert tight.gradient_features == kept < boundary.gradient_features
    slope = lambda boundary: jax.jit(jax.grad(lambda x: boundary.apply(params, x)[0].sum()))(x[:4])
    np.testing.assert_array_equal(slope(tight), slope(boundary))


def test_debug_raises_on_one_device_and_finite_tells_over_a_link(mesh):
    boundary = Boundary(FEATURES, debug=True)
    params, x = boundary.init(jax.random.key(0)), draw(8, 4, FEATURES)
    bad = x.at[1, 0].set(jnp.nan)
    jax.block_until_ready(apply(boundary, params, x))
    jax.effects_barrier()

    def run():
        jax.block_until_ready(apply(boundary, params, bad))
        jax.effects_barrier()

    with pytest.raises(Exception, match="not finite"):
        run()
    finite = jax.jit(
        jax.shard_map(
            lambda params, x: boundary.send(params, x, "stage")[1].finite[None],
            mesh=mesh,
            in_specs=(P(), P("stage")),
            out_specs=P("stage"),
        )
    )
    np.testing.assert_array_equal(finite(params, x), 1)
    np.testing.assert_array_equal(finite(params, bad), [1, 0, 1, 1])


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("wire", ["planes", "events"])
def test_an_empty_batch_is_a_batch(code, wire, mesh):
    if wire == "events" and code not in SPIKE_CODES:
        wire = "planes"
    boundary = boundary_of(code, wire=wire, event_capacity=2 * (wire == "events"))
    params, x = boundary.init(jax.random.key(0)), jnp.zeros((4, 0, TOKENS, FEATURES))
    assert send_to_next(boundary, mesh)(params, x, None).shape == x.shape
    y, stats = apply(boundary, params, x[0])
    assert y.shape == (0, TOKENS, FEATURES)
    assert np.isfinite(jax.tree.leaves(stats)).all()


@pytest.mark.parametrize("check_vma", [True, False])
def test_events_take_one_branch_with_and_without_the_varying_check(check_vma, mesh):
    events = Boundary(FEATURES, "phase", steps=2, wire="events", event_capacity=3)
    params = events.init(jax.random.key(0))
    quiet = jnp.full((4, BATCH, TOKENS, FEATURES), -5.0)
    run = jax.jit(
        jax.shard_map(
            lambda params, x: tuple(
                jax.tree.map(lambda leaf: leaf[None], events.send(params, x[0], "stage"))
            ),
            mesh=mesh,
            in_specs=(P(), P("stage")),
            out_specs=P("stage"),
            check_vma=check_vma,
        )
    )
    tokens = BATCH * TOKENS
    sizes = {w: 8 * events.message_bytes(tokens, w) / tokens for w in ("planes", "events")}
    for busy, wire in ((1, "planes"), (3, "events")):  # device 3 sends to nobody: it may be busy
        x = quiet.at[busy].set(5.0)
        arrived, stats = run(params, x)
        np.testing.assert_allclose(arrived[1:], apply(events, params, x)[0][:3], atol=1e-6)
        np.testing.assert_allclose(stats.bits, [sizes[wire]] * 4)


def test_stochastic_rounding_differs_between_devices(mesh):
    boundary = Boundary(FEATURES, "float32", gradient_wire="int4")
    params = boundary.init(jax.random.key(0))
    x = jnp.zeros((4, 8, FEATURES))
    w = jnp.broadcast_to(draw(9, 1, 8, FEATURES), (4, 8, FEATURES))
    run = send_to_next(boundary, mesh)
    gradient = jax.jit(jax.grad(lambda x: (run(params, x, jax.random.key(0)) * w).sum()))(x)
    assert (gradient[0] != gradient[1]).any()
    assert (gradient[1] != gradient[2]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"code": "phaze"}, "unknown code 'phaze'; did you mean 'phase'"),
        ({"features": 0}, "features=0"),
        ({"steps": 0}, "steps=0"),
        ({"budget": 999}, "budget=999"),
        ({"rank": 12}, "rank=12 must be between 1 and features=11"),
        ({"wire": "event"}, "did you mean 'events'"),
        ({"wire": "events"}, "event_capacity=0"),
        ({"event_capacity": 3}, "event_capacity=3"),
        (
            {"wire": "events", "budget": 8, "event_capacity": 9},
            "event_capacity=9 spikes a token is more than the 8 that",
        ),
        (
            {"wire": "events", "event_capacity": 10**9},
            "event_capacity=1000000000 spikes a token is",
        ),
        ({"code": "int8", "wire": "events", "event_capacity": 3}, "needs a spike code"),
        ({"gradient_wire": "int7"}, "unknown gradient wire 'int7'; did you mean"),
        ({"kept_features": 12}, "kept_features=12"),
    ],
)
def test_bad_arguments_are_named_when_the_boundary_is_made(options, message):
    with pytest.raises(ValueError, match=message):
        Boundary(**{"features": FEATURES, **options})


def test_bad_activations_are_named():
    boundary = Boundary(FEATURES)
    params = boundary.init(jax.random.key(0))
    for x, message in (
        (draw(0, 4, 5), r"shape \(4, 5\), needs \(..., features=11\)"),
        (draw(0, FEATURES), "leading dimension"),
        (jnp.zeros((4, FEATURES), jnp.int32), "dtype int32"),
    ):
        with pytest.raises(ValueError, match=message):
            boundary.apply(params, x)
    rough = Boundary(FEATURES, gradient_wire="int8")
    with pytest.raises(ValueError, match="key"):
        jax.grad(lambda x: rough.apply(params, x)[0].sum())(draw(0, 4, FEATURES))


def test_parameters_of_another_boundary_are_refused():
    x = draw(0, 4, FEATURES)
    phase = Boundary(FEATURES, "phase", steps=4, budget=FEATURES)
    params = phase.init(jax.random.key(0))
    for other, message in (
        (Boundary(FEATURES, "rate", budget=FEATURES), r"encoder/leak: needs \(11,\), got nothing"),
        (Boundary(FEATURES, "int8"), "encoder/gain: needs nothing"),
        (Boundary(FEATURES, "phase", rank=3), "encoder/projection"),
    ):
        with pytest.raises(ValueError, match=message):
            other.apply(params, x)
    everything = Boundary(FEATURES, "phase", steps=4).init(jax.random.key(0))
    with pytest.raises(ValueError, match="does not fit steps=4 and budget=11"):
        phase.check(everything)
    with pytest.raises(ValueError, match="keeps 11 features, more than kept_features=3"):
        Boundary(FEATURES, "phase", budget=FEATURES, kept_features=3).check(params)
    two_plans = {
        **params,
        "decoder": {**params["decoder"], "steps_per_feature": jnp.zeros(11, jnp.int32)},
    }
    with pytest.raises(ValueError, match="different plans"):
        phase.check(two_plans)


def test_recalibration_must_not_lose_gradient():
    boundary = Boundary(FEATURES, "phase", steps=4, budget=FEATURES)
    params = boundary.init(jax.random.key(0))
    few = draw(1, 500, FEATURES) * (jnp.arange(FEATURES) < 3).astype(jnp.float32)[None]
    tight = boundary.shrink_to_plan(boundary.calibrate(params, few))
    assert tight.gradient_features == 3
    with pytest.raises(ValueError, match="more than kept_features=3"):
        tight.calibrate(params, draw(2, 500, FEATURES))
    with pytest.raises(ValueError, match="non-finite"):
        Boundary(FEATURES, rank=3).calibrate(params, few.at[0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match="samples >= 2"):
        Boundary(FEATURES, rank=3).calibrate(params, few[:1])
