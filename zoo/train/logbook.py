"""What a run reports: metrics.jsonl always, TensorBoard where it is installed.

A line of training metrics is a mean over a window of steps. The window that is being filled is part
of a checkpoint, so that a resumed run writes the lines that an uninterrupted one would have.
"""

import contextlib
import importlib.util
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from zoo.utils.files import MetricsLog, naming, parse_json, read_text, write_atomic
from zoo.utils.schema import NUMBER, TEXT, WHOLE, ListOf, Maybe, Object, check

# Measured by the clock, so different in every run; all other metrics repeat bit for bit.
TIMINGS = (
    *("samples_per_second", "tokens_per_second", "waiting_share", "seconds"),
    *("model_flops_per_second", "model_flops_utilisation"),
)

# What a model is scored by besides its loss: an encoder by the cosine to its teacher's embeddings,
# all others by the share of right predictions. A line has one of them.
SCORES = ("accuracy", "cosine")

Row = dict[str, Any]

# What is not finite is null.
LINE = Object(
    {"kind": TEXT, "step": WHOLE},
    {
        **dict.fromkeys(("loss", "gradient_norm", "learning_rate", *SCORES), Maybe(NUMBER)),
        **dict.fromkeys(("spike_rate", "bits"), ListOf(Maybe(NUMBER))),
    },
)
"""A line of metrics.jsonl."""
KINDS = ("train", "evaluation")


class Window:
    """The steps since the last line of metrics.

    Args:
      rows: of a window that a checkpoint interrupted: one dict a step.
    """

    def __init__(self, rows: list[Row] | None = None) -> None:
        self.rows = list(rows or [])
        self._started, self._timed, self._waited = time.perf_counter(), 0, 0.0

    def add(self, row: Row) -> None:
        """One step: "loss", one of `SCORES`, "gradient_norm", and of each boundary "bits", and
        "spike_rate" where they spike."""
        self.rows.append(row)
        self._timed += 1

    def pause(self) -> float:
        """Call before something that is not training; give the result to `resume` after it."""
        return time.perf_counter()

    def resume(self, paused: float) -> None:
        """Leaves out the time since `paused`, of `time.perf_counter`."""
        self._started += time.perf_counter() - paused

    def close(self, samples: int, tokens: float, waited: float) -> Row:
        """The means over the window, and its speed; a new window begins.

        Args:
          samples, tokens: of one step.
          waited: seconds that the run has waited for data since it started.
        """
        now = time.perf_counter()
        seconds = max(now - self._started, 1e-9)
        mean = lambda name: np.mean([row[name] for row in self.rows], axis=0, dtype=np.float64)
        # Version 0.1.0 counted a spike rate of dense boundaries too.
        named = ("loss", *SCORES, "gradient_norm", "spike_rate", "bits")
        line = {
            **{name: mean(name).tolist() for name in named if all(name in r for r in self.rows)},
            "samples_per_second": samples * self._timed / seconds,
            "tokens_per_second": tokens * self._timed / seconds,
            "waiting_share": (waited - self._waited) / seconds,
        }
        self.rows, self._started, self._timed, self._waited = [], now, 0, waited
        return line


class Logbook:
    """Writes a run's metrics to its folder.

    Args:
      folder: of the run; made if absent.
      step: of the checkpoint that the run goes on from: later lines, which a stopped run wrote
        after it, are removed. 0 for a new run.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        path = folder / "metrics.jsonl"
        if path.exists():
            kept = [line for line in read_metrics(folder) if step and line["step"] <= step]
            write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._log = MetricsLog(path)
        self._board = _tensorboard(folder / "tensorboard")

    def write(self, kind: str, step: int, epoch: int, metrics: Mapping[str, Any]) -> None:
        """One line: `kind` is "train" or "evaluation"."""
        self._log.write({"kind": kind, "step": step, "epoch": epoch, **metrics})
        if self._board is not None:
            self._board.write(step, {f"{kind}/{name}": value for name, value in metrics.items()})

    def close(self) -> None:
        """Closes the files; a second call does nothing."""
        self._log.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def current_row(row: Row, encodes: bool) -> Row:
    """A step of a window that was saved when the cosine of a model that `encodes` was called
    "accuracy", under today's names."""
    if not encodes:
        return row
    return {"cosine" if name == "accuracy" else name: value for name, value in row.items()}


def read_metrics(folder: Path) -> list[Row]:
    """The lines of a run's metrics.jsonl; a last line cut off by a crash is left out.

    Raises:
      ValueError: no such file, or a line that is not one of a run's metrics.
    """
    path = Path(folder) / "metrics.jsonl"
    if not path.is_file():
        raise ValueError(f"{folder}: no metrics.jsonl in it; give the folder of a run")
    lines = read_text(path).split("\n")[:-1]  # what follows the last newline is incomplete
    return [_metrics(line, f"{path}: line {number}") for number, line in enumerate(lines, 1)]


def _metrics(line: str, where: str) -> Row:
    row = check(parse_json(line, where), LINE, where)
    if row["kind"] not in KINDS:
        raise ValueError(f"{where}: kind={row['kind']!r} must be {' or '.join(KINDS)}")
    return row


class Board:
    """Numbers by step, in a file of TensorBoard's.

    Written at once and by the run itself: tensorboardX's own writer has a thread, whose error on a
    full disk nobody would see until its traceback at the end of the process.

    Args:
      folder: of the file; made if absent.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        # As TensorBoard looks for it.
        self.path = folder / f"events.out.tfevents.{now:.0f}.{socket.gethostname()}.{os.getpid()}"
        self._file = RecordWriter(str(self.path))
        self._append(Event(wall_time=now, file_version="brain.Event:2"))

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Numbers, or arrays of some, by name."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        numbers = {
            name + (f"/{index}" if np.ndim(value) else ""): float(number)
            for name, value in values.items()
            for index, number in enumerate(np.ravel(np.asarray(value, np.float64)))
        }
        made = [Summary.Value(tag=tag, simple_value=number) for tag, number in numbers.items()]
        self._append(Event(wall_time=time.time(), step=step, summary=Summary(value=made)))

    def _append(self, event: Any) -> None:
        with naming(self.path):
            self._file.write(event.SerializeToString())
            self._file.flush()

    def close(self) -> None:
        """Closes the file; every number is in it already."""
        with contextlib.suppress(OSError):
            self._file.close()


def _tensorboard(folder: Path) -> Board | None:
    return Board(folder) if importlib.util.find_spec("tensorboardX") is not None else None
