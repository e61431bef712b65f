"""A run that goes on: its newest checkpoint, and whether that is of the same run."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from snapjax.parallel.sharding import path_name
from zoo import checkpoint
from zoo.config.specs import RunConfig
from zoo.config.values import differences
from zoo.models.model import Model
from zoo.pretrained.record import rebuild
from zoo.train.logbook import SCORES, current_row
from zoo.train.optimiser import make_optimiser, schedule
from zoo.train.start import Inputs
from zoo.train.state import State, from_parts, state_shape, to_parts

# What a resumed run may change: not what is computed. Data may lie elsewhere, and long texts be cut
# with a note or without, if what comes of them is the same; a digest tells.
MAY_CHANGE = ("mesh", "log", "data.source", "data.truncate")
LONGEST = 1e11  # seconds of a run, some 3,000 years


class Saved(NamedTuple):
    """What a run goes on from.

    Attributes:
      state: canonical.
      record: of the checkpoint: "step", "seconds", "window" (see `zoo.train.loop.Run`) and more.
    """

    state: State
    record: dict[str, Any]


def restore(
    config: RunConfig,
    model: Model,
    inputs: Inputs,
    folder: Path,
    steps: int,
    *,
    fallback: bool,
    console: Console,
) -> Saved:
    """The newest checkpoint of a run, or with `fallback` the newest good one.

    Args:
      config, model, inputs: of the run that is to go on.
      folder: of the checkpoints.
      steps: an epoch.
      fallback: pass over damaged ones.
      console: told of what is passed over, and of what the run goes on from.

    Raises:
      ValueError: damaged, or of a run with another config, other data or another teacher.
    """
    # The steps of the schedule are no part of its state's shape.
    like = state_shape(model, make_optimiser(config.train, 1), bool(config.train.ema))
    with contextlib.suppress(checkpoint.DamagedCheckpoint):
        # First, because every entry of a tree of another model differs.
        check_same(checkpoint.load_record(folder), config, inputs, folder.parent)
    skipped: list[str] = []

    def check(parts: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        check_progress(record, config.train.epochs * steps, model.config.stages - 1)
        check_updates(parts["optimiser"], record["step"])

    parts, record = checkpoint.load(
        folder, to_parts(like), check=check, fallback=fallback, on_skip=skipped.append
    )
    for reason in skipped:
        console.print(f"passed over: {reason}")
    before = check_same(record, config, inputs, folder.parent)
    console.print(f"going on from step {record['step']:,} of {record['path']}")
    if before.train.epochs != config.train.epochs:
        console.print(extension(before, config, record["step"], steps))
    encodes = model.config.task == "encode"
    record["window"] = [current_row(row, encodes) for row in record["window"]]
    return Saved(from_parts(parts, record["step"], like), record)


def check_same(
    record: Mapping[str, Any], config: RunConfig, inputs: Inputs, out: Path
) -> RunConfig:
    """The config that a checkpoint's run had, which is the one given but for `MAY_CHANGE` and for
    more epochs.

    Args:
      record: of the checkpoint.
      config, inputs: of the run that is to go on from it.
      out: the run's folder, for the error.

    Raises:
      ValueError: the record is not of the run of this config and data, or is damaged.
    """
    try:
        _, old = rebuild(record)
    except ValueError as error:
        raise ValueError(f"checkpoint {record['path']}: {error}") from error
    longer = config.train.epochs > old.train.epochs
    grown = replace(old, train=replace(old.train, epochs=config.train.epochs)) if longer else old
    changed = differences(grown, config, MAY_CHANGE)
    if record.get("data", {}).get("sha256") != inputs.data.record["sha256"]:
        changed.append(f"the data in {config.data.source} are not those that the run began with")
    began = record.get("teacher", {}).get("parameters")
    now = inputs.teacher_record.get("teacher", {}).get("parameters")
    if began is not None and now is not None and began != now:
        changed.append(f"the weights in {config.distill.teacher} are not those that taught so far")
    if changed:
        fewer = (
            " A run may be given more epochs, not fewer."
            if config.train.epochs < old.train.epochs
            else ""
        )
        raise ValueError(
            f"the run in {out} has another config: {'; '.join(changed)}.{fewer} Give the same "
            "values to go on with it, or another folder for a new run"
        )
    return old


def extension(before: RunConfig, config: RunConfig, step: int, steps: int) -> str:
    """What more epochs mean for the schedule, in words.

    Args:
      before, config: of the run, with fewer and with more epochs.
      step: that it goes on from.
      steps: an epoch.
    """
    was, now = (
        float(schedule(each.train, each.train.epochs * steps)(step)) for each in (before, config)
    )
    return (
        f"train.epochs: {before.train.epochs}, now {config.train.epochs}. From here on the "
        f"learning rate is that of a run of {config.train.epochs} epochs: {now:.3g} at this step, "
        f"which was {was:.3g}. What the folder holds of a finished run stays until this one is done"
    )


def check_progress(record: Mapping[str, Any], total: int, cuts: int) -> None:
    """Raises ValueError where a record's account of how far a run is cannot be.

    Args:
      record: of a checkpoint.
      total: steps of the run.
      cuts: boundaries of its model.
    """
    step, seconds, window = (record.get(name) for name in ("step", "seconds", "window"))
    if not _is_whole(step) or not 0 <= step <= total:
        raise ValueError(f"step={step!r:.40} is not in [0, {total}], the steps of the run")
    if not _is_number(seconds) or not 0 <= seconds < LONGEST:
        raise ValueError(f"seconds={seconds!r:.40} is no time that a run can have taken")
    if not isinstance(window, list) or len(window) > step:
        raise ValueError(f"window={window!r:.40} is no list of at most {step} steps")
    for number, row in enumerate(window):
        if not isinstance(row, dict) or not _is_row(row, cuts):
            raise ValueError(f"window[{number}]={row!r:.80} is not what a step reports")


def _is_row(row: Mapping[str, Any], cuts: int) -> bool:
    numbers = {"loss", "gradient_norm", *SCORES} & row.keys()
    lists = {"spike_rate", "bits"} & row.keys()
    return (
        {"loss", "gradient_norm", "bits"} <= row.keys()
        and len({*SCORES} & row.keys()) == 1
        and len(numbers) + len(lists) == len(row)
        and all(_is_number(row[name]) for name in numbers)
        and all(
            isinstance(row[name], list)
            and len(row[name]) == cuts
            and all(map(_is_number, row[name]))
            for name in lists
        )
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return real and abs(value) < math.inf  # not NaN either


def check_updates(optimiser: Any, step: int) -> None:
    """Raises ValueError where an optimiser has not made as many updates as a record says.

    Args:
      optimiser: its part of a checkpoint.
      step: of the record.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(optimiser):
        if path_name(path).endswith("count") and int(np.asarray(leaf)) != step:
            raise ValueError(
                f"step={step}, but its optimiser has made {int(np.asarray(leaf))} updates"
            )
