"""What a walk has found so far: equal entries of a module are summed as they come."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from snapjax.cost.count import _jax, primitives
from snapjax.cost.count import marks as marked
from snapjax.cost.count.collectives import Collective
from snapjax.cost.count.fusion import Stored
from snapjax.cost.count.marks import Mark
from snapjax.cost.counts import MATMUL_KINDS, Counts, Op, Transfer, Unpriced
from snapjax.cost.rates import Rate

# What tells operations apart, and what is summed of those that are alike; fields of `Op`.
_KEY = ("path", "primitive", "kind", "dtype", "bits", "sites", "firing")
_AMOUNTS = (
    *("count", "bytes_read", "bytes_written", "stored_read", "stored_written"),
    *("executions", "starts"),
)


class Share(NamedTuple):
    """The part of an equation's work, and of the bytes that it reads and writes, of one device."""

    work: float
    read: float
    written: float


class Record:
    """Sums of operations, transfers and unpriced work.

    Attributes:
      active: whether anything is recorded, or the walk only follows marks.
    """

    def __init__(self, active: bool = True) -> None:
        self.active = active
        self._ops: dict[tuple[Any, ...], list[float]] = {}
        self._transfers: dict[Transfer, float] = {}
        self._unpriced: dict[Unpriced, float] = {}

    def work(
        self,
        equation: Any,
        path: str,
        found: Sequence[primitives.Work],
        moved: Stored,
        executions: float,
        share: Share | None = None,
        spikes: tuple[Mark, ...] = (),
    ) -> None:
        """An equation's work, this often.

        Args:
          found: of one execution.
          moved: by it, once fused.
          executions: on a device.
          share: of it that is a device's; None for all of it.
          spikes: the marks of its spike operands.
        """
        if not self.active or not executions:
            return
        # What costs nothing by itself may still have to be stored, such as a broadcast.
        read, written = primitives.traffic(equation) if found else (0, 0)
        bytes_ = (read, written, moved.read, moved.written)
        for kind, count in found or [primitives.Work("move", 0)]:
            if spikes:
                kind = "ac" if len(spikes) == 1 else "spike_spike"
            amounts = [executions * amount for amount in (count, *bytes_)]
            if share is not None:  # whole numbers stay whole without it
                shares = (share.work, share.read, share.written, share.read, share.written)
                amounts = [part * amount for part, amount in zip(shares, amounts, strict=True)]
            self._op(equation, path, kind, spikes, amounts, executions, executions * moved.starts)
            bytes_, moved = (0, 0, 0, 0), Stored()  # of several kinds, one moves the bytes

    def _op(
        self,
        equation: Any,
        path: str,
        kind: str,
        spikes: tuple[Mark, ...],
        amounts: Sequence[float],
        executions: float,
        starts: float,
    ) -> None:
        if not any(amounts):
            return
        dtype = primitives.operand_dtype(equation)
        name = "none" if dtype is None else str(dtype)
        bits = 0 if dtype is None else _jax.number_bits(dtype)
        sites, firing = tuple(mark.site for mark in spikes), tuple(mark.mean for mark in spikes)
        key = (path, equation.primitive.name, kind, name, bits, sites, firing)
        self._add(key, (*amounts, executions, starts))

    def _add(self, key: tuple[Any, ...], amounts: Sequence[float]) -> None:
        sums = self._ops.setdefault(key, [0] * len(amounts))
        for index, amount in enumerate(amounts):
            sums[index] += amount

    def collective(
        self,
        equation: Any,
        path: str,
        found: Collective,
        executions: float,
        marks: Sequence[Mark | None],
    ) -> None:
        """A collective, this often."""
        if not self.active or not executions:
            return
        for kind, count in found.work:
            self._op(equation, path, kind, (), [count * executions, 0, 0, 0, 0], executions, 0)
        if not any(found.sent):
            return  # one device, or every pair stays where it is
        mark = marked.join(*marks[:1]) if found.name == "ragged_all_to_all" else marked.join(*marks)
        sites: tuple[str, ...] = ()
        firing: tuple[Rate, ...] = ()
        dtypes = {str(operand.aval.dtype) for operand in equation.invars}
        symbol = dtypes.pop() if len(dtypes) == 1 else "mixed"
        if mark is not None and mark.sites:
            sites, symbol = (mark.site,), "packed" if mark.packed else "spikes"
            firing = (mark.mean,)
        transfer = Transfer(
            path=path,
            collective=found.name,
            axes=found.axes,
            payload_bytes=found.payload_bytes,
            sent=found.sent,
            executions=0,
            pairs=found.pairs,
            symbol=symbol,
            messages=found.messages,
            elements=found.elements,
            sites=sites,
            firing=firing,
            groups=found.groups,
        )
        self._transfers[transfer] = self._transfers.get(transfer, 0) + executions

    def unpriced(self, entry: Unpriced) -> None:
        """Work without a price; nothing for a loop that never runs."""
        if not self.active or not entry.executions:
            return
        key = replace(entry, executions=0)
        self._unpriced[key] = self._unpriced.get(key, 0) + entry.executions

    def merge(self, other: "Record") -> None:
        """Adds what another record holds."""
        for key, sums in other._ops.items():
            self._add(key, sums)
        for transfer, executions in other._transfers.items():
            self._transfers[transfer] = self._transfers.get(transfer, 0) + executions
        for entry, executions in other._unpriced.items():
            self._unpriced[entry] = self._unpriced.get(entry, 0) + executions

    def weight(self) -> tuple[float, float, float]:
        """What makes one branch dearer than another: multiply-accumulates, bytes sent, the rest."""
        macs = sum(sums[0] for key, sums in self._ops.items() if key[2] in MATMUL_KINDS)
        sent = sum(transfer.sent_bytes * times for transfer, times in self._transfers.items())
        return macs, sent, sum(sum(sums[:3]) for sums in self._ops.values())

    def counts(
        self, mesh: Mapping[str, int], notes: tuple[str, ...], parameters: int | None
    ) -> Counts:
        """Everything recorded, in program order."""
        return Counts(
            devices=math.prod(mesh.values()),
            mesh=dict(mesh),
            ops=tuple(
                Op(**dict(zip((*_KEY, *_AMOUNTS), (*key, *sums), strict=True)))
                for key, sums in self._ops.items()
            ),
            transfers=tuple(
                replace(transfer, executions=times) for transfer, times in self._transfers.items()
            ),
            unpriced=tuple(
                replace(entry, executions=times) for entry, times in self._unpriced.items()
            ),
            source="jaxpr",
            notes=notes,
            parameters=parameters,
        )
