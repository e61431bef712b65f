"""What a tree of arrays holds, entry by entry, and the differences between two trees."""

from typing import Any

import jax
import numpy as np

Entries = dict[str, tuple[str, tuple[int, ...]]]  # path in the tree -> (dtype, shape)


def entries_of(what: str, tree: Any) -> Entries:
    """Dtype and shape of every leaf of a tree of parts by its path, "params/blocks/kernel".

    Args:
      what: name of the tree in errors.
      tree: a dict of named parts, each a nested str-keyed dict of arrays or ShapeDtypeStructs.

    Raises:
      ValueError: a tree that cannot be saved, naming the entry.
    """
    entries: Entries = {}

    def walk(prefix: tuple[str, ...], node: Any) -> None:
        where = "/".join(prefix)
        if isinstance(node, dict):
            for key, child in node.items():
                # Orbax joins keys by ".", and then mixes up {"a.b": x} and {"a": {"b": y}}.
                if not isinstance(key, str) or not key or set(key) & set("./"):
                    raise ValueError(
                        f"{what}: key {key!r} below {where!r} must be a string without '.' and '/'"
                    )
                walk((*prefix, key), child)
        elif not hasattr(node, "shape") or not hasattr(node, "dtype"):
            raise ValueError(f"{what}: {where!r} is a {type(node).__name__}, not an array")
        elif len(prefix) == 1:
            raise ValueError(
                f"{what}: {where!r} is an array, not a part; give named parts, "
                '{"params": {...}, "optimiser": {...}}'
            )
        elif 0 in node.shape:
            raise ValueError(f"{what}: {where!r} of shape {node.shape} is empty; leave it out")
        elif not _holds(node):
            raise ValueError(
                f"{what}: {where!r} has dtype {node.dtype}, which jax.Array cannot hold as numbers "
                "here; convert it (float64 to float32, a PRNG key by jax.random.key_data)"
            )
        else:
            entries[where] = (str(node.dtype), tuple(node.shape))

    if not isinstance(tree, dict):
        raise ValueError(
            f"{what} must be a dict of named parts, nested dicts of arrays, "
            f"got {type(tree).__name__}"
        )
    walk((), tree)
    if not entries:
        raise ValueError(f"{what} holds no array")
    return entries


def _holds(leaf: Any) -> bool:
    """Whether jax keeps the leaf's dtype: not 64 bits unless enabled, no text, no PRNG keys."""
    dtype = leaf.dtype
    if not isinstance(dtype, np.dtype) or dtype.kind in "OSUMm":
        return False
    host = isinstance(leaf, np.ndarray | np.generic)
    return not host or jax.dtypes.canonicalize_dtype(dtype) == dtype


def without_empty(tree: dict) -> dict:
    """The tree without its empty dicts (a code with no parameters), which Orbax would compare."""
    full = {k: without_empty(v) if isinstance(v, dict) else v for k, v in tree.items()}
    return {k: v for k, v in full.items() if not isinstance(v, dict) or v}


def differences(found: Entries, asked: Entries, source: str, target: str) -> list[str]:
    """One line for every entry in which two trees differ, after a line that counts them.

    Args:
      found, asked: the entries of the tree at hand and of the tree that is needed.
      source, target: what the two are called, e.g. "the file" and "the model".

    Returns:
      "1 missing, 0 unexpected, 0 different entries" and the lines; empty for equal trees.
    """

    def described(entries: Entries, name: str) -> str:
        dtype, shape = entries[name]
        return f"{dtype} {shape}"

    missing = [
        f"  missing: {name}: {target} has {described(asked, name)}"
        for name in sorted(asked.keys() - found.keys())
    ]
    unexpected = [
        f"  unexpected: {name}: {source} has {described(found, name)}"
        for name in sorted(found.keys() - asked.keys())
    ]
    different = [
        f"  different: {name}: {source} has {described(found, name)}, "
        f"{target} {described(asked, name)}"
        for name in sorted(found.keys() & asked.keys())
        if found[name] != asked[name]
    ]
    lines = missing + unexpected + different
    if not lines:
        return []
    return [
        f"{len(missing)} missing, {len(unexpected)} unexpected, {len(different)} different entries",
        *lines,
    ]
