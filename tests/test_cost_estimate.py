"""Energy and latency against sums done by hand, published rows, and formulas written out."""

import math
from dataclasses import replace

import numpy as np
import pytest
from cost_inputs import LINE4, op, profile, send

from snapjax import cost
from snapjax.cost import Counts, Schedule, Transfer
from snapjax.cost.price import energy, latency
from snapjax.cost.price.links import route
from snapjax.cost.price.profile import load_profile

# Energy


@pytest.mark.parametrize(
    ("kind", "bits", "each"),
    [
        ("mac", 32, 5), ("mac", 64, 20), ("mac", 33, 20), ("ac", 64, 2), ("mac", 16, 2),
        ("mac", 9, 2), ("mac", 8, 0.5), ("mac", 4, 0.5),
        ("ac", 32, 1), ("ac", 16, 0.5), ("ac", 8, 0.1), ("spike_spike", 32, 0.25),
        ("add", 32, 1), ("add", 16, 0.5), ("add", 64, 2), ("multiply", 32, 4), ("divide", 32, 16),
        # Products of other widths go as the multiply-accumulates do: 20, 2 and 0.5 over 5.
        ("multiply", 64, 16), ("multiply", 16, 1.6), ("divide", 8, 1.6),
        ("transcendental", 64, 200),
        ("compare", 8, 0.125), ("transcendental", 32, 50), ("other", 1, 0.25 / 32),
        ("random", 32, 3), ("move", 32, 0),
    ],
)  # fmt: skip
def test_compute_energy_of_each_kind(kind, bits, each):
    counts = Counts(devices=3, ops=(op(kind, 100, bits),))
    found = cost.estimate(counts, profile()).energy_parts["compute"].value
    assert found == pytest.approx(3 * 100 * each)


def test_memory_and_on_die_energy():
    ops = (
        op("mac", 8, read=100.0, written=32.0),  # all 132 bytes, and 32 x 8 / 64 = 4 packets
        op("add", 8, read=40.0, written=20.0),
        # Of a fused operation only what reaches memory counts.
        replace(op("multiply", 8, read=64.0, written=32.0), stored_read=6.0, stored_written=0.0),
        op("move", 8, read=4.0, written=4.0),
    )
    parts = cost.estimate(Counts(devices=2, ops=ops), profile()).energy_parts
    assert parts["memory"].value == 2 * 10 * (132 + 60 + 6 + 8)
    assert parts["on-die"].value == 2 * 4 * (7 + 4 * 2 + 5 * 3)


def test_spikes_save_work_only_where_the_hardware_skips():
    # 1000 accumulates at a rate of 0.1; weights of absent spikes are not fetched either.
    ops = (op("ac", 1000, read=400.0, written=10.0, sites=("s",)),)
    counts = Counts(ops=ops).with_rates({"s": 0.1})
    skips = cost.estimate(counts, profile())
    assert skips.energy_parts["compute"].value == pytest.approx(100 * 1)
    assert skips.energy_parts["memory"].value == pytest.approx(10 * (40 + 10))
    dense = cost.estimate(counts, profile(skipping=0))
    assert dense.energy_parts["compute"].value == 1000
    assert dense.energy_parts["memory"].value == 10 * 410
    assert any("computes with absent spikes too" in note for note in dense.notes)
    assert not any("absent spikes" in note for note in skips.notes)
    assert skips.acs == dense.acs == 100


def test_two_spike_operands_fire_together_at_most_as_often_as_the_rarer():
    counts = Counts(ops=(op("spike_spike", 1000, sites=("q", "k")),))
    found = cost.estimate(counts.with_rates({"q": 0.5, "k": 0.2}), profile())
    assert found.energy_parts["compute"].value == pytest.approx(1000 * 0.2 * 0.25)


def test_spikes_travel_on_the_die_as_events_or_planes():
    made = op("compare", 640, path="s", primitive="ge")
    counts = Counts(ops=(made, op("ac", 10, sites=("s",)))).with_rates({"s": 0.001})
    way = 7 + 4 * 2 + 5 * 3
    price = lambda p: cost.estimate(counts, p).energy_parts["on-die"].value
    assert price(profile()) == pytest.approx(0.64 * way)  # fewer than the 10 packets of planes
    often = counts.with_rates({"s": 0.5})
    assert cost.estimate(often, profile()).energy_parts["on-die"].value == 10 * way
    # Where a packet holds one spike there are no planes.
    assert cost.estimate(often, profile(packet_spikes=1)).energy_parts["on-die"].value == 320 * way


def test_the_hop_formula_of_the_noc_oracle():
    """SANA-FE's Loihi: 111 + 3.0 dx + 4.2 dy pJ a spike message."""
    loihi = load_profile("loihi-like")
    for dx in range(8):
        for dy in range(4):
            assert energy.message(loihi, dx, dy) == pytest.approx(111 + 3.0 * dx + 4.2 * dy)
    # The same through an estimate: 1000 spikes at 0.25, each two hops along x and one along y.
    counts = Counts(ops=(op("compare", 1000, path="s", primitive="ge"), op("ac", 1, sites=("s",))))
    found = cost.estimate(counts.with_rates({"s": 0.25}), loihi).energy_parts["on-die"]
    assert (loihi["hops_x"], loihi["hops_y"]) == (2, 1)
    assert found.value == pytest.approx(250 * (111 + 3.0 * 2 + 4.2 * 1))


@pytest.mark.parametrize(
    ("macs", "acs", "millijoules"), [(1.82e9, 0, 8.372), (2.75e9, 0.50e9, 13.10)]
)
def test_the_published_rows_of_macs_and_acs(macs, acs, millijoules):
    """syops-counter: resnet18, and sew_resnet18 with both kinds of operation."""
    assert energy.mac_ac(macs, acs) == pytest.approx(millijoules * 1e9, rel=1e-4)
    ops = (op("mac", macs), op("ac", acs / 0.25, sites=("s",)))
    found = cost.estimate(Counts(ops=ops).with_rates({"s": 0.25}), "snap-mesh")
    assert found.mac_ac_pj == pytest.approx(millijoules * 1e9, rel=1e-4)
    # On our 45 nm profile the arithmetic is the same figure, and memory comes on top.
    assert found.energy_parts["compute"].value == pytest.approx(found.mac_ac_pj)
    assert found.dense_mac_pj == pytest.approx(4.6 * (macs + acs / 0.25))


# Links


def test_link_energy_counts_every_sender_and_every_link():
    # 3 of 4 devices send 100 bytes, 5 times: 1500 bytes, 16 pJ each.
    counts = Counts(4, {"stage": 4}, transfers=(send(100, LINE4, 5),))
    (link,) = cost.estimate(counts, profile()).links
    assert link.bytes == 1500
    assert link.energy.value == 1500 * 16
    assert dict(link.bytes_per_axis) == {"stage": 500}
    # 0 -> 3 crosses 3 links of a line, 1 of a ring, 1 of a switch.
    far = Counts(4, {"stage": 4}, transfers=(send(100, ((0, 3),)),))
    for topology, links in (("line", 3), ("ring", 1), ("switch", 1)):
        assert cost.estimate(far, profile(topology)).links[0].energy.value == 1600 * links


def test_a_ring_on_a_line_comes_back_over_all_links():
    # all_gather of 4: 4 devices send 300 bytes each; 1 byte in 4 goes back over 3 links.
    gather = Transfer("g", "all_gather", ("stage",), 100, (300.0,), 1, None, "float32", (3,))
    counts = Counts(4, {"stage": 4}, transfers=(gather,))
    assert cost.estimate(counts, profile("ring")).links[0].energy.value == 1200 * 16
    crossed = 1200 * (3 / 4 * 1 + 1 / 4 * 3)
    assert cost.estimate(counts, profile("line")).links[0].energy.value == crossed * 16


def test_the_time_of_a_message():
    # 3 s latency + (400 + 100) bytes at 500 byte/s = 4 s, five times.
    counts = Counts(4, {"stage": 4}, transfers=(send(400, LINE4, 5),))
    assert cost.estimate(counts, profile()).links[0].seconds.value == 20
    # Small messages pay the floor: 1 byte is not 400 times faster.
    small = Counts(4, {"stage": 4}, transfers=(send(1, LINE4),))
    assert cost.estimate(small, profile()).links[0].seconds.value == pytest.approx(3.202)


def test_the_worst_link_and_not_the_mean():
    # On a line 0 -> 2 and 1 -> 3 share the link 1 -> 2: twice 500 bytes, and two hops of latency.
    both = Counts(4, {"stage": 4}, transfers=(send(500, ((0, 2), (1, 3))),))
    seconds = lambda counts, topology: (
        cost.estimate(counts, profile(topology)).links[0].seconds.value
    )
    assert seconds(both, "line") == pytest.approx(2 * 3 + 2 * 500 / 500 + 100 / 500)
    assert seconds(both, "switch") == pytest.approx(3 + 500 / 500 + 100 / 500)
    # Opposite directions do not share: links are full duplex.
    swap = Counts(4, {"stage": 4}, transfers=(send(500, ((0, 1), (1, 0))),))
    assert seconds(swap, "line") == pytest.approx(3 + 1 + 0.2)
    # Two senders into one device share its way out of the switch.
    into = Counts(4, {"stage": 4}, transfers=(send(500, ((0, 3), (1, 3))),))
    assert seconds(into, "switch") == pytest.approx(3 + 2 + 0.2)


@pytest.mark.parametrize(
    ("pair", "size", "topology", "links"),
    [
        ((0, 3), 4, "line", [(0, 1), (1, 2), (2, 3)]),
        ((3, 1), 4, "line", [(3, 2), (2, 1)]),
        ((0, 3), 4, "ring", [(0, 3)]),
        ((3, 0), 4, "ring", [(3, 0)]),
        ((0, 2), 4, "ring", [(0, 1), (1, 2)]),
        ((6, 1), 8, "ring", [(6, 7), (7, 0), (0, 1)]),
        ((0, 3), 4, "switch", [(0, 3)]),
    ],
)
def test_routes(pair, size, topology, links):
    found, distance = route(np.array([pair]), np.zeros(1, int), size, topology)
    assert distance.tolist() == [len(links)]
    if topology == "switch":
        assert found.sum() == 2  # the way into the switch, and the way out
        assert (found[0, 0, pair[0]], found[1, 0, pair[1]]) == (1, 1)
        return
    ends = lambda way, i: (i, (i + 1) % size) if way == 0 else ((i + 1) % size, i)
    busy = {ends(way, i) for way, _, i in np.argwhere(found).tolist()}
    assert (busy, found.sum()) == (set(links), len(links))


# Latency


def test_an_operation_takes_the_longer_of_compute_and_memory():
    # (40 + 10) / (100 x 0.5) = 1 s; 50 bytes at 10 byte/s = 5 s; and 2 s to start.
    wide = latency.op_time(op("mac", 40, read=30.0, written=20.0), Counts(), profile())
    assert wide == (1.0, 5.0, 2.0)
    assert wide.busy == 7.0
    # Twice as wide a type, half the rate; the half-size is in operations.
    assert latency.op_time(op("mac", 40, bits=16), Counts(), profile()).compute == 0.5
    assert latency.op_time(op("mac", 40, bits=8), Counts(), profile()).compute == 0.25
    # 40 elementwise operations at 50 a second; what is fused into another starts nothing.
    assert latency.op_time(op("add", 40), Counts(), profile()) == (0.8, 0.0, 2.0)
    assert latency.op_time(op("add", 40, starts=0), Counts(), profile()) == (0.8, 0.0, 0.0)
    assert latency.op_time(op("transcendental", 40), Counts(), profile()).compute == 2.0
    assert latency.op_time(op("move", 40, read=10.0), Counts(), profile()) == (0.0, 1.0, 2.0)


def test_small_operations_in_a_loop_pay_the_floor_every_time():
    once = latency.op_time(op("mac", 400), Counts(), profile())
    loop = latency.op_time(op("mac", 400, executions=40, starts=40), Counts(), profile())
    assert once.compute == (400 + 10) / 50
    assert loop.compute == (400 + 40 * 10) / 50
    assert (once.start, loop.start) == (2, 80)


def test_accumulates_run_at_their_own_rate():
    counts = Counts(ops=(op("ac", 4000, sites=("s",)),)).with_rates({"s": 0.1})
    assert latency.op_time(counts.ops[0], counts, profile()).compute == pytest.approx(410 / 400)
    # Hardware that computes with absent spikes does the dense matmul.
    dense = latency.op_time(counts.ops[0], counts, profile(skipping=0))
    assert dense.compute == (4000 + 10) / 50


def example():
    ops = (op("mac", 90), op("add", 50, read=20.0, starts=0.5))  # 2 + 2 s; max(1, 2) + 1 s
    return Counts(4, {"stage": 4}, ops=ops, transfers=(send(400, LINE4),))  # 4 s


def test_overlap_on_and_off():
    apart = cost.estimate(example(), profile())
    assert apart.latency.value == (2 + 2) + (2 + 1) + 4
    together = cost.estimate(example(), profile(), overlap=True)
    assert together.latency.value == 7
    assert together.times.hidden == 4
    slow = replace(example(), transfers=(send(400, LINE4, 5),))
    assert cost.estimate(slow, profile(), overlap=True).latency.value == 20


@pytest.mark.parametrize(("stages", "microbatches"), [(4, 1), (4, 4), (4, 28), (1, 8)])
def test_bubbles_of_the_schedule(stages, microbatches):
    schedule = Schedule(stages, microbatches)
    found = cost.estimate(example(), profile(), schedule=schedule)
    # 7 s of work in M ticks, and S - 1 ticks more; messages are as counted.
    ticks = microbatches + stages - 1
    assert found.latency.value == pytest.approx(7 * ticks / microbatches + 4)
    assert schedule.bubble == pytest.approx((stages - 1) / ticks)
    # Where the counts hold idle ticks already they are told apart and not added.
    counted = cost.estimate(example(), profile(), schedule=replace(schedule, idle_counted=True))
    assert counted.latency.value == pytest.approx(11)
    assert counted.times.bubble == pytest.approx(7 * schedule.bubble)


def test_the_slowest_stage_sets_the_pace():
    found = cost.estimate(example(), profile(), schedule=Schedule(4, 4, imbalance=1.5))
    assert found.latency.value == pytest.approx(7 * 7 / 4 * 1.5 + 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stages": 0, "microbatches": 1}, "stages=0 must be at least 1"),
        ({"stages": 2, "microbatches": 0}, "microbatches=0 must be"),
        ({"stages": 2.5, "microbatches": 1}, "stages=2.5 must be at least 1 and whole"),
        ({"stages": 2, "microbatches": math.nan}, "microbatches=nan must be"),
        ({"stages": True, "microbatches": 1}, "stages=True must be"),
        ({"stages": 2, "microbatches": 1, "busy": 3}, "busy=3 must be"),
        ({"stages": 2, "microbatches": 1, "busy": {"a": "x"}}, "must be a share"),
        ({"stages": 2, "microbatches": 1, "imbalance": 0.5}, "imbalance=0.5 must be"),
        (
            {"stages": 2, "microbatches": 1, "imbalance": 2.0, "idle_counted": True},
            "imbalance=2.0 goes with counts of the mean device",
        ),
    ],
)
def test_schedules_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**arguments)


# Ranges


def test_ranges_are_at_the_ends_of_all_constants():
    found = cost.estimate(example(), profile(spread=2.0, skipping=0.5))
    compute = found.energy_parts["compute"]
    assert (compute.low, compute.value, compute.high) == (1000, 2000, 4000)
    links = found.energy_parts["links"]
    assert (links.low, links.value, links.high) == (9600, 19200, 38400)
    assert found.energy.low < found.energy.value < found.energy.high
    # Best: 3/2 s + (400 + 50) / (2000 x 1): latency falls, bandwidth and efficiency rise.
    assert found.links[0].seconds.low == pytest.approx(1.5 + 450 / 2000)
    assert found.links[0].seconds.high == pytest.approx(6 + 600 / (500 * 0.25))
    assert found.latency.low < found.latency.value < found.latency.high


@pytest.mark.parametrize("name", cost.list_profiles())
def test_every_profile_prices_everything(name):
    ops = tuple(op(kind, 1e6, read=1e4, written=1e4) for kind in cost.counts.KINDS)
    counts = replace(example(), ops=ops)
    found = cost.estimate(counts, name, schedule=Schedule(4, 8))
    assert 0 < found.energy.low <= found.energy.value <= found.energy.high < math.inf
    assert 0 < found.latency.low <= found.latency.value <= found.latency.high < math.inf
    assert found.times.total == found.latency.value


def test_energy_of_parts_modules_and_links_adds_up():
    ops = (op("mac", 90, path="a/b"), op("add", 50, read=40.0, path="a/c"), op("mac", 1, path="d"))
    found = cost.estimate(replace(example(), ops=ops), profile())
    modules = sum(module.picojoules.value for module in found.modules)
    links = sum(link.energy.value for link in found.links)
    assert modules + links == pytest.approx(found.energy.value)
    assert [module.path for module in found.modules] == ["a/b", "a/c", "d"]


def test_what_has_no_price_is_said():
    counts = replace(example(), unpriced=(cost.Unpriced("fft", "a", 100, 1),))
    notes = cost.estimate(counts, profile()).notes
    assert any("1 operations have no price" in note and "fft" in note for note in notes)


# Wide numbers


def test_wide_numbers_take_a_lane_twice():
    assert latency.op_time(op("mac", 40, bits=64), Counts(), profile()).compute == 50 / 12.5
    assert latency.op_time(op("add", 40, bits=64), Counts(), profile()).compute == 1.6
    assert latency.op_time(op("add", 40, bits=16), Counts(), profile()).compute == 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": 3}, "schedule=3 must be a Schedule or None"),
        ({"cut": 3}, "cut=3 must be a Cut or None"),
        ({"profile": None}, "profile=None must be a Profile, a file, or one of"),
        ({"profile": 3}, "profile=3 must be a Profile, a file, or one of"),
    ],
)
def test_arguments_of_a_wrong_type(arguments, message):
    with pytest.raises(ValueError, match=message):
        cost.estimate(Counts(), **{"profile": profile(), **arguments})
