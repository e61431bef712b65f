"""The plan: how many steps each feature gets, so that a token costs no more than its bit budget.

A plan is an int32 array `steps: (features,)`, 0 to T each. Feature i sends its first `steps[i]`
spike planes and nothing of the others. The budget is static, so shapes are; the plan is data, and
both ends of a link hold it.
"""

import jax
import jax.numpy as jnp
import numpy as np


def uniform_steps(features: int, steps: int, budget: int) -> np.ndarray:
    """The plan before calibration: `budget` steps spread evenly, int32 (features,).

    Example:
      >>> uniform_steps(4, steps=3, budget=6)
      array([2, 2, 1, 1], dtype=int32)
    """
    budget = min(budget, features * steps)
    share, rest = divmod(budget, features)
    return (share + (np.arange(features) < rest)).astype(np.int32)


def optimal_steps(error: np.ndarray, budget: int) -> np.ndarray:
    """The plan of least total error among all that use at most `budget` steps.

    Minimises `sum_i error[steps_i, i]` subject to `sum_i steps_i <= budget`: a multiple-choice
    knapsack, solved exactly by dynamic programming over the features (Sinha and Zoltners, 1979).
    Greedy water-filling, the usual shortcut, is optimal only where every error curve is convex, and
    measured curves are not: the first step of a rate code may buy less than its second.

    Args:
      error: (T + 1, features), expected error of each feature at 0 to T steps; finite.
      budget: steps a token, >= 0.

    Returns:
      int32 (features,), each in [0, T].
    """
    error = np.asarray(error, np.float64)
    if error.ndim != 2 or not np.isfinite(error).all():
        raise ValueError(
            f"error: needs a finite array (steps + 1, features), got shape {error.shape}"
            f"{'' if np.isfinite(error).all() else ' with non-finite entries'}"
        )
    if budget < 0:
        raise ValueError(f"budget={budget} steps must not be negative")
    options, features = error.shape
    if budget >= (options - 1) * features:  # nothing to share out: each feature its best
        return error.argmin(0).astype(np.int32)
    error = error - error[0]  # what steps change; a common error would drown small differences
    best = np.zeros(budget + 1)  # best[b]: least error of the features so far within b steps
    choice = np.zeros((features, budget + 1), np.int32)
    for feature in range(features):
        previous = best
        best = previous + error[0, feature]
        for steps in range(1, min(options - 1, budget) + 1):
            candidate = previous[: budget + 1 - steps] + error[steps, feature]
            better = candidate < best[steps:]
            best[steps:][better] = candidate[better]
            choice[feature, steps:][better] = steps
    plan = np.zeros(features, np.int32)
    left = budget
    for feature in reversed(range(features)):
        plan[feature] = choice[feature, left]
        left -= plan[feature]
    return plan


def planned(steps: jax.Array, step_of_plane: np.ndarray) -> jax.Array:
    """Which planes are sent: bool (planes, features), for `step_of_plane: (planes,)`."""
    return jnp.asarray(step_of_plane)[:, None] < steps[None, :]


def gather(values: jax.Array, mask: jax.Array, size: int) -> jax.Array:
    """Entries of `values: (..., n)` where `mask: (n,)`, in order, zero-filled to (..., size).

    `size` must be at least the number of true entries; what is beyond it would be lost.
    """
    if size == mask.shape[0]:
        return _keep(values, mask)
    return jnp.take(values, _positions(mask, size), axis=-1, mode="fill", fill_value=0)


def scatter(values: jax.Array, mask: jax.Array) -> jax.Array:
    """The inverse of `gather`: (..., size) back to (..., n), zeros where the mask is false."""
    size = values.shape[-1]
    if size == mask.shape[0]:
        return _keep(values, mask)
    every = jnp.arange(mask.shape[0], dtype=jnp.int32)
    position = jnp.where(mask, jnp.searchsorted(_positions(mask, size), every), size)
    return jnp.take(values, position, axis=-1, mode="fill", fill_value=0)


def _positions(mask: jax.Array, size: int) -> jax.Array:
    """Where the mask is true, ascending: (size,), past the last one the mask's length.

    A sort and a search, because XLA cannot fuse into them: it would compute a `cumsum` or `nonzero`
    again for every token that is gathered.
    """
    every = jnp.arange(mask.shape[0], dtype=jnp.int32)
    return jnp.sort(jnp.where(mask, every, mask.shape[0]))[:size]


def _keep(values: jax.Array, mask: jax.Array) -> jax.Array:
    """With room for every entry there is nothing to move: positions stay, the rest is zeroed."""
    mask = mask.reshape((1,) * (values.ndim - 1) + mask.shape)
    return jnp.where(mask, values, jnp.zeros_like(values))
