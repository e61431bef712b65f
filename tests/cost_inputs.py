"""A device with round numbers, and operations and messages for it."""

from snapjax.cost import Op, Transfer
from snapjax.cost.price.constants import UNITS, Constant
from snapjax.cost.price.profile import Profile

# A device with round numbers: every time and energy below can be checked in the head.
ROUND = {
    "mac_64": 20, "mac_32": 5, "mac_16": 2, "mac_8": 0.5, "ac_64": 2, "ac_32": 1, "ac_16": 0.5,
    "ac_8": 0.1,
    "spike_spike": 0.25, "skipping": 1, "add": 1, "multiply": 4, "divide": 16, "compare": 0.5,
    "transcendental": 50, "other": 0.25, "random": 3, "memory": 10, "packet": 7,
    "hop_x": 2, "hop_y": 3, "packet_bits": 64, "packet_spikes": 64, "hops_x": 4, "hops_y": 5,
    "link_bit": 2, "link_packet_bits": 64, "link_bandwidth": 1000, "link_efficiency": 0.5,
    "link_latency": 3, "link_half": 100, "rate_mac_64": 25, "rate_mac_32": 100, "rate_mac_16": 200,
    "rate_mac_8": 400,
    "rate_ac": 800, "compute_efficiency": 0.5, "compute_half": 10, "rate_elementwise": 50,
    "rate_transcendental": 20, "memory_bandwidth": 10, "start": 2,
}  # fmt: skip


def profile(topology="line", spread=1.0, **changed):
    constants = {
        name: Constant(v, UNITS[name], v / spread, v * spread, "-", "round", "assumed")
        for name, v in {**ROUND, **changed}.items()
    }
    return Profile("round", "round numbers", topology, constants)


def op(
    kind, count, bits=32, read=0.0, written=0.0, sites=(), path="", primitive="dot_general",
    executions=1.0, starts=1.0,
):  # fmt: skip
    """An operation of which nothing is fused."""
    return Op(
        path, primitive, kind, count, f"float{bits}", bits, sites, read, written, read, written,
        executions, starts,
    )  # fmt: skip


def send(size, pairs, executions=1.0, symbol="float32", sites=(), elements=0, path="send"):
    return Transfer(
        path, "ppermute", ("stage",), size, (float(size),), executions, pairs, symbol, (1,),
        elements, sites,
    )  # fmt: skip


LINE4 = ((0, 1), (1, 2), (2, 3))
