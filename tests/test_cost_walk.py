"""The walk over a jaxpr against counts by hand, and its errors."""

import pytest
from cost_programs import ONE_DEVICE, Program, walk
from cost_sharded import SHARDED

UNCOUNTED = ("mac", "move")


@pytest.mark.parametrize("program", ONE_DEVICE, ids=lambda program: program.name)
def test_walk_equals_the_hand_count(program: Program):
    counts = walk(program)
    assert counts.macs == program.macs
    kinds = {kind: n for kind, n in counts.by_kind().items() if kind not in UNCOUNTED}
    if program.kinds is not None:
        assert kinds == dict(program.kinds)
    if program.moves is not None:
        assert counts.total("move") == program.moves
    assert tuple(entry.primitive for entry in counts.unpriced) == program.unpriced
    assert counts.transfers == ()


@pytest.mark.parametrize("program", SHARDED, ids=lambda program: program.name)
def test_walk_of_a_sharded_program_equals_the_hand_count(program: Program):
    counts = walk(program)
    assert counts.macs == program.macs
    assert {axis: n for axis, n in counts.by_axis().items() if n} == dict(program.bytes)
    assert dict(counts.mesh) == dict(program.mesh)
    assert counts.devices == 8
    assert counts.unpriced == ()
