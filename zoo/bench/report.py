"""The bench of some models, as records (the JSON file) and as a table (the terminal)."""

import os
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
from rich.table import Table

from zoo.bench import inputs, peers
from zoo.bench.ours import Ours, parameter_count
from zoo.bench.rounds import Run, median_ratio, time_in_turn
from zoo.models.registry import create_model

Record = dict[str, Any]

VARIANTS = {"ANN": "ann", "HNN": "hnn"}
STAGES = 4
NOTES = (
    "samples/s and tokens/s: at the median time of a step. A ratio is the median of those of the "
    "rounds. Tokens are patches or positions of the text; a class token is not counted.",
    "ANN, HNN: dense or spiking boundaries (phase, 1 bit a feature) between 4 stages that run on "
    "one device. An HNN's boundary share is 1 - ANN / HNN.",
    "train: loss, gradients, clip, AdamW. forward: loss without gradients. float32, no dropout.",
    "ANN, fed: the training step on batches from zoo.data, made in the background, steps on end; "
    "the other rows use one batch again and again, in turn.",
)
TORCH_NOTES = (
    "PyTorch: Hugging Face's model of the same sizes, eager mode, sdpa, fused AdamW, as many "
    "threads as cores.",
    "PyTorch's ViT has a class token beside the patches and classifies its output; ours is the "
    "mean over the patches.",
    "Hugging Face's BERT computes logits at all positions; 'masked logits' calls its modules at "
    "the masked ones alone, as ours does. Its decoder is not tied to the token table, as ours.",
)

# Of the cores; below it, what ran a minute ago is perhaps only this program's start.
BUSY_FROM = 0.5
BUSY = (
    "The machine was busy before the start (load {load:.1f}): do not trust these figures. "
    "PyTorch's threads spin while they wait for each other and lose most from that."
)


def bench(
    names: Sequence[str],
    batch_size: int = 64,
    repeats: int = 7,
    with_torch: bool = True,
    images: str | None = None,
    text: str | None = None,
    done: Callable[[], object] = lambda: None,
) -> Record:
    """Measures some models one after the other, the runs of a model in turn.

    Args:
      names: of `zoo.models.registry.list_models()`.
      batch_size: samples a step.
      repeats: rounds that the medians are of.
      with_torch: also PyTorch's rows, where it is installed.
      images, text: see `zoo.bench.inputs.split_for`.
      done: called whenever one of the `visits` is over.

    Returns:
      {"rows": records, ...}, JSON-able; see `table`.

    Raises:
      ValueError: an unknown name, or data that do not fit.
    """
    torch = with_torch and peers.installed()
    load, rows = os.getloadavg()[0], []
    for name in names:
        rows += _bench_model(name, batch_size, repeats, torch, images, text, done)
    return {
        "device": jax.devices()[0].device_kind,
        "cores": peers.cores(),
        "load": load,
        "jax": jax.__version__,
        "torch": peers.versions() if torch else None,
        "batch_size": batch_size,
        "repeats": repeats,
        "rows": rows,
        "notes": [
            *NOTES,
            *(TORCH_NOTES if torch else ()),
            *((peers.MISSING,) if with_torch and not torch else ()),
            *((BUSY.format(load=load),) if load > BUSY_FROM * peers.cores() else ()),
        ],
    }


def _bench_model(
    name: str,
    batch_size: int,
    repeats: int,
    torch: bool,
    images: str | None,
    text: str | None,
    done: Callable[[], object],
) -> list[Record]:
    models = {label: create_model(name, variant, STAGES) for label, variant in VARIANTS.items()}
    config = models["ANN"].config
    split, source = inputs.split_for(config, images, text)
    batch = next(inputs.batches(split, batch_size))
    ours = {label: Ours(model, batch_size) for label, model in models.items()}
    subjects = {label: mine.runs(batch) for label, mine in ours.items()}
    parameters = {label: parameter_count(model) for label, model in models.items()}
    if torch:
        for label, masked in peers.labels(config).items():
            peer = peers.Peer(config, batch, masked)
            subjects[label] = peer.runs()
            parameters[label] = sum(p.numel() for p in peer.model.parameters())
    runs: dict[str, Run] = {
        f"{label}, {kind}": run for label, kinds in subjects.items() for kind, run in kinds.items()
    }
    seconds = time_in_turn(runs, repeats, done=done)
    samples = lambda time: {
        "seconds": time,
        "samples_per_second": batch_size / time,
        "tokens_per_second": batch_size * inputs.tokens_per_sample(config) / time,
    }
    rows: list[Record] = []
    for kind in ("train", "forward"):
        for label in subjects:
            ratio = median_ratio(seconds, f"{label}, {kind}", f"ANN, {kind}")
            rows.append(
                {
                    "model": name,
                    "pass": kind,
                    "run": label,
                    "parameters": parameters[label],
                    **samples(statistics.median(seconds[f"{label}, {kind}"])),
                    "time_over_ann": ratio,
                    "boundary_share": 1 - 1 / ratio if label == "HNN" else None,
                }
            )
    fed = inputs.waiting(ours["ANN"], split, batch_size, steps=2 * repeats)
    done()
    rows.append(
        {
            "model": name,
            "pass": "train",
            "run": "ANN, fed",
            "parameters": parameters["ANN"],
            **samples(fed.step),
            "time_over_ann": fed.step / rows[0]["seconds"],
            "boundary_share": None,
            "waiting_share": fed.waiting,
            "batch_seconds": fed.making,
            "data": source,
        }
    )
    return rows


def visits(names: Sequence[str], repeats: int, with_torch: bool) -> int:
    """How often `bench` calls `done`."""
    torch = with_torch and peers.installed()
    total = 0
    for name in names:
        others = peers.labels(create_model(name, "ann", STAGES).config) if torch else ()
        total += 2 * (len(VARIANTS) + len(others)) * (repeats + 1) + 1
    return total


# Column title -> how it is shown.
COLUMNS: dict[str, Callable[[Record], str]] = {
    "model": lambda row: row["model"],
    "pass": lambda row: row["pass"],
    "run": lambda row: row["run"],
    "parameters": lambda row: f"{row['parameters'] / 1e6:.3f} M",
    "ms a step": lambda row: f"{1e3 * row['seconds']:.1f}",
    "samples/s": lambda row: f"{row['samples_per_second']:.0f}",
    "tokens/s": lambda row: f"{row['tokens_per_second']:.0f}",
    "time / ANN": lambda row: f"{row['time_over_ann']:.3f}",
    "share of the step": lambda row: _share(row),
}


def _share(row: Record) -> str:
    if row["boundary_share"] is not None:
        return f"boundaries {row['boundary_share']:.1%}"
    if "waiting_share" in row:
        return f"waiting for data {row['waiting_share']:.2%}"
    return ""


def table(record: Record) -> Table:
    """The result of `bench` for a terminal."""
    others = f", {record['torch']}" if record["torch"] else ""
    drawn = Table(
        title=f"batch {record['batch_size']} on {record['cores']} cores ({record['device']}), "
        f"{record['repeats']} repeats, jax {record['jax']}{others}",
        caption="\n".join(record["notes"]),
        caption_justify="left",
    )
    for i, name in enumerate(COLUMNS):
        drawn.add_column(name, justify="right" if 2 < i < len(COLUMNS) - 1 else "left")
    for before, row in zip([None, *record["rows"]], record["rows"], strict=False):
        if before and before["model"] != row["model"]:
            drawn.add_section()
        drawn.add_row(*(show(row) for show in COLUMNS.values()))
    return drawn
