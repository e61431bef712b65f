"""The picture of a table of models: what they score against what they send."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from zoo.evaluation import compare
from zoo.train.curves import COLOURS, plain, save

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")


def scores(path: str | Path, rows: Sequence[compare.Record]) -> None:
    """What models score against the bytes that a token costs on a hop, as one PNG.

    A colour is a boundary and a marker is a training, both from the start again after eight; rows
    of one boundary and training are joined. A score far under the others stands below them all,
    with its value.

    Args:
      path: of the PNG.
      rows: of `zoo.evaluation.compare.record`.

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
        key = plain(compare.WHAT["boundary"](row)), plain(row["weights"])
        series.setdefault(key, []).append((row["bytes_per_token_and_hop"], row[score]))
    boundaries, weights = (list(dict.fromkeys(part)) for part in zip(*series, strict=True))
    lowest, edge = _lowest([row[score] for row in rows])
    under: dict[int, list[str]] = {}
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
                under.setdefault(size, []).append(f"{value:.3f}")
    for size, shown in under.items():  # several of one size stand at one place
        axes.annotate(", ".join(shown), (size, edge), xytext=(6, 4),
                      textcoords="offset points", fontsize="small")  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set(xlabel="bytes a token on each hop", ylabel=compare.SCORES[score])
    axes.grid(alpha=0.3)
    handles = [
        Line2D([], [], color=_of(COLOURS, boundaries, name), label=name) for name in boundaries
    ]
    handles += [
        Line2D([], [], color="grey", ls="", marker=_of(MARKERS, weights, name), label=name)
        for name in weights
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize="small")
    save(figure, path)


def _lowest(values: Sequence[float]) -> tuple[float, float]:
    """The lowest value that is drawn at its place, and where those under it are drawn: values ten
    times as far from the best as the median is would leave the others no room."""
    ordered = sorted(values)
    best, span = ordered[-1], ordered[-1] - ordered[len(ordered) // 2]
    lowest = min(value for value in ordered if value >= best - 10 * span or not span)
    return lowest, lowest - 0.1 * (best - lowest)


def _of(styles: Sequence[str], names: list[str], name: str) -> str:
    return styles[names.index(name) % len(styles)]
