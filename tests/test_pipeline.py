"""The same function on one device and on every mesh: outputs, gradients, statistics."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import (
    FEATURES,
    embed,
    head,
    largest_gap,
    on_mesh,
    on_one_device,
    run_stage,
    step_function,
    toy_batch,
    toy_params,
    toy_pipeline,
)

from snapjax.boundary import Boundary
from snapjax.codes.code import CODES, SPIKE_CODES
from snapjax.parallel.pipeline import Pipeline
from snapjax.parallel.sharding import make_mesh, place, unplace

STAGES = 4
MESHES = {"1x4": (1, 4), "2x4": (2, 4)}


@cache
def reference(boundary, size=12, stages=STAGES):
    """Parameters, batch, and the pass of the cut model without a mesh: once for all its meshes."""
    params, batch = toy_params(boundary, stages), toy_batch(size)
    return params, batch, on_one_device(boundary, params, batch, stages)


def assert_same(one, mesh, gradient_tolerance=1e-5):
    np.testing.assert_allclose(mesh.loss, one.loss, rtol=1e-5)
    assert largest_gap(one.prediction, mesh.prediction) < 1e-5
    assert largest_gap(one.gradients, mesh.gradients) < gradient_tolerance
    np.testing.assert_allclose(mesh.rate, one.rate, atol=1e-6)
    np.testing.assert_allclose(mesh.bits, one.bits)


@pytest.mark.parametrize(
    ("code", "mesh"), [*((code, "2x4") for code in CODES), ("phase", "1x4"), ("int8", "1x4")]
)
def test_every_code_over_the_mesh(code, mesh):
    data, stages = MESHES[mesh]
    budget = 13 if code in SPIKE_CODES else None  # 13 bits: the last byte is padded
    boundary = Boundary(FEATURES, code, steps=3, budget=budget)
    params, batch, one = reference(boundary)
    pipeline = toy_pipeline(boundary, data, stages, microbatches=3)
    assert_same(one, on_mesh(pipeline, params, batch))


@pytest.mark.parametrize("microbatches", [1, 5])
def test_two_by_two_with_odd_microbatches(microbatches):
    boundary = Boundary(FEATURES, "phase", steps=2, budget=FEATURES)
    params, batch, one = reference(boundary, 20, 2)
    assert_same(one, on_mesh(toy_pipeline(boundary, 2, 2, microbatches), params, batch))


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 5, "budget": 9},
        {"wire": "events", "event_capacity": 2},  # too few at the initial rate: falls back
        {"wire": "events", "event_capacity": 30},  # always fits
        {"kept_features": 4, "budget": 4, "steps": 3},
    ],
    ids=["projection", "events-overflow", "events", "few-kept"],
)
def test_options(options):
    boundary = Boundary(FEATURES, "phase", **options)
    params, batch, one = reference(boundary)
    many = on_mesh(toy_pipeline(boundary, 2, STAGES, microbatches=3), params, batch)
    if "wire" in options:
        # Messages differ in size (microbatches against the whole batch), so bits a token do too.
        one, many = one._replace(bits=0), many._replace(bits=0)
    assert_same(one, many)


@pytest.mark.parametrize("remat", [False, True])
def test_calibrated_plans_and_remat(remat):
    boundary = Boundary(FEATURES, "phase", steps=4, budget=FEATURES)
    params, batch = toy_params(boundary, STAGES), toy_batch(12)
    rng = np.random.default_rng(0)
    fitted = []
    for i in range(STAGES - 1):
        ends = jax.tree.map(lambda leaf, i=i: leaf[i], params["boundaries"])
        samples = rng.standard_normal((500, FEATURES)) * rng.exponential(size=FEATURES) ** 2
        fitted.append(boundary.calibrate(ends, samples))
    params["boundaries"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *fitted)
    assert (
        len(
            {
                tuple(plan)
                for plan in np.asarray(params["boundaries"]["encoder"]["steps_per_feature"])
            }
        )
        == 3
    )
    one = on_one_device(boundary, params, batch, STAGES)
    tight = boundary.shrink_to_plan(params["boundaries"])
    assert tight.gradient_features < FEATURES
    assert_same(one, on_mesh(toy_pipeline(tight, 1, 4, 3, remat), params, batch))


@pytest.mark.parametrize(
    ("gradient_wire", "error"),
    # Three hops, each within half a bfloat16 ulp (2^-8) of every value.
    [("float32", 1e-5), ("bfloat16", 3 * 2**-8)],
)
def test_deterministic_gradient_wires_stay_within_their_error(gradient_wire, error):
    exact = Boundary(FEATURES, "phase", steps=2)
    params, batch, one = reference(exact)
    rough = Boundary(FEATURES, "phase", steps=2, gradient_wire=gradient_wire)
    gap = largest_gap(one.gradients, on_mesh(toy_pipeline(rough, 1, 4, 3), params, batch).gradients)
    assert gap < error
    if gradient_wire != "float32":
        assert gap > 1e-6  # it is really used


@pytest.mark.parametrize("gradient_wire", ["int8", "int4"])
def test_stochastic_gradient_wires_are_unbiased_everywhere(gradient_wire):
    exact = Boundary(FEATURES, "phase", steps=2)
    params, batch, one = reference(exact)
    rough = Boundary(FEATURES, "phase", steps=2, gradient_wire=gradient_wire)
    step, trainable = step_function(toy_pipeline(rough, 1, 4, 3), params)
    canonical = jax.jit(unplace)
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    draws = np.array(
        [flat(canonical(step(trainable, batch, jax.random.key(i))[1])) for i in range(100)]
    )
    mean, deviation = draws.mean(0), draws.std(0, ddof=1)
    expected = flat(one.gradients)
    # Each of the 700 means within 6 standard errors of the exact gradient, and of rounding.
    assert (np.abs(mean - expected) < 0.6 * deviation + 1e-5 * np.abs(expected).max()).all()
    assert (deviation > 0).any()


@pytest.mark.parametrize("code", ["phase", "float32", "int8"])
@pytest.mark.parametrize(("data", "ranks"), [(1, 1), (2, 2)])
def test_four_stages_on_fewer_ranks_are_the_same_function(code, data, ranks):
    budget = 13 if code == "phase" else None
    boundary = Boundary(FEATURES, code, steps=3, budget=budget)
    params, batch, one = reference(boundary)
    pipeline = toy_pipeline(boundary, data, STAGES, 3, remat=code == "phase", ranks=ranks)
    assert_same(one, on_mesh(pipeline, params, batch))


def test_a_stochastic_gradient_wire_rounds_between_the_virtual_stages_of_a_rank_too():
    exact, rough = (
        Boundary(FEATURES, "phase", steps=2, gradient_wire=wire) for wire in ("float32", "int8")
    )
    params, batch, one = reference(exact)
    step, trainable = step_function(toy_pipeline(rough, 1, STAGES, 3, ranks=2), params)
    draw = lambda seed: unplace(step(trainable, batch, jax.random.key(seed))[1])
    assert 1e-6 < largest_gap(one.gradients, draw(0)) < 0.1
    assert largest_gap(draw(0), draw(0)) == 0
    assert largest_gap(draw(0), draw(1)) > 1e-6


def test_every_use_of_randomness_has_a_key_of_its_own_whatever_the_ranks():
    """Embedding, stages and head each write down the first number that their key draws."""
    column = lambda x, i, key: x.at[..., i].set(jax.random.uniform(key))

    def draws(data, ranks, microbatches=3):
        pipeline = Pipeline(
            embed=lambda params, batch, key: column(batch["x"], 0, key),
            stage=lambda params, x, batch, key: jnp.where(
                params["here"][0] == 1, jax.random.uniform(key), x
            ),
            head=lambda params, x, batch, key: ({}, {"drawn": column(x, 5, key)[:, 0]}),
            boundary=Boundary(6, "float32"),
            stages=STAGES,
            mesh=make_mesh(data, ranks),
            microbatches=microbatches,
        )
        params = {
            "embed": {},
            "head": {},
            "blocks": {"here": np.eye(6, dtype=np.int32)[1:5, None, None]},
            "boundaries": {"encoder": {}, "decoder": {}},
        }
        batch = {"x": jnp.zeros((12, 1, 6))}
        outputs = jax.jit(pipeline)(place(params, ranks, STAGES), batch, jax.random.key(3))
        return np.asarray(outputs.samples["drawn"])[-1]

    one = draws(2, 1)
    assert one.shape == (12, 6)
    assert len(np.unique(one)) == 2 * 3 * 6  # data shards, microbatches, uses
    for ranks in (2, 4):
        np.testing.assert_array_equal(draws(2, ranks), one)


def test_one_stage_needs_no_boundary():
    boundary = Boundary(FEATURES, "phase")
    params, batch = toy_params(boundary, 2), toy_batch(6)
    whole = {name: params[name] for name in ("embed", "head")}
    whole["blocks"] = params["blocks"]
    outputs = toy_pipeline(boundary, 2, 1, 3)(place(whole, 1), batch)
    sums, _ = head(params["head"], run_stage(whole["blocks"], embed(params["embed"], batch)), batch)
    np.testing.assert_allclose(outputs.sums["loss"], sums["loss"], rtol=1e-5)


def test_bad_input_is_refused_before_anything_is_compiled():
    boundary = Boundary(FEATURES, "phase")
    params, batch = toy_params(boundary, 4), toy_batch(12)
    with pytest.raises(ValueError, match="microbatches=0"):
        toy_pipeline(boundary, 1, 4, 0)
    with pytest.raises(ValueError, match=r"stage=9 .* needs 9 devices, found 8"):
        toy_pipeline(boundary, 1, 9, 1)
    pipeline = toy_pipeline(boundary, 1, 4, 5)
    with pytest.raises(ValueError, match=r"batch\['x'\] of shape \(12, 3, 4\) .* multiple of 5"):
        pipeline(place(params, 4), batch)
    with pytest.raises(ValueError, match="differ in their first axis"):
        pipeline(place(params, 4), {**batch, "target": batch["target"][:6]})
    with pytest.raises(ValueError, match=r"need .*'boundaries'"):
        pipeline({name: params[name] for name in ("embed", "blocks", "head")}, batch)
    explicit = jax.make_mesh((1, 4), ("data", "stage"))
    with pytest.raises(ValueError, match="needs Auto ones"):
        Pipeline(embed, run_stage, head, boundary, 4, explicit, 1)
    with pytest.raises(ValueError, match="not placed on stages=4"):
        pipeline(params, batch)
    with pytest.raises(ValueError, match="3 ranks on the 'stage' axis must divide stages=4"):
        toy_pipeline(boundary, 1, 4, 1, ranks=3)
    for fewer in (toy_pipeline(boundary, 1, 4, 3, ranks=2), toy_pipeline(boundary, 1, 4, 3)):
        with pytest.raises(ValueError, match=rf"stages=4 at {fewer.ranks} ranks"):
            fewer(place(params, 1, 4), batch)
    with pytest.raises(ValueError, match=r"stages=3 must divide layers=4; use one of \[1, 2, 4\]"):
        place(params, 3)
    rough = toy_pipeline(Boundary(FEATURES, gradient_wire="int8"), 1, 4, 3)
    with pytest.raises(ValueError, match="stochastic rounding"):
        on_mesh(rough, params, batch)
