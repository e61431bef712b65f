"""Every preset, however large: its size is the published one, and it runs forward and backward."""

from functools import cache
from math import prod

import jax
import numpy as np
import pytest
from meshes import jit
from model_inputs import batch_for, random_params

from snapjax.codes.parameters import merge_plan, split_plan
from snapjax.parallel.sharding import make_mesh, place, put_placed
from zoo.models.bert.modeling import BertConfig
from zoo.models.registry import (
    FAMILIES,
    create_model,
    default_boundary,
    family_of,
    list_models,
    registered,
    spike_boundary,
)


def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0))


def count(tree) -> int:
    return sum(prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@cache
def size(name: str) -> int:
    return count(shapes(create_model(name, stages=1)))


SMALL = [name for name in list_models() if size(name) < 10e6]


def test_all_presets_are_listed():
    assert list_models("bert_[!nm]*") == ["bert_base", "bert_large", "bert_small", "bert_tiny"]
    assert list_models("vit_*_224") == [
        *("vit_base_patch16_224", "vit_base_patch32_224", "vit_large_patch16_224"),
        *("vit_small_patch16_224", "vit_tiny_patch16_224"),
    ]
    assert len(list_models()) == 16
    assert {"bert_tiny", "vit_tiny_patch16_224", "vit_nano_patch2_8"} <= set(SMALL)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # timm's table of results, in full numbers; ViT-S/16 is DeiT-S/16.
        ("vit_tiny_patch16_224", 5_717_416),
        ("vit_small_patch16_224", 22_050_664),
        ("vit_base_patch16_224", 86_567_656),
        ("vit_base_patch32_224", 88_224_232),
        ("vit_large_patch16_224", 304_326_632),
    ],
)
def test_vits_have_the_published_number_of_parameters(name, published):
    assert size(name) == published


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # What transformers counts of a BertModel with its pooler.
        ("bert_base", 109_482_240),
        ("bert_large", 335_141_888),
        ("minilm_l6", 22_713_216),
    ],
)
def test_berts_have_the_published_number_of_parameters(name, published):
    model = create_model(name, stages=1, task="encode", pooler=True)
    assert count(shapes(model)) == published


@pytest.mark.parametrize(
    ("name", "millions"),
    [("tiny", 4.4), ("mini", 11.3), ("small", 29.1), ("medium", 41.7), ("base", 110.1)],
)
def test_berts_have_the_millions_of_their_paper(name, millions):
    """Turc et al. 2019 count the pretraining heads, whose decoder is the word table."""
    encoder = create_model(f"bert_{name}", stages=1, task="encode", pooler=True)
    width, vocabulary = encoder.config.width, encoder.config.vocabulary
    masked = width * width + width + 2 * width + vocabulary
    total = count(shapes(encoder)) + masked + 2 * width + 2  # and whether a sentence is the next
    assert round(total / 1e6, 1) == millions


def loss_of(model, plans):
    def loss(trainable, batch):
        out, _ = model.apply(merge_plan(trainable, plans), batch)
        return model.loss(out, batch)[0]["loss"]

    return loss


@pytest.mark.parametrize("name", list_models())
def test_every_preset_has_a_loss_and_its_gradient(name):
    """In shapes alone: for every task of its family with dense boundaries, for one with spikes."""
    tasks = ("mlm", "classify", "encode") if is_bert(name) else ("classify", "encode")
    for variant, task in [*(("ann", task) for task in tasks), ("hnn", "classify")]:
        model = create_model(name, variant, stages=2, task=task)
        trainable, plans = split_plan(shapes(model))
        gradients = jax.eval_shape(
            lambda trainable, plans, batch, model=model: jax.grad(loss_of(model, plans))(
                trainable, batch
            ),
            trainable, plans, batch_for(model, 2),
        )  # fmt: skip
        same = lambda gradient, parameter: gradient.shape == parameter.shape
        assert all(jax.tree.leaves(jax.tree.map(same, gradients, trainable)))


@pytest.mark.parametrize("name", SMALL)
def test_small_presets_run_forward_and_backward(name):
    model = create_model(name, "hnn", stages=2)
    params, batch = random_params(model), batch_for(model, 3, tokens=8)
    trainable, plans = split_plan(params)
    value, gradients = jit(jax.value_and_grad(loss_of(model, plans)))(trainable, batch)
    assert np.isfinite(value)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
        # All but the keys' bias, which softmax does not see, take part.
        if "key" not in jax.tree_util.keystr(path):
            assert np.abs(leaf).max() > 0, path


def is_bert(name: str) -> bool:
    return isinstance(create_model(name, stages=1).config, BertConfig)


def test_heads_of_encoders_give_what_they_say():
    model = create_model("bert_nano", stages=2, task="encode", pooler=True, pooling="first")
    params, batch = random_params(model), batch_for(model, 3)
    out, _ = jit(model.apply)(params, batch)
    np.testing.assert_array_equal(out.embedding, out.tokens[:, 0])
    pooler = params["head"]["pooler"]
    kernel, bias = (np.asarray(pooler[name]) for name in ("kernel", "bias"))
    expected = np.tanh(np.asarray(out.tokens[:, 0]) @ kernel + bias)
    np.testing.assert_allclose(out.pooled, expected, atol=1e-5)
    model = create_model("vit_nano_patch2_8", stages=2, task="encode")
    params, batch = random_params(model), batch_for(model, 3)
    out, _ = jit(model.apply)(params, batch)
    assert out.pooled is None
    np.testing.assert_allclose(out.embedding, out.tokens.mean(1), atol=1e-5)


def test_a_preset_is_of_a_registered_family():
    for name in list_models():
        model = create_model(name, stages=1)
        family = registered(model)
        assert family.functions is family_of(name)
        assert isinstance(model.config, family.config)
        assert family.inputs == ("text" if is_bert(name) else "images")
    assert [family.name for family in FAMILIES.values()] == list(FAMILIES)


def test_the_budget_of_spikes_is_so_many_bits_a_feature():
    assert spike_boundary(64) == default_boundary(64, "hnn")
    assert spike_boundary(64).bytes_per_token == 8
    assert spike_boundary(64, "rate", steps=6, bits_per_feature=0.5).bytes_per_token == 4
    assert spike_boundary(64, bits_per_feature=1e-6).budget == 1
    for bits in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"bits={bits} a feature must be a positive number"):
            spike_boundary(64, bits_per_feature=bits)


@pytest.mark.parametrize("pooler", [True, False])
def test_encoders_embed_on_a_mesh_as_on_one_device(pooler):
    model = create_model("bert_nano", "hnn", stages=4, task="encode", pooler=pooler)
    params, batch = random_params(model), batch_for(model, 6, tokens=8)
    out, _ = jit(model.apply)(params, batch)
    mesh = make_mesh(2, 4)
    outputs = jit(model.pipeline(mesh, 3))(put_placed(mesh, place(params, 4)), batch)
    np.testing.assert_allclose(outputs.samples["embedding"][-1], out.embedding, atol=1e-5)
    np.testing.assert_allclose(outputs.sums["loss"], model.loss(out, batch)[0]["loss"], rtol=1e-5)


def test_a_normalised_embedding_has_length_one_and_padding_alone_none():
    model = create_model("bert_nano", stages=2, task="encode", normalise=True)
    params, batch = random_params(model), batch_for(model, 3)
    batch["attention_mask"] = batch["attention_mask"].at[2].set(False)

    def total(params):
        out, _ = model.apply(params, batch)
        return out.embedding.sum(), out.embedding

    (_, embedding), gradients = jit(jax.value_and_grad(total, has_aux=True))(params)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), [1, 1, 0], atol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_embeddings_have_a_loss_only_where_something_is_wanted():
    model = create_model("bert_nano", stages=2, task="encode")
    params, batch = random_params(model), batch_for(model, 3)
    out, _ = jit(model.apply)(params, batch)
    sums, samples = model.loss(out, batch)
    wanted = ((np.asarray(out.embedding) - np.asarray(batch["label"])) ** 2).sum(1)[:2].sum()
    np.testing.assert_allclose(sums["loss"], wanted, rtol=1e-5)  # the third sample has no weight
    np.testing.assert_array_equal(samples["embedding"], out.embedding)
    del batch["label"]
    assert model.loss(out, batch)[0].keys() == {"weight"}
    with pytest.raises(ValueError, match=r"label_smoothing=0\.1 is for tasks with classes"):
        model.loss(out, batch, 0.1)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("bert_nano", {"pooling": "max"}, "unknown pooling 'max'"),
        ("vit_nano_patch2_8", {"pooling": "clas"}, "did you mean 'class'"),
        ("vit_nano_patch2_8", {"task": "mlm"}, "unknown task 'mlm'"),
        ("vit_nano_patch2_8", {"pooler": True}, "pooler=True needs task='encode'"),
    ],
)
def test_fields_that_do_not_fit_are_refused(name, fields, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, stages=1, **fields)
