"""One table for a cut model: what each boundary sends, and how well the model then does.

A row is a plain record, so that the table in the terminal, the one in a document and the JSON file
are the same figures.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from snapjax.boundary import Boundary

Record = dict[str, Any]

# Column title -> how it is shown.
COLUMNS = {
    "boundary": lambda record: record["code"],
    "weights": lambda record: record["weights"],
    "accuracy": lambda record: f"{record['accuracy']:.4f}",
    "cross-entropy": lambda record: f"{record['loss']:.4f}",
    "bytes a token and hop": lambda record: str(record["bytes_per_token_and_hop"]),
    "fewer than float32": lambda record: f"{record['times_fewer_than_float32']:.3g}x",
    "than bfloat16": lambda record: f"{record['times_fewer_than_bfloat16']:.3g}x",
    "spike rate": lambda record: (
        "-" if record["spike_rate"] is None else f"{record['spike_rate']:.3f}"
    ),
}


def record(
    boundary: Boundary, weights: str, accuracy: float, loss: float, spike_rate: float | None
) -> Record:
    """One boundary's row, JSON-able.

    Args:
      boundary: what lies between the stages.
      weights: which training the weights come from.
      accuracy: on the held-out split, in [0, 1].
      loss: cross-entropy on it, in nats.
      spike_rate: mean over the cuts; None for dense boundaries.
    """
    sent = boundary.bytes_per_token
    ratio = lambda dense: Boundary(boundary.features, dense).bytes_per_token / sent
    return {
        "code": boundary.code,
        "weights": weights,
        "accuracy": accuracy,
        "loss": loss,
        "spike_rate": spike_rate,
        "bits_per_feature": 8 * sent / boundary.features,
        "bytes_per_token_and_hop": sent,
        "times_fewer_than_float32": ratio("float32"),
        "times_fewer_than_bfloat16": ratio("bfloat16"),
        "boundary": asdict(boundary),
    }


def table(records: Sequence[Record], title: str) -> Table:
    """The records for a terminal."""
    drawn = Table(title=title)
    for i, name in enumerate(COLUMNS):
        drawn.add_column(name, justify="right" if i > 1 else "left")
    for row in records:
        drawn.add_row(*(show(row) for show in COLUMNS.values()))
    return drawn


def markdown(records: Sequence[Record]) -> str:
    """The records as a Markdown table."""
    lines = [list(COLUMNS), ["---"] * 2 + ["---:"] * (len(COLUMNS) - 2)]
    lines += [[show(row) for show in COLUMNS.values()] for row in records]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
