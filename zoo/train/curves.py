"""Curves of runs, drawn without a display."""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from zoo.train.logbook import SCORES, read_metrics
from zoo.utils.files import write_atomic
from zoo.utils.notes import note

# Colours that stay apart for colour-blind readers (Okabe and Ito 2008), and a brown.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B")

Line = Mapping[str, Any]


def runs(path: str | Path, metrics: Mapping[str, Sequence[Line]]) -> None:
    """Loss, accuracy or cosine, spike rates and bits on each hop of one or more runs, as one PNG.

    Args:
      path: of the PNG.
      metrics: name of a run -> its lines, see `zoo.train.logbook.read_metrics`.
    """
    figure = Figure(figsize=(14, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    loss, score, rate, traffic = figure.subplots(1, 4)
    short = {_short(name): lines for name, lines in metrics.items()}
    metrics = short if len(short) == len(metrics) else metrics  # or one would hide another
    score_names: set[str] = set()
    for index, (name, lines) in enumerate((plain(name), each) for name, each in metrics.items()):
        colour = COLOURS[index % len(COLOURS)]
        train = [line for line in lines if line["kind"] == "train"]
        scored = [line for line in lines if line["kind"] == "evaluation"]
        draw = lambda axes, points, key, **style: axes.plot(
            [point["step"] for point in points],
            [_number(point.get(key)) for point in points],
            **style,
        )
        draw(loss, train, "loss", color=colour, ls=":", lw=1)
        draw(loss, scored, "loss", color=colour, marker=".", label=name)
        points = [(key, line) for line in scored for key in SCORES if key in line]
        score.plot(
            [line["step"] for _, line in points],
            [_number(line[key]) for key, line in points],
            color=colour,
            marker=".",
            label=name,
        )
        score_names |= {key for key, _ in points}
        cuts = max((len(line.get("bits", [])) for line in train), default=0)
        for cut in range(cuts):
            steps = [line["step"] for line in train]
            # One colour a run when there are several, one a boundary when there is one.
            shade = COLOURS[cut % len(COLOURS)] if len(metrics) == 1 else colour
            rates = [_of_cut(line.get("spike_rate", []), cut) for line in train]
            label = f"{name}, " if len(metrics) > 1 else ""
            # A dense boundary has none; version 0.1.0 wrote 1 for it.
            if any(value < 1 for value in rates):
                rate.plot(steps, rates, color=shade, lw=1, label=f"{label}cut {cut + 1}")
            bits = [_of_cut(line.get("bits", []), cut) for line in train]
            traffic.plot(steps, bits, color=shade, label=f"{label}cut {cut + 1}")
    values = [_number(line.get("loss")) for lines in metrics.values() for line in lines]
    scale = "log" if any(value > 0 for value in values) else "linear"
    loss.set(title="cross-entropy (dotted: training)", xlabel="step", yscale=scale)
    score.set(title=f"validation {' or '.join(sorted(score_names))}", xlabel="step")
    rate.set(title="spike rate of each boundary", xlabel="step", ylim=(0, 1))
    traffic.set(title="bits a token on each hop", xlabel="step", ylim=(0, None))
    for axes in (loss, score, rate, traffic):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    save(figure, path)


def names(folders: Sequence[Path]) -> list[str]:
    """What runs are called by their folders: the last part, where that tells them apart."""
    last = [folder.resolve().name for folder in folders]
    return last if len(set(last)) == len(last) else [str(folder) for folder in folders]


def of_runs(folders: Sequence[Path]) -> dict[str, list[Line]]:
    """The metrics of runs by their `names`, for `runs`.

    Raises:
      ValueError: a folder that is of no run, or one that has not reported yet.
    """
    metrics = {
        name: read_metrics(folder) for name, folder in zip(names(folders), folders, strict=True)
    }
    if empty := [name for name, lines in metrics.items() if not lines]:
        raise ValueError(f"{', '.join(empty)}: metrics.jsonl has no complete line yet")
    return metrics


def plain(text: str) -> str:
    """A text as matplotlib shows it letter by letter: no "$...$" is mathematics, and no first "_"
    keeps it out of a legend."""
    return (" " * text.startswith("_") + text).replace("$", r"\$")


def save(figure: Figure, path: str | Path) -> None:
    """The figure as a PNG, whole or not at all."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(record=True) as told:
        warnings.filterwarnings("always", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", dpi=120)
    if told:  # one for each character
        note(f"{path}: characters that no font here has are drawn as boxes; rename the runs")
    write_atomic(path, buffer.getvalue())


def _number(value: float | None) -> float:
    """A value of metrics.jsonl to draw: one that is not finite is null there."""
    return math.nan if value is None else value


def _of_cut(values: Sequence[float | None], cut: int) -> float:
    return _number(values[cut]) if cut < len(values) else math.nan


def _short(name: str) -> str:
    """The end of a long name, so that legends leave room for the curves."""
    return name if len(name) <= 24 else f"...{name[-21:]}"
