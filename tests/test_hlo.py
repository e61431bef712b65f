"""What the compiled program sends: the packed buffer forward, r gradient values a token back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import FEATURES, TOKENS, collectives, step_function, toy_batch, toy_params, toy_pipeline

from snapjax.boundary import Boundary
from snapjax.parallel.sharding import make_mesh, place, put_placed
from zoo.models.registry import create_model

CHAIN = tuple((i, i + 1) for i in range(3))
BACK = tuple((b, a) for a, b in CHAIN)
DTYPE_BYTES = {"u8": 1, "u16": 2, "f32": 4}


def stage_of(pipeline) -> dict[int, int]:
    """Rank of each device, by its position in the mesh, which is what HLO's ids count."""
    stages = np.broadcast_to(np.arange(pipeline.ranks), pipeline.mesh.devices.shape[:2])
    return dict(enumerate(stages.reshape(-1).tolist()))


def crossing(pipeline, compiled) -> list:
    """The non-scalar collectives between stages, and a check that permutes never wrap around."""
    of = stage_of(pipeline)
    found = [c for c in collectives(compiled.as_text(), len(of)) if c.crosses(of)]
    for collective in found:
        for source, target in collective.pairs:
            assert abs(of[source] - of[target]) == 1, "a pair skips a stage or wraps around"
    return [c for c in found if not c.scalar]


def size(collective) -> int:
    ((dtype, shape),) = collective.arrays
    return DTYPE_BYTES[dtype] * int(np.prod(shape))


def directed(pipeline, collective) -> int:
    of = stage_of(pipeline)
    (step,) = {of[target] - of[source] for source, target in collective.pairs}
    assert len(collective.pairs) == len(of) // pipeline.ranks * (pipeline.ranks - 1)
    return step


def forward(pipeline, params, batch):
    placed = put_placed(pipeline.mesh, place(params, pipeline.ranks, pipeline.stages))
    return jax.jit(pipeline).lower(placed, batch).compile()


@pytest.mark.parametrize("data", [1, 2])
@pytest.mark.parametrize(
    "boundary",
    [
        Boundary(FEATURES, "phase", steps=3, budget=13),
        Boundary(FEATURES, "ternary", steps=2),
        Boundary(FEATURES, "float32"),
        Boundary(FEATURES, "bfloat16"),
        Boundary(FEATURES, "int8"),
        Boundary(FEATURES, "int2"),
        Boundary(FEATURES, "topk", budget=48),
    ],
    ids=lambda boundary: boundary.code,
)
def test_forward_sends_one_uint8_buffer_of_the_predicted_size(boundary, data):
    pipeline = toy_pipeline(boundary, data, 4, microbatches=3)
    batch = toy_batch(12)
    (sent,) = crossing(pipeline, forward(pipeline, toy_params(boundary, 4), batch))
    assert sent.kind == "collective-permute"
    assert sent.arrays[0][0] == "u8"
    assert size(sent) == boundary.message_bytes(12 // 3 // data * TOKENS)
    assert directed(pipeline, sent) == 1


@pytest.mark.parametrize(
    ("gradient_wire", "dtype", "ranks", "remat"),
    [
        ("float32", "f32", 4, False),
        ("bfloat16", "u16", 4, True),
        ("int8", "u8", 4, False),
        ("int4", "u8", 4, True),
        ("float32", "f32", 2, True),
        ("int8", "u8", 2, False),
    ],
)
def test_backward_sends_r_values_a_token_in_the_gradient_format(gradient_wire, dtype, ranks, remat):
    boundary = Boundary(
        FEATURES, "phase", steps=4, budget=FEATURES, kept_features=7, gradient_wire=gradient_wire
    )
    pipeline = toy_pipeline(boundary, 2, 4, microbatches=3, remat=remat, ranks=ranks)
    step, trainable = step_function(pipeline, toy_params(boundary, 4))
    compiled = step.lower(trainable, toy_batch(12), jax.random.key(0)).compile()
    found = crossing(pipeline, compiled)
    tokens = 12 // 3 // 2 * TOKENS
    ahead = [c for c in found if directed(pipeline, c) == 1]
    back = [c for c in found if directed(pipeline, c) == -1]
    assert len(back) == 1
    assert back[0].arrays[0][0] == dtype
    assert size(back[0]) == boundary.gradient_message_bytes(tokens)
    if gradient_wire in ("float32", "bfloat16"):
        assert np.prod(back[0].arrays[0][1]) == tokens * 7
    # Recomputing a tick must not send again: the scan's residuals hold what arrived.
    assert len(ahead) == 1
    assert (ahead[0].arrays[0][0], size(ahead[0])) == ("u8", boundary.message_bytes(tokens))
    # Gradients are summed over "data" once, and not in every tick.
    of = stage_of(pipeline)
    sums = [
        c
        for c in collectives(compiled.as_text(), len(of))
        if c.kind == "all-reduce" and not c.scalar and not c.crosses(of)
    ]
    assert sums
    assert all(c.in_entry for c in sums)


def test_a_single_rank_sends_nothing_but_sums_over_data():
    boundary = Boundary(FEATURES, "phase", steps=2, gradient_wire="int8")
    pipeline = toy_pipeline(boundary, 2, 4, microbatches=3, ranks=1)
    step, trainable = step_function(pipeline, toy_params(boundary, 4))
    compiled = step.lower(trainable, toy_batch(12), jax.random.key(0)).compile()
    found = collectives(compiled.as_text(), 2)
    assert {c.kind for c in found} == {"all-reduce"}
    assert all(c.in_entry for c in found)


def test_events_send_a_uint8_buffer_in_either_branch_and_one_scalar():
    boundary = Boundary(FEATURES, "phase", steps=4, wire="events", event_capacity=2)
    pipeline = toy_pipeline(boundary, 1, 4, microbatches=3)
    found = crossing(pipeline, forward(pipeline, toy_params(boundary, 4), toy_batch(12)))
    tokens = 4 * TOKENS
    assert {c.arrays[0][0] for c in found} == {"u8"}
    assert sorted(map(size, found)) == sorted(
        [boundary.message_bytes(tokens), boundary.message_bytes(tokens, wire="planes")]
    )


@pytest.mark.parametrize("remat", [False, True])
def test_the_vit_of_the_demo(remat):
    model = create_model("vit_nano_patch2_8", variant="hnn", stages=4)
    pipeline = model.pipeline(make_mesh(2, 4), microbatches=2, remat=remat)
    params = jax.eval_shape(lambda: place(model.init(jax.random.key(0)), 4))
    shape = lambda *dims, dtype=jnp.float32: jax.ShapeDtypeStruct(dims, dtype)
    batch = {
        "image": shape(8, 8, 8, 1),
        "label": shape(8, dtype=jnp.int32),
        "weight": shape(8),
    }
    (sent,) = crossing(pipeline, jax.jit(pipeline).lower(params, batch).compile())
    tokens = 8 // 2 // 2 * 16
    assert sent.arrays[0][0] == "u8"
    assert size(sent) == tokens * 64 // 8
    assert size(sent) * 32 == tokens * 64 * 4  # 32x fewer bytes than float32


def test_the_collective_reader_reads_what_xla_prints():
    text = """
    %body (p: u8[4,2]) -> u8[4,2] {
      %a = u8[4,2]{1,0} collective-permute(%x), channel_id=1, source_target_pairs={{0,1},{1,2}}
    }
    ENTRY %main (y: f32[]) -> f32[] {
      %b = f32[] all-reduce(%y), channel_id=2, replica_groups={{0,1},{2,3}}, to_apply=%add
      %c = (f32[3]{0}, f32[]) all-reduce(%p, %q), replica_groups=[2,2]<=[2,2]T(1,0)
      %e = s8[] all-reduce(), replica_groups=mesh['a'=2,'b'=1,'c'=2], device_ids=([2,2]T(1,0)) {'a'}
      %d = f32[8]{0} all-gather(%z), replica_groups={}, dimensions={0}
    """.replace("\n    ", "\n")
    a, b, c, e, d = collectives(text, 4)
    # Devices (0, 2), (1, 3) along 'c'; a group runs over 'a'.
    assert e.groups == ((0, 1), (2, 3))
    assert (a.kind, a.arrays, a.pairs) == (
        "collective-permute",
        (("u8", (4, 2)),),
        ((0, 1), (1, 2)),
    )
    assert [x.in_entry for x in (a, b, c, d)] == [False, True, True, True]
    assert b.scalar
    assert b.groups == ((0, 1), (2, 3))
    assert c.groups == ((0, 2), (1, 3))
    assert not c.scalar
    assert d.groups == ((0, 1, 2, 3),)
    stages = {0: 0, 1: 1, 2: 0, 3: 1}
    assert [x.crosses(stages) for x in (a, b, c, d)] == [True, True, False, True]
