"""Which kind of saved model a path is."""

from enum import Enum
from pathlib import Path

from zoo.pretrained.hugging_face.folder import is_folder
from zoo.pretrained.hugging_face.tensors import WEIGHTS
from zoo.pretrained.locate import CONFIG


class Kind(Enum):
    """What reads it."""

    HUGGING_FACE = "a folder of transformers or sentence-transformers"
    SINGLE_FILE = "one safetensors file"
    MODEL_FOLDER = "a folder with config.json and model.safetensors"
    CHECKPOINT = "a checkpoint, or the folder of a run that has some"


def kind_of(path: Path) -> tuple[Kind, Path]:
    """The kind, and where it is: of the folder of a run the exported model, if there is one.

    Whatever is nothing else is taken for a checkpoint; that one is there is for its reader to find.

    Raises:
      ValueError: a config.json that is no JSON object.
    """
    checkpoints = path / "checkpoints"
    if (path / "model" / CONFIG).is_file():
        path = path / "model"
    if path.is_file():
        return Kind.SINGLE_FILE, path
    try:
        if is_folder(path):
            return Kind.HUGGING_FACE, path
    except ValueError as error:
        other = f", or give {checkpoints}, that it was made from" * checkpoints.is_dir()
        raise ValueError(f"{error}. The file is damaged: copy it again{other}") from error
    if (path / CONFIG).is_file() and (path / WEIGHTS).is_file():
        return Kind.MODEL_FOLDER, path
    return Kind.CHECKPOINT, path
