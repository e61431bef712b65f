"""Idle ticks of a pipeline: priced by themselves, in no total, and in the right times."""

import math

import pytest
from cost_inputs import LINE4, op, profile, send

from snapjax import cost
from snapjax.cost import Counts, Schedule

# 4 stages, 2 microbatches: 5 ticks. A device's mean of work in all ticks, of which a microbatch
# needs 3 hops x 2 of 4 x 5; and of a link's 5 messages 2.
TICKS = Schedule(4, 2, busy={"s[[]5]/ends*": 6 / 20, "s[[]5]/send": 2 / 5})


def ticking():
    ops = (op("mac", 90, path="s[5]/stage"), op("add", 50, path="s[5]/ends/encode"))
    return Counts(4, {"stage": 4}, ops=ops, transfers=(send(400, LINE4, 5, path="s[5]/send"),))


def test_idle_ticks_are_in_no_total_and_stand_by_themselves():
    found = cost.estimate(ticking(), profile(), schedule=TICKS)
    whole = cost.estimate(ticking(), profile())
    assert found.energy_parts["compute"].value == 4 * (90 * 5 + 50 * 6 / 20)
    assert found.energy_parts["links"].value == 2 * 3 * 400 * 16  # 2 microbatches over 3 hops
    (link,) = found.links
    assert (link.bytes, link.crossed, link.transfer.executions) == (2400, 2400, 2)
    for part, amount in found.idle_parts.items():
        for end in ("low", "value", "high"):
            together = getattr(amount, end) + getattr(found.energy_parts[part], end)
            assert together == pytest.approx(getattr(whole.energy_parts[part], end))
    assert found.idle_energy.value == pytest.approx(4 * 50 * 14 / 20 + 3 * 3 * 400 * 16)
    assert (whole.idle_energy.value, found.macs, whole.macs) == (0, 360, 360)
    assert any("stands by itself, as idle ticks" in note for note in found.notes)
    assert "idle ticks of the pipeline, in no total" in found.table()
    assert found.to_dict()["idle_ticks_pj"]["links"]["value"] == 3 * 3 * 400 * 16


def test_the_last_microbatch_waits_for_all_messages_but_the_last_ones():
    found = cost.estimate(ticking(), profile(), schedule=TICKS)
    # A message takes 3 + (400 + 100) / 500 = 4 s; 5 ticks have 4 gaps.
    assert found.times.links == pytest.approx(4 * 4)
    # (90 + 10) / 50 + 2 s of stages; 0.3 x (50 / 50 + 2) s of ends; 5 ticks for 2 microbatches.
    assert found.times.total == pytest.approx((4 + 0.3 * 3) * 5 / 2 + 16)


@pytest.mark.parametrize(("stages", "microbatches"), [(2, 1), (3, 1), (16, 1), (4, 28)])
def test_one_microbatch_crosses_each_hop_once(stages, microbatches):
    """By hand: a byte of each microbatch crosses each of S - 1 links, whatever the ticks."""
    ticks = stages + microbatches - 1
    chain = tuple((i, i + 1) for i in range(stages - 1))
    moved = send(400, chain, ticks, path="t")
    counts = Counts(stages, {"stage": stages}, transfers=(moved,))
    schedule = Schedule(stages, microbatches, busy={"t": microbatches / ticks})
    found = cost.estimate(counts, profile(), schedule=schedule)
    assert found.links[0].bytes == pytest.approx(400 * microbatches * (stages - 1))
    # On its way a microbatch takes S - 1 hops, and the others follow it a hop behind each.
    assert found.times.links == pytest.approx(4 * (stages - 1 + microbatches - 1))


def test_a_pipeline_whose_idle_ticks_were_counted_as_work():
    ops = (op("mac", 90), op("add", 50))
    work = Counts(4, {"stage": 4}, ops=ops, transfers=(send(400, LINE4),))
    found = cost.estimate(work, profile(), schedule=Schedule(4, 4, idle_counted=True))
    assert found.energy_parts["compute"].value == pytest.approx(4 * (90 * 5 + 50) * 4 / 7)
    assert found.idle_parts["compute"].value == pytest.approx(4 * (90 * 5 + 50) * 3 / 7)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_shares_that_make_no_sense(share):
    with pytest.raises(ValueError, match=r"busy\['a'\]=.* must be a share in \[0, 1\]"):
        Schedule(2, 2, busy={"a": share})
