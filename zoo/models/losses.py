"""Losses and scores as sums over samples, so that microbatches and devices add up exactly.

All are computed in float32. Padding counts nothing: its weight is 0.
"""

import jax
import jax.numpy as jnp

from zoo.models.layers import Encoded, row_number

Arrays = dict[str, jax.Array]


def classification(
    logits: jax.Array, batch: Arrays, label_smoothing: float = 0.0
) -> tuple[Arrays, Arrays]:
    """Cross-entropy and hits of a batch of classified samples.

    Args:
      logits: (batch, classes).
      batch: "label" int (batch,) and "weight" float32 (batch,), 0 for padding.
      label_smoothing: see `cross_entropy`; for training only.

    Returns:
      sums {"loss", "correct", "weight"}, float32 scalars, and per-sample {"logits"}.
    """
    logits = logits.astype(jnp.float32)
    return _sums(logits, batch, label_smoothing), {"logits": logits}


def masked_lm(
    logits: jax.Array, batch: Arrays, label_smoothing: float = 0.0
) -> tuple[Arrays, Arrays]:
    """Cross-entropy and hits of the masked positions (Devlin et al. 2019).

    Args:
      logits: (batch, predictions, vocabulary), of the positions in the batch's "position".
      batch: "label" int (batch, predictions) and "weight" float32 (batch, predictions), 0 for
        unused slots.
      label_smoothing: see `cross_entropy`; for training only.

    Returns:
      sums {"loss", "correct", "weight"}, float32 scalars over all predictions, and per-sample
      {"predicted"}, the likeliest tokens, int32 (batch, predictions).
    """
    logits = logits.astype(jnp.float32)
    return _sums(logits, batch, label_smoothing), {"predicted": logits.argmax(-1).astype(jnp.int32)}


def encoding(
    encoded: Encoded, batch: Arrays, label_smoothing: float = 0.0
) -> tuple[Arrays, Arrays]:
    """Squared distance of embeddings to those wanted, where the batch has any.

    Args:
      encoded: of a model of task "encode".
      batch: "weight" float32 (batch,), 0 for padding, and optionally "label" float (batch, width),
        a teacher's embeddings.
      label_smoothing: has no meaning here; must be 0.

    Returns:
      sums {"weight"}, and with labels {"loss"}, float32 scalars, and per-sample {"embedding"}, and
      {"pooled"} of a model with a pooler.
    """
    if label_smoothing:
        raise ValueError(f"loss: label_smoothing={label_smoothing} is for tasks with classes")
    embedding = encoded.embedding
    _check(batch, "weight", embedding.shape[:1])
    sums = {"weight": batch["weight"].sum()}
    if "label" in batch:
        _check(batch, "label", embedding.shape)
        distance = ((embedding - batch["label"].astype(jnp.float32)) ** 2).sum(-1)
        sums["loss"] = (distance * batch["weight"]).sum()
    samples = {"embedding": embedding}
    if encoded.pooled is not None:
        samples["pooled"] = encoded.pooled
    return sums, samples


LOSSES = {"classify": classification, "mlm": masked_lm, "encode": encoding}


def cross_entropy(logits: jax.Array, label: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """-sum(target log softmax(logits)) of each prediction, in nats.

    The target is 1 - smoothing on the label and smoothing spread over all classes, the label
    included (Szegedy et al. 2016, arXiv 1512.00567, section 7).

    Args:
      logits: (..., classes) float32.
      label: (...) int; one that is no class gives NaN.
      smoothing: in [0, 1).
    """
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    index = row_number(label, logits.shape[-1])[..., None]
    picked = jnp.take_along_axis(logits, index, axis=-1)[..., 0]
    plain = normaliser - picked
    if not smoothing:
        return plain
    return (1 - smoothing) * plain + smoothing * (normaliser - logits.mean(-1))


def _sums(logits: jax.Array, batch: Arrays, smoothing: float) -> Arrays:
    for name in ("label", "weight"):
        _check(batch, name, logits.shape[:-1])
    label, weight = batch["label"], batch["weight"]
    # The argmax of NaN is class 0: a model that diverged must not score.
    right = (logits.argmax(-1).astype(label.dtype) == label) & jnp.isfinite(logits).all(-1)
    return {
        "loss": (cross_entropy(logits, label, smoothing) * weight).sum(),
        "correct": (right.astype(jnp.float32) * weight).sum(),
        "weight": weight.sum(),
    }


def _check(batch: Arrays, name: str, needed: tuple[int, ...]) -> None:
    shape = batch[name].shape if name in batch else None
    if shape != needed:
        raise ValueError(
            f"loss: batch[{name!r}] needs shape {needed}, one for each prediction, got {shape}"
        )
