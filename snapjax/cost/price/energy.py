"""Energy of operations, memory, the network on the die, and links, in pJ.

Each function prices one `Op` or `Transfer` on one profile; what they mean is in the table.

| part | energy |
|---|---|
| compute | count x the constant of its kind and width; of spikes that are absent only the share that the hardware does not skip |
| memory | bytes that reach memory where operations are fused (`fusion.py`) x memory |
| on-die | packets x (packet + hops_x hop_x + hops_y hop_y): results of dense matmuls on their way to the next core, and spikes on theirs |
| links | bytes x 8 x link_bit for each link that they cross |
"""  # noqa: E501 (a table)

from collections.abc import Mapping

from snapjax.cost.counts import ELEMENTWISE_KINDS, MATMUL_KINDS, Counts, Op, Transfer
from snapjax.cost.price import links
from snapjax.cost.price.profile import Profile

# Made of multiplications, whose energy does not go with the width: of other widths than 32 bits
# they are scaled as the profile's multiply-accumulates are.
_PRODUCTS = ("multiply", "divide", "transcendental")
PARTS = ("compute", "memory", "on-die", "links")

# What papers on spiking networks count: pJ of a float32 multiply-accumulate and of an accumulate
# at 45 nm (Horowitz 2014), matmuls and convolutions alone, neither memory nor communication.
MAC_PJ, AC_PJ = 4.6, 0.9


def mac_ac(macs: float, acs: float, mac_pj: float = MAC_PJ, ac_pj: float = AC_PJ) -> float:
    """The energy that papers on spiking networks quote, in pJ.

    Args:
      macs: multiply-accumulates with two dense operands.
      acs: accumulates that spikes cause.
      mac_pj, ac_pj: of one of each.

    Example:
      >>> f"{mac_ac(1.82e9, 0) / 1e9:.3f} mJ"  # a dense ResNet-18
      '8.372 mJ'
    """
    return macs * mac_pj + acs * ac_pj


def message(profile: Profile, dx: float, dy: float) -> float:
    """pJ of one packet that goes dx hops along x and dy along y on the die (XY routing).

    Example:
      >>> from snapjax.cost.price.profile import load_profile
      >>> f"{message(load_profile('loihi-like'), 2, 1):.1f}"
      '121.2'
    """
    return profile["packet"] + dx * profile["hop_x"] + dy * profile["hop_y"]


def width_class(bits: int) -> int:
    """64, 32, 16 or 8: which constants an operand of so many bits is priced with."""
    return next((width for width in (8, 16, 32) if bits <= width), 64)


def _product_scale(bits: int, profile: Profile) -> float:
    """What a product of this width takes, over one of 32 bits."""
    narrow, wide = profile[f"mac_{width_class(bits)}"], profile["mac_32"]
    return narrow / wide if wide else bits / 32


def done_share(op: Op, counts: Counts, profile: Profile) -> float:
    """The share of an operation's counts that the hardware carries out."""
    if op.kind not in ("ac", "spike_spike"):
        return 1.0
    return 1 - profile["skipping"] * (1 - counts.activity(op))


def compute_pj(op: Op, counts: Counts, profile: Profile) -> float:
    """pJ of an operation's arithmetic on one device."""
    if op.kind in ("mac", "ac"):
        each = profile[f"{op.kind}_{width_class(op.bits)}"]
    elif op.kind in _PRODUCTS:
        each = profile[op.kind] * _product_scale(op.bits, profile)
    elif op.kind in ELEMENTWISE_KINDS:
        each = profile[op.kind] * op.bits / 32
    elif op.kind in ("spike_spike", "random"):
        each = profile[op.kind]
    else:
        return 0.0  # a copy: its bytes are priced, not its arithmetic
    return op.count * done_share(op, counts, profile) * each


def memory_bytes(op: Op, counts: Counts, profile: Profile) -> float:
    """Bytes that an operation reads from and writes to main memory, on one device."""
    if op.kind in MATMUL_KINDS:
        # The weights of a spike that is absent are not fetched either.
        return op.stored_read * done_share(op, counts, profile) + op.stored_written
    return op.stored_read + op.stored_written


def packets(op: Op, counts: Counts, profile: Profile) -> float:
    """Packets that carry an operation's results over the die, on one device.

    A dense matmul's results go to the cores of the next, and spikes, which the comparison with the
    threshold at their site makes, as a packet each or as bit planes, whichever is less. What the
    accumulates of spikes add up to stays in the core whose neurons integrate it.
    """
    if op.kind == "mac":
        return 8 * op.bytes_written / profile["packet_bits"]
    if op.kind == "compare" and op.primitive in ("ge", "gt") and op.path in counts.sites:
        events = op.count * counts.rate(op.path)
        planes = op.count / profile["packet_spikes"]
        return events if profile["packet_spikes"] == 1 else min(events, planes)
    return 0.0


def on_die_pj(op: Op, counts: Counts, profile: Profile) -> float:
    """pJ of an operation's packets on the die of one device."""
    way = message(profile, profile["hops_x"], profile["hops_y"])
    return packets(op, counts, profile) * way


def link_pj(transfer: Transfer, mesh: Mapping[str, int], profile: Profile) -> float:
    """pJ of a transfer's bytes on all links of the mesh."""
    crossed = transfer.executions * links.load(transfer, mesh, profile).crossed
    return 8 * crossed * profile["link_bit"]
