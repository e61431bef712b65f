"""The cost model: operations, bytes on every link, energy and latency of a program in JAX.

    counts = cost.trace(step, *args)                 # of arrays or their shapes; nothing runs
    estimate = cost.estimate(counts, "snap-mesh")    # or another of cost.list_profiles(), or a file
    print(estimate.table())

It reads the jaxpr of the step that really runs, whoever wrote it; nothing else of snapjax is
needed.
"""

from snapjax.cost.count.spike_marks import spikes
from snapjax.cost.count.walk import trace
from snapjax.cost.counts import Counts, Op, Transfer, Unpriced
from snapjax.cost.hlo.compare import Difference, compare
from snapjax.cost.price.estimate import Estimate, estimate
from snapjax.cost.price.latency import Schedule
from snapjax.cost.price.profile import Profile, list_profiles, load_profile
from snapjax.cost.price.traffic import Cut

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
    "list_profiles",
    "load_profile",
    "spikes",
    "trace",
]
