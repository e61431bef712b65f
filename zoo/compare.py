"""One table for a cut model: what each boundary sends, and how well the model then does."""

from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from snapjax.boundary import Boundary


@dataclass(frozen=True)
class Row:
    """One boundary's line.

    Attributes:
      boundary: what lies between the stages.
      weights: which training the weights come from.
      accuracy: on the held-out split, in [0, 1].
      spike_rate: mean over the cuts; None for dense boundaries.
    """

    boundary: Boundary
    weights: str
    accuracy: float
    spike_rate: float | None = None

    @property
    def bytes_per_token(self) -> int:
        return self.boundary.bytes_per_token

    def record(self) -> dict[str, Any]:
        """The row as JSON-able values."""
        return {
            "code": self.boundary.code,
            "weights": self.weights,
            "accuracy": self.accuracy,
            "spike_rate": self.spike_rate,
            "bits_per_feature": 8 * self.bytes_per_token / self.boundary.features,
            "bytes_per_token_and_hop": self.bytes_per_token,
            "times_fewer_than_float32": self._ratio("float32"),
            "times_fewer_than_bfloat16": self._ratio("bfloat16"),
            "boundary": asdict(self.boundary),
        }

    def _ratio(self, dense: str) -> float:
        return Boundary(self.boundary.features, dense).bytes_per_token / self.bytes_per_token


def table(rows: list[Row], title: str) -> Table:
    """The rows for a terminal."""
    drawn = Table(title=title)
    drawn.add_column("boundary")
    drawn.add_column("weights")
    for name in ("accuracy", "bytes/token/hop", "vs float32", "vs bfloat16", "spike rate"):
        drawn.add_column(name, justify="right")
    for row in rows:
        record = row.record()
        drawn.add_row(
            row.boundary.code,
            row.weights,
            f"{row.accuracy:.4f}",
            str(row.bytes_per_token),
            f"{record['times_fewer_than_float32']:.3g}x",
            f"{record['times_fewer_than_bfloat16']:.3g}x",
            "-" if row.spike_rate is None else f"{row.spike_rate:.3f}",
        )
    return drawn
