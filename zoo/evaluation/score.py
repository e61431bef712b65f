"""Scores of a trained model on a data set: what `snapjax evaluate` prints."""

from typing import Any

import jax

from snapjax.errors import check_types
from snapjax.parallel.sharding import make_mesh
from zoo.config.specs import TrainSpec
from zoo.data import Data, DataSpec
from zoo.embedding import similarity
from zoo.embedding.encoder import Encoder
from zoo.evaluation import agreement
from zoo.evaluation.inputs import data_for
from zoo.pretrained.pretrained_model import Pretrained
from zoo.train.start import check_data
from zoo.train.step import Trainer, evaluate
from zoo.utils.progress import Begin, silent


def score_any(
    loaded: Pretrained,
    spec: DataSpec,
    task: str | None = None,
    *,
    batch_size: int = 100,
    ranks: int | None = None,
    train_split: bool = False,
    dense: Pretrained | None = None,
    progress: Begin = silent,
) -> dict[str, Any]:
    """One JSON-able object: of task "agreement" `agreement.score`, of an encoder, as of task
    "stsb", `similarity.score`, else `score`.

    Args:
      loaded: the model.
      spec: from `spec_for`.
      task: what the user expects, None for the model's own.
      dense: to agree with, of task "agreement".
      batch_size: samples a batch.
      ranks, train_split: see `score`; an encoder has no use for them.
      progress: told how much is scored.

    Raises:
      ValueError: the model is not for the task, or the data do not fit; see `data_for`.
    """
    if task == "agreement":
        return agreement.score(loaded, spec, dense=dense, batch_size=batch_size)
    if dense is not None:
        raise ValueError(f"task={task!r} compares with no other model; only 'agreement' does")
    check_types("evaluate", {"loaded": (loaded, Pretrained)})
    encodes = loaded.model.config.task == "encode"
    if encodes and task not in (None, "stsb"):
        raise ValueError(
            f"task={task!r}: this model makes embeddings; task='stsb' or 'agreement' scores those"
        )
    if task == "stsb" or encodes:
        split = spec.split_special_tokens
        encoder = Encoder.of(loaded, batch_size, split_special_tokens=split)
        return similarity.score(encoder, spec, progress)
    data = data_for(loaded, spec, task)
    return score(
        loaded, data, batch_size=batch_size, ranks=ranks, train_split=train_split,
        progress=progress,
    )  # fmt: skip


def score(
    loaded: Pretrained,
    data: Data,
    *,
    batch_size: int = 100,
    ranks: int | None = None,
    train_split: bool = False,
    progress: Begin = silent,
) -> dict[str, Any]:
    """One JSON-able object with "accuracy", "loss", "samples" and "bits_per_token".

    Args:
      loaded: the model.
      data: from `data_for`.
      batch_size: samples a batch.
      ranks: devices in a row that the model's stages are spread over; None for as many as divide
        the stages.
      train_split: score the training split instead of the validation split.
      progress: told how many samples are scored.
    """
    model, stages = loaded.model, loaded.model.config.stages
    check_data(model, data)
    if ranks is None:
        fits = len(jax.devices())
        ranks = max(n for n in range(1, fits + 1) if stages % n == 0)
    spec = TrainSpec(epochs=1, batch_size=batch_size, microbatches=1)
    trainer = Trainer(model, spec, 1, make_mesh(stage=ranks))
    split = data.train if train_split else data.validation
    scores = evaluate(trainer, trainer.init_state(loaded.params), split, progress=progress)
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
        "spike_rate": None if scores.spike_rate is None else scores.spike_rate.tolist(),
        "stages": stages,
        "ranks": ranks,
        "device": jax.devices()[0].device_kind,
    }
