"""A run that goes on: its newest checkpoint, and whether that is of the same run."""

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from zoo import checkpoint
from zoo.config.specs import RunConfig
from zoo.config.values import differences
from zoo.models.model import Model
from zoo.pretrained.record import rebuild
from zoo.train.logbook import current_row
from zoo.train.optimiser import make_optimiser
from zoo.train.start import Inputs
from zoo.train.state import State, from_parts, state_shape, to_parts

# What a resumed run may change: not what is computed. Data may lie elsewhere, and long texts be cut
# with a note or without, if what comes of them is the same; a digest tells.
MAY_CHANGE = ("mesh", "log", "data.source", "data.truncate")


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
    *,
    fallback: bool,
    console: Console,
) -> Saved:
    """The newest checkpoint of a run, or with `fallback` the newest good one.

    Args:
      config, model, inputs: of the run that is to go on.
      folder: of the checkpoints.
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
    parts, record = checkpoint.load(
        folder, to_parts(like), fallback=fallback, on_skip=skipped.append
    )
    for reason in skipped:
        console.print(f"passed over: {reason}")
    check_same(record, config, inputs, folder.parent)
    console.print(f"going on from step {record['step']:,} of {record['path']}")
    encodes = model.config.task == "encode"
    record["window"] = [current_row(row, encodes) for row in record["window"]]
    return Saved(from_parts(parts, record["step"], like), record)


def check_same(record: dict[str, Any], config: RunConfig, inputs: Inputs, out: Path) -> None:
    """Raises ValueError when a checkpoint's record is not of the run of this config and data.

    Args:
      record: of the checkpoint.
      config, inputs: of the run that is to go on from it.
      out: the run's folder, for the error.
    """
    _, old = rebuild(record)
    changed = differences(old, config, MAY_CHANGE)
    if record["data"]["sha256"] != inputs.data.record["sha256"]:
        changed.append(f"the data in {config.data.source} are not those that the run began with")
    began = record.get("teacher", {}).get("parameters")
    now = inputs.teacher_record.get("teacher", {}).get("parameters")
    if began is not None and now is not None and began != now:
        changed.append(f"the weights in {config.distill.teacher} are not those that taught so far")
    if changed:
        raise ValueError(
            f"the run in {out} has another config: {'; '.join(changed)}. Give the same values to "
            "go on with it, or another folder for a new run"
        )
