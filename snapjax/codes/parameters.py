"""Parameters of boundaries: what is trained and what is not, and whether they fit.

A boundary's parameters are {"encoder": {...}, "decoder": {...}}; the integer leaves
("steps_per_feature", the plan, which both ends hold) are fixed data, all others are trained.
"""

import reprlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snapjax.codes.code import SPIKE_CODES
from snapjax.codes.spike_code import STEPS_IN_MARK, Params, SpikeCode

RECORDS = ("code",)
"""What parameters tell of themselves; those of version 0.1.0 do not."""

NOT_RECORDED = 0
"""The mark of parameters whose code is not known; only their shapes and plans are checked."""


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
    trainable = lambda leaf: jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
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


def check_structure(what: str, expected: Any, params: Any, lead: int = 0) -> None:
    """Raises ValueError that lists every parameter that is missing, unknown, or of another shape.

    Args:
      what: the boundary, for the error.
      expected: tree of arrays or `ShapeDtypeStruct`s.
      params: to be checked; tracers will do. What is in `RECORDS` may be missing.
      lead: leading axes that `params` have in addition.
    """
    if not _is_two_ends(params):
        raise ValueError(
            f"Boundary: params={reprlib.repr(params)} must be {{'encoder': ..., 'decoder': ...}} "
            "with arrays by name, as `Boundary.init` makes them"
        )
    shapes = lambda tree: {
        f"{end}/{name}": tuple(leaf.shape) for end in tree for name, leaf in tree[end].items()
    }
    want, got = shapes(expected), shapes(params)
    optional = {name for name in want if name.rpartition("/")[2] in RECORDS}
    wrong = [
        f"{name}: needs {want.get(name, 'nothing')}, got {got.get(name, 'nothing')}"
        for name in sorted(want.keys() - (optional - got.keys()) | got.keys())
        if name not in want or name not in got or got[name][lead:] != want[name]
    ]
    if wrong:
        raise ValueError(f"Boundary: parameters do not fit {what}; {'; '.join(wrong)}")
    for end in params:
        for name, leaf in params[end].items():
            kind = jnp.floating if expected[end][name].dtype == jnp.float32 else jnp.integer
            if not jnp.issubdtype(leaf.dtype, kind):
                raise ValueError(
                    f"Boundary: {end}/{name} has dtype {leaf.dtype}, needs "
                    f"{expected[end][name].dtype}. Of the parameters cast those alone that "
                    "`split_plan` calls trainable; a plan counts steps"
                )


def leading_axes(params: Any) -> int:
    """How many axes of several stacked boundaries parameters of a spike code have, 0 of one."""
    end = params.get("encoder") if isinstance(params, Mapping) else None
    return max(0, np.ndim(end.get("steps_per_feature", 0)) - 1) if isinstance(end, Mapping) else 0


def has_concrete_plan(params: dict[str, Params]) -> bool:
    """Whether the plans are numbers, and not traced by `jax.jit` and the like."""
    return not any(
        isinstance(leaf, jax.core.Tracer)
        for end in params.values()
        for name, leaf in end.items()
        if name in ("steps_per_feature", *RECORDS)
    )


def _is_two_ends(params: Any) -> bool:
    if not isinstance(params, Mapping) or params.keys() != {"encoder", "decoder"}:
        return False
    return all(
        isinstance(end, Mapping) and all(hasattr(leaf, "shape") for leaf in end.values())
        for end in params.values()
    )


def check_code(name: str, code: SpikeCode, params: dict[str, Params]) -> None:
    """Raises ValueError for parameters that were made for another code, or for other steps.

    Args:
      name: of the code.
      code: that they are meant for.
      params: of one boundary, or of several stacked along a leading axis; concrete.
    """
    for end in ("encoder", "decoder"):
        marks = set(np.asarray(params[end].get("code", 0)).reshape(-1).tolist())
        if wrong := sorted(marks - {code.mark, NOT_RECORDED}):
            raise ValueError(
                f"Boundary: code={name!r}, steps={code.steps} got parameters of "
                f"{', '.join(map(_named, wrong))} at the {end}: their numbers mean something else; "
                "use the boundary that they were made by, or `init` and `calibrate` for this one"
            )


def _named(mark: int) -> str:
    number, steps = divmod(mark, STEPS_IN_MARK)
    names = {kind.number: name for name, kind in SPIKE_CODES.items()}
    return f"code={names.get(number, number)!r}, steps={steps}"


def check_finite(params: dict[str, Params]) -> None:
    """Raises ValueError that names every parameter that holds NaN or infinity; concrete ones."""
    wrong = [
        f"{end}/{name}"
        for end, tree in params.items()
        for name, leaf in tree.items()
        if not np.isfinite(np.asarray(leaf)).all()
    ]
    if wrong:
        raise ValueError(
            f"Boundary: parameters are not finite: {', '.join(wrong)}. Spikes would hide it; load "
            "an earlier checkpoint, or calibrate anew"
        )


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


def plan_digest(end: Params) -> jax.Array:
    """Code and plan of one end as a number, uint32 and never 0; plans that differ rarely share one.

    Traceable, for two ends on two devices, which hold a copy of the plan each: a sum in which every
    feature has its own odd multiplier, a power of the FNV prime.
    """
    steps = end["steps_per_feature"].astype(jnp.uint32)
    multiplier = np.cumprod(np.full(steps.shape[-1], 0x01000193, np.uint32), dtype=np.uint32)
    code = jnp.asarray(end.get("code", NOT_RECORDED)).astype(jnp.uint32)
    return (steps * multiplier).sum(dtype=jnp.uint32) * 2 + code * 2 | 1
