"""What a run starts from: its teacher, its data, its model, its first weights and boundaries."""

import contextlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from snapjax.codes.parameters import count_trainable
from zoo import checkpoint
from zoo.config.presets import PRESETS
from zoo.config.specs import RunConfig
from zoo.data import Batch, Data, load, train_batches
from zoo.data.tokenizer import read_tokenizer
from zoo.models import build, calibration
from zoo.models.model import Model, Params
from zoo.models.registry import inputs_of, preset
from zoo.pretrained.load import load_pretrained
from zoo.pretrained.pretrained_model import Pretrained
from zoo.pretrained.warm_start import start_from
from zoo.train import placement, processes
from zoo.train.distillation import check_teacher, student_fields, teacher_record
from zoo.train.optimiser import make_optimiser
from zoo.train.state import state_shape, to_ranks

CALIBRATION_SAMPLES = 256
CALIBRATION_BATCHES = 4  # of so many samples, where matrices are fitted


@dataclass(frozen=True)
class Inputs:
    """What a run reads before it makes anything.

    Attributes:
      data: its two splits.
      teacher: the trained model that it learns from, or None.
      teacher_record: {"teacher": see `zoo.train.distillation.teacher_record`}, or empty.
    """

    data: Data
    teacher: Pretrained | None
    teacher_record: dict[str, Any]

    @property
    def model_fields(self) -> dict[str, Any]:
        """The fields of the model's config that the teacher, or else the data decide."""
        return (
            data_fields(self.data) if self.teacher is None else student_fields(self.teacher.model)
        )


def load_inputs(config: RunConfig, folder: Path) -> Inputs:
    """Loads the teacher and the data of a run; of several processes all must find the same.

    Args:
      config: of the run.
      folder: of its checkpoints.

    Raises:
      ValueError: one of them is not there, or they do not fit each other or the config.
    """
    teacher = load_teacher(config)
    record = {} if teacher is None else {"teacher": teacher_record(teacher)}
    data = load_data(config, teacher, folder)
    processes.check_same_data(config.data.source, data.record["sha256"])
    processes.check_same_teacher(config.distill.teacher, record)
    return Inputs(data, teacher, record)


def load_teacher(config: RunConfig) -> Pretrained | None:
    """The trained model that a run learns from, if there is one."""
    if config.distill.teacher is None:
        return None
    teacher = load_named("distill.teacher", config.distill.teacher)
    check_teacher(teacher, config)
    return teacher


def load_data(config: RunConfig, teacher: Pretrained | None, folder: Path) -> Data:
    """The run's data; a teacher's, or what weights to start from expect, goes before their own.

    Args:
      config: of the run.
      teacher: that it learns from, if it has one.
      folder: of its checkpoints: a run that has some needs the weights that it began with no more.
    """
    inputs = inputs_of(config.model.name)
    if teacher is not None:
        spec = teacher.preprocessed(config.data)
        return load(
            spec, teacher.tokenizer, class_names=teacher.class_names, inputs=inputs,
            channels=getattr(teacher.model.config, "channels", None),
        )  # fmt: skip
    channels = getattr(preset(config.model.name), "channels", None)
    if config.model.init_from is None or config.data.mean is not None:
        return load(config.data, inputs=inputs, channels=channels)
    with contextlib.suppress(checkpoint.DamagedCheckpoint):
        if checkpoint.latest(folder) is not None:
            record = checkpoint.load_record(folder)["data"]
            return load(config.data.like(record), inputs=inputs, channels=channels)
    begins = load_named("model.init_from", config.model.init_from)
    return load(begins.preprocessed(config.data), inputs=inputs, channels=channels)


def load_named(key: str, name: str) -> Pretrained:
    """The trained model that a key of the config names.

    Raises:
      ValueError: it is not there, or damaged.
    """
    preset = name.removeprefix("runs/")
    if preset != name and preset in PRESETS and not Path(name).exists():
        raise ValueError(
            f"{key}={name!r}: the run of the preset {preset} is not here. Train it first, on the "
            f"same data (snapjax train {preset} --set data.source=...), name another run, or set "
            f"{key}=none"
        )
    try:
        return load_pretrained(name)
    except ValueError as error:
        raise ValueError(
            f"{key}={name!r}: {error}. Train the run that it names first, or set {key}=none"
        ) from error


def build_model(config: RunConfig, inputs: Inputs) -> Model:
    """The model of a run, with boundaries that carry all that their budget allows.

    Raises:
      ValueError: it does not fit the data.
    """
    model = build.build_model(config.model, **inputs.model_fields)
    check_data(model, inputs.data)
    return model


def check_training(
    config: RunConfig, model: Model, mesh: Mesh, total_steps: int, folder: Path
) -> None:
    """Whether the run of a model can begin, as far as the shapes of its state tell.

    Args:
      config, model: of the run.
      mesh: that it runs on.
      total_steps: of the run.
      folder: of its checkpoints.

    Raises:
      ValueError: nothing to train, or parameters that do not split over the mesh.
      OSError: no checkpoint could be written there.
    """
    shape = state_shape(model, make_optimiser(config.train, total_steps), bool(config.train.ema))
    if config.train.trainable == "boundaries" and not count_trainable(
        shape.trainable.get("boundaries", {})
    ):
        raise ValueError(
            f"train.trainable='boundaries': model.code={model.boundary.code!r} in "
            f"model.stages={config.model.stages} has nothing to train on a boundary; choose a "
            "spike code and 2 stages or more, or train.trainable=all"
        )
    ranks, stages = mesh.shape["stage"], model.config.stages
    sharded = jax.eval_shape(lambda state: to_ranks(state, ranks, stages), shape)
    placement.state_shardings(mesh, sharded, config.mesh.fsdp)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shape))
    checkpoint.check_writable(folder, size, keep=config.log.keep)


def init_params(model: Model, config: RunConfig, inputs: Inputs) -> Params:
    """Canonical parameters before the first step: new ones, or those of a teacher or of weights to
    start from; new boundaries are fitted to the model's activations.

    Raises:
      ValueError: weights to start from that do not fit.
    """
    key, loaded, fit = jax.random.key(config.train.seed), inputs.teacher, True
    if config.model.init_from is not None:
        loaded = load_named("model.init_from", config.model.init_from)
        check_tokens(loaded.tokenizer, inputs.data.tokenizer, config.model.init_from)
        loaded = loaded.in_order(inputs.data.record.get("class_names"))
    if loaded is None:
        params = model.init(key)
    else:
        params, fit = start_from(loaded, model, key)
    if fit and model.config.stages > 1:
        params = calibrated(model, params, inputs.data, config)
    return params


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


def data_fields(data: Data) -> dict[str, Any]:
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
    pair = [read_tokenizer(text, name).tokenizer for text in (trained, given)]
    if pair[0].get_vocab() != pair[1].get_vocab():
        raise ValueError(
            f"model.init_from={name!r} has another tokenizer than the data, so that the same ids "
            "are other words to it; set data.tokenizer to the tokenizer.json beside its weights"
        )
    first, second = (json.loads(tokenizer.to_str()) for tokenizer in pair)
    differ = [
        part for part in ("normalizer", "pre_tokenizer", "model") if first[part] != second[part]
    ]
    if differ:
        raise ValueError(
            f"model.init_from={name!r} has the tokens of the data, but makes them of a text by "
            f"other rules ({', '.join(differ)}), perhaps those of a tokenizer_config.json beside "
            "its weights; set data.tokenizer to the tokenizer.json that `snapjax convert` writes"
        )
