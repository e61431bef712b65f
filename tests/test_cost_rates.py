"""How often combined spikes fire: against arrays of zeros and ones that are really combined."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cost_inputs import LINE4, op, profile, send
from cost_programs import shape
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import PartitionSpec as P

from snapjax import cost
from snapjax.cost import Counts, rates

ROWS, WIDTH, OUT = 6, 4, 3
FIRE = {"a": lambda x: cost.spikes(x, "a"), "b": lambda x: cost.spikes(x, "b")}


def arrays(*firing, rows=ROWS, width=WIDTH):
    """Arrays of zeros and ones with so many ones each, shuffled."""
    random = np.random.default_rng(len(firing))
    size = rows * width
    return [random.permutation(np.arange(size) < n).reshape(rows, width) * 1.0 for n in firing]


def accumulates(function, *values):
    """(the model's bounds, what really happens) of `function(a, b)` times a matrix."""

    def program(*inputs):
        marked = [cost.spikes(x, name) for x, name in zip(inputs, "abc", strict=False)]
        found = function(*marked)
        return found @ jnp.ones((found.shape[-1], OUT), found.dtype)

    inputs = [jnp.asarray(value, jnp.float32) for value in values]
    counts = cost.trace(program, *inputs)
    rated = {name: value.mean() for name, value in zip("abc", values, strict=False)}
    counts = counts.with_rates({site: rated[site] for site in counts.sites if site in rated})
    assert counts.total("mac") == 0
    ones = float(np.asarray(jax.jit(function)(*inputs), np.float64).sum())
    return counts.acs_bounds, OUT * ones


def hold(bounds, happens):
    return bounds.low - 1e-6 <= happens <= bounds.high + 1e-6


# What combinations of two arrays of zeros and ones leave open; whole arrays alone.
COMBINED = {
    "or": lambda a, b: ((a > 0) | (b > 0)).astype(a.dtype),
    "and": lambda a, b: ((a > 0) & (b > 0)).astype(a.dtype),
    "maximum": jnp.maximum,
    "minimum": jnp.minimum,
    "product": lambda a, b: a * b,
    "gate": lambda a, b: jnp.where(a > 0, b, 0.0),
    "gate where silent": lambda a, b: jnp.where(a > 0, 0.0, b),
    "either": lambda a, b: jnp.where(a > 0, 1.0, b),
    "complement": lambda a, b: jnp.where(a > 0, 0.0, 1.0),
    "complement of or": lambda a, b: jnp.where((a > 0) | (b > 0), 0.0, 1.0),
    "chosen by a third": lambda a, b: jnp.where(a.sum(1, keepdims=True) > b.sum(), a, b),
    "chosen by comparison": lambda a, b: jnp.where(jnp.cumsum(a, 1) > jnp.cumsum(b, 1), a, b),
    "side by side": lambda a, b: jnp.concatenate([a, b], 1),
    "beside ones": lambda a, b: jnp.concatenate([a, jnp.ones_like(a)]),
    "beside zeros": lambda a, b: jnp.concatenate([a, jnp.zeros_like(b), b]),
    "padded with ones": lambda a, b: jnp.pad(a, ((1, 2), (0, 0)), constant_values=1.0),
    "ones beside, then the ones": lambda a, b: jnp.concatenate([a, jnp.ones_like(a)])[ROWS:],
    "ones beside, then some": lambda a, b: jnp.concatenate([jnp.ones_like(a), a])[: ROWS + 2],
    "a part": lambda a, b: a[1:3],
    "parts of two": lambda a, b: jnp.concatenate([a[:3], b[3:]]),
    "masked by a part": lambda a, b: a * b[:, :1],
    "every other row": lambda a, b: a[::2],
    "one row, often": lambda a, b: jnp.take(a, jnp.zeros(6, int), 0, mode="clip"),
    "rows of one among ones": lambda a, b: lax.dynamic_update_slice(
        jnp.ones_like(a), a[:2], (3, 0)
    ),
    "out of range": lambda a, b: jnp.take(a > 0, jnp.array([0, 99]), 0, mode="fill").astype(
        a.dtype
    ),
    "the last state": lambda a, b: lax.scan(lambda c, row: (row, None), b[0], a)[0][None],
    "the state before": lambda a, b: lax.scan(lambda c, row: (row, c), b[0], a)[1],
    "a parts complement": lambda a, b: jnp.where(a[:2] > 0, 0.0, 1.0),
    "sorted": lambda a, b: lax.sort(a, dimension=0),
    "the largest": lambda a, b: lax.sort(a.reshape(-1))[-WIDTH:].reshape(1, WIDTH),
    "where it fires": lambda a, b: jnp.take(
        a, jnp.argsort(-a.sum(1))[:2], 0, mode="clip", unique_indices=True
    ),
    "the busiest row": lambda a, b: lax.dynamic_slice(a, (a.sum(1).argmax(), 0), (1, WIDTH)),
    "written over": lambda a, b: a.at[:2].set(jnp.ones((2, WIDTH))),
    "written over by data": lambda a, b: a.at[a.sum(1).astype(int) % ROWS].set(
        jnp.ones((ROWS, WIDTH)), mode="clip"
    ),
    "all of a column": lambda a, b: a.min(0, keepdims=True),
    "any of a column": lambda a, b: jnp.concatenate([(a > 0).any(0, keepdims=True), b > 0]).astype(
        a.dtype
    ),
    "a branch": lambda a, b: lax.cond(a.sum() > b.sum(), lambda: a, lambda: b),
    "packed and inverted": lambda a, b: ((~((a > 0).astype(jnp.uint8) << 1) >> 1) & 1).astype(
        a.dtype
    ),
    "of two in a word": lambda a, b: (
        (((a > 0).astype(jnp.uint8) << 1 | (b > 0).astype(jnp.uint8) << 2) >> 2) & 1
    ).astype(a.dtype),
    "any bit of a word": lambda a, b: (
        ((a > 0).astype(jnp.uint8) << 1 | (b > 0).astype(jnp.uint8) << 2) != 0
    ).astype(a.dtype),
    "a shift by spikes": lambda a, b: (
        (jnp.uint8(1) << (a > 0).astype(jnp.uint8)) & jnp.uint8(1)
    ).astype(a.dtype),
    "parity": lambda a, b: (
        lax.population_count((a > 0).astype(jnp.uint8) << 1 | (b > 0).astype(jnp.uint8) << 2) & 1
    ).astype(a.dtype),
    "a loop that collects": lambda a, b: lax.scan(
        lambda c, row: (jnp.maximum(c, row), None), a, jnp.stack([b, a, b])
    )[0],
    "a delay line": lambda a, b: lax.scan(
        lambda c, row: (jnp.concatenate([c[1:], row[None]]), None), jnp.ones_like(a), b[:2]
    )[0],
}


@pytest.mark.parametrize("name", COMBINED)
def test_what_happens_lies_within_the_bounds(name):
    for a, b in itertools.product((0, 1, 5, 12, 23, 24), repeat=2):
        bounds, happens = accumulates(COMBINED[name], *arrays(a, b))
        assert hold(bounds, happens), (a, b, bounds, happens)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_what_happens_lies_within_the_bounds_of_any_combination(data):
    names = ["or", "and", "gate", "gate where silent", "complement", "either", "chosen by a third"]
    steps = data.draw(st.lists(st.tuples(st.sampled_from(names), st.booleans()), max_size=4))
    firing = [data.draw(st.integers(0, 24)) for _ in "abc"]

    def chain(a, b, c):
        found = a
        for name, second in steps:
            found = COMBINED[name](found, b if second else c)
        return jnp.concatenate([found, a])

    assert hold(*accumulates(chain, *arrays(*firing)))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        # (4, 8) @ (8, 8) is 256 accumulates and (8, 8) @ (8, 8) twice that, at 0.1 and 0.3.
        ("complement", 230.4, 230.4),  # 256 x 0.9
        ("beside ones", 281.6, 281.6),  # 512 x (0.1 + 1) / 2
        ("or", 76.8, 102.4),  # 256 x 0.3 to 256 x (0.1 + 0.3)
        ("and", 0, 25.6),  # none to 256 x 0.1
        ("gate", 0, 25.6),
        ("side by side", 102.4, 102.4),  # 512 x 0.2
    ],
)
def test_the_bounds_by_hand(name, low, high):
    def program(x, y):
        found = COMBINED[name](cost.spikes(x, "a"), cost.spikes(y, "b"))
        return found @ jnp.ones((found.shape[-1], 8))

    counts = cost.trace(program, shape(4, 8), shape(4, 8))
    given = {"a": 0.1, "b": 0.3}
    counts = counts.with_rates({site: given[site] for site in counts.sites})
    assert counts.acs_bounds == pytest.approx((low, high))
    assert counts.acs == pytest.approx(high)


def test_a_part_is_priced_as_the_whole_and_bounded_as_any():
    """A quarter of (8, 8) at 0.1: 12.8 accumulates of 128 if spikes are even, 51.2 if all are in
    it. The last of four steps of a neuron fires more often than the mean of them."""
    part = lambda x: cost.spikes(x, "a")[:2] @ jnp.ones((8, 8))
    counts = cost.trace(part, shape(8, 8), rates={"a": 0.1})
    assert counts.acs == pytest.approx(12.8)
    assert counts.acs_bounds == pytest.approx((0, 51.2))
    assert any("a part of a site's spikes" in note for note in counts.notes)
    found = cost.estimate(counts, profile())
    assert "13 (12.8), of 0 (0) to 51 (51.2)" in found.table()


def test_the_states_of_a_loop_may_leave_out_its_quietest_iteration():
    """The states before each of two steps: the first, of another site, and what step one made."""

    def states(a, c):
        rows = cost.spikes(a, "a").reshape(2, 3, 4)
        before = lax.scan(lambda state, row: (row, state), cost.spikes(c, "c"), rows)[1]
        return before.reshape(6, 4) @ jnp.ones((4, 1))

    counts = cost.trace(states, shape(6, 4), shape(3, 4))
    a, c = np.zeros((6, 4)), np.zeros((3, 4))
    a[:3], c[0] = 1, 1
    rated = counts.with_rates({"a": a.mean(), "c": c.mean()})
    assert hold(rated.acs_bounds, c.sum() + a[:3].sum())


def test_a_convolution_meets_no_input_more_often_than_its_taps():
    """3 x 3 taps with stride 2 over 8 x 8: an input meets at most 4 of them."""

    def strided(x, kernel):
        return lax.conv_general_dilated(cost.spikes(x, "a"), kernel, (2, 2), "VALID")

    counts = cost.trace(strided, shape(1, 1, 8, 8), shape(1, 1, 3, 3))
    x = np.zeros((1, 1, 8, 8), np.float32)
    x[..., 2:5:2, 2:5:2] = 1
    happens = float(strided(jnp.asarray(x), jnp.ones((1, 1, 3, 3))).sum())
    assert happens == 4 * 4
    bounds = counts.with_rates({"a": 4 / 64}).acs_bounds
    assert hold(bounds, happens)
    assert bounds.high == pytest.approx(4 * 4)


def test_both_ends_are_reached():
    """Of OR and AND: one array in the other, or beside it where there is room."""
    inside, beside = np.arange(10) < 6, np.arange(10) >= 7
    within = np.arange(10) < 3
    for a, b in ((inside, within), (inside, beside)):
        known = {"a": a.mean(), "b": b.mean()}
        ends = [f(*map(rates.of_site, "ab")).bounds(known) for f in (rates.any_, rates.all_)]
        for found, end in zip(ends, ((a | b).mean(), (a & b).mean()), strict=True):
            assert any(abs(end - e) < 1e-12 for e in found)


def test_a_product_of_spikes_that_all_meet():
    """Queries and keys that fire at the same features: of 4 x 8 x 4 pairs half are both there."""
    q = np.zeros((4, 8))
    q[:, :4] = 1
    counts = cost.trace(
        lambda q, k: cost.spikes(q, "q") @ cost.spikes(k, "k").T, shape(4, 8), shape(4, 8)
    )
    rated = counts.with_rates({"q": 0.5, "k": 0.5})
    assert rated.acs_bounds == (0, 64)
    assert (q @ q.T).sum() == 64
    q[:, :4], k = 0, q.copy()
    q[:, 4:] = 1
    assert (q @ k.T).sum() == 0


def test_a_site_of_unknown_rate_saves_nothing_by_its_complement():
    silent = lambda x: jnp.where(cost.spikes(x, "a") > 0, 0.0, 1.0) @ jnp.ones((8, 8))
    counts = cost.trace(silent, shape(4, 8))
    assert counts.acs_bounds == (0, 256)
    assert counts.with_rates({"a": 1.0}).acs == 0
    assert counts.with_rates({"a": 0.0}).acs == 256


def test_combinations_over_links_have_bounds_too():
    both = lambda x, y: lax.ppermute(
        jnp.maximum(cost.spikes(x, "a"), cost.spikes(y, "b")), "x", [(0, 1), (1, 0)]
    )
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    step = jax.shard_map(both, mesh=mesh, in_specs=P("x"), out_specs=P("x"))
    counts = cost.trace(step, shape(8, 8), shape(8, 8), rates={"a": 0.25, "b": 0.5})
    (row,) = cost.estimate(counts, profile(), cut=cost.Cut(32, 1)).traffic
    assert (row.least, row.rate) == (0.5, 0.75)
    assert row.bytes["events"] == 2 * 0.75 * 32 * 5 / 8
    assert row.bytes["entropy"] == 2 * 32 / 8  # H(1/2), the most of that range


def test_a_permutation_that_leaves_devices_out_sends_zeros_to_them():
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    hop = lambda x: lax.ppermute(cost.spikes(x, "a"), "x", [(0, 1)]) @ jnp.ones((8, 8))
    step = jax.shard_map(hop, mesh=mesh, in_specs=P("x"), out_specs=P("x"))
    counts = cost.trace(step, shape(8, 8), rates={"a": 0.25})
    assert counts.acs_bounds == (0, 4 * 8 * 8 / 4)


def test_both_ends_are_printed():
    counts = Counts(
        4,
        {"stage": 4},
        ops=(op("spike_spike", 1000, sites=("q", "k")),),
        transfers=(send(8, LINE4, symbol="spikes", sites=("q",), elements=8),),
    ).with_rates({"q": 0.5, "k": 0.75})
    found = cost.estimate(counts, profile())
    assert found.acs == 4 * 500
    assert "2,000 (2 k), of 1,000 (1 k) to 2,000 (2 k)" in found.table()
    assert found.to_dict()["acs_range"] == [1000, 2000]
    (row,) = found.to_dict()["traffic"]
    assert row["rate_range"] == [0.5, 0.5]
    assert any(
        "leave 1,000 to 2,000 accumulates open, and 2,000 are priced" in note
        for note in found.notes
    )
    assert "accumulates open" in found.html()


def test_a_long_expression_says_nothing_instead_of_growing():
    found = rates.of_site("a")
    for _ in range(200):
        found = rates.any_(found, rates.all_(found, rates.of_site("b")))
        assert found.size <= rates.LARGEST
    assert found.bounds({"a": 0.1, "b": 0.1}).high == 1
