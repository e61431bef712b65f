"""A hybrid in one safetensors file comes back bit for bit; the scripts convert and list files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from command_lines import cli
from safetensors.numpy import load_file, save_file

from snapjax.boundary import Boundary
from zoo import checkpoint, load_pretrained, partition
from zoo.config.old_names import current_parameter, is_added
from zoo.pretrained import single_file
from zoo.pretrained.about import about
from zoo.pretrained.listing import contents

GOLDEN = Path(__file__).parent / "golden" / "hugging_face"
SHIPPED = "vit_nano_patch2_8.hnn_digits"


def saved(path: Path, loaded) -> Path:
    return single_file.save(
        path, loaded.model, loaded.params, loaded.source, loaded.record, loaded.tokenizer
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (SHIPPED, {}),
        (GOLDEN / "bert_5", {"variant": "hnn", "stages": 2}),
        (GOLDEN / "vit_classify_5", {"boundary": "int8", "stages": 2}),
        (GOLDEN / "bert_mlm_untied_4", {}),
    ],
)
def test_everything_comes_back(tmp_path, name, options):
    loaded = partition(load_pretrained(name), **options)
    again = load_pretrained(saved(tmp_path / "model.safetensors", loaded))
    assert again.model == loaded.model
    same = lambda a, b: (a.dtype, np.asarray(a).tobytes()) == (b.dtype, np.asarray(b).tobytes())
    assert all(jax.tree.leaves(jax.tree.map(same, again.params, loaded.params)))
    assert again.record == json.loads(json.dumps(loaded.record))
    assert again.tokenizer == loaded.tokenizer
    assert again.source.source == loaded.source.source
    assert again.source.licence == loaded.source.licence


def test_a_boundary_with_every_field_set_comes_back(tmp_path):
    boundary = Boundary(8, code="phase", steps=3, budget=12, kept_features=7, gradient_wire="int8")
    loaded = partition(load_pretrained(GOLDEN / "bert_5"), stages=2, boundary=boundary)
    again = load_pretrained(saved(tmp_path / "model.safetensors", loaded))
    assert again.model.boundary == boundary
    other = load_pretrained(tmp_path / "model.safetensors", stages=1)
    assert other.model.config.stages == 1
    assert "boundaries" not in other.params


def refusal(path: Path, **options) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        load_pretrained(path, **options)
    return str(caught.value)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = saved(tmp_path / "model.safetensors", load_pretrained(SHIPPED))
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    assert "truncated, damaged or no safetensors file" in refusal(path)
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    path.write_bytes(bytes(flipped))
    assert "not those of its SHA-256" in refusal(path)
    path.write_bytes(whole)
    assert "SHA-256 is" in refusal(path, sha256={"model.safetensors": "0" * 64})
    assert "task and ignore are for Hugging Face folders" in refusal(path, task="encode")
    foreign = GOLDEN / "bert_5" / "model.safetensors"
    assert "of a Hugging Face model give the folder" in refusal(foreign)
    pickle = tmp_path / "pytorch_model.bin"
    pickle.write_bytes(b"not to be read")
    assert "pickles (.bin, .pt) are not opened" in refusal(pickle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "gpt"}, "unknown family 'gpt'"),
        ({"record": None}, "its record: record=null must be an object"),
        ({"width": 32}, "width=32"),
        ({"rotary": True}, "config fields rotary are not known"),
        ({"layers": 8}, "the weights do not fit the model"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(tmp_path, change, message):
    path = saved(tmp_path / "model.safetensors", load_pretrained(SHIPPED))
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    record = json.loads(metadata["record"])
    if change.keys() & {"family", "record"}:
        record |= change
    else:
        record["config"] |= change
    changed = {**metadata, "record": json.dumps(record)}
    save_file(load_file(path), path, metadata=changed)
    assert "its record is not that of its SHA-256" in refusal(path)
    del changed["sha256"]
    save_file(load_file(path), path, metadata=changed)
    assert message in refusal(path)
    for damaged in ({}, {"record": "{}"}, {"record": "[" * 100_000}):
        save_file(load_file(path), path, metadata={"format": metadata["format"], **damaged})
        assert str(path) in refusal(path)


def test_files_of_before_the_records_digest_are_read(tmp_path):
    loaded = load_pretrained(SHIPPED)
    path = saved(tmp_path / "model.safetensors", loaded)
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    del metadata["sha256"]
    save_file(load_file(path), path, metadata=metadata)
    assert load_pretrained(path).model == loaded.model


def test_contents_are_those_of_the_file(tmp_path):
    found = contents(GOLDEN / "bert_classify_5")
    assert [tensor.name for tensor in found] == sorted(
        name for path in (GOLDEN / "bert_classify_5").glob("*.safetensors")
        for name in load_file(path)
    )  # fmt: skip
    table = next(t for t in found if t.name == "bert.embeddings.word_embeddings.weight")
    assert (table.dtype, table.shape, table.size) == ("F32", (20, 8), 160)
    params = load_pretrained(SHIPPED).params
    checkpoint.save(tmp_path / "run" / "checkpoints", {"params": params}, {"model": "x"})
    of_run, of_folder = contents(tmp_path / "run"), contents(SHIPPED)
    # The file that ships was written by version 0.1.0, and is listed in its own words.
    names = [current_parameter(f"params.{t.name}").replace(".", "/") for t in of_folder]
    assert [*zip(names, (t.shape for t in of_folder), strict=True)] == [
        (t.name, t.shape) for t in of_run if not is_added(t.name)
    ]
    added = [t.name.removeprefix("params/boundaries/") for t in of_run if is_added(t.name)]
    assert added == ["decoder/code", "encoder/code"]
    assert {t.dtype for t in of_run} <= {"float32", "int32"}
    with pytest.raises(ValueError, match="holds no checkpoint"):
        contents(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not to be read")
    with pytest.raises(ValueError, match=r"only pytorch_model\.bin: a pickle"):
        contents(tmp_path)


def test_names_of_a_runs_classes_are_exported(tmp_path):
    loaded = load_pretrained(GOLDEN / "vit_classify_5")
    names = list("vwxyz")
    source = replace(loaded.source, preprocessing={"class_names": names})
    single_file.save(tmp_path / "run.safetensors", loaded.model, loaded.params, source)
    made = cli("convert", tmp_path / "run.safetensors", tmp_path / "folder")
    assert made.returncode == 0, made.stderr
    assert load_pretrained(tmp_path / "folder").record["labels"] == names


def test_the_scripts_convert_there_and_back(tmp_path):
    source = shutil.copytree(GOLDEN / "bert_mlm_5", tmp_path / "source")
    whole, folder = tmp_path / "whole.safetensors", tmp_path / "folder"
    made = cli("convert", source, whole, "--variant", "hnn", "--stages", 2)
    assert made.returncode == 0, made.stderr
    assert made.stderr.startswith(f"note: load_pretrained('{source}'): its 1 spiking boundaries")
    assert made.stderr.count("\n") == 1
    assert cli("convert", whole, folder).returncode == 0
    before, after = (load_file(at / "model.safetensors") for at in (source, folder))
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    listed = cli("inspect", whole, "--match", "boundaries.*", "--json")
    names = {entry["name"] for entry in json.loads(listed.stdout)["tensors"]}
    assert "boundaries.encoder.threshold" in names
    assert all(name.startswith("boundaries.") for name in names)


def test_names_are_listed_as_they_are(tmp_path):
    """Brackets and colons are no mark-up, in a path or in a name."""
    folder = shutil.copytree(GOLDEN / "bert_5", tmp_path / "[x]")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "a[b]:cat:[/q]": np.zeros(3, np.float32)}, folder / "model.safetensors")
    listed = cli("inspect", folder, "--match", "a*")
    assert listed.returncode == 0, listed.stderr
    assert "a[b]:cat:[/q]" in listed.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((GOLDEN / "bert_5", GOLDEN / "bert_5"), "is there already; give a new name"),
        ((GOLDEN / "bert_5", "./new", "--stages", 2), "are for a .safetensors file"),
        ((GOLDEN / "bert_5", "./new.safetensors", "--stages", 3), "stages=3 must divide layers=2"),
        (("./nothing", "./new"), "unknown pretrained model, folder or Hub id './nothing'"),
    ],
)
def test_the_converter_refuses(arguments, message):
    done = cli("convert", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("new").exists()
    assert not Path("new.safetensors").exists()


def test_a_file_knows_the_data_and_the_classes_of_the_run_that_made_the_model(tmp_path):
    """So it is scored without --data, on what that run held out, and written with its names."""
    loaded = load_pretrained("vit_nano_patch2_8.ann_digits")
    names = [f"digit {number}" for number in range(10)]
    data = {**loaded.record["data"], "class_names": names}
    source = replace(loaded.source, preprocessing={**loaded.source.preprocessing, **data})
    named = replace(loaded, source=source, record={**loaded.record, "data": data})
    again = load_pretrained(saved(tmp_path / "model.safetensors", named))
    assert again.config == loaded.config
    assert again.config.data.source == "digits"
    assert again.class_names == names
    # Of others' weights there is no run.
    other = load_pretrained(GOLDEN / "vit_classify_5")
    assert load_pretrained(saved(tmp_path / "other.safetensors", other)).config is None


@pytest.mark.parametrize("kind", ["folder", "file", "checkpoint", "hugging_face"])
def test_what_a_model_is_shows_without_its_weights(tmp_path, kind, monkeypatch):
    loaded = load_pretrained(SHIPPED)
    if kind == "folder":
        path, wanted = SHIPPED, loaded
    elif kind == "file":
        path, wanted = saved(tmp_path / "model.safetensors", loaded), loaded
    elif kind == "checkpoint":
        path = GOLDEN.parent / "v0.1.0" / "run" / "checkpoints"
        wanted = load_pretrained(path)
    else:
        path, wanted = GOLDEN / "vit_classify_5", None
    monkeypatch.setattr("zoo.pretrained.arrays.to_params", None)
    monkeypatch.setattr("zoo.checkpoint.load", None)
    found = about(path)
    if wanted is None:
        assert found == (None, None, False)
    else:
        assert found == (wanted.model, wanted.config, False)


@pytest.mark.parametrize("command", ["evaluate", "calibrate", "convert"])
def test_a_damaged_file_is_named_once(tmp_path, command):
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 100)
    out = [] if command == "evaluate" else [tmp_path / "out"]
    out = ["--out", tmp_path / "out.safetensors"] if command == "calibrate" else out
    done = cli(command, tmp_path / "bad.safetensors", *out)
    assert done.returncode == 2
    assert done.stderr.count("bad.safetensors") == 1


@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
def test_what_lacks_its_data_is_told_before_it_is_loaded(tmp_path, command, monkeypatch):
    def load(*arguments, **settings):
        raise AssertionError("loaded")

    monkeypatch.setattr("zoo.pretrained.load.load_pretrained", load)
    out = [] if command == "evaluate" else ["--out", tmp_path / "out.safetensors"]
    for name, what in (
        ("minilm_l6.hnn_1bit", "a table with the columns sentence1, sentence2, score"),
        (GOLDEN / "vit_classify_5", "give --data FILE or a name on the Hub"),
    ):
        done = cli(command, name, *out)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {name}: its weights do not say on which data; give")
        assert what in done.stderr
