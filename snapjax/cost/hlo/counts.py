"""The second engine: counts from the compiled HLO text, as XLA really runs the program.

Loops count their known trip counts, which `Compiled.cost_analysis()` does not; replica groups and
source-target pairs are mapped back to the mesh's axes. The HLO shows what the jaxpr cannot, such as
the collectives that XLA adds to an auto-sharded program, and hides what it can: spikes and modules.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from snapjax.cost.count import collectives, complex_numbers
from snapjax.cost.count.contractions import taps
from snapjax.cost.counts import Counts, Op, Transfer, Unpriced
from snapjax.cost.hlo import text as hlo_text
from snapjax.cost.hlo import traffic as hlo_traffic
from snapjax.cost.hlo.text import Array, Computation, Instruction, Module

_COLLECTIVES = {
    "all-reduce": "psum",
    "all-gather": "all_gather",
    "all-to-all": "all_to_all",
    "reduce-scatter": "reduce_scatter",
    "collective-permute": "ppermute",
    "collective-broadcast": "broadcast",
    "ragged-all-to-all": "ragged_all_to_all",
}
# HLO's opcode -> the kind that one count for each element of the result is.
_ELEMENTWISE = {
    **dict.fromkeys(("add", "subtract"), "add"),
    **dict.fromkeys(("multiply",), "multiply"),
    **dict.fromkeys(("divide", "remainder"), "divide"),
    **dict.fromkeys(("compare", "maximum", "minimum", "select", "clamp"), "compare"),
    **dict.fromkeys(
        (
            *("exponential", "exponential-minus-one", "log", "log-plus-one", "tanh", "logistic"),
            *("sqrt", "rsqrt", "cbrt", "power", "sine", "cosine", "tan", "atan2", "erf"),
        ),
        "transcendental",
    ),
}
# Custom calls to matrix libraries: a matmul whose dimensions the text does not name.
_LIBRARY_MATMULS = ("matmul", "gemm", "dot", "conv")


def counts(compiled: Any, mesh: Any = None) -> Counts:
    """Multiply-accumulates, elementwise work and transfers of a compiled program, on one device.

    Args:
      compiled: from `jitted.lower(...).compile()`, or its `as_text()`.
      mesh: the `jax.sharding.Mesh` that it was compiled for, or {axis: size} in its order; None for
        one device.

    Returns:
      counts with source "hlo". Elementwise work is what XLA kept, fused or not; what reaches memory
      is of the instructions outside of fusions, and of each fusion a "move" of its own. Of the
      branches of a conditional the dearest counts; a loop of unknown length counts once and is in
      `unpriced`.
    """
    text = compiled if isinstance(compiled, str) else compiled.as_text()
    shape = dict(getattr(mesh, "shape", mesh or {}))
    reader = _Reader(hlo_text.parse(text), shape)
    found = _Found([], [], [])
    reader.computation(reader.module.entry, 1, found)
    return Counts(
        devices=math.prod(shape.values()),
        mesh=shape,
        ops=tuple(found.ops),
        transfers=tuple(found.transfers),
        unpriced=tuple(found.unpriced),
        source="hlo",
    )


class _Found(NamedTuple):
    """What was counted so far."""

    ops: list[Op]
    transfers: list[Transfer]
    unpriced: list[Unpriced]

    def weight(self) -> tuple[float, float, float]:
        """What makes one branch dearer than another, as in the walk."""
        macs = sum(op.count for op in self.ops if op.kind == "mac")
        sent = sum(transfer.executions * transfer.sent_bytes for transfer in self.transfers)
        return macs, sent, sum(op.count for op in self.ops)


class _Reader:
    """Counts of one module's computations."""

    def __init__(self, module: Module, mesh: Mapping[str, int]) -> None:
        self.module, self.mesh = module, mesh
        self.devices = math.prod(mesh.values())
        self.fused = 0  # how many fusions around the present instruction

    def computation(self, name: str, times: float, found: _Found) -> None:
        """Adds what a computation does when it runs this often."""
        computation = self.module.computations[name]
        for instruction in computation.instructions:
            self.instruction(instruction, computation, times, found)

    def instruction(
        self, instruction: Instruction, computation: Computation, times: float, found: _Found
    ) -> None:
        opcode = instruction.opcode
        inner = {"fusion": "calls", "call": "to_apply", "async-start": "calls"}.get(opcode)
        kind = opcode.removesuffix("-start")
        if opcode == "while":
            self.loop(instruction, times, found)
        elif opcode == "conditional":
            self.branch(instruction, times, found)
        elif inner is not None:
            names = instruction.computations(inner)
            if opcode == "fusion":
                self.moved(instruction, computation, times, found)
                self.fused += 1
            for name in names:
                self.computation(name, times, found)
            self.fused -= opcode == "fusion"
        elif kind in _COLLECTIVES:
            transfer = self.transfer(instruction, computation, _COLLECTIVES[kind], times)
            found.transfers.extend([transfer] if transfer else [])
        else:
            self.operation(instruction, computation, times, found)

    def loop(self, instruction: Instruction, times: float, found: _Found) -> None:
        trips = instruction.trip_count
        known = 1 if trips is None else trips
        for name in instruction.computations("body"):
            self.computation(name, times * known, found)
        for name in instruction.computations("condition"):
            self.computation(name, times * (known + 1), found)
        if trips is None:
            size = sum(array.size for array in instruction.arrays)
            reason = "trip count unknown: the body counts once"
            found.unpriced.append(Unpriced("while", instruction.op_name, size, times, reason))

    def branch(self, instruction: Instruction, times: float, found: _Found) -> None:
        names = instruction.computations("branch_computations") or [
            *instruction.computations("true_computation"),
            *instruction.computations("false_computation"),
        ]
        branches = []
        for name in names:
            branches.append(_Found([], [], []))
            self.computation(name, times, branches[-1])
        dearest = max(branches, key=_Found.weight)
        found.ops.extend(dearest.ops)
        found.transfers.extend(dearest.transfers)
        found.unpriced.extend(dearest.unpriced)

    def operation(
        self, instruction: Instruction, computation: Computation, times: float, found: _Found
    ) -> None:
        read = [
            array for name in instruction.operands for array in computation.arrays.get(name, ())
        ]
        if instruction.opcode == "custom-call":
            target = instruction.attributes.partition('custom_call_target="')[2].partition('"')[0]
            if any(name in target.lower() for name in _LIBRARY_MATMULS):
                size = instruction.arrays[0].size
                reason = "a library's own call"
                found.unpriced.append(Unpriced(target, instruction.op_name, size, times, reason))
            return
        if not self.fused:
            self.moved(instruction, computation, times, found)
        kind, count = _work(instruction, read)
        if not count:
            return
        source = read[0] if read else instruction.arrays[0]
        whole, bits = {kind: 1}, source.bits
        if source.dtype in ("c64", "c128"):  # its real arithmetic, as in the jaxpr's counts
            whole, bits = complex_numbers.parts(instruction.opcode, kind), source.bits // 2
        moved = (sum(a.bytes for a in read), sum(a.bytes for a in instruction.arrays))
        for part, amount in whole.items():
            found.ops.append(
                Op(
                    path=instruction.op_name,
                    primitive=instruction.opcode,
                    kind=part,
                    count=amount * count * times,
                    dtype=source.dtype,
                    bits=bits,
                    bytes_read=times * moved[0],
                    bytes_written=times * moved[1],
                    executions=times,
                )
            )
            moved = (0, 0)  # of several kinds, one moves the bytes

    def moved(
        self, instruction: Instruction, computation: Computation, times: float, found: _Found
    ) -> None:
        """What an instruction outside of fusions, or a fusion, moves: a "move" of no elements."""
        read, written = hlo_traffic.traffic(instruction, computation, self.module)
        if read or written:
            array = instruction.arrays[0]
            found.ops.append(
                Op(
                    path=instruction.op_name,
                    primitive=instruction.opcode,
                    kind="move",
                    count=0,
                    dtype=array.dtype,
                    bits=array.bits,
                    stored_read=times * read,
                    stored_written=times * written,
                    executions=times,
                    starts=times,
                )
            )

    def transfer(
        self, instruction: Instruction, computation: Computation, name: str, times: float
    ) -> Transfer | None:
        arrays = [
            array for operand in instruction.operands for array in computation.arrays[operand]
        ]
        if name == "ragged_all_to_all":
            arrays = arrays[:1]
        payload = sum(array.bytes for array in arrays)
        parts: tuple[tuple[int, ...], ...] | None = None
        if name == "ppermute":
            pairs = hlo_text.source_target_pairs(instruction.attributes)
            axes = self.axes(pairs)
            along = self.along(pairs, axes)
            sent, messages = collectives.sends(
                name, payload, [self.mesh[axis] for axis in axes], along
            )
        else:
            groups = hlo_text.replica_groups(instruction.attributes, self.devices)
            axes, along = self.axes(groups), None
            sizes = [self.mesh[axis] for axis in axes]
            if len(axes) == 1 and len(groups[0]) < sizes[0]:
                parts = tuple(dict.fromkeys(self.places(group, axes) for group in groups))
                sizes = [len(groups[0])]
            sent, messages = collectives.sends(name, payload, sizes)
        if not any(sent):
            return None
        dtypes = {array.dtype for array in arrays}
        return Transfer(
            path=instruction.op_name,
            collective=name,
            axes=axes,
            payload_bytes=payload,
            sent=sent,
            executions=times,
            pairs=along,
            symbol=dtypes.pop() if len(dtypes) == 1 else "mixed",
            messages=messages,
            elements=sum(array.size for array in arrays),
            groups=parts,
        )

    def axes(self, members: tuple[tuple[int, ...], ...]) -> tuple[str, ...]:
        """Mesh axes along which the devices of any group differ, in the mesh's order.

        Raises:
          ValueError: for a device beyond the mesh.
        """
        found = set()
        sizes = tuple(self.mesh.values())
        for group in members:
            if max(group) >= self.devices:
                raise ValueError(
                    f"hlo: a collective of device {max(group)}, but mesh={dict(self.mesh)} has "
                    f"{self.devices}; pass the mesh that the program was compiled for"
                )
            coordinates = np.array(np.unravel_index(np.array(group), sizes))
            found |= {
                axis
                for axis, places in zip(self.mesh, coordinates, strict=True)
                if len(set(places.tolist())) > 1
            }
        return tuple(axis for axis in self.mesh if axis in found)

    def along(
        self, pairs: tuple[tuple[int, int], ...], axes: tuple[str, ...]
    ) -> tuple[tuple[int, int], ...]:
        """Pairs of devices as pairs of places along the axes, each once."""
        ends = [self.places(pair, axes) for pair in pairs if pair[0] != pair[1]]
        return tuple(dict.fromkeys((source, target) for source, target in ends))

    def places(self, devices: Sequence[int], axes: tuple[str, ...]) -> tuple[int, ...]:
        """The devices' places along the axes, counted along all of them, the last one innermost."""
        coordinates = np.unravel_index(np.array(devices), tuple(self.mesh.values()))
        along = dict(zip(self.mesh, coordinates, strict=True))
        sizes = [self.mesh[axis] for axis in axes]
        flat = np.ravel_multi_index([along[axis] for axis in axes], sizes)
        return tuple(int(place) for place in flat)


def _work(instruction: Instruction, read: list[Array]) -> tuple[str, float]:
    """(kind, count) of one execution; a count of 0 where there is nothing to count."""
    opcode, result = instruction.opcode, instruction.arrays[0] if instruction.arrays else None
    if result is None:
        return "", 0
    # XLA turns a product with a vector into a multiplication and a sum.
    product = instruction.op_name.endswith("dot_general")
    if opcode == "dot":
        contracted = instruction.dimensions("lhs_contracting_dims")
        return "mac", result.size * math.prod(read[0].shape[i] for i in contracted)
    if opcode == "convolution":
        return "mac", _convolution(instruction, result, read[1])
    if opcode == "multiply" and product:
        return "mac", result.size
    if opcode == "reduce":
        return "add", 0 if product else read[0].size - result.size
    kind = _ELEMENTWISE.get(opcode, "")
    return kind, result.size if kind else 0


def _convolution(instruction: Instruction, result: Array, kernel: Array) -> float:
    """Elements of the result times the taps of each, by labels such as bf01_oi01->bf01."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    if labels is None:
        raise ValueError(f"hlo: convolution {instruction.name} has no dim_labels")
    outputs, taps_of = labels[3], labels[2]
    spatial = [label for label in outputs if label.isdigit()]
    window = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    fields = dict(item.split("=") for item in window[1].split()) if window else {}
    ones = "x".join("1" * len(spatial))
    numbers = lambda name: [int(n) for n in fields.get(name, ones).split("x")]
    lows = [int(pad.split("_")[0]) for pad in fields.get("pad", "x".join(["0_0"] * 9)).split("x")]
    count = kernel.shape[taps_of.index("i")]
    for label in (label for label in outputs if not label.isdigit()):
        count *= result.shape[outputs.index(label)]
    for number, label in enumerate(sorted(spatial)):
        count *= taps(
            result.shape[outputs.index(label)],
            kernel.shape[taps_of.index(label)],
            numbers("stride")[number],
            lows[number],
            numbers("rhs_dilate")[number],
            numbers("lhs_dilate")[number],
        )
    return count
