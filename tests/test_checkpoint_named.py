"""States of optax as nested dicts and back, through a checkpoint, exactly."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zoo.checkpoint import dict_to_tree, load, save, tree_to_dict

PARAMS = {
    "embed": {"kernel": jnp.linspace(-1, 1, 12).reshape(3, 4)},
    "head": {"bias": jnp.arange(4.0), "scale": jnp.asarray(2.0)},
}


def decayed(params):
    return jax.tree.map(lambda x: x.ndim > 1, params)


OPTIMISERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adamw": optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(optax.cosine_decay_schedule(1e-3, 10), mask=decayed),
    ),
    "lion": optax.lion(1e-3, mu_dtype=jnp.bfloat16),
    "adafactor": optax.adafactor(1e-3, min_dim_size_to_factor=2),
    "injected": optax.inject_hyperparams(optax.adam)(optax.linear_schedule(1e-3, 0.0, 10)),
    "groups": optax.partition(
        {"slow": optax.adam(1e-4), "fast": optax.sgd(1e-1), "fixed": optax.set_to_zero()},
        {"embed": "slow", "head": {"bias": "fast", "scale": "fixed"}},
    ),
    "accumulated": optax.MultiSteps(optax.adam(1e-3), 2),
    "skipping": optax.apply_if_finite(optax.adam(1e-3), 3),
    "noisy": optax.chain(optax.add_noise(0.1, 0.5, key=3), optax.scale(-0.1)),
}


def equal(left, right) -> None:
    """Same structure, dtypes and bits."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_states_come_back_exactly_through_a_checkpoint(tmp_path, name):
    optimiser = OPTIMISERS[name]
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integers and floats
        state, params = optimiser.init(PARAMS), PARAMS
        like = jax.eval_shape(optimiser.init, PARAMS)
        for seed in range(2):
            draw = lambda x, seed=seed: jax.random.normal(jax.random.key(seed), x.shape, x.dtype)
            updates, state = optimiser.update(jax.tree.map(draw, params), state, params)
            params = optax.apply_updates(params, updates)
    named = tree_to_dict(state)
    equal(dict_to_tree(named, state), state)

    save(tmp_path, {"params": params, "optimiser": named}, {})
    # A new process has shapes and no arrays.
    shapes = jax.eval_shape(lambda: PARAMS)
    tree, _ = load(tmp_path, {"params": shapes, "optimiser": tree_to_dict(like)})
    equal(dict_to_tree(tree["optimiser"], like), state)
    equal(tree["params"], params)


class Moments(NamedTuple):
    count: int
    mean: dict
    rest: tuple


def test_entries_are_named_by_field_position_and_key():
    tree = Moments(
        count=np.int32(3),
        mean={"kernel": np.ones(2), "bias": None},
        rest=(optax.EmptyState(), [np.zeros(1), (), {"x": np.ones(1)}], None),
    )
    named = tree_to_dict(tree)
    assert jax.tree.map(np.shape, named, is_leaf=lambda x: hasattr(x, "shape")) == {
        "count": (),
        "mean": {"kernel": (2,)},
        "rest": {"1": {"0": (1,), "2": {"x": (1,)}}},
    }
    equal(dict_to_tree(named, tree), tree)
    assert tree_to_dict(optax.EmptyState()) == tree_to_dict(None) == tree_to_dict(()) == {}
    assert dict_to_tree({}, (optax.EmptyState(), None)) == (optax.EmptyState(), None)


def test_keys_of_every_kind_come_back():
    for kind in ("threefry2x32", "rbg"):
        tree = {"key": jax.random.split(jax.random.key(7, impl=kind), 2)}
        named = tree_to_dict(tree)
        assert named["key"].dtype == jnp.uint32
        for like in (tree, jax.eval_shape(lambda tree=tree: tree)):
            equal(dict_to_tree(named, like), tree)


def test_another_state_is_refused_with_every_difference():
    saved = tree_to_dict(optax.adam(1e-3).init({"w": jnp.ones(2), "old": jnp.ones(1)}))
    like = optax.adam(1e-3).init({"w": jnp.ones(3), "new": jnp.ones(1)})
    with pytest.raises(ValueError, match="named does not fit like") as caught:
        dict_to_tree(saved, like)
    assert str(caught.value).splitlines() == [
        "named does not fit like: 2 missing, 2 unexpected, 2 different entries",
        "  missing: 0/mu/new: the tree has float32 (1,)",
        "  missing: 0/nu/new: the tree has float32 (1,)",
        "  unexpected: 0/mu/old: the dict has float32 (1,)",
        "  unexpected: 0/nu/old: the dict has float32 (1,)",
        "  different: 0/mu/w: the dict has float32 (2,), the tree float32 (3,)",
        "  different: 0/nu/w: the dict has float32 (2,), the tree float32 (3,)",
    ]
    with pytest.raises(ValueError, match=r"unexpected: 0/mu/w: .*"):
        dict_to_tree(saved, optax.sgd(0.1).init({"w": jnp.ones(2)}))


@pytest.mark.parametrize(
    ("tree", "match"),
    [
        (np.ones(2), "tree is a single ndarray"),
        ({"a.b": np.ones(2)}, r"\['a\.b'\] cannot be saved by name"),
        ({"a": ({"x/y": np.ones(2)},)}, r"\['a'\]\[0\]\['x/y'\] cannot be saved by name"),
        ({1: np.ones(2)}, r"\[1\] cannot be saved by name"),
        ({"": np.ones(2)}, r"\[''\] cannot be saved by name"),
    ],
)
def test_what_has_no_name_is_refused(tree, match):
    with pytest.raises(ValueError, match=match):
        tree_to_dict(tree)
