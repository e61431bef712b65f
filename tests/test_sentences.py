"""Sentence embeddings: batches, files, similarity, and the two scripts."""

import io
import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from command_lines import cli
from data_files import letters, write
from meshes import jit
from pyarrow import parquet

from zoo.data import DataSpec
from zoo.embedding import files as embeddings
from zoo.embedding import similarity
from zoo.embedding.encoder import Encoder
from zoo.embedding.texts import read_texts
from zoo.evaluation.score import score_any
from zoo.models.registry import create_model
from zoo.pretrained import single_file
from zoo.pretrained.pretrained_model import Pretrained
from zoo.pretrained.source import PretrainedConfig

LONGEST = 40


@pytest.fixture(scope="module")
def loaded():
    model = create_model(
        "bert_nano", "hnn", stages=2, task="encode", vocabulary=16, width=16, heads=2, mlp_width=32
    )
    params = model.init(jax.random.key(0))
    source = PretrainedConfig("a test", {}, None, {"max_tokens": LONGEST})
    return Pretrained(model, params, None, {}, letters(), source)


@pytest.fixture(scope="module")
def encoder(loaded):
    return Encoder.of(loaded, batch_size=4)


def texts(count, longest=60, seed=0):
    draw = np.random.default_rng(seed)
    return [
        " ".join(draw.choice(list("abcdefgh"), draw.integers(1, longest))) for _ in range(count)
    ]


def alone(encoder, some):
    """The embeddings of texts, their tokens written out by hand, without any padding."""
    apply = jit(lambda batch: encoder.model.apply(encoder.params, batch)[0].embedding)
    for text in some:
        ids = [5 + "abcdefgh".index(letter) for letter in text.split()][: LONGEST - 2]
        yield np.asarray(apply({"input_ids": np.array([[2, *ids, 3]], np.int32)}))[0]


def test_embeddings_are_those_of_each_text_alone(encoder):
    some = [*texts(10), ""]
    made = encoder.embed(some)
    assert made.shape == (11, 16)
    for embedding, wanted in zip(made, alone(encoder, some), strict=True):
        # A spike on the edge may fall elsewhere by rounding; most numbers are equal to 1e-5.
        difference = np.abs(embedding - wanted)
        assert np.quantile(difference, 0.75) < 1e-5
        assert difference.max() < 0.1


def test_every_text_is_in_one_batch(encoder):
    seen = []
    for places, batch in encoder.batches(texts(11)):
        assert batch["input_ids"].shape == batch["attention_mask"].shape
        assert batch["input_ids"].shape[1] in (16, 32, LONGEST)
        assert batch["weight"].sum() == len(places)
        lengths = batch["attention_mask"][: len(places)].sum(1)
        assert (lengths <= LONGEST).all()
        seen += places.tolist()
    assert sorted(seen) == list(range(11))


def test_an_encoder_says_what_it_lacks(loaded):
    with pytest.raises(ValueError, match=r"no tokenizer\.json"):
        Encoder.of(replace(loaded, tokenizer=None))
    small = letters([*("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), *"abcdefghijklmnop"])
    with pytest.raises(ValueError, match="21 tokens, the model vocabulary=16"):
        Encoder.of(replace(loaded, tokenizer=small))
    with pytest.raises(ValueError, match="task='classify' gives no embeddings"):
        Encoder.of(replace(loaded, model=create_model("bert_nano", task="classify")))
    with pytest.raises(ValueError, match="batch_size=0"):
        Encoder.of(loaded, batch_size=0)


def test_files_hold_what_the_encoder_makes(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "WINDOW", 2)  # several windows of 8
    some, counted = texts(21), []
    wanted = np.concatenate([encoder.embed(some[i : i + 8]) for i in (0, 8, 16)])
    assert embeddings.write(tmp_path / "a.npy", encoder, some, counted.append) == 21
    assert counted == [8, 16, 21]
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", allow_pickle=False), wanted)
    embeddings.write(tmp_path / "a.parquet", encoder, iter(some), counted.append)
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table["text"].to_pylist() == some
    np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), wanted)


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_two_that_write_one_file_at_once_do_not_mix(encoder, tmp_path, monkeypatch, suffix):
    """The second begins and ends while the first is at work; the last to end has the file."""
    monkeypatch.setattr(embeddings, "WINDOW", 1)
    out, first, second = tmp_path / f"a{suffix}", texts(12), texts(9, seed=1)

    def interrupted():
        yield from first[:6]
        assert embeddings.write(out, encoder, second, lambda done: None) == 9
        yield from first[6:]

    assert embeddings.write(out, encoder, interrupted(), lambda done: None) == 12
    alone = tmp_path / f"b{suffix}"
    embeddings.write(alone, encoder, first, lambda done: None)
    assert out.read_bytes() == alone.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, alone.name]


def test_a_file_is_whole_or_absent(encoder, tmp_path):
    def broken():
        yield from texts(3)
        raise OSError("the stream broke off")

    with pytest.raises(OSError, match="broke off"):
        embeddings.write(tmp_path / "a.npy", encoder, broken(), print)
    with pytest.raises(ValueError, match="has no lines"):
        embeddings.write(tmp_path / "a.npy", encoder, [], print)
    with pytest.raises(ValueError, match=r"must end in \.npy or \.parquet"):
        embeddings.write(tmp_path / "a.txt", encoder, ["a"], print)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(ValueError, match=r"folder\.npy' is a folder"):
        embeddings.write(tmp_path / "folder.npy", encoder, broken(), print)


def test_lines_are_utf_8_in_every_locale():
    content = "naïve\r\n\nz".encode()
    assert list(embeddings.read_lines(io.BytesIO(content), "stdin")) == ["naïve", "", "z"]
    with pytest.raises(ValueError, match="stdin: line 2 is not UTF-8"):
        list(embeddings.read_lines(io.BytesIO(b"a\n\xff\xfe\n"), "stdin"))


def pairs(tmp_path, grades, seed=1):
    some = texts(2 * len(grades), 12, seed)
    rows = zip(some[::2], some[1::2], grades, strict=True)
    lines = ["sentence1\tsentence2\tscore", *("\t".join(map(str, row)) for row in rows)]
    return write(tmp_path / "pairs.tsv", "\n".join(lines) + "\n"), some


def test_similarity_is_the_rank_correlation_with_the_grades(encoder, tmp_path):
    grades = np.random.default_rng(3).permutation(12) / 2.0
    path, some = pairs(tmp_path, grades)
    result = similarity.score(encoder, DataSpec(source=str(path), **similarity.COLUMNS))
    vectors = encoder.embed([*some[::2], *some[1::2]]).astype(np.float64)
    first, second = vectors[:12], vectors[12:]
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    ranks = [np.argsort(np.argsort(x)) for x in ((first * second).sum(1) / norms, grades)]
    # Without ties: 1 - 6 sum d^2 / (n (n^2 - 1)) (Spearman 1904).
    expected = 1 - 6 * ((ranks[0] - ranks[1]) ** 2).sum() / (12 * (12**2 - 1))
    assert result["spearman"] == pytest.approx(expected, abs=1e-9)
    assert (result["samples"], result["bits_per_token"], result["code"]) == (12, 16, "phase")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sentence1\tsentence2\nab\tc\n", "no column data.label_column='score'"),
        ("sentence1\tsentence2\tscore\na\tb\tx\n", "row 0 holds 'x' in column 'score'"),
        ("sentence1\tsentence2\tscore\na\tb\tnan\n", "row 0 holds 'nan'"),
        ("sentence1\tsentence2\tscore\na\t \t1\n", "row 0 has no text in column 'sentence2'"),
        ("sentence1\tsentence2\tscore\na\tb\t1\nc\td\t1\n", "2 grades, none of which differ"),
    ],
)
def test_bad_pairs_are_refused(encoder, tmp_path, content, message):
    path = write(tmp_path / "pairs.tsv", content)
    with pytest.raises(ValueError, match=message):
        similarity.score(encoder, DataSpec(source=str(path), **similarity.COLUMNS))


def test_an_encoder_is_scored_on_nothing_but_pairs(loaded):
    for name in ("digits", "topics"):
        spec = DataSpec(source=name, **similarity.COLUMNS)
        with pytest.raises(ValueError, match="this model makes embeddings; task='stsb'"):
            score_any(loaded, spec, "classify")
        with pytest.raises(ValueError, match=rf"{name} \(validation\): no column data\."):
            score_any(loaded, spec, "stsb")


def test_embedded_texts_are_there_to_embed(encoder):
    some = read_texts(DataSpec(source="topics", task="unlabelled"))
    assert len(some) > 1000
    assert len(set(some)) == len(some)
    assert np.isfinite(encoder.embed(some[:3])).all()


def test_the_scripts(loaded, tmp_path):
    path, _ = pairs(tmp_path, np.arange(6.0))
    file = tmp_path / "model.safetensors"
    single_file.save(file, loaded.model, loaded.params, loaded.source, {}, loaded.tokenizer)
    done = cli("evaluate", file, "--task", "stsb", "--data", path, "--json")
    assert done.returncode == 0, done.stderr
    assert {"spearman", "samples", "bits_per_token"} <= json.loads(done.stdout).keys()
    done = cli("embed", file, "--out", tmp_path / "a.npy", input="a b\nc d e\n")
    assert done.returncode == 0, done.stderr
    assert "2 embeddings of 16 numbers" in done.stdout
    content = io.BytesIO((tmp_path / "a.npy").read_bytes())
    assert np.load(content, allow_pickle=False).shape == (2, 16)
