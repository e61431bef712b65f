"""Parameters of boundaries: what is trained and what is not, and whether they fit.

A boundary's parameters are {"encoder": {...}, "decoder": {...}}; the integer leaves
("steps_per_feature", the plan, which both ends hold) are fixed data, all others are trained.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snapjax.codes.spike_code import Params, SpikeCode


def split_plan(params: Any) -> tuple[Any, Any]:
    """Parameters as (trainable, plans): two trees of the same structure, None where the other has
    the leaf. Plans are the integer leaves; `merge_plan` puts the two together again.

    Example:
      >>> trainable, plans = split_plan({"gain": np.ones(2), "steps_per_feature": np.array([1, 2])})
      >>> trainable
      {'gain': array([1., 1.]), 'steps_per_feature': None}
      >>> plans
      {'gain': None, 'steps_per_feature': array([1, 2])}
    """
    trainable = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.inexact)
    return (
        jax.tree.map(lambda leaf: leaf if trainable(leaf) else None, params),
        jax.tree.map(lambda leaf: None if trainable(leaf) else leaf, params),
    )


def merge_plan(trainable: Any, plans: Any) -> Any:
    """The inverse of `split_plan`."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, trainable, plans, is_leaf=lambda leaf: leaf is None
    )


def count_trainable(params: Any) -> int:
    """Number of trainable parameters in a tree of arrays or shapes."""
    trainable, _ = split_plan(params)
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(trainable))


def check_structure(what: str, expected: Any, params: dict[str, Params], lead: int = 0) -> None:
    """Raises ValueError that lists every parameter that is missing, unknown, or of another shape.

    Args:
      what: the boundary, for the error.
      expected: tree of arrays or `ShapeDtypeStruct`s.
      params: to be checked; tracers will do.
      lead: leading axes that `params` have in addition.
    """
    shapes = lambda tree: {
        f"{end}/{name}": tuple(leaf.shape) for end in tree for name, leaf in tree[end].items()
    }
    want, got = shapes(expected), shapes(params)
    wrong = [
        f"{name}: needs {want.get(name, 'nothing')}, got {got.get(name, 'nothing')}"
        for name in sorted(want.keys() | got.keys())
        if name not in want or name not in got or got[name][lead:] != want[name]
    ]
    if wrong:
        raise ValueError(f"Boundary: parameters do not fit {what}; {'; '.join(wrong)}")


def check_plan(code: SpikeCode, params: dict[str, Params], most_kept: int) -> None:
    """Raises ValueError for plans that the code or the gradient's width cannot hold.

    Args:
      code: with its steps and budget.
      params: of one boundary, or of several stacked along a leading axis; concrete.
      most_kept: features that the gradient wire has room for.
    """
    steps, received = (
        np.asarray(params[end]["steps_per_feature"]) for end in ("encoder", "decoder")
    )
    if (steps != received).any():
        raise ValueError("Boundary: encoder and decoder hold different plans ('steps_per_feature')")
    used, kept = steps.sum(-1).max() * code.planes_per_step, (steps > 0).sum(-1).max()
    if steps.min() < 0 or steps.max() > code.steps or used > code.budget:
        raise ValueError(
            f"Boundary: a plan with {steps.min()} to {steps.max()} steps a feature and {used} bits "
            f"does not fit steps={code.steps} and budget={code.budget}"
        )
    if kept > most_kept:
        raise ValueError(
            f"Boundary: a plan keeps {kept} features, more than kept_features={most_kept}; their "
            "gradient would be lost: use a boundary with kept_features=None, then `shrink_to_plan`"
        )
