"""The ticks of a pipeline in which a stage has no microbatch, told apart from those with one.

A pipeline that is one program runs its boundaries' ends, and sends, in every tick on every rank. A
machine does not have to do the part that carries no microbatch, and a comparison of boundaries must
not count it: it is priced by itself, and no total has it.
"""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from snapjax.cost.counts import Counts, Op, Transfer


@dataclass(frozen=True)
class Schedule:
    """How microbatches go through a pipeline: GPipe's fill and drain (arXiv 1811.06965).

    Attributes:
      stages: S, devices in a row.
      microbatches: M, that a step is split into.
      idle_counted: the counts' operations are of all M + S - 1 ticks, as in a traced scan over
        them; otherwise they are of the M in which a device works, but for those of `busy`.
      imbalance: work of the busiest stage over the mean, where the counts are of the mean; the
        slowest stage sets the pace.
      busy: pattern of a path -> the share of the operations counted there that a microbatch needs;
        the first pattern that fits counts. Of the messages there M of M + S - 1 are needed, for a
        link carries M; those of other paths are all needed.

    Raises:
      ValueError: for a size that is no whole number of 1 or more, or a share that is not in [0, 1].
    """

    stages: int
    microbatches: int
    idle_counted: bool = False
    imbalance: float = 1.0
    busy: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("stages", "microbatches", "imbalance"):
            value, kind = getattr(self, name), float if name == "imbalance" else int
            if not isinstance(value, int | kind) or isinstance(value, bool) or not value >= 1:
                whole = "" if kind is float else " and whole"
                raise ValueError(
                    f"Schedule: {name}={value!r} must be at least 1{whole}; see its docstring"
                )
        if self.idle_counted and self.imbalance != 1:
            raise ValueError(
                f"Schedule: imbalance={self.imbalance} goes with counts of the mean device; with "
                "idle_counted=True the counts are of the busiest one: leave it at 1"
            )
        if not isinstance(self.busy, Mapping):
            raise ValueError(f"Schedule: busy={self.busy!r} must be {{pattern of a path: share}}")
        for pattern, share in self.busy.items():
            if not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ValueError(f"Schedule: busy[{pattern!r}]={share!r} must be a share in [0, 1]")

    @property
    def ticks(self) -> int:
        """Ticks of one pass."""
        return self.microbatches + self.stages - 1

    @property
    def bubble(self) -> float:
        """The share of the ticks in which a device idles: (S - 1) / (M + S - 1)."""
        return (self.stages - 1) / self.ticks

    def needed(self, entry: Op | Transfer) -> float:
        """The share of an entry's executions that a microbatch needs."""
        for pattern, share in self.busy.items():
            if fnmatch.fnmatchcase(entry.path, pattern):
                return share if isinstance(entry, Op) else 1 - self.bubble
        return 1 - self.bubble if self.idle_counted and isinstance(entry, Op) else 1.0

    def pace(self, transfer: Transfer) -> float:
        """How often a transfer delays the step, over how often a microbatch needs it.

        A link between two stages carries M messages, and the last microbatch has waited for those
        of all ticks but the last one, whose message nobody waits for.
        """
        if self.needed(transfer) == 1 or transfer.collective != "ppermute":
            return 1.0
        return (self.ticks - 1) / self.microbatches


def split(counts: Counts, schedule: Schedule | None) -> tuple[Counts, Counts]:
    """(what a step needs, what idle ticks add to it): together they are the counts."""
    nothing = replace(counts, ops=(), transfers=(), unpriced=())
    if schedule is None:
        return counts, nothing
    entries: tuple[Op | Transfer, ...] = (*counts.ops, *counts.transfers)
    needed = {entry: schedule.needed(entry) for entry in entries}
    part = lambda share_of: replace(
        counts,
        ops=tuple(
            op if share_of(op) == 1 else op.scaled(share_of(op))
            for op in counts.ops
            if share_of(op)
        ),
        transfers=tuple(
            replace(moved, executions=moved.executions * share_of(moved))
            for moved in counts.transfers
            if share_of(moved)
        ),
    )
    return part(needed.__getitem__), replace(part(lambda entry: 1 - needed[entry]), unpriced=())
