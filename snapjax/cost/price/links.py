"""Which links the bytes of a transfer cross: its algorithm's messages, routed over the topology.

One axis of the mesh after the other, as `Transfer` says it:

| collective | messages on an axis of n devices |
|---|---|
| ppermute | every pair's, at once |
| psum, pmax, pmin, all_gather, reduce_scatter | rounds around a ring, each device to the next |
| all_to_all | n - 1 rounds, in the k-th each device to the one k places on |
| broadcast | n - 1 rounds along a chain |

On a line and on a ring a message goes over the links between, the shorter way. On a line what
closes a ring of rounds comes back over all n - 1 links. A switch links any two devices of the mesh
by one link, both ends included, so a ppermute and an all_to_all over several axes cross one. Of two
ways around a ring that are equally long, a ppermute takes the one without the wrap-around
link; of an all_to_all, where every device has such a message, half goes either way.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from snapjax.cost.counts import Transfer
from snapjax.cost.price.profile import Profile, topology_of

_AROUND = ("psum", "pmax", "pmin", "all_gather", "reduce_scatter")
_ALL_TO_ALL = ("all_to_all", "ragged_all_to_all")
DIRECT = ("ppermute", *_ALL_TO_ALL)  # straight from one device to another, over any number of axes


class Load(NamedTuple):
    """What one execution of a transfer puts on the links.

    Attributes:
      crossed: bytes on all links of the mesh; a byte that crosses two links counts twice.
      busiest: bytes on the most loaded link, in one direction.
      rounds: messages that follow each other.
      hops: links that these cross, one after the other.
    """

    crossed: float
    busiest: float
    rounds: float
    hops: float


class _Round(NamedTuple):
    """Messages that are sent at once.

    Attributes:
      pairs: (messages, 2), source and destination along the axis.
      row: (messages,), which of the mesh's rows along the axis each is on.
      size: bytes of a message.
      times: how many rounds like this one follow each other.
    """

    pairs: np.ndarray
    row: np.ndarray
    size: float
    times: float


class _Phase(NamedTuple):
    """The rounds on one axis of `size` devices, which `copies` parts of the mesh run."""

    size: int
    copies: float
    rounds: Sequence[_Round]


def load(transfer: Transfer, mesh: Mapping[str, int], profile: Profile) -> Load:
    """The load of one execution, all of its axes together: phases follow each other.

    Raises:
      ValueError: for an axis that the mesh lacks, a collective without a rule, or a pair of devices
        that the axes do not have.
    """
    missing = [axis for axis in transfer.axes if axis not in mesh]
    if missing or transfer.collective not in (*DIRECT, *_AROUND, "broadcast"):
        raise ValueError(
            f"links: no route for {transfer.collective!r} over {', '.join(transfer.axes)} on the "
            f"mesh {dict(mesh)}; it must be a known collective over axes of this mesh"
        )
    if transfer.collective == "ppermute" and transfer.pairs is None:
        raise ValueError("links: pairs=None of a ppermute; it needs (source, destination) pairs")
    places = math.prod(mesh[axis] for axis in transfer.axes)
    if any(not 0 <= place < places for pair in transfer.pairs or () for place in pair):
        raise ValueError(f"links: pairs={transfer.pairs} are not all among {places} devices")
    once = replace(transfer, path="", executions=1, symbol="", sites=())
    return _load(once, tuple(mesh.items()), profile.topology, profile.ring_from)


@lru_cache(maxsize=512)
def _load(
    transfer: Transfer, mesh_sizes: tuple[tuple[str, int], ...], topology: str, ring_from: int
) -> Load:
    crossed = busiest = rounds = hops = 0.0
    for phase in _phases(transfer, dict(mesh_sizes), topology):
        shape = topology_of(topology, phase.size, ring_from)
        on_links = np.zeros(1)
        for each in phase.rounds:
            split = transfer.collective in _ALL_TO_ALL
            links, distance = route(each.pairs, each.row, phase.size, shape, split)
            on_links = on_links + each.times * each.size * links
            rounds += each.times
            hops += each.times * float(distance.max(initial=0))
            crossed += phase.copies * each.times * each.size * float(distance.sum())
        busiest += float(on_links.max())
    return Load(crossed, busiest, rounds, hops)


def route(
    pairs: np.ndarray, row: np.ndarray, size: int, topology: str, split: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """(messages on each link, links that each message crosses).

    Args:
      pairs: (messages, 2), source and destination on an axis of `size` devices.
      row: (messages,), which row of such devices each is on.
      size: of the axis.
      topology: of `snapjax.cost.price.constants.TOPOLOGIES`.
      split: half of a message goes either way around a ring, where both are equally long.

    Returns:
      (2, rows, size): [0, r, i] of the link from i to i + 1, [1, r, i] of the one back; of a switch
      [0, r, i] of the way from i into it, and [1, r, i] of the way out to i.
    """
    source, destination = pairs.T
    rows = int(row.max(initial=0)) + 1
    if topology == "switch":
        ports = np.zeros((2, rows, size))
        np.add.at(ports[0], (row, source), 1)
        np.add.at(ports[1], (row, destination), 1)
        return ports, np.ones(len(pairs))
    ahead = (destination - source) % size
    back = (source - destination) % size
    up = (destination > source).astype(float)  # the share that goes up
    if topology == "ring":
        tie = 0.5 if split else up
        up = np.where(ahead == back, tie, ahead < back)
    # A range of links from `first` on, which may pass the last one: its ends on a doubled row.
    ends = np.zeros((2, rows, 2 * size + 1))
    for way, first, length, share in ((0, source, ahead, up), (1, destination, back, 1 - up)):
        np.add.at(ends[way], (row, first), share)
        np.add.at(ends[way], (row, first + length), -share)
    doubled = ends.cumsum(-1)
    links = doubled[..., :size] + doubled[..., size : 2 * size]
    return links, up * ahead + (1 - up) * back


def _phases(transfer: Transfer, mesh: Mapping[str, int], topology: str) -> Iterator[_Phase]:
    sizes = [mesh[axis] for axis in transfer.axes]
    together, devices = math.prod(sizes), math.prod(mesh.values())
    others = devices / together
    if transfer.collective in DIRECT and topology == "switch":
        if transfer.pairs is not None:
            rounds = [_round(transfer.pairs, transfer.payload_bytes)]
        else:
            members = transfer.groups or (tuple(range(together)),)
            rounds = _to_all(members, transfer.payload_bytes)
        yield _Phase(together, others, rounds)
        return
    if transfer.pairs is not None:
        yield from _permuted(transfer, sizes, others)
        return
    reached = 1  # devices that a broadcast has reached when a phase begins, in each part
    for axis, size in reversed(list(enumerate(sizes))):
        members = transfer.groups or (tuple(range(size)),)
        length, copies = len(members[0]), devices / size
        if length < 2:
            continue
        if transfer.collective in _ALL_TO_ALL:
            rounds = _to_all(members, transfer.sent[axis] * length / (length - 1))
        elif transfer.collective == "broadcast":
            steps = [[(m[i], m[i + 1]) for m in members] for i in range(length - 1)]
            rounds = [_round(step, transfer.sent[axis]) for step in steps]
            copies, reached = others * reached, reached * size
        else:
            times = transfer.messages[axis]
            steps_around = [(m[i], m[(i + 1) % length]) for m in members for i in range(length)]
            rounds = [_round(steps_around, transfer.sent[axis] / times, times)]
        yield _Phase(size, copies, rounds)


def _permuted(transfer: Transfer, sizes: Sequence[int], others: float) -> Iterator[_Phase]:
    """The pairs of a ppermute along each axis: first all along the first one, then the next."""
    pairs = np.asarray(transfer.pairs, int).reshape(-1, 2)
    here, there = (np.stack(np.unravel_index(pairs[:, end], sizes)) for end in (0, 1))
    for axis, size in enumerate(sizes):
        along = np.stack([here[axis], there[axis]], 1)
        moves = here[axis] != there[axis]
        row = np.ravel_multi_index(
            [*there[:axis], np.zeros_like(here[0]), *here[axis + 1 :]], sizes
        )
        if moves.any():
            each = _Round(along[moves], row[moves], transfer.payload_bytes, 1)
            yield _Phase(size, others, [each])


def _round(pairs: Sequence[tuple[int, int]], size: float, times: float = 1) -> _Round:
    return _Round(np.asarray(pairs, int).reshape(-1, 2), np.zeros(len(pairs), int), size, times)


def _to_all(members: Sequence[tuple[int, ...]], payload: float) -> list[_Round]:
    """Every member of a group sends each other one its part of the payload."""
    length = len(members[0])
    return [
        _round(
            [(m[i], m[(i + k) % length]) for m in members for i in range(length)], payload / length
        )
        for k in range(1, length)
    ]
