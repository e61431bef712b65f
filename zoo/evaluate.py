"""Scores of a trained model on a data set: what `scripts/evaluate.py` prints."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from snapjax.sharding import make_mesh
from zoo import similarity
from zoo.data import Data, DataSpec, load
from zoo.pretrained import Pretrained, check_classes
from zoo.sentences import Encoder
from zoo.train.config import RunConfig, TrainSpec
from zoo.train.config_values import override
from zoo.train.start import check_data
from zoo.train.step import Trainer, evaluate


def data_for(loaded: Pretrained, spec: DataSpec, task: str | None = None) -> Data:
    """A data set, prepared as the model's training data was.

    Of new data without a validation split, all is scored; of the run's own, what was held out.

    Args:
      loaded: its record gives the images' mean and deviation, and the tokenizer.
      spec: the run's, with another source, columns or split.
      task: refused where it is not what the model was trained for.

    Raises:
      ValueError: another task, data that do not fit, or classes of other names or in another order.
    """
    if task is not None and task != spec.task:
        raise ValueError(f"task={task!r}: this model was trained for {spec.task!r}")
    spec = spec.like(loaded.source.preprocessing)
    # A file of new data is for scoring alone. That of the run is known by its name: cards leave out
    # the folders.
    own = loaded.config is not None and Path(loaded.config.data.source).name
    data = load(spec, tokenizer=loaded.tokenizer, whole=Path(spec.source).name != own)
    check_classes(loaded, data.record, spec.source)
    return data


def spec_for(loaded: Pretrained, source: str | None, assignments: Sequence[str]) -> DataSpec:
    """How data for a model are read: as in the run that made it, or for weights of others as its
    task and inputs suggest, unless the user says otherwise.

    Args:
      loaded: the model.
      source: of the data; None for the run's.
      assignments: what the user says, such as ["data.text_column=sentence"].

    Raises:
      ValueError: no source, or an assignment that does not fit.
    """
    config, model = loaded.config, loaded.model.config
    if config is not None and config.data.task == "unlabelled":
        config = None  # what it was distilled on has no labels to be scored by
    if config is None:
        if source is None:
            raise ValueError(f"{model.name}: the weights do not say of which data; give --data")
        if model.task == "encode":
            spec = DataSpec(**similarity.COLUMNS)
        elif hasattr(model, "vocabulary"):
            spec = DataSpec(task=model.task, sequence=model.positions, truncate=True)
        else:
            spec = DataSpec(task=model.task)
        config = RunConfig(model.name, data=spec)
    spec = override(config, list(assignments)).data
    return spec if source is None else replace(spec, source=source)


def score_any(
    loaded: Pretrained,
    spec: DataSpec,
    task: str | None = None,
    *,
    batch_size: int = 100,
    places: int | None = None,
    train_split: bool = False,
) -> dict[str, Any]:
    """One JSON-able object: of an encoder, as of task "stsb", `similarity.score`, else `score`.

    Args:
      loaded: the model.
      spec: from `spec_for`.
      task: what the user expects, None for the model's own.
      batch_size: samples a batch.
      places, train_split: see `score`; an encoder has no use for them.

    Raises:
      ValueError: the model is not for the task, or the data do not fit; see `data_for`.
    """
    encodes = loaded.model.config.task == "encode"
    if encodes and task not in (None, "stsb"):
        raise ValueError(f"task={task!r}: this model makes embeddings; task='stsb' scores those")
    if task == "stsb" or encodes:
        return similarity.score(Encoder.of(loaded, batch_size), spec)
    data = data_for(loaded, spec, task)
    return score(loaded, data, batch_size=batch_size, places=places, train_split=train_split)


def score(
    loaded: Pretrained,
    data: Data,
    *,
    batch_size: int = 100,
    places: int | None = None,
    train_split: bool = False,
) -> dict[str, Any]:
    """One JSON-able object with "accuracy", "loss", "samples" and "bits_per_token".

    Args:
      loaded: the model.
      data: from `data_for`.
      batch_size: samples a batch.
      places: devices in a row that the model's stages are spread over; None for as many as divide
        the stages.
      train_split: score the training split instead of the validation split.
    """
    model, stages = loaded.model, loaded.model.config.stages
    check_data(model, data)
    if places is None:
        fits = len(jax.devices())
        places = max(n for n in range(1, fits + 1) if stages % n == 0)
    spec = TrainSpec(epochs=1, batch_size=batch_size, microbatches=1)
    trainer = Trainer(model, spec, 1, make_mesh(stage=places))
    split = data.train if train_split else data.validation
    scores = evaluate(trainer, trainer.start(loaded.params), split)
    boundary = model.boundary
    return {
        "model": model.config.name,
        "variant": "hnn" if boundary.spiking and stages > 1 else "ann",
        "task": data.task,
        "accuracy": scores.accuracy,
        "loss": scores.loss,
        "samples": scores.samples,
        "code": boundary.code,
        "bits_per_token": 8 * boundary.bytes_per_token,
        "bits_per_feature": 8 * boundary.bytes_per_token / boundary.features,
        "spike_rate": scores.spike_rate.tolist() if boundary.spiking else None,
        "stages": stages,
        "places": places,
        "device": jax.devices()[0].device_kind,
    }
