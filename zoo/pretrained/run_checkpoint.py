"""A model out of a run's checkpoints, while there is no exported one."""

from pathlib import Path

from zoo import checkpoint
from zoo.pretrained.pretrained_model import Pretrained
from zoo.pretrained.record import rebuild, source_of


def checkpoints_in(folder: Path) -> Path:
    """The folder of the checkpoints: that of a run, or it is one itself."""
    inner = folder / "checkpoints"
    return inner if inner.is_dir() else folder


def load(folder: Path, averaged: bool = True) -> Pretrained:
    """The model of the newest checkpoint.

    Args:
      folder: of a run, of its checkpoints, or of one.
      averaged: take the moving average of the weights where there is one.

    Raises:
      ValueError: no checkpoint, or a damaged one.
    """
    path = checkpoints_in(folder)
    record = checkpoint.load_record(path)
    try:
        model, config = rebuild(record)
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: {error}") from error
    part = "ema" if averaged and config.train.ema else "params"
    tree, record = checkpoint.load(path, {part: model.param_shape}, model=model.config.name)
    source = source_of(record, folder.name, {})
    return Pretrained(model, tree[part], config, record, record.get("tokenizer"), source)
