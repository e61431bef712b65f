"""Seconds of operations and transfers on a profile, and of a pipeline's schedule.

An operation takes the longer of its arithmetic and its memory traffic (roofline, Williams et al.
2009), and a fixed time to start, which a group of fused ones takes once. Of a group each operation
is taken by itself, reads at its beginning and writes at its end, which is at most twice the
roofline of the whole. Small matmuls reach less of the peak: one of n products takes (n + half) /
(rate x efficiency). A message of b bytes takes latency + (b + half) / (bandwidth x efficiency).
Device and links follow each other, or overlap.
"""

from collections.abc import Mapping
from typing import NamedTuple

from snapjax.cost.counts import MATMUL_KINDS, Counts, Op, Transfer
from snapjax.cost.price import links
from snapjax.cost.price.energy import done_share, memory_bytes, width_class
from snapjax.cost.price.profile import Profile
from snapjax.cost.price.ticks import Schedule


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
    rate = profile["rate_transcendental" if slow else "rate_elementwise"]
    rate *= min(1.0, 32 / max(op.bits, 1))  # a lane of 32 bits takes a wider number in parts
    count = 0.0 if op.kind == "move" else op.count
    return OpTime(count / rate, memory, op.starts * profile["start"])


def transfer_time(transfer: Transfer, mesh: Mapping[str, int], profile: Profile) -> float:
    """Seconds of a transfer over all executions: the latency of its messages one after the other,
    and the bytes of the most loaded link."""
    speed = profile["link_bandwidth"] * profile["link_efficiency"]
    found = links.load(transfer, mesh, profile)
    waiting = found.hops * profile["link_latency"] + found.rounds * profile["link_half"] / speed
    return transfer.executions * (waiting + found.busiest / speed)


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
      counts: per device; under a schedule what it needs alone, see `ticks.split`.
      profile: at its values, or at an end of its ranges.
      overlap: links work while the device computes, all of the time.
      schedule: of a pipeline, or None.
    """
    parts = [op_time(op, counts, profile) for op in counts.ops]
    compute = sum(part.compute for part in parts)
    memory = sum(max(0.0, part.memory - part.compute) for part in parts)
    start = sum(part.start for part in parts)
    moved = sum(
        transfer_time(transfer, counts.mesh, profile)
        * (1.0 if schedule is None else schedule.pace(transfer))
        for transfer in counts.transfers
    )
    busy, bubble = compute + memory + start, 0.0
    if schedule is not None:
        ratio = schedule.ticks / schedule.microbatches * schedule.imbalance
        bubble = busy * (ratio - 1)
    device = compute + memory + start + bubble
    return Times(compute, memory, start, bubble, moved, min(device, moved) if overlap else 0.0)
