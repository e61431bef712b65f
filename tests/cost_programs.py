"""Small programs whose costs were counted by hand, for one device; more in `cost_sharded`.

Every expectation shows its arithmetic. `kinds` lists every kind that is not a multiply-accumulate
or a move, or is None where only the matmuls were counted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from snapjax import cost


@dataclass(frozen=True, eq=False)
class Program:
    """A function with what it costs on one device.

    Attributes:
      name: of the construct.
      function: what is traced and compiled.
      args: arrays or shapes.
      macs: multiply-accumulates of matmuls and convolutions.
      kinds: counts of the other kinds but "move".
      moves: of the kind "move", None if not counted.
      mesh: sizes of the mesh's axes.
      bytes: axis -> bytes that the busiest device sends.
      options: of `trace`.
      hlo: a part of the reason for each difference from the HLO, empty if they agree.
      unpriced: primitives without a price.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    macs: float = 0
    kinds: Mapping[str, float] | None = None
    moves: float | None = None
    mesh: Mapping[str, int] = field(default_factory=dict)
    bytes: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    hlo: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()


@cache
def walk(program: Program) -> cost.Counts:
    """The counts of a program's jaxpr, walked once for all tests."""
    return cost.trace(program.function, *program.args, **program.options)


def shape(*dims: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(dims, dtype)


def loop(body: Callable, x: Any, length: int) -> Any:
    return lax.scan(lambda x, _: (body(x), None), x, None, length=length)[0]


def conv(x, kernel, stride=1, padding="SAME", **options):
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, **options)


def layers(w, x, length, remat=False):
    step = lambda x: jnp.tanh(x @ w)
    return loop(jax.checkpoint(step) if remat else step, x, length).sum()


def ragged(x, w, sizes):
    return lax.ragged_dot(x, w, sizes)


@jax.custom_vjp
def scaled(x, w):
    return x @ w


scaled.defvjp(
    lambda x, w: (x @ w, (x, w)),
    lambda saved, cotangent: (cotangent @ saved[1].T, jnp.zeros_like(saved[1])),
)


@jax.custom_jvp
def squared(x):
    return x @ x


@squared.defjvp
def _squared_jvp(primals, tangents):
    return squared(primals[0]), tangents[0]


def tiled_matmul(a, b):
    def kernel(a, b, out):
        out[...] = a[...] @ b[...]

    return pl.pallas_call(
        kernel,
        grid=(2, 3),
        in_specs=[
            pl.BlockSpec((4, 16), lambda i, j: (i, 0)),
            pl.BlockSpec((16, 8), lambda i, j: (0, j)),
        ],
        out_specs=pl.BlockSpec((4, 8), lambda i, j: (i, j)),
        out_shape=shape(8, 24),
        interpret=True,
    )(a, b)


def either(x, w):
    return lax.cond(x.sum() > 0, lambda: x @ w @ w, lambda: x @ w)


def dynamic_loop(x, n):
    return lax.fori_loop(0, n, lambda i, x: x @ x, x)


def halve_until_small(x):
    return lax.while_loop(lambda x: x[0, 0] > 1, lambda x: x @ x, x)


square = shape(8, 8)  # 8 x 8 x 8 = 512 multiply-accumulates a product

ONE_DEVICE = [
    # 8 x 32 results, each of 64 products.
    Program("matmul", lambda x, w: x @ w, (shape(8, 64), shape(64, 32)), 8 * 64 * 32, {}),
    # 3 batches of (4, 5) x (5, 6).
    Program(
        "batched matmul",
        lambda x, y: jnp.einsum("bij,bjk->bik", x, y),
        (shape(3, 4, 5), shape(3, 5, 6)),
        3 * 4 * 5 * 6,
        {},
    ),
    # 7 vectors against one matrix, mapped: no more than the matrix product.
    Program(
        "vmap of a product",
        jax.vmap(lambda x, w: w @ x, (0, None)),
        (shape(7, 8), shape(5, 8)),
        7 * 5 * 8,
        {},
    ),
    # Two axes contracted: 2 x 3 results of 4 x 5 products.
    Program(
        "tensordot",
        lambda x, y: jnp.tensordot(x, y, 2),
        (shape(2, 4, 5), shape(4, 5, 3)),
        2 * 3 * 4 * 5,
        {},
    ),
    # NCHW: 4 output channels of 8 x 8, each of 3 x 3 x 3 taps, padding counted as data.
    Program("convolution", conv, (shape(2, 3, 8, 8), shape(4, 3, 3, 3)), 2 * 4 * 64 * 27, {}),
    # Stride 2 leaves 4 x 4 outputs; 2 groups see 2 of 4 input channels each.
    Program(
        "strided grouped convolution",
        partial(conv, stride=2, feature_group_count=2),
        (shape(1, 4, 8, 8), shape(6, 2, 3, 3)),
        6 * 16 * 2 * 9,
        {},
    ),
    # 3 x 3 outputs without padding: 9 outputs x 4 taps of a 2 x 2 kernel with stride 2 over 6 x 6.
    # The gradient of the input is its transpose: the same 36 pairs, and no inserted zero counts.
    Program(
        "gradient of a strided convolution",
        lambda x, k: jax.grad(lambda x: conv(x, k, 2, "VALID").sum())(x),
        (shape(1, 1, 6, 6), shape(1, 1, 2, 2)),
        9 * 4,
        None,
    ),
    # 3 groups of rows share 10 rows; each row meets one (6, 4) matrix.
    Program(
        "ragged product",
        ragged,
        (shape(10, 6), shape(3, 6, 4), shape(3, dtype=jnp.int32)),
        10 * 6 * 4,
        None,
        hlo=("a ragged product computed densely",),  # on a CPU, each row meets all 3 matrices
    ),
    # 12 elements: exp, product, sum, quotient, comparison, sign.
    Program(
        "elementwise classes",
        lambda x: jnp.maximum(jnp.exp(x) * x + x / 3, -x),
        (shape(3, 4),),
        0,
        {
            "transcendental": 12,
            "multiply": 12,
            "add": 12,
            "divide": 12,
            "compare": 12,
            "other": 12,
        },
        0,
    ),
    # x^13 = 0b1101: 3 squarings and 2 products; x^-2 one squaring and a division.
    Program(
        "integer powers",
        lambda x: lax.integer_pow(x, 13) + lax.integer_pow(x, -2),
        (shape(10),),
        0,
        {"multiply": 50 + 10, "divide": 10, "add": 10},
    ),
    # (6, 5) to 6: 24 additions; to 5: 25 comparisons; the position of the largest: 24 comparisons.
    Program(
        "reductions",
        lambda x: (x.sum(1), x.max(0), jnp.argmax(x, 1)),
        (shape(6, 5),),
        0,
        {"add": 6 * 5 - 6, "compare": (30 - 5) + (30 - 6)},
        0,
    ),
    # 4 rows of 9: 8 additions each.
    Program("running sum", lambda x: lax.cumsum(x, 1), (shape(4, 9),), 0, {"add": 32}, 0),
    # 5 x 5 windows of 2 x 2 over 6 x 6: 3 comparisons a window.
    Program(
        "pooling",
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 1), "VALID"),
        (shape(6, 6),),
        0,
        {"compare": 25 * 3},
        0,
    ),
    # Rows of 12: ceil(log2 12) = 4 comparisons an element, and 24 elements move.
    Program("sort", lambda x: lax.sort(x), (shape(2, 12),), 0, {"compare": 24 * 4}, 24),
    # 4 rows of 3 gathered (12 moves); 4 rows of 3 added into a table (12 additions). Each time the
    # 4 indices are compared with 0, have 9 added to them, and one of the two is selected.
    Program(
        "gather and scatter",
        lambda t, i, u: (t.at[i].get(mode="clip"), t.at[i].add(u, mode="clip")),
        (shape(9, 3), shape(4, dtype=jnp.int32), shape(4, 3)),
        0,
        {"add": 12 + 2 * 4, "compare": 2 * (4 + 4)},
        12,
    ),
    # 10 words of 32 bits.
    Program(
        "random bits",
        lambda key: jax.random.bits(key, (10,)),
        (jax.random.key(0),),
        0,
        {"random": 10},
    ),
    # 5 products of 512.
    Program("scan", lambda x: loop(lambda y: y @ x, x, 5), (square,), 5 * 512, {}),
    # 3 x 4 products.
    Program(
        "nested scans",
        lambda x: loop(lambda y: loop(lambda z: z @ x, y, 4), x, 3),
        (square,),
        3 * 4 * 512,
        {},
    ),
    # fori_loop with bounds known to the program is a scan; its counter adds 1 each time.
    Program(
        "loop of known length",
        lambda x: lax.fori_loop(0, 6, lambda i, y: y @ x, x),
        (square,),
        6 * 512,
        None,
    ),
    # 7 stated trips; the test runs an eighth time.
    Program(
        "while with stated trips",
        halve_until_small,
        (square,),
        7 * 512,
        {"compare": 8},
        options={"while_trips": 7},
        hlo=("a loop whose trip count is not known to both",),
    ),
    # By the path of the loop: this one is at the top.
    Program(
        "while with trips by path",
        dynamic_loop,
        (square, shape(dtype=jnp.int32)),
        9 * 512,
        None,
        options={"while_trips": {"": 9}},
        hlo=("a loop whose trip count is not known to both",),
    ),
    # Nobody says how long: counted once and listed.
    Program(
        "while of unknown length",
        dynamic_loop,
        (square, shape(dtype=jnp.int32)),
        512,
        None,
        unpriced=("while",),
    ),
    # Two products in one branch, one in the other; the condition adds 63 and compares once.
    Program(
        "cond, dearest", either, (square, square), 2 * 512, {"add": 63, "compare": 1, "other": 1}
    ),
    Program(
        "cond, mean",
        either,
        (square, square),
        (2 + 1) / 2 * 512,
        None,
        options={"cond": "mean"},
        hlo=("the HLO counts the dearest branch",),
    ),
    Program(
        "cond, by weights",
        either,
        (square, square),
        (0.75 * 1 + 0.25 * 2) * 512,  # the branch for false is the first
        None,
        options={"cond": {"*": (0.75, 0.25)}},
        hlo=("the HLO counts the dearest branch",),
    ),
    # Of loop counters: 4 of 6 iterations multiply.
    Program(
        "cond, exact",
        lambda x: lax.scan(
            lambda y, i: (lax.cond(i < 4, lambda: y @ x, lambda: y), None),
            x,
            jnp.arange(6, dtype=jnp.int32),
        )[0],
        (square,),
        4 * 512,
        None,
        options={"cond": "exact"},
        hlo=("the HLO counts the dearest branch",),
    ),
    # Three branches of 0, 1 and 3 products.
    Program(
        "switch",
        lambda i, x: lax.switch(i, [lambda: x, lambda: x @ x, lambda: x @ x @ x @ x]),
        (shape(dtype=jnp.int32), square),
        3 * 512,
        None,
    ),
    # (4, 8) x (8, 8) = 256; forward 1, backward 2 (of x and of w), 5 layers.
    Program(
        "gradient of a scan",
        jax.grad(partial(layers, length=5)),
        (square, shape(4, 8)),
        5 * (1 + 2) * 256,
        None,
    ),
    # With remat each layer's product runs once more in the backward pass.
    Program(
        "gradient of a rematerialised scan",
        jax.grad(partial(layers, length=5, remat=True)),
        (square, shape(4, 8)),
        5 * (1 + 1 + 2) * 256,
        None,
    ),
    # Forward one product; its own backward rule another, and none for w.
    Program(
        "custom_vjp",
        jax.grad(lambda x, w: (scaled(x, w) ** 2).sum()),
        (square, square),
        2 * 512,
        None,
    ),
    # The rule says that the derivative is 1: no product in the backward pass.
    Program("custom_jvp", jax.grad(lambda x: squared(x).sum()), (square,), 0, None),
    Program("custom_jvp, forward", squared, (square,), 512, {}),
    # One function called twice.
    Program(
        "nested jit",
        lambda x, y: jax.jit(jnp.matmul)(x, y) + jax.jit(jnp.matmul)(y, x),
        (square, square),
        2 * 512,
        {"add": 64},
    ),
    # Its result is not used.
    Program("dead code", lambda x: (x @ x, x + 1)[1], (square,), 0, {"add": 64}, 0),
    # 2 x 3 programs, each (4, 16) x (16, 8).
    Program(
        "pallas kernel",
        tiled_matmul,
        (shape(8, 16), shape(16, 24)),
        6 * 4 * 16 * 8,
        {},
        hlo=(),
    ),
    # The transform of 64 numbers has no price here.
    Program(
        "unpriced",
        lambda x: jnp.fft.fft(x).real @ jnp.ones((64, 2)),
        (shape(4, 64),),
        4 * 64 * 2,
        None,
        unpriced=("fft",),
    ),
]
