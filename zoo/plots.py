"""Pictures of runs, drawn without a display."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from zoo.files import write_atomic

# Colours that stay apart for colour-blind readers (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def training(
    path: str | Path,
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    bytes_per_token: Mapping[str, int],
) -> None:
    """Learning curves, spike rate of every boundary, and bytes on each hop, as one PNG.

    Args:
      path: of the PNG.
      runs: name -> one record an epoch, with "epoch", "train_loss", "loss", "accuracy" and
        "spike_rate" (a list, one entry a boundary; empty or all 1 for dense runs).
      bytes_per_token: name -> bytes that one token costs on one hop.
    """
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy, rate, traffic = figure.subplots(1, 4)
    for (name, records), colour in zip(runs.items(), COLOURS, strict=False):
        epochs = [record["epoch"] for record in records]
        loss.plot(epochs, [r["train_loss"] for r in records], color=colour, ls=":", marker=".")
        loss.plot(epochs, [r["loss"] for r in records], color=colour, marker=".", label=name)
        accuracy.plot(
            epochs, [r["accuracy"] for r in records], color=colour, marker=".", label=name
        )
        cuts = len(records[0]["spike_rate"])
        for cut in range(cuts):
            rates = [record["spike_rate"][cut] for record in records]
            if min(rates) < 1:
                rate.plot(epochs, rates, color=COLOURS[cut], label=f"cut {cut + 1} -> {cut + 2}")
    loss.set(title="cross-entropy (dotted: training)", xlabel="epoch", yscale="log")
    accuracy.set(title="held-out accuracy", xlabel="epoch")
    rate.set(title="spike rate of each boundary", xlabel="epoch", ylim=(0, 1))
    for axes in (loss, accuracy, rate):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    names = list(bytes_per_token)
    bars = traffic.barh(names, [bytes_per_token[name] for name in names], color=COLOURS[0])
    traffic.bar_label(bars, padding=3)
    traffic.invert_yaxis()
    traffic.margins(x=0.2)
    traffic.set(title="bytes a token on each hop")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomic(path, buffer.getvalue())
