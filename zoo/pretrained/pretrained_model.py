"""A trained model with what belongs to it."""

from dataclasses import dataclass
from typing import Any

from zoo.config.specs import RunConfig
from zoo.models.model import Model, Params
from zoo.pretrained.source import PretrainedConfig


@dataclass(frozen=True)
class Pretrained:
    """A trained model.

    Attributes:
      model: as it was trained, its boundaries included.
      params: canonical parameters.
      config: of the run that made it; None for weights of others.
      record: what was saved beside the weights, see `zoo.pretrained.record.KEYS`.
      tokenizer: text of a tokenizer.json, or None.
      source: where the weights come from and what they expect.
    """

    model: Model
    params: Params
    config: RunConfig | None
    record: dict[str, Any]
    tokenizer: str | None
    source: PretrainedConfig

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes that it was trained for, in their order; None where they have
        none."""
        return self.source.preprocessing.get("class_names") or self.record.get("labels")
