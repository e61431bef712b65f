"""What the boundaries of the results tables cost: each row's own, beside the quality it has.

A row of a table names a boundary in full, and that boundary is priced, with its matrices and its
steps, in the model that the table is of: one forward pass of 32 samples in 16 microbatches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from snapjax import cost
from snapjax.boundary import Boundary
from zoo.cost.models import Setting, cut_of, schedule_of, trace_step, with_rate
from zoo.cost.priced import WORST
from zoo.models.registry import create_model, spike_boundary

PROFILES = ("snap-mesh", "ethernet-1g")
SETTING = Setting(batch=32, microbatches=16)

Row = Mapping[str, Any]
Priced = dict[str, Any]


def boundary_of(row: Row, width: int) -> Boundary:
    """The boundary of a row of a table.

    Args:
      row: with "boundary", as `Boundary.to_dict` writes it; or of a table of calibrations, with
        "steps", "bits_per_feature" and "method", of which one named "pca" has matrices.
      width: of the model's activations.

    Raises:
      ValueError: a row that has neither.
    """
    if "boundary" in row:
        return Boundary.from_dict(row["boundary"])
    missing = [key for key in ("steps", "bits_per_feature", "method") if key not in row]
    if missing:
        raise ValueError(f"a row names no boundary: it lacks 'boundary', or {', '.join(missing)}")
    plain = spike_boundary(width, steps=row["steps"], bits_per_feature=row["bits_per_feature"])
    return replace(plain, rank=width if "pca" in row["method"] else None)


def price(
    tables: Mapping[str, Mapping[str, Any]], done: Callable[[], object] = lambda: None
) -> dict[str, list[Priced]]:
    """The costs of every row, in the tables' order.

    Args:
      tables: name -> a file of results, with "rows", and "model" and "stages" in it or its rows.
      done: called after every row.

    Returns:
      name -> for each row {"boundary", "rate", "macs", "hop_bytes" and profile -> {"energy_pj",
      "latency_s", "margin"}}, where a margin is how many times less than with a float32 boundary.
    """
    found: dict[str, list[Priced]] = {}
    known: dict[Any, Priced] = {}

    def cached(name: str, stages: int, boundary: Boundary, rate: float) -> Priced:
        # What a gradient's wire or plan is makes no difference to a forward pass.
        key = (name, stages, replace(boundary, gradient_wire="float32", kept_features=None), rate)
        if key not in known:
            known[key] = _cost(name, stages, boundary, rate)
        return known[key]

    for table, about in tables.items():
        found[table] = []
        for row in about["rows"]:
            name = row.get("model", about.get("model")).split(".")[0]
            stages = row.get("stages", about.get("stages"))
            width = create_model(name, "ann", 1).config.width
            boundary = boundary_of(row, width)
            rate = row.get("spike_rate") if boundary.spiking else None
            own = cached(name, stages, boundary, WORST.value if rate is None else rate)
            dense = cached(name, stages, Boundary(width, "float32"), 1.0)
            found[table].append(_with_margins(own, dense, boundary))
            done()
    return found


def _cost(name: str, stages: int, boundary: Boundary, rate: float) -> Priced:
    model = create_model(name, "ann", stages, boundary)
    counts = with_rate(trace_step(model, SETTING), rate)
    made: Priced = {"rate": rate if boundary.spiking else None}
    for profile in PROFILES:
        estimate = cost.estimate(
            counts,
            profile,
            schedule=schedule_of(model, SETTING, profile),
            cut=cut_of(model, SETTING),
        )
        made["macs"] = estimate.macs
        made["hop_bytes"] = sum(
            link.bytes for link in estimate.links if link.transfer.pairs is not None
        )
        made[profile] = {
            "energy_pj": estimate.energy.value,
            "energy_range_pj": [estimate.energy.low, estimate.energy.high],
            "latency_s": estimate.latency.value,
        }
    return made


def _with_margins(own: Priced, dense: Priced, boundary: Boundary) -> Priced:
    margin = lambda profile: {
        figure: dense[profile][figure] / own[profile][figure]
        for figure in ("energy_pj", "latency_s")
    }
    return {
        "boundary": boundary.to_dict(),
        **own,
        **{profile: {**own[profile], "margin": margin(profile)} for profile in PROFILES},
    }


def cells(priced: Sequence[Priced], profile: str) -> list[str]:
    """A column of a table: how many times less energy and latency than with float32."""
    margins = [row[profile]["margin"] for row in priced]
    return [f"{margin['energy_pj']:.3f}, {margin['latency_s']:.2f}" for margin in margins]


def columns(priced: Sequence[Priced]) -> dict[str, list[str]]:
    """The columns of a table, one a profile: title -> a cell a row."""
    return {f"{profile}: energy, latency": cells(priced, profile) for profile in PROFILES}
