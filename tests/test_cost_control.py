"""Branches, loops and kernels whose course follows from counters: against counts by hand."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from cost_programs import shape, square
from flax import nnx
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from snapjax import cost

PRODUCT = 512  # multiply-accumulates of (8, 8) @ (8, 8)


def when(condition, x):
    """A product if the condition holds."""
    return lax.cond(condition, lambda: x @ x, lambda: x)


def fori(low, high, body):
    return lambda x: lax.fori_loop(low, high, body, x)


def turns(test, step, start, work=lambda i, x: x @ x):
    """A while over a counter."""
    body = lambda state: (step(state[0]), work(*state))
    return lambda x: lax.while_loop(lambda state: test(state[0]), body, (start, x))[1]


def scanned(function, rows, **options):
    return lambda x: lax.scan(lambda x, row: (function(row, x), None), x, rows, **options)[0]


def powers(x):
    """A counter that a branch changes: 0, 2, 4, 6, 7, 8; products from 6 on."""

    def body(i, state):
        count, x = state
        count_after = lax.cond(i < 3, lambda: count + 2, lambda: count + 1)
        return count_after, when(count >= 6, x)

    return lax.fori_loop(0, 6, body, (0, x))[1]


# name -> (program of an (8, 8) array, products)
EXACT = {
    "counter of a fori_loop": (fori(0, 10, lambda i, x: when(i < 3, x)), 3),
    "that starts elsewhere": (fori(2, 10, lambda i, x: when(i % 3 == 0, x)), 3),
    "inner counter up to the outer": (
        fori(0, 5, lambda i, x: lax.fori_loop(0, i, lambda j, x: x @ x, x)),
        0 + 1 + 2 + 3 + 4,
    ),
    "inner below outer": (
        fori(0, 5, lambda i, x: lax.fori_loop(0, 5, lambda j, x: when(j < i, x), x)),
        0 + 1 + 2 + 3 + 4,
    ),
    "switch": (
        fori(0, 9, lambda i, x: lax.switch(i % 3, [lambda: x, lambda: x @ x, lambda: x @ x @ x])),
        3 * (0 + 1 + 2),
    ),
    "row of a table": (fori(0, 4, lambda i, x: when(jnp.array([1, 0, 0, 1])[i] == 1, x)), 2),
    "table as rows": (scanned(lambda row, x: when(row > 0, x), jnp.array([1, 0, 0, 1])), 2),
    "backwards": (scanned(lambda i, x: when(i < 2, x), jnp.arange(6), reverse=True), 2),
    "a flag that turns": (
        lambda x: lax.scan(
            lambda state, _: ((~state[0], when(*state)), None), (True, x), None, length=7
        )[0][1],
        4,
    ),
    "a counter that a branch changes": (powers, 3),
    "beside a rate that decays": (
        lambda x: lax.fori_loop(
            0, 10, lambda i, s: (s[0] * 0.5, when(i < 3, s[1])), (jnp.float32(1), x)
        )[1],
        3,
    ),
    "beside a sum of data": (
        lambda x: lax.fori_loop(
            0, 10, lambda i, s: (s[0] + s[1].sum(), when(i < 3, s[1])), (jnp.float32(0), x)
        )[1],
        3,
    ),
    "after the loop": (lambda x: when(lax.fori_loop(0, 10, lambda i, n: n + 1, 0) == 10, x), 1),
    "jitted body": (
        fori(0, 10, jax.jit(lambda i, x: when(jnp.logical_and(i >= 2, i < 5), x))),
        3,
    ),
    "while up to 7 by 2": (turns(lambda i: i < 7, lambda i: i + 2, 0), 4),
    "while that doubles": (turns(lambda i: i < 100, lambda i: i * 2, 1), 7),
    "while of a million": (turns(lambda i: i < 1_000_000, lambda i: i + 1, 0), 1_000_000),
    "while that overflows": (
        turns(lambda i: i > 0, lambda i: i + jnp.int8(1), jnp.int8(100)),
        28,
    ),
    "while down": (turns(lambda i: i > 0, lambda i: i - 1, 6), 6),
    "while that never turns": (turns(lambda i: i < 0, lambda i: i + 1, 0), 0),
    "branch in a while": (
        turns(lambda i: i < 7, lambda i: i + 2, 0, lambda i, x: when(i > 3, x)),
        2,
    ),
    # Of the gradient, a product forward and two backward.
    "gradient": (jax.grad(lambda x: fori(0, 10, lambda i, x: when(i < 3, x))(x).sum()), 3 * 3),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_known_course_counts_exactly(name):
    program, products = EXACT[name]
    counts = cost.trace(program, square, cond="exact", strict=True)
    assert counts.macs == products * PRODUCT
    assert not any("depends on data" in note for note in counts.notes)


def test_a_while_of_known_length_needs_no_stated_trips():
    counts = cost.trace(EXACT["while that doubles"][0], square, while_trips=100)
    assert counts.macs == 7 * PRODUCT  # 1, 2, 4, ..., 64: the program says it
    assert counts.total("compare") == 8


@pytest.mark.parametrize(
    "program",
    [
        fori(0, 10, lambda i, x: when(x.sum() > i.astype(x.dtype), x)),
        fori(0, 1 << 21, lambda i, x: when(i < 3, x)),
    ],
    ids=["data", "too long"],
)
def test_a_course_that_is_not_known_takes_the_dearest(program):
    counts = cost.trace(program, square, cond="exact")
    assert counts.macs in (10 * PRODUCT, (1 << 21) * PRODUCT)
    assert any("depends on data" in note for note in counts.notes)


def test_a_loop_that_data_ends_is_unpriced():
    early = lambda x: lax.while_loop(
        lambda state: (state[0] < 9) & (state[1].sum() < 3), lambda s: (s[0] + 1, s[1] @ s[1]),
        (0, x),
    )[1]  # fmt: skip
    (entry,) = cost.trace(early, square).unpriced
    assert entry.primitive == "while"
    assert cost.trace(early, square, while_trips=4).macs == 4 * PRODUCT


def kernel(body, grid, ins, out, result):
    spec = lambda index: pl.BlockSpec((8, 8), index)
    return pl.pallas_call(
        body,
        grid=grid,
        in_specs=list(map(spec, ins)),
        out_specs=spec(out),
        out_shape=result,
        interpret=True,
    )


def causal(a, b):
    """(32, 8) @ (8, 32), the blocks on and below the diagonal alone."""

    def body(a, b, out):
        @pl.when(pl.program_id(1) <= pl.program_id(0))
        def _():
            out[...] = a[...] @ b[...]

    ins = (lambda i, j: (i, 0), lambda i, j: (0, j))
    return kernel(body, (4, 4), ins, lambda i, j: (i, j), shape(32, 32))(a, b)


def tiled(a, b):
    """(32, 32) @ (32, 32) in blocks of (8, 8), each result summed over 4 programs."""

    def body(a, b, out):
        @pl.when(pl.program_id(2) == 0)
        def _():
            out[...] = jnp.zeros_like(out)

        out[...] += a[...] @ b[...]

    ins = (lambda i, j, k: (i, k), lambda i, j, k: (k, j))
    return kernel(body, (4, 4, 4), ins, lambda i, j, k: (i, j), shape(32, 32))(a, b)


def test_a_kernels_programs_are_told_apart():
    counts = cost.trace(causal, shape(32, 8), shape(8, 32), cond="exact", strict=True)
    assert counts.macs == 10 * PRODUCT  # of 16 blocks
    dearest = cost.trace(causal, shape(32, 8), shape(8, 32))
    assert dearest.macs == 16 * PRODUCT
    mapped = cost.trace(
        jax.vmap(causal), shape(3, 32, 8), shape(3, 8, 32), cond="exact", strict=True
    )
    assert mapped.macs == 3 * 10 * PRODUCT
    looped = lambda a, b: lax.fori_loop(0, 5, lambda i, s: s + causal(a, b), jnp.zeros((32, 32)))
    assert cost.trace(looped, shape(32, 8), shape(8, 32), cond="exact").macs == 50 * PRODUCT


def test_a_kernel_moves_its_blocks_and_nothing_else():
    """By hand, 256 bytes a block: a block that stays from one program to the next moves once."""
    counts = cost.trace(causal, shape(32, 8), shape(8, 32))
    # A row of a for each i; a column of b for each program; each block of the result once.
    assert counts.stored_bytes == (4 + 16 + 16) * 256
    counts = cost.trace(tiled, shape(32, 32), shape(32, 32))
    assert counts.macs == 64 * PRODUCT
    assert counts.stored_bytes == (64 + 64 + 16) * 256
    (op,) = [op for op in counts.ops if op.stored_read]
    assert (op.stored_read, op.stored_written, op.starts) == (128 * 256, 16 * 256, 1)


def test_blocks_whose_place_is_data_move_for_every_program():
    def body(rows, x, out):
        out[...] = x[...] * 2

    spec = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=1,
        grid=(4,),
        in_specs=[pl.BlockSpec((8, 8), lambda i, rows: (rows[i], 0))],
        out_specs=pl.BlockSpec((8, 8), lambda i, rows: (0, 0)),
    )
    function = pl.pallas_call(body, grid_spec=spec, out_shape=shape(8, 8), interpret=True)
    counts = cost.trace(function, shape(4, dtype=jnp.int32), shape(64, 8))
    assert counts.stored_bytes == (4 + 1) * 256


def test_the_last_block_ends_with_the_array():
    """Rows of 10, of 32: three whole blocks of 320 bytes and one of 64, in and out."""

    def body(x, out):
        out[...] = x[...] * 2

    spec = pl.BlockSpec((10, 8), lambda i: (i, 0))
    double = pl.pallas_call(
        body, grid=(4,), in_specs=[spec], out_specs=spec, out_shape=shape(32, 8), interpret=True
    )
    assert cost.trace(double, shape(32, 8)).stored_bytes == 2 * 32 * 8 * 4


def test_a_kernels_own_references_and_copies():
    """What is made in scratch is counted; a copy that the kernel starts itself has no price."""

    def body(x, out, sem):
        def scoped(rows):
            copy = pltpu.make_async_copy(x.at[pl.ds(pl.program_id(0) * 8, 8)], rows, sem)
            copy.start()
            copy.wait()
            out[...] = rows[...] @ rows[...]

        pl.run_scoped(scoped, pltpu.VMEM((8, 8), jnp.float32))

    spec = pl.BlockSpec((8, 8), lambda i: (i, 0))
    product = pl.pallas_call(
        body,
        grid=(4,),
        in_specs=[pl.BlockSpec(memory_space=pl.ANY)],
        out_specs=spec,
        out_shape=shape(32, 8),
        scratch_shapes=[pltpu.SemaphoreType.DMA],
    )
    counts = cost.trace(product, shape(32, 8))
    assert counts.macs == 4 * PRODUCT
    assert {entry.primitive for entry in counts.unpriced} == {"dma_start", "dma_wait"}
    assert {entry.executions for entry in counts.unpriced} == {4}


class Layer(nn.Module):
    """A dense layer, and another product where it is trained."""

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = nn.Dense(8)(x)
        return x @ x if train else x


def test_keyword_arguments_reach_the_function():
    model = Layer()
    params = jax.eval_shape(
        lambda key, x: model.init(key, x, train=True), jax.random.key(0), square
    )
    assert cost.trace(model.apply, params, square, train=True).macs == 2 * PRODUCT
    assert cost.trace(model.apply, params, square, train=False).macs == PRODUCT
    arrays = lambda x, *, y, power=1: x @ y if power == 1 else x @ y @ y
    assert cost.trace(arrays, square, y=square, power=2).macs == 2 * PRODUCT
    jitted = jax.jit(arrays, static_argnames="power")
    assert cost.trace(jitted, square, y=square, power=2).macs == 2 * PRODUCT
    with pytest.raises(TypeError, match="unexpected keyword argument 'stric'"):
        cost.trace(arrays, square, stric=True)
    strict = functools.partial(lambda x, strict: x @ x if strict else x, strict=True)
    assert cost.trace(strict, square).macs == PRODUCT


def test_a_key_that_the_function_closes_over():
    key = jax.random.key(0)
    drop = lambda x: x @ jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, 0.0)
    assert cost.trace(drop, square, strict=True).macs == PRODUCT


def test_modules_of_nnx():
    rngs = nnx.Rngs(0)
    layers = nnx.Linear(8, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
    module = nnx.Sequential(*layers)
    forward = lambda module, x: module(x)
    assert cost.trace(nnx.jit(forward), module, square).macs == PRODUCT
    assert cost.trace(nnx.jit(forward), module, x=square).macs == PRODUCT
    assert cost.trace(forward, module, square).macs == PRODUCT
    grad = nnx.value_and_grad(lambda module, x: module(x).sum())
    linear = nnx.Linear(8, 8, rngs=rngs)
    assert cost.trace(nnx.jit(grad), linear, square).macs == 2 * PRODUCT
    assert module(jnp.ones((8, 8))).shape == (8, 8)  # tracing left it as it was
