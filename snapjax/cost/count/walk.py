"""The walk over a jaxpr: each equation once, with what is known of its operands.

What an equation counts is the business of its handler. Handlers are registered by the names of
primitives in `operations.py` and `control.py`; `trace.py` hands them to the walker.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import NamedSharding

from snapjax.cost.count import _jax, demand, fusion, known, layout
from snapjax.cost.count import marks as marked
from snapjax.cost.count.record import Record
from snapjax.cost.count.rules import Rules
from snapjax.cost.count.value import UNKNOWN, Path, Value
from snapjax.cost.counts import Unpriced

# A constant, of which nothing else is known.
CONSTANT = Value(static=True)


class Visit(NamedTuple):
    """An equation, where the walk meets it.

    Attributes:
      equation: of the jaxpr.
      operands: what is known of them.
      path: of its module.
      weights: its executions, as in `Walker.run`.
      wanted: layouts in which its results are used, where nothing else says how they lie.
      constrained: whether `wanted` holds whatever else says how they lie.
      moved: what one execution moves to and from memory; of a call whose body is a part of the
        program around it, the body's plan.
    """

    equation: Any
    operands: list[Value]
    path: Path
    weights: np.ndarray
    moved: fusion.Stored | fusion.Plan
    wanted: Sequence[layout.Spec | None] = ()
    constrained: bool = False

    @property
    def name(self) -> str:
        """The primitive's name."""
        return self.equation.primitive.name

    @property
    def where(self) -> str:
        """The module path as `Op` has it."""
        return "/".join(self.path)

    @property
    def title(self) -> str:
        """The path for a reader, also of the top level."""
        return self.where or "top level"

    @property
    def plan(self) -> fusion.Plan | None:
        """What each equation of its body moves, where `moved` says so."""
        return self.moved if isinstance(self.moved, list) else None

    @property
    def executions(self) -> float:
        """Executions on one device, the mean over the devices."""
        total = float(self.weights.sum()) / self.weights.shape[0]
        return int(total) if total.is_integer() else total


Handler = Callable[["Walker", Visit], list[Value]]
"""Counts one equation in the walker's record and returns what is known of its results."""


class Handlers(dict[str, Handler]):
    """name of a primitive -> what handles its equations."""

    def register(self, *primitives: str) -> Callable[[Handler], Handler]:
        """A decorator: the function handles the equations of these primitives."""

        def add(handler: Handler) -> Handler:
            self.update(dict.fromkeys(primitives, handler))
            return handler

        return add


class Walker:
    """One walk over a program.

    Attributes:
      rules: what `trace` was told of loops and branches.
      record: what it found.
      mesh: mesh axis -> size, of every mesh that it met.
      on_chip: whether it is inside of a kernel, whose operands were brought from memory before.
      manual: mesh axes that a shard_map around divides by hand; all of them in a kernel.
      programs: of each kernel around, where its programs are in the weights, and the index of each
        program along each dimension of the grid.
      notes: what a reader must know, an ordered set.
    """

    def __init__(self, handlers: Mapping[str, Handler], otherwise: Handler, rules: Rules) -> None:
        """`otherwise` handles the primitives that have no handler of their own."""
        self._handlers, self._otherwise = handlers, otherwise
        self.rules = rules
        self.record = Record()
        self.mesh: dict[str, int] = {}
        self.manual: frozenset[str] = frozenset()
        self.programs: list[tuple[int, np.ndarray]] = []
        self.on_chip = False
        self.notes: dict[str, None] = {}
        self._plans: dict[Any, fusion.Plan] = {}  # a body is walked more than once

    @property
    def whole_mesh(self) -> bool:
        """Whether nothing is left to XLA: every axis is divided by hand."""
        return self.manual >= {axis for axis, size in self.mesh.items() if size > 1}

    def argument(self, var: Any, sharding: NamedSharding | None) -> Value:
        """An argument of the whole program; its sharding says how it lies on the mesh."""
        if sharding is None:
            return UNKNOWN
        self.add_mesh(sharding.mesh)
        return Value(spec=_jax.spec_axes(sharding.spec, len(var.aval.shape)))

    def add_mesh(self, mesh: Any) -> None:
        """Adds the axes of a mesh that the program names.

        Raises:
          ValueError: for an axis that has another size elsewhere in the program.
        """
        for axis, size in mesh.shape.items():
            if self.mesh.setdefault(axis, size) != size:
                raise ValueError(
                    f"trace: mesh axis {axis!r} has sizes {self.mesh[axis]} and {size} in one "
                    "program; price the parts on the two meshes one at a time"
                )

    def note(self, text: str) -> None:
        """Adds a sentence for the reader, unless nothing is recorded here."""
        if self.record.active:
            self.notes[text] = None

    def unpriced(self, visit: Visit, reason: str = Unpriced.reason) -> None:
        """Lists an equation as one without a price."""
        size = sum(_jax.size_of(result.aval) for result in visit.equation.outvars)
        entry = Unpriced(visit.name, visit.where, size, visit.executions, reason)
        self.record.unpriced(entry)

    # Jaxprs

    def run(
        self,
        jaxpr: Any,
        values: Sequence[Value],
        path: Path,
        weights: np.ndarray,
        plan: fusion.Plan | None = None,
        constants: Sequence[Any] = (),
        wanted: Sequence[layout.Spec | None] = (),
    ) -> list[Value]:
        """Counts a jaxpr and returns what is known of its results.

        Args:
          jaxpr: open.
          values: of its arguments.
          path: of the equation that runs it.
          weights: (devices, iterations of the loops around, ...) executions; outside of
            shard_map there is one device.
          plan: what each equation moves, where the jaxpr is a part of the program around it.
          constants: arrays that it closes over, where they are at hand.
          wanted: layouts in which its results are used.
        """
        plan = self._plan(jaxpr) if plan is None else plan
        values = self._laid_out(jaxpr, values)
        env = dict(zip(jaxpr.invars, values, strict=True))
        asked: demand.Wanted = {}
        given: demand.Wanted = {}
        if self.mesh and not self.whole_mesh:
            asked = demand.wanted(jaxpr, [value.spec for value in values], wanted, self.mesh)
            given = demand.constrained(jaxpr)
            asked.update(given)
        for var, array in zip(jaxpr.constvars, constants, strict=False):
            value = known.literal(array, weights.shape) if hasattr(array, "dtype") else None
            env[var] = Value(marked.of_constant(array), value, static=True)

        def get(atom: Any) -> Value:
            if _jax.is_literal(atom):
                mark = marked.of_constant(atom.val)
                return Value(mark, known.literal_of(atom, weights.shape), static=True)
            return env.get(atom, CONSTANT)  # of a closed jaxpr

        for equation, moved in zip(jaxpr.eqns, plan, strict=True):
            operands = [get(atom) for atom in equation.invars]
            where = (*path, *_jax.scopes(equation))
            results = [asked.get(var) for var in equation.outvars]
            fixed = any(var in given for var in equation.outvars)
            visit = Visit(equation, operands, where, weights, moved, results, fixed)
            handler = self._handlers.get(visit.name, self._otherwise)
            env.update(zip(equation.outvars, handler(self, visit), strict=True))
        return [get(atom) for atom in jaxpr.outvars]

    def _plan(self, jaxpr: Any) -> fusion.Plan:
        if jaxpr not in self._plans:
            self._plans[jaxpr] = fusion.plan(jaxpr)
        return fusion.on_chip(self._plans[jaxpr]) if self.on_chip else self._plans[jaxpr]

    def _laid_out(self, jaxpr: Any, values: Sequence[Value]) -> list[Value]:
        """Arguments outside of shard_map lie as the first shard_map takes them, if nothing else
        is known. The meshes that are named are met here."""
        if self.manual and self.whole_mesh:
            return list(values)
        taken: dict[Any, layout.Spec] = {}
        for equation in jaxpr.eqns:
            for mesh in _jax.meshes(equation):
                self.add_mesh(mesh)
            if equation.primitive.name == "shard_map" and not self.manual:
                for atom, spec in zip(equation.invars, equation.params["in_specs"], strict=True):
                    if not _jax.is_literal(atom):
                        taken.setdefault(atom, _jax.spec_axes(spec, len(atom.aval.shape)))
        return [
            value._replace(spec=taken.get(var)) if value.spec is None else value
            for var, value in zip(jaxpr.invars, values, strict=True)
        ]

    # Modes

    @contextmanager
    def recording(self, record: Record) -> Iterator[Record]:
        """What is found inside goes into this record."""
        outer, self.record = self.record, record
        try:
            yield record
        finally:
            self.record = outer

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Nothing that is found inside is recorded: the walk only follows what is known."""
        with self.recording(Record(active=False)):
            yield

    @contextmanager
    def inside(self, manual: Iterable[str]) -> Iterator[None]:
        """Inside of a shard_map, where arrays are a device's own along these axes."""
        outer, self.manual = self.manual, self.manual | set(manual)
        try:
            yield
        finally:
            self.manual = outer

    @contextmanager
    def kernel(self, place: int | None, index: np.ndarray | None) -> Iterator[None]:
        """Inside of a kernel, whose references are on the chip."""
        outer = self.programs, self.on_chip
        self.programs = [] if place is None or index is None else [(place, index)]
        self.on_chip = True
        try:
            with self.inside(self.mesh):
                yield
        finally:
            self.programs, self.on_chip = outer
