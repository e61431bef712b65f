"""Every collective over every topology, against its messages moved one by one over the links.

The reference is a network of devices with numbers on them: each round's messages are routed by a
search over the links, and in the end every device must hold what the collective promises.
"""

import itertools
import math
import re
from dataclasses import replace

import jax
import numpy as np
import pytest
from cost_bodies import mesh_of
from cost_inputs import profile
from cost_network import Network, all_gather, psum, reduce_scatter, rows
from cost_programs import shape
from jax import lax
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from snapjax import cost
from snapjax.cost.hlo import counts as hlo
from snapjax.cost.price import links

TOPOLOGIES = ("line", "ring", "switch")
MESHES = ((2,), (3,), (4,), (5,), (8,), (2, 4), (3, 2), (2, 3, 2))
ALL_GROUPS = (
    ((0, 2, 4, 6), (1, 3, 5, 7)),
    ((0, 1, 2, 3), (4, 5, 6, 7)),
    ((0, 5), (6, 1), (2, 3), (7, 4)),
)


def trace(sizes, axes, body, elements):
    names = tuple("abc"[: len(sizes)])
    mesh = AbstractMesh(sizes, names, axis_types=(AxisType.Auto,) * len(sizes))
    run = jax.shard_map(body, mesh=mesh, in_specs=P(), out_specs=P(names), check_vma=False)
    counts = cost.trace(run, shape(elements))
    (transfer,) = counts.transfers
    return counts, transfer


def check(sizes, topology, counts, transfer, net):
    found = links.load(transfer, counts.mesh, profile(topology))
    total, worst, hops = net.found()
    assert found.crossed == pytest.approx(total)
    assert found.busiest == pytest.approx(worst)
    assert found.hops == hops
    # The same through an estimate, 16 pJ a byte and link.
    (link,) = cost.estimate(counts, profile(topology)).links
    assert link.energy.value == pytest.approx(16 * total)
    assert link.crossed == pytest.approx(total)


def subsets(sizes):
    """Every choice of axes to run over, in the mesh's order."""
    axes = range(len(sizes))
    return [c for n in range(1, len(sizes) + 1) for c in itertools.combinations(axes, n)]


CASES = [(sizes, axes, None) for sizes in MESHES for axes in subsets(sizes)]
CASES += [((8,), (0,), groups) for groups in ALL_GROUPS]
ids = lambda case: "-".join(map(str, case)).replace(" ", "")


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.parametrize("name", ["psum", "all_gather", "reduce_scatter"])
def test_rounds_around_rings(name, case, topology):
    sizes, axes, groups = case
    names = tuple("abc"[a] for a in axes)
    together = len(groups[0]) if groups else math.prod(sizes[a] for a in axes)
    net = Network(sizes, topology)
    rng = np.random.default_rng(0)
    data = {place: rng.normal(size=together) for place in net.devices}
    state = {place: np.copy(value) for place, value in data.items()}
    group = {
        place: [
            other
            for other in net.devices
            if all(
                a == b for i, (a, b) in enumerate(zip(place, other, strict=True)) if i not in axes
            )
            and (not groups or any({place[0], other[0]} <= set(g) for g in groups))
        ]
        for place in net.devices
    }
    size = 4 * together  # bytes of float32
    options = {"axis_index_groups": [list(g) for g in groups]} if groups else {}
    if name == "psum":
        counts, transfer = trace(sizes, axes, lambda x: lax.psum(x, names, **options), together)
        psum(net, list(axes), groups, state, size)
        for place, value in state.items():
            np.testing.assert_allclose(value, sum(data[other] for other in group[place]))
    elif name == "all_gather":
        body = lambda x: lax.all_gather(x, names, tiled=True, **options)
        counts, transfer = trace(sizes, axes, body, together)
        for axis in reversed(axes):
            all_gather(net, axis, groups, state, size)
            size *= len(groups[0]) if groups else sizes[axis]
        for place, value in state.items():
            assert sorted(value) == sorted(np.concatenate([data[o] for o in group[place]]))
    else:
        body = lambda x: lax.psum_scatter(x, names, tiled=True, **options)
        counts, transfer = trace(sizes, axes, body, together)
        for axis in reversed(axes):
            reduce_scatter(net, axis, groups, state, size)
            size /= len(groups[0]) if groups else sizes[axis]
        for place, value in state.items():
            assert np.isclose(value, sum(data[other] for other in group[place])).any()
    check(sizes, topology, counts, transfer, net)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("case", CASES, ids=ids)
def test_all_to_all(case, topology):
    sizes, axes, groups = case
    names = tuple("abc"[a] for a in axes)
    together = len(groups[0]) if groups else math.prod(sizes[a] for a in axes)
    options = {"axis_index_groups": [list(g) for g in groups]} if groups else {}
    body = lambda x: lax.all_to_all(
        x, names if len(names) > 1 else names[0], 0, 0, tiled=True, **options
    )
    counts, transfer = trace(sizes, axes, body, together)
    net, size = Network(sizes, topology), 4 * together
    if topology == "switch":
        # Straight to every device that differs along the axes, one after the other.
        members = list(itertools.product(*(range(sizes[a]) for a in axes)))
        groups_ = [[(m,) for m in g] for g in groups] if groups else [members]
        rest = [i for i in range(len(sizes)) if i not in axes]
        for k in range(1, together):
            messages = []
            for fixed in itertools.product(*(range(sizes[i]) for i in rest)):
                for g in groups_:
                    put = lambda m, fixed=fixed: tuple(
                        m[axes.index(i)] if i in axes else fixed[rest.index(i)]
                        for i in range(len(sizes))
                    )
                    messages += [(put(g[i]), put(g[(i + k) % together])) for i in range(together)]
            net.round(messages, size / together)
    else:
        for axis in axes:
            lines = rows(net, axis, groups)
            length = len(lines[0])
            for k in range(1, length):
                messages = [
                    (line[i], line[(i + k) % length]) for line in lines for i in range(length)
                ]
                net.round(messages, size / length, both=True)
    check(sizes, topology, counts, transfer, net)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("sizes", "axes"), [c[:2] for c in CASES if c[2] is None], ids=ids)
def test_ppermute(sizes, axes, seed, topology):
    rng = np.random.default_rng(seed)
    names = tuple("abc"[a] for a in axes)
    together = math.prod(sizes[a] for a in axes)
    pairs = list(enumerate(rng.permutation(together).tolist()))[: max(2, together - seed)]
    if all(a == b for a, b in pairs):
        pairs = [(0, 1)]
    counts, transfer = trace(sizes, axes, lambda x: lax.ppermute(x, names, pairs), 3)
    net = Network(sizes, topology)
    places = list(itertools.product(*(range(sizes[a]) for a in axes)))
    moving = [(places[a], places[b]) for a, b in pairs if a != b]
    rest = [i for i in range(len(sizes)) if i not in axes]
    put = lambda m, fixed: tuple(
        m[axes.index(i)] if i in axes else fixed[rest.index(i)] for i in range(len(sizes))
    )
    fixed_places = list(itertools.product(*(range(sizes[i]) for i in rest)))
    if topology == "switch":
        net.round([(put(a, f), put(b, f)) for a, b in moving for f in fixed_places], 12)
    else:
        for number in range(len(axes)):  # all messages along the first axis, then along the next
            here = [
                ((*b[:number], *a[number:]), (*b[: number + 1], *a[number + 1 :]))
                for a, b in moving
            ]
            messages = [(put(a, f), put(b, f)) for a, b in here if a != b for f in fixed_places]
            net.round(messages, 12)
    check(sizes, topology, counts, transfer, net)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(("sizes", "axes"), [c[:2] for c in CASES if c[2] is None], ids=ids)
def test_broadcast(sizes, axes, topology):
    names = tuple("abc"[a] for a in axes)
    counts, transfer = trace(sizes, axes, lambda x: lax.pbroadcast(x, names, 0), 3)
    net = Network(sizes, topology)
    holders = {place for place in net.devices if all(place[a] == 0 for a in axes)}
    for axis in reversed(axes):
        for i in range(sizes[axis] - 1):
            messages = [
                (place, (*place[:axis], i + 1, *place[axis + 1 :]))
                for place in sorted(holders)
                if place[axis] == i
            ]
            net.round(messages, 12)
            holders |= {there for _, there in messages}
    assert holders == set(net.devices)
    check(sizes, topology, counts, transfer, net)


@pytest.mark.parametrize(
    ("devices", "topology", "total", "worst"),
    [
        (8, "ring", 131_072, 8_192), (16, "ring", 1_048_576, 32_768),
        (8, "line", 172_032, 16_384), (16, "line", 1_392_640, 65_536),
        (8, "switch", 57_344, 7_168), (16, "switch", 245_760, 15_360),
    ],
)  # fmt: skip
def test_the_textbook_all_to_all(devices, topology, total, worst):
    """n^3/4 and n (n^2 - 1) / 3 messages' links, n^2/8 and n^2/4 on the busiest one."""
    elements = 256 * devices  # 1,024 bytes for each destination
    body = lambda x: lax.all_to_all(x, "a", 0, 0, tiled=True)
    counts, transfer = trace((devices,), (0,), body, elements)
    found = links.load(transfer, counts.mesh, profile(topology))
    assert (found.crossed, found.busiest) == (total, worst)
    (link,) = cost.estimate(counts, profile(topology)).links
    assert link.bytes == 1_024 * devices * (devices - 1)


def test_a_short_axis_of_a_torus_has_no_wrap_around():
    """TPU slices: of v5e an axis of 16 closes, of v5p one of 4."""
    for name, closes in (("tpu-v5e", 16), ("tpu-v6e", 16), ("tpu-v5p", 4)):
        found = cost.load_profile(name)
        assert [found.topology_of(n) for n in (2, closes - 1, closes)] == ["line", "line", "ring"]
        for size, around in ((closes - 1, False), (closes, True)):
            body = lambda x, size=size: lax.ppermute(x, "a", [(size - 1, 0)])
            counts, transfer = trace((size,), (0,), body, 1)
            assert links.load(transfer, counts.mesh, found).hops == (1 if around else size - 1)


@pytest.mark.parametrize("groups", ALL_GROUPS[:2])
def test_groups_of_an_axis_in_the_compiled_program(groups):
    """XLA's replica groups are the same groups of the same axis."""
    body = lambda x: lax.all_gather(x, "x", tiled=True, axis_index_groups=[list(g) for g in groups])
    mesh = mesh_of({"x": 8})
    run = jax.shard_map(body, mesh=mesh, in_specs=P("x"), out_specs=P("x"), check_vma=False)
    counts = cost.trace(run, shape(64))
    found = hlo.counts(jax.jit(run).lower(shape(64)).compile(), mesh)
    assert cost.compare(counts, found) == ()
    ours, its = counts.transfers[0], found.transfers[0]
    assert ours.groups == its.groups == groups
    for topology in TOPOLOGIES:
        loads = [links.load(t, counts.mesh, profile(topology)) for t in (ours, its)]
        assert loads[0] == loads[1]


def test_groups_over_several_axes_have_no_price():
    options = {"axis_index_groups": [[0, 1], [2, 3]]}
    names, mesh = ("a", "b"), AbstractMesh((2, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    body = lambda x: lax.psum(x, names, **options)
    run = jax.shard_map(body, mesh=mesh, in_specs=P(), out_specs=P(names), check_vma=False)
    counts = cost.trace(run, shape(4))
    assert counts.transfers == ()
    assert counts.unpriced[0].reason == "no rule for groups of devices over several axes, a, b"


def test_groups_of_unequal_sizes_have_no_price():
    body = lambda x: lax.psum(x, "a", axis_index_groups=[[0, 1, 2], [3]])
    mesh = AbstractMesh((4,), ("a",), axis_types=(AxisType.Auto,))
    counts = cost.trace(
        jax.shard_map(body, mesh=mesh, in_specs=P(), out_specs=P("a"), check_vma=False), shape(4)
    )
    assert counts.transfers == ()
    assert "no rule for groups of unequal sizes" in counts.unpriced[0].reason


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"collective": "gossip"}, "no route for 'gossip' over a"),
        ({"axes": ("z",)}, "no route for 'ppermute' over z on the mesh {'a': 4}"),
        ({"pairs": None}, "pairs=None of a ppermute"),
        ({"pairs": ((0, 9),)}, "are not all among 4 devices"),
        ({"pairs": ((-1, 0),)}, "are not all among 4 devices"),
    ],
)
def test_a_transfer_without_a_route_is_named(changed, message):
    whole = cost.Transfer("p", "ppermute", ("a",), 8, (8.0,), 1, ((0, 1),), "f", (1,))
    assert links.load(whole, {"a": 4}, profile()).crossed == 8
    with pytest.raises(ValueError, match=re.escape(message)):
        links.load(replace(whole, **changed), {"a": 4}, profile())
