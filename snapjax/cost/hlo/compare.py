"""Where the two engines differ, and why: what the program says against what XLA runs."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from snapjax.cost.count.collectives import COLLECTIVES
from snapjax.cost.count.control import BRANCHES
from snapjax.cost.counts import Counts, Transfer

# Collectives that reduce differ in the function alone, which the HLO keeps elsewhere.
_REDUCTIONS = {"pmax": "psum", "pmin": "psum"}


@dataclass(frozen=True)
class Difference:
    """One quantity that the engines count differently.

    Attributes:
      what: "macs", or a collective such as "psum over data, stage".
      walk, hlo: the two counts, of multiply-accumulates or of bytes sent on a device.
      reason: why, as far as it can be told; "" if it cannot.
    """

    what: str
    walk: float
    hlo: float
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: jaxpr {self.walk:,.0f}, HLO {self.hlo:,.0f}; {self.reason or '?'}"


def compare(walk: Counts, hlo: Counts) -> tuple[Difference, ...]:
    """The differences between the counts of a jaxpr and of its compiled HLO; none if they agree.

    Only multiply-accumulates and transfers are compared: XLA fuses, repeats and simplifies
    elementwise work at will.

    Args:
      walk: from `snapjax.cost.trace`.
      hlo: from `snapjax.cost.hlo.counts.counts`, for the same mesh.
    """
    found = []
    if walk.macs != hlo.macs:
        found.append(Difference("macs", walk.macs, hlo.macs, _macs_reason(walk, hlo)))
    mine, its = _grouped(walk), _grouped(hlo)
    for key in sorted({*mine, *its}):
        ours, theirs = mine.get(key, []), its.get(key, [])
        if _sent(ours) != _sent(theirs):
            what, reason = (
                f"{key[0]} over {', '.join(key[1])}",
                _transfer_reason(walk, ours, theirs),
            )
            found.append(Difference(what, _sent(ours), _sent(theirs), reason))
    return tuple(found)


def _grouped(counts: Counts) -> dict[tuple[str, tuple[str, ...]], list[Transfer]]:
    """Transfers by collective and the axes that they really cross, in the mesh's order."""
    found: dict[tuple[str, tuple[str, ...]], list[Transfer]] = {}
    order = list(counts.mesh)
    for transfer in counts.transfers:
        pairs = zip(transfer.axes, transfer.sent, strict=True)
        axes = tuple(sorted((axis for axis, sent in pairs if sent), key=order.index))
        name = _REDUCTIONS.get(transfer.collective, transfer.collective)
        found.setdefault((name, axes), []).append(transfer)
    return found


def _macs_reason(walk: Counts, hlo: Counts) -> str:
    if any(entry.primitive != "while" for entry in hlo.unpriced):
        names = ", ".join(sorted({entry.primitive for entry in hlo.unpriced}))
        return f"matmuls in library calls, which the HLO does not describe: {names}"
    if _loops(walk) or _loops(hlo):
        return "a loop whose trip count is not known to both"
    if any(note.startswith(BRANCHES) for note in walk.notes):
        return "branches were not counted by the rule 'max', and the HLO counts the dearest branch"
    if any(op.primitive == "ragged_dot_general" for op in walk.ops) and hlo.macs > walk.macs:
        return "a ragged product computed densely: every row with every group's matrix"
    if _auto(walk):
        return "auto-sharded: the HLO is the source, and the jaxpr's share of a device an estimate"
    if hlo.macs < walk.macs:
        return (
            "XLA runs less than the program says: equal matmuls shared (CSE), loop-invariant ones "
            "moved out of a loop, or products with constants simplified"
        )
    return "XLA runs more than the program says: matmuls computed again instead of kept"


def _transfer_reason(walk: Counts, ours: list[Transfer], theirs: list[Transfer]) -> str:
    inserted = [transfer for transfer in theirs if not _stated(transfer)]
    if inserted and (not ours or _sent(theirs) - _sent(inserted) == _sent(ours)):
        names = ", ".join(sorted({transfer.path or "(unnamed)" for transfer in inserted}))
        where = "auto-sharded program" if _auto(walk) else "resharding outside of shard_map"
        return f"inserted by XLA ({where}), from {names}"
    if _times(theirs) == _times(ours):
        narrow = sorted({t.symbol for t in ours if _bits(t) < 8 or t.symbol == "bfloat16"})
        if narrow:
            return f"XLA sends {', '.join(narrow)} in wider elements on this backend"
        return "the same executions with another payload: XLA changed the operands' dtype or shape"
    if _times(theirs) < _times(ours) or len(theirs) < len(ours):
        return "XLA runs fewer: loop-invariant ones moved out of a loop, or equal ones shared (CSE)"
    if not ours:
        return "XLA implements another collective by this one"
    return ""


def _stated(transfer: Transfer) -> bool:
    """Whether an HLO collective comes from a collective of the program."""
    last = re.sub(r"\.\d+$", "", transfer.path.rsplit("/", 1)[-1])
    return last.removesuffix("_start") in COLLECTIVES


def _sum_of(value: Callable[[Transfer], Any]) -> Callable[[list[Transfer]], float]:
    return lambda transfers: sum(value(transfer) for transfer in transfers)


_sent = _sum_of(lambda transfer: transfer.executions * transfer.sent_bytes)
_times = _sum_of(lambda transfer: transfer.executions)


def _bits(transfer: Transfer) -> float:
    return 8 * transfer.payload_bytes / transfer.elements if transfer.elements else 8


def _loops(counts: Counts) -> bool:
    return any(entry.primitive == "while" for entry in counts.unpriced)


def _auto(counts: Counts) -> bool:
    return any(note.startswith("auto-sharded") for note in counts.notes)
