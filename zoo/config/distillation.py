"""The run that cuts a trained model with spikes and trains it against the dense one."""

from collections.abc import Sequence
from dataclasses import replace

from snapjax.codes.code import SPIKE_CODES
from zoo.config.data import DataSpec, source_and_column
from zoo.config.specs import DistillSpec, ModelSpec, RunConfig, TrainSpec
from zoo.config.values import override


def distillation(
    teacher: str,
    source: str,
    preset: str,
    *,
    stages: int = 3,
    code: str = "phase",
    bits_per_feature: float = 1.0,
    steps: int = 8,
    calibration: str | None = None,
    trainable: str = "all",
    epochs: int = 2,
    batch_size: int = 64,
    learning_rate: float = 1e-4,
    seed: int = 0,
    assignments: Sequence[str] = (),
) -> RunConfig:
    """The config of a distillation, on unlabelled samples.

    Args:
      teacher: a trained model, as `zoo.load_pretrained` takes it.
      source: of the data. "FILE:COLUMN" names the column of its texts too.
      preset: the student's model, see `zoo.train.distillation.student_preset`.
      stages, code, bits_per_feature, steps: of `ModelSpec`; a dense code makes it an "ann".
      calibration: of `ModelSpec`; None for the best of a spike code, or the only one of a dense.
      trainable, epochs, batch_size, learning_rate, seed: of `TrainSpec`.
      assignments: any other value, such as ["data.sequence=64"].

    Raises:
      ValueError: an unknown name, or values that do not go together.
    """
    spikes = code in SPIKE_CODES
    source, column = source_and_column(source)
    data = DataSpec(task="unlabelled", source=source, sequence=32, held_out=0.05)
    if column is not None:
        data = replace(data, text_column=column)
    config = RunConfig(
        "distill",
        ModelSpec(
            name=preset,
            variant="hnn" if spikes else "ann",
            stages=stages,
            code=code,
            steps=steps,
            bits_per_feature=bits_per_feature,
            calibration=calibration or ("sensitivity_pca_refit" if spikes else "variance"),
        ),
        data=data,
        train=TrainSpec(
            epochs=epochs,
            batch_size=batch_size,
            microbatches=1,
            learning_rate=learning_rate,
            weight_decay=0.0,
            trainable=trainable,
            seed=seed,
        ),
        distill=DistillSpec(teacher=teacher),
    )
    return override(config, list(assignments))
