"""The cost model: operations, bytes on every link, energy and latency of a program in JAX.

    counts = cost.trace(step, *args)                 # of arrays or their shapes; nothing runs
    estimate = cost.estimate(counts, "snap-mesh")    # or another of cost.list_profiles(), or a file
    print(cost.table(estimate))                      # or estimate.table()

It reads the jaxpr of the step that really runs, whoever wrote it; nothing else of snapjax is
needed. Names are imported when they are first asked for, so importing this module is cheap.
"""

from typing import TYPE_CHECKING

from snapjax.lazy import attach

# The names again for type checkers and editors, which do not see through `attach`.
if TYPE_CHECKING:
    from snapjax.cost.count.spike_marks import spikes
    from snapjax.cost.count.trace import trace
    from snapjax.cost.counts import Counts, Op, Transfer, Unpriced
    from snapjax.cost.hlo.compare import Difference, compare
    from snapjax.cost.price.profile import Profile, list_profiles, load_profile
    from snapjax.cost.price.ticks import Schedule
    from snapjax.cost.price.traffic import Cut
    from snapjax.cost.report.html import html
    from snapjax.cost.report.methods import Estimate, estimate
    from snapjax.cost.report.text import table, to_dict
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "snapjax.cost.count.spike_marks": ("spikes",),
            "snapjax.cost.count.trace": ("trace",),
            "snapjax.cost.counts": ("Counts", "Op", "Transfer", "Unpriced"),
            "snapjax.cost.hlo.compare": ("Difference", "compare"),
            "snapjax.cost.price.ticks": ("Schedule",),
            "snapjax.cost.price.profile": ("Profile", "list_profiles", "load_profile"),
            "snapjax.cost.price.traffic": ("Cut",),
            "snapjax.cost.report.html": ("html",),
            "snapjax.cost.report.methods": ("Estimate", "estimate"),
            "snapjax.cost.report.text": ("table", "to_dict"),
            "snapjax.cost": ("count", "counts", "hlo", "price", "report"),
        },
    )

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
