"""The layouts in which the users of an array want it: XLA divides work backwards too.

An array of which nothing is known, such as a constant cotangent or the product of two of them, is
made as its users need it: XLA passes layouts from results to operands where nothing came the other
way.
"""

from collections.abc import Sequence
from typing import Any

from jax.sharding import NamedSharding

from snapjax.cost.count import _jax, fusion, layout
from snapjax.cost.count.layout import Spec

Wanted = dict[Any, Spec]


def wanted(
    jaxpr: Any,
    inputs: Sequence[Spec | None],
    outputs: Sequence[Spec | None],
    mesh: dict[str, int],
) -> Wanted:
    """variable of an open jaxpr -> the layout in which it is used, where it has none of its own.

    Args:
      inputs: layouts of its arguments.
      outputs: in which its results are used.
      mesh: size of each axis.
    """
    found = _forward(jaxpr, inputs, mesh)
    missing: Wanted = {}

    def want(atom: Any, spec: Spec | None) -> None:
        if _jax.is_literal(atom) or layout.axes_of(found.get(atom)):
            return
        if spec and layout.axes_of(spec):
            missing.setdefault(atom, spec)

    for atom, spec in zip(jaxpr.outvars, outputs, strict=False):
        want(atom, spec)
    for equation in reversed(jaxpr.eqns):
        results = [found.get(out) or missing.get(out) for out in equation.outvars]
        given = [_of(atom, found) for atom in equation.invars]
        inner = fusion.inlined(equation)
        if inner is not None:
            declared = equation.params.get("out_shardings", [None] * len(results))
            results = [
                _jax.spec_axes(sharding.spec, len(out.aval.shape))
                if isinstance(sharding, NamedSharding)
                else spec
                for out, sharding, spec in zip(equation.outvars, declared, results, strict=True)
            ]
            asked = wanted(inner, given, results, mesh)
            specs = [asked.get(var) for var in inner.invars]
        else:
            specs = layout.pulled(equation, given, results[0] if results else None)
        for atom, spec in zip(equation.invars, specs, strict=True):
            want(atom, spec)
    return missing


def constrained(jaxpr: Any) -> Wanted:
    """variable -> the layout that a constraint gives it: XLA makes it so, instead of moving it."""
    found: Wanted = {}
    made = {out for equation in jaxpr.eqns for out in equation.outvars}
    for equation in jaxpr.eqns:
        sharding = equation.params.get("sharding")
        if equation.primitive.name != "sharding_constraint":
            continue
        (atom,) = equation.invars
        plain = isinstance(sharding, NamedSharding) and not _jax.leaves_open(sharding.spec)
        if plain and atom in made:
            found.setdefault(atom, _jax.spec_axes(sharding.spec, len(atom.aval.shape)))
    return found


def _of(atom: Any, found: Wanted) -> Spec | None:
    return None if _jax.is_literal(atom) else found.get(atom)


def _forward(jaxpr: Any, inputs: Sequence[Spec | None], mesh: dict[str, int]) -> Wanted:
    """The layout of every variable, as far as it follows from the arguments'."""
    found: Wanted = {
        var: spec for var, spec in zip(jaxpr.invars, inputs, strict=True) if spec is not None
    }
    for equation in jaxpr.eqns:
        given = [_of(atom, found) for atom in equation.invars]
        inner = fusion.inlined(equation)
        name, params = equation.primitive.name, equation.params
        results: Sequence[Spec | None]
        if inner is not None:
            within = _forward(inner, given, mesh)
            results = [_of(atom, within) for atom in inner.outvars]
        elif name == "shard_map":
            pairs = zip(params["out_specs"], equation.outvars, strict=True)
            results = [_jax.spec_axes(spec, len(out.aval.shape)) for spec, out in pairs]
        elif isinstance(params.get("sharding"), NamedSharding):
            rank = len(equation.outvars[0].aval.shape)
            results = [_jax.spec_axes(params["sharding"].spec, rank, given[0])]
        else:
            results, _ = layout.propagate(equation, given, mesh)
        for out, spec in zip(equation.outvars, results, strict=True):
            if spec is not None:
                found[out] = spec
    return found
