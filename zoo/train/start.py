"""What a run starts from: its teacher, its data, its first weights, its boundaries."""

import contextlib
import itertools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from zoo import checkpoint
from zoo.config.specs import RunConfig
from zoo.data import Batch, Data, load, train_batches
from zoo.data.tokenizer import read_tokenizer
from zoo.models import calibration
from zoo.models.model import Model, Params
from zoo.pretrained.load import load_pretrained
from zoo.pretrained.pretrained_model import Pretrained
from zoo.pretrained.warm_start import start_from
from zoo.train.distillation import check_teacher
from zoo.train.step import State, Trainer

CALIBRATION_SAMPLES = 256
CALIBRATION_BATCHES = 4  # of so many samples, where matrices are fitted


def teacher_of(config: RunConfig) -> Pretrained | None:
    """The trained model that a run learns from, if there is one."""
    if config.distill.teacher is None:
        return None
    taught = trained("distill.teacher", config.distill.teacher)
    check_teacher(taught, config)
    return taught


def load_data(config: RunConfig, taught: Pretrained | None, folder: Path) -> Data:
    """The run's data; a teacher's, or what weights to start from expect, goes before their own.

    Args:
      config: of the run.
      taught: its teacher, if it has one.
      folder: of its checkpoints: a run that has some needs the weights that it began with no more.
    """
    if taught is not None:
        return load(config.data.like(taught.source.preprocessing), tokenizer=taught.tokenizer)
    if config.model.init_from is None or config.data.mean is not None:
        return load(config.data)
    with contextlib.suppress(checkpoint.DamagedCheckpoint):
        if checkpoint.latest(folder) is not None:
            return load(config.data.like(checkpoint.load_record(folder)["data"]))
    source = trained("model.init_from", config.model.init_from).source
    return load(config.data.like(source.preprocessing))


def trained(key: str, name: str) -> Pretrained:
    """The trained model that a key of the config names.

    Raises:
      ValueError: they are not there, or damaged.
    """
    try:
        return load_pretrained(name)
    except ValueError as error:
        raise ValueError(
            f"{key}={name!r}: {error}. Train the run that it names first, or set {key}=none"
        ) from error


def first_state(
    trainer: Trainer, config: RunConfig, data: Data, taught: Pretrained | None = None
) -> State:
    """A canonical state before the first step: boundaries fit the model's activations."""
    model, key = trainer.model, jax.random.key(config.train.seed)
    fit, loaded = True, taught
    if config.model.init_from is not None:
        loaded = trained("model.init_from", config.model.init_from)
        check_tokens(loaded.tokenizer, data.tokenizer, config.model.init_from)
    if loaded is None:
        params = model.init(key)
    else:
        params, fit = start_from(loaded, model, key)
    if fit and model.config.stages > 1:
        params = calibrated(model, params, data, config)
    return trainer.first(params)


def calibrated(model: Model, params: Params, data: Data, config: RunConfig) -> Params:
    """`params` with every boundary fitted as model.calibration says, to samples of the training
    split."""
    method, key = config.model.calibration, jax.random.key(config.train.seed)
    batches = calibration_batches(data, config)
    if method == calibration.PLAIN:
        return model.calibrate(params, *batches)
    return calibration.calibrate(model, params, batches, method, key=key)[1]


def calibration_batches(data: Data, config: RunConfig) -> list[Batch]:
    """What boundaries are fitted to."""
    size = min(CALIBRATION_SAMPLES, data.train.samples)
    count = 1 if config.model.calibration == calibration.PLAIN else CALIBRATION_BATCHES
    some = train_batches(data.train, size, seed=config.train.seed, epoch=0)
    return list(itertools.islice(some, count))


def data_sizes(data: Data) -> dict[str, Any]:
    """The model's config fields that a data set decides."""
    if data.vocabulary is None:
        return {"classes": data.classes}
    if data.task == "mlm":
        return {"task": "mlm", "vocabulary": data.vocabulary}
    return {"task": "classify", "vocabulary": data.vocabulary, "classes": data.classes}


def check_data(model: Model, data: Data) -> None:
    """Raises ValueError when the model cannot read the data's batches, or has too few outputs."""
    for split in (data.train, data.validation):
        model.check(split.take(np.arange(1)))
    for name in ("classes", "vocabulary"):
        has, needs = getattr(model.config, name, None), getattr(data, name)
        if has is not None and needs is not None and needs > has:
            raise ValueError(
                f"{model.config.name}: the model has {name}={has}, the data {needs}; give the data "
                "that it was trained for"
            )


def check_tokens(trained: str | None, given: str | None, name: str) -> None:
    """Raises ValueError when the data's token ids are not those that weights were trained on.

    Args:
      trained: text of the tokenizer.json of the weights; None where they have none.
      given: of the data's.
      name: of the weights, for the error.
    """
    if trained is None or given is None or trained == given:
        return
    first, second = (read_tokenizer(text, name).tokenizer.get_vocab() for text in (trained, given))
    if first != second:
        raise ValueError(
            f"model.init_from={name!r} has another tokenizer than the data, so that the same ids "
            "are other words to it; set data.tokenizer to the tokenizer.json beside its weights"
        )
