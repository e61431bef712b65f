"""The constants of a hardware profile: what each is called, its unit, and what it prices."""

from dataclasses import dataclass

STATUSES = {
    "read": "read in the named source, or that source's figures put together by arithmetic alone",
    "measured": "measured on the machine that the source names",
    "secondary": "read in a source that quotes another",
    "assumed": "our own estimate; the range says how far it may be off",
}
TOPOLOGIES = {
    "line": "the devices of a mesh axis in a row, each linked to its neighbours",
    "ring": "a row whose ends are linked too",
    "switch": "every device linked to one switch",
}


@dataclass(frozen=True)
class Constant:
    """One number of a profile.

    Attributes:
      value: in `unit`.
      unit: the one that `UNITS` has for this constant.
      low, high: the range that energies and times are given with; low <= value <= high.
      node: process and voltage, such as "45 nm, 0.9 V", or "-" where there is none.
      source: where the value is from, as a reader could find it.
      status: one of `STATUSES`.
    """

    value: float
    unit: str
    low: float
    high: float
    node: str
    source: str
    status: str


# name -> (unit, what it is). Every profile has every one of them. One number serves a whole class
# of operand widths: 64 is for 33 bits and more, 32 for 17 to 32 bits, 16 for 9 to 16 bits, 8 for 8
# bits and fewer. Complex numbers are counted as the real arithmetic that they take.
_KEYS = {
    # Energy of arithmetic
    "mac_64": ("pJ", "a multiply-accumulate of floats of 64 bits"),
    "mac_32": ("pJ", "a multiply-accumulate of floats of 32 bits"),
    "mac_16": ("pJ", "a multiply-accumulate of floats of 16 bits"),
    "mac_8": ("pJ", "a multiply-accumulate of integers of 8 bits"),
    "ac_64": ("pJ", "the accumulate that a spike causes, 64 bits"),
    "ac_32": ("pJ", "the accumulate that a spike causes, 32 bits"),
    "ac_16": ("pJ", "the accumulate that a spike causes, 16 bits"),
    "ac_8": ("pJ", "the accumulate that a spike causes, 8 bits"),
    "spike_spike": ("pJ", "an AND of two spikes and the count of it"),
    "skipping": ("share", "of the work of spikes that are absent that the hardware leaves out"),
    # Elementwise operations: of 32 bits. Of other widths a multiplication, division or
    # transcendental is scaled as `mac_*` is, and all others by their width.
    "add": ("pJ", "an addition or subtraction"),
    "multiply": ("pJ", "a multiplication"),
    "divide": ("pJ", "a division"),
    "compare": ("pJ", "a comparison, minimum, maximum or selection"),
    "transcendental": ("pJ", "an exponential, logarithm, root, error function or such"),
    "other": ("pJ", "a bit operation, rounding or cast"),
    "random": ("pJ", "a word of random bits"),
    # Memory
    "memory": ("pJ/byte", "a byte read from or written to the device's main memory"),
    # The network on the die
    "packet": ("pJ", "a packet's way in and out of the network on the die, without its hops"),
    "hop_x": ("pJ", "a packet's hop along x"),
    "hop_y": ("pJ", "a packet's hop along y"),
    "packet_bits": ("bit", "of a dense value that a packet carries"),
    "packet_spikes": ("spikes", "that a packet carries as a bit plane; 1 for a packet a spike"),
    "hops_x": ("hops", "along x from where an activation is made to where it is used, the mean"),
    "hops_y": ("hops", "along y, likewise"),
    # The link between devices
    "link_bit": ("pJ/bit", "a bit over one link, both ends and what lies between"),
    "link_packet_bits": ("bit", "a packet that carries one activation over a link, header and all"),
    "link_bandwidth": ("byte/s", "of one link, each way"),
    "link_efficiency": ("share", "of link_bandwidth that a large message reaches"),
    "link_latency": ("s", "of one message of no bytes, software included"),
    "link_half": ("byte", "size of a message that reaches half of the efficiency"),
    # Speed of a device
    "rate_mac_64": ("op/s", "most multiply-accumulates a second, 64 bits"),
    "rate_mac_32": ("op/s", "most multiply-accumulates a second, 32 bits"),
    "rate_mac_16": ("op/s", "most multiply-accumulates a second, 16 bits"),
    "rate_mac_8": ("op/s", "most multiply-accumulates a second, 8 bits"),
    "rate_ac": ("op/s", "most accumulates a second that spikes cause"),
    "compute_efficiency": ("share", "of these rates that a large operation reaches"),
    "compute_half": ("op", "size of an operation that reaches half of the efficiency"),
    "rate_elementwise": ("op/s", "elementwise operations a second"),
    "rate_transcendental": ("op/s", "transcendental operations a second"),
    "memory_bandwidth": ("byte/s", "of the device's main memory, as reached"),
    "start": ("s", "to start one operation, or one group of fused ones"),
}
UNITS = {name: unit for name, (unit, _) in _KEYS.items()}
MEANINGS = {name: meaning for name, (_, meaning) in _KEYS.items()}
_SPEEDS = frozenset(
    name
    for name, unit in UNITS.items()
    if unit in ("op/s", "byte/s") or name.endswith("efficiency")
)
# Divisors and sizes, which cannot be 0.
POSITIVE = _SPEEDS | {"packet_bits", "packet_spikes", "link_packet_bits"}
# The larger, the less energy or time; of all others, the smaller.
BETTER_HIGH = _SPEEDS | {"packet_bits", "packet_spikes", "skipping"}
