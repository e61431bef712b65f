"""What is priced: a model by its name or path, and how often its spikes fire.

An untrained model gets the boundary that is asked for. A trained one is priced as it is, with its
own boundary: the matrices, the steps and the plan that its quality was measured with.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from snapjax.codes.parameters import count_trainable
from snapjax.errors import unknown_name
from zoo.data import DataSpec, load
from zoo.models.model import Batch, Model, Params, without_boundaries
from zoo.models.registry import budget_of, create_model, list_models
from zoo.pretrained.hugging_face.hub import ID
from zoo.pretrained.load import load_pretrained
from zoo.pretrained.locate import CONFIG, SHIPPED, list_pretrained
from zoo.pretrained.pretrained_model import Pretrained
from zoo.pretrained.record import rebuild
from zoo.utils.files import read_json

# Parameters of the largest model whose spike rates are measured by running it here.
LARGEST_MEASURED = 30_000_000
MOST_STAGES = 4  # where nobody says how many


class Rate(NamedTuple):
    """A spike rate, and where it is from."""

    value: float
    how: str


# The rule where nobody gave or measured a rate, the same as that of `snapjax.cost.estimate`.
WORST = Rate(1.0, "not known, so the worst case")


@dataclass(frozen=True)
class Priced:
    """A model to price.

    Attributes:
      name: as it was asked for.
      model: with the boundary that is priced.
      rate: that its record has, of a trained one; `WORST` where none is known.
      trained: loads the trained weights, which a price does not need; None of an untrained model.
    """

    name: str
    model: Model
    rate: Rate = WORST
    trained: Callable[[], Pretrained] | None = None


class Parameters(NamedTuple):
    """Numbers that training may change: the rule of every command and card.

    The plan of a boundary, integers that calibration chose, is not among them.
    """

    model: int
    boundaries: int

    @property
    def total(self) -> int:
        """Of both together."""
        return self.model + self.boundaries

    def __str__(self) -> str:
        own = f", of which {self.boundaries:,} of its boundaries" if self.boundaries else ""
        return f"{self.total:,} trainable parameters{own}"


def parameters_of(model: Model) -> Parameters:
    """The trainable parameters of a model, each counted once."""
    shapes = model.param_shape
    return Parameters(
        count_trainable(without_boundaries(shapes)), count_trainable(shapes.get("boundaries", {}))
    )


def build(
    name: str | Path,
    variant: str | None = None,
    stages: int | None = None,
    steps: int | None = None,
    bits: float | None = None,
    task: str | None = None,
    train: bool = False,
) -> Priced:
    """A model to price.

    Args:
      name: of `list_models()`, untrained; or of `list_pretrained()`, or the path of a folder, run
        or safetensors file, or a Hub id: trained, to which the rest does not apply, but for the
        boundaries of one that is not cut.
      variant: None for "hnn"; of a trained model that is not cut, to leave it so.
      stages: None for the most up to four that its layers divide into.
      steps: spike steps of its boundaries, None for the variant's.
      bits: a feature on its boundaries, None for the variant's.
      task: of a BERT; None for the encoder with its pooler, which publications count, and for its
        pretraining (the preset's task) where it is trained.
      train: whether a training step is priced, not the forward pass.

    Raises:
      ValueError: for an unknown name, or an argument that does not apply.
    """
    asked = {"variant": variant, "stages": stages, "steps": steps, "bits": bits, "task": task}
    given = {key: value for key, value in asked.items() if value is not None}
    if not isinstance(name, str | Path):
        raise ValueError(f"name={name!r} must be the name of a model, or a path")
    name = str(name)
    if not _untrained(name):
        return _trained(name, given)
    if stages is None:
        stages = default_stages(create_model(name, "ann", 1).config.layers)
    model = create_model(name, variant or "hnn", stages)
    if task is not None and not hasattr(model.config, "vocabulary"):
        raise ValueError(f"task={task!r} is of a BERT; leave it out for {name}")
    if task is None and not train and getattr(model.config, "task", None) == "mlm":
        task = "encode"
    if task is not None:
        # The pooler's token is the first; a mean over the others would be work of ours.
        pooled = {"pooling": "first", "pooler": True} if task == "encode" else {}
        model = replace(model, config=replace(model.config, task=task, **pooled))
    return Priced(name, _with_spikes(model, variant, steps, bits))


def default_stages(layers: int) -> int:
    """The most stages, up to four, that so many layers divide into.

    Example:
      >>> [default_stages(layers) for layers in (4, 6, 12, 7)]
      [4, 3, 4, 1]
    """
    return max(count for count in range(1, MOST_STAGES + 1) if layers % count == 0)


def recorded_rate(model: Model, record: Mapping[str, Any]) -> Rate:
    """The mean spike rate that a trained model's own validation measured; `WORST` where it did not,
    or where the boundaries were fitted after it.

    Raises:
      ValueError: rates that are none.
    """
    rates = (record.get("metrics") or {}).get("spike_rate")
    if not model.boundary.spiking or not rates or "calibration" in record:
        return WORST
    number = lambda rate: isinstance(rate, int | float) and 0 <= rate <= 1
    if not isinstance(rates, list) or not all(map(number, rates)):
        raise ValueError(
            f"the record's metrics.spike_rate={rates!r} is damaged: it must be a list of numbers "
            "in [0, 1]"
        )
    return Rate(float(np.mean(rates)), "of its own validation, as recorded with its weights")


def shipped(name: str) -> Priced:
    """A model that ships with the package, of whose weights nothing is read."""
    record = read_json(SHIPPED / name / CONFIG)
    model, _ = rebuild(record)
    return Priced(name, model, recorded_rate(model, record), lambda: load_pretrained(name))


def _untrained(name: str) -> bool:
    """Whether a name is that of a preset; a path that exists goes before a name.

    Raises:
      ValueError: neither name nor path.
    """
    path = Path(name)
    if (name and path.exists()) or name in list_pretrained():
        return False
    if name in list_models():
        return True
    if path.suffix == ".safetensors" or not ID.fullmatch(name):
        known = [*list_models(), *list_pretrained()]
        raise unknown_name("model, trained model, folder or .safetensors file", name, known)
    return False


def _trained(name: str, given: Mapping[str, Any]) -> Priced:
    if name in list_pretrained() and not Path(name).exists():
        found = shipped(name)
    else:
        loaded = load_pretrained(name)
        rate = recorded_rate(loaded.model, loaded.record)
        found = Priced(name, loaded.model, rate, lambda: loaded)
    if not given:
        return found
    key, value = next(iter(given.items()))
    if found.model.config.stages > 1 or "task" in given:
        raise ValueError(
            f"{key}={value!r}: {name} is priced as it was trained; name the untrained "
            f"{found.model.config.name} to change it"
        )
    layers, variant = found.model.config.layers, given.get("variant", "hnn")
    stages = given.get("stages", default_stages(layers))
    cut = load_pretrained(name, variant=variant, stages=stages)
    model = _with_spikes(cut.model, variant, given.get("steps"), given.get("bits"))
    return Priced(name, model)  # with boundaries that are new and fit nothing yet


def _with_spikes(model: Model, variant: str | None, steps: int | None, bits: float | None) -> Model:
    """The model with other steps or bits of its boundaries.

    Raises:
      ValueError: boundaries without spikes.
    """
    boundary = model.boundary
    for key, value in (("steps", steps), ("bits", bits)):
        if value is not None and not boundary.spiking:
            raise ValueError(f"{key}={value}: variant={variant!r} has no spikes; leave it out")
    if steps is not None:
        boundary = replace(boundary, steps=steps)
    if bits is not None:
        boundary = replace(boundary, budget=budget_of(boundary.features, bits))
    return model.with_boundary(boundary)


def real_batch(
    model: Model, count: int, tokens: int, tokenizer: str | None = None
) -> tuple[Batch, str]:
    """Inputs from the data that every installation has, and what they are.

    Args:
      model: a ViT gets scikit-learn's digits, in the size of its images; a BERT gets text of
        CPython's help.
      count: samples.
      tokens: of a text.
      tokenizer: text of a trained model's tokenizer.json; None for one made from these texts.
    """
    config = model.config
    if hasattr(config, "image_size"):
        spec = DataSpec(task="classify", source="digits", image_size=config.image_size)
        found = load(spec).validation.take(np.arange(count))
        image = np.repeat(found["image"], config.channels, axis=-1)
        return {**found, "image": image}, "digits"
    spec = DataSpec(task="mlm", source="topics", vocabulary=config.vocabulary, sequence=tokens)
    return load(spec, tokenizer).validation.take(np.arange(count)), "topics"


def measured_rate(priced: Priced, tokens: int, count: int = 64) -> Rate:
    """The mean spike rate of the model's boundaries on real inputs, and how it was measured.

    Args:
      priced: whose boundaries spike: trained, or with random weights whose boundaries are
        calibrated first.
      tokens: of a text.
      count: samples.

    Raises:
      ValueError: for a model too large to be run for this.
    """
    model, size = priced.model, parameters_of(priced.model).total
    if size > LARGEST_MEASURED:
        raise ValueError(
            f"rate='measured': {model.config.name} has {size:,} parameters, more than the "
            f"{LARGEST_MEASURED:,} that are run for this; give a number"
        )
    if priced.trained is not None:
        loaded = priced.trained()
        batch, source = real_batch(model, count, tokens, loaded.tokenizer)
        params: Params = loaded.params
        how = f"measured on {count} samples of {source}, trained weights"
    else:
        batch, source = real_batch(model, count, tokens)
        # A plan that fits these activations may keep more features than `kept_features` allows.
        model = model.with_boundary(replace(model.boundary, kept_features=None))
        params = model.calibrate(model.init(jax.random.key(0)), batch)
        how = f"measured on {count} samples of {source}, random weights, calibrated boundaries"
    _, result = jax.jit(model.apply)(params, batch)
    return Rate(float(np.mean(result.stats.spike_rate)), how)
