"""Seconds of operations and transfers on a profile, and of a pipeline's schedule.

An operation takes the longer of its arithmetic and its memory traffic (roofline, Williams et al.
2009), and a fixed time to start, which a group of fused ones takes once. Of a group each operation
is taken by itself, reads at its beginning and writes at its end, which is at most twice the
roofline of the whole. Small matmuls reach less of the peak: one of n products takes (n + half) /
(rate x efficiency). A message of b bytes takes latency + (b + half) / (bandwidth x efficiency).
Device and links follow each other, or overlap.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from snapjax.cost.counts import MATMUL_KINDS, Counts, Op, Transfer
from snapjax.cost.price.energy import done_share, memory_bytes, route, width_class
from snapjax.cost.price.profile import Profile


@dataclass(frozen=True)
class Schedule:
    """How microbatches go through a pipeline: GPipe's fill and drain (arXiv 1811.06965).

    Attributes:
      stages: S, devices in a row.
      microbatches: M, that a step is split into.
      idle_counted: the counts' operations are of all M + S - 1 ticks, as in a traced scan over
        them; otherwise they are of the M in which a device works. Transfers are always taken as
        counted.
      imbalance: work of the busiest stage over the mean, where the counts are of the mean; the
        slowest stage sets the pace.

    Raises:
      ValueError: for a size below 1.
    """

    stages: int
    microbatches: int
    idle_counted: bool = False
    imbalance: float = 1.0

    def __post_init__(self) -> None:
        for name in ("stages", "microbatches", "imbalance"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"Schedule: {name}={getattr(self, name)} must be at least 1; see its docstring"
                )
        if self.idle_counted and self.imbalance != 1:
            raise ValueError(
                f"Schedule: imbalance={self.imbalance} goes with counts of the mean device; with "
                "idle_counted=True the counts are of the busiest one: leave it at 1"
            )

    @property
    def ticks(self) -> int:
        """Ticks of one pass."""
        return self.microbatches + self.stages - 1

    @property
    def bubble(self) -> float:
        """The share of the ticks in which a device idles: (S - 1) / (M + S - 1)."""
        return (self.stages - 1) / self.ticks


class OpTime(NamedTuple):
    """Seconds of one operation over all its executions, on one device."""

    compute: float
    memory: float
    start: float

    @property
    def busy(self) -> float:
        """Seconds that the operation takes a device."""
        return max(self.compute, self.memory) + self.start


def op_time(op: Op, counts: Counts, profile: Profile) -> OpTime:
    """Seconds of an operation on one device."""
    memory = memory_bytes(op, counts, profile) / profile["memory_bandwidth"]
    if op.kind in MATMUL_KINDS:
        spiking = op.kind != "mac" and profile["skipping"] > 0
        rate = profile["rate_ac" if spiking else f"rate_mac_{width_class(op.bits)}"]
        done = op.count * done_share(op, counts, profile)
        halves = op.executions * profile["compute_half"]
        compute = (done + halves) / (rate * profile["compute_efficiency"])
        return OpTime(compute, memory, op.starts * profile["start"])
    slow = op.kind in ("transcendental", "divide", "random")
    count = 0.0 if op.kind == "move" else op.count
    compute = count / profile["rate_transcendental" if slow else "rate_elementwise"]
    return OpTime(compute, memory, op.starts * profile["start"])


def transfer_time(transfer: Transfer, mesh: Mapping[str, int], profile: Profile) -> float:
    """Seconds of a transfer over all executions, on its most loaded link."""
    speed = profile["link_bandwidth"] * profile["link_efficiency"]
    seconds = 0.0
    for axis, sent, messages in zip(transfer.axes, transfer.sent, transfer.messages, strict=True):
        loaded, far = _worst_link(transfer, mesh.get(axis, 1), profile.topology)
        seconds += messages * (far * profile["link_latency"] + profile["link_half"] / speed)
        seconds += loaded * sent / speed
    return transfer.executions * seconds


def _worst_link(transfer: Transfer, size: int, topology: str) -> tuple[float, float]:
    """Messages that share the most loaded link, and links on the longest way."""
    if not transfer.pairs or len(transfer.axes) > 1:
        # Neighbours on a ring; on a line the wrap-around comes back over the other direction.
        return 1.0, float(max(1, size - 1)) if topology == "line" else 1.0
    routes = [route(pair, size, topology) for pair in transfer.pairs]
    if topology == "switch":  # a device's way into the switch, or out of it, is shared
        ends = Counter(("in", source) for source, _ in transfer.pairs)
        ends.update(("out", destination) for _, destination in transfer.pairs)
        return float(max(ends.values())), 1.0
    load = Counter(link for links in routes for link in links)
    return float(max(load.values())), float(max(map(len, routes)))


class Times(NamedTuple):
    """Where the seconds of one step go.

    Attributes:
      compute: arithmetic of the busiest device.
      memory: what waiting for memory adds to it.
      start: starting operations.
      bubble: waiting of a pipeline that fills and drains, and for the slowest stage.
      links: messages.
      hidden: of these, what overlap hides.
    """

    compute: float
    memory: float
    start: float
    bubble: float
    links: float
    hidden: float

    @property
    def total(self) -> float:
        """Seconds of a step."""
        return sum(self) - 2 * self.hidden


def times(
    counts: Counts, profile: Profile, overlap: bool = False, schedule: Schedule | None = None
) -> Times:
    """Seconds of the program that `counts` are of.

    Args:
      counts: per device.
      profile: at its values, or at an end of its ranges.
      overlap: links work while the device computes, all of the time.
      schedule: of a pipeline, or None.
    """
    parts = [op_time(op, counts, profile) for op in counts.ops]
    compute = sum(part.compute for part in parts)
    memory = sum(max(0.0, part.memory - part.compute) for part in parts)
    start = sum(part.start for part in parts)
    links = sum(transfer_time(transfer, counts.mesh, profile) for transfer in counts.transfers)
    busy, bubble = compute + memory + start, 0.0
    if schedule is not None and schedule.idle_counted:
        # The ticks are in the counts: part of what they take is the bubble.
        bubble = busy * schedule.bubble
        keep = 1 - schedule.bubble
        compute, memory, start = compute * keep, memory * keep, start * keep
    elif schedule is not None:
        ratio = schedule.ticks / schedule.microbatches * schedule.imbalance
        bubble = busy * (ratio - 1)
    device = compute + memory + start + bubble
    return Times(compute, memory, start, bubble, links, min(device, links) if overlap else 0.0)
