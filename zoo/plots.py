"""Pictures of runs and of tables of models, drawn without a display."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from zoo import compare
from zoo.files import write_atomic

# Colours that stay apart for colour-blind readers (Okabe and Ito 2008), and a brown.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")

Line = Mapping[str, Any]


def runs(
    path: str | Path,
    metrics: Mapping[str, Sequence[Line]],
    bytes_per_token: Mapping[str, float] | None = None,
) -> None:
    """Loss, accuracy, spike rates and bits on each hop of one or more runs, as one PNG.

    Args:
      path: of the PNG.
      metrics: name of a run -> its lines, see `zoo.train.logbook.read_metrics`.
      bytes_per_token: name -> bytes that one token costs on one hop, drawn as bars instead of the
        bits over time.
    """
    figure = Figure(figsize=(14, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy, rate, traffic = figure.subplots(1, 4)
    short = {_short(name): lines for name, lines in metrics.items()}
    metrics = short if len(short) == len(metrics) else metrics  # or one would hide another
    for index, (name, lines) in enumerate(metrics.items()):
        colour = COLOURS[index % len(COLOURS)]
        train = [line for line in lines if line["kind"] == "train"]
        scored = [line for line in lines if line["kind"] == "evaluation"]
        draw = lambda axes, points, key, **style: axes.plot(
            [point["step"] for point in points], [point[key] for point in points], **style
        )
        draw(loss, train, "loss", color=colour, ls=":", lw=1)
        draw(loss, scored, "loss", color=colour, marker=".", label=name)
        draw(accuracy, scored, "accuracy", color=colour, marker=".", label=name)
        cuts = len(train[0]["spike_rate"]) if train else 0
        for cut in range(cuts):
            steps = [line["step"] for line in train]
            # One colour a run when there are several, one a boundary when there is one.
            shade = COLOURS[cut % len(COLOURS)] if len(metrics) == 1 else colour
            rates = [line["spike_rate"][cut] for line in train]
            label = f"{name}, " if len(metrics) > 1 else ""
            if min(rates) < 1:  # a dense boundary reports 1
                rate.plot(steps, rates, color=shade, lw=1, label=f"{label}cut {cut + 1}")
            if bytes_per_token is None:
                bits = [line["bits"][cut] for line in train]
                traffic.plot(steps, bits, color=shade, label=f"{label}cut {cut + 1}")
    loss.set(title="cross-entropy (dotted: training)", xlabel="step", yscale="log")
    accuracy.set(title="validation accuracy", xlabel="step")
    rate.set(title="spike rate of each boundary", xlabel="step", ylim=(0, 1))
    shown = [loss, accuracy, rate]
    if bytes_per_token is None:
        traffic.set(title="bits a token on each hop", xlabel="step", ylim=(0, None))
        shown.append(traffic)
    else:
        _bars(traffic, bytes_per_token)
    for axes in shown:
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    _save(figure, path)


def scores(path: str | Path, rows: Sequence[compare.Record]) -> None:
    """What models score against the bytes that a token costs on a hop, as one PNG.

    A colour is a boundary and a marker is a training, both from the start again after eight; rows
    of one boundary and training are joined. A score far under the others stands below them all,
    with its value.

    Args:
      path: of the PNG.
      rows: of `zoo.compare.record`.

    Raises:
      ValueError: no rows, or no score that all have.
    """
    score = next((name for name in compare.SCORES if all(name in row for row in rows)), None)
    if not rows or score is None:
        raise ValueError(f"rows: {len(rows)} models have no score in common; score them alike")
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    series: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in rows:
        key = compare.WHAT["boundary"](row), row["weights"]
        series.setdefault(key, []).append((row["bytes_per_token_and_hop"], row[score]))
    boundaries, weights = (list(dict.fromkeys(part)) for part in zip(*series, strict=True))
    lowest, edge = _lowest([row[score] for row in rows])
    for (boundary, origin), points in series.items():
        sizes, values = zip(*sorted(points), strict=True)
        axes.plot(
            sizes,
            [value if value >= lowest else edge for value in values],
            color=_of(COLOURS, boundaries, boundary),
            marker=_of(MARKERS, weights, origin),
            ls="-" if len(points) > 1 else "",
            label=f"{boundary}, {origin}",
        )
        for size, value in zip(sizes, values, strict=True):
            if value < lowest:
                axes.annotate(f"{value:.3f}", (size, edge), xytext=(6, 4),
                              textcoords="offset points", fontsize="small")  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set(xlabel="bytes a token on each hop", ylabel=compare.SCORES[score])
    axes.grid(alpha=0.3)
    shown = [
        Line2D([], [], color=_of(COLOURS, boundaries, name), label=name) for name in boundaries
    ]
    shown += [
        Line2D([], [], color="grey", ls="", marker=_of(MARKERS, weights, name), label=name)
        for name in weights
    ]
    figure.legend(handles=shown, loc="outside right upper", fontsize="small")
    _save(figure, path)


def names(folders: Sequence[Path]) -> list[str]:
    """What runs are called by their folders: the last part, where that tells them apart."""
    last = [folder.resolve().name for folder in folders]
    return last if len(set(last)) == len(last) else [str(folder) for folder in folders]


def _lowest(values: Sequence[float]) -> tuple[float, float]:
    """The lowest value that is drawn at its place, and where those under it are drawn: values ten
    times as far from the best as the median is would leave the others no room."""
    ordered = sorted(values)
    best, span = ordered[-1], ordered[-1] - ordered[len(ordered) // 2]
    lowest = min(value for value in ordered if value >= best - 10 * span or not span)
    return lowest, lowest - 0.1 * (best - lowest)


def _of(styles: Sequence[str], names: list[str], name: str) -> str:
    return styles[names.index(name) % len(styles)]


def _save(figure: Figure, path: str | Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomic(path, buffer.getvalue())


def _short(name: str) -> str:
    """The end of a long name, so that legends leave room for the curves."""
    return name if len(name) <= 24 else f"...{name[-21:]}"


def _bars(axes: Any, bytes_per_token: Mapping[str, float]) -> None:
    names = list(bytes_per_token)
    bars = axes.barh(names, [bytes_per_token[name] for name in names], color=COLOURS[0])
    axes.bar_label(bars, padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set(title="bytes a token on each hop")
