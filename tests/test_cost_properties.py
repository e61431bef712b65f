"""What counts must obey whatever the program: sums, loops, batches, dead code, splits."""

import jax
import jax.numpy as jnp
import pytest
from cost_bodies import ROW, on_mesh
from cost_programs import shape
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import PartitionSpec as P

from snapjax import cost
from snapjax.cost.count.collectives import sends
from snapjax.neurons.surrogate import spike

sizes = st.integers(1, 6)
quickly = settings(deadline=None, max_examples=25)

# Functions of a (rows, width) array to one of the same shape and dtype.
STEPS = {
    "product": lambda x: x @ jnp.ones((x.shape[1], x.shape[1])),
    "tanh": jnp.tanh,
    "norm": lambda x: x / (1 + jnp.abs(x).sum(1, keepdims=True)),
    "sort": lambda x: lax.sort(x, dimension=1),
    "spikes": lambda x: spike(x) @ jnp.ones((x.shape[1], x.shape[1])),
    "gather": lambda x: x.at[:, ::-1].get(),
    "branch": lambda x: lax.cond(x.sum() > 0, lambda: x @ x.T @ x, lambda: x * 2),
    "loop": lambda x: lax.fori_loop(0, 3, lambda i, y: y * x, x),
    "remat": jax.checkpoint(lambda x: jnp.sin(x) * x),
}
chains = st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4)


def chain(names):
    def run(x):
        for name in names:
            x = STEPS[name](x)
        return x

    return run


@quickly
@given(chains, chains, sizes, sizes)
def test_counts_of_one_after_the_other_add_up(first, second, rows, width):
    x = shape(rows, width)
    both = cost.trace(lambda x: chain(second)(chain(first)(x)), x)
    added = cost.trace(chain(first), x) + cost.trace(chain(second), x)
    assert both.by_kind() == added.by_kind()
    assert both.sites == added.sites
    for total in (both, added):
        assert total.by_path() == {} or sum(total.by_path().values()) == total.macs


@quickly
@given(chains, sizes, sizes, st.integers(1, 9), st.integers(1, 9))
def test_counts_grow_with_the_length_of_a_scan(names, rows, width, short, long):
    def repeated(length):
        step = lambda x, _: (chain(names)(x), None)
        return cost.trace(lambda x: lax.scan(step, x, None, length=length)[0], shape(rows, width))

    first, second = repeated(short), repeated(long)
    for kind in cost.counts.KINDS:
        assert first.total(kind) * long == second.total(kind) * short
    if min(short, long) > 1:  # one iteration is no loop, and fuses with what is around it
        assert first.stored_bytes * long == pytest.approx(second.stored_bytes * short)


@quickly
@given(chains, st.integers(1, 5), sizes, sizes)
def test_counts_grow_with_the_batch(names, batch, rows, width):
    # A branch that differs from sample to sample is taken both ways by vmap.
    run = chain([name for name in names if name != "branch"])
    one, many = (
        cost.trace(run, shape(rows, width)),
        cost.trace(jax.vmap(run), shape(batch, rows, width)),
    )
    assert many.total(*cost.counts.MATMUL_KINDS) == batch * one.total(*cost.counts.MATMUL_KINDS)
    for kind in ("transcendental", "divide", "compare"):
        assert many.total(kind) == batch * one.total(kind)


@quickly
@given(chains, chains, sizes, sizes)
def test_dead_code_costs_nothing(alive, dead, rows, width):
    def wasteful(x):
        chain(dead)(x + 1)
        return chain(alive)(x)

    x = shape(rows, width)
    with_dead, without = cost.trace(wasteful, x), cost.trace(chain(alive), x)
    assert with_dead.by_kind() == without.by_kind()
    assert with_dead.stored_bytes == without.stored_bytes


@quickly
@given(chains, sizes)
def test_a_batch_over_8_devices_costs_each_an_eighth(names, width):
    run = chain([name for name in names if name != "branch"])
    split = cost.trace(on_mesh(ROW, jax.vmap(run), P("x"), P("x")), shape(16, 3, width))
    whole = cost.trace(jax.vmap(run), shape(16, 3, width))
    assert split.global_macs == whole.macs
    assert 8 * split.macs == whole.macs


@quickly
@given(st.lists(st.integers(2, 5), min_size=1, max_size=3), st.integers(1, 1000))
def test_phases_over_several_axes_send_what_one_ring_would(axes, blocks):
    n = 1
    for size in axes:
        n *= size
    payload = blocks * n
    ring = {
        "psum": 2 * (n - 1) / n * payload,
        "all_gather": (n - 1) * payload,
        "reduce_scatter": (n - 1) / n * payload,
    }
    for name, expected in ring.items():
        assert sum(sends(name, payload, axes)[0]) == pytest.approx(expected)


@quickly
@given(sizes, sizes, st.floats(0, 1), st.floats(0, 1))
def test_accumulates_grow_with_the_rate(rows, width, low, high):
    low, high = sorted((low, high))
    counts = cost.trace(STEPS["spikes"], shape(rows, width))
    assert counts.with_rates({"spike": low}).acs <= counts.with_rates({"spike": high}).acs
    assert counts.with_rates({"spike": 1}).acs == counts.macs
