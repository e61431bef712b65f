"""What is told of texts and tables rather than refused, and what is not left out in silence."""

import csv
from dataclasses import replace

import pandas
import pytest
from command_lines import cli
from data_files import json_lines, letters, picture, pictures, refused, rows, table, write

from zoo.data import DataSpec, load
from zoo.data.tables import read_table
from zoo.utils.notes import Note

GREY = picture((9, (4, 4)), mode="L")


def test_texts_that_are_cut_are_told(tmp_path):
    some = [{"text": "a b " * count, "label": count % 2} for count in (1, 2, 4, 9, 9)]
    folder = table(tmp_path, some, [{"text": "a " * 20, "label": 0}])
    spec = DataSpec(source=str(folder), sequence=8, vocabulary=64)
    # 8, 18, 18 and 20 tokens, two special ones not counted.
    message = r"train.jsonl: 4 of 6 texts have more than data.sequence=8 tokens and were cut; the "
    with pytest.warns(Note, match=message + "longest has 22. Set data.sequence to keep more"):
        told = load(spec)
    silent = load(replace(spec, truncate=True))
    assert told.record == silent.record
    with pytest.warns(Note, match="3 of 5 texts have"):
        load(replace(spec, source=str(folder / "train.jsonl")), whole=True)


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_a_tsv_in_quotes_is_told_and_can_be_read(tmp_path, quoting):
    texts = ['say "a b"', "a", "b\tc", "d\ne"]
    rows = pandas.DataFrame({"text": texts[:2], "label": ["x", "y"]})
    rows.to_csv(tmp_path / "t.tsv", sep="\t", index=False, quoting=quoting)
    path = tmp_path / "t.tsv"
    with pytest.warns(
        Note, match=r'has fields in quotes, such as "say ""a b""", and .*data.tsv_quotes=tr'
    ):
        as_written = read_table(path)
    assert next(iter(as_written.columns.values()))[0] == '"say ""a b"""'
    assert read_table(path, tsv_quotes=True).columns == {"text": texts[:2], "label": ["x", "y"]}
    rows = pandas.DataFrame({"text": texts, "label": list("xyxy")})
    rows.to_csv(path, sep="\t", index=False, quoting=quoting)
    assert read_table(path, tsv_quotes=True).columns["text"] == texts
    assert read_table(path, tsv_quotes=True).place(3).endswith("row 3 (line 5)")
    refused("unless they are in quotes and data.tsv_quotes=true says so", path)


def test_a_tsv_of_glue_is_read_as_it_is_without_a_note(tmp_path):
    """Quotes that open nothing, as in its files."""
    texts = ['"a b', 'c "d"', '"', '" he said .', '"a" b "c"']
    path = write(tmp_path / "t.tsv", "text\tlabel\n" + "".join(f"{text}\t0\n" for text in texts))
    assert read_table(path).columns["text"] == texts


def test_half_a_character_is_refused_by_its_row(tmp_path):
    folder = table(tmp_path, [*rows(0, 1), {"text": "a \ud83d b", "label": 0}])
    message = "train.jsonl: row 2, column 'text', holds half a character, '\\ud83d' at place 2"
    for task in ("classify", "mlm", "unlabelled"):
        refused(message, folder, task=task)


@pytest.mark.parametrize("bad", [7, 1.5, float("nan"), True, ["a"], {"a": "b"}])
def test_what_is_no_text_is_not_left_out_in_silence(tmp_path, bad):
    """None is: a row without a text."""
    folder = table(tmp_path, [*rows(0, 1), {"text": None, "label": 0}, {"text": bad, "label": 0}])
    refused(f"train.jsonl: row 3 holds {bad!r} in column 'text', which is no text", folder,
            task="unlabelled")  # fmt: skip
    write(folder / "train.jsonl", json_lines([*rows(0, 1), {"text": None, "label": 0}, *rows(1)]))
    data = load(DataSpec(task="unlabelled", source=str(folder), sequence=8, vocabulary=64))
    assert data.train.samples == 1  # different texts


def test_a_suffix_makes_no_two_names_alike(tmp_path):
    for name in ("abc.csv", "trains.tsv"):
        write(tmp_path / name, "text,label\na,0\n")
    for name, hint in (("zzz.csv", ""), ("train.csv", "; did you mean 'trains.tsv'?")):
        with pytest.raises(ValueError, match="does not exist") as error:
            load(DataSpec(source=str(tmp_path / name)))
        assert str(error.value) == f"data.source='{tmp_path / name}' does not exist{hint}"


def test_data_of_the_other_kind_than_the_model_reads(tmp_path):
    """And nothing is said of the mean of images."""
    spec = DataSpec(source=str(table(tmp_path, rows(0, 1))), mean=(0.5,), std=(0.5,))
    with pytest.raises(ValueError, match="the model reads images, and there is no column"):
        load(spec, inputs="images")
    folder = pictures(tmp_path, train_a=GREY, train_b=GREY, test_a=GREY)
    with pytest.raises(ValueError, match="the model reads texts, and there is no column"):
        load(DataSpec(source=str(folder)), letters(), inputs="text")
    both = [{"text": "a", "image": "none.png", "label": label} for label in (0, 1)]
    spec = DataSpec(source=str(table(tmp_path / "both", both, both)))
    assert load(spec, letters(), inputs="text").train.samples == 2


def test_a_run_on_own_data_says_what_of_its_preset_is_in_the_way(tmp_path, monkeypatch):
    """Nothing is asked of the Hub for it."""
    monkeypatch.setattr("zoo.pretrained.locate.fetch", None)
    write(tmp_path / "notes.txt", "a b c\n" * 9)
    done = cli("train", "topics_hnn", "--set", "data.source=notes.txt", cwd=tmp_path)
    assert done.returncode == 2
    message = "distill.teacher='runs/topics_ann': the run of the preset topics_ann is not here."
    assert message in done.stderr
    assert "set distill.teacher=none" in done.stderr
    write(tmp_path / "reviews.csv", "text,label\na,0\nb,1\n")
    done = cli("train", "digits_hnn", "--set", "data.source=reviews.csv", cwd=tmp_path)
    assert done.returncode == 2
    assert "reviews.csv: the model reads images, and there is no column" in done.stderr


def test_a_column_is_not_read_as_a_text_and_its_own_label(tmp_path):
    """From which every class is easily told."""
    folder = table(tmp_path, rows("a", "b"), rows("a"))
    refused("data.text_column='label' and data.label_column='label' are one column", folder,
            text_column="label")  # fmt: skip
    refused("data.text_pair_column='label' and data.label_column='label' are one", folder,
            text_pair_column="label")  # fmt: skip
    refused("data.text_column='text' and data.text_pair_column='text' are one", folder,
            text_pair_column="text")  # fmt: skip


def test_the_part_of_a_file_that_is_too_short_is_named(tmp_path):
    path = write(tmp_path / "t.txt", "a b c d e f g h\n" * 9 + "a b\n")
    refused("t.txt, the rows held out: 2 tokens are less than one sample of data.sequence=8", path,
            task="mlm")  # fmt: skip


def test_the_tokenizer_of_a_folder_is_named(tmp_path):
    write(tmp_path / "model" / "tokenizer.json", letters())
    file = str(tmp_path / "model" / "tokenizer.json")
    refused(f"is a folder...; in this folder that is {file!r}", table(tmp_path, rows(0, 1)),
            tokenizer=str(tmp_path / "model"))  # fmt: skip
