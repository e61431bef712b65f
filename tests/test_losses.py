"""Losses against sums written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.models import losses


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_classification_counts_what_it_says():
    logits = np.array([[2.0, 0.0, 1.0], [0.0, 1.0, 3.0]], np.float32)
    batch = {"label": jnp.array([0, 1]), "weight": jnp.array([1.0, 0.5])}
    sums, samples = losses.classification(jnp.asarray(logits), batch)
    log = log_softmax(logits)
    np.testing.assert_allclose(sums["loss"], -log[0, 0] - 0.5 * log[1, 1], rtol=1e-6)
    assert float(sums["correct"]) == 1
    assert float(sums["weight"]) == 1.5
    np.testing.assert_array_equal(samples["logits"], logits)


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
@pytest.mark.parametrize("task", ["classify", "mlm"])
def test_label_smoothing_is_the_cross_entropy_with_the_smoothed_target(task, smoothing):
    rng = np.random.default_rng(0)
    lead = (4,) if task == "classify" else (4, 2)
    logits = rng.standard_normal((*lead, 5)).astype(np.float32)
    label, weight = rng.integers(0, 5, lead), rng.random(lead).astype(np.float32)
    batch = {"label": jnp.asarray(label, jnp.int32), "weight": jnp.asarray(weight)}
    sums, _ = losses.LOSSES[task](jnp.asarray(logits), batch, smoothing)
    target = (1 - smoothing) * np.eye(5)[label] + smoothing / 5
    expected = (-(target * log_softmax(logits)).sum(-1) * weight).sum()
    np.testing.assert_allclose(sums["loss"], expected, rtol=1e-6)


def test_masked_lm_sums_over_predictions_and_returns_no_logits():
    logits = np.zeros((2, 3, 7), np.float32)
    logits[0, 0, 4] = logits[0, 1, 2] = logits[1, 0, 6] = logits[1, 1, 1] = 5
    batch = {
        "label": jnp.array([[4, 3, 0], [6, 1, 0]]),
        "weight": jnp.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]),
    }
    sums, samples = losses.masked_lm(jnp.asarray(logits), batch)
    normaliser = np.log(6 + np.exp(5))
    np.testing.assert_allclose(sums["loss"], 3 * normaliser - 2 * 5, rtol=1e-6)
    assert float(sums["correct"]) == 2
    assert float(sums["weight"]) == 3
    assert list(samples) == ["predicted"]
    np.testing.assert_array_equal(samples["predicted"], [[4, 2, 0], [6, 1, 0]])


def test_sums_are_float32_and_exact_for_bfloat16_logits():
    logits = jax.random.normal(jax.random.key(0), (6, 9)).astype(jnp.bfloat16)
    batch = {"label": jnp.arange(6), "weight": jnp.ones(6)}
    sums, _ = losses.classification(logits, batch)
    assert {value.dtype for value in sums.values()} == {jnp.dtype(jnp.float32)}
    expected = -log_softmax(logits.astype(jnp.float32))[np.arange(6), np.arange(6)].sum()
    np.testing.assert_allclose(sums["loss"], expected, rtol=1e-6)


def test_a_model_that_diverged_does_not_score():
    batch = {"label": jnp.zeros(3, jnp.int32), "weight": jnp.ones(3)}
    sums, _ = losses.classification(jnp.full((3, 4), jnp.nan), batch)
    assert float(sums["correct"]) == 0
    assert np.isnan(sums["loss"])


def test_a_batch_without_labels_is_named():
    with pytest.raises(ValueError, match=r"batch\['label'\] needs shape \(3,\).* got None"):
        losses.classification(jnp.zeros((3, 4)), {"weight": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"batch\['weight'\] needs shape \(3, 2\).* got \(3,\)"):
        losses.masked_lm(
            jnp.zeros((3, 2, 4)), {"label": jnp.zeros((3, 2), jnp.int32), "weight": jnp.ones(3)}
        )


@pytest.mark.parametrize("label", [-1, -100, 3])
def test_a_label_that_is_no_class_is_no_loss(label):
    """A negative one would otherwise be the last class."""
    batch = {"label": jnp.array([0, label]), "weight": jnp.ones(2)}
    sums, _ = losses.classification(jnp.zeros((2, 3)), batch)
    assert np.isnan(sums["loss"])
    assert float(sums["correct"]) == 1
