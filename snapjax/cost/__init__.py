"""The cost model: operations, bytes on every link, energy and latency of a program in JAX.

It reads the jaxpr of the step that really runs, whoever wrote it; nothing else of snapjax is
needed.
"""

from snapjax.cost.counts import Counts, Op, Transfer, Unpriced
from snapjax.cost.estimate import Estimate, estimate
from snapjax.cost.latency import Schedule
from snapjax.cost.profile import Profile, list_profiles, load_profile
from snapjax.cost.traffic import Cut

__all__ = [
    "Counts",
    "Cut",
    "Estimate",
    "Op",
    "Profile",
    "Schedule",
    "Transfer",
    "Unpriced",
    "estimate",
    "list_profiles",
    "load_profile",
]
