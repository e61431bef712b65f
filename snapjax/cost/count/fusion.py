"""Which values of a program reach memory, and which stay in a group of fused operations.

A first-order model of XLA's producer-consumer fusion (openxla/xla, `instruction_fusion.cc`; Snider
and Liang, "Operator Fusion in XLA", arXiv 2301.13062), without a constant to choose:

| operation | what it does |
|---|---|
| elementwise, broadcast, iota, pad, slice, transpose, concatenate, ... | fuses into what uses it |
| reduction, running fold, window | ends a group: takes producers in, and its result is stored |
| update of a part in place | likewise; writes the part alone, of a buffer that is stored |
| matmul, convolution, gather, scatter, sort, random bits, ... | operands and results are stored |
| loop, branch, shard_map, kernel, collective | likewise, and moves nothing by itself here |
| jit, custom derivative, remat, unrolled scan, ... | its body is a part of the program around it |
| reshape, sum over axes of 1, cast of bookkeeping | another name of its operand |

A result of the program (or of a loop's body, a branch, ...) is stored, as often as it is one. A
value that several groups need is stored if it is expensive, which XLA computes only once; if not,
it is computed in each of them, unless storing it moves fewer bytes. One that is stored for another
reason is still computed again where that reads less, such as a broadcast.

A group is one stored value with all that is fused into it. It reads each stored value once (of one
that it only slices, the slices) and writes its own. A read belongs to the first operation in the
group that needs it, the write to the last. Groups that read the same are not joined, and no tile of
a matmul is kept: compilers that do so move less. Copies are left out: of a loop's row that a matmul
takes, of a residual into its stack, of an argument to a result. Against the fusions of XLA on a CPU
(`tests/test_cost_fusion.py`) elementwise chains and reductions are equal, a hop of a boundary and
the forward pass of a model are between 0.8 and 1.25 of its bytes, and a backward pass, where it
copies the most, between 0.5 and 1.25; of one hop alone, differentiated, 0.4 to 2.6.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from snapjax.cost.count import _jax, primitives


class Stored(NamedTuple):
    """Bytes that one execution of an equation reads from memory and writes to it, and how many
    operations or groups of fused ones it starts."""

    read: float = 0
    written: float = 0
    starts: float = 0


# An entry for each equation of a jaxpr; of a call that is a part of the program, its body's plan.
Plan = list["Stored | Plan"]


def on_chip(plan: Plan) -> Plan:
    """A plan whose values are all on the chip already, in one operation with what is around."""
    return [on_chip(entry) if isinstance(entry, list) else Stored() for entry in plan]


class _Node:
    """An operation in the flat list of a program's; values are numbers.

    Attributes:
      equation: None for the rows that an unrolled loop takes of an array, or the stack of its
        results; others bear what these move.
      place: of its entry in a plan.
      share: of an execution that the entry stands for, where a loop was unrolled.
    """

    def __init__(
        self,
        equation: Any,
        place: tuple[Plan, int] | None,
        operands: list[int | None],
        share: float = 1,
        name: str = "",
    ) -> None:
        self.equation, self.place, self.operands, self.share = equation, place, operands, share
        self.name = name or equation.primitive.name
        self.key = -1  # of the group that it ends, where it does not fuse
        self.results: list[int] = []
        self.fuses = self.name in primitives.FUSES
        self.update = self.name in primitives.UPDATES
        self.ends = self.name in primitives.ENDS_GROUP or self.update
        self.expensive = self.name in primitives.EXPENSIVE

    def stores(self, position: int) -> bool:
        """Whether this use of an operand needs it in memory."""
        return not (self.fuses or self.ends) or (self.update and position == 0)


def plan(jaxpr: Any) -> Plan:
    """What each equation of an open jaxpr moves in one execution.

    Loops, branches and the like have plans of their own bodies, which are not in this one.
    """
    program = _Program()
    entries: Plan = []
    results = program.flatten(jaxpr, [program.value(_bytes(v.aval)) for v in jaxpr.invars], entries)
    for result in results:
        if result is not None:
            program.copies[result] = program.copies.get(result, 0) + 1
    program.decide()
    program.charge()
    return entries


class _Program:
    """The operations of one body with those of the calls in it, and what is known of each value."""

    def __init__(self) -> None:
        self.nodes: list[_Node] = []
        self.bytes: list[int] = []
        self.maker: list[_Node | None] = []
        self.users: list[list[tuple[_Node, int]]] = []
        self.copies: dict[int, int] = {}  # value -> how often it is a result of the program
        self.stored: list[bool] = []
        self.again: set[int] = set()  # stored, but groups compute it again

    def value(self, size: int, maker: _Node | None = None) -> int:
        self.bytes.append(size)
        self.maker.append(maker)
        self.users.append([])
        self.stored.append(True)
        return len(self.bytes) - 1

    def flatten(
        self, jaxpr: Any, arguments: Sequence[int | None], entries: Plan, share: float = 1
    ) -> list[int | None]:
        """Adds a jaxpr's operations; an unrolled loop adds its body's again, to the same entries.

        Returns:
          the results' values, None for a literal.
        """
        env: dict[Any, int | None] = dict(zip(jaxpr.invars, arguments, strict=True))

        def get(atom: Any) -> int | None:
            if _jax.is_literal(atom):
                return None
            if atom not in env:  # a constant of a closed jaxpr
                env[atom] = self.value(_bytes(atom.aval))
            return env[atom]

        for index, equation in enumerate(jaxpr.eqns):
            operands = [get(atom) for atom in equation.invars]
            inner, loop = inlined(equation), unrolled(equation)
            if index == len(entries):
                entries.append(Stored() if inner is None and loop is None else [])
            body = entries[index]
            results = operands
            if isinstance(body, list) and loop is not None:
                results = self.unroll(equation, loop, operands, body, share)
            elif isinstance(body, list):
                results = self.flatten(inner, operands, body, share)
            elif not _renames(equation):
                node = self.node(_Node(equation, (entries, index), operands, share))
                node.results = [self.value(_bytes(v.aval), node) for v in equation.outvars]
                results = [*node.results]
            elif equation.primitive.name == "optimization_barrier":
                self.node(_Node(equation, (entries, index), operands, share))
            env.update(zip(equation.outvars, results, strict=True))
        return [get(atom) for atom in jaxpr.outvars]

    def unroll(
        self,
        equation: Any,
        body: Any,
        operands: Sequence[int | None],
        entries: Plan,
        share: float,
    ) -> list[int | None]:
        """A loop as its iterations one after the other: rows, bodies, and stacks of results."""
        length = equation.params["length"]
        consts, carry = _jax.scan_parts(equation.params)
        state = list(operands[consts : consts + carry])
        made: list[list[int | None]] = []
        for _ in range(length):
            rows = [
                None if array is None else self.extra("slice", [array], _bytes(var.aval))
                for array, var in zip(
                    operands[consts + carry :], body.invars[consts + carry :], strict=True
                )
            ]
            arguments = [*operands[:consts], *state, *rows]
            results = self.flatten(body, arguments, entries, share / length)
            state = results[:carry]
            made.append(results[carry:])
        stacks: list[int | None] = [
            self.extra("stack", [row[number] for row in made], _bytes(var.aval))
            for number, var in enumerate(equation.outvars[carry:])
        ]
        return state + stacks

    def extra(self, name: str, operands: list[int | None], size: int) -> int:
        node = self.node(_Node(None, None, operands, name=name))
        node.results = [self.value(size, node)]
        return node.results[0]

    def node(self, node: _Node) -> _Node:
        self.nodes.append(node)
        node.key = -len(self.nodes)  # apart from every value
        for position, operand in enumerate(node.operands):
            if operand is not None:
                self.users[operand].append((node, position))
        return node

    # What is stored

    def needed(self, value: int) -> bool:
        """Whether something other than a fused group wants a value in memory."""
        return value in self.copies or any(node.stores(at) for node, at in self.users[value])

    def decide(self) -> None:
        """Sets `stored` and `again`, from the last operation to the first."""
        inputs = self._inputs()
        groups: dict[int, frozenset[int]] = {}  # value -> last values of the groups that hold it
        for node in reversed(self.nodes):
            for value in node.results if node.fuses else ():
                wanted: set[int] = set()
                for user, position in self.users[value]:
                    if user.fuses:
                        wanted.update(*(groups[result] for result in user.results))
                    elif not user.stores(position):
                        wanted.add(user.key)
                around = sum(self.bytes[leaf] for leaf in inputs[value])
                if self.needed(value):
                    if around < self.bytes[value] and not node.expensive:
                        self.again.add(value)
                elif len(wanted) > 1:
                    stores = around + (1 + len(wanted)) * self.bytes[value]
                    self.stored[value] = node.expensive or stores < len(wanted) * around
                else:
                    self.stored[value] = False
                inside = frozenset(wanted) if self._recomputed(value) else frozenset()
                groups[value] = inside | {value} if self.stored[value] else inside

    def _inputs(self) -> dict[int, frozenset[int]]:
        """value -> what a group that computes it would read, if only what must be were stored."""
        found: dict[int, frozenset[int]] = {}
        for node in self.nodes:
            leaves: set[int] = set()
            for position, operand in enumerate(node.operands if node.fuses else ()):
                if operand is None:
                    continue
                if operand in found and not self.needed(operand):
                    leaves |= found[operand]
                elif position == 0 and node.name in primitives.READS_PART:
                    leaves.update(node.results)  # as large as what is read
                else:
                    leaves.add(operand)
            if node.fuses:
                found.update(dict.fromkeys(node.results, frozenset(leaves)))
        return found

    def _recomputed(self, value: int) -> bool:
        return not self.stored[value] or value in self.again

    # What it moves

    def charge(self) -> None:
        """Adds up the reads and writes of every group and of every operation of its own."""
        for node in self.nodes:
            if node.fuses:
                for value in node.results:
                    if self.stored[value] and (value in self.copies or self.users[value]):
                        self._group(node, self.bytes[value] * max(1, self.copies.get(value, 0)))
            elif node.update:
                self._group(node, primitives.traffic(node.equation)[1])
            elif node.ends:
                self._group(node, sum(self.bytes[value] for value in node.results))
            elif primitives.work(node.equation):  # not a call, nor a collective
                self._alone(node)

    def _alone(self, node: _Node) -> None:
        read, written = primitives.traffic(node.equation)
        if node.name in primitives.MATMULS:
            read = sum(self.bytes[v] for v in {v for v in node.operands if v is not None})
        _add(node, read, written, 1)

    def _group(self, last: _Node, written: float) -> None:
        """A group that ends in a node: each stored value that it needs is read once."""
        whole: dict[int, _Node] = {}
        parts: dict[int, list[tuple[_Node, int]]] = {}
        bears = last if last.place else self._bearer(last)
        seen, waiting = {id(last)}, [(last, bears)]
        while waiting:
            node, reader = waiting.pop()
            for position, operand in enumerate(node.operands):
                if operand is None or node.stores(position):
                    continue
                maker = self.maker[operand]
                if maker is not None and maker.fuses and self._recomputed(operand):
                    if id(maker) not in seen:
                        seen.add(id(maker))
                        waiting.append((maker, maker if maker.place else reader))
                elif position == 0 and node.name in primitives.READS_PART:
                    size = sum(self.bytes[value] for value in node.results)
                    parts.setdefault(operand, []).append((reader, size))
                else:
                    whole.setdefault(operand, reader)
        for operand, reader in whole.items():
            _add(reader, self.bytes[operand], 0, 0)
        for operand, readers in parts.items():
            left = 0 if operand in whole else self.bytes[operand]
            for reader, size in readers:
                _add(reader, min(size, left), 0, 0)
                left -= min(size, left)
        # What was there is read where it is added to, or returned.
        read_too = last.name.endswith("addupdate") or any(self.users[v] for v in last.results)
        old = written if last.update and last.name != "dynamic_update_slice" and read_too else 0
        _add(bears, old, written, 1)

    def _bearer(self, node: _Node) -> _Node:
        """Who bears what a stack or a row moves: the equation that made the last part of it."""
        while node.place is None:
            makers = [self.maker[value] for value in node.operands if value is not None]
            found = [maker for maker in makers if maker is not None]
            if not found:
                return node
            node = found[-1]
        return node


def _bytes(aval: Any) -> int:
    """Bytes of a stored array: XLA gives a bool a byte of its own."""
    dtype = getattr(getattr(aval, "inner_aval", aval), "dtype", None)
    return _jax.size_of(aval) if str(dtype) == "bool" else _jax.bytes_of(aval)


def inlined(equation: Any) -> Any:
    """The body of a call that is a part of the program around it; None for all else."""
    if equation.primitive.name not in primitives.CALLS:
        return None
    inner = _jax.called(equation)
    same = inner is not None and (len(inner.invars), len(inner.outvars)) == (
        len(equation.invars),
        len(equation.outvars),
    )
    return inner if same else None


def unrolled(equation: Any) -> Any:
    """The body of a scan that runs without a loop; None for all else."""
    params = equation.params
    if equation.primitive.name != "scan" or params["length"] > params.get("unroll", 1):
        return None
    return _jax.opened(params["jaxpr"]) if params["length"] else None


def _renames(equation: Any) -> bool:
    """Whether the results are the operands under other names or in other shapes."""
    name = equation.primitive.name
    if not equation.invars or name not in primitives.FREE | primitives.SUMS:
        return False
    operands, results = (
        [(_bytes(atom.aval), _jax.size_of(atom.aval)) for atom in atoms]
        for atoms in (equation.invars, equation.outvars)
    )
    # A cast of the bits to another width moves them; a sum over axes of 1 does not.
    return operands == results


def _add(node: _Node, read: float, written: float, starts: float) -> None:
    if node.place is None:
        return  # rows of an array that are stacked again: no equation of the program does that
    entries, index = node.place
    entry = entries[index]
    assert isinstance(entry, Stored)  # calls have no nodes
    share = node.share
    entries[index] = Stored(
        entry.read + share * read, entry.written + share * written, entry.starts + share * starts
    )
