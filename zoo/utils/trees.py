"""Trees of parameters as flat dicts and back."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snapjax.parallel.sharding import path_name

Params = dict[str, Any]


def flatten(params: Params) -> dict[str, Any]:
    """Nested dicts as one, with names such as "blocks.attention.query.kernel"."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, node: Any) -> None:
        if isinstance(node, Mapping):
            for key, child in node.items():
                walk(f"{prefix}.{key}" if prefix else key, child)
        else:
            flat[prefix] = node

    walk("", params)
    return flat


def unflatten(flat: Mapping[str, Any], like: Params) -> Params:
    """The inverse of `flatten`, in the shape of `like`.

    Raises:
      ValueError: one error that lists every name that is missing, unknown or of another shape.
    """
    want = flatten(like)
    wrong = [
        f"{name}: the model has {getattr(want.get(name), 'shape', 'no such parameter')}, "
        f"the file {getattr(flat.get(name), 'shape', 'no such tensor')}"
        for name in sorted(want.keys() | flat.keys())
        if name not in want or name not in flat or want[name].shape != flat[name].shape
    ]
    if wrong:
        raise ValueError("the weights do not fit the model\n  " + "\n  ".join(wrong))
    leaves = {name: jnp.asarray(flat[name]).astype(want[name].dtype) for name in want}

    def build(prefix: str, node: Any) -> Any:
        if not isinstance(node, Mapping):
            return leaves[prefix]
        return {key: build(f"{prefix}.{key}" if prefix else key, node[key]) for key in node}

    return build("", like)


def not_finite(tree: Any) -> list[str]:
    """Paths of the floating-point leaves that hold NaN or infinity, in the tree's order."""
    return [
        path_name(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if np.asarray(leaf).dtype.kind not in "biu" and not np.isfinite(np.asarray(leaf)).all()
    ]


def listed(names: list[str], shown: int = 4) -> str:
    """Names for a message, the first few where there are many."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
