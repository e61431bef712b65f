"""The plan against brute force, and gather/scatter against numpy indexing."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapjax.codes import plan

# Jitted: one compilation a shape instead of one an operation.
gather = jax.jit(plan.gather, static_argnums=2)
scatter = jax.jit(plan.scatter)
# (features, of which are sent): every new pair compiles once.
ROOM = [(1, 1), (2, 1), (2, 2), (9, 1), (9, 5), (9, 9), (40, 1), (40, 8), (40, 39), (40, 40)]


def total(error, steps):
    return sum(error[n, i] for i, n in enumerate(steps))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 18), st.integers(0, 2**32 - 1))
def test_plan_is_optimal_among_all_plans_within_the_budget(features, most, budget, seed):
    # Any error table, monotone or not: a rate code's first step can be worth less than its second.
    error = np.random.default_rng(seed).exponential(size=(most + 1, features))
    steps = plan.optimal_steps(error, budget)
    assert steps.shape == (features,)
    assert steps.dtype == np.int32
    assert steps.min() >= 0
    assert steps.max() <= most
    assert steps.sum() <= budget
    every = itertools.product(range(most + 1), repeat=features)
    best = min(total(error, other) for other in every if sum(other) <= budget)
    np.testing.assert_allclose(total(error, steps), best, rtol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 8), st.integers(0, 2**32 - 1))
def test_plan_is_no_worse_than_any_uniform_assignment(features, most, share, seed):
    rng = np.random.default_rng(seed)
    # Rate-distortion curves of features of very different variance.
    error = rng.exponential(size=features) ** 3 * 4.0 ** -np.arange(most + 1)[:, None]
    share = min(share, most)
    steps = plan.optimal_steps(error, features * share)
    assert total(error, steps) <= total(error, [share] * features) + 1e-12


def test_greedy_water_filling_is_worse_where_curves_are_not_convex():
    # The reason for solving the knapsack: greedy buys feature 1's first step and then lacks the
    # budget for feature 0's second, which is where its gain lies.
    error = np.array([[10.0, 3.0], [10.0, 2.0], [0.0, 1.5]])
    np.testing.assert_array_equal(plan.optimal_steps(error, 2), [2, 0])


def test_uniform_steps_spread_the_budget_and_respect_the_most():
    np.testing.assert_array_equal(plan.uniform_steps(5, steps=2, budget=7), [2, 2, 1, 1, 1])
    np.testing.assert_array_equal(plan.uniform_steps(3, steps=2, budget=99), [2, 2, 2])


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(ROOM), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_gather_then_scatter_keeps_what_the_mask_allows(room, spare, seed):
    n, size = room
    rng = np.random.default_rng(seed)
    mask = np.zeros(n, bool)
    mask[rng.permutation(n)[: max(0, size - spare)]] = True
    values = rng.standard_normal((3, n)).astype(np.float32)
    packed = np.asarray(gather(jnp.asarray(values), jnp.asarray(mask), size))
    if size < n:  # with room for all, positions stay
        np.testing.assert_array_equal(packed[:, : mask.sum()], values[:, mask])
    assert packed.shape == (3, size)
    back = scatter(jnp.asarray(packed), jnp.asarray(mask))
    np.testing.assert_array_equal(back, np.where(mask, values, 0))


@pytest.mark.parametrize(
    ("error", "budget", "message"),
    [
        (np.zeros(3), 1, "steps \\+ 1, features"),
        (np.full((2, 2), np.nan), 1, "non-finite"),
        (np.zeros((2, 2)), -1, "budget=-1"),
    ],
)
def test_bad_input(error, budget, message):
    with pytest.raises(ValueError, match=message):
        plan.optimal_steps(error, budget)
