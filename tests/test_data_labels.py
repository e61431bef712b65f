"""Labels as they are written in files, and the classes that a model or the data name."""

import json
import re
import unicodedata

import datasets
import numpy as np
import pytest
from data_files import json_lines, letters, write

from zoo.data import Data, DataSpec, load
from zoo.data.order import HELD_OUT, epoch_order


def labels_in(split) -> list[int]:
    return split.take(np.arange(split.samples))["label"].tolist()


def table(folder, train, validation=None, name="train.csv"):
    """The spec of texts with labels, written as they are."""
    lines = lambda labels: "text,label\n" + "".join(f"a b,{label}\n" for label in labels)
    write(folder / "d" / name, lines(train))
    if validation is not None:
        write(folder / "d" / "dev.csv", lines(validation))
    return DataSpec(source=str(folder / "d"), sequence=8)


def read(spec: DataSpec, **model) -> Data:
    return load(spec, letters(), **model)


def test_spaces_and_spellings_of_an_accent_make_no_class(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != apart
    train = ["neg", " neg", "neg\u00a0", composed, apart, "Neg", "\u200bneg \ufeff"]
    data = read(table(tmp_path, train, [f" {apart}", "neg"]))
    assert (
        data.record["class_names"] == ["Neg", composed, "neg"] == sorted({"Neg", composed, "neg"})
    )
    assert labels_in(data.train) == [2, 2, 2, 1, 1, 0, 2]
    assert labels_in(data.validation) == [1, 2]


@pytest.mark.parametrize("odd", ["01", "2e3", "1.5", ".0", "1e0", "+01", "\uff11"])
def test_what_looks_like_a_number_and_is_no_class_is_refused(tmp_path, odd):
    spec = table(tmp_path, [0, 1, odd, 1], [0])
    with pytest.raises(ValueError, match=rf"row 2 \(line 4\) holds .{re.escape(odd)}. .*no class"):
        read(spec)


def test_codes_beside_words_are_names(tmp_path):
    data = read(table(tmp_path, ["01", "1", "x", "2e3"], ["1"]))
    assert data.record["class_names"] == ["01", "1", "2e3", "x"]
    assert (labels_in(data.train), labels_in(data.validation)) == ([0, 1, 3, 2], [1])


def test_a_number_that_makes_thousands_of_empty_classes_is_refused(tmp_path):
    spec = table(tmp_path, [0, 1, 2000], [0])
    message = "3 different labels, the largest of which, 2000, would make 2,001 classes, 1,998 of"
    with pytest.raises(ValueError, match=message):
        read(spec)
    assert read(DataSpec(**{**vars(spec), "classes": 2001})).classes == 2001
    assert read(table(tmp_path, [1, 2, 3, 5], [1])).classes == 6  # as ratings are


def test_a_label_too_large_for_32_bits_does_not_become_another(tmp_path):
    write(tmp_path / "d" / "train.jsonl", json_lines(
        {"text": "a", "label": label} for label in (0, 1, 2**32)))  # fmt: skip
    write(tmp_path / "d" / "dev.jsonl", json_lines([{"text": "a", "label": 0}]))
    with pytest.raises(ValueError, match=r"row 2 \(line 3\) holds 4294967296 in column"):
        read(DataSpec(source=str(tmp_path / "d")))


# --- the classes of a model


@pytest.mark.parametrize("names", [["pos", "neg", "neutral"], ["b", "neg", "pos"]])
def test_names_get_the_numbers_of_the_model(tmp_path, names):
    """In its own order, also where the data lack one of its classes."""
    given = ["neg", "pos", "pos", " neg"]
    data = read(table(tmp_path, given, ["pos"]), class_names=names)
    assert labels_in(data.train) == [names.index(name.strip()) for name in given]
    assert labels_in(data.validation) == [names.index("pos")]
    assert (data.classes, data.record["class_names"]) == (3, names)


def test_a_mistyped_name_is_no_class_of_the_model(tmp_path):
    spec = table(tmp_path, ["neg", "pos", "negg"], ["pos"])
    message = r"row 2 \(line 4\) has class 'negg', which is none of the model's: pos, neg; did you "
    with pytest.raises(ValueError, match=message + "mean 'neg'"):
        read(spec, class_names=["pos", "neg"])
    assert read(spec).classes == 3  # without a model nothing tells it from a class


def test_numbers_are_those_of_the_model(tmp_path):
    data = read(table(tmp_path, [1, 0, 1], [2]), class_names=["LABEL_0", "LABEL_1", "LABEL_2"])
    assert (labels_in(data.train), labels_in(data.validation)) == ([1, 0, 1], [2])
    with pytest.raises(ValueError, match=r"label 3, which is not in \[0, classes=2\)"):
        read(table(tmp_path, [1, 3], [1]), class_names=["a", "b"])


def test_numbers_that_could_be_names_too_are_refused(tmp_path):
    spec = table(tmp_path, [1, 0], [0])
    with pytest.raises(ValueError, match="so are the names of the model's classes, 1, 0, in anoth"):
        read(spec, class_names=["1", "0"])
    assert labels_in(read(spec, class_names=["0", "1"]).train) == [1, 0]
    with pytest.raises(ValueError, match="has 'a' as the name of two classes"):
        read(spec, class_names=["a", "a"])
    with pytest.raises(ValueError, match=r"class_names=.ab. is one name where several"):
        read(spec, class_names="ab")


def test_data_that_name_their_classes_are_renumbered(tmp_path):
    kinds = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["x", "y"])}
    )
    for name in ("train", "test"):
        rows = {"text": ["a", "b", "c"], "label": [0, 1, 1]}
        write(tmp_path / f"{name}.parquet", "")
        datasets.Dataset.from_dict(rows, kinds).to_parquet(tmp_path / f"{name}.parquet")
    spec = DataSpec(source=str(tmp_path))
    assert labels_in(read(spec).train) == [0, 1, 1]
    assert labels_in(read(spec, class_names=["y", "z", "x"]).train) == [2, 0, 0]
    with pytest.raises(ValueError, match="row 1 has class 'y', which is none of the model's: x, z"):
        read(spec, class_names=["x", "z"])


# --- the draw


@pytest.mark.parametrize("words", [True, False])
def test_the_last_row_of_a_class_is_trained_on(tmp_path, words):
    """A class with one row, which the draw would hold out."""
    drawn = epoch_order(20, *HELD_OUT)[:4]
    labels = ["01"[row % 2] for row in range(20)]
    labels[drawn[1]] = "2"
    if words:
        labels = [{"0": "no", "1": "yes", "2": "zz"}[label] for label in labels]
    data = read(DataSpec(**{**vars(table(tmp_path, labels)), "held_out": 0.2}))
    assert data.classes == 3
    assert (data.train.samples, data.validation.samples) == (17, 3)
    number = {"no": 0, "yes": 1, "zz": 2, "0": 0, "1": 1, "2": 2}
    kept = sorted(set(range(20)) - {*drawn.tolist()} | {int(drawn[1])})
    assert labels_in(data.train) == [number[labels[row]] for row in kept]


def test_classes_of_one_row_each_cannot_be_split(tmp_path):
    with pytest.raises(ValueError, match="the only ones of their classes; give more rows of each"):
        read(table(tmp_path, ["a", "b", "c", "d"]))


def test_a_class_that_only_the_validation_split_has_is_told_with_a_remedy(tmp_path):
    message = r"dev.csv: row 1 \(line 3\) has class 'c', .*; give training rows of it, or leave"
    with pytest.raises(ValueError, match=message):
        read(table(tmp_path, ["a", "b"], ["a", "c"]))


def test_records_are_json(tmp_path):
    json.dumps(read(table(tmp_path, ["a", "b"], ["a"]), class_names=["b", "a"]).record)


@pytest.mark.parametrize("label", ["9" * 400, "1e400", "-Infinity", "NaN"])
def test_numbers_that_no_class_can_have_are_refused_by_their_row(tmp_path, label):
    lines = ["0", "1"] * 9 + [label]
    write(tmp_path / "d.jsonl", "".join(f'{{"text": "a", "label": {each}}}\n' for each in lines))
    for share in (0.1, 0.9):  # whichever part the row is in
        with pytest.raises(ValueError, match=r"row 18 \(line 19\) holds .* which is no class"):
            read(DataSpec(source=str(tmp_path / "d.jsonl"), held_out=share))


@pytest.mark.parametrize("word", ["nan", "None", "NA", "null", "<NA>"])
def test_a_word_for_nothing_among_numbers_makes_no_names(tmp_path, word):
    """Beside words it is one, see tests/test_data_sources.py."""
    with pytest.raises(ValueError, match=rf"row 2 \(line 4\) holds '{word}' .* number of a class"):
        read(table(tmp_path, [0, 1, word, 1], [0]))
    assert read(table(tmp_path, ["a", "b", word, "a"], ["a"])).classes == 3
