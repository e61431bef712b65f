"""What a model of the zoo costs on a mesh: its step traced, its schedule, its spike rates.

Everything is abstract (shapes, and a mesh without devices), so that a large model on many devices
is priced on a laptop. Only measured spike rates run anything.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType

from snapjax import cost
from snapjax.parallel.sharding import AXES, place
from zoo.config.specs import TrainSpec
from zoo.data import DataSpec, load
from zoo.models.model import Batch, Model, Params, without_boundaries
from zoo.models.registry import budget_of, create_model
from zoo.pretrained.load import load_pretrained
from zoo.pretrained.locate import list_pretrained
from zoo.train.step import Trainer

# Parameters of the largest model whose spike rates are measured by running it here.
LARGEST_MEASURED = 30_000_000
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
      ValueError: for a size below 1, or a batch that does not split.
    """

    batch: int = 1
    microbatches: int = 1
    data: int = 1
    tokens: int | None = None
    train: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "microbatches", "data", "tokens"):
            size = getattr(self, name)
            if size is not None and not 1 <= size < 10**6:
                raise ValueError(f"Setting: {name}={size} must be at least 1 and below 1000000")
        if self.batch % (self.data * self.microbatches):
            raise ValueError(
                f"Setting: batch={self.batch} must be a multiple of data={self.data} x "
                f"microbatches={self.microbatches}"
            )


def build(
    name: str,
    variant: str | None = None,
    stages: int | None = None,
    steps: int | None = None,
    bits: float | None = None,
    task: str | None = None,
    train: bool = False,
) -> tuple[Model, Params | None]:
    """A model to price, and its parameters if it is a trained one.

    Args:
      name: of `list_models()`, or of `list_pretrained()`, to which the rest does not apply.
      variant: None for "hnn".
      stages: None for 4.
      steps: spike steps of its boundaries, None for the variant's.
      bits: a feature on its boundaries, None for the variant's.
      task: of a BERT; None for the encoder with its pooler, which publications count, and for its
        pretraining (the preset's task) where it is trained.
      train: whether a training step is priced, not the forward pass.

    Raises:
      ValueError: for an unknown name, or an argument that does not apply.
    """
    asked = {"variant": variant, "stages": stages, "steps": steps, "bits": bits, "task": task}
    given = [key for key, value in asked.items() if value is not None]
    if name in list_pretrained():
        loaded = load_pretrained(name)
        if given:
            raise ValueError(
                f"{given[0]}={asked[given[0]]}: {name} is trained as it is; name the untrained "
                f"{loaded.model.config.name} to change it"
            )
        return loaded.model, loaded.params
    model = create_model(name, variant or "hnn", 4 if stages is None else stages)
    if task is not None and not hasattr(model.config, "vocabulary"):
        raise ValueError(f"task={task!r} is of a BERT; leave it out for {name}")
    if task is None and not train and getattr(model.config, "task", None) == "mlm":
        task = "encode"
    if task is not None:
        # The pooler's token is the first; a mean over the others would be work of ours.
        pooled = {"pooling": "first", "pooler": True} if task == "encode" else {}
        model = replace(model, config=replace(model.config, task=task, **pooled))
    boundary = model.boundary
    for key in ("steps", "bits"):
        if key in given and not boundary.spiking:
            raise ValueError(f"{key}={asked[key]}: variant={variant!r} has no spikes; leave it out")
    if steps is not None:
        boundary = replace(boundary, steps=steps)
    if bits is not None:
        boundary = replace(boundary, budget=budget_of(boundary.features, bits))
    return model.with_boundary(boundary), None


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


def parameter_counts(model: Model) -> tuple[int, int]:
    """(numbers of the model, numbers of its boundaries, plans included)."""
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    shapes = model.param_shape
    return count(without_boundaries(shapes)), count(shapes.get("boundaries", {}))


def trace_step(model: Model, setting: Setting) -> cost.Counts:
    """The counts of one step on a mesh of data x stages devices, as a mean over the devices.

    Ticks in which a stage idles are not counted as work, but what it sends in them is counted.

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
    parameters, _ = parameter_counts(model)
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
    """The pipeline's schedule, with what the first or last stage has more to do than the mean."""
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
        stages, setting.microbatches, imbalance=max(1.0, max(ranks) * stages / sum(ranks))
    )


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
    model: Model, setting: Setting, profile: str | cost.Profile, rate: float, overlap: bool = False
) -> cost.Estimate:
    """One step of a model on a profile, every site at one spike rate."""
    profile = cost.load_profile(profile)
    return cost.estimate(
        with_rate(trace_step(model, setting), rate),
        profile,
        overlap=overlap,
        schedule=schedule_of(model, setting, profile),
        cut=cut_of(model, setting),
    )


def real_batch(model: Model, count: int, tokens: int | None = None) -> tuple[Batch, str]:
    """Inputs from the data that every installation has, and what they are.

    Args:
      model: a ViT gets scikit-learn's digits, in the size of its images; a BERT gets text of
        CPython's help.
      count: samples.
      tokens: of a text.
    """
    config = model.config
    if hasattr(config, "image_size"):
        spec = DataSpec(task="classify", source="digits", image_size=config.image_size)
        found = load(spec).validation.take(np.arange(count))
        image = np.repeat(found["image"], config.channels, axis=-1)
        return {**found, "image": image}, "digits"
    spec = DataSpec(
        task="mlm",
        source="topics",
        vocabulary=config.vocabulary,
        sequence=tokens_of(model, tokens),
    )
    return load(spec).validation.take(np.arange(count)), "topics"


def measured_rate(
    model: Model, params: Params | None = None, count: int = 64, tokens: int | None = None
) -> tuple[float, str]:
    """The mean spike rate of the model's boundaries on real inputs, and how it was measured.

    Args:
      model: whose boundaries spike.
      params: trained ones; None for random weights whose boundaries are calibrated first.
      count: samples.
      tokens: of a text.

    Raises:
      ValueError: for a model too large to be run for this.
    """
    parameters, _ = parameter_counts(model)
    if parameters > LARGEST_MEASURED:
        raise ValueError(
            f"rate='measured': {model.config.name} has {parameters:,} parameters, more than the "
            f"{LARGEST_MEASURED:,} that are run for this; give a number"
        )
    batch, source = real_batch(model, count, tokens)
    how = f"measured on {count} samples of {source}, trained weights"
    if params is None:
        # A plan that fits these activations may keep more features than `kept_features` allows.
        model = model.with_boundary(replace(model.boundary, kept_features=None))
        params = model.calibrate(model.init(jax.random.key(0)), batch)
        how = f"measured on {count} samples of {source}, random weights, calibrated boundaries"
    _, result = jax.jit(model.apply)(params, batch)
    return float(np.mean(result.stats.spike_rate)), how
