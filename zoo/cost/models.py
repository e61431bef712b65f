"""What a model of the zoo costs on a mesh: its step traced, its schedule, its spike rates.

Everything is abstract (shapes, and a mesh without devices), so that a large model on many devices
is priced on a laptop.
"""

import glob
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType

from snapjax import cost
from snapjax.parallel.sharding import AXES, place
from zoo.config.specs import TrainSpec
from zoo.cost.priced import parameters_of
from zoo.models.model import Batch, Model, Params
from zoo.train.step import Trainer

MASKED = 0.15  # share of the tokens that a masked language model predicts (Devlin et al. 2019)


@dataclass(frozen=True)
class Setting:
    """How a model runs.

    Attributes:
      batch: samples a step, on all devices.
      microbatches: that each data shard's part of the batch is split into.
      data: parts that the batch is split over; the mesh is data x the model's stages.
      tokens: of a text; None for 128 or the model's longest, whichever is less. Images have theirs.
      train: a whole training step (gradients and AdamW), or the forward pass alone.

    Raises:
      ValueError: for a size that is no whole number of 1 or more, or a batch that does not split.
    """

    batch: int = 1
    microbatches: int = 1
    data: int = 1
    tokens: int | None = None
    train: bool = False

    def __post_init__(self) -> None:
        for name, size in vars(self).items():
            whole = isinstance(size, int) and not isinstance(size, bool)
            if name != "train" and size is not None and not whole:
                raise ValueError(f"Setting: {name}={size!r} must be a whole number")
        for name in ("batch", "microbatches", "data", "tokens"):
            size = getattr(self, name)
            if size is not None and not 1 <= size < 10**6:
                raise ValueError(f"Setting: {name}={size} must be at least 1 and below 1000000")
        if self.batch % (self.data * self.microbatches):
            raise ValueError(
                f"Setting: batch={self.batch} must be a multiple of data={self.data} x "
                f"microbatches={self.microbatches}"
            )


def default_microbatches(batch: int, stages: int) -> int:
    """The most, up to four a stage, that a batch splits into: GPipe's rule for small bubbles."""
    fits = [n for n in range(1, min(batch, 4 * stages) + 1) if batch % n == 0]
    return max(fits, default=1)


def tokens_of(model: Model, tokens: int | None = None) -> int:
    """Tokens of one sample on the boundaries.

    Raises:
      ValueError: tokens given for images, or more than the model has positions for.
    """
    config = model.config
    if hasattr(config, "image_size"):
        if tokens not in (None, config.tokens):
            raise ValueError(
                f"tokens={tokens}: {config.name} cuts its images into {config.tokens} tokens; "
                "leave tokens out"
            )
        return int(config.tokens)
    if tokens is not None and tokens > config.positions:
        raise ValueError(
            f"tokens={tokens} is more than the {config.positions} positions of {config.name}"
        )
    return tokens or min(128, config.positions)


def batch_shapes(model: Model, setting: Setting) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of one batch of the model's inputs, labels and weights."""
    config, count = model.config, setting.batch
    shape = lambda dtype, *sizes: jax.ShapeDtypeStruct(sizes, dtype)
    tokens = tokens_of(model, setting.tokens)
    if hasattr(config, "image_size"):
        image = (count, config.image_size, config.image_size, config.channels)
        batch = {"image": shape(jnp.float32, *image)}
    else:
        batch = {name: shape(jnp.int32, count, tokens) for name in ("input_ids", "token_type_ids")}
        batch["attention_mask"] = shape(jnp.bool_, count, tokens)
    targets: tuple[int, ...] = (count,)
    if config.task == "mlm":
        targets = (count, max(1, round(MASKED * tokens)))
        batch["position"] = shape(jnp.int32, *targets)
    batch["weight"] = shape(jnp.float32, *targets)
    if config.task == "encode":  # which predicts nothing
        return batch
    return {**batch, "label": shape(jnp.int32, *targets)}


def abstract_mesh(data: int, stages: int) -> AbstractMesh:
    """A mesh as `snapjax.parallel.sharding.make_mesh` makes it, without devices."""
    return AbstractMesh((data, stages, 1), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def trace_step(model: Model, setting: Setting) -> cost.Counts:
    """The counts of one step on a mesh of data x stages devices, as a mean over the devices.

    Ticks in which a stage idles are not counted as work of its layers, but what its boundaries
    compute and send in them is counted: `schedule_of` says which part of that a microbatch needs.

    Raises:
      ValueError: for a training step of an encoder, which has no labels to learn.
    """
    if setting.train and model.config.task == "encode":
        raise ValueError(
            f"train=True: {model.config.name} of task 'encode' predicts no label that a step could "
            "learn; give another task, such as 'mlm', or price the forward pass"
        )
    mesh: Any = abstract_mesh(setting.data, model.config.stages)
    batch = batch_shapes(model, setting)
    parameters = parameters_of(model).total
    if setting.train:
        spec = TrainSpec(epochs=1, batch_size=setting.batch, microbatches=setting.microbatches)
        trainer = Trainer(model, spec, 1000, mesh)
        return cost.trace(
            trainer.step, trainer.state_shape, batch, cond="exact", parameters=parameters
        )
    stages = model.config.stages
    placed = jax.eval_shape(lambda params: place(params, stages), model.param_shape)
    pipeline = model.pipeline(mesh, setting.microbatches)
    forward = lambda placed, batch: pipeline(placed, batch, None).samples
    return cost.trace(forward, placed, batch, cond="exact", parameters=parameters)


def schedule_of(model: Model, setting: Setting, profile: str | cost.Profile) -> cost.Schedule:
    """The pipeline's schedule, with what the first or last stage has more to do than the mean, and
    what of a boundary's work and messages a microbatch needs."""
    mesh: Any = abstract_mesh(setting.data, model.config.stages)
    pipeline = model.pipeline(mesh, setting.microbatches)
    count = setting.batch // setting.data // setting.microbatches
    batch = batch_shapes(model, replace(setting, batch=count, microbatches=1, data=1))
    shapes = model.param_shape
    stages, each = model.config.stages, model.config.layers // model.config.stages
    blocks = jax.eval_shape(lambda tree: jax.tree.map(lambda x: x[:each], tree), shapes["blocks"])
    x = jax.eval_shape(model.embed, shapes, batch)

    def head(params: Params, x: jax.Array, batch: Batch) -> Any:
        sums, samples = pipeline.head(params, x, batch, None)
        return sums if "loss" in sums else samples

    stage = lambda params, x, batch: pipeline.stage(params, x, batch, None)
    seconds = [
        cost.estimate(cost.trace(function, *args), profile).latency.value
        for function, *args in (
            (model.embed, shapes, batch),
            (stage, blocks, x, batch),
            (head, shapes["head"], x, batch),
        )
    ]
    embed, middle, last = seconds
    ranks = [middle] * stages
    ranks[0] += embed
    ranks[-1] += last
    return cost.Schedule(
        stages,
        setting.microbatches,
        imbalance=max(1.0, max(ranks) * stages / sum(ranks)),
        busy=_busy(stages, setting.microbatches),
    )


def _busy(stages: int, microbatches: int) -> dict[str, float]:
    """Path -> the share that microbatches need of what every rank of `Pipeline` does in each tick.

    Each of M microbatches is encoded, sent and decoded S - 1 times. The program encodes and sends
    on S ranks in every tick, and decodes where a rank does not embed.
    """
    if stages == 1:
        return {}
    ticks, hops = microbatches + stages - 1, (stages - 1) * microbatches
    tick = glob.escape(f"scan[{ticks}]")
    return {
        f"{tick}/transmit/*": hops / (stages * ticks),
        f"{tick}/receive/*": hops / (stages * ticks - microbatches),
        tick: microbatches / ticks,
    }


def cut_of(model: Model, setting: Setting) -> cost.Cut | None:
    """What one message of the model's boundaries stands for; None where they send no spikes."""
    boundary = model.boundary
    if model.config.stages == 1 or not boundary.spiking:
        return None
    samples = setting.batch // setting.data // setting.microbatches
    tokens = samples * tokens_of(model, setting.tokens)
    bits = tokens * boundary.codec.bits
    return cost.Cut(activations=tokens * boundary.features, steps=boundary.steps, bits=bits)


def with_rate(counts: cost.Counts, rate: float) -> cost.Counts:
    """Counts with one spike rate at every site."""
    return counts.with_rates(dict.fromkeys(counts.sites, rate))


def estimate(
    model: Model,
    setting: Setting,
    profile: str | cost.Profile,
    rate: float | None = None,
    overlap: bool = False,
) -> cost.Estimate:
    """One step of a model on a profile.

    Args:
      model: as it is priced.
      setting: how it runs.
      profile: of the hardware.
      rate: spike rate of every site; None for the worst case, 1, which is noted.
      overlap: links work while the devices compute, all of the time.
    """
    profile = cost.load_profile(profile)
    counts = trace_step(model, setting)
    return cost.estimate(
        counts if rate is None else with_rate(counts, rate),
        profile,
        overlap=overlap,
        schedule=schedule_of(model, setting, profile),
        cut=cut_of(model, setting),
    )
