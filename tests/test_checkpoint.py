"""What is saved is what is loaded; another model and every damage is refused."""

import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from zoo.checkpoint import checkpoints, latest, load, load_record, save


def small(value: int = 0) -> dict:
    return {"a": {"w": jnp.full((3, 2), value, jnp.float32)}, "b": jnp.full((2,), value, jnp.int32)}


def abstract(params: dict) -> dict:
    return jax.eval_shape(lambda: params)


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
    path = save(tmp_path / "run", params, record)
    assert path == tmp_path / "run" / "checkpoint-000001"
    loaded, told = load(tmp_path / "run", abstract(params))
    assert bits(loaded) == bits(params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded))
    assert told == load_record(path) == load_record(tmp_path / "run")
    assert told == {
        "model": "vit",
        "step": 3,
        "shape": [1, 2],
        "loss": None,
        "ünï": [None, True],
    }
    # A model without the empty part has the same parameters.
    loaded, _ = load(path, {k: v for k, v in abstract(params).items() if k != "dense_code"})
    assert "dense_code" not in loaded


def test_sharded_arrays_come_back_where_they_are_asked_for(tmp_path):
    line = jax.make_mesh((8,), ("stage",))
    grid = jax.make_mesh((2, 4), ("data", "model"))
    by_stage = NamedSharding(line, PartitionSpec("stage"))
    whole = NamedSharding(grid, PartitionSpec())
    tiled = NamedSharding(grid, PartitionSpec("model", "data"))
    values = {
        "w": np.arange(64, dtype=np.float32).reshape(16, 4),
        "b": np.arange(8, dtype=np.int32),
    }
    save(tmp_path, jax.device_put(values, by_stage), {})
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), values)

    for sharding, expected in (
        (by_stage, {"w": by_stage, "b": by_stage}),
        ({"w": tiled, "b": whole}, {"w": tiled, "b": whole}),
        (None, dict.fromkeys("wb", jax.sharding.SingleDeviceSharding(jax.devices()[0]))),
    ):
        loaded, _ = load(tmp_path, shapes, sharding)
        assert bits(loaded) == bits(values)
        for name, place in expected.items():
            assert loaded[name].sharding.is_equivalent_to(place, values[name].ndim), name
    # (16 over "model" of 4, 4 over "data" of 2): every device holds a (4, 2) tile.
    tile = load(tmp_path, shapes, {"w": tiled, "b": whole})[0]["w"].addressable_shards[3].data
    assert tile.shape == (4, 2)
    placed = {
        "w": jax.ShapeDtypeStruct((16, 4), jnp.float32, sharding=tiled),
        "b": shapes["b"],
    }
    assert load(tmp_path, placed)[0]["w"].sharding.is_equivalent_to(tiled, 2)


def test_shapes_from_under_a_mesh_are_placed_on_it(tmp_path):
    mesh = jax.make_mesh((8,), ("stage",))

    def init() -> dict:
        return {"w": jax.reshard(jnp.arange(16.0), PartitionSpec("stage")), "b": jnp.ones(3)}

    with jax.set_mesh(mesh):
        params, shapes = init(), jax.eval_shape(init)
        save(tmp_path, params, {})
        loaded, _ = load(tmp_path, shapes)
    assert bits(loaded) == bits(params)
    for name, spec in (("w", PartitionSpec("stage")), ("b", PartitionSpec())):
        assert loaded[name].sharding.is_equivalent_to(NamedSharding(mesh, spec), 1)
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
    path = save(tmp_path, saved, {"model": "vit_tiny"})
    with pytest.raises(ValueError, match="does not fit") as caught:
        load(tmp_path, abstract(asked), model="bert_mini")
    assert str(caught.value).splitlines() == [
        f"checkpoint {path} of model 'vit_tiny' does not fit model 'bert_mini': "
        "2 missing, 2 unexpected, 2 different entries",
        "  missing: embed/scale: the model has float32 (8,)",
        "  missing: head/kernel: the model has float32 (8, 10)",
        "  unexpected: embed/bias: the file has float32 (8,)",
        "  unexpected: head: the file has float32 (8, 10)",
        "  different: embed/kernel: the file has float32 (4, 8), the model float32 (4, 16)",
        "  different: plan: the file has int32 (3,), the model bfloat16 (3,)",
    ]
    save(tmp_path, saved, {})
    with pytest.raises(ValueError, match="checkpoint-000002 does not fit the model asked for: 2"):
        load(tmp_path, abstract(asked))


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
    assert load_record(tmp_path / "best") == {"step": 5}


def test_a_relative_folder_is_taken_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("runs/one", small(4), {"step": 4})
    assert bits(load("runs/one", abstract(small()))[0]) == bits(small(4))


@pytest.mark.parametrize(
    ("params", "record", "keep", "match"),
    [
        ({}, {}, 2, "params holds no array"),
        ({"a": {}}, {}, 2, "params holds no array"),
        ([1], {}, 2, "params must be a nested dict of arrays, got list"),
        ({"a": [jnp.zeros(1)]}, {}, 2, "'a' is a list, not an array"),
        ({"a": {"b": 1.5}}, {}, 2, "'a/b' is a float, not an array"),
        ({"a": {"b.c": jnp.zeros(1)}}, {}, 2, "key 'b.c' below 'a'"),
        ({"b/c": jnp.zeros(1)}, {}, 2, "key 'b/c' below ''"),
        ({1: jnp.zeros(1)}, {}, 2, "key 1 below ''"),
        ({"a": jnp.zeros((2, 0))}, {}, 2, r"'a' of shape \(2, 0\) is empty"),
        ({"a": np.zeros(2)}, {}, 2, "'a' has dtype float64"),
        ({"a": np.array("x")}, {}, 2, "'a' has dtype <U1"),
        ({"a": jax.random.key(0)}, {}, 2, "'a' has dtype key"),
        (small(), [1], 2, "record must be a dict, got list"),
        (small(), {"a": {1: 2}}, 2, r"record\['a'\]: key 1 is not a string"),
        (small(), {"a": [object()]}, 2, r"record\['a'\]\[0\]: object cannot be written"),
        (small(), {}, 0, "keep=0"),
    ],
)
def test_save_refuses_before_it_writes(tmp_path, params, record, keep, match):
    with pytest.raises(ValueError, match=match):
        save(tmp_path / "run", params, record, keep=keep)
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


def test_every_damaged_file_is_found(tmp_path):
    params = {"w": jax.random.normal(jax.random.key(0), (300, 400)), "b": jnp.zeros(4)}
    save(tmp_path, small(), {})
    path = save(tmp_path, params, {"model": "vit"})
    # Orbax alone loads wrong numbers from an array file with a flipped bit.
    names = [file for file in sorted(path.rglob("*")) if file.is_file()]
    assert any(file.stat().st_size > 400_000 for file in names)
    for file in names:
        whole = file.read_bytes()
        flipped = bytes([whole[0] ^ 16]) + whole[1:] if whole else b"x"
        for damage in (whole[: len(whole) // 2] if whole else b"xx", flipped, None):
            if damage is None:
                file.unlink()
            else:
                file.write_bytes(damage)
            with pytest.raises(ValueError, match=f"checkpoint {path} is damaged") as caught:
                load(tmp_path, abstract(params))
            assert file.relative_to(path).as_posix() in str(caught.value)
            if file.name == "record.json":
                with pytest.raises(ValueError, match=r"damaged; also there: checkpoint-000001"):
                    load_record(tmp_path)
            file.write_bytes(whole)
    assert bits(load(tmp_path, abstract(params))[0]) == bits(params)
    (path / "params" / "extra").write_text("x")
    with pytest.raises(ValueError, match=r"params/extra: saved nothing; found 1 bytes"):
        load(tmp_path, abstract(params))


def test_recorded_names_open_no_file(tmp_path):
    path = save(tmp_path / "run", small(), {})
    sums = json.loads((path / "checksums.json").read_text())
    secret = tmp_path / "secret"
    secret.write_text("x")
    sums["../../secret"] = "1 bytes, SHA-256 " + "0" * 64
    (path / "checksums.json").write_text(json.dumps(sums))
    with pytest.raises(ValueError, match=r"\.\./\.\./secret: saved .*; found nothing"):
        load(path, abstract(small()))


def test_a_model_of_the_same_shapes_but_another_name_is_refused(tmp_path):
    params = {"kernel": np.zeros((2, 3), np.float32)}
    save(tmp_path, params, {"model": "bert_tiny"})
    shapes = jax.eval_shape(lambda: params)
    load(tmp_path, shapes, model="bert_tiny")
    with pytest.raises(ValueError, match="of model 'bert_tiny' does not fit model 'bert_mini'"):
        load(tmp_path, shapes, model="bert_mini")
