"""What is saved is what is loaded, part by part; another model is refused."""

import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from zoo.checkpoint import DamagedCheckpoint, checkpoints, latest, load, load_record, save


def small(value: int = 0) -> dict:
    params = {"a": {"w": jnp.full((3, 2), value, jnp.float32)}, "b": jnp.full((2,), value)}
    return {"params": params}


def abstract(tree: dict) -> dict:
    return jax.eval_shape(lambda: tree)


def visible(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def bits(tree: dict) -> dict:
    """Every leaf as dtype, shape and bytes: NaN payloads and signed zeros count."""
    return jax.tree.map(lambda x: (str(x.dtype), x.shape, np.asarray(x).tobytes()), tree)


def awkward_floats(dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """All bit patterns of 16 bits, or random ones: NaNs with payloads, infinities, subnormals."""
    dtype = np.dtype(dtype)
    unsigned = np.random.default_rng(0).integers(0, 2**16, shape, dtype=f"u{dtype.itemsize}")
    if dtype.itemsize == 4:
        unsigned = unsigned * np.uint32(65537) + unsigned
    return unsigned.view(dtype)


def test_round_trip_is_bit_exact_for_every_dtype_and_keeps_the_record(tmp_path):
    params = {
        "blocks": {
            "kernel": jnp.asarray(awkward_floats(np.float32, (40, 30))),
            "scale": jnp.asarray(awkward_floats(ml_dtypes.bfloat16, (40, 30))),
        },
        "plan": np.arange(-5, 7, dtype=np.int32).reshape(3, 4),
        "wire": jnp.arange(256, dtype=jnp.uint8),
        "mask": jnp.asarray([True, False]),
        "gain": np.float32(-0.0),
        "dense_code": {},
    }
    record = {"model": "vit", "step": 3, "shape": (1, 2), "loss": float("nan"), "ünï": [None, True]}
    tree = {"params": params}
    path = save(tmp_path / "run", tree, record)
    assert path == tmp_path / "run" / "checkpoint-000001"
    loaded, told = load(tmp_path / "run", abstract(tree))
    assert bits(loaded) == bits(tree)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded))
    assert told == load_record(path) == load_record(tmp_path / "run")
    assert told == {
        "model": "vit",
        "step": 3,
        "shape": [1, 2],
        "loss": None,
        "ünï": [None, True],
        "path": str(path),
    }
    # A loaded record may be saved again; its path is then the new one.
    again = save(tmp_path / "run", tree, told)
    assert load_record(again) == {**told, "path": str(again)}
    # A model without the empty part has the same parameters.
    del params["dense_code"]
    loaded, _ = load(path, abstract(tree))
    assert "dense_code" not in loaded["params"]


def test_sharded_arrays_come_back_where_they_are_asked_for(tmp_path):
    line = jax.make_mesh((8,), ("stage",))
    grid = jax.make_mesh((2, 4), ("data", "model"))
    by_stage = NamedSharding(line, PartitionSpec("stage"))
    whole = NamedSharding(grid, PartitionSpec())
    tiled = NamedSharding(grid, PartitionSpec("model", "data"))
    params = {
        "w": np.arange(64, dtype=np.float32).reshape(16, 4),
        "b": np.arange(8, dtype=np.int32),
    }
    values = {"params": params}
    save(tmp_path, jax.device_put(values, by_stage), {})
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), values)

    for sharding, expected in (
        (by_stage, {"w": by_stage, "b": by_stage}),
        ({"params": {"w": tiled, "b": whole}}, {"w": tiled, "b": whole}),
        ({"params": whole}, {"w": whole, "b": whole}),
        (None, dict.fromkeys("wb", jax.sharding.SingleDeviceSharding(jax.devices()[0]))),
    ):
        loaded, _ = load(tmp_path, shapes, sharding)
        assert bits(loaded) == bits(values)
        for name, place in expected.items():
            array = loaded["params"][name]
            assert array.sharding.is_equivalent_to(place, array.ndim), name
    # (16 over "model" of 4, 4 over "data" of 2): every device holds a (4, 2) tile.
    shapes["params"]["w"] = jax.ShapeDtypeStruct((16, 4), jnp.float32, sharding=tiled)
    array = load(tmp_path, shapes)[0]["params"]["w"]
    assert array.sharding.is_equivalent_to(tiled, 2)
    tile = next(s for s in array.addressable_shards if s.index == (slice(4, 8), slice(2, 4)))
    np.testing.assert_array_equal(tile.data, params["w"][4:8, 2:4])


def test_shapes_from_under_a_mesh_are_placed_on_it(tmp_path):
    mesh = jax.make_mesh((8,), ("stage",))

    def init() -> dict:
        w = jax.reshard(jnp.arange(16.0), PartitionSpec("stage"))
        return {"params": {"w": w, "b": jnp.ones(3)}}

    with jax.set_mesh(mesh):
        params, shapes = init(), jax.eval_shape(init)
        save(tmp_path, params, {})
        loaded, _ = load(tmp_path, shapes)
    assert bits(loaded) == bits(params)
    for name, spec in (("w", PartitionSpec("stage")), ("b", PartitionSpec())):
        array = loaded["params"][name]
        assert array.sharding.is_equivalent_to(NamedSharding(mesh, spec), 1)
    with pytest.raises(ValueError, match=r"names no devices; call load under jax\.set_mesh"):
        load(tmp_path, shapes)


def test_another_model_is_refused_with_every_difference(tmp_path):
    saved = {
        "embed": {"kernel": jnp.zeros((4, 8)), "bias": jnp.zeros(8)},
        "head": jnp.zeros((8, 10)),
        "plan": jnp.zeros(3, jnp.int32),
        "same": jnp.zeros(2),
    }
    asked = {
        "embed": {"kernel": jnp.zeros((4, 16)), "scale": jnp.zeros(8)},
        "head": {"kernel": jnp.zeros((8, 10))},
        "plan": jnp.zeros(3, jnp.bfloat16),
        "same": jnp.zeros(2),
    }
    path = save(tmp_path, {"params": saved}, {"model": "vit_tiny"})
    with pytest.raises(ValueError, match="does not fit") as caught:
        load(tmp_path, abstract({"params": asked}), model="bert_mini")
    assert str(caught.value).splitlines() == [
        f"checkpoint {path} of model 'vit_tiny' does not fit model 'bert_mini': "
        "2 missing, 2 unexpected, 2 different entries",
        "  missing: params/embed/scale: the model has float32 (8,)",
        "  missing: params/head/kernel: the model has float32 (8, 10)",
        "  unexpected: params/embed/bias: the file has float32 (8,)",
        "  unexpected: params/head: the file has float32 (8, 10)",
        "  different: params/embed/kernel: the file has float32 (4, 8), the model float32 (4, 16)",
        "  different: params/plan: the file has int32 (3,), the model bfloat16 (3,)",
    ]
    save(tmp_path, {"params": saved}, {})
    # Another model is no damage: there is nothing to fall back from.
    for fallback in (False, True):
        with pytest.raises(ValueError, match="checkpoint-000002 does not fit the model asked for"):
            load(tmp_path, abstract({"params": asked}), fallback=fallback)


def test_only_the_parts_that_are_asked_for_are_read(tmp_path):
    tree = {
        "params": {"w": jnp.arange(6.0)},
        "optimiser": {"0": {"mu": jnp.ones(3)}, "1": {}},
        "stateless": {"0": {}},
    }
    path = save(tmp_path, tree, {"step": 1})
    assert visible(path) == ["checksums.json", "optimiser", "params", "record.json"]
    loaded, _ = load(tmp_path, abstract(tree))
    assert bits(loaded) == bits(tree)
    # Evaluation needs no optimiser, not even a whole one.
    shutil.rmtree(path / "optimiser")
    params = {"params": tree["params"]}
    assert bits(load(tmp_path, abstract(params))[0]) == bits(params)
    with pytest.raises(DamagedCheckpoint, match=r"optimiser/.*: saved .*; found nothing"):
        load(tmp_path, abstract(tree))
    # A part that was not saved is missing entry by entry, and the others are named.
    with pytest.raises(ValueError, match=r"1 missing, 0 unexpected") as caught:
        load(tmp_path, abstract({"ema": params["params"]}))
    assert str(caught.value).splitlines()[1:] == [
        "  missing: ema/w: the model has float32 (6,)",
        "  not asked for: optimiser, params",
    ]


def test_newest_counts_saves_and_not_steps(tmp_path):
    assert latest(tmp_path / "absent") is None
    assert latest(tmp_path) is None
    # A run restarted from an older checkpoint passes the same step again.
    for step in (100, 200, 150, 200):
        save(tmp_path, small(step), {"step": step}, keep=3)
    assert visible(tmp_path) == [f"checkpoint-00000{n}" for n in (2, 3, 4)]
    assert [load_record(path)["step"] for path in checkpoints(tmp_path)] == [200, 150, 200]
    assert latest(tmp_path) == tmp_path / "checkpoint-000004"
    # Past the six digits the order is still that of the numbers.
    os.rename(tmp_path / "checkpoint-000004", tmp_path / "checkpoint-999999")
    path = save(tmp_path, small(5), {"step": 5}, keep=1)
    assert path.name == "checkpoint-1000000"
    assert visible(tmp_path) == [path.name]
    # A copy under another name is a checkpoint by what it holds.
    shutil.copytree(path, tmp_path / "best")
    assert load_record(tmp_path / "best") == {"step": 5, "path": str(tmp_path / "best")}


def test_a_relative_folder_is_taken_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("runs/one", small(4), {"step": 4})
    assert bits(load("runs/one", abstract(small()))[0]) == bits(small(4))


@pytest.mark.parametrize(
    ("params", "record", "keep", "match"),
    [
        ({}, {}, 2, "tree holds no array"),
        ({"a": {}}, {}, 2, "tree holds no array"),
        ([1], {}, 2, "tree: 'params' is a list, not an array"),
        (jnp.zeros(1), {}, 2, "tree: 'params' is an array, not a part"),
        ({"a": [jnp.zeros(1)]}, {}, 2, "'params/a' is a list, not an array"),
        ({"a": {"b": 1.5}}, {}, 2, "'params/a/b' is a float, not an array"),
        ({"a": {"b.c": jnp.zeros(1)}}, {}, 2, "key 'b.c' below 'params/a'"),
        ({"b/c": jnp.zeros(1)}, {}, 2, "key 'b/c' below 'params'"),
        ({1: jnp.zeros(1)}, {}, 2, "key 1 below 'params'"),
        ({"a": jnp.zeros((2, 0))}, {}, 2, r"'params/a' of shape \(2, 0\) is empty"),
        ({"a": np.zeros(2)}, {}, 2, "'params/a' has dtype float64"),
        ({"a": np.array("x")}, {}, 2, "'params/a' has dtype <U1"),
        ({"a": jax.random.key(0)}, {}, 2, "'params/a' has dtype key"),
        ({"a": jnp.zeros(1)}, [1], 2, "record must be a dict, got list"),
        ({"a": jnp.zeros(1)}, {"a": {1: 2}}, 2, r"record\['a'\]: key 1 is not a string"),
        ({"a": jnp.zeros(1)}, {"a": [object()]}, 2, r"record\['a'\]\[0\]: object cannot"),
        ({"a": jnp.zeros(1)}, {}, 0, "keep=0"),
    ],
)
def test_save_refuses_before_it_writes(tmp_path, params, record, keep, match):
    with pytest.raises(ValueError, match=match):
        save(tmp_path / "run", {"params": params}, record, keep=keep)
    assert visible(tmp_path) == []


def test_a_tree_has_named_parts(tmp_path):
    with pytest.raises(ValueError, match=r"tree must be a dict of named parts.*, got list"):
        save(tmp_path / "run", [jnp.zeros(1)], {})
    with pytest.raises(ValueError, match=r"key '\.\./x' below ''"):
        save(tmp_path / "run", {"../x": {"w": jnp.zeros(1)}}, {})
    assert visible(tmp_path) == []


def test_folders_that_are_no_checkpoint(tmp_path):
    for use in (lambda folder: load(folder, abstract(small())), load_record):
        with pytest.raises(ValueError, match="'runs/none' does not exist or is not a folder"):
            use("runs/none")
        empty = tmp_path / "empty"
        empty.mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=r"holds no checkpoint: .* found nothing"):
            use(empty)
        (tmp_path / "notes.txt").write_text("hello")
        with pytest.raises(ValueError, match=r"holds no checkpoint: .* found empty, notes.txt"):
            use(tmp_path)
        with pytest.raises(ValueError, match="is not a folder"):
            use(tmp_path / "notes.txt")


def test_a_model_of_the_same_shapes_but_another_name_is_refused(tmp_path):
    tree = {"params": {"kernel": np.zeros((2, 3), np.float32)}}
    save(tmp_path, tree, {"model": "bert_tiny"})
    load(tmp_path, abstract(tree), model="bert_tiny")
    with pytest.raises(ValueError, match="of model 'bert_tiny' does not fit model 'bert_mini'"):
        load(tmp_path, abstract(tree), model="bert_mini")


def test_loaded_parameters_can_be_donated(tmp_path):
    # Arrays that shared memory with the reader's would be copied, with a warning.
    tree = {"params": {"w": jnp.arange(1024.0)}}
    save(tmp_path, tree, {})
    loaded, _ = load(tmp_path, abstract(tree))
    doubled = jax.jit(lambda t: jax.tree.map(lambda x: x + x, t), donate_argnums=0)(loaded)
    assert loaded["params"]["w"].is_deleted()
    np.testing.assert_array_equal(doubled["params"]["w"], 2 * np.arange(1024))


@pytest.mark.parametrize("name", ["run [1]", "a*b", "what?", "[!x] $a:b % é"])
def test_a_folder_may_be_named_like_a_pattern(tmp_path, name):
    tree = small(7)
    path = save(tmp_path / name, tree, {"step": 1})
    assert (path / "params" / "manifest.ocdbt").is_file()
    loaded, _ = load(tmp_path / name, abstract(tree))
    assert bits(loaded) == bits(tree)
    (tmp_path / "plain").mkdir()
    shutil.move(path, tmp_path / "plain")
    shutil.move(tmp_path / "plain", tmp_path / f"{name} moved")
    loaded, _ = load(tmp_path / f"{name} moved", abstract(tree))
    assert bits(loaded) == bits(tree)
