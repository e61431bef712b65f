"""Models by name: all run, on a mesh as on one device; the ViT equals its equations in numpy."""

from functools import cache
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import jit, largest_gap
from model_inputs import NARROW_BERTS, NARROW_VITS, batch_for, random_params
from scipy.special import erf

from snapjax.boundary import Boundary
from snapjax.codes.parameters import merge_plan, split_plan
from snapjax.parallel.sharding import make_mesh, place, put_placed, unplace
from zoo.models.layers import gelu
from zoo.models.registry import create_model, list_models


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


@pytest.mark.parametrize("name", NARROW_VITS)
def test_dense_vit_equals_its_equations(name):
    model = create_model(name, stages=2)
    params, batch = random_params(model), batch_for(model, 3)
    logits, _ = jit(model.apply)(params, batch)
    expected = numpy_vit(model.config, params, np.asarray(batch["image"]))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        *((name, "hnn") for name in NARROW_BERTS + NARROW_VITS),
        ("bert_nano", "ann"),
        ("vit_nano_patch2_8", "ann"),
    ],
)
def test_every_model_runs_on_a_mesh_as_on_one_device(name, variant):
    model = create_model(name, variant, stages=4)
    # Few tokens: of many, one has a membrane so near its threshold that rounding decides.
    params, batch = random_params(model), batch_for(model, 6, tokens=8)
    logits, result = jit(model.apply)(params, batch)
    sums, samples = model.loss(logits, batch)
    mesh = make_mesh(2, 4)
    outputs = jit(model.pipeline(mesh, 3))(put_placed(mesh, place(params, 4)), batch)
    for name, sample in samples.items():
        np.testing.assert_allclose(outputs.samples[name][-1], sample, atol=1e-5)
    np.testing.assert_allclose(outputs.sums["loss"], sums["loss"], rtol=1e-5)
    np.testing.assert_array_equal(outputs.sums["weight"], batch["weight"].sum())
    np.testing.assert_allclose(outputs.stats.spike_rate[:-1], result.stats.spike_rate, atol=1e-6)
    assert len(result.cut) == 3


@cache
def small_model_on_one_device(name, code):
    """Model, parameters, batch; loss and gradients of the whole model without a mesh."""
    sizes = {"vocabulary": 50} if name.startswith("bert") else {}
    model = create_model(name, "hnn", boundary=code, width=16, mlp_width=32, **sizes)
    params, batch = random_params(model), batch_for(model, 12)
    trainable, plans = split_plan(params)

    def loss(trainable):
        logits, _ = model.apply(merge_plan(trainable, plans), batch)
        return model.loss(logits, batch, 0.1)[0]["loss"]

    return model, params, batch, jit(jax.value_and_grad(loss))(trainable)


@pytest.mark.parametrize(
    ("name", "code", "ranks"),
    [
        ("bert_nano", "phase", 1),
        ("bert_nano", "phase", 4),
        ("vit_nano_patch2_8", "int8", 2),
    ],
)
def test_gradients_are_those_of_one_device_on_any_number_of_ranks(name, code, ranks):
    model, params, batch, (expected, gradients) = small_model_on_one_device(name, code)
    mesh = make_mesh(2, ranks)
    pipeline = model.pipeline(mesh, 3, label_smoothing=0.1)
    trainable, plans = split_plan(put_placed(mesh, place(params, ranks, 4)))
    loss = lambda trainable: pipeline(merge_plan(trainable, plans), batch).sums["loss"]
    found, placed_gradients = jit(jax.value_and_grad(loss))(trainable)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert largest_gap(no_key_bias(gradients), no_key_bias(unplace(placed_gradients))) < 1e-5


def no_key_bias(gradients):
    """Without the one gradient that is rounding around zero: a bias of the keys shifts all scores
    of a query alike, which softmax does not see."""
    blocks = gradients["blocks"]
    key = blocks["attention"]["key"]
    assert np.abs(key["bias"]).max() < 1e-5 * np.abs(key["kernel"]).max()
    attention = {**blocks["attention"], "key": key["kernel"]}
    return {**gradients, "blocks": {**blocks, "attention": attention}}


@pytest.mark.parametrize("name", NARROW_BERTS + NARROW_VITS)
@pytest.mark.parametrize("task", ["mlm", "classify"])
def test_parameter_counts_follow_the_formula(name, task):
    """Every matrix, bias, norm and table, counted by hand."""
    bert = name.startswith("bert")
    model = create_model(name, **({"task": task, "classes": 3} if bert else {}))
    c = model.config
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    count = lambda tree: sum(prod(leaf.shape) for leaf in jax.tree.leaves(tree))
    w, norm, dense = c.width, 2 * c.width, lambda a, b: a * b + b
    block = 4 * dense(w, w) + dense(w, c.mlp_width) + dense(c.mlp_width, w) + 2 * norm
    assert count(shapes["blocks"]) == c.layers * block
    if bert:
        assert count(shapes["embed"]) == (c.vocabulary + c.positions + 2) * w + norm
        heads = {
            "mlm": dense(w, w) + norm + dense(w, c.vocabulary),
            "classify": dense(w, w) + dense(w, 3),
        }
        assert count(shapes["head"]) == heads[task]
    else:
        patch = c.patch_size**2 * c.channels
        assert count(shapes["embed"]) == dense(patch, w) + (c.image_size // c.patch_size) ** 2 * w
        assert count(shapes["head"]) == norm + dense(w, c.classes)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("bert_nano", 0.477), ("bert_micro", 2.599), ("vit_tiny_patch4_28", 1.014)],
)
def test_presets_have_the_size_that_their_cards_say(name, millions):
    model = create_model(name)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    total = sum(prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert abs(total / 1e6 - millions) < 0.0005


def test_overrides_change_the_config_and_the_boundary_with_it():
    model = create_model("bert_nano", "hnn", 2, width=32, layers=6, dropout=0.1, task="classify")
    assert (model.config.width, model.config.layers, model.config.dropout) == (32, 6, 0.1)
    assert (model.boundary.features, model.boundary.budget) == (32, 32)
    assert create_model("vit_nano_patch2_8", boundary="int8", width=32).boundary.features == 32
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    assert shapes["blocks"]["mlp"]["up"]["kernel"].shape == (6, 32, 256)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"vocabular": 9}, "field of bert_nano's config 'vocabular'; did you mean 'vocabulary'"),
        ({"stage": 2}, "field of bert_nano's config 'stage'"),
        ({"layers": 0}, "layers=0 must be an integer of at least 1"),
        ({"classes": "3"}, "classes='3' must be an integer"),
        ({"width": 30}, "heads=4 must divide width=30"),
        ({"dropout": 1.0}, r"dropout=1.0 must be in \[0, 1\)"),
        ({"precision": "bfloat"}, "unknown precision 'bfloat'; did you mean 'bfloat16'"),
        ({"task": "mlmm"}, "unknown task 'mlmm'; did you mean 'mlm'"),
        ({"layers": 6}, "stages=4 must divide layers=6"),
    ],
)
def test_bad_overrides_are_named(overrides, message):
    with pytest.raises(ValueError, match=message):
        create_model("bert_nano", **overrides)


def test_a_walk_names_the_modules_and_ends_with_the_logits_of_apply():
    model = create_model("bert_nano", "hnn", 2, vocabulary=50)
    params, batch = random_params(model), batch_for(model, 4)
    names = []

    @jit
    def walk(params, batch):
        names[:], outputs = zip(*model.walk(params, batch), strict=True)
        return outputs

    outputs = walk(params, batch)
    own = [name for name in names if name.count("/") < 2]
    assert own == [
        *("embed", "blocks/0", "blocks/1", "boundaries/0", "blocks/2", "blocks/3", "head")
    ]
    inner = [name for name in names if name.startswith("blocks/0/") and "Dropout" not in name]
    assert inner == [
        f"blocks/0/{module}"
        for module in (
            *("attention/query", "attention/key", "attention/value", "attention/out", "attention"),
            *("norm_attention", "mlp/up", "mlp/down", "mlp", "norm_mlp"),
        )
    ]
    logits, result = jit(model.apply)(params, batch)
    np.testing.assert_allclose(outputs[-1], logits, atol=1e-5)
    cut = outputs[names.index("blocks/1")]
    np.testing.assert_allclose(cut, result.cut[0], atol=1e-5)


def test_gelu_derivative_equals_that_of_the_library():
    x = jnp.linspace(-6, 6, 101)
    expected = jit(jax.vmap(jax.grad(lambda x: jax.nn.gelu(x, approximate=False))))(x)
    np.testing.assert_allclose(jit(jax.vmap(jax.grad(gelu)))(x), expected, atol=2e-6)


def test_calibration_brings_a_cut_model_closer_to_the_dense_one():
    dense, spiking = (
        create_model("vit_nano_patch2_8", "ann"),
        create_model("vit_nano_patch2_8", "hnn"),
    )
    params = random_params(dense)
    batch = batch_for(dense, 64)
    wanted, _ = jit(dense.apply)(params, batch)
    apply = jit(spiking.apply)
    fresh = spiking.with_new_boundaries(params, jax.random.key(1))
    gap = lambda params: float(((apply(params, batch)[0] - wanted) ** 2).mean())
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
    with pytest.raises(ValueError, match=r"boundary\.features=32 must equal"):
        create_model("vit_nano_patch2_8", boundary=Boundary(32))
    with pytest.raises(ValueError, match=r"label_smoothing=1 must be in \[0, 1\)"):
        create_model("vit_nano_patch2_8").pipeline(make_mesh(), 1, label_smoothing=1)
    assert list_models("bert_m*") == ["bert_medium", "bert_micro", "bert_mini"]


def test_wrong_images_are_named():
    model = create_model("vit_nano_patch2_8", stages=2)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    with pytest.raises(ValueError, match=r"needs shape \(batch, 8, 8, 1\), got \(2, 9, 8, 1\)"):
        model.apply(params, {"image": jnp.zeros((2, 9, 8, 1))})
    with pytest.raises(ValueError, match="dtype uint8"):
        model.calibrate(params, {"image": jnp.zeros((2, 8, 8, 1), jnp.uint8)})
