"""The spike domain: which arrays of a program hold spikes, and from which site.

A mark says that an array is 0 or 1 everywhere ("spikes"), or that it is integers made of spikes
alone, such as bit fields or addresses of events ("packed"). Marks begin at `spike` of
`snapjax.neurons.surrogate` and at `spikes` here, follow everything that moves data, and end where
arithmetic makes anything else of them: a mark that was lost costs a saving in the report, one that
was wrongly kept would invent one. How often marked arrays fire is in `snapjax.cost.rates`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from snapjax.cost import rates
from snapjax.cost.count import marks as marked
from snapjax.cost.count._jax import bits_of, function_name, size_of
from snapjax.cost.count.marks import ANY, FIELDS, NUMBERS, Mark
from snapjax.cost.count.primitives import names
from snapjax.cost.rates import Rate

# The name of the spike primitive: a custom_vjp_call of a function of this name.
SPIKE = "spike"
# What `spikes` writes into the program: a `name` equation that starts with this.
MARKER = "spikes"


def spikes(x: Any, site: str | None = None) -> Any:
    """x, marked for the cost model as spikes; nothing else changes.

    For spikes that are not made by `snapjax.neurons.surrogate.spike`. x must be 0 or 1 everywhere:
    this is not checked.

    Args:
      x: any shape and dtype.
      site: name under which its rate is given; None takes the module path.
    """
    return checkpoint_name(x, MARKER if site is None else f"{MARKER}:{site}")


# One operand, each of whose elements is one of the result's, as often as any other.
_SAME = names(
    """
    broadcast_in_dim broadcast_to copy copy_p device_put expand_dims mesh_cast name
    optimization_barrier pbroadcast pcast pvary reduce_precision relayout reshape reshard rev
    sharding_constraint squeeze stop_gradient tile transpose
    all_gather all_gather_invariant all_gather_reduced all_to_all preduced
    vary_unreduced_cast vary_unreduced_cast_p reduced_vary_cast reduced_vary_cast_p
    """
)
# A part of the first operand; whatever else they take says where it lies.
_PARTS = names("slice split unstack dynamic_slice")
_ANY = names("reduce_max reduce_or reduce_window_max cummax pmax")
_ALL = names("reduce_min reduce_and")
# Bits stay bits: of fields and of spikes that are shifted into one.
_PACKING = names("shift_left shift_right_logical bitcast_convert_type")
_OF_BITS = _PACKING | names("and or reduce_or shift_right_arithmetic convert_element_type")


def is_spike(equation: Any) -> bool:
    """Whether a custom_vjp_call is the spike primitive, on an array and for its spikes.

    jax moves parts of a function that do not change out of a loop, under the function's own name.
    """
    made = [(result.aval.shape, result.aval.dtype) for result in equation.outvars]
    taken = {(operand.aval.shape, operand.aval.dtype) for operand in equation.invars}
    return function_name(equation.params["call_jaxpr"]) == SPIKE and all(m in taken for m in made)


def operands(equation: Any, marks: Sequence[Mark | None]) -> tuple[Mark, ...]:
    """The marks of those operands of a matmul or convolution that are spikes.

    A matmul meets every element equally often. A convolution does not, nor does a ragged product:
    the rate of each element is what holds for them, and padding does not spike.
    """
    found = tuple(mark for mark in marks[:2] if mark is not None and mark.sites and not mark.packed)
    if equation.primitive.name == "dot_general":
        return found
    params = equation.params
    if equation.primitive.name != "conv_general_dilated" or max(params["lhs_dilation"]) > 1:
        return tuple(mark.some() for mark in found)
    padded = any(low > 0 or high > 0 for low, high in params["padding"])
    met = tuple(mark.taken(_met(equation), True) for mark in found)
    return tuple(mark.silenced() for mark in met) if padded else met


def _met(equation: Any) -> float:
    """Products of a convolution, as a share of those if each input met as many taps as any can."""
    params, numbers = equation.params, equation.params["dimension_numbers"]
    source, kernel = (operand.aval.shape for operand in equation.invars)
    result, share = equation.outvars[0].aval.shape, 1.0
    sides = zip(numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec, strict=True)
    for (at, tap, out), stride in zip([*sides][2:], params["window_strides"], strict=True):
        most = min(-(-kernel[tap] // stride), result[out])
        share *= result[out] * kernel[tap] / max(source[at] * most, 1)
    return share


def propagate(
    equation: Any,
    marks: Sequence[Mark | None],
    static: Sequence[bool],
    second: Callable[[], float | None],
    path: str,
) -> list[Mark | None]:
    """Marks of an equation's results from its operands'; loops and calls are not its business.

    Args:
      equation: any but those.
      marks: of its operands.
      static: of each operand, whether it is the same whatever the data are.
      second: asks for the number that the second operand is everywhere, None if it is none.
      path: module path.
    """
    name, count = equation.primitive.name, len(equation.outvars)
    if name == "name" and equation.params["name"].split(":")[0] == MARKER:
        _, _, site = equation.params["name"].partition(":")
        return [marked.of_site(site or path)]
    if not any(mark is not None for mark in marks):
        return [None] * count
    name = name.removesuffix("_start").removesuffix("_done")
    if name == "sort":
        return [_sorted(mark) for mark in marks[:count]]
    if name == "split":
        whole = max(size_of(equation.invars[0].aval), 1)
        sizes = [size_of(part.aval) for part in equation.outvars]
        return [None if marks[0] is None else marks[0].taken(n / whole, True) for n in sizes]
    if name in _SAME and count == len(marks):
        return [*marks]
    found = _moved(equation, name, marks, static)
    if found is None:
        found = _computed(equation, name, marks, second)
    if found is None:
        found = _packed(equation, name, marks)
    return [found] * count


def _sorted(mark: Mark | None) -> Mark | None:
    # As many ones as before, but where they are follows from the data.
    return mark if mark is None or mark.packed else mark.fires(mark.mean, rates.UNKNOWN)


def _moved(
    equation: Any, name: str, marks: Sequence[Mark | None], static: Sequence[bool]
) -> Mark | None:
    """Of operations that bring elements elsewhere."""
    first, result = marks[0], size_of(equation.outvars[0].aval)
    share = lambda size: size / max(result, 1)
    if name in _SAME:
        return first
    if name in _PARTS and first is not None:
        whole = size_of(equation.invars[0].aval)
        return first.taken(result / max(whole, 1), all(static[1:]))
    if name in ("gather", "ragged_all_to_all") and first is not None:
        if first.packed or (name == "gather" and all(static[1:])):
            filled = rates.among(first.each, *_fill(equation))
            return first.fires(filled) if first.packed else first.some(filled)
        return first.of_any_rate()
    if name == "ppermute" and first is not None:
        # A device that nobody sends to has zeros.
        sources, targets = ({pair[i] for pair in equation.params["perm"]} for i in (0, 1))
        return first if sources == targets else first.silenced()
    if name in ("concatenate", "stack"):
        sizes = [size_of(operand.aval) for operand in equation.invars]
        return marked.put_together([(share(s), m) for s, m in zip(sizes, marks, strict=True)])
    if name == "pad":
        size = size_of(equation.invars[0].aval)
        if any(low < 0 or high < 0 for low, high, _ in equation.params["padding_config"]):
            return marked.join(*marks)
        return marked.put_together([(share(size), first), (1 - share(size), marks[1])])
    if name == "dynamic_update_slice" and first is not None:
        update = size_of(equation.invars[1].aval)
        rest = first.taken(1 - share(update), all(static[2:]))
        return marked.put_together([(1 - share(update), rest), (share(update), marks[1])])
    if name == "scatter":
        return _scattered(equation, marks, static)
    return None


def _fill(equation: Any) -> tuple[Rate, ...]:
    """What a gather puts where an index is out of range, if that can be a spike.

    By default it is a nan among floats, and not 0 of anything else.
    """
    fill, mode = equation.params["fill_value"], equation.params["mode"]
    if mode is not jax.lax.GatherScatterMode.FILL_OR_DROP:
        return ()
    if fill is None and not _integer(equation):
        return ()
    return (rates.ZEROS if fill == 0 else rates.ONES,)


def _scattered(equation: Any, marks: Sequence[Mark | None], static: Sequence[bool]) -> Mark | None:
    before, index, update = marks
    joined = marked.join(before, update)
    if before is None or update is None or joined is None:
        return None
    if index is not None and index.packed:
        sites = tuple(sorted({*joined.sites, *index.sites}))
        # Ones written among zeros at addresses that were made of spikes are those spikes.
        events = (before.mean, update.mean) == (rates.ZEROS, rates.ONES)
        return Mark(sites).fires(index.each) if events else Mark(sites)
    if static[1]:
        return joined.some()
    ratio = size_of(equation.invars[2].aval) / max(size_of(equation.invars[0].aval), 1)
    mean = rates.at_most(rates.mean([(1.0, before.mean), (ratio, update.mean)]))
    return joined.fires(mean, rates.UNKNOWN)


def _computed(
    equation: Any, name: str, marks: Sequence[Mark | None], second: Callable[[], float | None]
) -> Mark | None:
    """Of operations whose results are zeros and ones again."""
    first = marks[0]
    packed = any(mark is not None and mark.packed for mark in marks)
    if name == "select_n":
        return _selected(marks, equation.invars)
    if name == "convert_element_type":
        keeps = first is not None and (not first.packed or _integer(equation))
        return first if keeps else None
    if name in (*_ANY, *_ALL) and first is not None and not packed:
        return _pooled(first) if name in _ANY else first.silenced()
    if name in ("max", "min", "mul", "and", "or") and not packed:
        if equation.invars[0] is equation.invars[1]:
            return first
        rule = rates.any_ if name in ("max", "or") else rates.all_
        both = marked.combined(marks, lambda found: rule(*found))
        if both is None and name == "and":
            # Masked by anything, a 0/1 integer stays 0 or 1; a float would become graded.
            masked = next(mark for mark in marks if mark is not None)
            return masked.silenced()
        return both
    if name == "and" and first is not None and second() == 1:  # the lowest bit
        return Mark(first.sites).fires(first.each) if first.form == FIELDS else Mark(first.sites)
    if name in ("ne", "gt", "ge", "eq"):
        return None if first is None else _compared(name, first, second())
    return None


def _selected(marks: Sequence[Mark | None], operands: Sequence[Any]) -> Mark | None:
    which, *cases = marks
    if any(case is None for case in cases):
        return None
    if any(case.packed for case in cases if case is not None):
        return marked.join(*cases)
    if len({id(operand) for operand in operands[1:]}) == 1:
        return cases[0]
    if which is None or which.packed or len(cases) != 2:
        return marked.join_by_data(*cases)
    return marked.combined(marks, lambda found: rates.chosen(*found))


def _pooled(mark: Mark) -> Mark:
    """Whether any of several fires: a site of its own, whose rate must be measured."""
    sites = tuple(sorted({site if site.endswith(ANY) else f"{site}{ANY}" for site in mark.sites}))
    plain = mark.each == rates.of_site(mark.site)
    return marked.of_site(sites[0]) if plain else Mark(sites)


def _compared(name: str, mark: Mark, value: float | None) -> Mark | None:
    """A comparison with a number that tells 1 from 0 is the spike again."""
    if value is None:
        return None
    if mark.packed:
        # Whether any bit of several is set: zeros and ones that nobody counted.
        return Mark(mark.sites) if name in ("ne", "gt") and value == 0 else None
    separates = {
        "ne": value == 0,
        "gt": 0 <= value < 1,
        "ge": 0 < value <= 1,
        "eq": value == 1,
    }[name]
    return mark if separates else None


def _packed(equation: Any, name: str, marks: Sequence[Mark | None]) -> Mark | None:
    """Integers computed from packed spikes are packed spikes still."""
    if not _integer(equation):
        return None
    packs = name in _PACKING
    made = [mark for mark in marks if mark is not None and (mark.packed or (packs and mark.sites))]
    if not made:
        return None
    bits = name in _OF_BITS or (name == "reduce_sum" and _sums_bits(equation))
    if name == "or":  # bits beside bits, or none
        bits = all(m is not None and (m.sites or m.mean == rates.ZEROS) for m in marks)
    elif name.startswith("shift") and marks[1] is not None and marks[1].sites:
        bits = False  # the number of places is made of spikes
    form = FIELDS if bits and all(m.form != NUMBERS for m in made) else NUMBERS
    sites = tuple(sorted({site for mark in marks if mark is not None for site in mark.sites}))
    each = rates.among(*(mark.each for mark in made))
    return Mark(sites, form, each, each)


def _sums_bits(equation: Any) -> bool:
    """Whether a sum has at most as many terms as its integers have bits, each a bit of its own."""
    before, after = equation.invars[0].aval, equation.outvars[0].aval
    terms = math.prod(before.shape) // max(math.prod(after.shape), 1)
    return terms <= bits_of(after.dtype)


def _integer(equation: Any) -> bool:
    dtype = equation.outvars[0].aval.dtype
    if jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
        return False
    return any(jax.numpy.issubdtype(dtype, kind) for kind in (jax.numpy.integer, np.bool_))
