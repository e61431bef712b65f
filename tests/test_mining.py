"""Pairs out of texts alone: a matching by a model's embeddings, its file, and the script."""

import json
from dataclasses import replace

import numpy as np
import pytest
from command_lines import cli
from data_files import letters, write
from distilling import saved_teacher
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data import DataSpec, load
from zoo.embedding import mining
from zoo.embedding.encoder import Encoder
from zoo.embedding.similarity import COLUMNS, cosines, read_pairs
from zoo.embedding.texts import texts_spec
from zoo.pretrained.load import load_pretrained


def directions(count, width=4, seed=0):
    made = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@given(count=st.integers(2, 90), neighbours=st.integers(1, 100), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_every_partner_is_one_of_the_nearest_that_are_free(count, neighbours, seed):
    """Replayed pair by pair, in float64, from the pairs alone."""
    vectors = directions(count, seed=seed)
    exact = vectors.astype(np.float64)
    pairs = mining.matched(vectors, neighbours, seed)
    assert len(pairs) == count // 2
    free = set(range(count))
    for first, second, cosine in pairs:
        free.remove(first)
        nearer = sum(exact[first] @ exact[other] > cosine + 1e-6 for other in free - {second})
        assert nearer < neighbours
        assert cosine == pytest.approx(exact[first] @ exact[second], abs=1e-6)
        free.remove(second)  # KeyError: it was in a pair before
    assert mining.matched(vectors, neighbours, seed) == pairs


def test_a_vector_that_is_not_finite_is_refused():
    vectors = directions(8)
    vectors[3, 1] = np.nan
    with pytest.raises(ValueError, match="that of text 3 is not finite"):
        mining.matched(vectors, 2)


def test_the_nearest_alone_are_nearer_than_any():
    vectors, mean = directions(400, 8), lambda pairs: np.mean([pair.cosine for pair in pairs])
    one, ten, any_of_them = (mean(mining.matched(vectors, n)) for n in (1, 10, 400))
    assert one > ten + 0.05
    assert ten > any_of_them + 0.3
    assert abs(any_of_them) < 0.1
    assert mining.matched(vectors, 10, 1) != mining.matched(vectors, 10, 0)


def test_progress_counts_texts():
    done = []
    mining.matched(directions(7), 10, progress=done.append)
    assert done == [2, 4, 6]


@pytest.mark.parametrize(
    ("count", "neighbours", "message"), [(1, 1, "1 different texts"), (4, 0, "neighbours=0")]
)
def test_what_makes_no_pairs(count, neighbours, message):
    with pytest.raises(ValueError, match=message):
        mining.matched(directions(count), neighbours)


def test_embeddings_have_length_1_and_are_the_encoders(tmp_path):
    encoder = Encoder.of(load_pretrained(saved_teacher(tmp_path)), batch_size=1)
    texts = ["a b", "c", "d e f"] * 30  # more than a window
    done = []
    made = mining.embedded(encoder, texts, done.append)
    assert done == [32, 64, 90]
    one = encoder.embed(texts[:3])
    wanted = one / np.linalg.norm(one, axis=1, keepdims=True)
    np.testing.assert_allclose(made, np.tile(wanted, (30, 1)), atol=1e-6)


def test_texts_without_tokens_are_left_out(tmp_path):
    tokenizer = json.loads(letters())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "h"}, "content": ""}
    loaded = load_pretrained(saved_teacher(tmp_path))
    encoder = Encoder.of(replace(loaded, tokenizer=json.dumps(tokenizer)))
    assert mining.with_tokens(encoder, ["a h", "h", "b", "h h"]) == ["a h", "b"]


def test_a_file_of_pairs_is_read_back_as_it_was(tmp_path):
    texts = ['a, "b"', "c\td", "e\nf", "g\rh"]
    path = tmp_path / "new" / "pairs.csv"
    mining.write(path, texts, [mining.Matched(0, 2, 0.5), mining.Matched(3, 1, -0.25)])
    first, second, score = read_pairs(DataSpec(source=str(path), **COLUMNS))
    assert (first, second, score.tolist()) == (['a, "b"', "g\nh"], ["e\nf", "c\td"], [0.5, -0.25])


def script(tmp_path, *arguments):
    model = tmp_path / "dense.safetensors"
    if not model.exists():
        saved_teacher(tmp_path)
    return cli("mine", model, *arguments)


def test_the_script_writes_what_distillation_reads(tmp_path):
    draw = np.random.default_rng(0)
    texts = sorted({" ".join(draw.choice(list("abcdefgh"), 4)) for _ in range(60)})
    content = "words\n" + "".join(f"{text}\n" for text in texts)
    source = write(tmp_path / "texts" / "train.tsv", content).parent  # all, though no dev is there
    out = tmp_path / "pairs" / "texts.csv"
    done = script(tmp_path, "--data", str(source), "--set", "data.text_column=words",
                  "--out", str(out))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{len(texts) // 2} pairs; cosines" in done.stdout
    pairs = DataSpec(task="unlabelled", source=str(out.parent), train="*", sequence=9, pairs=True,
                     text_column="sentence1", text_pair_column="sentence2",
                     held_out=0.2)  # fmt: skip
    data = load(pairs, tokenizer=letters())
    held_out = round(0.2 * (len(texts) // 2))
    assert data.validation.samples == 2 * held_out  # no pair shares a text with another
    assert data.train.samples == 2 * (len(texts) // 2 - held_out)
    first, second, score = read_pairs(DataSpec(source=str(out), **COLUMNS))
    assert {*first, *second} <= {*texts}
    encoder = Encoder.of(load_pretrained(str(tmp_path / "dense.safetensors")))
    np.testing.assert_allclose(cosines(encoder, first, second), score, atol=6e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "pairs.tsv"], "out='pairs.tsv' must end in .csv"),
        (["--out", "folder.csv"], "is a folder; give the name of a file"),
        (["--seed", "-1"], "seed=-1 must be at least 0"),
        (["--samples", "1"], "samples=1 must be at least 2"),
        (["--neighbours", "0"], "neighbours=0 must be at least 1"),
        (["--set", "data.text_column=word"], "no column data.text_column='word'"),
    ],
)
def test_the_script_refuses(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    source = write(tmp_path / "texts.txt", "a b\nc d\ne\n")
    out = [] if "--out" in arguments else ["--out", "pairs.csv"]
    done = script(tmp_path, "--data", str(source), *out, *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr
    assert not (tmp_path / "pairs.csv").exists()
    assert not (tmp_path / "pairs.tsv").exists()


def test_the_script_does_not_write_over_what_it_reads(tmp_path):
    content = "text\na b\nc d\ne\n"
    source = write(tmp_path / "texts" / "texts.csv", content)
    for data in (source, source.parent):
        done = script(tmp_path, "--data", str(data), "--out", str(source))
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "belongs to what is read, " in done.stderr
    assert source.read_text() == content
    # A name is no path: what is there is replaced.
    done = script(tmp_path, "--data", "topics", "--samples", "4", "--out", str(source))
    assert done.returncode == 0, done.stderr
    assert len(read_pairs(DataSpec(source=str(source), **COLUMNS))[0]) == 2


def test_texts_are_in_the_column_text_unless_said():
    assert texts_spec("a.txt", []).text_column == "text"
    spec = texts_spec("a.tsv", ["data.text_column=words", "data.source=b.tsv"])
    assert (spec.text_column, spec.source) == ("words", "a.tsv")
    with pytest.raises(ValueError, match="unknown key"):
        texts_spec("a.tsv", ["data.column=words"])
