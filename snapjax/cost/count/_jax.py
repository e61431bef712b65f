"""The one file that reads jax's own structures: jaxprs, name stacks, private parameters.

jax 0.10 and 0.12 name and nest some of them differently; the rest of the cost model sees neither.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import jax
import numpy as np
from jax._src.interpreters import partial_eval
from jax.extend.core import Literal
from jax.sharding import NamedSharding, PartitionSpec

_ARRAY = object()  # stands where an array was

# Scopes that jax itself opens, around what a backward pass computes again.
_JAX_SCOPES = ("rematted_computation", "checkpoint")


class Call(NamedTuple):
    """A call of the function that is priced.

    Attributes:
      jaxpr: open, without dead code.
      arguments, results: the sharding of each, or None.
      constants: that it closes over.
    """

    jaxpr: Any
    arguments: list[Any]
    results: list[Any]
    constants: list[Any]


def make_jaxpr(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Call:
    """The jaxpr of a call, and what comes with it.

    Args:
      function: what is priced; jitted or not.
      args, kwargs: pytrees of arrays or `jax.ShapeDtypeStruct`; nothing is computed. Of `kwargs`
        what is no array is handed over as it is, and a jitted function says itself what is static.
    """
    if not callable(function):
        raise TypeError(
            f"trace: function is a {type(function).__name__}, which cannot be called; pass the "
            "function that it was made of (snapjax.cost.hlo.counts takes a compiled program)"
        )
    declared: list[Any] = []
    wanted: list[Any] = []
    if hasattr(function, "trace") and hasattr(function, "lower"):  # what jax.jit returns
        traced = function.trace(*args, **kwargs)
        traced = getattr(traced, "traced", traced)  # of flax.nnx.jit, which wraps jax's
        closed, declared = traced.jaxpr, list(traced._params["in_shardings"])
        wanted = list(traced._params["out_shardings"])
    else:
        arrays, rest = _arrays_of(kwargs)
        call = lambda args, arrays: function(*args, **_with_arrays(rest, arrays))
        closed = jax.make_jaxpr(call)(tuple(args), arrays)
    if closed.is_high:  # it holds calls of jax's own that stand for several operations
        closed = partial_eval.lower_jaxpr2(closed)
    number = len(closed.jaxpr.invars)
    leaves = jax.tree.leaves((tuple(args), dict(kwargs)))  # more of them where some are static
    given = [getattr(leaf, "sharding", None) for leaf in leaves] if len(leaves) == number else []
    shardings = [
        next((s for s in pair if isinstance(s, NamedSharding)), None)
        for pair in zip_longest(given, declared, fillvalue=None)
    ]
    shardings += [None] * (number - len(shardings))
    jaxpr, used = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    kept = [sharding for sharding, keep in zip(shardings, used, strict=True) if keep]
    named = [s if isinstance(s, NamedSharding) else None for s in wanted]
    results = named or [None] * len(jaxpr.outvars)
    return Call(jaxpr, kept, results, list(closed.consts))


def _arrays_of(tree: Any) -> tuple[list[Any], tuple[Any, list[Any]]]:
    """(the arrays of a pytree, its structure with all other leaves)."""
    leaves, structure = jax.tree.flatten(tree)
    is_array = [hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves]
    arrays = [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]
    rest = [_ARRAY if array else leaf for leaf, array in zip(leaves, is_array, strict=True)]
    return arrays, (structure, rest)


def _with_arrays(rest: tuple[Any, list[Any]], arrays: Sequence[Any]) -> Any:
    """The pytree again, with these arrays."""
    structure, leaves = rest
    waiting = iter(arrays)
    return structure.unflatten([next(waiting) if leaf is _ARRAY else leaf for leaf in leaves])


def outputs_of(jaxpr: Any, wanted: Sequence[bool]) -> tuple[Any, list[bool]]:
    """(the part of an open jaxpr that makes these outputs, which inputs it needs)."""
    part, used = partial_eval.dce_jaxpr(jaxpr, list(wanted))
    return part, list(used)


def increments(jaxpr: Any, inputs: Sequence[Any]) -> list[int] | None:
    """What a jaxpr adds to each of these inputs to make its outputs; None if it does any more."""
    made = {equation.outvars[0]: equation for equation in jaxpr.eqns}
    found = []
    for given, result in zip(inputs, jaxpr.outvars, strict=True):
        equation = None if is_literal(result) else made.get(result)
        if equation is None or equation.primitive.name != "add":
            return None
        one, step = equation.invars
        whole = is_literal(step) and np.issubdtype(step.aval.dtype, np.integer)
        if one is not given or not whole:
            return None
        found.append(int(step.val))
    return found


def opened(jaxpr: Any) -> Any:
    """A jaxpr, of a closed one or itself."""
    return getattr(jaxpr, "jaxpr", jaxpr)


def with_constants_first(jaxpr: Any) -> Any:
    """An open jaxpr whose constants are its first arguments."""
    return partial_eval.convert_constvars_jaxpr(opened(jaxpr))


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


def spec_axes(spec: Any, rank: int, otherwise: Any = None) -> tuple[tuple[str, ...], ...]:
    """Mesh axes of each dimension of a PartitionSpec; where it leaves one open, `otherwise`'s."""
    entries = []
    for number, entry in enumerate(spec):
        if entry is PartitionSpec.UNCONSTRAINED:
            entries.append(otherwise[number] if otherwise else ())
        elif entry is None:
            entries.append(())
        else:
            entries.append((entry,) if isinstance(entry, str) else tuple(entry))
    return (*entries, *(((),) * (rank - len(entries))))


def leaves_open(spec: Any) -> bool:
    """Whether a PartitionSpec says nothing of some dimension."""
    return any(entry is PartitionSpec.UNCONSTRAINED for entry in spec)


def meshes(equation: Any) -> list[Any]:
    """The meshes that an equation names."""
    params = equation.params
    shardings = [params.get("sharding"), params.get("dst_sharding")]
    for name in ("in_shardings", "out_shardings"):
        shardings += params.get(name) or ()
    found = [sharding.mesh for sharding in shardings if isinstance(sharding, NamedSharding)]
    return [params["mesh"], *found] if equation.primitive.name == "shard_map" else found


def typed_spec(aval: Any) -> tuple[tuple[str, ...], ...] | None:
    """Mesh axes of each dimension where the array's type says so: on an explicit mesh."""
    sharding = getattr(aval, "sharding", None)
    if sharding is None or not any(entry is not None for entry in sharding.spec):
        return None
    return spec_axes(sharding.spec, len(aval.shape))


class Side(NamedTuple):
    """One dimension of a block: its size, how far a step of its index goes, the array's size."""

    block: int
    step: int
    array: int


class Block(NamedTuple):
    """How a kernel takes an operand or a result.

    Attributes:
      sides: its dimensions.
      bits: of an element.
      index: jaxpr of the grid's place (and of what is prefetched) to the block's place.
      result: whether it is written.
    """

    sides: tuple[Side, ...]
    bits: int
    index: Any
    result: bool


class Grid(NamedTuple):
    """The programs of a pallas_call.

    Attributes:
      sizes: of the grid.
      own: its dimensions that the kernel knows of; the others are of vmap.
      blocks: of its operands and results.
    """

    sizes: tuple[int, ...]
    own: tuple[int, ...]
    blocks: tuple[Block, ...]


def pallas_grid(params: dict[str, Any]) -> Grid | None:
    """The programs of a pallas_call; None where the grid is dynamic."""
    mapping = params["grid_mapping"]
    if not all(isinstance(size, int) for size in mapping.grid):
        return None
    blocks = []
    for number, block in enumerate(mapping.block_mappings):
        sides = []
        for size, whole in zip(block.block_shape, block.array_aval.shape, strict=True):
            each = getattr(size, "block_size", size)
            each = each if isinstance(each, int) else 1  # a dimension that the kernel does not see
            by_element = type(size).__name__ in ("Element", "BoundedSlice")
            sides.append(Side(each, 1 if by_element else each, whole))
        bits, index = bits_of(block.array_aval.dtype), opened(block.index_map_jaxpr)
        blocks.append(Block(tuple(sides), bits, index, number >= mapping.num_inputs))
    own = tuple(i for i in range(len(mapping.grid)) if i not in mapping.vmapped_dims)
    return Grid(tuple(mapping.grid), own, tuple(blocks))


def bits_of(dtype: Any) -> int:
    """Bits of an element: 1 for bool, 4 for int4, 64 for a PRNG key of two words."""
    if jax.dtypes.issubdtype(dtype, np.bool_):
        return 1
    if jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
        words = getattr(dtype, "_impl", None)
        if words is None:  # a semaphore has no size
            return 8 * getattr(dtype, "itemsize", 0)
        return 32 * math.prod(words.key_shape)
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
