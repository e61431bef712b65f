"""Where spikes are followed, where they end, and what they make of a matmul."""

import jax
import jax.numpy as jnp
import pytest
from cost_bodies import RING, ROW, on_mesh
from cost_programs import conv, shape
from jax import lax
from jax.sharding import PartitionSpec as P

from snapjax import cost
from snapjax.codes.code import SPIKE_CODES, make_code
from snapjax.neurons.surrogate import spike
from snapjax.wire import bit_fields, spikes

W = jnp.ones((8, 8))
x8 = shape(8, 8)  # times W: 512 multiply-accumulates


def scanned(s):
    """Spikes as a carry that starts with zeros, and as the stacked results."""
    carry, stacked = lax.scan(lambda c, row: (row, c), jnp.zeros(8), s)
    return jnp.concatenate([stacked[1:], carry[None]])


def looped(s):
    return lax.while_loop(lambda c: c.sum() > 9, lambda c: jnp.roll(c, 1, 0), s)


def branches(s):
    return lax.cond(s.sum() > 3, lambda: s, lambda: jnp.zeros_like(s))


def packed(s):
    return spikes.unpack_bits(spikes.pack_bits(s), 8, jnp.float32)


def as_events(s):
    return spikes.unpack_events(spikes.pack_events(s, 20), 8, 8, 20, jnp.float32)


def in_fields(s):
    widths = jnp.array([1] * 8, jnp.int32)
    planes = bit_fields.pack((s != 0).astype(jnp.uint8), widths, 8)
    return (bit_fields.unpack(planes, widths) & 1).astype(jnp.float32)


def updated(s):
    return lax.dynamic_update_slice(jnp.zeros((8, 8)), s[:4], (2, 0))


KEEPS = {
    "itself": lambda s: s,
    "reshape and transpose": lambda s: s.reshape(4, 2, 8).swapaxes(0, 1).reshape(8, 8).T,
    "slice and concatenate": lambda s: jnp.concatenate([s[4:], s[:4]]),
    "gather": lambda s: jnp.take(s, jnp.array([7, 6, 5, 4, 3, 2, 1, 0]), 0, mode="clip"),
    "cast": lambda s: s.astype(jnp.int8).astype(jnp.bfloat16).astype(jnp.float32),
    "cast to bool": lambda s: (s != 0).astype(jnp.float32),
    "comparison": lambda s: (s > 0.5).astype(jnp.float32),
    "padding": lambda s: jnp.pad(s[:6], ((1, 1), (0, 0))),
    "masked": lambda s: jnp.where(jnp.arange(8)[:, None] < 4, s, jnp.zeros_like(s)),
    "and": lambda s: ((s != 0) & (jnp.arange(8) < 4)[None]).astype(jnp.float32),
    "relu": jax.nn.relu,
    "update": updated,
    "scan": scanned,
    "while": looped,
    "cond": branches,
    "vmap": lambda s: jax.vmap(lambda row: row[::-1])(s),
    "jit": lambda s: jax.jit(lambda s: s * 1)(s),
    "remat": lambda s: jax.checkpoint(lambda s: s.T)(s),
    "bit planes": packed,
    "events": as_events,
    "bit fields": in_fields,
    "chosen ones": lambda s: jnp.where(s > 0, jnp.ones_like(s), jnp.zeros_like(s)),
}
ENDS = {
    "sum of two": lambda s: s + s,
    "scaled": lambda s: s * 0.5,
    "shifted": lambda s: s - 1,
    "complement": lambda s: 1 - s,
    "silence": lambda s: (s == 0).astype(jnp.float32),
    "graded": lambda s: s * jnp.arange(8.0)[None],
    "mean": lambda s: jnp.broadcast_to(s.mean(0, keepdims=True), (8, 8)),
    "running sum": lambda s: lax.cumsum(s, 0),
    "softmax": lambda s: jax.nn.softmax(s),
    "unpacked field": lambda s: spikes.pack_bits(s).astype(jnp.float32)[:, :1] * W,
    "carry that grows": lambda s: lax.scan(lambda c, _: (c + s, None), s, None, length=3)[0],
    "branch of anything": lambda s: lax.cond(s.sum() > 3, lambda: s, lambda: s * 0.3),
}


def counts_of(follow, *args, **options):
    return cost.trace(lambda x: follow(spike(x)) @ W, *(args or (x8,)), while_trips=2, **options)


@pytest.mark.parametrize("name", KEEPS)
def test_a_matmul_of_spikes_is_an_accumulate(name):
    counts = counts_of(KEEPS[name])
    assert (counts.total("mac"), counts.total("ac"), counts.macs) == (0, 512, 512)
    assert counts.sites == ("spike",)
    # 512 additions, of which a tenth happen.
    assert counts.with_rates({"spike": 0.1}).acs == pytest.approx(51.2)


@pytest.mark.parametrize("name", ENDS)
def test_anything_else_ends_the_mark(name):
    counts = counts_of(ENDS[name])
    assert (counts.total("mac"), counts.total("ac"), counts.acs) == (512, 0, 0)


def test_pooled_spikes_are_spikes_of_a_site_of_their_own():
    pool = lambda s: lax.reduce_window(s, -jnp.inf, lax.max, (1, 3), (1, 1), "SAME")
    counts = counts_of(pool)
    assert counts.total("ac") == 512
    assert counts.sites == ("spike/any",)  # they spike more often
    assert counts.acs == 512  # nobody measured how often


def test_a_loop_that_collects_spikes_ends():
    collect = lambda s: lax.scan(lambda c, row: (c | row.any(), None), s[0].any(), s > 0)[0]
    counts = counts_of(lambda s: jnp.where(collect(s), s, jnp.zeros_like(s)))
    assert counts.total("ac") == 512
    longest = lambda s: lax.scan(lambda c, _: (lax.cummax(c, 1), None), s, None, length=4)[0]
    assert counts_of(longest).sites == ("spike", "spike/any")


def test_spikes_times_spikes():
    def attention(q, k):
        with jax.named_scope("query"):
            q = spike(q)
        with jax.named_scope("key"):
            k = spike(k)
        return q @ k.T

    counts = cost.trace(attention, x8, x8)
    assert counts.by_kind() == counts.by_kind() | {"spike_spike": 512}
    assert counts.total("ac", "mac") == 0
    assert counts.sites == ("key", "query")
    (op,) = [op for op in counts.ops if op.kind == "spike_spike"]
    assert op.sites == ("query", "key")
    # Both must spike, and nobody says how often they do so together: see `test_cost_rates`.
    rated = counts.with_rates({"query": 0.5, "key": 0.25})
    assert (rated.acs, rated.acs_bounds) == (512 * 0.25, (0, 512 * 0.25))


def test_convolution_of_spikes():
    counts = cost.trace(
        lambda x, k: conv(spike(x), k), shape(1, 2, 4, 4), shape(3, 2, 3, 3), rates={"spike": 0.5}
    )
    assert (counts.total("ac"), counts.total("mac")) == (3 * 16 * 2 * 9, 0)
    assert counts.acs == 3 * 16 * 2 * 9 / 2


def test_training_step_of_a_spiking_layer():
    """Forward s @ w and the gradient of w, s^T @ d, accumulate; the gradient of s multiplies."""

    def loss(x, w):
        return (jnp.tanh(spike(x) @ w)).sum()

    counts = cost.trace(jax.grad(loss, (0, 1)), x8, x8)
    assert (counts.total("ac"), counts.total("mac")) == (2 * 512, 512)


def test_spikes_put_together_have_the_mean_rate():
    def two(x):
        with jax.named_scope("a"):
            first = spike(x)
        with jax.named_scope("b"):
            second = spike(-x)
        return jnp.concatenate([first, second], 1) @ jnp.ones((16, 4))

    counts = cost.trace(two, x8, rates={"a": 0.1, "b": 0.3})
    assert counts.sites == ("a", "b")
    assert counts.acs == pytest.approx(8 * 16 * 4 * 0.2)


def test_a_user_marks_spikes_of_his_own():
    fire = lambda x: cost.spikes((x > 0).astype(x.dtype), site="cortex")
    counts = cost.trace(lambda x: fire(x) @ W, x8, rates={"cortex": 0.25})
    assert (counts.total("ac"), counts.acs) == (512, 128)
    x = jnp.arange(-2.0, 3)
    assert fire(x).tolist() == [0, 0, 0, 1, 1]
    assert jax.grad(lambda x: cost.spikes(x).sum())(x).tolist() == [1] * 5


def test_a_function_called_spike_that_makes_none():
    @jax.custom_vjp
    def spike(x):
        return (x > 0).astype(x.dtype).sum()

    spike.defvjp(lambda x: (spike(x), x), lambda x, cotangent: (cotangent * x,))
    assert cost.trace(lambda x: spike(x) * W @ W, x8).total("ac") == 0


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("collective", "symbol"),
    [
        (lambda s: lax.ppermute(s, "x", RING), "spikes"),
        (lambda s: lax.all_to_all(s, "x", 0, 0, tiled=True), "spikes"),
        (lambda s: lax.all_gather(s, "x", tiled=True)[:8], "spikes"),
        (
            lambda s: spikes.unpack_bits(
                lax.ppermute(spikes.pack_bits(s), "x", RING), 8, jnp.float32
            ),
            "packed",
        ),
        (lambda s: lax.psum(s, "x") * s, "spikes"),
    ],
    ids=["ppermute", "all_to_all", "all_gather", "packed", "psum"],
)
def test_spikes_over_links(collective, symbol, check):
    step = lambda x: collective(spike(x)) @ W
    counts = cost.trace(on_mesh(ROW, step, P("x"), P("x"), check), shape(64, 8))
    (transfer,) = counts.transfers
    assert (transfer.symbol, transfer.sites) == (symbol, ("spike",))
    summed = transfer.collective == "psum"  # is no spike any more
    assert (counts.total("mac"), counts.total("ac")) == ((512, 0) if summed else (0, 512))


@pytest.mark.parametrize("name", SPIKE_CODES)
@pytest.mark.parametrize("steps", [1, 3, 9])
def test_every_spike_code_sends_spikes(name, steps):
    code = make_code(name, 24, steps, budget=24 if steps > 1 else None)
    params = jax.eval_shape(code.init)

    def send(params, x):
        symbols = code.encode(params["encoder"], x)
        buffer = lax.ppermute(code.to_wire(params["encoder"], symbols), "x", RING)
        return code.from_wire(params["decoder"], buffer, jnp.float32)

    function = on_mesh(ROW, send, (P(), P("x")), P("x"), False)
    counts = cost.trace(function, params, shape(16, 24))
    (transfer,) = counts.transfers
    assert transfer.symbol == "packed"
    assert transfer.payload_bytes == 2 * -(-code.budget // 8)
    assert counts.unpriced == ()


def test_rates_name_a_site():
    counts = counts_of(lambda s: s)
    with pytest.raises(ValueError, match="no spikes of site 'cortex'; the sites are 'spike'"):
        counts.with_rates({"cortex": 0.1})
    with pytest.raises(ValueError, match=r"rate of 'spike' is 1.5, which is not in \[0, 1\]"):
        counts.with_rates({"spike": 1.5})
    with pytest.raises(ValueError, match=r"rate of 'spike' is '0.5', which is not in \[0, 1\]"):
        counts.with_rates({"spike": "0.5"})
    assert counts.with_rates({"spike": jnp.float32(0.5)}).acs == 256
