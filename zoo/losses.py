"""Losses and scores as sums over samples, so that microbatches and devices add up exactly."""

import jax
import jax.numpy as jnp


def classification(
    logits: jax.Array, batch: dict[str, jax.Array]
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Cross-entropy and hits of a batch of classified samples.

    Args:
      logits: (batch, classes).
      batch: "label" int (batch,) and "weight" float32 (batch,), 0 for padding.

    Returns:
      sums {"loss", "correct", "weight"}, float32 scalars, and per-sample {"logits"}.
    """
    logits = logits.astype(jnp.float32)
    label, weight = batch["label"], batch["weight"]
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], axis=-1)[:, 0]
    # The argmax of NaN is class 0: a model that diverged must not score.
    right = (logits.argmax(-1).astype(label.dtype) == label) & jnp.isfinite(logits).all(-1)
    correct = right.astype(jnp.float32)
    sums = {
        "loss": -(picked * weight).sum(),
        "correct": (correct * weight).sum(),
        "weight": weight.sum(),
    }
    return sums, {"logits": logits}
