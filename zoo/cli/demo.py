"""The main job: a ViT cut over four devices learns real images, dense and with spikes."""

import shutil
import sys
from pathlib import Path

import jax
from rich.console import Console

from snapjax.codes.code import SPIKE_CODES
from snapjax.errors import unknown_name
from zoo.config import values as config_values
from zoo.config.presets import get_preset
from zoo.data import load
from zoo.evaluation import baselines, compare
from zoo.models.build import build_model
from zoo.pretrained.load import load_pretrained
from zoo.train import curves
from zoo.train.logbook import read_metrics
from zoo.train.placement import choose_mesh
from zoo.train.run import train
from zoo.train.stop import StopRequest
from zoo.utils.files import write_json

VARIANTS = ("ann", "hnn")
OWN_FILES = ("metrics.jsonl", "summary.json", "curves.png", "config.json")  # of a run's folder


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
    """Trains both variants, prints the table and writes the results folder.

    Args:
      model: name of a model for 8x8 grey images.
      stages: devices the model is cut over.
      code: spike code of the hybrid, at 1 bit a feature.
      gradient_wire: format of the hybrid's gradients on the links.
      epochs: of the dense run; the hybrid starts from its weights and trains half as long.
      seed: of parameters, order and augmentation.
      out: folder for table.json, demo.png and the runs ann/ and hnn/.
      stop: asked between steps; once it is set, training saves a checkpoint and leaves.

    Returns:
      the table's rows, or None after a stop.
    """
    stop = StopRequest() if stop is None else stop
    console = Console(width=None if sys.stdout.isatty() else 140)
    if code not in SPIKE_CODES:
        raise unknown_name("spike code", code, SPIKE_CODES)
    shared = [
        f"model.name={model}",
        f"model.stages={stages}",
        f"train.epochs={epochs}",
        f"train.seed={seed}",
        "log.every=11",
        f"log.save={10 * 44}",  # every tenth epoch of 44 steps
    ]
    # The hybrid is cut out of the trained dense model: calibrated, then trained half as long.
    spiking = [
        f"model.code={code}",
        f"model.gradient_wire={gradient_wire}",
        f"model.init_from={out / 'ann'}",
        f"train.epochs={max(1, epochs // 2)}",
        "train.learning_rate=1e-3",
    ]
    runs = {
        "ann": config_values.override(get_preset("digits_ann"), shared),
        "hnn": config_values.override(get_preset("digits_hnn"), [*shared, *spiking]),
    }
    for config in runs.values():
        build_model(config.model)  # a wrong name is an error before anything is removed or written
    clear(out)
    for name, config in runs.items():
        if train(config, out / name, stop=stop, console=console) is None:
            return None

    trained = {name: load_pretrained(out / name) for name in VARIANTS}
    mesh = choose_mesh(runs["ann"])
    rows = baselines.rows(trained["ann"], trained["hnn"], load(runs["hnn"].data), mesh)
    console.print(compare.table(rows, f"{model} on digits, {rows[0]['samples']} held out"))
    write_json(
        out / "table.json",
        {
            "model": model,
            "stages": stages,
            "devices": mesh.size,
            "platform": jax.devices()[0].platform,
            "jax": jax.__version__,
            "config": config_values.to_dict(runs["hnn"]),
            "rows": rows,
        },
    )
    sizes = {row["code"]: row["bytes_per_token_and_hop"] for row in rows}
    curves.runs(out / "demo.png", {name: read_metrics(out / name) for name in VARIANTS}, sizes)
    console.print(f"written to {out}: table.json, demo.png and the runs ann/, hnn/")
    return rows


def clear(out: Path) -> None:
    """Makes the results folder, and removes from it what an earlier demo wrote, nothing else.

    Left in place, the checkpoints of an earlier run would pass for those of an interrupted one.
    """
    out.mkdir(parents=True, exist_ok=True)
    for path in [out / "table.json", out / "demo.png"]:
        path.unlink(missing_ok=True)
    for variant in VARIANTS:
        for name in OWN_FILES:
            (out / variant / name).unlink(missing_ok=True)
        for name in ("checkpoints", "model", "tensorboard"):
            shutil.rmtree(out / variant / name, ignore_errors=True)
