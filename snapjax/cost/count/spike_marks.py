"""The spike domain: which arrays of a program hold spikes, and from which site.

A mark says that an array is 0 or 1 everywhere ("spikes"), or that it is integers made of spikes
alone, such as bit fields or addresses of events ("packed"). Marks begin at `spike` of
`snapjax.neurons.surrogate` and at `spikes` here, follow everything that moves data, and end where
arithmetic makes anything else of them: a mark that was lost costs a saving in the report, one that
was wrongly kept would invent one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from snapjax.cost.count._jax import function_name
from snapjax.cost.count.primitives import names
from snapjax.cost.counts import SITE_SEPARATOR

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


@dataclass(frozen=True)
class Mark:
    """What is known of an array; no mark (None) says nothing.

    Attributes:
      sites: where its spikes were made, sorted; empty for a constant of zeros or ones.
      packed: integers made of spikes, instead of the spikes themselves.
    """

    sites: tuple[str, ...] = ()
    packed: bool = False

    @property
    def site(self) -> str:
        return SITE_SEPARATOR.join(self.sites)


Marks = list[Mark | None]
CONSTANT = Mark()

_MOVES = names(
    """
    broadcast_in_dim broadcast_to concatenate copy copy_p device_put expand_dims mesh_cast name
    optimization_barrier pad pbroadcast pcast pvary reduce_precision relayout reshape reshard rev
    sharding_constraint slice split squeeze stack stop_gradient tile transpose unstack
    all_gather all_gather_invariant all_gather_reduced all_to_all ppermute preduced
    vary_unreduced_cast vary_unreduced_cast_p reduced_vary_cast reduced_vary_cast_p
    dynamic_update_slice
    """
)
# Only the first operand is data, the others say where.
_MOVES_FIRST = frozenset(["gather", "dynamic_slice", "ragged_all_to_all"])
# Whether any of several is 1: still spikes, but more often than at their site, so the site's name
# gets this ending and a rate of its own.
ANY = "/any"
_ANY = frozenset(["reduce_max", "reduce_or", "reduce_window_max", "cummax", "pmax"])


def is_spike(equation: Any) -> bool:
    """Whether a custom_vjp_call is the spike primitive, on an array and for its spikes.

    jax moves parts of a function that do not change out of a loop, under the function's own name.
    """
    made = [(result.aval.shape, result.aval.dtype) for result in equation.outvars]
    taken = {(operand.aval.shape, operand.aval.dtype) for operand in equation.invars}
    return function_name(equation.params["call_jaxpr"]) == SPIKE and all(m in taken for m in made)


def constant_mark(value: Any) -> Mark | None:
    """The mark of a literal or a constant array."""
    try:
        array = np.asarray(value)
        binary = array.size <= 1 and bool(((array == 0) | (array == 1)).all())
    except (TypeError, ValueError):
        return None
    return CONSTANT if binary else None


def join(*marks: Mark | None) -> Mark | None:
    """The mark of what may be any of these, or is put together from them."""
    if not marks:
        return None
    sites: set[str] = set()
    packed = False
    for mark in marks:
        if mark is None:
            return None
        sites |= set(mark.sites)
        packed = packed or mark.packed
    return Mark(tuple(sorted(sites)), packed)


def operand_sites(marks: Sequence[Mark | None]) -> tuple[str, ...]:
    """The sites of the operands of a matmul that are spikes."""
    return tuple(mark.site for mark in marks if mark is not None and mark.sites and not mark.packed)


def propagate(equation: Any, marks: Marks, second: Callable[[], float | None], path: str) -> Marks:
    """Marks of an equation's results from its operands'; loops and calls are not its business.

    Args:
      equation: any but those.
      marks: of its operands.
      second: asks for the number that the second operand is everywhere, None if it is none.
      path: module path.
    """
    name, count = equation.primitive.name, len(equation.outvars)
    if name == "name" and equation.params["name"].split(":")[0] == MARKER:
        _, _, site = equation.params["name"].partition(":")
        return [Mark((site or path,))]
    if not any(mark is not None for mark in marks):
        return [None] * count
    name = name.removesuffix("_start").removesuffix("_done")
    found = _mark(equation, name, marks, second)
    if found is None:
        found = _packed(equation, marks)
    if name == "sort":
        return [mark if mark is not None else found for mark in marks][:count]
    return [found] * count


def _mark(
    equation: Any, name: str, marks: Marks, second: Callable[[], float | None]
) -> Mark | None:
    first = marks[0]
    if name in _MOVES:
        # The index operands of a dynamic_update_slice come after the operand and the update.
        return join(*(marks[:2] if name == "dynamic_update_slice" else marks))
    if name in _MOVES_FIRST or name == "sort":
        return first
    if name == "select_n":
        cases = join(*marks[1:])
        # Zeros and ones chosen by a spike are that spike.
        return join(first, cases) if first is not None and cases == CONSTANT else cases
    if name == "scatter":
        # Ones written at addresses that were made of spikes.
        data, index = join(first, marks[2]), marks[1]
        if data is not None and index is not None and index.packed:
            return Mark(tuple(sorted({*data.sites, *index.sites})))
        return data
    if name == "convert_element_type":
        keeps = first is not None and (not first.packed or _integer(equation))
        return first if keeps else None
    if name in _ANY:
        if first is None or first.packed:
            return first
        return Mark(tuple(site if site.endswith(ANY) else f"{site}{ANY}" for site in first.sites))
    if name in ("max", "min", "mul", "and", "or") and not any(m and m.packed for m in marks):
        return _logic(name, marks)
    if name == "and" and first is not None and second() == 1:
        return Mark(first.sites)  # the lowest bit of a field
    if name in ("ne", "gt", "ge", "eq"):
        return None if first is None else _compared(name, first, second())
    if name in ("reduce_min", "reduce_and"):
        return first
    return None


def _logic(name: str, marks: Marks) -> Mark | None:
    """Of two arrays of zeros and ones."""
    both = join(*marks)
    if both is not None:
        return both
    # Masked by anything, a 0/1 integer stays 0 or 1; a float would become graded.
    if name == "and":
        return next((mark for mark in marks if mark is not None), None)
    return None


def _compared(name: str, mark: Mark, value: float | None) -> Mark | None:
    """A comparison with a number that tells 1 from 0 is the spike again."""
    if value is None:
        return None
    if mark.packed:
        return Mark(mark.sites) if name in ("ne", "gt") and value == 0 else None
    separates = {
        "ne": value == 0,
        "gt": 0 <= value < 1,
        "ge": 0 < value <= 1,
        "eq": value == 1,
    }[name]
    return mark if separates else None


# What makes bit fields and addresses of spikes.
_PACKING = frozenset(["shift_left", "shift_right_logical", "bitcast_convert_type"])


def _packed(equation: Any, marks: Marks) -> Mark | None:
    """Integers computed from packed spikes are packed spikes still."""
    if not _integer(equation):
        return None
    packs = equation.primitive.name in _PACKING
    made = [mark for mark in marks if mark is not None and (mark.packed or (packs and mark.sites))]
    if not made:
        return None
    sites = {site for mark in marks if mark is not None for site in mark.sites}
    return Mark(tuple(sorted(sites)), packed=True)


def _integer(equation: Any) -> bool:
    dtype = equation.outvars[0].aval.dtype
    if jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
        return False
    return any(jax.numpy.issubdtype(dtype, kind) for kind in (jax.numpy.integer, np.bool_))
