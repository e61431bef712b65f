"""Batches and parameters for tests of any model in the zoo."""

import jax
import jax.numpy as jnp
import numpy as np

# Of 4 layers and a few MB, for tests that compile a model many times or cut it into 4 stages.
NARROW_BERTS = ("bert_micro", "bert_nano")
NARROW_VITS = ("vit_nano_patch2_8", "vit_tiny_patch4_28")


def batch_for(model, count: int, seed: int = 0, tokens: int = 12, predictions: int = 3) -> dict:
    """`count` random samples, labels and weights; the last sample is padding."""
    rng, config = np.random.default_rng(seed), model.config
    weight = np.ones(count, np.float32)
    weight[-1] = 0
    if hasattr(config, "image_size"):
        shape = (count, config.image_size, config.image_size, config.channels)
        image = rng.standard_normal(shape).astype(np.float32)
        label = rng.integers(0, config.classes, count).astype(np.int32)
        if config.task == "encode":
            label = rng.standard_normal((count, config.width)).astype(np.float32)
        return as_arrays({"image": image, "label": label, "weight": weight})
    integers = lambda top, *shape: rng.integers(0, top, shape).astype(np.int32)
    length = rng.integers(predictions, tokens + 1, count)
    length[0] = tokens
    batch = {
        "input_ids": integers(config.vocabulary, count, tokens),
        "token_type_ids": integers(config.types, count, tokens),
        "attention_mask": np.arange(tokens)[None] < length[:, None],
    }
    if config.task == "classify":
        return as_arrays({**batch, "label": integers(config.classes, count), "weight": weight})
    if config.task == "encode":
        label = rng.standard_normal((count, config.width)).astype(np.float32)
        return as_arrays({**batch, "label": label, "weight": weight})
    slots = np.tile(weight[:, None], predictions)
    slots[0, -1] = 0  # an unused slot
    position = np.stack([rng.permutation(n)[:predictions] for n in length]).astype(np.int32)
    label = integers(config.vocabulary, count, predictions)
    return as_arrays({**batch, "position": position, "label": label, "weight": slots})


def as_arrays(batch: dict) -> dict:
    return {name: jnp.asarray(array) for name, array in batch.items()}


def random_params(model, seed: int = 0) -> dict:
    """Parameters without the seconds that `init` takes to compile, and without its zeros and ones,
    which would hide where biases and scales are added; boundaries as `init` makes them."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name, noise = path[-1].key, rng.standard_normal(leaf.shape)
        if name == "kernel":
            noise = noise / np.sqrt(leaf.shape[-2])
        elif name == "scale":
            noise = 1 + 0.1 * noise
        elif name == "bias":
            noise = 0.1 * noise
        return jnp.asarray(noise, leaf.dtype)

    shapes = jax.eval_shape(model.init, jax.random.key(0))
    shapes = {name: shapes[name] for name in ("embed", "blocks", "head")}
    params = jax.tree_util.tree_map_with_path(draw, shapes)
    return model.with_new_boundaries(params, jax.random.key(seed))
