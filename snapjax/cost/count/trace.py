"""Counts from the jaxpr of the function that really runs: `trace`.

Dead code is removed first. A scan's body counts times its length, a `while` as often as its counter
says or a stated number of trips, a `cond` by a stated rule, `remat` as often as it is executed, a
custom derivative by its body, a `shard_map` for one device, and a kernel for every program of its
grid. See `snapjax.cost.count.primitives` for what each operation costs.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from snapjax.cost.count import _jax, control, loops, operations
from snapjax.cost.count.rules import Rule, Rules, Trips
from snapjax.cost.count.walk import Walker
from snapjax.cost.counts import Counts

HANDLERS = {**operations.HANDLERS, **loops.HANDLERS, **control.HANDLERS}


def trace(
    function: Callable[..., Any],
    *args: Any,
    strict: bool = False,
    while_trips: Trips = None,
    cond: Rule = "max",
    rates: Mapping[str, float] | None = None,
    parameters: Any = None,
    **kwargs: Any,
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
        where it does not; or {pattern of the cond's path: share of each branch}, "max" elsewhere.
      rates: spike rate of each site; see `Counts.with_rates`.
      parameters: the model's parameters, a pytree whose elements are counted, or their number.
      kwargs: the function's keyword arguments; what is no array, such as `train=False`, is handed
        over as it is. One with a name from above is bound by `functools.partial`.

    Returns:
      counts of one device; see `snapjax.cost.counts`.

    Raises:
      ValueError: for an unknown rule or site, or a pattern that no path matches; under `strict`
        for anything without a price.

    Example:
      >>> import jax
      >>> layer = lambda x, w: jax.nn.relu(x @ w)
      >>> x, w = jax.ShapeDtypeStruct((8, 64), "float32"), jax.ShapeDtypeStruct((64, 32), "float32")
      >>> counts = trace(layer, x, w)
      >>> counts.macs, counts.by_kind()
      (16384, {'mac': 16384, 'compare': 256})
    """
    rules = Rules(while_trips, cond)
    call = _jax.make_jaxpr(function, args, kwargs)
    walker = Walker(HANDLERS, operations.operation, rules)
    values = list(map(walker.argument, call.jaxpr.invars, call.arguments))
    wanted = [value.spec for value in map(walker.argument, call.jaxpr.outvars, call.results)]
    constants = call.constants
    walker.run(call.jaxpr, values, (), np.ones(1), constants=constants, wanted=wanted)
    rules.check_used()
    counts = walker.record.counts(walker.mesh, tuple(walker.notes), _elements(parameters))
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


def _elements(parameters: Any) -> int | None:
    """Elements of a pytree of arrays; a number, or None, is itself."""
    if parameters is None or isinstance(parameters, int):
        return parameters
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(parameters))
