"""The compiled HLO against the walk: equal, or different for a reason that `compare` names."""

import jax
import pytest
from cost_programs import ONE_DEVICE, Program, walk
from cost_sharded import SHARDED

from snapjax import cost
from snapjax.cost.hlo import counts as hlo


@pytest.mark.parametrize("program", [*ONE_DEVICE, *SHARDED], ids=lambda program: program.name)
def test_hlo_equals_the_walk_or_the_difference_is_explained(program: Program):
    compiled = jax.jit(program.function).lower(*program.args).compile()
    differences = cost.compare(walk(program), hlo.counts(compiled, program.mesh))
    assert len(differences) >= len(program.hlo) > 0 or differences == ()
    for difference, reason in zip(differences, program.hlo, strict=True):
        assert reason in difference.reason
