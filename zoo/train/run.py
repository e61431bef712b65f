"""A run from its config to its results folder: what `snapjax train` and the demo do.

out/
  config.json        the run's config
  metrics.jsonl      one line a window of steps and one an evaluation
  checkpoints/       see `zoo.checkpoint`; all of the state, the config, the place in the data
  model/             at the end: config.json, model.safetensors, see `zoo.pretrained.model_folder`
  summary.json, curves.png
"""

import contextlib
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from snapjax.codes.parameters import count_trainable, merge_plan, split_plan
from zoo import checkpoint
from zoo.config.specs import RunConfig
from zoo.config.values import to_dict
from zoo.data import Data, steps_per_epoch
from zoo.models.model import Model
from zoo.pretrained.model_folder import export
from zoo.pretrained.record import describe
from zoo.train import curves, placement, processes, utilisation
from zoo.train.distillation import Teacher
from zoo.train.logbook import SCORES, read_metrics
from zoo.train.loop import Loop, Run
from zoo.train.resume import Saved, restore
from zoo.train.start import Inputs, build_model, check_training, init_params, load_inputs
from zoo.train.state import State
from zoo.train.step import Scores, Trainer
from zoo.train.stop import StopRequest
from zoo.utils.files import write_json
from zoo.utils.lock import locked
from zoo.utils.progress import plain_console


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
        or another run that writes into the folder; before training starts.
      FloatingPointError: loss or gradients that are not finite, naming step and module.
      OSError: a checkpoint, or anything else, could not be written into the folder.
    """
    stop = StopRequest() if stop is None else stop
    console, out = console or plain_console(), Path(out)
    with contextlib.ExitStack() as stack:
        hold = lambda: stack.enter_context(locked(out, console.print))
        processes.first_alone(hold)
        run = prepare(config, out, resume=resume, fallback=fallback, console=console)
        state, scores = Loop(run, stop, console).go()
        # Not whether `stop` is set: a signal that comes later, to one process of several, must not
        # have it leave while the others gather the parameters to export.
        if run.step < run.trainer.total_steps:
            newest = checkpoint.latest(run.out / "checkpoints")
            console.print(
                f"stopped on request at step {run.step:,}; go on with --resume. The newest "
                f"checkpoint is {newest}"
            )
            return None
        return finish(run, state, scores, console)


def prepare(config: RunConfig, out: Path, *, resume: bool, fallback: bool, console: Console) -> Run:
    """Checks everything, loads the data, makes the state; writes the config and nothing else."""
    folder = out / "checkpoints"

    # What can be refused without loading anything
    found = check_folder(out, resume)
    processes.check_same_config(config)
    mesh = placement.choose_mesh(config)
    peak_flops = utilisation.peak_flops(config.log.profile, config.model.precision)

    # Data, teacher and model, and whether they fit
    inputs = load_inputs(config, folder)
    model = build_model(config, inputs)
    train_split = inputs.data.train
    steps = steps_per_epoch(train_split, config.train.batch_size)
    samples = utilisation.shapes_of_samples(train_split, config.train, config.data.pairs)
    check_training(config, model, mesh, config.train.epochs * steps, folder)
    console.print(headline(config, model, mesh, inputs.data, steps))

    # The state, and the boundaries that it needs
    saved = None
    if resume and not found:
        console.print(f"no checkpoint in {folder}: starting from step 0")
    if found:
        saved = restore(config, model, inputs, folder, steps, fallback=fallback, console=console)
    trainer, state = restore_or_init(config, model, inputs, mesh, steps, saved)

    if jax.process_index() == 0:
        write_json(out / "config.json", to_dict(config))
        if saved is not None and not (out / "metrics.jsonl").exists():
            console.print(
                f"{out}: metrics.jsonl is gone, and with it the lines of the steps so far"
            )
    progress = {"window": [], "step": 0, "seconds": 0.0} if saved is None else saved.record
    return Run(
        config=config,
        out=out,
        data=inputs.data,
        trainer=trainer,
        state=state,
        record=model_record(config, trainer.model, inputs),
        window=progress["window"],
        step=progress["step"],
        steps_per_epoch=steps,
        tokens_per_sample=utilisation.mean(utilisation.tokens_per_sample, trainer.model, samples),
        flops_per_sample=utilisation.mean(utilisation.flops_per_sample, trainer.model, samples),
        peak_flops=peak_flops,
        seconds=progress["seconds"],
    )


def check_folder(out: Path, resume: bool) -> bool:
    """Whether there is a run in a folder to go on with; of several processes all must see the same.

    Raises:
      ValueError: the folder holds a run that would be overwritten.
    """
    newest = checkpoint.latest(out / "checkpoints")
    processes.check_shared(out / "checkpoints", newest)
    if newest is not None and not resume:
        raise ValueError(
            f"out={str(out)!r} holds a run with checkpoints; go on with it (--resume) or give "
            "another folder"
        )
    if newest is None and (out / "summary.json").exists():
        raise ValueError(
            f"out={str(out)!r} holds a finished run, whose checkpoints are gone; a new one would "
            "overwrite its model and metrics: give another folder"
        )
    return newest is not None


def headline(config: RunConfig, model: Model, mesh: Mesh, data: Data, steps: int) -> str:
    """A run in one line, before it begins."""
    trainable, _ = split_plan(model.param_shape)
    return (
        f"{config.name}: {model.config.name}, {count_trainable(trainable):,} parameters, "
        f"{model.config.stages} stages on {placement.describe(mesh)}; "
        f"{data.train.samples:,} training and {data.validation.samples:,} validation samples, "
        f"{steps:,} steps an epoch"
    )


def restore_or_init(
    config: RunConfig, model: Model, inputs: Inputs, mesh: Mesh, steps: int, saved: Saved | None
) -> tuple[Trainer, State]:
    """The trainer of a run, and its state on the mesh.

    Args:
      config, model, inputs, mesh: of the run.
      steps: an epoch.
      saved: what it goes on from; None for a new run.
    """
    if saved is None:
        params = init_params(model, config, inputs)
    else:
        params = merge_plan(saved.state.trainable, saved.state.plans)
    if "boundaries" in params:
        # A hop takes no more than what the plans in the parameters send.
        boundary = model.boundary.shrink_to_plan(params["boundaries"])
        model = model.with_boundary(boundary)
    teacher = inputs.teacher and Teacher.from_model(
        inputs.teacher.model, inputs.teacher.params, config.distill
    )
    trainer = Trainer(model, config.train, steps, mesh, config.mesh.fsdp, teacher)
    return trainer, trainer.init_state(params) if saved is None else trainer.shard(saved.state)


def model_record(config: RunConfig, model: Model, inputs: Inputs) -> dict[str, Any]:
    """What rebuilds the model of a run, and what belongs to its weights."""
    data, teacher = inputs.data, inputs.teacher
    record = describe(model, config, inputs.model_fields, data.record) | inputs.teacher_record
    if teacher is not None:
        record["data"] = {**teacher.source.preprocessing, **data.record}
        if "labels" in teacher.record:
            record["labels"] = teacher.record["labels"]
    if data.tokenizer is not None:
        record["tokenizer"] = data.tokenizer
    return record


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
        "parameters": count_trainable(params),
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
    rate, name = summary.get("spike_rate"), next(name for name in SCORES if name in summary)
    shown = {
        "parameters": f"{summary['parameters']:,}",
        f"validation {name}": f"{summary[name]:.4f}",
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
