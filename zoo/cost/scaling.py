"""How the margin of spiking boundaries moves with model size and devices, under one fixed rule.

The rule: 16 layers at every size, heads of 64 features, an MLP of 4 widths, a batch of 32 in 16
microbatches, one stage a device. Only the width and the number of devices change.

| variant | boundary |
|---|---|
| ann | float32, packed into one buffer |
| ann_packets | the same model, one packet of the link an activation |
| ann_int8 | 8 bits an activation, packed |
| hnn | spikes at 1 bit a feature, 4 steps |
| hnn_fitted | the same bits in 8 steps, a square matrix at either end, as calibration makes them |
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from snapjax import cost
from snapjax.boundary import Boundary
from zoo.cost.models import Setting, cut_of, schedule_of, trace_step, with_rate
from zoo.cost.priced import WORST, Rate, shipped
from zoo.models.model import Model
from zoo.models.registry import create_model, spike_boundary
from zoo.pretrained.locate import list_pretrained
from zoo.train.curves import COLOURS, plain
from zoo.utils.files import write_atomic

LAYERS, BATCH, MICROBATCHES = 16, 32, 16
# family -> (a preset to start from, what it is made into, widths)
FAMILIES: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "vit": (
        "vit_tiny_patch4_28",
        {"image_size": 224, "patch_size": 16, "channels": 3, "classes": 1000},
        (192, 384, 768),
    ),
    "bert": ("bert_micro", {"vocabulary": 30522, "positions": 512}, (256, 512, 1024)),
}
DEVICES = (2, 4, 8, 16)

Row = dict[str, Any]


VARIANTS = ("ann", "ann_packets", "ann_int8", "hnn", "hnn_fitted")


def build(family: str, variant: str, width: int, devices: int) -> Model:
    """The model that the rule says."""
    preset, fields, _ = FAMILIES[family]
    sizes = {"layers": LAYERS, "width": width, "heads": width // 64, "mlp_width": 4 * width}
    boundary = {
        "ann_int8": Boundary(width, code="int8"),
        "hnn": spike_boundary(width),
        "hnn_fitted": replace(spike_boundary(width, steps=8), rank=width),
    }.get(variant)
    return create_model(preset, "ann", devices, boundary, **sizes, **fields)


def family_rate(family: str) -> Rate:
    """The rate of a trained hybrid of the family that ships with the zoo, of its own validation;
    the worst case where none ships."""
    for name in list_pretrained():
        found = shipped(name) if name.startswith(family) else None
        if found is not None and found.model.boundary.spiking:
            return Rate(found.rate.value, f"{name}: {found.rate.how}")
    return WORST


def one_packet_an_activation(counts: cost.Counts, bits: float) -> cost.Counts:
    """The counts of a float32 boundary as if every activation took a packet of `bits`."""
    wider = lambda transfer: replace(
        transfer,
        payload_bytes=round(transfer.payload_bytes * bits / 32),
        sent=tuple(sent * bits / 32 for sent in transfer.sent),
    )
    moved = tuple(wider(t) if t.collective == "ppermute" else t for t in counts.transfers)
    return replace(counts, transfers=moved)


def run(
    profile: str | cost.Profile,
    families: Iterable[str] = tuple(FAMILIES),
    devices: Sequence[int] = DEVICES,
    sizes: int | None = None,
    train: bool = False,
    rate: float | None = None,
    done: Callable[[], object] = lambda: None,
) -> list[Row]:
    """One row a family, width, number of devices and variant.

    Args:
      profile: of the hardware.
      families: of `FAMILIES`.
      devices: divisors of the 16 layers.
      sizes: how many of a family's widths, from the smallest; None for all.
      train: whole training steps instead of forward passes.
      rate: spike rate to assume; None for `family_rate`.
      done: called after every row.
    """
    profile = cost.load_profile(profile)
    rows: list[Row] = []
    for family in families:
        known = family_rate(family) if rate is None else Rate(rate, "assumed")
        for width in FAMILIES[family][2][:sizes]:
            for count in devices:
                found = []
                for variant in VARIANTS:
                    found.append(_row(family, variant, width, count, profile, train, known))
                    done()
                rows += list(_with_margins(found))
    return rows


def _row(
    family: str,
    variant: str,
    width: int,
    devices: int,
    profile: cost.Profile,
    train: bool,
    rate: Rate,
) -> Row:
    model = build(family, variant, width, devices)
    setting = Setting(BATCH, MICROBATCHES, train=train)
    counts = with_rate(_step(model, setting), rate.value)
    if variant == "ann_packets":
        counts = one_packet_an_activation(counts, profile["link_packet_bits"])
    found = cost.estimate(
        counts,
        profile,
        schedule=schedule_of(model, setting, profile),
        cut=cut_of(model, setting),
    )
    spiking = model.boundary.spiking
    return {
        "family": family,
        "width": width,
        "parameters": counts.parameters,
        "devices": devices,
        "variant": variant,
        "rate": rate.value if spiking else None,
        "rate_is": rate.how if spiking else "no spikes",
        "macs": found.macs,
        "acs": found.acs,
        "hop_bytes": sum(link.bytes for link in found.links if link.transfer.pairs is not None),
        "energy_pj": found.energy.value,
        "energy_range_pj": [found.energy.low, found.energy.high],
        "link_energy_pj": found.energy_parts["links"].value,
        # In no total: what the program does in ticks in which a stage has no microbatch.
        "idle_energy_pj": found.idle_energy.value,
        # What encoding, packing and decoding take as the program's own operations; a circuit made
        # for it would take a fraction.
        "boundary_energy_pj": sum(
            module.picojoules.value
            for module in found.modules
            if "boundary" in module.path.split("/")
        ),
        "latency_s": found.latency.value,
        "latency_range_s": [found.latency.low, found.latency.high],
        "link_s": found.times.links,
    }


@lru_cache(maxsize=1)
def _step(model: Model, setting: Setting) -> cost.Counts:
    """`trace_step`, kept for the next variant: ann and ann_packets run one program."""
    return trace_step(model, setting)


MARGINS = ("energy_pj", "link_energy_pj", "latency_s", "link_s")


def _with_margins(rows: list[Row]) -> Iterator[Row]:
    """How many times less than the ANN's each figure is."""
    (ann,) = (row for row in rows if row["variant"] == "ann")
    for row in rows:
        margin = {name: ann[name] / row[name] for name in MARGINS}
        yield {**row, "margin": margin}


def grows(rows: Sequence[Row], figure: str, along: str, variant: str = "hnn") -> dict[str, bool]:
    """Whether a margin over the ANN grows with the width (or with the devices), for every number
    of devices (or every width).

    Args:
      rows: from `run`.
      figure: of `MARGINS`.
      along: "width" or "devices".
      variant: whose margin.

    Returns:
      "vit, devices=4" (or "vit, width=192") -> whether each step along `along` has a larger margin;
      nothing of a line of one point.
    """
    other = "devices" if along == "width" else "width"
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if row["variant"] == variant:
            line = lines.setdefault(f"{row['family']}, {other}={row[other]}", [])
            line.append((row[along], row["margin"][figure]))
    ascending = lambda line: [margin for _, margin in sorted(line)]
    return {
        name: all(a < b for a, b in zip(ascending(line), ascending(line)[1:], strict=False))
        for name, line in lines.items()
        if len(line) > 1
    }


LABELS = {"hnn": "spikes", "hnn_fitted": "spikes with matrices", "ann_int8": "int8"}


def markdown(studies: Mapping[str, Sequence[Row]]) -> str:
    """How many times less than the float32 boundary's the whole energy and latency are, at the
    ends of both directions; a column for each study and for spikes, fitted ones and 8 bits.

    Args:
      studies: what is written over a study's columns -> its rows; all studies have the same
        families, widths and devices.
    """
    shown = [(name, variant) for name in studies for variant in LABELS]
    lines = [
        "| model | devices | " + " | ".join(f"{name}, {LABELS[v]}" for name, v in shown) + " |",
        "|---|---|" + "---|" * len(shown),
    ]
    found = {
        (name, row["family"], row["width"], row["devices"], row["variant"]): row["margin"]
        for name, rows in studies.items()
        for row in rows
    }
    for family in dict.fromkeys(key[1] for key in found):
        widths = {key[2] for key in found if key[1] == family}
        devices = {key[3] for key in found if key[1] == family}
        for width in sorted({min(widths), max(widths)}):
            for count in sorted({min(devices), max(devices)}):
                margins = [found[name, family, width, count, variant] for name, variant in shown]
                cells = [f"{m['energy_pj']:.3f}, {m['latency_s']:.3f}" for m in margins]
                lines.append(f"| {family} {width} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def finding(rows: Sequence[Row]) -> str:
    """What each variant takes more or less than the float32 boundary, over all rows of a study."""

    def change(variant: str, figure: str) -> str:
        found = [1 / row["margin"][figure] - 1 for row in rows if row["variant"] == variant]
        low, high = (
            f"{round(100 * end):+d}".replace("+0", "0") for end in (min(found), max(found))
        )
        return f"{low} %" if low == high else f"{low} to {high} %"

    return "; ".join(
        f"{label} {change(variant, 'energy_pj')} of energy and "
        f"{change(variant, 'latency_s')} of time"
        for variant, label in LABELS.items()
    )


def plot(path: str | Path, rows: Sequence[Row], title: str) -> None:
    """Margins of every variant over the ANN against the number of devices, as one PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    families = list(dict.fromkeys(row["family"] for row in rows))
    shown = (("energy_pj", "energy, all"), ("link_energy_pj", "energy of the links"),
             ("latency_s", "latency, all"))  # fmt: skip
    figure = Figure(figsize=(4.4 * len(shown), 3.6 * len(families)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(families), len(shown), squeeze=False)
    others = [name for name in VARIANTS if name != "ann"]
    for line, family in zip(grid, families, strict=True):
        mine = [row for row in rows if row["family"] == family]
        widths = sorted({row["width"] for row in mine})
        for axes, (figure_name, label) in zip(line, shown, strict=True):
            for index, variant in enumerate(others):
                for style, width in zip(("-", "--", ":", "-."), widths, strict=False):
                    points = [r for r in mine if (r["variant"], r["width"]) == (variant, width)]
                    axes.plot(
                        [row["devices"] for row in points],
                        [row["margin"][figure_name] for row in points],
                        style,
                        marker=".",
                        color=COLOURS[index],
                        label=f"{variant}, {width} wide",
                    )
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set(title=f"{family}: {label}", xlabel="devices", ylabel="times less than ann")
            axes.grid(alpha=0.3, which="both")
        line[-1].legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(plain(title))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomic(path, buffer.getvalue())
