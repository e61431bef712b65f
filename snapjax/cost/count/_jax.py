"""The one file that reads jax's own structures: jaxprs, name stacks, private parameters.

jax 0.10 and 0.12 name and nest some of them differently; the rest of the cost model sees neither.
"""

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import jax
import numpy as np
from jax._src.interpreters import partial_eval
from jax.extend.core import Literal
from jax.sharding import NamedSharding

# Scopes that jax itself opens, around what a backward pass computes again.
_JAX_SCOPES = ("rematted_computation", "checkpoint")


def make_jaxpr(function: Callable[..., Any], args: Sequence[Any]) -> tuple[Any, list[Any]]:
    """(jaxpr of function(*args) without dead code, the sharding of each of its arguments or None).

    Args:
      function: what is priced; jitted or not.
      args: pytrees of arrays or `jax.ShapeDtypeStruct`; nothing is computed.
    """
    declared: list[Any] = []
    if hasattr(function, "trace") and hasattr(function, "lower"):  # what jax.jit returns
        traced = function.trace(*args)
        closed, declared = traced.jaxpr, list(traced._params["in_shardings"])
    else:
        closed = jax.make_jaxpr(function)(*args)
    if closed.is_high:  # it holds calls of jax's own that stand for several operations
        closed = partial_eval.lower_jaxpr2(closed)
    number = len(closed.jaxpr.invars)
    leaves = jax.tree.leaves(args)  # more of them where some are static
    given = [getattr(leaf, "sharding", None) for leaf in leaves] if len(leaves) == number else []
    shardings = [
        next((s for s in pair if isinstance(s, NamedSharding)), None)
        for pair in zip_longest(given, declared, fillvalue=None)
    ]
    shardings += [None] * (number - len(shardings))
    jaxpr, used = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return jaxpr, [sharding for sharding, keep in zip(shardings, used, strict=True) if keep]


def opened(jaxpr: Any) -> Any:
    """A jaxpr, of a closed one or itself."""
    return getattr(jaxpr, "jaxpr", jaxpr)


def is_literal(atom: Any) -> bool:
    return isinstance(atom, Literal)


def scopes(equation: Any) -> tuple[str, ...]:
    """Names of the module scopes that an equation was traced in, outermost first."""
    found: list[str] = []
    for part in equation.source_info.name_stack.stack:
        if type(part).__name__ != "Scope" or part.name in _JAX_SCOPES or "->" in part.name:
            continue  # a transformation, or the formula of an einsum
        # Linen calls a method of a module "module.method", inside of the module's own scope.
        if not found or not part.name.startswith(f"{found[-1]}."):
            found.append(part.name)
    return tuple(found)


def function_name(jaxpr: Any) -> str:
    """Name of the Python function that a jaxpr was traced from; "" if it is not known."""
    info = opened(jaxpr).debug_info
    return info.func_name if info is not None else ""


def scan_parts(params: dict[str, Any]) -> tuple[int, int]:
    """(number of constants, number of carried values) of a scan equation."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = (len(list(part)) for part in params["ft_in"].unpack())
    return consts, carry


def inner_jaxprs(params: dict[str, Any]) -> list[Any]:
    """Every jaxpr among an equation's parameters."""
    found = []
    for value in params.values():
        for entry in value if isinstance(value, tuple | list) else (value,):
            if hasattr(opened(entry), "eqns"):
                found.append(opened(entry))
    return found


def called(equation: Any) -> Any:
    """The jaxpr that an equation calls once on its operands, or None.

    Of custom_jvp_call and custom_vjp_call that is the function and not its derivative; of jit,
    remat and all others the only jaxpr among the parameters.
    """
    for name in ("call_jaxpr", "jaxpr", "fun_jaxpr"):
        if name in equation.params and hasattr(opened(equation.params[name]), "eqns"):
            return opened(equation.params[name])
    inner = inner_jaxprs(equation.params)
    return inner[0] if len(inner) == 1 else None


def spec_axes(spec: Any, rank: int) -> tuple[tuple[str, ...], ...]:
    """Mesh axes of each dimension of a PartitionSpec."""
    entries = [
        () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)
        for entry in spec
    ]
    return (*entries, *(((),) * (rank - len(entries))))


def typed_spec(aval: Any) -> tuple[tuple[str, ...], ...] | None:
    """Mesh axes of each dimension where the array's type says so: on an explicit mesh."""
    sharding = getattr(aval, "sharding", None)
    if sharding is None or not any(entry is not None for entry in sharding.spec):
        return None
    return spec_axes(sharding.spec, len(aval.shape))


def pallas_grid(params: dict[str, Any]) -> int | None:
    """Number of programs of a pallas_call; None where the grid is dynamic."""
    grid = params["grid_mapping"].grid
    if not all(isinstance(size, int) for size in grid):
        return None
    return math.prod(grid)


def bits_of(dtype: Any) -> int:
    """Bits of an element: 1 for bool, 4 for int4, 64 for a PRNG key of two words."""
    if jax.dtypes.issubdtype(dtype, np.bool_):
        return 1
    if jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
        words = getattr(dtype, "_impl", None)
        return 32 * math.prod(words.key_shape) if words is not None else 8 * dtype.itemsize
    if dtype == jax.dtypes.float0:
        return 0
    return jax.dtypes.itemsize_bits(dtype)


def number_bits(dtype: Any) -> int:
    """Bits of a number that arithmetic is done with: of a complex one its real part's."""
    bits = bits_of(dtype)
    return bits // 2 if jax.dtypes.issubdtype(dtype, np.complexfloating) else bits


def bytes_of(aval: Any) -> int:
    """Bytes of an array, its elements packed at their bit width."""
    inner = getattr(aval, "inner_aval", aval)  # of a reference, what it holds
    if not hasattr(inner, "dtype"):
        return 0
    return -(-math.prod(inner.shape) * bits_of(inner.dtype) // 8)


def size_of(aval: Any) -> int:
    """Elements of an array, or of what a reference holds; 0 for a token."""
    inner = getattr(aval, "inner_aval", aval)
    return math.prod(inner.shape) if hasattr(inner, "shape") else 0
