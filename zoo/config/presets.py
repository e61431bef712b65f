"""Runs by name. Each opens with its command, what it took, and what it reached.

The figures are of `results/`; docs/results has the tables.
"""

import shlex
from dataclasses import replace

from snapjax.errors import unknown_name
from zoo.config.data import DataSpec, is_path
from zoo.config.specs import DistillSpec, LogSpec, ModelSpec, RunConfig, TrainSpec
from zoo.config.values import pairs
from zoo.utils.paths import expanded


def digits_ann() -> RunConfig:
    """vit_nano_patch2_8 on scikit-learn's digits, dense boundaries.

    snapjax train digits_ann

    0.992 of the 360 held-out images, in a minute on 2 CPU cores.
    """
    return RunConfig(
        name="digits_ann",
        model=ModelSpec("vit_nano_patch2_8", "ann"),
        data=DataSpec(task="classify", source="digits", noise=0.2),
        train=TrainSpec(epochs=40, batch_size=32),
    )


def digits_hnn() -> RunConfig:
    """vit_nano_patch2_8 on scikit-learn's digits, spikes at 1 bit a feature, from scratch.

    snapjax train digits_hnn

    0.978 of the 360 held-out images, in 2 minutes on 2 CPU cores. `make demo` cuts a trained dense
    model instead, which is quicker and loses less.
    """
    return _spiking(digits_ann(), "digits_hnn")


def fashion_ann() -> RunConfig:
    """vit_tiny_patch4_28 on Fashion-MNIST (idx files), dense boundaries.

    snapjax train fashion_ann --set data.source=FOLDER

    0.920 of the test images with mesh.stage=1, in 70 minutes on 2 CPU cores busy with other work.
    """
    return RunConfig(
        name="fashion_ann",
        model=ModelSpec("vit_tiny_patch4_28", "ann"),
        data=DataSpec(task="classify", source="fashion_mnist", shift=1, flip=True),
        train=TrainSpec(
            epochs=20,
            batch_size=64,
            microbatches=1,
            learning_rate=1e-3,
            warmup=0.05,
            weight_decay=0.1,
        ),
        log=LogSpec(every=50),
    )


def fashion_hnn() -> RunConfig:
    """vit_tiny_patch4_28 on Fashion-MNIST (idx files), spikes at 1 bit a feature.

    snapjax train fashion_hnn --set data.source=FOLDER

    0.917 of the test images with mesh.stage=1, in 17 minutes on 2 CPU cores busy with other work.
    """
    return _cut(fashion_ann(), "fashion_hnn", epochs=3)


def topics_ann() -> RunConfig:
    """bert_nano, masked language model of the English in CPython's pydoc_data.topics, dense.

    snapjax train topics_ann

    Cross-entropy 4.845 with mesh.stage=1, in 4 minutes on 2 CPU cores busy with other work.
    """
    return RunConfig(
        name="topics_ann",
        model=ModelSpec("bert_nano", "ann"),
        data=DataSpec(task="mlm", source="topics", vocabulary=2048, sequence=64),
        train=TrainSpec(
            epochs=60, batch_size=32, microbatches=4, learning_rate=2e-3, weight_decay=0.1
        ),
    )


def topics_hnn() -> RunConfig:
    """bert_nano, masked language model of pydoc_data.topics, spikes at 1 bit a feature.

    snapjax train topics_hnn

    Cross-entropy 4.963 with mesh.stage=1, in 2 minutes on 2 CPU cores busy with other work.
    """
    return _cut(topics_ann(), "topics_hnn", epochs=20, learning_rate=3e-4)


def gutenberg_ann() -> RunConfig:
    """bert_micro, masked language model of a folder of English books, dense boundaries.

    snapjax train gutenberg_ann --set data.source=FOLDER

    Cross-entropy 5.768 with mesh.stage=1, in 46 minutes on 2 CPU cores busy with other work.
    """
    return RunConfig(
        name="gutenberg_ann",
        model=ModelSpec("bert_micro", "ann"),
        data=DataSpec(task="mlm", source="gutenberg", vocabulary=4096, sequence=128),
        train=TrainSpec(
            epochs=10, batch_size=32, microbatches=1, learning_rate=1e-3, weight_decay=0.1
        ),
    )


def gutenberg_hnn() -> RunConfig:
    """bert_micro, masked language model of a folder of English books, spikes at 1 bit a feature.

    snapjax train gutenberg_hnn --set data.source=FOLDER

    Cross-entropy 5.837 with mesh.stage=1, in 7 minutes on 2 CPU cores busy with other work.
    """
    return _cut(gutenberg_ann(), "gutenberg_hnn", epochs=1)


def _spiking(config: RunConfig, name: str) -> RunConfig:
    """The same run with spikes on the boundaries and nothing else changed."""
    model = replace(config.model, variant="hnn", gradient_wire="bfloat16")
    return replace(config, name=name, model=model)


def _cut(dense: RunConfig, name: str, epochs: int, learning_rate: float = 1e-4) -> RunConfig:
    """A dense run's model, from the folder where it lies by default, cut with spikes and trained
    on with the dense model as teacher.

    The cut alone loses little, and higher learning rates lose it again. On Fashion-MNIST (dense
    0.920) it scores 0.913 to 0.915 by the samples it is fitted to, and 0.912 where a feature may
    have no more than 4 bits (model.steps=4). Three epochs with the teacher then reach 0.917; with
    4 bits they reached 0.915, two on the labels at 1e-4 0.9145, and four at 5e-4 of boundaries
    without matrices (model.calibration=variance) 0.908.
    """
    config = _spiking(dense, name)
    model = replace(config.model, steps=8, calibration="sensitivity_pca_refit")
    train = replace(config.train, epochs=epochs, learning_rate=learning_rate)
    teacher = DistillSpec(teacher=f"runs/{dense.name}")
    return replace(config, model=model, train=train, distill=teacher)


PRESETS = {
    preset.__name__: preset
    for preset in (
        digits_ann,
        digits_hnn,
        fashion_ann,
        fashion_hnn,
        topics_ann,
        topics_hnn,
        gutenberg_ann,
        gutenberg_hnn,
    )
}
"""Every preset by name: a function that makes its `RunConfig`."""


def get_preset(name: str) -> RunConfig:
    """The config of a preset.

    Raises:
      ValueError: an unknown name, with the nearest one.

    Example:
      >>> get_preset("digits_hnn").model.variant
      'hnn'
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]()


def command(config: RunConfig) -> str:
    """The command that makes a run of a preset, its other values by --set.

    Local data and what has an absolute path are called FOLDER, because where they are
    differs between machines.

    Example:
      >>> from zoo.config.values import override
      >>> command(override(digits_ann(), ["train.epochs=4"]))
      'snapjax train digits_ann --set train.epochs=4'
    """
    usual, given = pairs(get_preset(config.name)), pairs(config)
    changed = {key: value for key, value in given.items() if value != usual[key]}
    for key, value in changed.items():
        path = isinstance(value, str) and expanded(value).is_absolute()
        if path or (key == "data.source" and is_path(str(value))):
            changed[key] = "FOLDER"
    words = [f"--set {key}={_text(value)}" for key, value in changed.items()]
    return " ".join(["snapjax train", config.name, *words])


def _text(value: object) -> str:
    """A value as `--set` reads it back."""
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return shlex.quote(text)
