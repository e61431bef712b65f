"""Small integers that a program computes from constants, loop counters and its place on the mesh.

They decide which branch a device takes in which iteration, so that a pipeline's idle ticks are not
counted as work. A known array has the shape context + its own shape, where the context is (devices,
iterations of the loops around, ...); what is not known is None.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from snapjax.cost.count._jax import is_literal

Known = np.ndarray | None

# No program is evaluated here, only its counters.
LARGEST = 1 << 20

_ELEMENTWISE: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "neg": np.negative,
    "sign": np.sign,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "rem": np.fmod,
    "abs": np.abs,
    "pow": lambda x, y: np.power(x, np.maximum(y, 0)),
    "square": np.square,
    "div": lambda x, y: np.trunc(np.divide(x, np.where(y == 0, 1, y))),
    "shift_left": np.left_shift,
    "shift_right_arithmetic": np.right_shift,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    "select_n": lambda which, *cases: np.choose(which.astype(int), np.broadcast_arrays(*cases)),
}
_FOLDS: dict[str, Callable[..., np.ndarray]] = {
    "reduce_sum": np.sum,
    "reduce_prod": np.prod,
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_and": np.all,
    "reduce_or": np.any,
}
_VIEWS = frozenset(["broadcast_in_dim", "expand_dims", "reshape", "squeeze"])
_SAME = frozenset(["copy", "copy_p", "pcast", "pvary", "optimization_barrier", "stop_gradient"])


def literal(atom: Any, context: tuple[int, ...]) -> Known:
    """The value of a literal or a constant, the same everywhere: integers, bools, or one float."""
    dtype = getattr(atom, "dtype", np.dtype(float))
    if np.size(atom) > LARGEST or getattr(dtype, "kind", "") not in tuple("iubf"):
        return None  # a large one, or keys of random numbers, which have no kind
    value = np.asarray(atom)
    if value.dtype.kind not in ("iub" if value.size > 1 else "iubf"):
        return None
    return np.broadcast_to(value, context + value.shape)


def evaluate(equation: Any, values: Sequence[Known], context: tuple[int, ...]) -> Known:
    """The result of an equation with one result, where its operands are known."""
    name, aval = equation.primitive.name, equation.outvars[0].aval
    shape = getattr(aval, "shape", ())
    if name == "iota":
        size, axis = shape[equation.params["dimension"]], equation.params["dimension"]
        if size > LARGEST or len(shape) != 1 or axis:
            return None
        return np.broadcast_to(np.arange(size), context + shape)
    if any(value is None for value in values) or not values:
        return None
    known = [value for value in values if value is not None]
    dtype = getattr(aval, "dtype", None)
    whole = getattr(dtype, "kind", "f") in "iub"  # keys of random numbers have no kind
    first = known[0]
    if name in (*_SAME, *_VIEWS, "convert_element_type") and first.size and _uniform(first):
        # One number, however large the array: no copy of it is made.
        value = first[(0,) * first.ndim]
        if name == "convert_element_type":
            value = value.astype(dtype if whole else float)
        return np.broadcast_to(value, context + shape)
    if name in _SAME:
        return first
    if not whole or len(shape) > 1 or math.prod(context + shape) > LARGEST:
        return None
    if name in _VIEWS and first.size == math.prod(context + shape):
        return first.reshape(context + shape)
    if name == "convert_element_type":
        return first.astype(dtype)
    if name == "dynamic_slice" and len(known) == 2:  # a row of a table
        table, start = known
        (size,) = equation.params["slice_sizes"]
        row = np.clip(start, 0, table.shape[-1] - size)[..., None] + np.arange(size)
        return np.take_along_axis(table, row, -1)
    if name in _FOLDS and first.ndim > len(context):
        return _FOLDS[name](first, axis=-1).astype(dtype)
    if name == "slice":
        (start,), (stop,) = equation.params["start_indices"], equation.params["limit_indices"]
        return first[..., slice(start, stop, *(equation.params["strides"] or ()))]
    if name == "concatenate":
        return np.concatenate(known, -1)
    if name not in _ELEMENTWISE:
        return None
    if any(value.dtype.kind not in "iub" for value in known):
        return None  # a float is followed where it is a constant, and not computed with
    aligned = [
        value.reshape(value.shape + (1,) * (len(context) + len(shape) - value.ndim))
        for value in known
    ]
    result = _ELEMENTWISE[name](*aligned)
    return np.broadcast_to(result, context + shape).astype(dtype)


def enter_loop(value: Known, context: tuple[int, ...], length: int) -> Known:
    """A loop's constant, with the loop's iterations in the context."""
    if value is None:
        return None
    grown = np.expand_dims(value, len(context))
    return np.broadcast_to(grown, (*context, length, *value.shape[len(context) :]))


def constant(value: Known) -> float | None:
    """The number that an array is everywhere, in every iteration and on every device."""
    if value is None or not value.size:
        return None
    first = value[(0,) * value.ndim]
    if _uniform(value) or (value.size <= LARGEST and (value == first).all()):
        return float(first)
    return None


def _uniform(value: np.ndarray) -> bool:
    """Whether an array is one number, repeated without a copy."""
    return not any(value.strides)


def literal_of(atom: Any, context: tuple[int, ...]) -> Known:
    return literal(atom.val, context) if is_literal(atom) else None
