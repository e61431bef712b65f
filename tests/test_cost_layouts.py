"""Work that XLA divides over the mesh: against the shapes in the program that it compiled."""

import jax
import jax.numpy as jnp
import pytest
from cost_bodies import CUBE, GRID, ROW, mesh_of
from cost_programs import shape
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from snapjax import cost
from snapjax.cost.hlo import counts as hlo

LINE, PLANE = mesh_of(ROW), mesh_of(GRID)


def on(mesh, *spec):
    return NamedSharding(mesh, P(*spec))


def line(*spec):
    return on(LINE, *spec)


def plane(*spec):
    return on(PLANE, *spec)


def mlp(params, x):
    for w in params:
        x = jnp.tanh(x @ w)
    return x


def linear(params, x):
    return x @ params[0] @ params[1]


def relu_mlp(params, x):
    for w in params:
        x = jax.nn.relu(x @ w)
    return x


def attention(params, x):
    batch, tokens, width = x.shape
    heads = lambda w: (x @ w).reshape(batch, tokens, 4, width // 4).swapaxes(1, 2)
    q, k, v = map(heads, params)
    found = jax.nn.softmax(q @ k.swapaxes(2, 3)) @ v
    return found.swapaxes(1, 2).reshape(batch, tokens, width)


def embedded(table, w, ids):
    return table[ids] @ w


def normed(params, x):
    h = jax.nn.gelu(x @ params[0]) @ params[1]
    return (h - h.mean(1, keepdims=True)) / jnp.sqrt(h.var(1, keepdims=True) + 1)


def stacked(ws, x):
    return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, ws)[0]


def rematerialised(ws, x):
    layer = jax.checkpoint(lambda x, w: jnp.tanh(x @ w))
    return lax.scan(lambda x, w: (layer(x, w), None), x, ws)[0]


def recurrent(w, rows):
    step = lambda state, row: (jnp.tanh(row + state @ w), state)
    return lax.scan(step, jnp.zeros((64, 32)), rows)[0]


def conv(kernel, x):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME")


def cross_entropy(w, x, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(x @ w), labels[:, None], 1).mean()


def squared(function):
    """The gradient of a function's squared result, of its first argument."""
    return jax.grad(lambda first, *rest: (function(first, *rest) ** 2).mean())


def summed(function):
    """Of the sum of it, whose cotangent is a constant."""
    return jax.grad(lambda first, *rest: function(first, *rest).sum())


x = shape(64, 32)
two, three = (shape(32, 128), shape(128, 32)), (shape(32, 32),) * 3
tokens = shape(16, 8, 32)
labels, ids = shape(64, dtype=jnp.int32), shape(16, 8, dtype=jnp.int32)
w32 = shape(32, 32)
images, taps = shape(16, 3, 8, 8), shape(4, 3, 3, 3)
columns_rows = (line(None, "x"), line("x", None))

# name -> (function, shardings of its arguments, its arguments)
DIVIDED = {
    "two layers": (mlp, (None, line("x")), (two, x)),
    "gradient of an MLP": (squared(mlp), (None, line("x")), (two, x)),
    "with a constant cotangent": (
        summed(lambda p, x: x @ p[0] @ p[1]),
        (None, line("x")),
        (two, x),
    ),
    "through relu": (summed(relu_mlp), (None, line("x")), (two, x)),
    "through a norm": (squared(normed), (None, line("x")), (two, x)),
    "tensor parallel": (mlp, (columns_rows, None), (two, x)),
    "its gradient": (squared(mlp), (columns_rows, None), (two, x)),
    "of both": (
        squared(mlp),
        ((plane(None, "model"), plane("model", None)), plane("data")),
        (two, x),
    ),
    "fully sharded": (squared(mlp), ((line("x"), line("x")), line("x")), (two, x)),
    "attention": (attention, (None, line("x")), (three, tokens)),
    "its gradient, batch": (squared(attention), (None, line("x")), (three, tokens)),
    "its gradient, heads": (
        squared(attention),
        (plane(None, "model"), plane("data")),
        (three, tokens),
    ),
    "embedding": (embedded, (None, None, line("x")), (shape(128, 32), w32, ids)),
    "its gradient, both": (
        squared(embedded),
        (None, None, line("x")),
        (shape(128, 32), w32, ids),
    ),
    "rows of the table": (
        embedded,
        (line("x"), None, None),
        (shape(128, 32), w32, ids),
    ),
    "scanned layers": (stacked, (None, line("x")), (shape(3, 32, 32), x)),
    "scanned, gradient": (squared(stacked), (None, line("x")), (shape(3, 32, 32), x)),
    "rematerialised": (squared(rematerialised), (None, line("x")), (shape(3, 32, 32), x)),
    "a state of zeros": (recurrent, (None, line(None, "x")), (w32, shape(5, 64, 32))),
    "convolution": (conv, (None, line("x")), (taps, images)),
    "its gradient, images": (squared(conv), (None, line("x")), (taps, images)),
    "cross entropy": (
        jax.grad(cross_entropy),
        (None, line("x"), line("x")),
        (shape(32, 10), x, labels),
    ),
    "merged dimensions": (
        lambda w, x: (x.reshape(128, 32) @ w).reshape(16, 8, 32) @ w,
        (None, line("x")),
        (w32, tokens),
    ),
    "half of the rows": (lambda w, x: x[:32] @ w, (None, line("x")), (w32, x)),
    "padded": (
        lambda w, x: jnp.pad(x, ((0, 8), (0, 0))) @ w,
        (None, line("x")),
        (w32, x),
    ),
    "running sum": (
        lambda w, x: jnp.cumsum(x, 0) @ w,
        (None, line("x")),
        (w32, x),
    ),
    "parts": (
        lambda w, x: sum(part @ w[:16] for part in jnp.split(x, 2, 1)),
        (None, line("x")),
        (w32, x),
    ),
    "experts": (
        lambda w, x: jnp.einsum("ebd,edf->ebf", x, w),
        (line("x"), line("x")),
        (shape(8, 32, 32), shape(8, 16, 32)),
    ),
    "one axis twice": (lambda w, x: x @ w, (line(None, "x"), line("x")), (w32, x)),
    "a branch": (
        lambda w, x: lax.cond(x.sum() > 0, lambda: x @ w, lambda: x),
        (None, line("x")),
        (w32, x),
    ),
    "constrained": (
        lambda w, x: lax.with_sharding_constraint(x @ w, line("x")) @ w,
        None,
        (w32, x),
    ),
    "constrained to be whole": (
        lambda w, x: lax.with_sharding_constraint(x @ w, line()) @ w,
        (None, line("x")),
        (w32, x),
    ),
    "constrained to its columns": (
        lambda w, x: lax.with_sharding_constraint(x @ w, line(None, "x")) @ w,
        (None, line("x")),
        (w32, x),
    ),
    "constrained in part": (
        lambda w, x: lax.with_sharding_constraint(x @ w, line(P.UNCONSTRAINED, None)) @ w,
        (None, line("x")),
        (w32, x),
    ),
    "a call that says how its result lies": (
        lambda w, x: jax.jit(jnp.matmul, out_shardings=line("x"))(x, w) @ w,
        None,
        (w32, x),
    ),
    "stacked arrays": (lambda w, x: jnp.stack([x, x], 1) @ w, (None, line("x")), (w32, x)),
    "two axes on one dimension": (
        lambda w, x: x @ w,
        (None, plane(("data", "model"))),
        (w32, x),
    ),
    "mapped": (
        jax.vmap(lambda w, x: x @ w, (None, 0)),
        (None, line("x")),
        (w32, tokens),
    ),
}


@pytest.mark.parametrize("name", DIVIDED)
def test_a_devices_work_is_what_xla_gives_it(name):
    function, shardings, args = DIVIDED[name]
    options = {} if shardings is None else {"in_shardings": shardings}
    jitted = jax.jit(function, **options)
    mesh = PLANE if "data" in repr(shardings) else LINE
    counts = cost.trace(jitted, *args)
    assert counts.devices == 8
    assert counts.macs == hlo.counts(jitted.lower(*args).compile(), mesh).macs
    assert counts.transfers == ()  # they are XLA's own
    assert any("XLA" in note for note in counts.notes)


MOVED = {
    "a replicated matrix": (lambda w, x: x @ w, (None, line("x")), (w32, x)),
    "columns of it": (lambda w, x: x @ w, (line(None, "x"), None), (w32, x)),
    "what is summed": (lambda w, x: x @ w, (line("x"), line(None, "x")), (w32, x)),
    "gathered": (lambda w, x: x @ w, (line("x"), line("x")), (w32, x)),
    "two layers": (mlp, (None, line("x")), (two, x)),
    "tensor parallel": (mlp, (columns_rows, None), (two, x)),
    "a replicated operand": (lambda w, x: x * w + 1, (None, line("x")), (x, x)),
    "a table": (lambda w, ids: w[ids], (None, line("x")), (shape(1000, 16), ids)),
}


@pytest.mark.parametrize("name", MOVED)
def test_a_devices_memory_traffic_is_what_xla_gives_it(name):
    """Every device reads a replicated matrix whole, and of what is cut its own part."""
    function, shardings, args = MOVED[name]
    jitted = jax.jit(function, in_shardings=shardings)
    compiled = hlo.counts(jitted.lower(*args).compile(), LINE)
    assert cost.trace(jitted, *args).stored_bytes == compiled.stored_bytes


def test_six_layers_by_hand():
    """Rows of 8 a device: 17 products of (8, 64) @ (64, 64) or alike, 6 forward, 11 backward."""
    step = jax.jit(squared(mlp), in_shardings=(None, line("x", None)))
    counts = cost.trace(step, (shape(64, 64),) * 6, shape(64, 64))
    assert counts.macs == 17 * 8 * 64 * 64 == 557_056


def test_results_are_divided_as_they_are_wanted():
    step = jax.jit(lambda x, w: x @ w, out_shardings=line("x"))
    assert cost.trace(step, x, shape(32, 16)).macs == 64 * 32 * 16 / 8


PARTIAL = {
    "sum over the manual axis": (
        lambda x, w: lax.psum(x @ w, "model"),
        (P(None, "model"), P("model")),
    ),
    "gather over the manual axis": (
        lambda x, w: x @ lax.all_gather(w, "model", tiled=True),
        (P(), P("model")),
    ),
    "nothing sent": (lambda x, w: jax.nn.relu(x @ w) @ w.T, (P(), P(None, "model"))),
}


@pytest.mark.parametrize("name", PARTIAL)
def test_axes_that_a_shard_map_leaves_to_xla(name):
    """Rows over data, which is XLA's; columns over model, which is the program's."""
    body, ins = PARTIAL[name]
    run = jax.shard_map(
        body, mesh=PLANE, in_specs=ins, out_specs=P(), axis_names={"model"}, check_vma=False
    )
    step = jax.jit(run, in_shardings=(plane("data"), None))
    args = shape(8, 32), shape(32, 8)
    counts = cost.trace(step, *args)
    compiled = hlo.counts(step.lower(*args).compile(), PLANE)
    assert counts.macs == compiled.macs
    assert counts.by_axis() == compiled.by_axis()
    assert any("leaves data to XLA" in note for note in counts.notes)


def test_a_sum_of_rows_that_xla_divides_by_hand():
    """On 2 x 4: (4, 8) @ (8, 8) a device, and a psum of (4, 8) float32 over 4: 2 x 3/4 x 128."""
    body, ins = PARTIAL["sum over the manual axis"]
    run = jax.shard_map(body, mesh=PLANE, in_specs=ins, out_specs=P(), axis_names={"model"})
    args = shape(8, 32), shape(32, 8)
    counts = cost.trace(jax.jit(run, in_shardings=(plane("data"), None)), *args)
    assert counts.macs == 4 * 8 * 8
    assert counts.by_axis() == {"data": 0, "model": 192}
    (transfer,) = counts.transfers
    assert (transfer.collective, transfer.payload_bytes, transfer.elements) == ("psum", 128, 32)


def test_a_shard_map_in_a_shard_map():
    """Over a, then over b, and c is XLA's: (8 / 2 / 2, 16) @ (16, 8), a psum of 64 bytes over b."""
    mesh = mesh_of(CUBE)

    def outer(x, w):
        inner = lambda x, w: lax.psum(x @ w, "b")
        ins = (P(None, "b"), P("b"))
        return jax.shard_map(inner, in_specs=ins, out_specs=P(), axis_names={"b"})(x, w)

    run = jax.shard_map(
        outer, mesh=mesh, in_specs=(P("a"), P()), out_specs=P("a"), axis_names={"a"}
    )
    step = jax.jit(run, in_shardings=(on(mesh, ("a", "c")), None))
    counts = cost.trace(step, shape(8, 32), shape(32, 8))
    assert counts.macs == 2 * 16 * 8
    assert counts.by_axis() == {"a": 0, "b": 64, "c": 0}


def test_the_gradient_through_a_partial_shard_map():
    body, ins = PARTIAL["sum over the manual axis"]
    run = jax.shard_map(body, mesh=PLANE, in_specs=ins, out_specs=P(), axis_names={"model"})
    step = jax.jit(squared(lambda w, x: run(x, w)), in_shardings=(None, plane("data")))
    args = shape(32, 8), shape(8, 32)
    counts = cost.trace(step, *args)
    compiled = hlo.counts(step.lower(*args).compile(), PLANE)
    assert counts.macs == compiled.macs
    assert counts.by_axis()["model"] == compiled.by_axis()["model"]


def test_an_explicit_mesh_divides_as_its_types_say():
    mesh = jax.make_mesh((8,), ("x",), (AxisType.Explicit,))
    put = lambda spec, *sizes: jax.ShapeDtypeStruct(
        sizes, jnp.float32, sharding=NamedSharding(mesh, spec)
    )
    with jax.set_mesh(mesh):
        counts = cost.trace(
            squared(mlp), (put(P(), 32, 128), put(P(), 128, 32)), put(P("x"), 64, 32)
        )
    assert counts.macs == 5 * 64 * 32 * 128 / 8
