"""What spikes on a link would take in other encodings, and what dense activations would take.

Bytes of one message of n activations, T steps each, of which `bits` (feature, step) spikes are sent
and a share `rate` of these fires:

| encoding | bytes |
|---|---|
| compiled | what XLA sends, the buffer's size |
| planes | bits / 8: one bit for each spike that may be sent |
| events | rate x bits x ceil(log2 bits) / 8: the address of each spike that is there |
| entropy | bits x H(rate) / 8: no code of independent spikes is shorter (Shannon 1948) |
| dense_packets | n x link_packet_bits / 8: one packet an activation |
| dense_8bit | n: one byte an activation, packed |

With all T steps of every activation sent, `entropy` is n x T x H(rate) / 8.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from snapjax.cost.counts import SITE_SEPARATOR, Counts, Transfer
from snapjax.cost.price.profile import Profile

ENCODINGS = ("compiled", "planes", "events", "entropy", "dense_packets", "dense_8bit")
SPIKE_SYMBOLS = ("spikes", "packed")


@dataclass(frozen=True)
class Cut:
    """The activation that a message of spikes stands for, which its bytes alone do not tell.

    Attributes:
      activations: numbers in one message: tokens x features.
      steps: T, spike steps that an activation has at most.
      bits: spikes that one message has room for, those of the plan; None for all that its buffer
        holds.

    Raises:
      ValueError: for a size below 1.
    """

    activations: int
    steps: int
    bits: int | None = None

    def __post_init__(self) -> None:
        for name in ("activations", "steps", "bits"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"Cut: {name}={size} must be at least 1")


@dataclass(frozen=True)
class Traffic:
    """One transfer of spikes in every encoding.

    Attributes:
      path, collective: of the transfer.
      rate: the spikes' share that is there, at most.
      least: the share at least; less than `rate` where the sites' rates leave it open.
      known: whether that rate was given; otherwise it is 1, the worst case.
      cut: what a message stands for; None if that was not given: one activation a spike is assumed.
      messages: sent on all devices, over all executions.
      bytes: encoding -> bytes on all links.
      break_even: from `break_even`; what of it can be said.
    """

    path: str
    collective: str
    rate: float
    least: float
    known: bool
    cut: Cut | None
    messages: float
    bytes: Mapping[str, float]
    break_even: "BreakEven"


@dataclass(frozen=True)
class BreakEven:
    """The spike rate at which T-step spikes stop winning against dense values of as many levels.

    T binary steps without weights tell T + 1 levels apart, which a dense boundary sends in
    ceil(log2(T + 1)) bits. None where spikes lose at every rate.

    Attributes:
      dense_bits: ceil(log2(T + 1)).
      planes_bits: bits an activation that the bit planes take, at any rate.
      events: the rate where addressed events take as many bits; more, and the dense value wins.
      entropy: the same for the best possible code of the spikes.
      compute: the rate where the accumulates of T steps cost as much as one multiply-accumulate.
    """

    dense_bits: int
    planes_bits: float
    events: float
    entropy: float
    compute: float

    @property
    def planes_win(self) -> bool:
        """Whether bit planes, whose size does not depend on the rate, are the smaller."""
        return self.planes_bits < self.dense_bits


def entropy(rate: float) -> float:
    """H, bits of a spike that is there with probability `rate`.

    Example:
      >>> entropy(0.5), entropy(0.0)
      (1.0, 0.0)
    """
    if rate <= 0 or rate >= 1:
        return 0.0
    return -rate * math.log2(rate) - (1 - rate) * math.log2(1 - rate)


def address_bits(bits: int) -> int:
    """Bits that tell `bits` places apart, at least one."""
    return max(1, (bits - 1).bit_length())


def break_even(
    steps: int,
    spike_bits: float,
    event_bits: int,
    mac_pj: float,
    ac_pj: float,
) -> BreakEven:
    """When spikes stop paying.

    Args:
      steps: T.
      spike_bits: planned spikes an activation, at most T.
      event_bits: of one event's address.
      mac_pj, ac_pj: energy of one of each.

    Example:
      >>> found = break_even(steps=4, spike_bits=4, event_bits=12, mac_pj=4.6, ac_pj=0.9)
      >>> found.dense_bits, found.events  # 3 bits against 4 r 12
      (3, 0.0625)
    """
    dense = math.ceil(math.log2(steps + 1))
    return BreakEven(
        dense_bits=dense,
        planes_bits=spike_bits,
        events=min(1.0, dense / (spike_bits * event_bits)),
        entropy=_rate_of_entropy(dense / spike_bits),
        compute=min(1.0, mac_pj / (spike_bits * ac_pj)) if ac_pj else 1.0,
    )


def _rate_of_entropy(bits: float) -> float:
    """The rate up to 1/2 with this entropy; 1 where even 1 bit is less (spikes win at every rate).

    By bisection: H ascends up to 1/2.
    """
    if bits >= 1:
        return 1.0
    low, high = 0.0, 0.5
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if entropy(middle) < bits else (low, middle)
    return (low + high) / 2


def traffic(
    transfer: Transfer, counts: Counts, profile: Profile, cut: Cut | None = None
) -> Traffic | None:
    """A transfer in every encoding, or None if it carries no spikes.

    Args:
      transfer: of `counts`.
      counts: knows the mesh and the spike rates.
      profile: says what a packet and an operation cost.
      cut: what one message stands for.
    """
    if transfer.symbol not in SPIKE_SYMBOLS or not transfer.payload_bytes:
        return None
    messages = transfer.all_bytes(counts.mesh) / transfer.payload_bytes
    room = 8 * transfer.payload_bytes if transfer.symbol == "packed" else transfer.elements
    bits = room if cut is None or cut.bits is None else cut.bits
    activations = bits if cut is None else cut.activations
    steps = 1 if cut is None else cut.steps
    least, rate = counts.bounds(transfer).low, counts.activity(transfer)
    known = bool(transfer.sites) and all(
        part in counts.rates for name in transfer.sites for part in name.split(SITE_SEPARATOR)
    )
    each = {
        "compiled": float(transfer.payload_bytes),
        "planes": math.ceil(bits / 8),
        "events": rate * bits * address_bits(bits) / 8,
        "entropy": bits * entropy(min(max(least, 0.5), rate)) / 8,
        "dense_packets": activations * profile["link_packet_bits"] / 8,
        "dense_8bit": float(activations),
    }
    return Traffic(
        path=transfer.path,
        collective=transfer.collective,
        rate=rate,
        least=least,
        known=known,
        cut=cut,
        messages=messages,
        bytes={name: messages * each[name] for name in ENCODINGS},
        break_even=break_even(
            steps,
            min(steps, bits / activations),
            address_bits(bits),
            profile["mac_32"],
            profile["ac_32"],
        ),
    )
