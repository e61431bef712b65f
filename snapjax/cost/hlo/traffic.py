"""Bytes that the instructions of a compiled HLO module read from memory and write to it.

Of a fusion that is its operands and its results; of one that it only slices, the slices, and of a
buffer that it updates in place, the update.
"""

from snapjax.cost.count.primitives import names
from snapjax.cost.hlo.text import Array, Computation, Instruction, Module

# Names, views and parts of loops: nothing moves.
_FREE = names(
    """
    add-dependency after-all bitcast constant get-tuple-element opt-barrier parameter partition-id
    replica-id reshape tuple
    """
)
_SLICES = ("dynamic-slice", "slice", "gather")
_VIEWS = ("bitcast", "reshape", "copy", "transpose", "convert")


def traffic(
    instruction: Instruction, computation: Computation, module: Module
) -> tuple[float, float]:
    """(bytes read, bytes written) in one execution of an instruction outside of fusions."""
    opcode = instruction.opcode
    if opcode in _FREE or not instruction.arrays:
        return 0, 0
    if opcode == "fusion":
        (name,) = instruction.computations("calls")
        return _fusion(instruction, computation, module.computations[name])
    operands = {name: _bytes(computation.arrays.get(name, ())) for name in instruction.operands}
    written = _bytes(instruction.arrays)
    if opcode in _SLICES:
        return written + sum(list(operands.values())[1:]), written
    if opcode in ("dynamic-update-slice", "scatter"):
        update = operands[instruction.operands[1 if opcode != "scatter" else 2]]
        old = update if opcode == "scatter" else 0
        return sum(operands.values()) - operands[instruction.operands[0]] + old, update
    return sum(operands.values()), written


def _bytes(arrays: tuple[Array, ...]) -> int:
    return sum(array.bytes for array in arrays)


def _fusion(
    instruction: Instruction, computation: Computation, body: Computation
) -> tuple[float, float]:
    by_name = {inner.name: inner for inner in body.instructions}
    users: dict[str, list[Instruction]] = {}
    for inner in body.instructions:
        for operand in inner.operands:
            users.setdefault(operand, []).append(inner)
    updates = [inner for inner in body.instructions if inner.opcode == "dynamic-update-slice"]
    read = 0.0
    seen: set[str] = set()
    for inner in body.instructions:
        if inner.number is None:
            continue
        outer = instruction.operands[inner.number]
        if outer in seen:
            continue
        seen.add(outer)
        read += min(_read(inner.name, users), _bytes(inner.arrays))
    result = by_name[body.root]
    while result.opcode in _VIEWS and result.operands:
        result = by_name[result.operands[0]]
    written = _bytes(instruction.arrays)
    for update in updates:
        # In place where the fusion's result is the whole buffer.
        if update is result or result.opcode == "tuple":
            written += _bytes(body.arrays[update.operands[1]]) - _bytes(update.arrays)
    return read, written


def _read(name: str, users: dict[str, list[Instruction]]) -> float:
    """Bytes of a parameter that a fusion reads; more than all of it where parts overlap."""
    if name not in users:
        return float("inf")  # it is the result
    read = 0.0
    for user in users[name]:
        first = user.operands[0] == name
        if first and user.opcode == "dynamic-update-slice":
            continue  # stays where it is
        if first and user.opcode in _SLICES:
            read += _bytes(user.arrays)
        elif user.opcode in _VIEWS:
            read += _read(user.name, users)
        else:
            return float("inf")
    return read
