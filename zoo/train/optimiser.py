"""AdamW with warm-up, cosine, clipping and a decay mask, from optax; and a moving average."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from snapjax.parallel.sharding import path_name
from zoo.config.specs import TrainSpec


def schedule(spec: TrainSpec, total_steps: int) -> optax.Schedule:
    """Learning rate at each step: linear from 0 to the peak, then a cosine to 0 (Loshchilov and
    Hutter 2017, arXiv 1608.03983)."""
    warmup = min(int(spec.warmup * total_steps), total_steps - 1)
    return optax.warmup_cosine_decay_schedule(0.0, spec.learning_rate, warmup, total_steps)


def make_optimiser(spec: TrainSpec, total_steps: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) behind a global-norm clip.

    What is not trained counts nothing in that norm and stays as it is, bit for bit.
    """
    steps = [
        optax.clip_by_global_norm(spec.clip),
        optax.adamw(schedule(spec, total_steps), weight_decay=spec.weight_decay, mask=decays),
    ]
    if spec.trainable == "boundaries":
        still = optax.masked(optax.set_to_zero(), frozen)
        steps = [still, *steps, still]
    return optax.chain(*steps)


def frozen(params: Any) -> Any:
    """Whether a parameter is none of a boundary's."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not path_name(path).startswith("boundaries"), params
    )


def decays(params: Any) -> Any:
    """Whether a parameter decays: the kernels do."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path_name(path).endswith("kernel"), params
    )


def move_average(average: Any, params: Any, decay: float, step: jax.Array) -> Any:
    """The exponential moving average after one more step, its start forgotten.

    The decay is at most (1 + step) / (10 + step) (as TensorFlow's num_updates), so that a short run
    does not average in its random start.
    """
    count = step.astype(jnp.float32)
    share = jnp.minimum(decay, (1 + count) / (10 + count))
    return jax.tree.map(
        lambda old, new: old + (1 - share).astype(new.dtype) * (new - old), average, params
    )
