"""The cast to common manual axes: which axes, which values, and its transpose."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from snapjax.varying import match_varying

MESH = jax.make_mesh((2, 4), ("x", "y"), axis_types=(AxisType.Auto,) * 2)


def test_changes_nothing_outside_of_shard_map():
    tree = {"a": jnp.ones(3), "b": (2.0, None)}
    assert match_varying(tree, 1)[0]["a"] is tree["a"]
    assert match_varying(tree, 1) == (tree, 1)


def test_casts_every_leaf_to_the_union_of_axes():
    seen = {}

    @partial(
        jax.shard_map,
        mesh=MESH,
        in_specs=(PartitionSpec("x"), PartitionSpec("y"), PartitionSpec()),
        out_specs=PartitionSpec("x", "y"),
    )
    def function(x, y, shared):
        trees = match_varying({"x": x, "y": y}, (shared, 1.0))
        for leaf in jax.tree.leaves(trees):
            seen[len(seen)] = jax.typeof(leaf).mat.varying
        (tree, (shared, number)) = trees
        return (tree["x"] * tree["y"] * shared * number)[:, None]

    out = function(jnp.arange(2.0), jnp.arange(4.0), jnp.float32(3))
    np.testing.assert_array_equal(out, 3 * np.outer(np.arange(2), np.arange(4)))
    assert list(seen.values()) == [frozenset({"x", "y"})] * 4


def test_the_gradient_of_a_shared_value_is_summed_over_the_devices():
    @partial(
        jax.shard_map,
        mesh=MESH,
        in_specs=(PartitionSpec("x", "y"), PartitionSpec()),
        out_specs=PartitionSpec(),
    )
    def loss(x, shared):
        x, shared = match_varying(x, shared)
        return jax.lax.psum(jnp.sum(x * shared), ("x", "y"))

    x = np.arange(32, dtype=np.float32).reshape(4, 8)
    assert float(jax.grad(loss, argnums=1)(x, jnp.float32(2))) == x.sum()
