"""A run from its config to its results folder: what `scripts/train.py` and the demo do.

out/
  config.json        the run's config
  metrics.jsonl      one line a window of steps and one an evaluation
  checkpoints/       see `zoo.checkpoint`; all of the state, the config, the place in the data
  model/             at the end: config.json, model.safetensors, see `zoo.pretrained.model_folder`
  summary.json, curves.png
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from snapjax.codes.parameters import count, merge_plan, split_plan
from zoo import checkpoint
from zoo.config.specs import RunConfig
from zoo.config.values import differences, to_dict
from zoo.data import Data, steps_per_epoch
from zoo.models.build import build_model
from zoo.pretrained.model_folder import export
from zoo.pretrained.record import describe, rebuild
from zoo.train import curves, placement, processes, utilisation
from zoo.train.distillation import Teacher, about, student_sizes
from zoo.train.logbook import read_metrics
from zoo.train.loop import Loop, Run, state_tree
from zoo.train.start import check_data, data_sizes, first_state, load_data, teacher_of
from zoo.train.step import Scores, State, Trainer
from zoo.train.stop import StopRequest
from zoo.utils.files import write_json

# What a resumed run may change: not what is computed. Data may lie elsewhere if they are the same.
MAY_CHANGE = ("mesh", "log", "data.source")


def train(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    fallback: bool = False,
    stop: StopRequest | None = None,
    console: Console | None = None,
) -> dict[str, Any] | None:
    """Runs, or goes on with, a run.

    Args:
      config: what to run.
      out: its folder.
      resume: go on from the newest checkpoint in `out`, if there is one.
      fallback: with `resume`, pass over damaged checkpoints.
      stop: asked between steps; once it is set, a checkpoint is saved and the run left.
      console: where progress and the summary are printed.

    Returns:
      the summary, or None after a stop.

    Raises:
      ValueError: anything about the config, the data, the folder or a checkpoint that does not fit,
        before training starts.
      FloatingPointError: loss or gradients that are not finite, naming step and module.
      OSError: a checkpoint could not be written.
    """
    stop = StopRequest() if stop is None else stop
    console = console or Console()
    run = prepare(config, Path(out), resume=resume, fallback=fallback, console=console)
    state, scores = Loop(run, stop, console).go()
    # Not whether `stop` is set: a signal that comes later, to one process of several, must not have
    # it leave while the others gather the parameters to export.
    if run.step < run.trainer.total_steps:
        newest = checkpoint.latest(run.out / "checkpoints")
        console.print(
            f"stopped on request at step {run.step:,}; go on with --resume. The newest checkpoint "
            f"is {newest}"
        )
        return None
    return finish(run, state, scores, console)


def prepare(config: RunConfig, out: Path, *, resume: bool, fallback: bool, console: Console) -> Run:
    """Checks everything, loads the data, makes the state; writes the config and nothing else."""
    folder = out / "checkpoints"
    newest = checkpoint.latest(folder)
    processes.check_shared(folder, newest)
    found = newest is not None
    if found and not resume:
        raise ValueError(
            f"out={str(out)!r} holds a run with checkpoints; go on with it (--resume) or give "
            "another folder"
        )
    if not found and (out / "summary.json").exists():
        raise ValueError(
            f"out={str(out)!r} holds a finished run, whose checkpoints are gone; a new one would "
            "overwrite its model and metrics: give another folder"
        )
    if not processes.alike(repr(config)):
        raise ValueError("the processes have different configs; start all with the same --set")
    mesh = placement.choose_mesh(config)
    peak = utilisation.peak_flops(config.log.profile, config.model.precision)
    taught = teacher_of(config)
    told = {} if taught is None else {"teacher": about(taught)}
    data = load_data(config, taught, folder)
    processes.check_same_data(config.data.source, data.record["sha256"])
    if not processes.alike(repr(told)):
        raise ValueError(
            f"distill.teacher={config.distill.teacher!r}: the processes have loaded different "
            "weights; give all of them the same"
        )
    if taught is not None:
        taught.check_classes(data.record, config.data.source)
    sizes = data_sizes(data) if taught is None else student_sizes(taught.model)
    model = build_model(config.model, **sizes)
    check_data(model, data)
    steps = steps_per_epoch(data.train, config.train.batch_size)
    samples = utilisation.shapes_of_samples(data.train, config.train, config.data.pairs)
    teacher = taught and Teacher.of(taught.model, taught.params, config.distill)
    trainer = Trainer(model, config.train, steps, mesh, config.mesh.fsdp, teacher)
    shapes = trainer.abstract()
    if config.train.trainable == "boundaries" and not count(shapes.trainable.get("boundaries", {})):
        raise ValueError(
            f"train.trainable='boundaries': model.code={model.boundary.code!r} in "
            f"model.stages={config.model.stages} has nothing to train on a boundary; choose a "
            "spike code and 2 stages or more, or train.trainable=all"
        )
    placement.state_shardings(mesh, jax.eval_shape(trainer.placed, shapes), config.mesh.fsdp)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    checkpoint.check_writable(folder, size, keep=config.log.keep)

    console.print(
        f"{config.name}: {model.config.name}, {count(shapes.trainable):,} parameters, "
        f"{model.config.stages} stages on {placement.describe(mesh)}; "
        f"{data.train.samples:,} training and {data.validation.samples:,} validation samples, "
        f"{steps:,} steps an epoch"
    )
    saved: dict[str, Any] = {"window": [], "step": 0, "seconds": 0.0}
    if found:
        state, saved = restore(
            trainer, folder, config, data, told, fallback=fallback, console=console
        )
    else:
        state = first_state(trainer, config, data, taught)
    boundaries = merge_plan(state.trainable, state.plans).get("boundaries")
    if boundaries is not None:
        model = model.with_boundary(model.boundary.shrink_to_plan(boundaries))
        trainer = Trainer(model, config.train, steps, mesh, config.mesh.fsdp, teacher)
    record = describe(model, config, sizes, data.record) | told
    if taught is not None:
        record["data"] = {**taught.source.preprocessing, **data.record}
        if "labels" in taught.record:
            record["labels"] = taught.record["labels"]
    if data.tokenizer is not None:
        record["tokenizer"] = data.tokenizer
    if jax.process_index() == 0:
        write_json(out / "config.json", to_dict(config))
    return Run(
        config=config,
        out=out,
        data=data,
        trainer=trainer,
        state=trainer.place(state),
        record=record,
        window=saved["window"],
        step=saved["step"],
        steps_per_epoch=steps,
        tokens_per_sample=utilisation.mean(utilisation.tokens_per_sample, model, samples),
        flops_per_sample=utilisation.mean(utilisation.flops_per_sample, model, samples),
        peak_flops=peak,
        seconds=saved["seconds"],
    )


def restore(
    trainer: Trainer,
    folder: Path,
    config: RunConfig,
    data: Data,
    told: Mapping[str, Any],
    *,
    fallback: bool,
    console: Console,
) -> tuple[State, dict[str, Any]]:
    """The canonical state of the newest (good) checkpoint, and its record.

    Raises:
      ValueError: damaged, or of a run with another config, other data or another teacher.
    """
    like = trainer.abstract()
    with contextlib.suppress(checkpoint.DamagedCheckpoint):
        # First, because every entry of a tree of another model differs.
        check_same(checkpoint.load_record(folder), config, data, told, folder.parent)
    skipped: list[str] = []
    tree, record = checkpoint.load(
        folder, state_tree(like), fallback=fallback, on_skip=skipped.append
    )
    for reason in skipped:
        console.print(f"passed over: {reason}")
    check_same(record, config, data, told, folder.parent)
    trainable, plans = split_plan(tree["params"])
    average = split_plan(tree["ema"])[0] if "ema" in tree else None
    optimiser = checkpoint.dict_to_tree(tree["optimiser"], like.optimiser)
    step = np.int32(record["step"])
    console.print(f"going on from step {record['step']:,} of {record['path']}")
    return State(trainable, plans, optimiser, average, step, np.bool_(True)), record


def check_same(
    record: dict[str, Any], config: RunConfig, data: Data, told: Mapping[str, Any], out: Path
) -> None:
    """Raises ValueError when a checkpoint's record is not of the run of this config and data.

    Args:
      record: of the checkpoint.
      config, data: of the run that is to go on from it.
      told: {"teacher": see `zoo.train.distillation.about`} of that run, or empty.
      out: the run's folder, for the error.
    """
    _, old = rebuild(record)
    changed = differences(old, config, MAY_CHANGE)
    if record["data"]["sha256"] != data.record["sha256"]:
        changed.append(f"the data in {config.data.source} are not those that the run began with")
    began = record.get("teacher", {}).get("parameters")
    if began is not None and told and began != told["teacher"]["parameters"]:
        changed.append(f"the weights in {config.distill.teacher} are not those that taught so far")
    if changed:
        raise ValueError(
            f"the run in {out} has another config: {'; '.join(changed)}. Give the same values to "
            "go on with it, or another folder for a new run"
        )


def finish(run: Run, state: State, scores: Scores, console: Console) -> dict[str, Any]:
    """Exports the model, draws the curves, prints and writes the summary of a finished run."""
    config, out = run.config, run.out
    boundary = run.trainer.model.boundary
    params = run.trainer.params(state, averaged=True)
    summary = {
        "name": config.name,
        "model": run.trainer.model.config.name,
        "variant": config.model.variant,
        "code": boundary.code,
        "stages": config.model.stages,
        "parameters": count(params),
        "task": run.data.task,
        **scores.record(),
        "bits_per_feature": 8 * boundary.bytes_per_token / boundary.features,
        "bytes_per_token_and_hop": boundary.bytes_per_token,
        "steps": run.trainer.total_steps,
        "mesh": dict(run.trainer.mesh.shape),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "seconds": run.seconds,
        "train": to_dict(config),
    }
    if jax.process_index() == 0:
        record = {**run.record, "metrics": scores.record(), "step": run.trainer.total_steps}
        export(out / "model", params, record, run.data.tokenizer)
        write_json(out / "summary.json", summary)
        curves.runs(out / "curves.png", {config.name: read_metrics(out)})
        console.print(summary_table(summary))
        console.print(f"written to {out}: model/, metrics.jsonl, summary.json, curves.png")
    return summary


def summary_table(summary: dict[str, Any]) -> Table:
    """The figures of a finished run for a terminal."""
    table = Table(title=f"{summary['name']}: {summary['model']}, {summary['variant']}")
    rate = summary["spike_rate"]
    shown = {
        "parameters": f"{summary['parameters']:,}",
        "validation accuracy": f"{summary['accuracy']:.4f}",
        "validation loss": f"{summary['loss']:.4f}",
        "samples": f"{summary['samples']:,}",
        "code": summary["code"],
        "bytes a token and hop": str(summary["bytes_per_token_and_hop"]),
        "spike rate": ", ".join(f"{value:.3f}" for value in rate) if rate else "-",
        "steps": f"{summary['steps']:,}",
        "minutes": f"{summary['seconds'] / 60:.1f}",
    }
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in shown.items():
        table.add_row(name, value)
    return table
