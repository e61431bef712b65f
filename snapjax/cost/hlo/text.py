"""Reads the text of a compiled HLO module: computations, instructions, shapes, device groups."""

import re
from dataclasses import dataclass, field

import numpy as np

# Bits of an element as XLA stores it; a pred takes a byte.
_BITS = {"pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128}

_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+)(?: \(.*\))? (?:-> .* )?\{$")
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,<=]*)\]")
_OPERAND = re.compile(r"%([\w.\-]+)")


@dataclass(frozen=True)
class Array:
    """The dtype (HLO's name) and shape of an array."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def bits(self) -> int:
        """Of an element: 8 for a bool, 4 for an int4."""
        if self.dtype in _BITS:
            return _BITS[self.dtype]
        digits = re.search(r"\d+", self.dtype)
        return int(digits[0]) if digits else 0

    @property
    def bytes(self) -> int:
        return -(-self.size * self.bits // 8)


@dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name, opcode: HLO's.
      arrays: of the result, one for each element of a tuple.
      operands: names.
      attributes: the rest of the line.
      number: of a parameter, its place among the operands of what calls; None for all else.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    number: int | None = None

    @property
    def op_name(self) -> str:
        """Where in the program it comes from, such as "jit(f)/layer/dot_general"."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    def dimensions(self, attribute: str) -> tuple[int, ...]:
        """The numbers of an attribute such as lhs_contracting_dims={1}."""
        found = re.search(rf"{attribute}=\{{([\d,]*)\}}", self.attributes)
        return _numbers(found[1]) if found else ()

    def computations(self, attribute: str) -> list[str]:
        """Names of the computations of an attribute such as body=%x or calls={%x, %y}."""
        found = re.search(rf"\b{attribute}=(\{{[^}}]*\}}|%?[\w.\-]+)", self.attributes)
        return re.findall(r"[\w.\-]+", found[1]) if found else []

    @property
    def trip_count(self) -> int | None:
        """Of a while loop, where XLA knows it."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', self.attributes)
        return int(found[1]) if found else None


@dataclass
class Computation:
    """A list of instructions; `arrays` are the results by name, and `root` is what it returns."""

    name: str
    root: str = ""
    instructions: list[Instruction] = field(default_factory=list)
    arrays: dict[str, tuple[Array, ...]] = field(default_factory=dict)


@dataclass
class Module:
    """A module's computations by name, and the name of the one that runs."""

    entry: str
    computations: dict[str, Computation]


def parse(text: str) -> Module:
    """The computations of a compiled module's text.

    Raises:
      ValueError: for text without an entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            start = _COMPUTATION.match(line)
            if start and " = " not in line.split("{")[0]:
                current = computations[start[2]] = Computation(start[2])
                entry = start[2] if start[1] else entry
        elif line.startswith("}"):
            current = None
        else:
            found = _INSTRUCTION.match(line)
            if found:
                instruction = _instruction(found[2], found[3])
                current.instructions.append(instruction)
                current.arrays[instruction.name] = instruction.arrays
                current.root = instruction.name if found[1] else current.root
    if not entry:
        raise ValueError("hlo: the text has no ENTRY computation; use jitted.lower(...).compile()")
    return Module(entry, computations)


def _instruction(name: str, rest: str) -> Instruction:
    shape, rest = _split_shape(rest)
    opcode, _, rest = rest.partition("(")
    operands, attributes = _split_operands(rest)
    arrays = tuple(
        Array(dtype, _numbers(dims.replace("<=", ""))) for dtype, dims in _ARRAY.findall(shape)
    )
    opcode = opcode.strip()
    number = int(operands) if opcode == "parameter" else None
    names = tuple(_OPERAND.findall(operands))
    return Instruction(name, opcode, arrays, names, attributes, number)


def _split_shape(text: str) -> tuple[str, str]:
    """(shape, what follows): a tuple's shape holds spaces and nested parentheses."""
    if not text.startswith("("):
        shape, _, rest = text.partition(" ")
        return shape, rest
    end = _closing(text, 1)
    return text[:end], text[end:].lstrip()


def _split_operands(text: str) -> tuple[str, str]:
    end = _closing(text, 1)
    return text[: end - 1], text[end:]


def _closing(text: str, depth: int) -> int:
    """Index after the parenthesis that closes `depth` open ones (one that opens text counts)."""
    start = 1 if text.startswith("(") else 0
    for index in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index + 1
    return len(text)


def source_target_pairs(attributes: str) -> tuple[tuple[int, int], ...]:
    found = re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", attributes)
    numbers = re.findall(r"\{(\d+),(\d+)\}", found[1]) if found else []
    return tuple((int(source), int(target)) for source, target in numbers)


def replica_groups(attributes: str, devices: int) -> tuple[tuple[int, ...], ...]:
    """Devices that talk with each other: a list, a counter's reshape, or a mesh of named axes.

    Args:
      attributes: of a collective.
      devices: in the module; no groups means one of them all.
    """
    named = re.search(
        r"replica_groups=mesh\[([^\]]*)\]"
        r"(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? *\{([^}]*)\}",
        attributes,
    )
    if named:
        sizes = {name: int(n) for name, n in re.findall(r"'([^']+)'=(\d+)", named[1])}
        inner = [list(sizes).index(name) for name in re.findall(r"'([^']+)'", named[4])]
        order = _counter(named[2] or str(np.prod(list(sizes.values()))), named[3])
        order = np.moveaxis(order.reshape(list(sizes.values())), inner, range(-len(inner), 0))
        width = int(np.prod(order.shape[order.ndim - len(inner) :], dtype=np.int64))
        return _rows(order.reshape(-1, width))
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if iota:
        return _rows(_counter(iota[2], iota[3]).reshape(_numbers(iota[1])))
    listed = re.search(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}", attributes)
    groups = re.findall(r"\{([\d,]+)\}", listed[1]) if listed else []
    return tuple(_numbers(group) for group in groups) or (tuple(range(devices)),)


def _counter(shape: str, order: str | None) -> np.ndarray:
    """0, 1, 2, ... in a shape, transposed."""
    sizes = _numbers(shape)
    counter = np.arange(np.prod(sizes)).reshape(sizes)
    return counter.transpose(_numbers(order)) if order else counter


def _rows(array: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in array.tolist())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)
