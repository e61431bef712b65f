"""The main job: a ViT over four devices learns real images, is cut with spikes and distilled."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import jax
from rich.console import Console

from snapjax.codes.code import SPIKE_CODES
from snapjax.errors import unknown_name
from zoo.config import values as config_values
from zoo.config.presets import get_preset
from zoo.config.specs import RunConfig
from zoo.data import load
from zoo.evaluation import baselines, compare, plots
from zoo.models.build import build_model
from zoo.pretrained import single_file
from zoo.pretrained.load import load_pretrained
from zoo.train.placement import choose_mesh
from zoo.train.run import train
from zoo.train.stop import StopRequest
from zoo.utils.files import write_atomic, write_json
from zoo.utils.lock import locked
from zoo.utils.progress import Progress, plain_console

DENSE = "ann"
CUTS = ("hnn", "hnn_half", "int2", "topk")
"""Runs that start from the dense one: spikes at 1 and at 1/2 bit a feature, and the two wires that
lose accuracy where nothing is trained for them."""
VARIANTS = (DENSE, *CUTS)
CALIBRATED = "calibrated.safetensors"
"""In the folder of a run with spikes: its start, the dense weights with fitted boundaries."""
MARK = "made_by_demo.txt"
"""In the results folder, so that a later demo knows what it may overwrite."""
OWN_FILES = ("metrics.jsonl", "summary.json", "curves.png", "config.json", CALIBRATED)
"""Of a run's folder."""


def configs(
    *, model: str, stages: int, code: str, gradient_wire: str, epochs: int, seed: int, out: Path
) -> dict[str, RunConfig]:
    """The demo's runs by the names of their folders; the arguments are those of `run`."""
    # All chosen on parts of the training split. Large batches, because four fake devices on two
    # cores spend much of a small step waiting for each other.
    shared = [
        f"model.name={model}",
        f"model.stages={stages}",
        f"train.seed={seed}",
        "train.batch_size=64",
        "log.every=11",
        f"log.save={10 * 22}",  # every tenth epoch of 22 steps
    ]
    dense = [f"train.epochs={epochs}", "train.learning_rate=3e-3"]
    # The same short distillation whatever lies on the boundaries. Moved images are new to the
    # teacher too: with them the cut's answers stay nearer to its own on images neither has seen.
    distilled = [
        f"distill.teacher={out / DENSE}",
        f"model.gradient_wire={gradient_wire}",
        f"train.epochs={max(1, epochs // 4)}",
        "train.learning_rate=1e-3",
        "train.weight_decay=0.1",
        "data.shift=1",
    ]
    spikes = [f"model.code={code}", "model.steps=8", "model.calibration=sensitivity_pca_refit"]
    start = lambda name: f"model.init_from={out / name / CALIBRATED}"
    changes = {
        DENSE: dense,
        "hnn": [*distilled, *spikes, start("hnn")],
        "hnn_half": [*distilled, *spikes, start("hnn_half"), "model.bits_per_feature=0.5"],
        "int2": [*distilled, "model.code=int2"],
        "topk": [*distilled, "model.code=topk"],
    }
    presets = {name: "digits_hnn" if name.startswith("hnn") else "digits_ann" for name in changes}
    return {
        name: config_values.override(get_preset(presets[name]), [*shared, *change])
        for name, change in changes.items()
    }


def run(
    *,
    model: str,
    stages: int,
    code: str,
    gradient_wire: str,
    epochs: int,
    seed: int,
    out: Path,
    stop: StopRequest | None = None,
) -> list[compare.Record] | None:
    """Trains the dense model and its cuts, prints the table and writes the results folder.

    Args:
      model: name of a model for 8x8 grey images.
      stages: devices the model is cut over.
      code: spike code of the cuts, at 1 and at 1/2 bit a feature.
      gradient_wire: format of the cuts' gradients on the links.
      epochs: of the dense run; each cut starts from its weights, calibrated, and learns from its
        outputs for a quarter as long.
      seed: of parameters, order and augmentation.
      out: folder for table.json, demo.png and the runs, `DENSE` and `CUTS`.
      stop: asked between steps; once it is set, training saves a checkpoint and leaves.

    Returns:
      the table's rows, or None after a stop.
    """
    stop = StopRequest() if stop is None else stop
    console = plain_console(width=None if sys.stdout.isatty() else 140)
    if code not in SPIKE_CODES:
        raise unknown_name("spike code", code, SPIKE_CODES)
    runs = configs(
        model=model,
        stages=stages,
        code=code,
        gradient_wire=gradient_wire,
        epochs=epochs,
        seed=seed,
        out=out,
    )
    for config in runs.values():
        build_model(config.model)  # a wrong name is an error before anything is removed or written
    with locked(out, console.print):
        clear(out)
        rows = train_and_score(runs, out, stop, console)
        if rows is None:
            return None
        console.print(compare.table(rows, f"{model} on digits, {rows[0]['samples']} held out"))
        about = {
            "model": model,
            "stages": stages,
            "devices": choose_mesh(runs[DENSE]).size,
            "platform": jax.devices()[0].platform,
            "jax": jax.__version__,
            "config": config_values.to_dict(runs["hnn"]),
        }
        write_json(out / "table.json", {**about, "rows": rows})
        plots.scores(out / "demo.png", rows)
    console.print(f"written to {out}: table.json, demo.png and the runs {', '.join(VARIANTS)}")
    return rows


def train_and_score(
    runs: Mapping[str, RunConfig], out: Path, stop: StopRequest, console: Console
) -> list[compare.Record] | None:
    """The table's rows: every run trained one after the other, each cut calibrated before; None
    after a stop."""
    data, cuts = load(runs[DENSE].data), []
    # Boundaries are fitted to the images as they are: noise is for training.
    clean = load(runs[DENSE].data.without_augmentation())
    for name, config in runs.items():
        if config.model.init_from is not None:
            fitted = baselines.calibrate(load_pretrained(out / DENSE), config, clean)
            single_file.save(
                config.model.init_from, fitted.model, fitted.params, fitted.source, fitted.record
            )
            cuts.append(fitted)
        if train(config, out / name, stop=stop, console=console) is None:
            return None
        if name != DENSE:
            cuts.append(load_pretrained(out / name))
    mesh = choose_mesh(runs[DENSE])
    with Progress(console) as progress:
        return baselines.rows(load_pretrained(out / DENSE), cuts, data, mesh, progress)


def clear(out: Path) -> None:
    """Makes the results folder, and removes from it what an earlier demo wrote, nothing else.

    Left in place, the checkpoints of an earlier run would pass for those of an interrupted one.

    Raises:
      ValueError: the folder holds runs that no demo made.
    """
    mine = out / MARK
    foreign = [name for name in VARIANTS if (out / name).exists()]
    if foreign and not mine.exists() and not (out / "table.json").exists():
        raise ValueError(
            f"out={str(out)!r} holds {', '.join(foreign)}, which no demo wrote and it would "
            "overwrite; give another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(mine, "The runs in this folder are of `snapjax demo`, which overwrites them.\n")
    for path in [out / "table.json", out / "demo.png"]:
        path.unlink(missing_ok=True)
    for variant in VARIANTS:
        with locked(out / variant):  # no run of `snapjax train` writes there
            for name in OWN_FILES:
                (out / variant / name).unlink(missing_ok=True)
            for name in ("checkpoints", "model", "tensorboard"):
                shutil.rmtree(out / variant / name, ignore_errors=True)
