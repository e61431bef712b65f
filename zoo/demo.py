"""The main job: a ViT cut over four devices learns real images, dense and with spikes."""

import os
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from snapjax.boundary import Boundary
from snapjax.code import SPIKE_CODES
from snapjax.errors import unknown_name
from snapjax.sharding import make_mesh
from zoo import checkpoint, compare, data, plots
from zoo.files import MetricsLog, write_json
from zoo.hybrid import Model, Params
from zoo.registry import VARIANTS, create_model, default_boundary
from zoo.train import State, TrainConfig, Trainer, means

CALIBRATION_IMAGES = 256
BASELINES = ("bfloat16", "int8", "int4", "int2", "topk")  # tried with the ANN's weights as they are


def run(
    *,
    model: str,
    stages: int,
    code: str,
    gradient_wire: str,
    epochs: int,
    seed: int,
    out: Path,
    debug: bool = False,
    stop: "StopRequest | None" = None,
) -> list[compare.Record] | None:
    """Trains both variants, prints the table and writes the results folder.

    Args:
      model: name of a model for 8x8 grey images.
      stages: devices the model is cut over.
      code: spike code of the hybrid, at 1 bit a feature.
      gradient_wire: format of the hybrid's gradients on the links.
      epochs: of each run.
      seed: of parameters, order and augmentation.
      out: folder for metrics.jsonl, table.json, demo.png and the checkpoints ann/ and hnn/.
      debug: stop at the first activation that is not finite.
      stop: asked between steps; once it is set, training saves a checkpoint and leaves.

    Returns:
      the table's rows, or None after a stop.
    """
    stop = StopRequest() if stop is None else stop  # one that is not set yet is false
    console = Console(width=None if sys.stdout.isatty() else 120)
    if code not in SPIKE_CODES:
        raise unknown_name("spike code", code, SPIKE_CODES)
    ann = create_model(model, "ann", stages)
    default = default_boundary(ann.config.width, "hnn")
    spiking = replace(default, code=code, gradient_wire=gradient_wire)
    hnn = ann.with_boundary(spiking)
    config = TrainConfig(epochs=epochs, noise=0.2, seed=seed, debug=debug)
    splits = data.digits()
    mesh = pick_mesh(stages)
    console.print(describe(ann, mesh, stages))

    clear(out)
    records: dict[str, list[dict[str, Any]]] = {}
    trained: dict[str, Params] = {}
    with MetricsLog(out / "metrics.jsonl") as log:
        for name, cut in (("ann", ann), ("hnn", hnn)):
            trainer, params = prepare(cut, config, splits, mesh)
            trained[name], records[name] = train(
                trainer, params, splits, name, out, log, console, stop
            )
            if stop:
                newest = checkpoint.latest(out / name)
                console.print(f"stopped on request; the newest checkpoint is {newest}")
                return None

    rows = score(ann, hnn, trained, config, splits, mesh)
    console.print(compare.table(rows, f"{model} on digits, {splits.validation.samples} held out"))
    write_json(
        out / "table.json",
        {
            "model": model,
            "stages": stages,
            "devices": 1 if mesh is None else mesh.size,
            "platform": jax.devices()[0].platform,
            "jax": jax.__version__,
            "train": asdict(config),
            "rows": rows,
        },
    )
    sizes = {row["code"]: row["bytes_per_token_and_hop"] for row in rows}
    plots.training(out / "demo.png", records, sizes)
    console.print(f"written to {out}: table.json, metrics.jsonl, demo.png, ann/, hnn/")
    return rows


class StopRequest:
    """Set by the first signal and asked between steps; the second leaves at once.

    An exception in the middle of a step, or of XLA's compilation, could leave threads behind that
    the interpreter's exit then trips over; between steps everything is at rest.
    """

    def __init__(self) -> None:
        self._requested = False

    def __bool__(self) -> bool:
        return self._requested

    def handle(self, number: int, frame: FrameType | None) -> None:
        """A signal handler."""
        if self._requested:
            os._exit(130)
        self._requested = True
        print("stopping after this step; once more to leave at once", file=sys.stderr)


def clear(out: Path) -> None:
    """Makes the results folder, and removes from it what an earlier demo wrote, nothing else.

    Left in place, the checkpoints of an earlier run would pass for those of an interrupted one.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in ("metrics.jsonl", "table.json", "demo.png"):
        (out / name).unlink(missing_ok=True)
    for variant in VARIANTS:
        for path in checkpoint.checkpoints(out / variant):
            shutil.rmtree(path)


def pick_mesh(stages: int) -> Mesh | None:
    """A mesh over the first `stages` devices of the best kind, or None for a single device."""
    return make_mesh(stage=stages) if len(jax.devices()) >= stages else None


def describe(model: Model, mesh: Mesh | None, stages: int) -> str:
    """One line on what runs where."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    kind = jax.devices()[0].device_kind
    where = f"{stages} {kind} devices" if mesh else f"1 {kind} (cuts computed, no link crossed)"
    return f"{model.config.name}: {count:,} parameters, {stages} stages on {where}"


def prepare(
    model: Model, config: TrainConfig, splits: data.Splits, mesh: Mesh | None
) -> tuple[Trainer, Params]:
    """A trainer, and first parameters whose boundaries fit the untrained model's activations."""
    params = model.init(jax.random.key(config.seed))
    sample = next(data.batches(splits.train, CALIBRATION_IMAGES, seed=config.seed, epoch=0))
    params = model.calibrate(params, sample)
    if "boundaries" in params:
        model = model.with_boundary(model.boundary.tighten(params["boundaries"]))
    steps = data.steps_per_epoch(splits.train, config.batch_size)
    return Trainer(model, config, steps, mesh), params


def train(
    trainer: Trainer,
    params: Params,
    splits: data.Splits,
    name: str,
    out: Path,
    log: MetricsLog,
    console: Console,
    stop: "StopRequest",
) -> tuple[Params, list[dict[str, Any]]]:
    """Trains one variant; returns its parameters and one record an epoch.

    A checkpoint is saved after every tenth epoch, after the last, and when a stop is requested.
    """
    config, model = trainer.config, trainer.model
    state, records = trainer.start(params), []

    def save(state: State) -> None:
        record = {
            "model": model.config.name,
            "variant": name,
            "stages": model.config.stages,
            "boundary": asdict(model.boundary),
            "train": asdict(config),
            "step": state.step,
            "metrics": records[-1] if records else None,
        }
        checkpoint.save(out / name, trainer.params(state), record)

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
    )
    with Progress(*columns, console=console) as progress:
        total = config.epochs * trainer.steps_per_epoch
        task = progress.add_task(f"{name} ({model.boundary.code})", total=total, shown="")
        for epoch in range(config.epochs):
            sums = []
            for batch in trainer.batches(splits.train, epoch):
                if stop:
                    save(state)
                    return trainer.params(state), records
                state, step_sums = trainer.step(state, batch)
                sums.append(step_sums)
                progress.advance(task)
            scores = trainer.evaluate(trainer.params(state), splits.validation)
            records.append(
                {
                    "run": name,
                    "epoch": epoch + 1,
                    "step": state.step,
                    **{f"train_{key}": value for key, value in means(sums).items()},
                    **scores._asdict(),
                }
            )
            log.write(records[-1])
            progress.update(task, shown=f"accuracy {scores.accuracy:.4f}")
            if (epoch + 1) % 10 == 0 and epoch + 1 < config.epochs:
                save(state)
    save(state)
    return trainer.params(state), records


def score(
    ann: Model,
    hnn: Model,
    trained: dict[str, Params],
    config: TrainConfig,
    splits: data.Splits,
    mesh: Mesh | None,
) -> list[compare.Record]:
    """The table: each baseline and calibrated spikes on the ANN's weights, and the HNN."""

    def row(model: Model, params: Params, weights: str) -> compare.Record:
        scores = Trainer(model, config, 1, mesh).evaluate(params, splits.validation)
        rate = float(np.mean(scores.spike_rate)) if model.boundary.spiking else None
        return compare.record(model.boundary, weights, scores.accuracy, rate)

    dense, width = trained["ann"], ann.config.width
    rows = [row(ann, dense, "dense")]
    for name in BASELINES:
        # The budget is the spikes'; only top-k looks at it.
        baseline = Boundary(width, name, budget=hnn.boundary.budget)
        rows.append(row(ann.with_boundary(baseline), dense, "dense"))
    sample = next(data.batches(splits.train, CALIBRATION_IMAGES, seed=config.seed, epoch=0))
    fresh = hnn.with_new_boundaries(dense, jax.random.key(config.seed))
    rows.append(row(hnn, hnn.calibrate(fresh, sample), "dense, calibrated"))
    rows.append(row(hnn, trained["hnn"], "trained with spikes"))
    return rows
