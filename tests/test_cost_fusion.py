"""What reaches memory: by hand where that is possible, and against the fusions that XLA makes."""

from functools import cache

import jax
import jax.numpy as jnp
import pytest
from cost_bodies import CHAIN, ROW, mesh_of, on_mesh
from cost_programs import shape
from flax import linen as nn
from jax import lax
from jax.sharding import PartitionSpec as P

from snapjax import cost
from snapjax.boundary import Boundary
from snapjax.cost.hlo import counts as hlo
from snapjax.cost.hlo import text as hlo_text
from snapjax.cost.hlo import traffic as hlo_traffic
from zoo.cost import models
from zoo.models.registry import create_model

X = shape(64, 256)
N, ROWS, FEATURES = 4 * 64 * 256, 4 * 64, 4 * 256  # bytes of x, of a number a row, and a feature
ROW32 = 4 * 32 * 64  # bytes of a row of a scan's input
layer_norm = nn.LayerNorm()
NORM = {"params": {"scale": shape(256), "bias": shape(256)}}


def two_cheap(x):
    y = x * 2 + 1
    return y + 3, jnp.sin(y)


def two_expensive(x):
    y = jnp.exp(x)
    return y + 3, y * 2


def six(x):
    """Six groups need the sum of four inputs: storing it moves less."""
    y = x[0] + x[1] + x[2] + x[3]
    return [jnp.sin(y + i) for i in range(6)]


def scanned(x, unroll=1):
    step = lambda c, row: (jnp.tanh(c + row) * 2, jnp.exp(row))
    return lax.scan(step, jnp.zeros(x.shape[1:]), x, unroll=unroll)


def running(x):
    return lax.scan(lambda c, row: (c + row, c * 2), jnp.ones(8), x, unroll=4)


def updated(table, row, i):
    """(1000, 256) with one row written in place."""
    return lax.dynamic_update_slice(table, row * 2, (i, i))


# name -> (function, arguments, bytes read, bytes written, groups and operations started)
HAND = {
    # One group, whatever is between x and the result.
    "chain": (lambda x: jnp.exp(x * 2 + 1) - 3, (X,), N, N, 1),
    "calls": (lambda x: jax.jit(jax.nn.relu)(x * 2) + 1, (X,), N, N, 1),
    "remat": (jax.checkpoint(lambda x: jnp.sin(x * 2) * x), (X,), N, N, 1),
    # y is computed in both groups: x is read twice.
    "two consumers": (two_cheap, (X,), 2 * N, 2 * N, 2),
    # exp is not: x, then y twice.
    "two consumers of exp": (two_expensive, (X,), 3 * N, 3 * N, 3),
    # Four inputs, then y six times; in every group again it would be 24.
    "six consumers": (six, ([X] * 4,), 4 * N + 6 * N, N + 6 * N, 7),
    "one array twice": (lambda x: x * x + x, (X,), N, N, 1),
    "reduction": (lambda x: (x * 2 + 1).sum(-1), (X,), N, ROWS, 1),
    # The maximum, exp(x - maximum) stored, its sum, and the quotient.
    "softmax": (jax.nn.softmax, (X,), N + (N + ROWS) + N + (N + ROWS), ROWS + N + ROWS + N, 4),
    # Flax sums x and x^2, and then normalises: x three times, both sums, scale and bias.
    "layer norm": (
        lambda x, p: layer_norm.apply(p, x), (X, NORM),
        3 * N + 2 * ROWS + 2 * FEATURES, 2 * ROWS + N, 3,
    ),
    # Operands and the result of a product are stored, and what follows is a group.
    "matmul": (
        lambda x, w: jnp.tanh(x * 2 @ w) + 1, (X, shape(256, 256)),
        N + (N + 256 * FEATURES) + N, N + N + N, 3,
    ),
    # The broadcast is stored for the product alone; the sum needs none.
    "broadcast": (
        lambda b, w: (jnp.broadcast_to(b, (64, 256)) @ w, (b + 1).sum()),
        (shape(256), shape(256, 256)),
        FEATURES + (N + 256 * FEATURES) + FEATURES, N + N + 4, 3,
    ),
    # 16 times: the carry, and a row in each of the two groups; first the carry's zeros.
    "scan": (
        scanned, (shape(16, 32, 64),), 16 * 3 * ROW32, ROW32 + 16 * 2 * ROW32, 1 + 16 * 2,
    ),
    # Without a loop: the last sum reads 4 rows of 32 bytes, the stack of the sums before it 3.
    "unrolled scan": (running, (shape(4, 8),), 4 * 32 + 3 * 32, 32 + 4 * 32, 2),
    # The row, and the index; only the row is written, the table stays where it is.
    "update in place": (
        updated, (shape(1000, 256), shape(1, 256), shape(dtype=jnp.int32)),
        FEATURES + 4, FEATURES, 1,
    ),
    # Four rows of 1000 and their numbers.
    "lookup": (
        lambda table, i: table.at[i].get(mode="clip") * 2,
        (shape(1000, 256), shape(4, dtype=jnp.int32)), 4 * FEATURES + 4 * 4, 4 * FEATURES, 1,
    ),
    # XLA stores a bool as a byte.
    "mask": (lambda x: x > 0, (X,), N, N // 4, 1),
    "half width": (lambda x: x.astype(jnp.bfloat16), (X,), N, N // 2, 1),
    "nothing": (lambda x: x.reshape(256, 64), (X,), 0, 0, 0),
    # The carry is a result twice: as the next carry, and in the stack.
    "carried and stacked": (
        lambda x: lax.scan(lambda c, row: (c + row,) * 2, x[0], x)[1], (shape(16, 32, 64),),
        ROW32 + 16 * 2 * ROW32, ROW32 + 16 * 2 * ROW32, 1 + 16,
    ),
}  # fmt: skip


def moved(counts):
    return tuple(
        sum(getattr(op, f"stored_{way}") for op in counts.ops) for way in ("read", "written")
    )


@cache
def walk(name):
    """The counts of one of `HAND`, for all tests."""
    function, args, *_ = HAND[name]
    return cost.trace(function, *args, strict=True)


@pytest.mark.parametrize("name", HAND)
def test_memory_traffic_equals_the_hand_count(name):
    _, _, read, written, starts = HAND[name]
    counts = walk(name)
    assert moved(counts) == (read, written)
    assert counts.stored_bytes == read + written
    assert sum(op.starts for op in counts.ops) == pytest.approx(starts)


@pytest.mark.parametrize(
    "name",
    ["chain", "calls", "two consumers", "two consumers of exp", "one array twice", "reduction",
     "mask", "half width"],
)  # fmt: skip
def test_xla_fuses_these_alike(name):
    function, args, *_ = HAND[name]
    compiled = hlo.counts(jax.jit(function).lower(*args).compile())
    assert moved(compiled) == moved(walk(name))
    assert sum(op.starts for op in compiled.ops) == HAND[name][-1]


# XLA on a CPU makes fewer or more groups of these: it fuses a maximum into what follows it, and
# copies rows and scalars of loops.
@pytest.mark.parametrize("name", ["softmax", "layer norm", "matmul", "scan", "lookup"])
def test_xla_moves_about_as_much(name):
    function, args, *_ = HAND[name]
    compiled = hlo.counts(jax.jit(function).lower(*args).compile())
    ratio = walk(name).stored_bytes / compiled.stored_bytes
    assert 0.8 < ratio < 1.25


@pytest.fixture
def _implicit():
    """Models of the zoo mix integer types as Linen and optax do."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def hop_of(code, budget=None):
    """A hop of 392 tokens of 192 features along 8 devices, and its arguments' shapes."""
    boundary = Boundary(192, code=code, budget=budget)
    params = jax.eval_shape(boundary.init, jax.random.key(0))
    args = jax.tree.map(lambda leaf: shape(8, *leaf.shape, dtype=leaf.dtype), params)

    def hop(params, x):
        params = jax.tree.map(lambda leaf: leaf[0], params)
        return boundary.send(params, x[0], "x", tuple(CHAIN))[0][None]

    return jax.jit(on_mesh(ROW, hop, P("x"), P("x"))), (args, shape(8, 392, 192))


@pytest.mark.usefixtures("_implicit")
@pytest.mark.parametrize("code", ["phase", "rate", "latency", "int8", "float32"])
def test_a_hop_of_a_boundary_moves_what_xla_moves(code):
    """Encoding, packing, sending, unpacking and decoding."""
    step, args = hop_of(code)
    walk = cost.trace(step, *args)
    compiled = hlo.counts(step.lower(*args).compile(), mesh_of(ROW))
    assert 0.8 < walk.stored_bytes / compiled.stored_bytes < 1.25
    # The way back is farther off: XLA knows which masks are constant, fuses over the edge of the
    # shard_map, and keeps other values of the forward pass.
    back = jax.jit(jax.grad(lambda *args: (step(*args) ** 2).sum(), (0, 1), allow_int=True))
    compiled = hlo.counts(back.lower(*args).compile(), mesh_of(ROW))
    assert 0.4 < cost.trace(back, *args).stored_bytes / compiled.stored_bytes < 2.6
    # With nothing fused the same operations would move several times as much.
    if code != "float32":
        assert sum(op.bytes_read + op.bytes_written for op in walk.ops) > 7 * walk.stored_bytes


@pytest.mark.usefixtures("_implicit")
@pytest.mark.parametrize(
    ("code", "budget", "memory", "arithmetic", "link"),
    [("phase", 192, 26, 107, 1), ("int8", None, 35, 10, 5), ("float32", None, 40, 0, 19)],
)
def test_energies_of_a_hop_are_those_of_the_readme(code, budget, memory, arithmetic, link):
    """pJ a feature: of a device, and of the link that 7 of 8 devices send over."""
    step, args = hop_of(code, budget)
    counts = cost.trace(step, *args)
    if code == "phase":
        assert counts.stored_bytes / (392 * 192) == pytest.approx(10.24, abs=0.005)
        unfused = sum(op.bytes_read + op.bytes_written for op in counts.ops)
        assert unfused / (392 * 192) == pytest.approx(433, abs=0.5)
    parts = cost.estimate(counts, "snap-mesh").energy_parts
    each = {part: amount.value / (8 * 392 * 192) for part, amount in parts.items()}
    assert each["memory"] == pytest.approx(memory, abs=0.5)
    assert each["compute"] == pytest.approx(arithmetic, abs=0.5)
    assert each["links"] * 8 / 7 == pytest.approx(link, abs=0.5)


@pytest.mark.usefixtures("_implicit")
@pytest.mark.parametrize("name", ["vit_nano_patch2_8", "bert_micro"])
def test_a_model_moves_about_what_xla_moves(name):
    """Embedding, a scan over blocks, and the head. XLA on a CPU copies every row that a loop gives
    to a product (weights: little beside a batch of 8), and residuals in and out of their stacks,
    which is not counted here: most in a backward pass."""
    model = create_model(name, "hnn", 1)
    params = jax.eval_shape(model.init, jax.random.key(0))
    batch = models.batch_shapes(model, models.Setting(8))

    def loss(params, batch):
        leaves = jax.tree.leaves(model.apply(params, batch))
        return sum(leaf.sum() for leaf in leaves if leaf.dtype == jnp.float32)

    gradients = jax.grad(loss, allow_int=True)
    for function, low, high in ((model.apply, 0.8, 1.25), (gradients, 0.5, 1.25)):
        step = jax.jit(function)  # traced once, for the walk and for the compiler
        compiled = hlo.counts(step.lower(params, batch).compile())
        ratio = cost.trace(step, params, batch).stored_bytes / compiled.stored_bytes
        assert low < ratio < high


# How often


def test_executions_are_of_equations_and_not_of_paths():
    """Two products a step of one module in one entry, and a branch that is taken half the time."""

    def step(x, _):
        y = jnp.tanh(jnp.tanh(x @ x) @ x)
        return lax.cond(y.sum() > 0, lambda: y @ y @ y @ y, lambda: y), None

    run = lambda x: lax.scan(step, x, None, length=10)[0]
    (always,) = [op for op in cost.trace(run, shape(8, 8)).ops if op.kind == "mac"]
    assert (always.count, always.executions, always.starts) == (50 * 512, 50, 50)
    (mean,) = [op for op in cost.trace(run, shape(8, 8), cond="mean").ops if op.kind == "mac"]
    assert (mean.count, mean.executions, mean.starts) == (35 * 512, 35, 35)


def test_traffic_follows_the_path_of_the_operation_that_moves():
    """The first to read and the last to write, across modules."""

    def run(x):
        with jax.named_scope("one"):
            y = x * 2
        with jax.named_scope("two"):
            return y + 1

    moves = {
        op.path: (op.stored_read, op.stored_written, op.starts) for op in cost.trace(run, X).ops
    }
    assert moves == {"one": (N, 0, 0), "two": (0, N, 1)}


# The compiled text

TEXT = """
%fused (p.0: f32[16,8], p.1: f32[1,8], p.2: s32[], p.3: f32[64,8]) -> f32[16,8] {
  %p.0 = f32[16,8]{1,0} parameter(0)
  %p.1 = f32[1,8]{1,0} parameter(1)
  %p.2 = s32[] parameter(2)
  %p.3 = f32[64,8]{1,0} parameter(3)
  %z = s32[] constant(0)
  %s = f32[1,8]{1,0} dynamic-slice(%p.3, %p.2, %z), dynamic_slice_sizes={1,8}
  %a = f32[1,8]{1,0} add(%p.1, %s)
  ROOT %u = f32[16,8]{1,0} dynamic-update-slice(%p.0, %a, %p.2, %z)
}

ENTRY %main (x: f32[16,8], y: f32[1,8], i: s32[], t: f32[64,8]) -> f32[16,8] {
  %x = f32[16,8]{1,0} parameter(0)
  %y = f32[1,8]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %t = f32[64,8]{1,0} parameter(3)
  %f = f32[16,8]{1,0} fusion(%x, %y, %i, %t), kind=kLoop, calls=%fused
  ROOT %c = f32[16,8]{1,0} copy(%f)
}
"""


def test_traffic_of_a_fusion_in_hlo():
    module = hlo_text.parse(TEXT)
    main = module.computations[module.entry]
    fusion, copy = main.instructions[-2:]
    # A row of x is written; y, the index and a row of t are read.
    assert hlo_traffic.traffic(fusion, main, module) == (32 + 4 + 32, 32)
    assert hlo_traffic.traffic(copy, main, module) == (512, 512)
    assert moved(hlo.counts(TEXT)) == (32 + 4 + 32 + 512, 32 + 512)
