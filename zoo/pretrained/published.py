"""Weights that others publish in the layout of Hugging Face transformers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from zoo.pretrained.hugging_face import folder as hugging_face
from zoo.pretrained.hugging_face.known import KNOWN
from zoo.pretrained.pretrained_model import Pretrained
from zoo.pretrained.source import PretrainedConfig, check_digests, digests


def load(
    folder: Path, task: str | None = None, ignore: Sequence[str] = (), source: str | None = None
) -> Pretrained:
    """A dense model.

    Args:
      folder: of `save_pretrained`, or of sentence-transformers.
      task, ignore: see `hugging_face.folder.load`.
      source: where the folder is from; None for its name.

    Raises:
      ValueError: as `hugging_face.folder.load`.
    """
    found = hugging_face.load(folder, task, ignore)
    origin = PretrainedConfig(
        source or folder.name, digests(found.files), found.licence, found.preprocessing
    )
    record = {"labels": found.labels} if found.labels else {}
    return Pretrained(found.model, found.params, None, record, found.tokenizer, origin)


def check_known(loaded: Pretrained, name: str, source: str) -> Pretrained:
    """The model with its licence, if its name stands for certain weights.

    Args:
      loaded: the model.
      name: by which it was asked for.
      source: where it was found.

    Raises:
      ValueError: they are other weights than the name stands for.
    """
    if (known := KNOWN.get(name)) is None:
        return loaded
    check_digests(loaded.source.sha256, known.sha256, source)
    return replace(loaded, source=replace(loaded.source, licence=known.licence))
