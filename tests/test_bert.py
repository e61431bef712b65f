"""The BERT equals its equations written in numpy, and reads what its batches say, and no more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import jit
from model_inputs import NARROW_BERTS, batch_for, random_params
from scipy.special import erf

from zoo.models.registry import create_model


def numpy_bert(config, params, batch):
    """Logits in float64, sample by sample and head by head, from Devlin et al. 2019, section 3, and
    Vaswani et al. 2017, section 3."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    batch = {name: np.asarray(array) for name, array in batch.items()}
    dense = lambda p, x: x @ p["kernel"] + p["bias"]
    gelu = lambda x: x * 0.5 * (1 + erf(x / np.sqrt(2)))

    def norm(p, x):
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + config.layer_norm_eps)
        return centred / deviation * p["scale"] + p["bias"]

    logits, embed, head = [], params["embed"], params["head"]
    for i, token in enumerate(batch["input_ids"]):
        kind = batch["token_type_ids"][i] if "token_type_ids" in batch else np.zeros_like(token)
        real = (
            batch["attention_mask"][i] if "attention_mask" in batch else np.ones(len(token), bool)
        )
        x = embed["token"]["embedding"][token] + embed["type"]["embedding"][kind]
        x = norm(embed["norm"], x + embed["position"][: len(token)])
        for layer in range(config.layers):
            p = jax.tree.map(lambda leaf, i=layer: leaf[i], params["blocks"])
            q, k, v = (dense(p["attention"][name], x) for name in ("query", "key", "value"))
            size, mixed = config.width // config.heads, []
            for h in range(config.heads):
                part = slice(h * size, (h + 1) * size)
                # Only the real tokens are looked at.
                scores = np.exp(q[:, part] @ k[real][:, part].T / np.sqrt(size))
                mixed.append(scores / scores.sum(-1, keepdims=True) @ v[real][:, part])
            attended = dense(p["attention"]["out"], np.concatenate(mixed, -1))
            x = norm(p["norm_attention"], x + attended)
            x = norm(p["norm_mlp"], x + dense(p["mlp"]["down"], gelu(dense(p["mlp"]["up"], x))))
        if config.task == "classify":
            pooled = np.tanh(dense(head["pooler"], x[0]))
            logits.append(dense(head["classifier"], pooled))
        else:
            y = norm(head["norm"], gelu(dense(head["transform"], x[batch["position"][i]])))
            logits.append(dense(head["decoder"], y))
    return np.array(logits)


@pytest.mark.parametrize("task", ["mlm", "classify"])
@pytest.mark.parametrize("name", NARROW_BERTS)
def test_dense_bert_equals_its_equations(name, task):
    model = create_model(name, stages=2, task=task, classes=3, vocabulary=300)
    params = random_params(model)
    batch = batch_for(model, 4)
    apply = jit(lambda params, batch: model.apply(params, batch)[0])
    gap = lambda batch: np.abs(apply(params, batch) - numpy_bert(model.config, params, batch)).max()
    assert gap(batch) < 2e-5  # of logits of about 10
    bare = {name: batch[name] for name in ("input_ids", "position") if name in batch}
    assert gap(bare) < 2e-5


def test_init_draws_tables_and_matrices_from_the_truncated_normal_of_the_paper():
    params = create_model("bert_nano", stages=1).init(jax.random.key(0))
    deviation = 0.02 * 0.8796  # of a normal cut off at two deviations
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        assert leaf.dtype == jnp.float32
        name = path[-1].key
        if name in ("kernel", "embedding", "position"):
            assert np.abs(leaf).max() <= 0.04
            if leaf.size > 1000:
                np.testing.assert_allclose(np.std(leaf), deviation, rtol=0.05)
        else:
            np.testing.assert_array_equal(leaf, np.full(leaf.shape, name == "scale"))


@pytest.fixture(scope="module")
def nano():
    """A model, parameters, a batch, and the logits of any batch."""
    model = create_model("bert_nano", stages=2, vocabulary=100)
    params = random_params(model)
    apply = jit(lambda batch: model.apply(params, batch)[0])
    return model, params, batch_for(model, 4), apply


def test_padding_does_not_reach_real_tokens(nano):
    _, _, batch, apply = nano
    logits = apply(batch)
    noise = jax.random.randint(jax.random.key(1), batch["input_ids"].shape, 0, 100, jnp.int32)
    other = {**batch, "input_ids": jnp.where(batch["attention_mask"], batch["input_ids"], noise)}
    assert (other["input_ids"] != batch["input_ids"]).any()
    np.testing.assert_array_equal(apply(other), logits)
    # Nor does it matter how much of it there is.
    more = lambda x: jnp.pad(x, ((0, 0), (0, 5)))
    longer = {
        **batch,
        **{name: more(batch[name]) for name in ("input_ids", "token_type_ids", "attention_mask")},
    }
    np.testing.assert_allclose(apply(longer), logits, atol=1e-5)
    ignored = {name: array for name, array in batch.items() if name != "attention_mask"}
    assert np.abs(apply(ignored) - logits).max() > 1e-2


@pytest.mark.parametrize(
    ("old", "new"),
    [("token", "input_ids"), ("type", "token_type_ids"), ("mask", "attention_mask")],
)
def test_a_batch_with_a_key_of_version_0_1_0_is_refused(nano, old, new):
    model, params, batch, _ = nano
    renamed = {old if name == new else name: array for name, array in batch.items()}
    with pytest.raises(ValueError, match=rf"batch\['{old}'\] is now called '{new}'"):
        model.apply(params, renamed)
    with pytest.raises(ValueError, match=rf"batch\['{old}'\] is now called '{new}'"):
        model.apply(params, {**batch, old: batch[new]})


def test_a_sample_of_padding_alone_stays_finite(nano):
    _, _, batch, apply = nano
    batch = {**batch, "attention_mask": batch["attention_mask"].at[-1].set(False)}
    assert np.isfinite(apply(batch)).all()


def test_unused_prediction_slots_do_not_count(nano):
    model, _, batch, apply = nano
    sums, _ = model.loss(apply(batch), batch)
    unused = batch["weight"] == 0
    assert unused.sum() == 4  # one slot, and the three of the padding sample
    other = {
        **batch,
        "label": jnp.where(unused, (batch["label"] + 1) % 100, batch["label"]),
        "position": jnp.where(unused, 0, batch["position"]),
    }
    changed, _ = model.loss(apply(other), other)
    for name, value in sums.items():
        np.testing.assert_allclose(changed[name], value, rtol=1e-6)
    assert float(sums["weight"]) == 8


def test_calibration_looks_at_real_tokens_alone():
    model = create_model("bert_nano", "hnn", 2, vocabulary=100, width=16)
    params, batch = random_params(model), batch_for(model, 32)
    noise = jax.random.randint(jax.random.key(1), batch["input_ids"].shape, 0, 100, jnp.int32)
    other = {**batch, "input_ids": jnp.where(batch["attention_mask"], batch["input_ids"], noise)}
    a, b = (model.calibrate(params, x)["boundaries"] for x in (batch, other))
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    ("name", "number", "rows"),
    [
        *(("input_ids", number, 100) for number in (100, -1, -100, 2**31 - 1, -(2**31))),
        *(("token_type_ids", number, 2) for number in (2, -1)),
        *(("position", number, 12) for number in (12, -1)),
    ],
)
def test_an_id_outside_of_its_table_is_heard(nano, name, number, rows):
    """As NaN where it is only known as the program runs, and before that as an error."""
    model, params, batch, apply = nano
    bad = {**batch, name: batch[name].at[1, 0].set(number)}
    logits = apply(bad)
    assert np.isnan(logits[1, 0 if name == "position" else ...]).all()
    assert np.isfinite(logits[0]).all()
    message = rf"batch\['{name}'\] holds {number} at \(1, 0\), which is not in \[0, {rows}\); 1 of"
    for arrays in (bad, {key: np.asarray(array) for key, array in bad.items()}):
        with pytest.raises(ValueError, match=message):
            model.apply(params, arrays)


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint8", "int32"])
def test_ids_of_every_width_are_the_same_rows(nano, dtype):
    _, _, batch, apply = nano
    narrow = {**batch, "input_ids": batch["input_ids"].astype(dtype)}
    np.testing.assert_array_equal(apply(narrow), apply(batch))
    if dtype != "uint8":  # which has no -1
        bad = {**narrow, "input_ids": narrow["input_ids"].at[1, 0].set(-1)}
        assert np.isnan(apply(bad)[1]).all()


def test_a_table_of_one_type_has_no_second():
    model = create_model("bert_nano", stages=2, vocabulary=100, types=1)
    params, batch = random_params(model), batch_for(model, 2)
    apply = jit(lambda batch: model.apply(params, batch)[0])
    assert np.isfinite(apply(batch)).all()
    kinds = batch["token_type_ids"].at[1, 2].set(1)
    assert np.isnan(apply({**batch, "token_type_ids": kinds})[1]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": None}, r"task='mlm' needs 'input_ids'"),
        ({"position": None}, r"task='mlm' needs 'position'"),
        ({"input_ids": (12,)}, r"batch\['input_ids'\] has shape \(12,\), needs \(batch, tokens\)"),
        ({"input_ids": (4, 129)}, r"of 1 to positions=128 tokens"),
        (
            {"attention_mask": (4, 11)},
            r"batch\['attention_mask'\] has shape \(4, 11\), needs that of the tokens",
        ),
        ({"token_type_ids": (3, 12)}, r"batch\['token_type_ids'\] has shape \(3, 12\)"),
        ({"position": (3, 2)}, r"batch\['position'\] has shape \(3, 2\), needs \(batch, pred"),
    ],
)
def test_bad_batches_are_named(nano, change, message):
    model, _, batch, _ = nano
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch.items()}
    model.check(shapes)
    for name, shape in change.items():
        if shape is None:
            del shapes[name]
        else:
            shapes[name] = jax.ShapeDtypeStruct(shape, batch[name].dtype)
    with pytest.raises(ValueError, match=message):
        model.check(shapes)


def test_bad_dtypes_are_named(nano):
    model, params, batch, _ = nano
    with pytest.raises(ValueError, match=r"batch\['input_ids'\] has dtype float32, needs integers"):
        model.apply(params, {**batch, "input_ids": batch["input_ids"].astype(jnp.float32)})
    with pytest.raises(ValueError, match=r"batch\['input_ids'\] is a list, needs an array"):
        model.apply(params, {**batch, "input_ids": batch["input_ids"].tolist()})
    with pytest.raises(ValueError, match=r"batch\['attention_mask'\] has dtype int32, needs bool"):
        model.apply(params, {**batch, "attention_mask": batch["attention_mask"].astype(jnp.int32)})
