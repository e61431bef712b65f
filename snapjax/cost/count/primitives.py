"""What every primitive of a jaxpr costs: the table of classes, and the few that need a formula.

A primitive is priced here, declared free here, a collective (`collectives.py`), a call or a loop
(`control.py`), or unpriced. A function of the math library counts once as "transcendental",
whatever polynomial it compiles to; published counts differ in this, and a reader can weigh the
class.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from snapjax.cost.count import complex_numbers
from snapjax.cost.count._jax import bits_of, bytes_of, size_of
from snapjax.cost.count.contractions import conv_macs, dot_macs, ragged_dot_macs


class Work(NamedTuple):
    """How much of one kind one execution of an equation does."""

    kind: str
    amount: float


def names(text: str) -> frozenset[str]:
    """The words of a text, such as a list of primitives."""
    return frozenset(text.split())


# Views and bookkeeping: nothing is computed, and XLA moves no bytes for them (or fuses them).
FREE = names(
    """
    after_all axis_index bitcast_convert_type broadcast_in_dim broadcast_to copy_p create_token
    create_linear dce_sink device_put dim_as_value dimension_size empty empty2 empty_ref
    expand_dims freeze from_edtype inspect_sharding iota iota_2x32_shape layout_constraint
    mesh_cast name new_ref num_programs optimization_barrier pcast pin platform_index preduced
    program_id pvary random_unwrap random_wrap reduced_vary_cast reduced_vary_cast_p relayout
    reshape reshard sharding_constraint shape_assertion squeeze stage stop_gradient tie to_edtype
    unpin unreachable vary_unreduced_cast vary_unreduced_cast_p with_memory_space_constraint
    """
)

# What they give does not follow from their operands alone.
EFFECTS = names("new_ref empty_ref pure_callback io_callback")

# The host does these: they cost the device nothing that can be known here, and are noted.
HOST = frozenset(["debug_callback", "debug_print"])

_MOVES = """
    concatenate copy dynamic_slice dynamic_update_slice gather get masked_load masked_swap pad rev
    scatter slice split stack swap tile transpose unstack
"""
_ADDS = "add add_any sub"
_MULTIPLIES = "mul mulhi square"
_DIVIDES = "div rem"
_COMPARES = "eq eq_to ge gt is_finite le le_to lt lt_to max min ne select_n"
_TRANSCENDENTALS = """
    acos acosh asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt cos cosh digamma erf erf_inv
    erfc exp exp2 expm1 igamma igamma_grad_a igammac lgamma log log1p log2 logistic polygamma pow
    regularized_incomplete_beta rsqrt sin sinh sqrt tan tanh zeta
"""
_OTHERS = """
    abs and ceil clz complex conj convert_element_type floor imag neg nextafter not or
    population_count real reduce_precision round shift_left shift_right_arithmetic
    shift_right_logical sign xor
"""

# One count of this kind for each element of the result.
_PER_RESULT = {
    name: kind
    for listed, kind in [
        (_MOVES, "move"),
        (_ADDS, "add"),
        (_MULTIPLIES, "multiply"),
        (_DIVIDES, "divide"),
        (_COMPARES, "compare"),
        (_TRANSCENDENTALS, "transcendental"),
        (_OTHERS, "other"),
    ]
    for name in names(listed)
}

# Folding n elements of the operand into m of the result takes n - m of these.
_REDUCTIONS = {
    "reduce_sum": "add",
    "reduce_prod": "multiply",
    "reduce_max": "compare",
    "reduce_min": "compare",
    "argmax": "compare",
    "argmin": "compare",
    "reduce_and": "other",
    "reduce_or": "other",
    "reduce_xor": "other",
}

# A running fold over an axis of n takes n - 1 of these a row.
_CUMULATIVE = {
    "cumsum": ("add",),
    "cumprod": ("multiply",),
    "cummax": ("compare",),
    "cummin": ("compare",),
    "cumlogsumexp": ("transcendental", "add"),
}

# Each result folds a window of w elements: w - 1 of these.
_WINDOWS = {
    "reduce_window_sum": "add",
    "reduce_window_max": "compare",
    "reduce_window_min": "compare",
}

# Each update is folded into the operand, one of these an element, and everything else is a copy.
_SCATTERS = {
    "scatter-add": "add",
    "scatter-sub": "add",
    "scatter-mul": "multiply",
    "scatter-max": "compare",
    "scatter-min": "compare",
    "addupdate": "add",
    "masked_addupdate": "add",
}

# One jaxpr, run once on the equation's operands.
CALLS = names(
    """
    call checkpoint closed_call composite core_call custom_jvp_call custom_vjp_call
    custom_vmap_call eval_jaxpr jit pjit remat remat2 run_state
    """
)

# They read a part of their first operand, as large as the result, or write as large an update.
READS_PART = frozenset(["gather", "dynamic_slice", "slice", "get", "masked_load", "split"])
WRITES_PART = frozenset(
    [*_SCATTERS, "scatter", "dynamic_update_slice", "swap", "masked_swap", "addupdate"]
)


def _integer_power(equation: Any) -> list[Work]:
    # Square and multiply: x^13 = 0b1101 takes 3 squarings and 2 products; below 0 one division.
    power = equation.params["y"]
    size, exponent = size_of(equation.outvars[0].aval), abs(power)
    products = max(exponent.bit_length() - 1, 0) + max(exponent.bit_count() - 1, 0)
    divide = [Work("divide", size)] if power < 0 else []
    return [Work("multiply", size * products), *divide]


def _clamp(equation: Any) -> list[Work]:
    return [Work("compare", 2 * size_of(equation.outvars[0].aval))]


def _sort(equation: Any) -> list[Work]:
    # A comparison sort of rows of n: n ceil(log2 n) comparisons each, and every operand moves once.
    shape = equation.invars[0].aval.shape
    n = shape[equation.params["dimension"]]
    size = math.prod(shape)
    moved = sum(size_of(operand.aval) for operand in equation.invars)
    return [Work("compare", size * max(n - 1, 0).bit_length()), Work("move", moved)]


def _top_k(equation: Any) -> list[Work]:
    # A heap of k: n ceil(log2 k) + n comparisons a row.
    k = equation.params["k"]
    size = size_of(equation.invars[0].aval)
    return [Work("compare", size * (1 + max(k - 1, 0).bit_length()))]


def _cumulative(equation: Any) -> list[Work]:
    shape = equation.invars[0].aval.shape
    n = shape[equation.params["axis"]]
    count = math.prod(shape) // n * (n - 1) if n else 0
    return [Work(kind, count) for kind in _CUMULATIVE[equation.primitive.name]]


def _window(equation: Any) -> list[Work]:
    window = math.prod(equation.params["window_dimensions"])
    count = size_of(equation.outvars[0].aval) * (window - 1)
    return [Work(_WINDOWS[equation.primitive.name], count)]


def _reduction(equation: Any) -> list[Work]:
    # Several arrays may be reduced at once; argmax has one operand and one result.
    kind = _REDUCTIONS[equation.primitive.name]
    pairs = zip(equation.invars, equation.outvars, strict=False)
    return [Work(kind, max(size_of(a.aval) - size_of(b.aval), 0)) for a, b in pairs]


def _scatter(equation: Any) -> list[Work]:
    # (operand, indices, updates), or (reference, update, ...indices) of addupdate.
    name = equation.primitive.name
    update = equation.invars[1 if name.endswith("addupdate") else 2]
    return [Work(_SCATTERS[name], size_of(update.aval))]


def _moved_update(equation: Any) -> list[Work]:
    name = equation.primitive.name
    update = equation.invars[2 if name == "scatter" else 1]
    return [Work("move", size_of(update.aval))]


def _random(equation: Any) -> list[Work]:
    words = sum(-(-size_of(v.aval) * bits_of(v.aval.dtype) // 32) for v in equation.outvars)
    return [Work("random", words)]


def _select_and_scatter_add(equation: Any) -> list[Work]:
    # The gradient of max-pooling: find each window's largest, then add the cotangent to it.
    window = math.prod(equation.params["window_dimensions"])
    source = size_of(equation.invars[0].aval)
    return [Work("compare", source * (window - 1)), Work("add", source)]


def _select_and_gather_add(equation: Any) -> list[Work]:
    window = math.prod(equation.params["window_dimensions"])
    return [Work("compare", size_of(equation.outvars[0].aval) * (window - 1))]


def _one_minus_square(equation: Any) -> list[Work]:
    size = size_of(equation.outvars[0].aval)
    return [Work("multiply", size), Work("add", size)]


def _triangular_solve(equation: Any) -> list[Work]:
    # n unknowns by substitution: n (n - 1) / 2 multiply-adds and n divisions a right-hand side.
    a, b = (operand.aval for operand in equation.invars)
    n = a.shape[-1]
    columns = size_of(b) // n if n else 0
    steps = columns * n * (n - 1) // 2
    return [Work("multiply", steps), Work("add", steps), Work("divide", columns * n)]


_FORMULAS: dict[str, Callable[[Any], list[Work]]] = {
    "integer_pow": _integer_power,
    "clamp": _clamp,
    "sort": _sort,
    "top_k": _top_k,
    "approx_top_k": _top_k,
    "select_and_scatter_add": _select_and_scatter_add,
    "select_and_gather_add": _select_and_gather_add,
    "one_minus_square": _one_minus_square,
    "triangular_solve": _triangular_solve,
    "dynamic_update_slice": _moved_update,
    "scatter": _moved_update,
    "swap": _moved_update,
    "masked_swap": _moved_update,
    "dot_general": lambda equation: [Work("mac", dot_macs(equation))],
    "conv_general_dilated": lambda equation: [Work("mac", conv_macs(equation))],
    "ragged_dot_general": lambda equation: [Work("mac", ragged_dot_macs(equation))],
    **dict.fromkeys(_CUMULATIVE, _cumulative),
    **dict.fromkeys(_WINDOWS, _window),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    **dict.fromkeys(_SCATTERS, _scatter),
    **dict.fromkeys(
        names(
            """
            philox2x32 philox4x32 random_bits random_clone random_fold_in random_seed random_split
            rng_bit_generator rng_uniform threefry2x32 threefry4x32
            """
        ),
        _random,
    ),
}

MATMULS = frozenset(["dot_general", "conv_general_dilated", "ragged_dot_general"])

# How each behaves where operations are fused: see `fusion.py`. What is in none stands alone.
UPDATES = names("addupdate dynamic_update_slice masked_addupdate masked_swap swap")
ENDS_GROUP = frozenset([*_REDUCTIONS, *_CUMULATIVE, *_WINDOWS, "reduce", "reduce_window"])
SUMS = names("reduce_sum reduce_prod reduce_max reduce_min")
EXPENSIVE = names(f"{_DIVIDES} {_TRANSCENDENTALS}")
FUSES = (FREE | frozenset(_PER_RESULT) | names("clamp integer_pow one_minus_square")) - frozenset(
    ["optimization_barrier", *WRITES_PART]
)


def work(equation: Any) -> list[Work] | None:
    """What one execution of an equation counts; [] if it is free, None if it has no price here."""
    name = equation.primitive.name
    if name in FREE or name in HOST:
        return []
    if name in _FORMULAS:
        found = _FORMULAS[name](equation)
    elif name in _PER_RESULT:
        found = [Work(_PER_RESULT[name], sum(size_of(v.aval) for v in equation.outvars))]
    else:
        return None
    if any(map(complex_numbers.is_complex, (*equation.invars, *equation.outvars))):
        mixed = not all(map(complex_numbers.is_complex, equation.invars[:2]))
        found = [
            Work(kind, times * amount)
            for whole, amount in found
            for kind, times in complex_numbers.parts(name, whole, mixed).items()
        ]
    return found


def traffic(equation: Any) -> tuple[int, int]:
    """(bytes read, bytes written) in one execution of an equation, with nothing fused."""
    name = equation.primitive.name
    read = [bytes_of(operand.aval) for operand in equation.invars]
    written = sum(bytes_of(result.aval) for result in equation.outvars)
    if name in READS_PART:
        return written + sum(read[1:]), written
    if name in WRITES_PART:
        # The rest of the operand stays where it is.
        update = 2 if name.startswith("scatter") else 1
        old = read[update] if name in _SCATTERS or name.endswith("swap") else 0
        return sum(read[1:]) + old, read[update]
    return sum(read), written


def operand_dtype(equation: Any) -> Any:
    """The widest dtype of the operands, the condition of a select left out; else the result's."""
    name = equation.primitive.name
    operands = equation.invars[1:] if name == "select_n" else equation.invars
    if name in READS_PART or name in WRITES_PART:
        operands = equation.invars[:1]
    avals = [getattr(v.aval, "inner_aval", v.aval) for v in (*operands, *equation.outvars)]
    dtypes = [aval.dtype for aval in avals if hasattr(aval, "dtype")]
    if not dtypes:
        return None
    wide = dtypes[: len(operands)] if name != "convert_element_type" else dtypes
    return max(wide or dtypes, key=bits_of)
