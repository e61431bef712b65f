"""Whatever can be wrong with data is one clear error before anything is trained."""

import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from data_files import (
    json_lines,
    letters,
    picture,
    pictures,
    refused,
    rows,
    table,
    write,
    write_idx,
)

from zoo.data import DataSpec, load, train_batches

# --- the spec


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"task": "clasify"}, "data.task.*'clasify'.*did you mean 'classify'"),
        ({"source": ""}, "data.source='' is empty"),
        ({"held_out": 0.0}, r"data.held_out=0.0 must be in \(0, 1\)"),
        ({"held_out": 1.0}, "data.held_out=1.0"),
        ({"mask_rate": 1.5}, "data.mask_rate=1.5"),
        ({"classes": 1}, "data.classes=1 must be at least 2"),
        ({"image_size": 0}, "data.image_size=0"),
        ({"resample": "cubic"}, "unknown data.resample 'cubic'"),
        ({"resize": 8}, "data.resize=8 must be at least data.image_size=None"),
        ({"resize": 8, "image_size": 9}, "data.resize=8 must be at least data.image_size=9"),
        ({"vocabulary": 63}, "data.vocabulary=63 must be at least 64"),
        ({"vocabulary": 299, "tokenizer": "bytes"}, "data.vocabulary=299 must be at least 300"),
        ({"sequence": 3}, "data.sequence=3 must be at least 4"),
        ({"shift": -1}, "data.shift=-1"),
        ({"noise": -0.1}, "data.noise=-0.1"),
        ({"noise": float("inf")}, "data.noise=inf"),
        ({"mean": (0.5,)}, r"data.mean=\(0.5,\) and data.std=None go together"),
        ({"sequence": 8.5}, r"data.sequence='8.5' is not a value of type int"),
        ({"sequence": True}, r"data.sequence='True' is not a value of type int"),
        ({"text_column": 5}, r"data.text_column='5' is not a value of type str"),
        ({"held_out": "a tenth"}, r"data.held_out='a tenth' is not a value of type float"),
        ({"truncate": "perhaps"}, r"data.truncate='perhaps' is not a value of type bool"),
        ({"mean": 0.5, "std": 0.5}, r"data.mean='0.5' is not a value of type"),
        ({"std": (0.5,)}, r"data.mean=None and data.std=\(0.5,\) go together"),
    ],
)
def test_a_spec_out_of_range(fields, match):
    with pytest.raises(ValueError, match=match):
        DataSpec(**fields)


def test_a_spec_takes_a_path():
    assert DataSpec(source=Path("a/b.csv")) == DataSpec(source="a/b.csv")


# --- finding


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("trian.csv", "does not exist; did you mean 'train.csv'?"),
        ("mnits", "does not exist; did you mean 'mnist'?"),
        ("zzz", "does not exist"),
        ("no/such/folder/at/all", "does not exist"),
    ],
)
def test_a_path_that_is_not_there(tmp_path, monkeypatch, name, match):
    write(tmp_path / "train.csv", "text,label\na,0\n")
    (tmp_path / "mnist").mkdir()
    refused(f"data.source=...{name}...{match}", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no").mkdir()
    if "/" in name or "." in name:  # "mnits" alone may be a name on the Hub
        refused(f"data.source='{name}' {match}", name)


def test_a_name_that_only_the_hub_can_know_fails_at_once_without_a_network():
    # A process of its own: the Hub's client reads the variable once, as it is imported.
    code = (
        "from zoo.data import DataSpec, load\n"
        "for name in ('digts', 'someone/something'):\n"
        "    try:\n"
        "        load(DataSpec(source=name))\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    first, second = done.stdout.splitlines()
    assert first.startswith("data.source='digts' is no embedded data set and no path here")
    assert first.endswith("did you mean 'digits'?")
    assert second.startswith("data.source='someone/something' is no embedded data set")
    assert "could not be loaded" in second
    assert second.endswith("give the path of a file or folder: --set data.source=FOLDER")
    assert "HF_HUB_OFFLINE is set, and in its cache it is not whole" in second


@pytest.mark.parametrize("source", ["digits", "topics"])
def test_an_embedded_name_for_the_other_task(source):
    task, other = ("classify", "mlm")[:: 1 if source == "digits" else -1]
    known = f"{task!r} or 'unlabelled'"
    refused(f"data.source={source!r} is data for data.task={known}, got {other!r}", source,
            task=other)  # fmt: skip


def test_a_folder_with_nothing_usable(tmp_path):
    refused("the folder holds no .csv, .tsv, .parquet, .jsonl, .txt file, no idx", tmp_path)
    write(tmp_path / "notes.md", "x")
    write(tmp_path / "empty" / "more" / "deep" / "x.png", picture((1, (2, 2)), mode="L"))
    refused("the folder holds no ...no folder of pictures", tmp_path)


def test_a_file_of_another_kind(tmp_path):
    refused("x.xlsx: its suffix is not one of .csv, ...", write(tmp_path / "x.xlsx", "x"))


def test_a_split_that_is_not_there(tmp_path):
    for name in ("training.csv", "other.csv"):
        write(tmp_path / "d" / name, "text,label\na,0\nb,1\n")
    refused(
        "no split data.train='train'; did you mean 'training.csv'?; it has other.csv, training.csv",
        tmp_path / "d",
    )
    refused("no split data.validation='dev'...it has other.csv", tmp_path / "d", train="other",
            validation="dev")  # fmt: skip
    refused("no split data.validation='dev'...it has train", tmp_path / "d" / "other.csv",
            validation="dev")  # fmt: skip
    write(tmp_path / "p" / "trains" / "a" / "x.png", picture((1, (2, 2)), mode="L"))
    refused("no split data.train='train'; did you mean 'trains'?; it has trains", tmp_path / "p")


def test_a_file_that_is_in_both_splits(tmp_path):
    for name in ("train.csv", "test.csv"):
        write(tmp_path / "d" / name, "text,label\na,0\nb,1\n")
    refused("test.csv: belongs to data.train='t*' and to the validation split 'test' alike; set",
            tmp_path / "d", train="t*")  # fmt: skip


def test_files_of_one_split_with_other_columns(tmp_path):
    write(tmp_path / "d" / "a1.csv", "text,label\na,0\n")
    write(tmp_path / "d" / "a2.csv", "text,y\na,0\n")
    refused("a2.csv: has columns text, y, but ...a1.csv has text, label", tmp_path / "d",
            train="a*")  # fmt: skip


def test_one_row_cannot_be_split(tmp_path):
    refused("x.csv: 1 rows cannot be split", write(tmp_path / "x.csv", "text,label\na,0\n"))


def test_a_folder_that_looks_like_one_of_datasets(tmp_path):
    write(tmp_path / "d" / "dataset_info.json", "{}")
    refused("d: looks like a folder of datasets.save_to_disk, but cannot be read", tmp_path / "d")


# --- files


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("x.csv", "", "x.csv: is empty; give a file with at least one row"),
        ("x.txt", "\n \n", "x.txt: is empty"),
        ("x.jsonl.gz", "", "x.jsonl.gz: is empty"),
        ("x.csv", "text,label\n", "x.csv: ... rows"),
        ("x.csv", b"text,label\n\xff\xfea,1\n", "x.csv: byte 11 is not UTF-8 text; convert"),
        ("x.csv", "text,label\na,0\nb,c,1\n", "x.csv: line 3 has 3 fields, ...2 columns (text, la"),
        ("x.csv", "text,label\na\nb,1\n", "x.csv: line 2 has 1 fields, ...quote"),
        ("x.csv", 'text,label\n"a" b,0\n', "x.csv: line 2 cannot be read: "),
        ("x.csv", 'text,label\n"a,0\nb,1\n', "x.csv: line 3 cannot be read: "),
        ("x.tsv", "text\tlabel\na\tb\t1\n", "x.tsv: line 2 has 3 fields, ...cannot hold a tab"),
        ("x.csv", "text,text\na,b\n", "x.csv: two columns have the same name: text, text"),
        ("x.jsonl", '{"text": "a"}\n{"text": \n', "x.jsonl: line 2 is not JSON: "),
        ("x.jsonl", '{"text": "a"}\n["a"]\n', "x.jsonl: line 2 is not a JSON object"),
        ("x.parquet", "PAR1 but no more", "x.parquet: is damaged or no .parquet file: "),
        ("x.parquet", "", "x.parquet: is damaged"),
    ],
)
def test_a_file_that_is_not_what_it_says(tmp_path, name, content, match):
    refused(match, write(tmp_path / name, content))


@pytest.mark.parametrize("keep", [5, -6])
def test_a_truncated_gzip_file(tmp_path, keep):
    path = write(tmp_path / "x.csv.gz", "text,label\n" + "a,0\nb,1\n" * 50)
    path.write_bytes(path.read_bytes()[:keep])
    refused("x.csv.gz: cannot be read, or is damaged: ", path)


def test_damaged_or_missing_idx_files(tmp_path):
    pixels = np.zeros((4, 3, 3), np.uint8)
    write_idx(tmp_path, "train", pixels, [0, 1, 0, 1], ending="")
    write_idx(tmp_path, "t10k", pixels, [0, 1, 0, 9], ending="")
    refused("t10k-images-idx3-ubyte and its labels: row 3 has label 9, which is not in [0, class",
            tmp_path)  # fmt: skip
    refused("no column data.text_column='text'; it has image, label", tmp_path, task="mlm")
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1])
    refused("train-labels-idx1-ubyte: 3 bytes of data, but the header announces 4", tmp_path)
    labels.write_bytes(b"\0\0\x08\x03" + labels.read_bytes()[4:])
    refused("train-labels-idx1-ubyte: begins with 00 00 08 03, where ... 00 00 08 01", tmp_path)
    labels.unlink()
    refused("train-images-idx3-ubyte: has no labels beside it, train-labels-idx1-ubyte", tmp_path)


# --- columns and labels


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"label_column": "lable"}, "no column data.label_column='lable'; did you mean 'label'?"),
        ({"label_column": "y"}, "train.jsonl: no column data.label_column='y'; it has text, label"),
        ({"text_column": "txt"}, "train.jsonl: has neither ...='image' nor ...='txt'; it has text"),
        ({"text_pair_column": "p"}, "train.jsonl: no column data.text_pair_column='p'; it has"),
        ({"task": "mlm", "text_column": "tex"}, "no column data.text_column='tex'; did you mean"),
        ({"task": "mlm", "text_pair_column": "label"}, "='label' is for data.task='classify'"),
        (
            {"task": "mlm", "text_column": "label"},
            "jsonl: row 0 holds 0 ...no text; set data.text_column",
        ),
        ({"flip": True}, "data.flip=True is for images, but ...train.jsonl has texts"),
        ({"task": "mlm", "noise": 0.1}, "data.noise=0.1 is for images"),
        ({"image_size": 8}, "data.image_size=8 is for images"),
        ({"resample": "box"}, "data.resample=box is for images"),
    ],
)
def test_columns_that_do_not_fit(tmp_path, fields, match):
    refused(match, table(tmp_path, rows(0, 1)), **fields)


@pytest.mark.parametrize(
    ("train", "validation", "match"),
    [
        ((0, 1, 2.5), (0,), "train.jsonl: row 2 holds 2.5 in column 'label', which is no class"),
        ((0, None), (0,), "train.jsonl: row 1 holds None"),
        ((0, 1e30), (0,), "train.jsonl: row 1 holds 1e+30"),
        ((0, float("nan")), (0,), "train.jsonl: row 1 holds nan"),
        ((0, "1.5"), (0,), "train.jsonl: row 1 holds '1.5'"),
        ((0, ""), (0,), "train.jsonl: row 1 holds ''"),
        ((0, [1]), (0,), "train.jsonl: row 1 holds [1]"),
        ((0, -1), (0,), "train.jsonl: row 1 has label -1, which is not in [0, classes=1)"),
        ((0, 1), (0, 1, 2), "test.jsonl: row 2 has label 2, ...[0, classes=2); 1 rows are out"),
        ((0, 0), (0,), "train.jsonl: column 'label' holds one class alone"),
        (("x", "x"), ("x",), "column 'label' holds one class alone"),
        (("x", "y"), ("x", "z"), "test.jsonl: row 1 has class 'z', which is none of train's: x, y"),
        (("x", "y"), ("1",), "test.jsonl: row 0 has class '1', which is none of train's: x, y"),
        (("x", 1), ("x",), "train.jsonl: row 1 holds 1 in column 'label', where others hold"),
        (("x", " "), ("x",), "train.jsonl: row 1 holds ' ' in column 'label', where others hold"),
        ((0, 1), ("x",), "test.jsonl: row 0 holds 'x' in column 'label', which is no class"),
    ],
)
def test_labels_that_are_none(tmp_path, train, validation, match):
    refused(match, table(tmp_path, rows(*train), rows(*validation)))


def test_parts_that_number_the_same_classes_in_another_order(tmp_path):
    """As numbers they would fit, and be other classes."""

    def parquet(name, classes):
        kinds = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=classes)}
        values = {"text": ["a b", "c d"], "label": [0, 1]}
        path = write(tmp_path / name, "")
        datasets.Dataset.from_dict(values, datasets.Features(kinds)).to_parquet(path)

    parquet("train-00000-of-00002.parquet", ["x", "y"])
    parquet("test.parquet", ["y", "x"])
    refused("test.parquet: column 'label' has the classes y, x, but x, y in ...train-00", tmp_path)
    parquet("train-00001-of-00002.parquet", ["y", "x"])
    refused("train-00001-of-00002.parquet: names its classes ...; join files", tmp_path)
    for name in ("train-00001-of-00002.parquet", "test.parquet"):
        parquet(name, ["x", "y"])
    data = load(DataSpec(source=str(tmp_path), sequence=8, vocabulary=300))
    assert data.record["class_names"] == ["x", "y"]


@pytest.mark.parametrize("labels", [(0, 1, 5), ("x", "y", "z")])
def test_labels_beyond_the_classes_that_are_asked_for(tmp_path, labels):
    refused("train.jsonl: row 2 has label ...[0, classes=2); 1 rows are out of range. Set data.cl",
            table(tmp_path, rows(*labels), rows(labels[0])), classes=2)  # fmt: skip


def test_a_row_is_named_by_its_number_in_its_own_file(tmp_path):
    for bad in range(5):
        for part in range(3):
            labels = ["1.5" if (part, row) == (1, bad) else row % 2 for row in range(5)]
            write(tmp_path / "d" / f"part{part}.jsonl", json_lines(rows(*labels)))
        for share in (0.1, 0.5, 0.9):  # whichever split the row is in
            refused(f"part1.jsonl: row {bad} holds '1.5'", tmp_path / "d", train="part*",
                    held_out=share)  # fmt: skip
    one = write(tmp_path / "one.csv", "text,label\n" + "a,0\na,1\n" * 20 + ",0\n" + "a,1\n" * 9)
    for share in (0.1, 0.5, 0.9):
        refused("one.csv: row 40 (line 42) has a text without tokens", one, held_out=share)


# --- texts


def test_texts_that_do_not_fit(tmp_path):
    good = rows(0, 1)
    refused("train.jsonl: row 2 has a text without tokens", table(
        tmp_path, [*good, {"text": " ", "label": 0}]))  # fmt: skip
    refused("train.jsonl: row 2 holds None in column 'text', which is no text", table(
        tmp_path, [*good, {"label": 0}]))  # fmt: skip
    refused("train.jsonl: row 2 holds 7 in column 'text'", table(
        tmp_path, [*good, {"text": 7, "label": 0}]))  # fmt: skip
    long = {"text": "a b " * 4, "label": 1}
    folder = table(tmp_path, [*good, long])
    refused("train.jsonl: row 2 has 8 tokens, more than the 6 that fit data.sequence=8; ...trunc",
            folder, truncate=False)  # fmt: skip
    load(DataSpec(source=str(folder), sequence=8, vocabulary=64, truncate=True))


def test_a_corpus_shorter_than_a_block(tmp_path):
    write(tmp_path / "d" / "train.txt", "a b c d e f")
    write(tmp_path / "d" / "test.txt", "a b")
    refused("test.txt: 2 tokens are less than one sample of data.sequence=8; give more text",
            tmp_path / "d", task="mlm")  # fmt: skip


def test_tokenizers_that_are_none(tmp_path):
    folder = table(tmp_path, rows(0, 1))
    refused("data.tokenizer='wordpeice' cannot be read: ...; did you mean 'wordpiece'?", folder,
            tokenizer="wordpeice")  # fmt: skip
    path = str(write(tmp_path / "t.json", '{"a": 1}'))
    refused("t.json: is not a tokenizer.json: ", folder, tokenizer=path)
    path = str(write(tmp_path / "u.json", letters(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"))))
    refused("u.json: has no [MASK] token; use a BERT-style tokenizer.json, or 'wordpiece' or",
            folder, tokenizer=path, task="mlm")  # fmt: skip
    load(DataSpec(source=str(folder), tokenizer=path))
    with pytest.raises(ValueError, match=r"tokenizer of the model: is not a tokenizer.json"):
        load(DataSpec(source=str(folder)), tokenizer="{")


# --- pictures


GREY, LARGE, COLOUR = (
    picture((9, (4, 4)), mode="L"),
    picture((9, (4, 5)), mode="L"),
    picture(((9, 0, 0), (4, 4)), mode="RGB"),
)


def test_pictures_that_do_not_fit(tmp_path):
    ok = {"train_a": GREY, "train_b": GREY, "test_a": GREY}
    folder = pictures(tmp_path, **{**ok, "train_b": b"no picture"})
    refused("row 1 (...b/1.png) is not a picture that can be read: ", folder)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    folder = pictures(tmp_path, **{**ok, "train_b": picture(noise)[:-900]})
    refused("row 1 (...b/1.png) is not a picture that can be read: ...truncated", folder,
            image_size=4)  # fmt: skip
    folder = pictures(tmp_path, **{**ok, "train_b": LARGE})
    refused("row 1 is a picture of (5, 4), but ...row 0 is one of (4, 4) (height, width); set data."
            "image_size to resize all", folder)  # fmt: skip
    folder = pictures(tmp_path, **{**ok, "test_a": LARGE})
    refused("test: images of (height, width, channels) (5, 4, 1), but (4, 4, 1) in ...train; set "
            "data.image_size", folder)  # fmt: skip
    folder = pictures(tmp_path, **{**ok, "test_a": COLOUR})
    refused("(4, 4, 3), but (4, 4, 1) in ...train", folder)
    folder = pictures(tmp_path, **{**ok, "test_c": GREY})
    refused("test: row 1 has class 'c', which is none of train's: a, b", folder)


def test_preprocessing_that_does_not_fit_the_pictures(tmp_path):
    folder = pictures(tmp_path, train_a=GREY, train_b=GREY, test_a=GREY)
    refused("std=(0.0,) must be positive; a channel with one value everywhere", folder)
    both = {"mean": (0.5,), "std": (0.5,)}
    refused("mean=(0.5, 0.5) is not one finite number for each of 1 channels", folder,
            mean=(0.5, 0.5), std=(1.0, 1.0))  # fmt: skip
    refused("shift=4 is not in [0, 4)", folder, shift=4, **both)
    refused("data.text_pair_column='label' is for texts, but ...train has images", folder,
            text_pair_column="label")  # fmt: skip
    refused("one class alone", pictures(tmp_path / "one", train_a=GREY, test_a=GREY))


def test_a_picture_column_of_files_that_are_not_there(tmp_path):
    columns = {"image": ["a.png", "a.png"], "label": [0, 1]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    refused("x.parquet: row ...a.png) is not a picture that can be read: ...No such file",
            tmp_path / "x.parquet", classes=2)  # fmt: skip


def test_fewer_samples_than_a_batch(tmp_path):
    data = load(DataSpec(source=str(table(tmp_path, rows(0, 1))), sequence=8, vocabulary=64))
    with pytest.raises(ValueError, match="batch_size=3 is larger than the data, 2 samples"):
        train_batches(data.train, 3, seed=0, epoch=0)
