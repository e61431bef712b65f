"""The cost model: operations, bytes on every link, energy and latency of a program in JAX.

It reads the jaxpr of the step that really runs, whoever wrote it; nothing else of snapjax is
needed.
"""

from snapjax.cost.compare import Difference, compare
from snapjax.cost.counts import Counts, Op, Transfer, Unpriced
from snapjax.cost.spike_marks import spikes
from snapjax.cost.walk import trace

__all__ = [
    "Counts",
    "Difference",
    "Op",
    "Transfer",
    "Unpriced",
    "compare",
    "spikes",
    "trace",
]
