"""A network of devices with numbers on them: messages over its links, found by search, and the ring
algorithms of collectives moved over them round by round."""

import itertools
from collections import Counter, deque

import numpy as np


class Network:
    """Devices of a mesh, and the bytes that each link has carried."""

    def __init__(self, sizes, topology):
        self.sizes, self.topology = sizes, topology
        self.devices = list(itertools.product(*map(range, sizes)))
        self.load = Counter()
        self.hops = 0

    def neighbours(self, place, axis):
        size = self.sizes[axis]
        for step in (-1, 1):
            there = place[axis] + step
            if self.topology == "ring":
                there %= size
            if 0 <= there < size and there != place[axis]:
                yield (*place[:axis], there, *place[axis + 1 :])

    def ways(self, source, destination, axis):
        """Every shortest way along an axis, found by search."""
        queue, found = deque([(source,)]), []
        while queue:
            way = queue.popleft()
            if found and len(way) > len(found[0]):
                break
            if way[-1] == destination:
                found.append(way)
                continue
            queue.extend((*way, n) for n in self.neighbours(way[-1], axis) if n not in way)
        return list(dict.fromkeys(found))

    def round(self, messages, size, both=False):
        """Messages at once, each along one axis, or over a switch to any device."""
        far = 0
        for source, destination in messages:
            if self.topology == "switch":
                self.load[None, "in", source] += size
                self.load[None, "out", destination] += size
                far = max(far, 1)
                continue
            (axis,) = [a for a, b in enumerate(source) if b != destination[a]]
            ways = self.ways(source, destination, axis)
            if len(ways) > 1 and not both:  # the way without the wrap-around
                ways = [
                    w
                    for w in ways
                    if all(abs(a[axis] - b[axis]) == 1 for a, b in itertools.pairwise(w))
                ]
            assert len(ways) in (1, 2)
            for way in ways:
                for link in itertools.pairwise(way):
                    self.load[axis, *link] += size / len(ways)
            far = max(far, len(ways[0]) - 1)
        self.hops += far

    def found(self, phases=None):
        """(bytes on all links, on the busiest of each axis, hops in a row)."""
        axes = {link[0] for link in self.load}
        worst = sum(max(v for k, v in self.load.items() if k[0] == axis) for axis in axes)
        total = sum(self.load.values()) / (2 if self.topology == "switch" else 1)
        return total, worst, self.hops


def line_of(net, place, axis, members=None):
    """The devices of a place's row along an axis, or of its group there, in order."""
    members = range(net.sizes[axis]) if members is None else members
    return [(*place[:axis], i, *place[axis + 1 :]) for i in members]


def rows(net, axis, groups=None):
    """Every row of devices along an axis, or every group of one."""
    seen = {}
    for place in net.devices:
        group = next((g for g in groups or () if place[axis] in g), None)
        row = tuple(line_of(net, place, axis, group))
        seen[frozenset(row)] = row
    return list(seen.values())


def around(net, axis, groups, state, size, step):
    """n - 1 rounds around a ring: `step(state, device, next device, round)` moves the numbers."""
    lines = rows(net, axis, groups)
    length = len(lines[0])
    for number in range(length - 1):
        messages = [(line[i], line[(i + 1) % length]) for line in lines for i in range(length)]
        net.round(messages, size)
        before = {place: np.copy(value) for place, value in state.items()}
        for line in lines:
            for i in range(length):
                step(before, state, line, i, number)


def reduce_scatter(net, axis, groups, state, size):
    """Chunk c of a row, a sum over it, ends at the row's place c."""

    def step(before, state, line, i, number):
        length = len(line)
        chunk = (i - number - 1) % length
        width = len(before[line[i]]) // length
        part = slice(chunk * width, (chunk + 1) * width)
        state[line[(i + 1) % length]][part] += before[line[i]][part]

    length = len(rows(net, axis, groups)[0])
    around(net, axis, groups, state, size / length, step)
    for line in rows(net, axis, groups):
        for i, place in enumerate(line):
            width = len(state[place]) // length
            state[place] = state[place][i * width : (i + 1) * width]


def all_gather(net, axis, groups, state, size):
    def step(before, state, line, i, number):
        length = len(line)
        chunk = (i - number) % length
        width = len(before[line[i]]) // length
        part = slice(chunk * width, (chunk + 1) * width)
        state[line[(i + 1) % length]][part] = before[line[i]][part]

    for line in rows(net, axis, groups):
        for i, place in enumerate(line):
            wide = np.full(len(line) * len(state[place]), np.nan)
            wide[i * len(state[place]) : (i + 1) * len(state[place])] = state[place]
            state[place] = wide
    around(net, axis, groups, state, size, step)


def psum(net, axes, groups, state, size):
    if not axes:
        return
    *outer, axis = axes
    length = len(rows(net, axis, groups)[0])
    reduce_scatter(net, axis, groups, state, size)
    psum(net, outer, groups, state, size / length)
    all_gather(net, axis, groups, state, size / length)
