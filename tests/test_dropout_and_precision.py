"""Dropout is where BERT and the ViT have it, and bfloat16 activations are near the float32 ones."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import jit
from model_inputs import batch_for, random_params

from snapjax.boundary import Boundary
from snapjax.parallel.sharding import make_mesh, place, put_placed
from zoo.models.layers import Dropout, PostNormBlock, PreNormBlock
from zoo.models.registry import create_model

RATE = 0.25
NAMES = ["bert_nano", "vit_nano_patch2_8"]


def small(name, **overrides):
    sizes = {"width": 32, "mlp_width": 64, "layers": 2}
    if name.startswith("bert"):
        sizes["vocabulary"] = 50
    return create_model(name, "ann", 2, **sizes, **overrides)


def assert_dropped(dropped, whole, rate):
    """Each entry is 0 or scaled by 1 / (1 - rate); the share of zeros is within 5 deviations."""
    dropped, whole = np.asarray(dropped), np.asarray(whole)
    zero = dropped == 0
    np.testing.assert_allclose(dropped[~zero], whole[~zero] / (1 - rate), rtol=1e-6)
    assert abs(zero.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / zero.size)


@pytest.mark.parametrize("block", [PreNormBlock, PostNormBlock])
def test_a_block_drops_attention_weights_and_both_branches(block):
    module, x = block(4, 64, 1e-6, RATE), jax.random.normal(jax.random.key(0), (8, 16, 32))
    params = jit(module.init)(jax.random.key(1), x)

    def dropouts(params):
        """What goes into each dropout, and what comes out."""
        seen = []

        def watch(call, args, kwargs, context):
            out = call(*args, **kwargs)
            if isinstance(context.module, Dropout):
                seen.append((args[0], out))
            return out

        with nn.intercept_methods(watch):
            module.apply(params, x, rngs={"dropout": jax.random.key(2)})
        return seen

    seen = jit(dropouts)(params)
    assert [out.shape for _, out in seen] == [(8, 4, 16, 16), (8, 16, 32), (8, 16, 32)]
    for given, out in seen:
        assert_dropped(out, given, RATE)
    # Different draws: the two of one shape drop other entries.
    assert ((seen[1][1] == 0) != (seen[2][1] == 0)).mean() > 0.2


@pytest.mark.parametrize("name", NAMES)
def test_the_embedding_is_dropped(name):
    model = small(name, dropout=RATE)
    params, batch = random_params(model), batch_for(model, 64)
    embed = jit(model.embed)
    whole = embed(params, batch, None)
    assert_dropped(embed(params, batch, jax.random.key(1)), whole, RATE)


def test_the_classifier_of_a_bert_drops_its_input():
    model = small("bert_nano", dropout=0.5, task="classify", classes=2)
    params, batch = random_params(model), batch_for(model, 400)
    x = jnp.ones((400, 12, 32))  # every sample alike: only the dropout tells them apart
    head = jit(lambda key: model.family.head(model.config, params["head"], x, batch, key))
    assert np.ptp(np.asarray(head(None)), axis=0).max() < 1e-5
    dropped, whole = np.asarray(head(jax.random.key(1))), np.asarray(head(None))[0]
    # The linear classifier's mean over draws is its output without dropout.
    assert (np.abs(dropped.mean(0) - whole) < 5 * dropped.std(0) / 400**0.5).all()
    assert (dropped.std(0) > 0.01).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_key_decides_all_of_it(name):
    model, plain = small(name, dropout=RATE), small(name)
    params, batch = random_params(model), batch_for(model, 4)
    run = jit(lambda key: model.apply(params, batch, key)[0])
    np.testing.assert_array_equal(run(jax.random.key(1)), run(jax.random.key(1)))
    assert np.abs(run(jax.random.key(1)) - run(jax.random.key(2))).max() > 1e-4
    without = run(None)
    np.testing.assert_array_equal(without, run(None))
    assert np.abs(run(jax.random.key(1)) - without).max() > 1e-4
    # No rate, no dropout, whatever the key.
    same = jit(lambda key: plain.apply(params, batch, key)[0])(jax.random.key(1))
    np.testing.assert_array_equal(same, without)


@pytest.mark.parametrize(("name", "ranks"), [("bert_nano", 2), ("vit_nano_patch2_8", 1)])
def test_a_pipeline_drops_what_one_device_drops(name, ranks):
    model = small(name, dropout=RATE)
    params, batch, key = random_params(model), batch_for(model, 8), jax.random.key(5)
    mesh = make_mesh(1, ranks)
    spread = put_placed(mesh, place(params, ranks, 2))
    outputs = jit(model.pipeline(mesh, 1))(spread, batch, key)
    logits, _ = jit(model.apply)(params, batch, key)
    expected = model.loss(logits, batch)[0]["loss"]
    np.testing.assert_allclose(outputs.sums["loss"], expected, rtol=1e-5)


# bfloat16 keeps 8 significant bits: rounding adds at most 2^-9 of a value, relatively. About 14
# values are rounded one after another in a block (four matmuls of the attention and its weights,
# three in the MLP, both residual sums and norms, and the cast matrices), and 4 outside of them.
# Roundings are independent, so their errors add in quadrature; twice that is allowed.
ROUNDINGS = 14 * 2 + 4
BOUND = 2 * ROUNDINGS**0.5 * 2**-9  # 0.022; measured 0.008, and 0.010 for the gradients


def test_bfloat16_is_near_float32_and_gradients_stay_float32():
    results = {}
    for precision in ("float32", "bfloat16"):
        model = small("bert_nano", precision=precision)
        params, batch = random_params(model), batch_for(model, 16)

        def loss(params, model=model, batch=batch):
            logits, result = model.apply(params, batch)
            return model.loss(logits, batch)[0]["loss"], (logits, result.cut[0])

        results[precision] = jit(jax.value_and_grad(loss, has_aux=True))(params)
    ((exact, (logits, _)), gradients) = results["float32"]
    ((rough, (rough_logits, cut)), rough_gradients) = results["bfloat16"]
    assert cut.dtype == jnp.bfloat16
    assert rough.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(rough_gradients)} == {jnp.dtype(jnp.float32)}
    norm = lambda tree: np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(tree)))
    gap = lambda a, b: norm(jax.tree.map(lambda x, y: x.astype(jnp.float32) - y, a, b)) / norm(b)
    assert 2**-12 < gap(rough_logits, logits) < BOUND
    # The way back rounds as often again.
    assert 2**-12 < gap(rough_gradients, gradients) < 2**0.5 * BOUND
    np.testing.assert_allclose(rough, exact, rtol=BOUND)


@pytest.mark.parametrize("name", NAMES)
def test_matmuls_of_blocks_are_bfloat16_and_statistics_float32(name):
    model = small(name, precision="bfloat16")
    params = jax.tree.map(lambda leaf: leaf[0], random_params(model)["blocks"])
    x, block = jnp.zeros((2, 8, 32), jnp.bfloat16), model.family.block(model.config)
    jaxpr = jax.make_jaxpr(lambda x: block.apply({"params": params}, x))(x)

    def equations(jaxpr):
        for equation in jaxpr.eqns:
            yield equation
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)

    found = list(equations(jaxpr.jaxpr))
    dtypes = lambda name: {
        str(value.aval.dtype)
        for equation in found
        if equation.primitive.name == name
        for value in equation.invars
    }
    assert dtypes("dot_general") == {"bfloat16"}
    assert dtypes("exp") == {"float32"}  # softmax
    assert dtypes("rsqrt") == {"float32"}  # LayerNorm
    assert dtypes("reduce_sum") == {"float32"}


def test_bfloat16_stages_on_a_mesh_with_spikes_between_them():
    model = small("vit_nano_patch2_8", precision="bfloat16")
    model = model.with_boundary(Boundary(32, "phase", budget=32))
    params, batch = random_params(model), batch_for(model, 8)
    mesh = make_mesh(1, 2)
    outputs = jit(model.pipeline(mesh, 2))(put_placed(mesh, place(params, 2)), batch)
    logits, result = jit(model.apply)(params, batch)
    assert outputs.sums["loss"].dtype == jnp.float32
    assert result.cut[0].dtype == jnp.bfloat16
    expected = model.loss(logits, batch)[0]["loss"]
    np.testing.assert_allclose(outputs.sums["loss"], expected, rtol=BOUND)
    np.testing.assert_allclose(outputs.stats.spike_rate[0], result.stats.spike_rate[0], atol=1e-2)
