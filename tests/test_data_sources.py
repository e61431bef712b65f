"""Every kind of file and folder that data are read from, tiny and written here."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from data_files import json_lines, letters, write

from zoo.config.data import source_and_column
from zoo.data import Data, DataSpec, embedded, load, train_batches
from zoo.data.order import HELD_OUT, epoch_order
from zoo.data.tables import read_table
from zoo.data.tokenizer import read_tokenizer

RNG = np.random.default_rng
TEXTS = ["a b c", "d e", "f g h a", "b"]


def everything(split) -> dict[str, np.ndarray]:
    return split.take(np.arange(split.samples))


def letters_in(split) -> list[str]:
    """The texts of a split whose tokenizer is `letters`, without special tokens; "?" is unknown."""
    batch = everything(split)
    return [
        "".join(
            chr(t - 5 + ord("a")) if t >= 5 else "?" for t in row[m].tolist() if t not in (2, 3)
        )
        for row, m in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


def classify(source: Path, **changes) -> Data:
    tokenizer = source.parent / "letters.json"
    if not tokenizer.exists():
        write(tokenizer, letters())
    fields = {"sequence": 8, "tokenizer": str(tokenizer), "held_out": 0.25}
    return load(DataSpec(source=str(source), **{**fields, **changes}))


def labels_in(split) -> list[int]:
    return everything(split)["label"].tolist()


# --- tables


def parquet(path: Path, columns: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


ROWS = [{"text": t, "label": i} for i, t in zip([0, 1, 2, 1], TEXTS, strict=True)]
CSV = 'label,text\n0,a b c\n1,"d e"\n2,"f g h a"\n1,b\n'
TSV = "text\tlabel\na b c\t0\nd e\t1\nf g h a\t2\nb\t1\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.csv", CSV),
        ("d.CSV.gz", CSV),
        ("d.csv", "\ufeff" + CSV.replace("\n", "\r\n")),
        ("d.csv", CSV.replace("b\n", "b\n\n\n")),
        ("d.tsv", TSV),
        ("d.tsv.gz", TSV),
        ("d.jsonl", json_lines(ROWS)),
        ("d.jsonl.gz", json_lines(ROWS).replace("\n", "\n\n")),
        ("d.jsonl", json_lines([{**row, "label": str(row["label"])} for row in ROWS])),
        ("d.parquet", None),
    ],
)
def test_a_file_of_texts_and_labels(tmp_path, name, content):
    path = tmp_path / name
    if content is None:
        parquet(path, {"text": TEXTS, "label": [0, 1, 2, 1]})
    else:
        write(path, content)
    data = classify(path)
    # A quarter of four rows is held out: the first in a fixed order, whatever the file.
    held = int(epoch_order(4, *HELD_OUT)[0])
    rest = [row for row in range(4) if row != held]
    flat = [t.replace(" ", "") for t in TEXTS]
    assert letters_in(data.train) == [flat[row] for row in rest]
    assert letters_in(data.validation) == [flat[held]]
    assert labels_in(data.train) == [[0, 1, 2, 1][row] for row in rest]
    assert (data.task, data.classes, data.vocabulary) == ("classify", 3, 13)
    assert data.tokenizer == letters()
    json.dumps(data.record)
    assert data.record["source"] == name
    assert data.record["samples"] == {"train": 3, "validation": 1}
    assert (data.record["classes"], data.record["class_names"]) == (3, None)
    assert data.record["tokenizer_kind"] == "letters.json"


def test_a_csv_keeps_what_is_quoted_and_a_tsv_takes_quotes_as_they_are(tmp_path):
    write(tmp_path / "c" / "train.csv", 'text,label\n"a, ""b""\nc",0\n"d",1\n')
    write(tmp_path / "c" / "test.csv", "text,label\nh,1\n")
    write(tmp_path / "t" / "train.tsv", 'text\tlabel\n"a b\t0\n"d"\t1\n')
    write(tmp_path / "t" / "test.tsv", "text\tlabel\nh\t1\n")
    seen = []
    for name in "ct":
        data = classify(tmp_path / name, tokenizer="bytes", vocabulary=300, sequence=20)
        tokenizer = read_tokenizer(data.tokenizer, "").tokenizer
        seen += [tokenizer.decode(row.tolist()) for row in everything(data.train)["input_ids"]]
    assert seen == ['a, "b"\nc', "d", '"a b', '"d"']


WORDS_LIKE_NOTHING = ["null", "NA", "nan", "None", "", "N/A", "007", "1e5", "true"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_no_word_is_taken_for_nothing_or_for_a_number(tmp_path, kind):
    path = tmp_path / f"w.{kind}"
    mark = {"csv": ",", "tsv": "\t"}.get(kind)
    if mark:
        write(path, "".join(f"{w}{mark}x\n" for w in ["word", *WORDS_LIKE_NOTHING]))
    elif kind == "jsonl":
        write(path, json_lines({"word": w} for w in WORDS_LIKE_NOTHING))
    else:
        parquet(path, {"word": WORDS_LIKE_NOTHING})
    assert read_table(path).column("word", "text_column") == WORDS_LIKE_NOTHING


@pytest.mark.parametrize("mark", [",", "\t"])
def test_a_field_may_be_long(tmp_path, mark):
    long = "word " * 50_000  # twice what Python's csv module reads unless told otherwise
    path = write(tmp_path / ("d.csv" if mark == "," else "d.tsv"), f"text{mark}n\n{long}{mark}1\n")
    limit = csv.field_size_limit()
    assert read_table(path).column("text", "text_column") == [long]
    assert csv.field_size_limit() == limit


def test_class_names_are_sorted_and_recorded(tmp_path):
    write(tmp_path / "d" / "train.csv", "text,label\na,dog\nb,null\nc,cat\nd,dog\n")
    write(tmp_path / "d" / "dev.csv", "text,label\na,null\nb,dog\n")
    data = classify(tmp_path / "d")
    assert labels_in(data.train) == [1, 2, 0, 1]
    assert labels_in(data.validation) == [2, 1]
    assert data.classes == 3
    assert data.record["class_names"] == ["cat", "dog", "null"]


def test_written_and_true_or_false_labels_are_numbers(tmp_path):
    write(
        tmp_path / "d" / "train.jsonl",
        json_lines(
            {"text": "a", "label": label} for label in ("1", "0.0", 2, 3.0, True, False, "+1.")
        ),
    )
    write(tmp_path / "d" / "test.jsonl", json_lines([{"text": "a", "label": " 3 "}]))  # fmt: skip
    data = classify(tmp_path / "d")
    assert labels_in(data.train) == [1, 0, 2, 3, 1, 0, 1]
    assert (labels_in(data.validation), data.classes) == ([3], 4)
    assert classify(tmp_path / "d", classes=9).classes == 9


def test_pairs_of_texts(tmp_path):
    write(tmp_path / "d" / "train.tsv", "one\ttwo\ty\na b\tc\t0\nd\te f\t1\n")
    write(tmp_path / "d" / "validation.tsv", "one\ttwo\ty\na\tb\t0\n")
    data = classify(
        tmp_path / "d", text_column="one", text_pair_column="two", label_column="y", sequence=6
    )
    batch = everything(data.train)
    assert batch["input_ids"].tolist() == [[2, 5, 6, 3, 7, 3], [2, 8, 3, 9, 10, 3]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]]
    assert everything(data.validation)["attention_mask"].tolist() == [[True] * 5 + [False]]


# --- splits


def corpus(folder: Path, **texts: str) -> Path:
    for name, content in texts.items():
        write(folder / f"{name}.txt", content)
    return folder


def blocks_in(data: Data) -> list[str]:
    return ["".join(chr(t - 5 + ord("a")) for t in row[1:-1]) for part in
            (data.train, data.validation) for row in part.tokens.tolist()]  # fmt: skip


def masked(source: Path, **changes) -> Data:
    return classify(source, task="mlm", sequence=4, **changes)


@pytest.mark.parametrize("name", ["t.txt", "t.txt.gz", "T.TXT"])
def test_a_corpus_in_one_file_holds_out_its_end(tmp_path, name):
    data = masked(write(tmp_path / name, "a b\nc d\n\ne f\n\n\ng h\na b"))
    # A quarter of 8 lines: the last two.
    assert blocks_in(data) == ["ab", "cd", "ef", "gh", "ab"]
    assert (data.train.samples, data.validation.samples) == (3, 2)
    assert (data.task, data.classes, data.record["mask_rate"]) == ("mlm", None, 0.15)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_a_corpus_may_be_a_column_of_a_table(tmp_path, kind):
    path = tmp_path / f"t.{kind}"
    rows = ["a b", "c d", "e f", "g h"]
    if kind == "parquet":
        parquet(path, {"text": rows, "more": [1, 2, 3, 4]})
    else:
        write(path, json_lines({"text": row} for row in rows) if kind == "jsonl" else
              "more,text\n" + "".join(f"1,{row}\n" for row in rows))  # fmt: skip
    assert blocks_in(masked(path)) == ["ab", "cd", "ef", "gh"]


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev", "test"])
def test_a_folder_has_its_validation_under_a_usual_name(tmp_path, name):
    data = masked(corpus(tmp_path / "d", train="a b c d", **{name: "e f"}, other="h h"))
    assert blocks_in(data) == ["ab", "cd", "ef"]


def test_the_first_usual_name_is_taken_or_the_one_that_is_asked_for(tmp_path):
    folder = corpus(tmp_path / "d", train="a b", test="c d", dev="e f", more="g h")
    assert blocks_in(masked(folder)) == ["ab", "ef"]
    assert blocks_in(masked(folder, validation="test")) == ["ab", "cd"]
    assert blocks_in(masked(folder, train="more", validation="train.txt")) == ["gh", "ab"]
    # A split is never its own validation.
    assert blocks_in(masked(folder, train="dev")) == ["ef", "cd"]


def test_globs_and_numbered_parts_are_joined_in_the_order_of_their_names(tmp_path):
    folder = corpus(tmp_path / "d", part2="c d", part1="a b", part3="e f", held="g h")
    assert blocks_in(masked(folder, train="part*", validation="held")) == ["ab", "cd", "ef", "gh"]
    assert blocks_in(masked(folder, train="part[12].txt", validation="part3")) == ["ab", "cd", "ef"]
    hub = tmp_path / "hub"
    parquet(hub / "train-00001-of-00002.parquet", {"text": ["c d"]})
    parquet(hub / "train-00000-of-00002.parquet", {"text": ["a b"]})
    parquet(hub / "validation-00000-of-00001.parquet", {"text": ["e f"]})
    assert blocks_in(masked(hub)) == ["ab", "cd", "ef"]


def test_held_out_samples_are_a_share_at_random_the_same_in_every_run(tmp_path):
    rows = "".join(f"{i % 2},{'abcdefgh'[i % 8]} {'abcdefgh'[i // 8]}\n" for i in range(64))
    path = write(tmp_path / "d.csv", "label,text\n" + rows)
    first, second = (classify(path, held_out=0.1) for _ in range(2))
    train, validation = letters_in(first.train), letters_in(first.validation)
    assert len(validation) == 6
    assert sorted(train + validation) == sorted(a + b for a in "abcdefgh" for b in "abcdefgh")
    assert train == sorted(train, key=lambda w: (w[1], w[0]))  # the file's order is kept
    assert [w[1] for w in validation] != ["h"] * 6  # not its end
    assert letters_in(second.validation) == validation
    assert first.record == second.record


# --- embedded text, and records


def test_topics_are_prose_without_repeats_between_the_parts():
    train, validation, record = embedded.topics()
    assert not set(train) & set(validation)
    assert len(set(train)) == len(train)
    assert len(set(validation)) == len(validation)
    for paragraph in (*train, *validation):
        assert paragraph == " ".join(paragraph.split())
    share = sum(map(len, validation)) / sum(map(len, (*train, *validation)))
    assert 0.05 < share < 0.2
    assert len(record["text_sha256"]) == 64
    data = load(DataSpec(task="mlm", source="topics", sequence=32, vocabulary=1024))
    assert data.vocabulary == 1024
    assert data.record["text_sha256"] == record["text_sha256"]
    assert min(data.train.samples, data.validation.samples) > 100
    batch = next(train_batches(data.train, 8, seed=0, epoch=0))
    assert batch["input_ids"].shape == (8, 32)
    assert batch["position"].shape == (8, 4)  # round(0.15 * 30)
    # Hardly a word of the held-out text is unknown.
    assert (data.validation.tokens == 1).mean() < 0.001


@pytest.mark.parametrize("kind", ["wordpiece", "bytes"])
def test_the_same_spec_gives_the_same_data_and_a_models_tokenizer_goes_first(tmp_path, kind):
    folder = corpus(tmp_path / "d", train="the cat and the hat\nthat sat\n" * 50, dev="a cat\n" * 9)
    spec = DataSpec(task="mlm", source=str(folder), tokenizer=kind, vocabulary=300, sequence=8)
    first, second = load(spec), load(spec)
    assert first.record == second.record
    assert first.tokenizer == second.tokenizer
    np.testing.assert_array_equal(first.train.tokens, second.train.tokens)
    other = load(spec, tokenizer=letters())
    assert other.tokenizer == letters()
    assert other.vocabulary == 13
    assert other.record["sha256"] != first.record["sha256"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("x.csv", ("x.csv", None)),
        ("x.csv:one", ("x.csv", "one")),
        ("x.csv:a:b", ("x.csv", "a:b")),
        ("a:b.csv", ("a:b.csv", None)),
        ("a:b.csv:c:d", ("a:b.csv", "c:d")),
        ("owner/name:one", ("owner/name", "one")),
        ("x.csv:", ("x.csv:", None)),
        (":one", (":one", None)),
        ("", ("", None)),
    ],
)
def test_a_column_is_what_follows_the_file(tmp_path, monkeypatch, given, wanted):
    monkeypatch.chdir(tmp_path)
    for name in ("x.csv", "a:b.csv"):
        (tmp_path / name).write_text("a\n")
    assert source_and_column(given) == wanted
