"""Sentence embeddings: batches, files, similarity, and the two scripts."""

import io
import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from command_lines import cli
from data_files import json_lines, letters, write
from meshes import jit
from pyarrow import parquet

from zoo.data import DataSpec
from zoo.data.tokenizer import train_tokenizer
from zoo.embedding import files as embeddings
from zoo.embedding import mining, similarity
from zoo.embedding.encoder import Encoder
from zoo.embedding.texts import read_texts
from zoo.evaluation.score import score_any
from zoo.models.registry import create_model
from zoo.pretrained import single_file
from zoo.pretrained.pretrained_model import Pretrained
from zoo.pretrained.source import PretrainedConfig
from zoo.pretrained.warm_start import pooled
from zoo.utils.notes import Note

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


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", r"texts='one text' is one text where several belong; put it in a list"),
        (b"bytes", "is one text where several belong"),
        ({"a": 1}, "must be a list of texts in an order, got dict"),
        ({"a"}, "must be a list of texts in an order, got set"),
        (5, "got int"),
        (["a", None], "text 1 is None, which is no text; mend or remove it"),
        (["a", float("nan")], "text 1 is nan, which is no text"),
        (["a", b"b"], "text 1 is b'b', which is no text"),
        (["a", "b \ud800"], r"text 1 holds half a character, '\\ud800' at place 2, which UTF-8"),
        ([["a"]], r"text 0 is \['a'\], which is no text"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(encoder, texts, message):
    with pytest.raises(ValueError, match=message):
        encoder.embed(texts)


def test_one_text_is_nowhere_taken_for_its_letters(encoder, tmp_path):
    for work in (
        lambda: encoder.vocabulary.encode("a b"),
        lambda: embeddings.write(tmp_path / "a.npy", encoder, "a b", print),
        lambda: similarity.cosines(encoder, "a b", ["a", "b", "c"]),
        lambda: mining.mine(encoder, "a b", 1),
        lambda: train_tokenizer("bytes", "a b", 300),
    ):
        with pytest.raises(ValueError, match="texts='a b' is one text where several belong"):
            work()


@pytest.mark.parametrize("grade", ["1_0", True, "0x10", "1,5", "9" * 400, None, [1]])
def test_a_grade_is_a_number_as_it_is_written(encoder, tmp_path, grade):
    rows = [{"sentence1": "a", "sentence2": "b", "score": value} for value in (2, grade)]
    path = write(tmp_path / "pairs.jsonl", json_lines(rows))
    with pytest.raises(ValueError, match=r"row 1 \(line 2\) holds .* a grade is a finite number"):
        similarity.score(encoder, DataSpec(source=str(path), **similarity.COLUMNS))


def test_an_encoder_is_of_a_trained_model(loaded):
    with pytest.raises(ValueError, match=r"Encoder\.of: loaded=None must be of type Pretrained"):
        Encoder.of(None)
    for size in (True, "8", 1.5):
        with pytest.raises(ValueError, match="must be a whole number from 1 to 999999"):
            Encoder.of(loaded, size)


def test_any_sequence_of_texts_will_do(encoder):
    some = texts(3)
    wanted = encoder.embed(some)
    for other in (tuple(some), np.array(some), np.array(some, object), (text for text in some)):
        np.testing.assert_array_equal(encoder.embed(other), wanted)
    assert encoder.embed([]).shape == (0, 16)


def with_preprocessing(loaded, **more):
    known = {**loaded.source.preprocessing, **more}
    return replace(loaded, source=replace(loaded.source, preprocessing=known))


def test_a_prompt_is_put_before_every_text(loaded, encoder):
    prompted = with_preprocessing(loaded, prompts={"query": "a b ", "document": "h"})
    made = Encoder.of(prompted, 4, prompt="query").embed(["c", "d e"])
    np.testing.assert_array_equal(made, encoder.embed(["a b c", "a b d e"]))
    np.testing.assert_array_equal(Encoder.of(prompted, 4).embed(["c"]), encoder.embed(["c"]))
    with pytest.raises(ValueError, match="unknown prompt of bert_nano 'qery'; did you mean"):
        Encoder.of(prompted, prompt="qery")
    apart = with_preprocessing(prompted, include_prompt=False)
    with pytest.raises(ValueError, match="leaves its prompts' tokens out of the mean"):
        Encoder.of(apart, prompt="query")


def test_a_special_token_in_a_text_is_the_token_unless_it_is_split(loaded):
    made = lambda loaded: next(Encoder.of(loaded).batches(["a[SEP]b"]))[1]["input_ids"][0]
    assert made(loaded)[:5].tolist() == [2, 5, 3, 6, 3]
    split = with_preprocessing(loaded, split_special_tokens=True)
    assert made(split)[:3].tolist() == [2, 1, 3]  # a word that is not known
    asked = Encoder.of(loaded, split_special_tokens=True)
    assert next(asked.batches(["a[SEP]b"]))[1]["input_ids"][0, :3].tolist() == [2, 1, 3]
    unasked = Encoder.of(split, split_special_tokens=False)
    assert next(unasked.batches(["a[SEP]b"]))[1]["input_ids"][0, :5].tolist() == [2, 5, 3, 6, 3]
    trained_here = with_preprocessing(loaded, tokenizer_kind="wordpiece")  # a record of before
    assert made(trained_here)[:3].tolist() == [2, 1, 3]


def test_pooling_that_no_file_states_is_told(loaded):
    with pytest.warns(Note, match=r"a test: has no modules.json, .* pooling='first'; on the comm"):
        assumed = Encoder.of(with_preprocessing(loaded, pooling="assumed"))
    assert assumed.model.config.pooling == "mean"
    stated = pooled(with_preprocessing(loaded, pooling="assumed"), "first")
    assert Encoder.of(stated).model.config.pooling == "first"
    with pytest.raises(ValueError, match="unknown pooling 'cls'"):
        pooled(loaded, "cls")
    with pytest.raises(ValueError, match="pooling='mean' is for encoders; bert_nano is for mlm"):
        pooled(replace(loaded, model=create_model("bert_nano")), "mean")


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
        ("sentence1\tsentence2\tscore\na\tb\tx\n", r"row 0 \(line 2\) holds 'x' in column 'score'"),
        ("sentence1\tsentence2\tscore\na\tb\tnan\n", r"row 0 \(line 2\) holds 'nan'"),
        (
            "sentence1\tsentence2\tscore\na\t \t1\n",
            r"row 0 \(line 2\) has no text in column 'sentence2'",
        ),
        ("sentence1\tsentence2\tscore\na\tb\t1\nc\td\t1\n", "2 grades, none of which differ"),
    ],
)
def test_bad_pairs_are_refused(encoder, tmp_path, content, message):
    path = write(tmp_path / "pairs.tsv", content)
    with pytest.raises(ValueError, match=message):
        similarity.score(encoder, DataSpec(source=str(path), **similarity.COLUMNS))


def test_cosines_that_are_all_equal_rank_nothing(encoder, tmp_path):
    path = write(tmp_path / "pairs.csv", "sentence1,sentence2,score\n" + "a,a,1\n" + "a,a,2\n")
    with pytest.raises(ValueError, match="gives all 2 pairs the cosine 1"):
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


def test_embed_takes_a_table_row_by_row(loaded, encoder, tmp_path):
    """Repeated and empty rows too; a file of another kind is lines."""
    file = tmp_path / "model.safetensors"
    prompted = with_preprocessing(loaded, prompts={"query": "h h "})
    single_file.save(file, loaded.model, loaded.params, prompted.source, {}, loaded.tokenizer)
    some = ["a b", "c", "", "a b"]
    write(tmp_path / "t.csv", "n,say\n" + "".join(f'{i},"{text}"\n' for i, text in enumerate(some)))
    write(tmp_path / "t.md", "".join(f"{text}\n" for text in some))
    write(tmp_path / "bom.txt", "\ufeffa\nb\n")
    out = tmp_path / "a.npy"
    embed = lambda *more: cli("embed", file, "--out", out, *more)
    made = lambda: np.load(io.BytesIO(out.read_bytes()))
    for source in (("t.csv", "--set", "data.text_column=say"), ("t.csv:say",), ("t.md",)):
        done = embed("--input", tmp_path / source[0], *source[1:])
        assert done.returncode == 0, done.stderr
        assert "note: " in done.stderr
        assert "has the prompts query, of which none is put before the texts" in done.stderr
        np.testing.assert_allclose(made(), encoder.embed(some), atol=1e-6)
    write(tmp_path / "special.txt", "a[SEP]b\n")
    for flags, wanted in (((), "a [SEP] b"), (("--set", "data.split_special_tokens=true"), "z")):
        assert embed("--input", tmp_path / "special.txt", *flags).returncode == 0
        np.testing.assert_allclose(made(), encoder.embed([wanted]), atol=1e-6)
    done = embed("--input", tmp_path / "bom.txt", "--prompt", "query")
    assert (done.returncode, "note" in done.stderr) == (0, False)
    np.testing.assert_allclose(made(), encoder.embed(["h h a", "h h b"]), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--input", "nex.txt"), "input='nex.txt' does not exist; did you mean 'next.txt'?; give"),
        (("--input", "."), "is a folder"),
        (("--out", "a.txt"), "out='a.txt' must end in .npy or .parquet"),
        (
            ("--input", "next.txt", "--set", "data.text_column=x"),
            "--set says how a table is read, the input",
        ),
        (("--input", "next.txt:x"), "and a column behind its name"),
        (
            ("--input", "t.csv"),
            "t.csv: no column data.text_column='text'; it has label: set data.te",
        ),
        (("--prompt", "query"), "prompt='query': bert_nano names no prompts; leave it out"),
    ],
)
def test_embed_refuses_before_it_works(loaded, tmp_path, arguments, message):
    """With exit code 2, and all but the prompt before the model is read."""
    write(tmp_path / "next.txt", "a\n")
    write(tmp_path / "t.csv", "label\n1\n")
    model = "none.safetensors"
    if "--prompt" in arguments:
        model = "model.safetensors"
        single_file.save(
            tmp_path / model, loaded.model, loaded.params, loaded.source, {}, loaded.tokenizer
        )
    out = () if "--out" in arguments else ("--out", "a.npy")
    done = cli("embed", model, *arguments, *out, cwd=tmp_path, input="a\n")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


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
