"""The plan and the code in a boundary's parameters: whose they are, and that both ends agree."""

import jax
import jax.numpy as jnp
import meshes
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from snapjax import Boundary, make_mesh, place
from snapjax.codes.code import SPIKE_CODES

FEATURES = 7


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


apply = jax.jit(lambda boundary, params, x: boundary.apply(params, x), static_argnums=0)


def on_four_devices(function, *specs):
    mesh = make_mesh(stage=4)
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P("stage")))


def test_parameters_of_another_code_or_other_steps_are_refused():
    x = draw(0, 2, FEATURES)
    made = {
        (code, steps): Boundary(FEATURES, code, steps=steps).init(jax.random.key(0))
        for code in SPIKE_CODES
        for steps in (3, 4)
    }
    for code, steps in made:
        boundary = Boundary(FEATURES, code, steps=steps)
        boundary.apply(made[code, steps], x)
        for (other, others), params in made.items():
            if (other, others) == (code, steps):
                continue
            for use in (boundary.check, lambda params: boundary.apply(params, x)):  # noqa: B023
                with pytest.raises(ValueError, match=r"Boundary: .*") as caught:
                    use(params)
                told = f"of code='{other}', steps={others} at the encoder"
                # A leak more or less is said first: the shapes differ.
                assert told in str(caught.value) or "leak" in str(caught.value)


def test_calibration_starts_from_parameters_of_its_own_code():
    samples = draw(0, 50, FEATURES)
    params = Boundary(FEATURES, "latency").init(jax.random.key(0))
    with pytest.raises(ValueError, match="code='phase', steps=4 got parameters of code='late"):
        Boundary(FEATURES).calibrate(params, samples)
    own = Boundary(FEATURES, "latency").calibrate(params, samples)
    Boundary(FEATURES, "latency").check(own)


def test_parameters_without_a_mark_are_taken_by_their_shapes():
    x = draw(0, 2, FEATURES)
    boundary = Boundary(FEATURES)
    params = boundary.init(jax.random.key(0))
    without = {
        end: {name: leaf for name, leaf in tree.items() if name != "code"}
        for end, tree in params.items()
    }
    zeros = {end: {**tree, "code": jnp.int32(0)} for end, tree in params.items()}
    for old in (without, zeros):
        boundary.check(old)
        np.testing.assert_array_equal(boundary.apply(old, x)[0], boundary.apply(params, x)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: (plan, plan[::-1]), "different plans"),
        (lambda plan: (plan.at[0].set(-1), plan.at[0].set(-1)), "with -1 to"),
        (lambda plan: (plan + 2, plan + 2), "does not fit steps=4 and budget=10"),
        (lambda plan: (plan.at[0].set(5), plan.at[0].set(5)), "1 to 5 steps"),
        (lambda plan: (plan.astype(jnp.float32),) * 2, "dtype float32, needs int32"),
    ],
)
def test_eager_calls_ask_about_the_plans(change, message):
    boundary = Boundary(FEATURES, budget=10)
    params = boundary.init(jax.random.key(0))
    sent, received = change(params["encoder"]["steps_per_feature"])
    params["encoder"]["steps_per_feature"] = sent
    params["decoder"]["steps_per_feature"] = received
    x = draw(0, 2, FEATURES)
    for use in (
        boundary.check,
        lambda params: boundary.apply(params, x),
        lambda params: jax.jit(lambda x: boundary.apply(params, x))(x),  # closed over
        lambda params: jax.grad(lambda x: boundary.apply(params, x)[0].sum())(x),
    ):
        with pytest.raises(ValueError, match=message):
            use(params)


def mixed(boundary):
    """Parameters whose ends hold other plans."""
    params = boundary.init(jax.random.key(0))
    plan = params["decoder"]["steps_per_feature"]
    return {**params, "decoder": {**params["decoder"], "steps_per_feature": plan[::-1]}}


@pytest.mark.parametrize("code", SPIKE_CODES)
def test_debug_tells_of_ends_that_differ_under_jit(code):
    boundary = Boundary(FEATURES, code, budget=10, debug=True)
    x = draw(0, 2, FEATURES)
    params = boundary.init(jax.random.key(0))
    jax.block_until_ready(apply(boundary, params, x))
    jax.effects_barrier()

    def run(params):
        jax.block_until_ready(apply(boundary, params, x))
        jax.effects_barrier()

    with pytest.raises(Exception, match="hold other plans or codes"):
        run(mixed(boundary))
    other = Boundary(FEATURES, code, steps=5, budget=10).init(jax.random.key(0))
    with pytest.raises(Exception, match="hold other plans or codes"):
        run({**params, "decoder": {**params["decoder"], "code": other["decoder"]["code"]}})


@pytest.mark.parametrize("way", ["send", "all_gather"])
def test_debug_turns_what_crosses_a_link_into_nan_where_the_ends_differ(way):
    boundary = Boundary(FEATURES, budget=10, debug=True)
    good, bad = boundary.init(jax.random.key(0)), mixed(boundary)
    # Device 2 has the other decoder.
    params = jax.tree.map(lambda a, b: jnp.stack([a, a, b, a]), good, bad)
    x = draw(0, 4, 2, FEATURES)

    def device(params, x):
        own = jax.tree.map(lambda leaf: leaf[0], params)
        made, stats = getattr(boundary, way)(own, x[0], "stage")
        return made[None], stats.finite[None]

    run = on_four_devices(device, P("stage"), P("stage"))
    made, finite = run(params, x)
    np.testing.assert_array_equal(finite, 1)
    np.testing.assert_array_equal(np.isnan(made).all((1, 2)), [False, False, True, False])
    if way == "send":
        np.testing.assert_array_equal(made[1], boundary.apply(good, x[0])[0])


def test_debug_reaches_the_loss_of_a_pipeline():
    losses = {}
    for debug in (False, True):
        boundary = Boundary(meshes.FEATURES, budget=10, debug=debug)
        params = meshes.toy_params(boundary, 2)
        pipeline = meshes.toy_pipeline(boundary, 1, 2, 2)
        run = jax.jit(lambda placed, batch, pipeline=pipeline: pipeline(placed, batch).sums)
        for differ in (False, True):
            ends = params["boundaries"]
            plan = ends["encoder"]["steps_per_feature"]
            other = plan.at[0, :2].set(jnp.array([0, 2], jnp.int32)) if differ else plan
            ends = {**ends, "decoder": {**ends["decoder"], "steps_per_feature": other}}
            placed = place({**params, "boundaries": ends}, 2)
            losses[debug, differ] = float(run(placed, meshes.toy_batch(4))["loss"])
    assert np.isfinite([losses[False, False], losses[False, True]]).all()
    assert losses[True, False] == losses[False, False]
    assert np.isnan(losses[True, True])


def test_without_debug_nothing_more_crosses_the_link():
    def device(boundary):
        return lambda params, x: boundary.send(params, x[0], "stage")[0][None]

    counts = []
    for debug in (False, True):
        boundary = Boundary(FEATURES, debug=debug)
        run = on_four_devices(device(boundary), P(), P("stage"))
        text = str(run.trace(boundary.init(jax.random.key(0)), draw(0, 4, 2, FEATURES)).jaxpr)
        counts.append(text.count("ppermute["))
    assert counts == [1, 2]
