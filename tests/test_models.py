"""Models by name: every one runs, and the ViT equals its equations written in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from snapjax.sharding import make_mesh, place, put_placed
from zoo import losses
from zoo.registry import create_model, list_models
from zoo.transformer import gelu


def images_for(model, count, seed=0):
    config = model.config
    shape = (count, config.image_size, config.image_size, config.channels)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def numpy_vit(config, params, images):
    """Forward pass in float64, loop by loop, from Dosovitskiy et al. 2021, section 3.1."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    dense = lambda p, x: x @ p["kernel"] + p["bias"]

    def norm(p, x):
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + config.layer_norm_eps)
        return centred / deviation * p["scale"] + p["bias"]

    size, side = config.patch_size, config.image_size // config.patch_size
    logits = []
    for image in images.astype(np.float64):
        patches = [
            image[r * size : (r + 1) * size, c * size : (c + 1) * size].reshape(-1)
            for r in range(side)
            for c in range(side)
        ]
        x = dense(params["embed"]["patch"], np.array(patches)) + params["embed"]["position"][0]
        for layer in range(config.layers):
            p = jax.tree.map(lambda leaf, i=layer: leaf[i], params["blocks"])
            y, mixed = norm(p["norm_attention"], x), []
            q, k, v = (dense(p["attention"][n], y) for n in ("query", "key", "value"))
            width = config.width // config.heads
            for h in range(config.heads):
                part = slice(h * width, (h + 1) * width)
                scores = np.exp(q[:, part] @ k[:, part].T / np.sqrt(width))
                mixed.append(scores / scores.sum(-1, keepdims=True) @ v[:, part])
            x = x + dense(p["attention"]["out"], np.concatenate(mixed, -1))
            hidden = dense(p["mlp"]["up"], norm(p["norm_mlp"], x))
            x = x + dense(p["mlp"]["down"], hidden * 0.5 * (1 + erf(hidden / np.sqrt(2))))
        logits.append(dense(params["head"]["classifier"], norm(params["head"]["norm"], x).mean(0)))
    return np.array(logits)


@pytest.mark.parametrize("name", list_models("vit*"))
def test_dense_vit_equals_its_equations(name):
    model = create_model(name, stages=2)
    params = model.init(jax.random.key(1))
    # Initial biases and scales are 0 and 1, which would hide where they are added.
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params
    )
    images = images_for(model, 3)
    logits, _ = model.apply(params, {"image": jnp.asarray(images)})
    np.testing.assert_allclose(logits, numpy_vit(model.config, params, images), atol=1e-5)


@pytest.mark.parametrize("variant", ["ann", "hnn"])
@pytest.mark.parametrize("name", list_models())
def test_every_model_runs_forward_and_backward_on_a_mesh_as_on_one_device(name, variant):
    model = create_model(name, variant, stages=4)
    params = model.init(jax.random.key(0))
    batch = {
        "image": jnp.asarray(images_for(model, 12)),
        "label": jnp.arange(12, dtype=jnp.int32) % model.config.classes,
        "weight": jnp.ones(12).at[-1].set(0),
    }
    params = model.calibrate(params, batch)
    logits, result = jax.jit(model.apply)(params, batch)
    sums, _ = losses.classification(logits, batch)
    mesh = make_mesh(2, 4)
    outputs = jax.jit(model.pipeline(mesh, 3))(put_placed(mesh, place(params, 4)), batch)
    np.testing.assert_allclose(outputs.samples["logits"][-1], logits, atol=1e-5)
    np.testing.assert_allclose(outputs.sums["loss"], sums["loss"], rtol=1e-5)
    np.testing.assert_array_equal(outputs.sums["weight"], 11)
    np.testing.assert_allclose(outputs.stats.spike_rate[:-1], result.stats.spike_rate, atol=1e-6)
    assert len(result.cut) == 3


def test_gelu_derivative_equals_that_of_the_library():
    x = jnp.linspace(-6, 6, 101)
    expected = jax.vmap(jax.grad(lambda x: jax.nn.gelu(x, approximate=False)))(x)
    np.testing.assert_allclose(jax.vmap(jax.grad(gelu))(x), expected, atol=2e-6)


def test_loss_counts_what_it_says():
    logits = np.array([[2.0, 0.0, 1.0], [0.0, 1.0, 3.0]], np.float32)
    batch = {"label": jnp.array([0, 1]), "weight": jnp.array([1.0, 0.5])}
    sums, _ = losses.classification(jnp.asarray(logits), batch)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(
        sums["loss"], -np.log(softmax[0, 0]) - 0.5 * np.log(softmax[1, 1]), rtol=1e-6
    )
    assert float(sums["correct"]) == 1
    assert float(sums["weight"]) == 1.5


def test_a_model_that_diverged_does_not_score():
    batch = {"label": jnp.zeros(3, jnp.int32), "weight": jnp.ones(3)}
    sums, _ = losses.classification(jnp.full((3, 4), jnp.nan), batch)
    assert float(sums["correct"]) == 0
    assert np.isnan(sums["loss"])


def test_calibration_brings_a_cut_model_closer_to_the_dense_one():
    dense, spiking = (
        create_model("vit_nano_patch2_8", "ann"),
        create_model("vit_nano_patch2_8", "hnn"),
    )
    params = dense.init(jax.random.key(0))
    batch = {"image": jnp.asarray(images_for(dense, 64))}
    wanted, _ = dense.apply(params, batch)
    fresh = spiking.with_new_boundaries(params, jax.random.key(1))
    gap = lambda params: float(((spiking.apply(params, batch)[0] - wanted) ** 2).mean())
    assert gap(spiking.calibrate(fresh, batch)) < 0.8 * gap(fresh)


def test_unknown_names_come_with_the_nearest():
    with pytest.raises(ValueError, match=r"unknown model .* did you mean 'vit_nano_patch2_8'"):
        create_model("vit_nano_patch4_8")
    with pytest.raises(ValueError, match="unknown variant 'han'; did you mean"):
        create_model("vit_nano_patch2_8", "han")
    with pytest.raises(ValueError, match="unknown code 'phas'"):
        create_model("vit_nano_patch2_8", boundary="phas")
    with pytest.raises(ValueError, match="stages=3 must divide layers=4"):
        create_model("vit_nano_patch2_8", stages=3)
    assert list_models("bert*") == []


def test_wrong_images_are_named():
    model = create_model("vit_nano_patch2_8", stages=2)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    with pytest.raises(ValueError, match=r"needs shape \(batch, 8, 8, 1\), got \(2, 9, 8, 1\)"):
        model.apply(params, {"image": jnp.zeros((2, 9, 8, 1))})
    with pytest.raises(ValueError, match="dtype uint8"):
        model.calibrate(params, {"image": jnp.zeros((2, 8, 8, 1), jnp.uint8)})
