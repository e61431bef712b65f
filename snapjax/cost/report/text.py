"""An estimate as readable text and as JSON."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from snapjax.cost.counts import KINDS
from snapjax.cost.price.amounts import Amount, total
from snapjax.cost.price.estimate import Estimate, ModuleCost
from snapjax.cost.price.traffic import ENCODINGS

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"), (1e-12, "p"))


def si(value: float, unit: str = "") -> str:
    """A number with three digits and a prefix.

    Example:
      >>> si(2.5e-6, "s"), si(11174215680), si(0, "B")
      ('2.5 us', '11.2 G', '0 B')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}".strip()
    scales = _PREFIXES if abs(value) >= 1 else _SMALL
    fits = (pair for pair in scales if abs(value) >= pair[0] * 0.9995)
    scale, prefix = next(fits, scales[-1])
    return f"{value / scale:.3g} {prefix}{unit}".strip()


def joules(picojoules: float) -> str:
    """pJ as text in J, mJ, ..."""
    return si(picojoules * 1e-12, "J")


def span(amount: Amount, text: Any) -> str:
    """An amount and its range."""
    return f"{text(amount.value)} ({text(amount.low)} to {text(amount.high)})"


def seconds(value: float) -> str:
    """Seconds with an SI prefix."""
    return si(value, "s")


def modules_to_depth(estimate: Estimate, depth: int) -> list[ModuleCost]:
    """The modules with those below `depth` levels put into their ancestors; in program order."""
    groups: dict[str, list[ModuleCost]] = {}
    for module in estimate.modules:
        path = "/".join(module.path.split("/")[:depth]) if module.path else "(top)"
        groups.setdefault(path, []).append(module)
    add = lambda name, rows: sum(getattr(row, name) for row in rows)
    return [
        ModuleCost(
            path=path,
            macs=add("macs", rows),
            acs=add("acs", rows),
            others=add("others", rows),
            memory_bytes=add("memory_bytes", rows),
            energy={p: total(row.energy[p] for row in rows) for p in rows[0].energy},
            seconds=total(row.seconds for row in rows),
        )
        for path, rows in groups.items()
    ]


def latency_rows(estimate: Estimate) -> list[tuple[str, float]]:
    """(what, seconds) of one step: the parts that add up to its latency, and what overlap hides."""
    times = estimate.times
    rows = [(name, getattr(times, name)) for name in ("compute", "memory", "start", "bubble")]
    rows += [("links", times.links), ("hidden by overlap", -times.hidden)]
    return [(name, value) for name, value in rows if value]


def table(estimate: Estimate, depth: int = 3) -> str:
    """An estimate as readable text: totals, modules, links, encodings, notes.

    Args:
      estimate: from `snapjax.cost.estimate`.
      depth: levels of module paths that have a row of their own; deeper ones are in their
        ancestor's.
    """
    counts, profile = estimate.counts, estimate.profile
    mesh = " x ".join(f"{n} {axis}" for axis, n in counts.mesh.items() if n > 1) or "no mesh"
    known = counts.parameters is not None
    head = [
        f"{profile.name}: {profile.description}",
        f"{counts.devices} devices ({mesh}), counted from the {counts.source}"
        + (f", {counts.parameters:,} parameters" if known else ""),
        "",
    ]
    totals = [
        ("multiply-accumulates", _count(estimate.macs)),
        ("of these accumulates, for spikes", _accumulates(estimate)),
        ("energy", span(estimate.energy, joules)),
        *((f"  {part}", span(pj, joules)) for part, pj in estimate.energy_parts.items()),
        *(
            [("idle ticks of the pipeline, in no total", span(estimate.idle_energy, joules))]
            if estimate.idle_energy.high
            else []
        ),
        (
            "energy of MACs and ACs alone",
            f"{joules(estimate.mac_ac_pj)} at 4.6 and 0.9 pJ; "
            f"{joules(estimate.dense_mac_pj)} if no operand were spikes",
        ),
        ("latency", span(estimate.latency, seconds)),
        *((f"  {name}", seconds(value)) for name, value in latency_rows(estimate)),
    ]
    sections = ["\n".join(head) + _columns([], totals, right=())]
    modules = modules_to_depth(estimate, depth)
    rows = [
        (
            module.path,
            si(module.macs),
            si(module.acs),
            si(module.others),
            si(module.memory_bytes, "B"),
            joules(module.picojoules.value),
            seconds(module.seconds.value),
        )
        for module in modules
    ]
    names = ("module", "MACs", "ACs", "other ops", "memory", "energy", "time a device")
    sections.append(_columns(names, rows))
    if estimate.links:
        link_names = (
            "link",
            "path",
            "carries",
            "a message",
            "times",
            "all links",
            "energy",
            "time",
        )
        rows_of_links = [
            (
                f"{link.transfer.collective} over {', '.join(link.transfer.axes)}",
                link.transfer.path or "(top)",
                link.transfer.symbol,
                f"{link.transfer.payload_bytes:,} B",
                f"{link.transfer.executions:g}",
                f"{link.bytes:,.0f} B",
                joules(link.energy.value),
                seconds(link.seconds.value),
            )
            for link in estimate.links
        ]
        sections.append(_columns(link_names, rows_of_links, right=range(3, 8)))
    if estimate.traffic:
        encodings = [
            (
                row.path or "(top)",
                _range(row.least, row.rate) if row.known else f"{row.rate:.3f} (assumed)",
                *(si(row.bytes[name], "B") for name in ENCODINGS),
                f"{row.break_even.events:.3f}",
                f"{row.break_even.entropy:.3f}",
            )
            for row in estimate.traffic
        ]
        by = ("spikes sent by", "rate", *ENCODINGS, "break-even, events", "entropy")
        sections.append(_columns(by, encodings))
    if counts.unpriced:
        unpriced = [(u.primitive, u.path, f"{u.size:,}", u.reason) for u in counts.unpriced]
        sections.append(_columns(("no price", "path", "elements", "why"), unpriced, right=(2,)))
    sections.append("\n".join(f"- {note}" for note in estimate.notes))
    return "\n\n".join(sections)


def to_dict(estimate: Estimate) -> dict[str, Any]:
    """An estimate in JSON's own types: pJ, bytes and seconds, of all devices unless said."""
    counts, schedule = estimate.counts, estimate.schedule
    status = estimate.profile.by_status()
    return {
        "profile": estimate.profile.name,
        "constants": {name: len(constants) for name, constants in status.items()},
        "source": counts.source,
        "devices": counts.devices,
        "mesh": dict(counts.mesh),
        "parameters": counts.parameters,
        "macs": estimate.macs,
        "acs": estimate.acs,
        "acs_range": [counts.devices * end for end in counts.acs_bounds],
        "ops_per_device": {kind: counts.total(kind) for kind in KINDS},
        "rates": dict(counts.rates),
        "energy_pj": estimate.energy.value,
        "energy_range_pj": [estimate.energy.low, estimate.energy.high],
        "energy_parts_pj": {part: a.to_dict() for part, a in estimate.energy_parts.items()},
        "idle_ticks_pj": {part: a.to_dict() for part, a in estimate.idle_parts.items()},
        "mac_ac_pj": estimate.mac_ac_pj,
        "dense_mac_pj": estimate.dense_mac_pj,
        "latency_s": estimate.latency.value,
        "latency_range_s": [estimate.latency.low, estimate.latency.high],
        "latency_parts_s": estimate.times._asdict(),
        "overlap": estimate.overlap,
        "schedule": None
        if schedule is None
        else {
            "stages": schedule.stages,
            "microbatches": schedule.microbatches,
            "bubble": schedule.bubble,
            "imbalance": schedule.imbalance,
        },
        "links": [
            {
                "collective": link.transfer.collective,
                "path": link.transfer.path,
                "axes": list(link.transfer.axes),
                "pairs": None if link.transfer.pairs is None else [*map(list, link.transfer.pairs)],
                "symbol": link.transfer.symbol,
                "bytes_per_message": link.transfer.payload_bytes,
                "executions": link.transfer.executions,
                "bytes": link.bytes,
                "bytes_on_all_links": link.crossed,
                "bytes_of_busiest_device": dict(link.bytes_per_axis),
                "energy_pj": link.energy.value,
                "seconds": link.seconds.value,
            }
            for link in estimate.links
        ],
        "traffic": [
            {
                "path": row.path,
                "rate": row.rate,
                "rate_range": [row.least, row.rate],
                "rate_known": row.known,
                "bytes": dict(row.bytes),
                "break_even": {
                    "dense_bits": row.break_even.dense_bits,
                    "planes_bits": row.break_even.planes_bits,
                    "planes_win": row.break_even.planes_win,
                    "events": row.break_even.events,
                    "entropy": row.break_even.entropy,
                    "compute": row.break_even.compute,
                },
            }
            for row in estimate.traffic
        ],
        "modules": [
            {
                "path": module.path,
                "macs": module.macs,
                "acs": module.acs,
                "other_ops": module.others,
                "memory_bytes": module.memory_bytes,
                "energy_pj": {part: amount.value for part, amount in module.energy.items()},
                "seconds_per_device": module.seconds.value,
            }
            for module in estimate.modules
        ],
        "unpriced": [
            {"primitive": u.primitive, "path": u.path, "elements": u.size, "reason": u.reason}
            for u in counts.unpriced
        ],
        "notes": list(estimate.notes),
    }


def _accumulates(estimate: Estimate) -> str:
    """The accumulates that are priced, and how few and how many they may be."""
    low, high = (estimate.counts.devices * end for end in estimate.counts.acs_bounds)
    open_ = high - low > 1e-9 * high
    return _count(estimate.acs) + (f", of {_count(low)} to {_count(high)}" if open_ else "")


def _range(low: float, high: float) -> str:
    return f"{high:.3f}" if high - low < 5e-4 else f"{low:.3f} to {high:.3f}"


def _count(number: float) -> str:
    return f"{number:,.0f} ({si(number)})"


def _columns(
    names: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] | None = None
) -> str:
    """Text in columns; those of `right` end flush, by default all but the first."""
    lines = [list(names), *map(list, rows)] if names else [*map(list, rows)]
    lines = [[plain(cell) for cell in line] for line in lines]
    width = len(lines[0]) if lines else 0
    flush = set(range(1, width)) if right is None else set(right)
    sizes = [max(len(line[i]) for line in lines) for i in range(width)]
    if names:
        lines.insert(1, ["-" * size for size in sizes])
    put = lambda cell, i: cell.rjust(sizes[i]) if i in flush else cell.ljust(sizes[i])
    return "\n".join("  ".join(map(put, line, range(width))).rstrip() for line in lines)


def plain(text: str) -> str:
    """One line without control characters: names come from the user's program."""
    return re.sub(r"[\x00-\x1f\x7f]", " ", text)
