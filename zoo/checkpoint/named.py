"""Optimiser states as nested dicts, the form in which a checkpoint holds them, and back.

A state of optax is NamedTuples and tuples around trees like the parameters. By the names of fields,
the positions in tuples and the keys of dicts it becomes a nested dict such as
{"1": {"count": ..., "mu": {"head": {"kernel": ...}}}}; what holds no array (None, an empty state)
leaves no entry. The way back needs a state of the same structure, which `optimiser.init` gives.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.tree_util import DictKey, GetAttrKey, SequenceKey, keystr

from zoo.checkpoint.entries import Entries, differences


def tree_to_dict(tree: Any) -> dict[str, Any]:
    """A tree of NamedTuples, tuples, lists, dicts and None as nested str-keyed dicts.

    Args:
      tree: of arrays or jax.ShapeDtypeStructs, e.g. of `jax.eval_shape(optimiser.init, params)`.
        PRNG keys become their uint32 data.

    Raises:
      ValueError: the tree is a single array, or holds a node or a dict's key without a name that a
        checkpoint can hold (a string without "." and "/").

    Example:
      >>> import optax
      >>> state = optax.sgd(0.1, momentum=0.9).init({"kernel": np.ones(2, np.float32)})
      >>> sorted(tree_to_dict(state)), sorted(tree_to_dict(state)["0"])
      (['0'], ['trace'])
    """
    result: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not path:
            raise ValueError(f"tree is a single {type(leaf).__name__}; give a tree with names")
        *parents, last = (_name(key, path) for key in path)
        node = result
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = _data(leaf)
    return result


def dict_to_tree(named: dict[str, Any], like: Any) -> Any:
    """The inverse of `tree_to_dict`: the arrays of `named` in the structure of `like`.

    Args:
      named: nested dict, as `tree_to_dict` makes it.
      like: a tree of the structure, dtypes and shapes that are wanted, of arrays or
        jax.ShapeDtypeStructs. Its values are not used.

    Raises:
      ValueError: lists every missing, unexpected and differing entry.
    """
    found = _flat(named)
    asked = _flat(tree_to_dict(like))
    lines = differences(_entries(found), _entries(asked), "the dict", "the tree")
    if lines:
        raise ValueError("\n".join([f"named does not fit like: {lines[0]}", *lines[1:]]))

    def put(path: Any, leaf: Any) -> Any:
        data = found["/".join(_name(key, path) for key in path)]
        return jax.random.wrap_key_data(data, impl=_key_type(leaf)) if _is_key(leaf) else data

    return jax.tree_util.tree_map_with_path(put, like)


def _name(key: Any, path: Any) -> str:
    if isinstance(key, GetAttrKey):
        return key.name
    if isinstance(key, SequenceKey):
        return str(key.idx)
    of_dict = isinstance(key, DictKey) and isinstance(key.key, str)
    if of_dict and key.key and not set(key.key) & set("./"):
        return key.key
    raise ValueError(
        f"tree: {keystr(path)} cannot be saved by name: {key} is no field, position or dict key "
        "that is a string without '.' and '/'"
    )


def _flat(named: dict[str, Any]) -> dict[str, Any]:
    """Every leaf by its path, "mu/head/kernel"."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, node: dict[str, Any]) -> None:
        for key, child in node.items():
            if isinstance(child, dict):
                walk(f"{prefix}{key}/", child)
            else:
                flat[f"{prefix}{key}"] = child

    walk("", named)
    return flat


def _entries(flat: dict[str, Any]) -> Entries:
    return {name: (str(leaf.dtype), tuple(leaf.shape)) for name, leaf in flat.items()}


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> Any:
    """The leaf, as an array of numbers."""
    if not hasattr(leaf, "dtype"):
        return np.asarray(leaf)
    if not _is_key(leaf):
        return leaf
    of: Callable[[Any], Any] = jax.random.key_data
    return jax.eval_shape(of, leaf) if isinstance(leaf, jax.ShapeDtypeStruct) else of(leaf)


def _key_type(leaf: Any) -> Any:
    """The implementation of a PRNG key, of an abstract one as well."""
    found = []

    def look(key: Any) -> Any:
        found.append(jax.random.key_impl(key))
        return jax.random.key_data(key)

    jax.eval_shape(look, leaf)
    return found[0]
