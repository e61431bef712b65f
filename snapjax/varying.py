"""Casts between the manual axes that values vary over inside `jax.shard_map`."""

from collections.abc import Iterable
from typing import Any

import jax
from jax import lax


def vary_over(tree: Any, axes: Iterable[str]) -> Any:
    """The same tree, every leaf cast to vary over `axes` too, where it does not already."""
    wanted = frozenset(axes)

    def cast(leaf: Any) -> Any:
        missing = tuple(sorted(wanted - _axes(leaf), key=str))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, tree)


def manual_axes() -> tuple[str, ...]:
    """The mesh axes of the `shard_map` this is called in, sorted; none outside of one.

    Unlike the axes that a value varies over, these are known under `check_vma=False` too.
    """
    return tuple(sorted(jax.sharding.get_abstract_mesh().manual_axes))


def match_varying(*trees: Any) -> tuple[Any, ...]:
    """The same trees, every leaf cast to vary over the union of the axes that any leaf varies over.

    `lax.scan` wants its carry, and a `custom_vjp` wants each cotangent and its argument, to vary
    over the same axes. The transpose of the cast sums over the axes that were added, so the
    gradient of a parameter shared by the devices is summed over them without a hand-written psum.
    Outside of `shard_map`, and under `check_vma=False`, nothing varies and nothing changes.

    Args:
      trees: pytrees of arrays or Python numbers, of any shapes and dtypes.

    Returns:
      A tuple with one tree an argument.
    """
    leaves = jax.tree.leaves(trees)
    union = frozenset[Any]().union(*(_axes(leaf) for leaf in leaves))
    return tuple(vary_over(tree, union) for tree in trees)


def _axes(value: Any) -> frozenset[Any]:
    return jax.typeof(value).mat.varying
