"""A trained model with what belongs to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from snapjax.codes.parameters import count_trainable
from zoo.config.data import DataSpec
from zoo.config.specs import RunConfig
from zoo.models.model import Model, Params
from zoo.models.registry import registered
from zoo.pretrained.source import PretrainedConfig


@dataclass(frozen=True, repr=False)
class Pretrained:
    """A trained model.

    Attributes:
      model: as it was trained, its boundaries included.
      params: canonical parameters.
      config: of the run that made it; None for weights of others.
      record: what was saved beside the weights, see `zoo.pretrained.record.RECORD`.
      tokenizer: text of a tokenizer.json, or None.
      source: where the weights come from and what they expect.
    """

    model: Model
    params: Params
    config: RunConfig | None
    record: dict[str, Any]
    tokenizer: str | None
    source: PretrainedConfig

    def __repr__(self) -> str:
        return (
            f"Pretrained({self.model}, source={self.source.source!r}, "
            f"{count_trainable(self.params):,} trainable parameters)"
        )

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes that it was trained for, in their order; None where they have
        none."""
        return self.source.preprocessing.get("class_names") or self.record.get("labels")

    def in_order(self, names: Sequence[str] | None) -> Self:
        """The same model, its outputs in the order of `names` where these are its classes in
        another order; as it is where they are others, or not known."""
        own = self.class_names
        if not own or not names or list(own) == list(names) or sorted(own) != sorted(names):
            return self
        order = np.array([own.index(name) for name in names])
        head = self.params["head"]
        last = {name: leaf[..., order] for name, leaf in head["classifier"].items()}
        params = {**self.params, "head": {**head, "classifier": last}}
        known = {**self.source.preprocessing, "class_names": list(names)}
        return replace(self, params=params, source=replace(self.source, preprocessing=known))

    def preprocessed(self, spec: DataSpec) -> DataSpec:
        """How data are read for the model: its images are scaled as it expects them.

        Raises:
          ValueError: nothing says how, and to measure it on other images would be a guess.
        """
        made = spec.like(self.source.preprocessing)
        if made.mean is None and registered(self.model).inputs == "images":
            half = ",".join(["0.5"] * self.model.config.channels)
            raise ValueError(
                f"{self.source.source}: nothing says how the model's images are scaled (a folder "
                "of transformers says it in preprocessor_config.json); set data.mean and data.std "
                f"to what it was trained with, such as data.mean={half} and data.std={half}"
            )
        return made

    def scaled_by(self, spec: DataSpec) -> "Pretrained":
        """The same, remembering how a spec scales its images where nothing said so before."""
        known = self.source.preprocessing
        if spec.mean is None or "mean" in known or registered(self.model).inputs != "images":
            return self
        said = {"mean": list(spec.mean), "std": list(spec.std), "resample": spec.resample}
        sizes = {"size": spec.image_size, "resize": spec.resize}
        said |= {name: size for name, size in sizes.items() if size is not None}
        return replace(self, source=replace(self.source, preprocessing={**said, **known}))
