"""Bytes read and written, asynchronous and ragged collectives, sums of counts, and HLO's text."""

import jax
import jax.numpy as jnp
import pytest
from cost_bodies import CHAIN, CUBE, GRID, RING, ROW, mesh_of, on_mesh
from cost_inputs import profile
from cost_programs import shape
from jax import lax
from jax.extend.core import Primitive
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from snapjax import cost
from snapjax.cost.hlo import counts as hlo
from snapjax.cost.hlo import text as hlo_text
from snapjax.cost.hlo.text import Array


@pytest.mark.parametrize(
    ("name", "function", "args", "read", "written"),
    [
        # (4, 8) and (8, 2) float32 in, (4, 2) out.
        ("dot_general", lambda x, w: x @ w, (shape(4, 8), shape(8, 2)), 4 * (32 + 16), 4 * 8),
        # bfloat16 has 2 bytes.
        ("exp", jnp.exp, (shape(4, 8, dtype=jnp.bfloat16),), 64, 64),
        # int4: two an element of a byte; the sum of 7 + 7 is 4 bytes.
        ("add", lambda x: x + x, (shape(7, dtype=jnp.int4),), 4 + 4, 4),
        # Compared floats become bits: 9 of them are 2 bytes.
        ("lt", lambda x, y: x < y, (shape(9), shape(9)), 72, 2),
        # Of a table of 1000 rows only 4 rows are read, and their 4 indices.
        (
            "gather",
            lambda t, i: lax.gather(
                t,
                i,
                lax.GatherDimensionNumbers((1,), (0,), (0,)),
                (1, 8),
                mode="clip",
            ),
            (shape(1000, 8), shape(4, 1, dtype=jnp.int32)),
            4 * 8 * 4 + 4 * 4,
            4 * 8 * 4,
        ),
        # A row is written into place; the index is two int32.
        (
            "dynamic_update_slice",
            lambda t, row, i: lax.dynamic_update_slice(t, row, (i, i)),
            (shape(1000, 8), shape(1, 8), shape(dtype=jnp.int32)),
            8 * 4 + 2 * 4,
            8 * 4,
        ),
        # Four rows are read, added to and written.
        (
            "scatter-add",
            lambda t, i, rows: lax.scatter_add(
                t, i, rows, lax.ScatterDimensionNumbers((1,), (0,), (0,)), mode="clip"
            ),
            (shape(1000, 8), shape(4, 1, dtype=jnp.int32), shape(4, 8)),
            4 * 4 + 2 * (4 * 8 * 4),
            4 * 8 * 4,
        ),
    ],
    ids=["matmul", "bfloat16", "int4", "bool", "gather", "update", "scatter-add"],
)
def test_bytes_read_and_written(name, function, args, read, written):
    (op,) = [op for op in cost.trace(function, *args).ops if op.primitive == name]
    assert (op.bytes_read, op.bytes_written) == (read, written)


def primitive(name, out):
    made = Primitive(name)
    made.def_abstract_eval(out)
    return made


def test_an_asynchronous_collective_counts_once():
    """jax has them under names that end in _start and _done, and in no public module."""
    same = lambda aval, **_: aval
    start, done = primitive("ppermute_start", same), primitive("ppermute_done", same)
    step = lambda x: done.bind(start.bind(x, axis_name=("x",), perm=tuple(CHAIN)))
    counts = cost.trace(on_mesh(ROW, step, P("x"), P("x"), False), shape(64, 8), strict=True)
    (transfer,) = counts.transfers
    assert (transfer.collective, transfer.executions, transfer.sent_bytes) == ("ppermute", 1, 256)
    assert transfer.pairs == tuple(CHAIN)


def test_a_ragged_all_to_all_counts_its_whole_operand():
    def step(x, out, offsets):
        return lax.ragged_all_to_all(x, out, offsets, offsets, offsets, offsets, axis_name="x")

    args = (shape(64, 8), shape(64, 8), shape(64, dtype=jnp.int32))
    counts = cost.trace(on_mesh(ROW, step, (P("x"),) * 3, P("x"), False), *args, strict=True)
    assert counts.by_axis() == {"x": 7 / 8 * 256}
    assert any("ragged_all_to_all counts its whole operand" in note for note in counts.notes)


def test_all_devices_together():
    """On 2 x 4, a hop along model and a sum over data, of 256 bytes on each device."""

    def step(x):
        return lax.psum(lax.ppermute(x, "model", [(0, 1), (1, 2)]), "data")

    counts = cost.trace(on_mesh(GRID, step, P(("data", "model")), P("model")), shape(64, 8))
    assert counts.by_axis() == {"data": 256, "model": 256}
    # Two of four devices of a row send, in two rows; all eight send 2 x 1/2 x 256 over data.
    assert counts.global_by_axis() == {"data": 8 * 256, "model": 2 * 2 * 256}
    twice = counts + counts
    assert twice.global_by_axis() == {"data": 16 * 256, "model": 8 * 256}
    only = counts.select(lambda entry: getattr(entry, "collective", "") == "psum")
    assert (only.by_axis()["data"], only.by_axis()["model"], only.ops) == (256, 0, ())


TEXT = """
HloModule jit_f, num_partitions=8

%body (p: (s32[], f32[4,2])) -> (s32[], f32[4,2]) {
  %p = (s32[], f32[4,2]{1,0}) parameter(0)
  %x = f32[4,2]{1,0} get-tuple-element(%p), index=1
  %a = f32[4,2]{1,0} collective-permute(%x), channel_id=1, source_target_pairs={{0,2},{1,3},{4,4}}
  %w = f32[2,2]{1,0} constant({...})
  %d = f32[4,2]{1,0} dot(%a, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %t = (s32[], f32[4,2]{1,0}) tuple(%x, %d)
}

%test (p: (s32[], f32[4,2])) -> pred[] {
  %p = (s32[], f32[4,2]{1,0}) parameter(0)
  ROOT %c = pred[] constant(true)
}

ENTRY %main (y: f32[4,2]) -> f32[] {
  %y = f32[4,2]{1,0} parameter(0)
  %i = s32[] constant(0)
  %t = (s32[], f32[4,2]{1,0}) tuple(%i, %y)
  %loop = (s32[], f32[4,2]{1,0}) while(%t), condition=%test, body=%body, TRIPS
  %z = f32[4,2]{1,0} get-tuple-element(%loop), index=1
  %b = f32[4,2]{1,0} all-reduce(%z), channel_id=2, replica_groups=[4,2]<=[4,2], to_apply=%add
  %s = (f32[4,2]{1,0}, f32[16,2]{1,0}) all-gather-start(%b), replica_groups=[2,4]<=[2,2,2]T(1,0,2)
  %g = f32[16,2]{1,0} all-gather-done(%s)
  ROOT %r = f32[] constant(0)
}
"""
KNOWN = 'backend_config={"known_trip_count":{"n":"5"}}'


def test_hlo_of_a_loop_and_of_groups_in_every_notation():
    counts = hlo.counts(TEXT.replace("TRIPS", KNOWN), CUBE)
    assert counts.macs == 5 * 4 * 2 * 2
    # 32 bytes: devices 0 and 2 differ in b; over c pairs of neighbours, 2 x 1/2 x 32; and over
    # (a, c) four devices gather: 32 over c, then 64 over a. A pair with itself is nothing.
    assert counts.by_axis() == {"a": 64, "b": 5 * 32, "c": 32 + 32}
    assert [t.collective for t in counts.transfers] == ["ppermute", "psum", "all_gather"]
    assert counts.unpriced == ()


def test_hlo_of_a_loop_of_unknown_length():
    counts = hlo.counts(TEXT.replace("TRIPS", "metadata={}"), CUBE)
    assert counts.macs == 4 * 2 * 2
    assert [entry.primitive for entry in counts.unpriced] == ["while"]


def test_groups_of_named_axes():
    text = "replica_groups=mesh['a'=2,'b'=1,'c'=2], device_ids=([2,2]T(1,0)) {'a'}"
    assert hlo_text.replica_groups(text, 4) == ((0, 1), (2, 3))
    assert hlo_text.replica_groups("replica_groups={}", 3) == ((0, 1, 2),)
    assert hlo_text.replica_groups("replica_groups={{0,2},{1,3}}", 4) == ((0, 2), (1, 3))


def test_hlo_arrays():
    assert Array("pred", (9,)).bytes == 9
    assert Array("s4", (9,)).bytes == 5
    assert Array("bf16", (2, 3)).bytes == 12
    assert Array("f8e4m3fn", (5,)).bytes == 5


def test_hlo_of_another_mesh_is_an_error():
    with pytest.raises(ValueError, match=r"a collective of device \d, but mesh=\{'x': 2\} has 2"):
        hlo.counts(TEXT.replace("TRIPS", KNOWN), {"x": 2})
    with pytest.raises(ValueError, match="no ENTRY computation"):
        hlo.counts("HloModule nothing")


def test_an_auto_sharded_program_by_its_hlo():
    """The psum that XLA adds to a matrix product whose contracted axis is divided."""
    mesh = mesh_of(GRID)
    put = lambda *spec: NamedSharding(mesh, P(*spec))
    function = jax.jit(
        lambda x, w: x @ w, in_shardings=(put(None, "model"), put("model")), out_shardings=put()
    )
    args = (shape(16, 64), shape(64, 16))
    counts = hlo.counts(function.lower(*args).compile(), mesh)
    # (16, 16) x 64 / 4 products; 1024 bytes over 4 devices: 2 x 3/4 x 1024.
    assert counts.macs == 16 * 16 * 16
    assert counts.by_axis() == {"data": 0, "model": 1536}
    (difference,) = cost.compare(cost.trace(function, *args), counts)
    assert str(difference).startswith("psum over model: jaxpr 0, HLO 1,536; inserted by XLA (auto")


def test_dense_and_ring_agree_on_one_ring():
    """A ppermute round the ring 7 times sends what an all_gather does."""

    def around(x):
        return lax.scan(lambda y, _: (lax.ppermute(y, "x", RING), y), x, None, length=7)[1]

    ring = cost.trace(on_mesh(ROW, around, P("x"), P(None, "x")), shape(64, 8))
    gather = on_mesh(ROW, lambda x: lax.all_gather(x, "x"), P("x"), P("x"))
    assert ring.by_axis() == cost.trace(gather, shape(64, 8)).by_axis()


@pytest.mark.parametrize(
    ("pairs", "per_axis", "all_bytes", "crossed"),
    [
        # Devices of 2 x 4 by their flat index, row after row; a row of x is 4 apart.
        (((0, 5),), {"x": 1, "y": 1}, 1, 1 + 1),  # to the next row, and one place on
        (((0, 1), (4, 7)), {"x": 0, "y": 2}, 2, 1 + 3),  # one place and three, on a line
        (((0, 4), (1, 5), (2, 2)), {"x": 2, "y": 0}, 2, 2),
    ],
)
def test_a_permutation_over_two_axes_crosses_those_where_its_ends_differ(
    pairs, per_axis, all_bytes, crossed
):
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    send = lambda x: lax.ppermute(x, ("x", "y"), pairs)
    spec = jax.sharding.PartitionSpec(("x", "y"))
    counts = cost.trace(jax.shard_map(send, mesh=mesh, in_specs=spec, out_specs=spec), shape(8, 4))
    each = 4 * 4  # four float32 a device
    assert counts.global_by_axis() == {axis: each * n for axis, n in per_axis.items()}
    assert counts.by_axis() == {axis: each * bool(n) for axis, n in per_axis.items()}
    (link,) = cost.estimate(counts, profile("line")).links
    assert link.bytes == each * all_bytes
    assert link.energy.value == 8 * each * crossed * profile()["link_bit"]


@pytest.mark.parametrize(
    ("produced", "consumed"),
    [
        # Of 16 rows a device has 2 before and after: others, where the order of the axes changes.
        (P(("x", "y")), P(("y", "x"))),
        # 4 rows before, and 2 after, which a device already has if the new axis is the inner one.
        (P("y"), P(("x", "y"))),
        (P("y"), P(("y", "x"))),
    ],
)
def test_shards_that_change_places_between_two_shard_maps(produced, consumed):
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    part = lambda f, spec: jax.shard_map(f, mesh=mesh, in_specs=spec, out_specs=spec)
    both = jax.jit(
        lambda x: part(lambda y: y + 1, consumed)(part(lambda y: y * 2, produced)(x)),
        out_shardings=NamedSharding(mesh, consumed),
    )
    counts = cost.trace(both, shape(16, 4))
    inner = consumed == P(("y", "x"))
    each = 2 * 4 * 4 if not (inner and produced == P("y")) else 0  # bytes of two rows
    assert counts.by_axis() == {"x": each, "y": each}
    compiled = hlo.counts(both.lower(shape(16, 4)).compile(), mesh)
    assert compiled.by_axis() == counts.by_axis()
    assert compiled.global_by_axis() == counts.global_by_axis()
    assert any("resharding" in note for note in counts.notes) == bool(each)
