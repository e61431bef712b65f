"""The cost model: operations, bytes on every link, energy and latency of a program in JAX.

    counts = cost.trace(step, *args)                 # of arrays or their shapes; nothing runs
    estimate = cost.estimate(counts, "snap-mesh")    # or another of cost.list_profiles(), or a file
    print(cost.table(estimate))                      # or estimate.table()

It reads the jaxpr of the step that really runs, whoever wrote it; nothing else of snapjax is
needed. Names are imported when they are first asked for, so importing this module is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snapjax.cost.count.spike_marks import spikes
    from snapjax.cost.count.trace import trace
    from snapjax.cost.counts import Counts, Op, Transfer, Unpriced
    from snapjax.cost.hlo.compare import Difference, compare
    from snapjax.cost.price.latency import Schedule
    from snapjax.cost.price.profile import Profile, list_profiles, load_profile
    from snapjax.cost.price.traffic import Cut
    from snapjax.cost.report.html import html
    from snapjax.cost.report.methods import Estimate, estimate
    from snapjax.cost.report.text import table, to_dict

__all__ = [
    "Counts",
    "Cut",
    "Difference",
    "Estimate",
    "Op",
    "Profile",
    "Schedule",
    "Transfer",
    "Unpriced",
    "compare",
    "estimate",
    "html",
    "list_profiles",
    "load_profile",
    "spikes",
    "table",
    "to_dict",
    "trace",
]

# Where each name is from. Hidden from type checkers, to which a module with a `__getattr__` has
# every name there could be.
if not TYPE_CHECKING:
    _DEFINED_IN = {
        "spikes": "count.spike_marks",
        "trace": "count.trace",
        **dict.fromkeys(("Counts", "Op", "Transfer", "Unpriced"), "counts"),
        **dict.fromkeys(("Difference", "compare"), "hlo.compare"),
        "Schedule": "price.latency",
        **dict.fromkeys(("Profile", "list_profiles", "load_profile"), "price.profile"),
        "Cut": "price.traffic",
        "html": "report.html",
        **dict.fromkeys(("Estimate", "estimate"), "report.methods"),
        **dict.fromkeys(("table", "to_dict"), "report.text"),
    }
    _MODULES = ("count", "counts", "hlo", "price", "report")

    def __getattr__(name):
        if name in _DEFINED_IN:
            value = getattr(import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)
            globals()[name] = value  # the next use does not come here
            return value
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__, *_MODULES})
