"""Counts from the jaxpr of the function that really runs: `trace`.

Dead code is removed first. A scan's body counts times its length, a `while` times a stated number
of trips, a `cond` by a stated rule, `remat` as often as it is executed, a custom derivative by its
body, and a `shard_map` for one device. See `snapjax.cost.count.primitives` for what each operation
costs.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from jax.sharding import NamedSharding

from snapjax.cost.count import (
    _jax,
    collectives,
    control,
    fusion,
    known,
    layout,
    primitives,
    spike_marks,
)
from snapjax.cost.count.record import Record
from snapjax.cost.count.value import UNKNOWN, Path, Value, elements_of, executions, place
from snapjax.cost.counts import Counts, Unpriced

COND_RULES = ("max", "mean", "exact")

Trips = int | Mapping[str, int] | None
Rule = str | Mapping[str, Sequence[float]]


def trace(
    function: Callable[..., Any],
    *args: Any,
    strict: bool = False,
    while_trips: Trips = None,
    cond: Rule = "max",
    rates: Mapping[str, float] | None = None,
    parameters: Any = None,
) -> Counts:
    """The costs of one call of a function, from its jaxpr; nothing is compiled or computed.

    Args:
      function: jitted or not, of a forward pass or a whole training step, under `jax.shard_map` or
        not.
      args: its arguments, pytrees of arrays or `jax.ShapeDtypeStruct`.
      strict: raise for anything that has no price, instead of listing it in `Counts.unpriced`.
      while_trips: iterations of every `while` loop whose number the program does not say, or
        {pattern of the loop's path: iterations}. An unstated loop counts once and is listed as
        unpriced.
      cond: which branch of a `cond` or `switch` counts: "max", the dearest (most
        multiply-accumulates, then bytes sent, then operations); "mean", every branch equally often;
        "exact", the branch that is taken, where it follows from loop counters and the device's
        place on the mesh, as in a pipeline (counts are then means over the devices), and "max"
        where it does not; or {pattern of the cond's path: weight of each branch}, "max" elsewhere.
      rates: spike rate of each site; see `Counts.with_rates`.
      parameters: the model's parameters, a pytree whose elements are counted, or their number.

    Returns:
      counts of one device; see `snapjax.cost.counts`.

    Raises:
      ValueError: for an unknown rule or site; under `strict` for anything without a price.

    Example:
      >>> import jax
      >>> layer = lambda x, w: jax.nn.relu(x @ w)
      >>> x, w = jax.ShapeDtypeStruct((8, 64), "float32"), jax.ShapeDtypeStruct((64, 32), "float32")
      >>> counts = trace(layer, x, w)
      >>> counts.macs, counts.by_kind()
      (16384, {'mac': 16384, 'compare': 256})
    """
    if isinstance(cond, str) and cond not in COND_RULES:
        raise ValueError(
            f"cond={cond!r} must be one of {', '.join(COND_RULES)}, or {{path pattern: weights}}"
        )
    jaxpr, shardings = _jax.make_jaxpr(function, args)
    walker = Walker(while_trips, cond)
    values = [
        walker.argument(var, sharding)
        for var, sharding in zip(jaxpr.invars, shardings, strict=True)
    ]
    walker.run(jaxpr, values, (), np.ones(1))
    counts = walker.record.counts(walker.mesh, tuple(walker.notes), elements_of(parameters))
    if strict and counts.unpriced:
        listed = "; ".join(
            f"{entry.primitive} at {entry.path!r}, {entry.size} elements x {entry.executions:g} "
            f"({entry.reason})"
            for entry in counts.unpriced
        )
        raise ValueError(
            f"trace: strict=True, but the program has parts without a price: {listed}. "
            "State while_trips for loops; leave strict out to have the rest listed"
        )
    return counts.with_rates(rates) if rates else counts


class Walker:
    """One walk over a program; `record` is what it found."""

    def __init__(self, while_trips: Trips, cond: Rule) -> None:
        self.while_trips, self.cond = while_trips, cond
        self.record = Record()
        self.mesh: dict[str, int] = {}
        self.manual = False  # inside of a shard_map
        self.notes: dict[str, None] = {}  # an ordered set
        self._plans: dict[Any, fusion.Plan] = {}  # a body is walked more than once

    def argument(self, var: Any, sharding: NamedSharding | None) -> Value:
        """An argument of the whole program; its sharding says how it lies on the mesh."""
        if sharding is None:
            return UNKNOWN
        self.add_mesh(sharding.mesh)
        return Value(spec=_jax.spec_axes(sharding.spec, len(var.aval.shape)))

    def add_mesh(self, mesh: Any) -> None:
        for axis, size in mesh.shape.items():
            if self.mesh.setdefault(axis, size) != size:
                raise ValueError(
                    f"trace: mesh axis {axis!r} has sizes {self.mesh[axis]} and {size} in one "
                    "program; price the parts on the two meshes one at a time"
                )

    def note(self, text: str) -> None:
        if self.record.active:
            self.notes[text] = None

    # Jaxprs

    def run(
        self,
        jaxpr: Any,
        values: Sequence[Value],
        path: Path,
        weights: np.ndarray,
        plan: fusion.Plan | None = None,
    ) -> list[Value]:
        """Counts a jaxpr and returns what is known of its results.

        Args:
          jaxpr: open.
          values: of its arguments.
          path: of the equation that runs it.
          weights: (devices, iterations of the loops around, ...) executions; outside of
            shard_map there is one device.
          plan: what each equation moves, where the jaxpr is a part of the program around it.
        """
        plan = self._plan(jaxpr) if plan is None else plan
        values = self._laid_out(jaxpr, values)
        env = dict(zip(jaxpr.invars, values, strict=True))

        def get(atom: Any) -> Value:
            if _jax.is_literal(atom):
                mark = spike_marks.constant_mark(atom.val)
                return Value(mark, known.literal_of(atom, weights.shape))
            return env.get(atom, UNKNOWN)  # a constant of a closed jaxpr is unknown

        for equation, moved in zip(jaxpr.eqns, plan, strict=True):
            operands = [get(atom) for atom in equation.invars]
            inner = (*path, *_jax.scopes(equation))
            results = self.equation(equation, operands, inner, weights, moved)
            env.update(zip(equation.outvars, results, strict=True))
        return [get(atom) for atom in jaxpr.outvars]

    def _plan(self, jaxpr: Any) -> fusion.Plan:
        if jaxpr not in self._plans:
            self._plans[jaxpr] = fusion.plan(jaxpr)
        return self._plans[jaxpr]

    def _laid_out(self, jaxpr: Any, values: Sequence[Value]) -> list[Value]:
        """Arguments outside of shard_map lie as the first shard_map takes them, if nothing else
        is known."""
        if self.manual:
            return list(values)
        taken: dict[Any, layout.Spec] = {}
        for equation in jaxpr.eqns:
            if equation.primitive.name == "shard_map":
                self.add_mesh(equation.params["mesh"])
                for atom, spec in zip(equation.invars, equation.params["in_specs"], strict=True):
                    if not _jax.is_literal(atom):
                        taken.setdefault(atom, _jax.spec_axes(spec, len(atom.aval.shape)))
        return [
            value._replace(spec=taken.get(var)) if value.spec is None else value
            for var, value in zip(jaxpr.invars, values, strict=True)
        ]

    def equation(
        self,
        equation: Any,
        operands: list[Value],
        path: Path,
        weights: np.ndarray,
        moved: fusion.Stored | fusion.Plan,
    ) -> list[Value]:
        """Counts one equation and returns what is known of its results."""
        name = equation.primitive.name
        plan = moved if isinstance(moved, list) else None
        if name == "scan":
            return control.scan(self, equation, operands, path, weights, plan)
        special = {
            "while": control.while_loop,
            "cond": control.cond,
            "shard_map": control.shard_map,
            "pallas_call": control.pallas_call,
        }.get(name)
        if special is not None:
            return special(self, equation, operands, path, weights)
        if name in primitives.CALLS:
            return self._call(equation, operands, path, weights, plan)
        if collectives.collective_of(name) is not None:
            self._collective(equation, operands, path, weights)
        elif name not in collectives.ENDS:
            assert isinstance(moved, fusion.Stored)  # only calls have plans
            self._operation(equation, operands, path, weights, moved)
        return self._results(equation, operands, path, weights)

    def _results(
        self, equation: Any, operands: list[Value], path: Path, weights: np.ndarray
    ) -> list[Value]:
        where = "/".join(path)
        second = lambda: known.constant(operands[1].known)
        marks = spike_marks.propagate(equation, [v.mark for v in operands], second, where)
        value: known.Known = None
        if equation.primitive.name == "axis_index" and self.manual:
            value = self._place(equation.params["axis_name"], weights)
        elif len(equation.outvars) == 1:
            value = known.evaluate(equation, [value.known for value in operands], weights.shape)
        specs: list[layout.Spec | None] = [None] * len(marks)
        if not self.manual:
            specs, note = layout.propagate(equation, [value.spec for value in operands])
            if note:
                self.note(f"{place(path)}: {note}")
            specs = [
                spec or _jax.typed_spec(result.aval)
                for spec, result in zip(specs, equation.outvars, strict=True)
            ]
            self._auto(equation)
        return [Value(mark, value, spec) for mark, spec in zip(marks, specs, strict=True)]

    def _auto(self, equation: Any) -> None:
        large = any(_jax.size_of(operand.aval) > 1 for operand in equation.invars)
        if large and equation.primitive.name in ("sharding_constraint", "reshard"):
            self.note(AUTO)

    def _place(self, axis: Any, weights: np.ndarray) -> np.ndarray:
        """Each device's index along an axis (or several), in every iteration."""
        axes = (axis,) if isinstance(axis, str) else tuple(axis)
        sizes = tuple(self.mesh.values())
        coordinates = np.unravel_index(np.arange(math.prod(sizes)), sizes)
        along = dict(zip(self.mesh, coordinates, strict=True))
        index = np.ravel_multi_index([along[a] for a in axes], [self.mesh[a] for a in axes])
        return np.broadcast_to(index.reshape(-1, *(1,) * (weights.ndim - 1)), weights.shape)

    # Leaves

    def _operation(
        self,
        equation: Any,
        operands: list[Value],
        path: Path,
        weights: np.ndarray,
        moved: fusion.Stored,
    ) -> None:
        if not self.record.active:
            return
        name, where = equation.primitive.name, "/".join(path)
        if name in primitives.HOST:
            self.note(f"{place(path)}: {name} runs on the host and is not counted")
        found = self._folded(equation) if name in _FOLDS else primitives.work(equation)
        times, share = executions(weights), 1.0
        if found is None:
            size = sum(_jax.size_of(result.aval) for result in equation.outvars)
            self.record.unpriced(Unpriced(name, where, size, times))
            return
        if not self.manual and self.mesh:
            specs = [value.spec for value in operands]
            share = 1 / layout.shards(specs, self.mesh)
            if name in primitives.MATMULS and layout.axes_of(*specs):
                self.note(AUTO)
        sites: tuple[str, ...] = ()
        if name in primitives.MATMULS:
            sites = spike_marks.operand_sites([value.mark for value in operands[:2]])
        self.record.work(equation, where, found, moved, times, share, sites)

    def _folded(self, equation: Any) -> list[primitives.Work] | None:
        """A reduction by a function of the user's: its body for every element folded away."""
        name, params = equation.primitive.name, equation.params
        body = _jax.inner_jaxprs(params)[0]
        size = _jax.size_of(equation.outvars[0].aval)
        if name == "reduce":
            folds = _jax.size_of(equation.invars[0].aval) - size
        else:
            folds = size * (math.prod(params["window_dimensions"]) - 1)
        found = []
        for inner in body.eqns:
            inner_work = primitives.work(inner)
            if inner_work is None:
                return None
            found += [primitives.Work(kind, folds * count) for kind, count in inner_work]
        return found

    def _collective(
        self, equation: Any, operands: list[Value], path: Path, weights: np.ndarray
    ) -> None:
        if not self.record.active:
            return
        where, times = "/".join(path), executions(weights)
        try:
            found = collectives.read(equation, self.mesh)
        except KeyError as error:
            size = sum(_jax.size_of(operand.aval) for operand in equation.invars)
            reason = f"the mesh has no axis {error}"
            self.record.unpriced(Unpriced(equation.primitive.name, where, size, times, reason))
            return
        if found.name == "ragged_all_to_all":
            self.note(f"{place(path)}: ragged_all_to_all counts its whole operand as sent")
        self.record.collective(equation, where, found, times, [value.mark for value in operands])

    def reshard(
        self,
        operand: Any,
        value: Value,
        steps: Sequence[layout.Move],
        path: Path,
        weights: np.ndarray,
    ) -> None:
        """Counts the collectives that bring an array into another layout."""
        for step in steps:
            shards = layout.shards([step.spec], self.mesh)
            payload = -(-_jax.bytes_of(operand.aval) // shards)
            elements = _jax.size_of(operand.aval) // shards
            found = collectives.implied(step, self.mesh, payload, elements)
            moved = SimpleNamespace(invars=[operand])
            where = "/".join((*path, "reshard"))
            self.record.collective(moved, where, found, executions(weights), [value.mark])

    # Calls

    def _call(
        self,
        equation: Any,
        operands: list[Value],
        path: Path,
        weights: np.ndarray,
        plan: fusion.Plan | None,
    ) -> list[Value]:
        name, inner = equation.primitive.name, _jax.called(equation)
        if inner is None or len(inner.invars) != len(operands):
            size = sum(_jax.size_of(result.aval) for result in equation.outvars)
            reason = "what it calls could not be read"
            self.record.unpriced(Unpriced(name, "/".join(path), size, executions(weights), reason))
            return [UNKNOWN] * len(equation.outvars)
        if name in ("jit", "pjit") and not self.manual:
            shardings = (*equation.params["in_shardings"], *equation.params["out_shardings"])
            named = [s for s in shardings if isinstance(s, NamedSharding)]
            for sharding in named:
                self.add_mesh(sharding.mesh)
            operands = [
                value._replace(spec=_jax.spec_axes(s.spec, len(operand.aval.shape)))
                if value.spec is None and isinstance(s, NamedSharding)
                else value
                for operand, value, s in zip(
                    equation.invars, operands, equation.params["in_shardings"], strict=True
                )
            ]
        results = self.run(inner, operands, path, weights, plan)
        if name == "custom_vjp_call" and spike_marks.is_spike(equation):
            mark = spike_marks.Mark(("/".join(path) or spike_marks.SPIKE,))
            return [value._replace(mark=mark) for value in results]
        return results

    # Modes

    @contextmanager
    def recording(self, record: Record) -> Iterator[Record]:
        outer, self.record = self.record, record
        try:
            yield record
        finally:
            self.record = outer

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        with self.recording(Record(active=False)):
            yield

    @contextmanager
    def inside(self) -> Iterator[None]:
        outer, self.manual = self.manual, True
        try:
            yield
        finally:
            self.manual = outer


AUTO = (
    "auto-sharded: XLA divides this program over the mesh and inserts its collectives; the jaxpr "
    "has none of them, so the compiled HLO (snapjax.cost.hlo.counts) is the source for transfers"
)
_FOLDS = ("reduce", "reduce_window")
