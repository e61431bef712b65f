"""Models by name, as in timm: `create_model`, `list_models`; and the families that they are of."""

import fnmatch
import math
from dataclasses import fields, replace
from types import ModuleType
from typing import Any, NamedTuple

from snapjax.boundary import Boundary
from snapjax.errors import check_types, unknown_name
from snapjax.neurons.surrogate import Surrogate
from zoo.config.fields import coerce
from zoo.models.bert import modeling as bert
from zoo.models.bert import weights as bert_weights
from zoo.models.model import Model
from zoo.models.vit import modeling as vit
from zoo.models.vit import weights as vit_weights

VARIANTS = ("ann", "hnn")


class Registered(NamedTuple):
    """A family of models, and what belongs to it.

    Attributes:
      name: in files of ours; transformers calls its "model_type" the same.
      functions: module with those of `zoo.models.model.Family`, and the PRESETS by name.
      config: class of its configs.
      weights: module that says which field and tensor of transformers is which of ours.
      inputs: "text" or "images".
    """

    name: str
    functions: Any
    config: type
    weights: ModuleType
    inputs: str


FAMILIES = {
    family.name: family
    for family in (
        Registered("bert", bert, bert.BertConfig, bert_weights, "text"),
        Registered("vit", vit, vit.ViTConfig, vit_weights, "images"),
    )
}
"""All families, by name; a new one needs no more than an entry here."""


def registered(model: Model) -> Registered:
    """What belongs to the family of a model."""
    return next(family for family in FAMILIES.values() if family.functions is model.family)


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that match a shell-style pattern, sorted.

    Example:
      >>> list_models("vit_nano*")
      ['vit_nano_patch2_8']
    """
    check_types("list_models", {"pattern": (pattern, str)})
    return sorted(
        name
        for family in FAMILIES.values()
        for name in family.functions.PRESETS
        if fnmatch.fnmatch(name, pattern)
    )


def family_of(name: str) -> Any:
    """The functions of the family that a model of this name belongs to.

    Raises:
      ValueError: an unknown name, with the nearest one.
    """
    for family in FAMILIES.values():
        if name in family.functions.PRESETS:
            return family.functions
    raise unknown_name("model", name, list_models())


def preset(name: str) -> Any:
    """The config of a model of this name, dense and in one stage; raises as `family_of`."""
    return family_of(name).PRESETS[name]()


def inputs_of(name: str) -> str:
    """What a model of this name reads, "text" or "images"; raises as `family_of`."""
    functions = family_of(name)
    return next(family.inputs for family in FAMILIES.values() if family.functions is functions)


def default_boundary(features: int, variant: str) -> Boundary:
    """Float32 for an "ann"; for an "hnn" phase-coded spikes at 1 bit a feature.

    The wide sigmoid surrogate trained best of those tried on digits: held-out accuracy of two seeds
    0.992 and 0.981, against 0.983 and 0.967 for atan and 0.972 and 0.978 straight-through.
    """
    if variant not in VARIANTS:
        raise unknown_name("variant", variant, VARIANTS)
    return spike_boundary(features) if variant == "hnn" else Boundary(features, code="float32")


def spike_boundary(
    features: int, code: str = "phase", steps: int = 4, bits_per_feature: float = 1.0
) -> Boundary:
    """A boundary with the surrogate that trained best.

    Args:
      features: width of the activation.
      code: one of `snapjax.codes.code.CODES`.
      steps: spikes that a feature may send, at most.
      bits_per_feature: of the budget, on average over the features.

    Raises:
      ValueError: an unknown code, or a value out of range.
    """
    budget = budget_of(features, bits_per_feature)
    surrogate = Surrogate("sigmoid", 2.0)
    return Boundary(features, code=code, steps=steps, budget=budget, surrogate=surrogate)


def budget_of(features: int, bits_per_feature: float) -> int:
    """The budget of a boundary in bits a token, at least 1, from its bits a feature.

    Args:
      features: width of the activation.
      bits_per_feature: on average over the features.

    Raises:
      ValueError: not a positive and finite number of bits.

    Example:
      >>> budget_of(features=64, bits_per_feature=1.5)
      96
    """
    if not 0 < bits_per_feature < math.inf:
        raise ValueError(f"bits={bits_per_feature} a feature must be a positive number")
    return max(1, round(bits_per_feature * features))


def create_model(
    name: str,
    variant: str = "ann",
    stages: int = 4,
    boundary: Boundary | str | None = None,
    **overrides: Any,
) -> Model:
    """The model called `name`, cut into `stages` stages.

    Args:
      name: one of `list_models()`.
      variant: "ann" (dense boundaries) or "hnn" (spiking boundaries, dense inside the stages).
      stages: how many devices it is cut over; must divide its layers.
      boundary: what lies between the stages, instead of the variant's default: a `Boundary`, or
        the name of a code with default settings.
      **overrides: other values for fields of the family's config, such as layers, width, classes,
        vocabulary, task, dropout or precision. A default boundary follows the width.

    Raises:
      ValueError: for an unknown name, variant, code or field, a value out of range, or stages that
        do not divide the layers.

    Example:
      >>> model = create_model("vit_nano_patch2_8", variant="hnn", stages=4)
      >>> model.boundary.bytes_per_token
      8
      >>> create_model("bert_nano", task="classify", classes=3, layers=8).config.layers
      8
    """
    check_types(
        "create_model",
        {"name": (name, str), "variant": (variant, str), "stages": (stages, int),
         "boundary": (boundary, Boundary | str | None)},
    )  # fmt: skip
    family, config = family_of(name), preset(name)
    known = [
        field.name for field in fields(config) if field.name not in ("name", "stages", "boundary")
    ]
    for field in overrides:
        if field not in known:
            raise unknown_name(f"field of {name}'s config", field, known)
    changed = {
        field: coerce(type(config), field, value, name) for field, value in overrides.items()
    }
    for field, value in changed.items():
        if isinstance(overrides[field], str) and not isinstance(value, str):  # "3" is not 3
            kind = {bool: "true or false", int: "an integer"}.get(type(value), "a number")
            raise ValueError(f"{name}: {field}={overrides[field]!r} must be {kind}, not a text")
    config = replace(config, **changed, stages=stages)
    default = default_boundary(config.width, variant)
    if isinstance(boundary, str):
        boundary = Boundary(config.width, code=boundary)
    return Model(family, replace(config, boundary=boundary or default))
