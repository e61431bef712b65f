"""Outputs of ours beside what Hugging Face transformers computed from the same weights."""

import jax
import jax.numpy as jnp
import numpy as np

TOLERANCE = 1e-5  # absolute, on states and logits of order 1, in float32


def largest_gaps(loaded, batch: dict, expected: dict) -> dict[str, float]:
    """Largest absolute difference of every expected output, padding left out.

    Args:
      loaded: a `zoo.pretrained.pretrained_model.Pretrained`.
      batch: inputs, numpy; of a masked language model without "position": all positions are asked.
      expected: "states" (layers + 1, batch, tokens, width) and "logits", or "tokens" and "pooled".
    """
    model = loaded.model
    inputs = {name: jnp.asarray(array) for name, array in batch.items()}
    if model.config.task == "mlm":
        positions = np.arange(batch["input_ids"].shape[1], dtype=np.int32)
        inputs["position"] = jnp.broadcast_to(positions, batch["input_ids"].shape)
    real = batch.get("attention_mask", np.ones(expected["states"].shape[1:3], bool))
    states = {}
    for name, output in model.walk(loaded.params, inputs):
        if name == "embed":
            states[0] = output
        elif name.startswith("blocks/") and name.count("/") == 1:
            states[int(name.split("/")[1]) + 1] = output
    found, _ = jax.jit(model.apply)(loaded.params, inputs)
    ours = {"states": np.stack([states[layer] for layer in sorted(states)])[:, real]}
    wanted = {"states": expected["states"][:, real]}
    if "logits" in expected:
        kept = real if model.config.task == "mlm" else slice(None)
        ours["logits"], wanted["logits"] = np.asarray(found)[kept], expected["logits"][kept]
    else:
        ours["tokens"], wanted["tokens"] = np.asarray(found.tokens)[real], expected["tokens"][real]
        if "pooled" in expected:
            ours["pooled"], wanted["pooled"] = np.asarray(found.pooled), expected["pooled"]
    return {name: float(np.abs(ours[name] - wanted[name]).max()) for name in wanted}
