"""Files that are damaged, or made to do harm: one line that names the file and what is wrong."""

import gzip
import io
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from command_lines import cli
from data_files import idx, picture, write, write_idx
from PIL import Image
from safetensors.numpy import load_file, save_file

from snapjax.cost import load_profile
from zoo.data import DataSpec, load
from zoo.data.idx import read_idx
from zoo.evaluation import compare
from zoo.pretrained.load import load_pretrained
from zoo.pretrained.locate import SHIPPED
from zoo.train.logbook import read_metrics
from zoo.utils.files import read_json
from zoo.utils.schema import NUMBER, TEXT, WHOLE, ListOf, Maybe, Object, check

GOLDEN = Path(__file__).parent / "golden" / "hugging_face"
DEEP = "[" * 100_000
GREY = picture((9, (4, 4)), mode="L")
PLAIN = {"mean": (0.0,), "std": (1.0,)}


def refused(call, *arguments, **options) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the check of records


SCHEMA = Object({"name": TEXT, "rows": ListOf(Object({"size": WHOLE}))}, {"rate": Maybe(NUMBER)})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "f: [] must be an object"),
        (None, "f: null must be an object"),
        ({"rows": []}, "f: lacks name, a text"),
        ({"name": "a"}, "f: lacks rows, a list"),
        ({"name": None, "rows": []}, "f: name=null must be a text"),
        ({"name": "a", "rows": {}}, "f: rows={} must be a list"),
        ({"name": "a", "rows": [{"size": 1}, 5]}, "f: rows[1]=5 must be an object"),
        ({"name": "a", "rows": [{}]}, "f: lacks rows[0].size, a whole number of at least 0"),
        ({"name": "a", "rows": [{"size": -1}]}, "f: rows[0].size=-1 must be a whole number of at"),
        ({"name": "a", "rows": [{"size": True}]}, "f: rows[0].size=True must be a whole number"),
        ({"name": "a", "rows": [{"size": 1.0}]}, "f: rows[0].size=1.0 must be a whole number"),
        ({"name": "a", "rows": [], "rate": "x"}, "f: rate='x' must be a finite number or null"),
        ({"name": "a", "rows": [], "rate": float("nan")}, "f: rate=nan must be a finite number"),
        ({"name": "a", "rows": [], "rate": 10**400}, "f: rate=1000"),
        ({"name": "a" * 10**6, "rows": 5}, "f: rows=5 must be a list"),
    ],
)
def test_a_record_is_checked_field_by_field(value, message):
    shown = refused(check, value, SCHEMA, "f")
    assert shown.startswith(message)
    assert len(shown) < 200


def test_a_record_that_fits_is_given_back():
    value = {"name": "a", "rows": [{"size": 0, "more": [1]}], "rate": None, "other": object()}
    assert check(value, SCHEMA, "f") is value
    assert check({"name": "", "rows": [], "rate": 5}, SCHEMA, "f")["rate"] == 5


# --- JSON, TOML and what is no file


@pytest.mark.parametrize(
    "text", [DEEP, '{"a":' * 50_000, "{", "", "\0", "NaN,", "[1,]", "9" * 5000]
)
def test_what_is_no_json_is_one_line(tmp_path, text):
    path = write(tmp_path / "a.json", text)
    assert str(path) in refused(read_json, path)


def test_only_regular_files_are_read(tmp_path):
    """A device or a pipe may never end."""
    os.mkfifo(tmp_path / "pipe.json")
    for path, message in (
        (tmp_path / "pipe.json", "is a device or pipe; a file is needed"),
        (Path("/dev/zero"), "is a device or pipe; a file is needed"),
        (tmp_path, "is a folder; a file is needed"),
        (tmp_path / "none.json", "cannot be read: No such file or directory"),
        (tmp_path / "none" / "a.json", "cannot be read: No such file or directory"),
    ):
        assert refused(read_json, path) == f"{path}: {message}"


def test_nesting_without_end_is_refused_everywhere(tmp_path):
    lines = write(tmp_path / "x.jsonl", f'{{"text": "a", "label": 0}}\n{{"text": {DEEP}\n')
    assert "x.jsonl: line 2: its JSON is nested too deeply" in refused(
        load, DataSpec(source=str(lines))
    )
    profile = write(tmp_path / "p.toml", f"name = {DEEP}")
    assert "p.toml: not a TOML file: " in refused(load_profile, profile)
    table = pyarrow.table({"text": ["a"], "label": [0]})
    deep = table.replace_schema_metadata({"huggingface": f'{{"info": {DEEP}'})
    pyarrow.parquet.write_table(deep, tmp_path / "x.parquet")
    assert "x.parquet: is damaged or no .parquet file: " in refused(
        load, DataSpec(source=str(tmp_path / "x.parquet"))
    )
    for features in ("5", "[]", '{"text": {"_type": "Nothing"}}', '{"text": 5}'):
        other = table.replace_schema_metadata(
            {"huggingface": f'{{"info": {{"features": {features}}}}}'}
        )
        pyarrow.parquet.write_table(other, tmp_path / "x.parquet")
        assert "x.parquet: is damaged" in refused(
            load, DataSpec(source=str(tmp_path / "x.parquet"))
        )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("null", "line 2: null must be an object"),
        ("[]", "line 2: [] must be an object"),
        (DEEP, "line 2: its JSON is nested too deeply"),
        ("{", "line 2 is not JSON: "),
        ("{}", "line 2: lacks kind, a text"),
        ('{"kind": "other", "step": 1}', "line 2: kind='other' must be train or evaluation"),
        ('{"kind": "train"}', "line 2: lacks step, a whole number of at least 0"),
        ('{"kind": "evaluation", "step": 1%s}' % ("0" * 400), "line 2: step=1000"),
        ('{"kind": 5, "step": 1}', "line 2: kind=5 must be a text"),
        ('{"kind": "train", "step": -5}', "line 2: step=-5 must be a whole number"),
        (
            '{"kind": "train", "step": 1, "loss": "low"}',
            "line 2: loss='low' must be a finite number",
        ),
        ('{"kind": "train", "step": 1, "loss": 1, "bits": 64}', "line 2: bits=64 must be a list"),
        ('{"kind": "train", "step": 1, "bits": ["x"]}', "line 2: bits[0]='x' must be a finite"),
    ],
)
def test_lines_of_metrics_that_are_none(tmp_path, line, message):
    good = '{"kind": "train", "step": 1, "loss": null, "spike_rate": [null], "bits": [64.0]}\n'
    write(tmp_path / "run" / "metrics.jsonl", f"{good}{line}\n")
    assert f"metrics.jsonl: {message}" in refused(read_metrics, tmp_path / "run")
    done = cli("plot", tmp_path / "run", "--out", tmp_path / "x.png")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    write(tmp_path / "run" / "metrics.jsonl", good)
    assert read_metrics(tmp_path / "run")[0]["loss"] is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"weights": 5}, "rows[0].weights=5 must be a text"),
        ({"bytes_per_token_and_hop": "64"}, "rows[0].bytes_per_token_and_hop='64' must be a whole"),
        ({"accuracy": None}, "rows[0].accuracy=null must be a finite number"),
        ({"spike_rate": "x"}, "rows[0].spike_rate='x' must be a finite number or null"),
        ({"boundary": {}}, "lacks rows[0].boundary.steps"),
    ],
)
def test_rows_of_a_table_that_are_none(tmp_path, row, message):
    good = json.loads((GOLDEN.parent / "v0.1.0" / "compare_models.json").read_text())
    path = write(tmp_path / "t.json", json.dumps(good))
    assert compare.rows_of(path, {})
    write(path, json.dumps({"rows": [{**good["rows"][0], **row}]}))
    assert f"t.json: has no rows as `snapjax compare models` writes them ({path}: {message}" in (
        refused(compare.rows_of, path, {})
    )


# --- models


@pytest.mark.parametrize("text", ["{", "", "null", DEEP])
def test_a_broken_config_of_a_run_says_what_is_left(tmp_path, text):
    run = Path(shutil.copytree(GOLDEN.parent / "v0.1.0" / "run", tmp_path / "run"))
    write(run / "model" / "config.json", text)
    shown = refused(load_pretrained, run)
    assert shown.startswith(f"{run / 'model' / 'config.json'}")
    assert f"damaged: copy it again, or give {run / 'checkpoints'}, that it was made" in shown
    assert load_pretrained(run / "checkpoints").model.config.name == "vit_nano_patch2_8"
    shutil.rmtree(run / "checkpoints")
    assert refused(load_pretrained, run).endswith("The file is damaged: copy it again")


@pytest.fixture
def whole(tmp_path):
    """Writes the single file of version 0.1.0 with entries of its record replaced."""
    source = GOLDEN.parent / "v0.1.0" / "model.safetensors"
    from safetensors import safe_open

    with safe_open(source, framework="numpy") as file:
        metadata = file.metadata()

    def made(change) -> Path:
        record = json.loads(metadata["record"])
        change(record)
        kept = {key: value for key, value in metadata.items() if key != "sha256"}
        path = tmp_path / "m.safetensors"
        save_file(load_file(source), path, metadata={**kept, "record": json.dumps(record)})
        return path

    return made


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        (None, "family", 5, "its record: family=5 must be a text"),
        (None, "config", None, "its record: config=null must be an object"),
        (None, "tokenizer", 5, "its record: tokenizer=5 must be a text or null"),
        (None, "record", [], "its record: record=[] must be an object"),
        (None, "source", "here", "its record: source='here' must be an object"),
        ("source", "source", None, "its record: source.source=null must be a text"),
        ("source", "preprocessing", {"mean": 5}, "source.preprocessing.mean=5 must be a list"),
        ("record", "card", 5, "its record: record.card=5 must be an object"),
        ("record", "data", None, "its record: record.data=null must be an object"),
        ("config", "layer_norm_eps", "x", "config.layer_norm_eps='x' is not a value of type float"),
        ("config", "dropout", None, "config.dropout='None' is not a value of type float"),
        ("config", "width", [64], "config.width='[64]' is not a value of type int"),
        ("config", "width", 1e12, "width=1000000000000 must be an integer of at least 1"),
        ("config", "layers", 10**9, "must be an integer of at least 1 and at most 4,096"),
        ("config", "boundary", 5, "config: boundary=5 must be an object"),
        ("config", "name", 5, "config.name='5' is not a value of type str"),
        ("config", "pooler", "maybe", "config.pooler='maybe' is not a value of type bool"),
    ],
)  # fmt: skip
def test_entries_of_a_single_file_that_are_none(whole, part, key, value, message):
    path = whole(lambda record: (record if part is None else record[part]).update({key: value}))
    shown = refused(load_pretrained, path)
    assert shown.startswith(f"{path}: ")
    assert message in shown


def test_fields_that_a_single_file_lacks_are_named(whole):
    assert "config fields heads, layers are missing" in refused(
        load_pretrained,
        whole(lambda record: [record["config"].pop(n) for n in ("layers", "heads")]),
    )
    assert "its record: lacks sha256, a text" in refused(
        load_pretrained, whole(lambda record: record.pop("sha256"))
    )


@pytest.mark.parametrize(
    ("folder", "change", "message"),
    [
        ("bert_5", {"architectures": 5}, "architectures=5 must be a list or null"),
        ("bert_5", {"architectures": [5]}, "architectures[0]=5 must be a text"),
        ("bert_5", {"model_type": 5}, "unknown model_type 5"),
        ("bert_classify_5", {"num_labels": "3"}, "num_labels='3' must be a whole number"),
        ("bert_5", {"vocab_size": 10**12}, "config field vocab_size=1000000000000 does not fit"),
        ("bert_5", {"vocab_size": 10**9}, "config field vocab_size=1000000000 does not fit the we"),
        ("bert_5", {"hidden_size": 10**12}, "config field hidden_size=1000000000000 does not fit"),
        (
            "bert_5",
            {"num_hidden_layers": 10**9},
            "of which there are 39 tensors; config.json is of",
        ),
        ("bert_5", {"num_hidden_layers": 10**12}, "config field num_hidden_layers=1000000000000"),
        ("bert_5", {"max_position_embeddings": 10**12}, "config field max_position_embeddings=10"),
        ("vit_5", {"image_size": 10**9}, "config field image_size=1000000000 does not fit"),
        ("vit_5", {"num_channels": 10**10}, "config field num_channels=10000000000 does not fit"),
        ("vit_5", {"intermediate_size": 10**400}, "config field intermediate_size=1000"),
        ("vit_classify_5", {"id2label": None, "num_labels": 10**9}, "classifier"),
    ],
)
def test_a_hugging_face_config_of_any_size_or_type(tmp_path, folder, change, message):
    """Compared with the weights, before anything of that size is made."""
    copied = Path(shutil.copytree(GOLDEN / folder, tmp_path / folder))
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match=r".") as caught:
        load_pretrained(copied)
    assert message in str(caught.value)
    assert str(copied) in str(caught.value)


# --- pictures and packed files


def test_a_table_names_pictures_of_its_own_folder_alone(tmp_path):
    """Unless its user says that it may: it comes with a download."""
    secret = write(tmp_path / "secret.png", picture((50, (4, 4)), mode="L"))
    write(tmp_path / "d" / "in" / "a.png", GREY)
    (tmp_path / "d" / "link.png").symlink_to(secret)
    inside = ("in/a.png", "./in/a.png", "in/../in/a.png", "link.png", str(tmp_path / "d/in/a.png"))
    outside = (
        str(secret),
        "../secret.png",
        "in/../../secret.png",
        f"../../{tmp_path.name}/secret.png",
    )
    spec = DataSpec(source=str(tmp_path / "d" / "x.csv"), task="unlabelled", **PLAIN)
    for name in inside:
        write(Path(spec.source), f"image\n{name}\n{name}\n")
        assert load(spec).train.samples == 1
    for name in outside:
        write(Path(spec.source), f"image\n{name}\n{name}\n")
        assert "it is outside of" in (shown := refused(load, spec))
        assert "data.pictures_anywhere=true" in shown
        allowed = DataSpec(source=spec.source, task="unlabelled", pictures_anywhere=True, **PLAIN)
        assert (load(allowed).train.pixels == 50).all()
    for ending, rows in (
        ("jsonl", '{"image": "../secret.png"}\n' * 2),
        ("jsonl", '{"image": {"path": "../secret.png"}}\n' * 2),
    ):
        path = write(tmp_path / "d" / f"y.{ending}", rows)
        assert "it is outside of" in refused(
            load, DataSpec(source=str(path), task="unlabelled", **PLAIN)
        )


@pytest.mark.parametrize(
    "name", ["pipe.png", "/dev/zero", "folder.png", "", "a\\0.png", "none.png"]
)
def test_a_picture_that_is_no_file_is_not_read(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    rows = json.dumps({"image": name.replace("\\0", "\0")}) + "\n"
    path = write(tmp_path / "x.jsonl", rows * 2)
    spec = DataSpec(source=str(path), task="unlabelled", pictures_anywhere=True, **PLAIN)
    assert "is not a picture that can be read: " in refused(load, spec)


def test_a_source_that_is_no_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", Path("/dev/zero")):
        assert refused(load, DataSpec(source=str(path))) == (
            f"data.source='{path}' is a device or pipe; give a file or a folder"
        )


def test_a_picture_made_to_fill_the_memory_is_refused(tmp_path):
    """Some bytes that unpack to 16 GB of pixels."""
    header = struct.pack(">IIBBBBB", 1 << 17, 1 << 17, 8, 0, 0, 0, 0)
    chunk = lambda kind, data: (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 999))
    )
    for split in "ab":
        write(tmp_path / "p" / split / "1.png", bomb + chunk(b"IEND", b""))
    assert "is not a picture that can be read: Image size (17179869184 pixels) exceeds" in refused(
        load, DataSpec(source=str(tmp_path / "p"), task="unlabelled", image_size=8)
    )


def packed(path: Path, unpacked: int, start: bytes = b"") -> Path:
    """A .gz of so many bytes, all zeros behind the start."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(start)
        for _ in range(unpacked >> 20):
            file.write(bytes(1 << 20))
    return path


def test_a_packed_file_made_to_fill_the_memory_is_refused(tmp_path):
    """It is unpacked no further than to where that is seen."""
    bomb = packed(tmp_path / "x.csv.gz", 100 << 20)
    assert bomb.stat().st_size < 200_000
    shown = refused(load, DataSpec(source=str(bomb)))
    assert "x.csv.gz: its " in shown
    assert "unpack to more than 67,108,864, which looks like a file made to fill" in shown


def test_the_header_of_a_packed_idx_file_is_looked_at_first(tmp_path):
    start = idx(np.zeros((2, 2, 2)))[:16]
    bomb = packed(tmp_path / "a-images-idx3-ubyte.gz", 100 << 20, start)
    assert "9 or more bytes of data, but the header announces 2 x 2 x 2 = 8" in refused(
        read_idx, bomb, 3
    )
    huge = write(tmp_path / "b.gz", struct.pack(">BBBBIII", 0, 0, 8, 3, *[2**32 - 1] * 3))
    assert "4294967295 x 4294967295 x 4294967295 bytes, which would take " in refused(
        read_idx, huge, 3
    )


@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 0, 4), (3, 0, 0)])
def test_an_idx_file_without_a_byte_is_refused(tmp_path, shape):
    write_idx(tmp_path, "train", np.zeros(shape), [0] * shape[0], ending="")
    shown = refused(load, DataSpec(source=str(tmp_path)))
    assert "train-images-idx3-ubyte: the header announces " in shown
    assert "= 0 bytes, which is no data" in shown


def test_sizes_that_no_memory_holds_are_refused_before_anything_is_made(tmp_path):
    for i, name in enumerate("ab"):
        buffer = io.BytesIO()
        Image.new("L", (4, 4), i).save(buffer, "PNG")
        write(tmp_path / "p" / name / "1.png", buffer.getvalue())
    spec = {"source": str(tmp_path / "p"), "task": "unlabelled", **PLAIN}
    shown = refused(load, DataSpec(image_size=10**6, **spec))
    assert "data.image_size=1000000: 1 pictures would take 1,000.0 GB, and this machine" in shown
    assert "data.resize=1000000: a picture would take 3,000.0 GB" in refused(
        load, DataSpec(image_size=8, resize=10**6, **spec)
    )
    for fields, message in (
        ({"vocabulary": 10**11}, "data.vocabulary=100000000000 must be at least 64 and at most"),
        ({"sequence": 10**12}, "data.sequence=1000000000000 must be at least 4 and at most"),
        ({"classes": 10**12}, "data.classes=1000000000000 must be at least 2 and at most"),
    ):
        assert message in refused(DataSpec, **fields)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_parts_of_a_model_that_are_no_files(tmp_path, name):
    folder = Path(shutil.copytree(SHIPPED / "vit_nano_patch2_8.ann_digits", tmp_path / "m"))
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert str(folder) in refused(load_pretrained, folder)
