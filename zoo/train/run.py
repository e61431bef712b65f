"""A run from its config to its results folder: what `scripts/train.py` and the demo do.

out/
  config.json        the run's config
  metrics.jsonl      one line a window of steps and one an evaluation
  checkpoints/       see `zoo.checkpoint`; all of the state, the config, the place in the data
  model/             at the end: config.json, model.safetensors, see `zoo.pretrained`
  summary.json, curves.png
"""

import contextlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from snapjax.parameters import merge_plan, split_plan
from zoo import calibration, checkpoint, plots, pretrained
from zoo.data import Batch, Data, load, steps_per_epoch, train_batches
from zoo.data.tokenizer import read_tokenizer
from zoo.distillation import Teacher, about, check_teacher, student_sizes
from zoo.files import write_json
from zoo.hybrid import Model
from zoo.pretrained import Pretrained
from zoo.train import placement, processes, utilisation
from zoo.train.config import RunConfig, differences, to_dict
from zoo.train.logbook import read_metrics
from zoo.train.loop import Loop, Run, state_tree
from zoo.train.step import Scores, State, Trainer
from zoo.train.stop import StopRequest
from zoo.trees import count

CALIBRATION_SAMPLES = 256
CALIBRATION_BATCHES = 4  # of so many samples, where matrices are fitted
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
        pretrained.check_classes(taught, data.record, config.data.source)
    sizes = data_sizes(data) if taught is None else student_sizes(taught.model)
    model = config.model.build(**sizes)
    check_data(model, data)
    steps = steps_per_epoch(data.train, config.train.batch_size)
    teacher = taught and Teacher.of(taught.model, taught.params, config.distill)
    trainer = Trainer(model, config.train, steps, mesh, config.mesh.fsdp, teacher)
    shapes = trainer.abstract()
    if config.train.trains == "boundaries" and not count(shapes.trainable.get("boundaries", {})):
        raise ValueError(
            f"train.trains='boundaries': model.code={model.boundary.code!r} in "
            f"model.stages={config.model.stages} has nothing to train on a boundary; choose a "
            "spike code and 2 stages or more, or train.trains=all"
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
        model = model.with_boundary(model.boundary.tighten(boundaries))
        trainer = Trainer(model, config.train, steps, mesh, config.mesh.fsdp, teacher)
    record = pretrained.describe(model, config, sizes, data.record) | told
    if taught is not None:
        record["data"] = {**taught.source.preprocessing, **data.record}
        record |= {name: taught.record[name] for name in ("labels",) if name in taught.record}
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
        tokens_per_sample=tokens_per_sample(model, data),
        flops_per_sample=utilisation.flops_per_sample(model, data.train.take(np.arange(1))),
        peak_flops=peak,
        seconds=saved["seconds"],
    )


def tokens_per_sample(model: Model, data: Data) -> int:
    """Tokens that cross a boundary for one sample."""
    batch = data.train.take(np.arange(1))
    shapes = jax.eval_shape(lambda key: model.embed(model.init(key), batch), jax.random.key(0))
    return int(shapes.shape[1])


def teacher_of(config: RunConfig) -> Pretrained | None:
    """The trained model that a run learns from, if there is one."""
    if config.distill.teacher is None:
        return None
    taught = pretrained.load_pretrained(config.distill.teacher)
    check_teacher(taught, config)
    return taught


def load_data(config: RunConfig, taught: Pretrained | None, folder: Path) -> Data:
    """The run's data; a teacher's, or what weights to start from expect, goes before their own.

    Args:
      config: of the run.
      taught: its teacher, if it has one.
      folder: of its checkpoints: a run that has some needs the weights that it began with no more.
    """
    if taught is not None:
        return load(config.data.like(taught.source.preprocessing), tokenizer=taught.tokenizer)
    if config.model.init_from is None or config.data.mean is not None:
        return load(config.data)
    with contextlib.suppress(checkpoint.DamagedCheckpoint):
        if checkpoint.latest(folder) is not None:
            return load(config.data.like(checkpoint.load_record(folder)["data"]))
    return load(config.data.like(start_of(config.model.init_from).source.preprocessing))


def start_of(name: str) -> Pretrained:
    """The weights that a run starts from.

    Raises:
      ValueError: they are not there, or damaged.
    """
    try:
        return pretrained.load_pretrained(name)
    except ValueError as error:
        raise ValueError(
            f"model.init_from={name!r}: {error}. Train the run that it names first, or give "
            "model.init_from=none to start from scratch"
        ) from error


def first_state(
    trainer: Trainer, config: RunConfig, data: Data, taught: Pretrained | None = None
) -> State:
    """A canonical state before the first step: boundaries fit the model's activations."""
    model, key = trainer.model, jax.random.key(config.train.seed)
    fit, loaded = True, taught
    if config.model.init_from is not None:
        loaded = start_of(config.model.init_from)
        check_tokens(loaded.tokenizer, data.tokenizer, config.model.init_from)
    if loaded is None:
        params = model.init(key)
    else:
        params, fit = pretrained.start_from(loaded, model, key)
    if fit and model.config.stages > 1:
        method, batches = config.model.calibration, calibration_batches(data, config)
        if method == calibration.PLAIN:
            params = model.calibrate(params, *batches)
        else:
            _, params = calibration.calibrate(model, params, batches, method, key=key)
    return trainer.first(params)


def calibration_batches(data: Data, config: RunConfig) -> list[Batch]:
    """The first samples of the first epoch, as training sees them."""
    size = min(CALIBRATION_SAMPLES, data.train.samples)
    count = 1 if config.model.calibration == calibration.PLAIN else CALIBRATION_BATCHES
    some = train_batches(data.train, size, seed=config.train.seed, epoch=0)
    return list(itertools.islice(some, count))


def data_sizes(data: Data) -> dict[str, Any]:
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
    first, second = (read_tokenizer(text, name).tokenizer.get_vocab() for text in (trained, given))
    if first != second:
        raise ValueError(
            f"model.init_from={name!r} has another tokenizer than the data, so that the same ids "
            "are other words to it; set data.tokenizer to the tokenizer.json beside its weights"
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
      told: {"teacher": see `zoo.distillation.about`} of that run, or empty.
      out: the run's folder, for the error.
    """
    _, old = pretrained.rebuild(record)
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
        pretrained.export(out / "model", params, record, run.data.tokenizer)
        write_json(out / "summary.json", summary)
        plots.runs(out / "curves.png", {config.name: read_metrics(out)})
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
