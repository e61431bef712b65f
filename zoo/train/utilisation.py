"""Model-FLOPs utilisation: the operations that the model needs a second, of those that the devices
could do (Chowdhery et al. 2022, arXiv 2204.02311, appendix B).

What the program adds, such as recomputation and the idle ticks of a pipeline, does not count, so
the figure compares programs. The operations are counted in the jaxpr by `snapjax.cost`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snapjax import cost
from snapjax.codes.parameters import merge_plan, split_plan
from zoo.config.specs import TrainSpec
from zoo.data import Batch, Split
from zoo.data.batches import grouped_epoch, trimmed
from zoo.models.layers import output
from zoo.models.model import Model

# Start of a device's kind, as jax calls it -> the profile that has its peak rates.
PROFILES = {
    "NVIDIA H100": "h100-nvlink",
    "NVIDIA H200": "h200-nvlink",
    "TPU v5 lite": "tpu-v5e",
    "TPU v5p": "tpu-v5p",
    "TPU v6 lite": "tpu-v6e",
}


def flops_per_sample(model: Model, batch: Any) -> float:
    """Operations of the matmuls and convolutions of one sample, forward and backward, a
    multiply-accumulate counted as two.

    Args:
      model: the model.
      batch: of one sample, arrays or their shapes.
    """
    trainable, plans = split_plan(model.param_shape)
    key = jax.eval_shape(jax.random.key, 0)

    def loss(trainable: Any, plans: Any, batch: Any, key: jax.Array) -> jax.Array:
        # Whatever the loss, it adds no matmul, and needs labels that a teacher may give later.
        result, _ = model.apply(merge_plan(trainable, plans), batch, key)
        return (output(result).astype(jnp.float32) ** 2).sum()

    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch)
    return 2.0 * cost.trace(jax.grad(loss), trainable, plans, shapes, key).global_macs


def tokens_per_sample(model: Model, batch: Any) -> int:
    """Tokens that cross a boundary for one sample; takes what `flops_per_sample` does."""
    return int(jax.eval_shape(model.embed, model.param_shape, batch).shape[1])


def shapes_of_samples(
    split: Split, spec: TrainSpec, pairs: bool = False
) -> list[tuple[float, Batch]]:
    """One sample in every shape that the first epoch's batches have, and the share of each.

    Args:
      split, spec: of the run.
      pairs: the samples are pairs; see `zoo.data.batches.train_batches`.

    Raises:
      ValueError: batches are to be grouped by length, but all samples are of one.
    """
    sample = split.take(np.arange(1))
    if not spec.group_by_length:
        return [(1.0, sample)]
    _, padded = grouped_epoch(split, spec.batch_size, spec.seed, 0, pairs)
    lengths, times = np.unique(padded, return_counts=True)
    shares = zip(times / len(padded), lengths, strict=True)
    return [(float(share), trimmed(sample, length)) for share, length in shares]


def mean(
    count: Callable[[Model, Any], float], model: Model, samples: Sequence[tuple[float, Batch]]
) -> float:
    """A count of one sample, over the shapes that samples come in; see `shapes_of_samples`."""
    return sum(share * count(model, batch) for share, batch in samples)


def peak_flops(profile: str | None, precision: str) -> float | None:
    """Operations a second that all devices of this run could do, None where that is not known.

    Args:
      profile: name or file of a profile of `snapjax.cost`; None for the one of the device's kind.
      precision: of the activations, "float32" or "bfloat16".
    """
    kind = jax.devices()[0].device_kind
    if profile is None:
        profile = next((name for start, name in PROFILES.items() if kind.startswith(start)), None)
    if profile is None:
        return None
    bits = 16 if precision == "bfloat16" else 32
    return 2.0 * cost.load_profile(profile)[f"rate_mac_{bits}"] * jax.device_count()
