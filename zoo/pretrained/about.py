"""What a saved model is, by its record alone: no weights are read, so errors come at once."""

from pathlib import Path
from typing import NamedTuple

from zoo import checkpoint
from zoo.config.specs import RunConfig
from zoo.models.model import Model
from zoo.pretrained import single_file
from zoo.pretrained.dispatch import Kind, kind_of
from zoo.pretrained.hugging_face import sentence
from zoo.pretrained.locate import CONFIG, find
from zoo.pretrained.record import rebuild
from zoo.pretrained.run_checkpoint import checkpoints_in
from zoo.utils.files import read_json


class About(NamedTuple):
    """What a record says.

    Attributes:
      model: None for weights of others, whose config is read with them.
      config: of the run that made it; None for weights of others.
      encodes: whether it makes embeddings of texts.
    """

    model: Model | None
    config: RunConfig | None
    encodes: bool


def about(name: str | Path) -> About:
    """What a model is, by what `load_pretrained` takes.

    Raises:
      ValueError: nothing there, or its record is damaged.
    """
    kind, path = kind_of(find(name)[0])
    if kind is Kind.HUGGING_FACE:
        return About(None, None, (path / sentence.MODULES).is_file())
    if kind is Kind.SINGLE_FILE:
        model, config = single_file.described(path)
    else:
        if kind is Kind.MODEL_FOLDER:
            record = read_json(path / CONFIG)
        else:
            record = checkpoint.load_record(checkpoints_in(path))
        try:
            model, config = rebuild(record)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return About(model, config, model.config.task == "encode")
