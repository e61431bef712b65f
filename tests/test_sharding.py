"""Meshes, rules, and converters between layouts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from model_inputs import random_params

from snapjax.boundary import Boundary
from snapjax.codes.parameters import split_plan
from snapjax.parallel.sharding import (
    make_mesh,
    match_rules,
    place,
    put_placed,
    shardings,
    split_layers,
    split_stages,
    stack,
    unplace,
    unstack,
)
from zoo.models.layers import SHARDING_RULES
from zoo.models.registry import create_model


def assert_equal_trees(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    ("ranks", "stages", "variant"),
    [
        *((1, 1, "hnn"), (1, 2, "hnn"), (2, 2, "hnn"), (1, 4, "hnn"), (2, 4, "hnn"), (4, 4, "hnn")),
        *((1, 4, "ann"), (2, 4, "ann")),
    ],
)
def test_place_and_unplace_are_inverse_and_put_things_where_the_table_says(ranks, stages, variant):
    model = create_model("vit_nano_patch2_8", variant, stages)
    params = random_params(model)
    if stages > 1 and variant == "hnn":  # all boundaries alike would hide a slot that is wrong
        number = jnp.arange(stages - 1)
        mark = lambda leaf: leaf + number.astype(leaf.dtype).reshape(-1, *(1,) * (leaf.ndim - 1))
        params["boundaries"] = jax.tree.map(mark, params["boundaries"])
    placed = place(params, ranks, stages)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(placed)} == {ranks}
    assert_equal_trees(unplace(placed), params)
    for tree in split_plan(params):  # None where the other has the leaf
        assert_equal_trees(unplace(place(tree, ranks, stages)), tree)
    per_rank, virtual = 4 // ranks, stages // ranks
    kernel = params["blocks"]["mlp"]["up"]["kernel"]
    for d in range(ranks):
        np.testing.assert_array_equal(
            placed["blocks"]["mlp"]["up"]["kernel"][d], kernel[d * per_rank : (d + 1) * per_rank]
        )
    if stages > 1 and variant == "hnn":
        for s in range(stages - 1):
            for end, slot in (("encoder", s), ("decoder", s + 1)):
                np.testing.assert_array_equal(
                    placed["boundaries"][end]["gain"][slot // virtual, slot % virtual],
                    params["boundaries"][end]["gain"][s],
                )


def test_placed_parameters_live_on_their_stage_alone():
    model = create_model("vit_nano_patch2_8", "hnn", 4)
    mesh = make_mesh(2, 4)
    placed = put_placed(mesh, place(random_params(model), 4))
    for leaf in jax.tree.leaves(placed):
        assert leaf.sharding.spec == P("stage")
        assert leaf.addressable_shards[0].data.shape == (1, *leaf.shape[1:])


def test_per_layer_and_stacked_are_inverse():
    layers = [{"a": np.full(3, i), "b": {"c": np.full((2, 2), -i)}} for i in range(3)]
    stacked = stack(layers)
    assert stacked["b"]["c"].shape == (3, 2, 2)
    for before, after in zip(layers, unstack(stacked), strict=True):
        assert_equal_trees(before, after)


def test_rules_are_ordered_and_tell_what_is_missing():
    params = {"a": {"kernel": jnp.zeros((2, 4)), "bias": jnp.zeros(4)}, "b": jnp.zeros(())}
    rules = [("a/kernel", P(None, "model")), ("a/", P("model")), ("", P())]
    assert match_rules(rules, params) == {
        "a": {"kernel": P(None, "model"), "bias": P("model")},
        "b": P(),
    }
    with pytest.raises(ValueError, match="no sharding rule matches 'b'"):
        match_rules(rules[:2], params)
    with pytest.raises(ValueError, match="more axes than 'b' of shape"):
        match_rules([("", P("model"))], params)
    with pytest.raises(ValueError, match="axis 'modle' is not in the mesh"):
        shardings(make_mesh(model=2), {"a": P("modle")})


def test_tensor_parallel_rules_shard_the_blocks_and_keep_the_function():
    model = create_model("vit_nano_patch2_8", "ann", 2)
    params = random_params(model)
    images = np.random.default_rng(0).standard_normal((8, 8, 8, 1)).astype(np.float32)
    mesh = make_mesh(data=2, model=4)
    spread = jax.device_put(params, shardings(mesh, match_rules(SHARDING_RULES, params)))
    kernel = spread["blocks"]["mlp"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (4, 64, 128 // 4)
    split = jax.device_put({"image": images}, shardings(mesh, {"image": P("data")}))
    apply = jax.jit(lambda params, batch: model.apply(params, batch)[0])
    expected = apply(params, {"image": jnp.asarray(images)})
    np.testing.assert_allclose(apply(spread, split), expected, atol=1e-5)


def test_bad_meshes():
    with pytest.raises(ValueError, match="data=0 must be at least 1"):
        make_mesh(data=0)
    with pytest.raises(ValueError, match="data=3 x stage=4 x model=1 needs 12 devices, found 8"):
        make_mesh(3, 4)
    with pytest.raises(ValueError, match=r"stages=0 must divide layers=6; use one of \[1, 2, 3, 6"):
        split_layers(6, 0)
    model = create_model("vit_nano_patch2_8", "hnn", 4)
    with pytest.raises(ValueError, match=r"3 ranks .* divide stages=4; use one of \[1, 2, 4\]"):
        model.pipeline(make_mesh(stage=3), 1)
    with pytest.raises(ValueError, match="8 ranks on the 'stage' axis must divide stages=4"):
        split_stages(4, 8)
    with pytest.raises(ValueError, match="boundaries of 3 cuts do not fit stages=2"):
        place(random_params(model), 1, 2)
    with pytest.raises(ValueError, match=r"boundary.features=32 must equal .* width=64"):
        create_model("vit_nano_patch2_8", boundary=Boundary(32))
