"""Pairs of texts that stay together: as data, in batches, and the similarity that is learned."""

import io
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_files import letters, write
from distilling import distilled, saved_teacher
from rich.console import Console
from stops import StopAt

from zoo.config.specs import RunConfig
from zoo.data import DataSpec, load, train_batches
from zoo.embedding import similarity
from zoo.evaluation import inputs
from zoo.pretrained.load import load_pretrained
from zoo.train.distillation import similarity_error
from zoo.train.logbook import read_metrics
from zoo.train.loop import Loop
from zoo.train.run import prepare, train
from zoo.train.stop import StopRequest


@pytest.fixture(autouse=True)
def _optax_promotes():
    """optax raises its decay rates to an integer count, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def pairs_file(folder, rows):
    """The spec of a table of pairs of texts that keeps them together."""
    lines = "".join(f"{one}\t{other}\n" for one, other in rows)
    return DataSpec(
        task="unlabelled", source=str(write(folder / "pairs.tsv", "one\tother\n" + lines)),
        sequence=6, held_out=0.5, pairs=True, text_column="one", text_pair_column="other",
    )  # fmt: skip


def token_pairs(split):
    token = split.take(np.arange(split.samples))["input_ids"].tolist()
    return list(zip(map(tuple, token[::2]), map(tuple, token[1::2]), strict=True))


def letter_pairs(count, seed=0):
    """Different pairs of texts of two letters each, as rows, and what letters() makes of them."""
    vocabulary = json.loads(letters())["model"]["vocab"]
    start, stop, pad = (vocabulary[name] for name in ("[CLS]", "[SEP]", "[PAD]"))
    draw = np.random.default_rng(seed).permutation(64)[: 2 * count].reshape(count, 2)
    texts = ["abcdefgh"[i // 8] + " " + "abcdefgh"[i % 8] for i in draw.ravel()]
    tokens = [(start, *(vocabulary[word] for word in text.split()), stop, pad, pad)
              for text in texts]  # fmt: skip
    side_by_side = lambda flat: list(zip(flat[::2], flat[1::2], strict=True))
    return side_by_side(texts), side_by_side(tokens)


def test_the_texts_of_a_row_stay_together(tmp_path):
    """Rows that repeat or lack a text are left out; the two parts share none."""
    rows, tokens = letter_pairs(30)
    spec = pairs_file(tmp_path, [*rows, rows[3], ("", "a"), ("b", " ")])
    whole = load(spec, tokenizer=letters(), whole=True)
    assert token_pairs(whole.train) == token_pairs(whole.validation) == tokens
    data = load(spec, tokenizer=letters())
    seen, held_out = token_pairs(data.train), token_pairs(data.validation)
    assert len(held_out) >= 10
    assert len(seen) >= 10
    assert sorted({*seen, *held_out}) == sorted(tokens)
    assert not {*sum(seen, ())} & {*sum(held_out, ())}
    for epoch in range(2):
        for batch in train_batches(data.train, 6, seed=0, epoch=epoch, pairs=True):
            token = list(map(tuple, batch["input_ids"].tolist()))
            assert {*zip(token[::2], token[1::2], strict=True)} <= {*seen}


def test_a_pair_with_a_text_that_is_trained_on_is_not_held_out(tmp_path):
    rows, tokens = letter_pairs(20)
    shared = [(rows[i][0], rows[i + 1][1]) for i in range(0, 20, 2)]
    spec = pairs_file(tmp_path, rows + shared)
    data = load(spec, tokenizer=letters())
    seen, held_out = token_pairs(data.train), token_pairs(data.validation)
    assert held_out
    assert {*held_out} <= {*tokens, *((tokens[i][0], tokens[i + 1][1]) for i in range(0, 20, 2))}
    assert not {*sum(seen, ())} & {*sum(held_out, ())}
    spec = pairs_file(tmp_path, [("a b", other) for _, other in rows])
    with pytest.raises(ValueError, match=r"every held-out pair has a text that is trained on; set"):
        load(spec, tokenizer=letters())


def test_what_is_wrong_with_pairs(tmp_path):
    spec = pairs_file(tmp_path, [("a", ""), ("", "b")])
    with pytest.raises(ValueError, match="no row has two texts, in columns 'one' and 'other'"):
        load(spec, tokenizer=letters(), whole=True)
    spec = replace(pairs_file(tmp_path, [("a", "b"), ("c", "a b c d e f")]), truncate=False)
    with pytest.raises(ValueError, match="different pair 1, second text has 6 tokens"):
        load(spec, tokenizer=letters(), whole=True)
    odd = jnp.ones((3, 4))
    with pytest.raises(ValueError, match="3 samples of one microbatch are not in pairs"):
        similarity_error(odd, odd)


@pytest.mark.parametrize("grouped", ["false", "true"])
def test_a_run_trains_on_pairs_that_stay_together(grouped, tmp_path):
    """Every batch that the loop feeds, resumed too."""
    rows, _ = letter_pairs(30)
    longer = lambda text, by: " ".join([text, *"abcdefghabcd"[:by]])
    rows = [(longer(one, i % 12), longer(other, i % 5)) for i, (one, other) in enumerate(rows)]
    spec = replace(pairs_file(tmp_path, rows), held_out=0.2, sequence=16)
    teacher, quiet = saved_teacher(tmp_path), Console(file=io.StringIO())
    config = distilled(teacher, spec.source, f"train.group_by_length={grouped}", data=spec)
    run = prepare(config, tmp_path / "run", resume=False, fallback=False, console=quiet)
    batches = [batch["input_ids"] for batch in Loop(run, StopRequest(), quiet).batches(0)]
    assert len(batches) == 6
    widths = [token.shape[1] for token in batches]
    assert (len({*widths}) > 1) == (grouped == "true")
    assert run.tokens_per_sample == pytest.approx(np.mean(widths))
    kept = {*token_pairs(run.data.train)}
    for token in batches:
        rows = list(map(tuple, np.pad(token, ((0, 0), (0, 16 - token.shape[1]))).tolist()))
        assert {*zip(rows[::2], rows[1::2], strict=True)} <= kept
    for step, token in enumerate(Loop(run, StopRequest(), quiet).batches(2), 2):
        np.testing.assert_array_equal(token["input_ids"], batches[step])


@pytest.mark.slow  # training to a quality
def test_the_similarity_of_pairs_is_learned(tmp_path):
    """With nothing else in the loss, and stopped and resumed."""
    draw = np.random.default_rng(0)
    text = lambda: " ".join(draw.choice(list("abcdefgh"), draw.integers(2, 7)))
    rows = "".join(f"{text()}\t{text()}\n" for _ in range(80))
    path = write(tmp_path / "pairs.tsv", "one\tother\n" + rows)
    pairs = ("data.text_column=one", "data.text_pair_column=other", "data.pairs=true",
             "distill.similarity=1")  # fmt: skip
    teacher, quiet = saved_teacher(tmp_path), Console(file=io.StringIO())
    config = distilled(teacher, path, *pairs, "train.epochs=8", "distill.output=0",
                       "distill.states=0")  # fmt: skip
    assert train(config, tmp_path / "run", stop=StopAt(30), console=quiet) is None
    train(config, tmp_path / "run", resume=True, console=quiet)
    scores = [line for line in read_metrics(tmp_path / "run") if line["kind"] == "evaluation"]
    assert len(scores) == 8
    assert scores[-1]["loss"] < 0.8 * scores[0]["loss"]
    classifier = saved_teacher(tmp_path, "classify")
    with pytest.raises(ValueError, match=r"distill\.similarity=1\.0 is of embeddings"):
        train(distilled(classifier, path, *pairs), tmp_path / "other", console=quiet)


@pytest.mark.parametrize("task", ["encode", "classify"])
def test_calibration_takes_pairs_as_the_model_does(task, tmp_path):
    """An encoder text by text, a classifier as the two parts of one sample."""
    rows, _ = letter_pairs(12)
    lines = "".join(f"{one}\t{other}\t{i % 2}\n" for i, (one, other) in enumerate(rows))
    path = write(tmp_path / "pairs.tsv", "one\tother\tlabel\n" + lines)
    spec = DataSpec(task="unlabelled", source=str(path), sequence=9, held_out=0.25, pairs=True,
                    text_column="one", text_pair_column="other")  # fmt: skip
    loaded = load_pretrained(saved_teacher(tmp_path, task))
    made = inputs.batches(loaded, spec, 8, 4)
    tokens = [int(count) for batch in made for count in batch["attention_mask"].sum(1)]
    assert len(tokens) == 8
    assert set(tokens) == ({4} if task == "encode" else {7})


def test_a_classifier_is_calibrated_on_texts_without_labels(tmp_path):
    loaded = load_pretrained(saved_teacher(tmp_path, "classify"))
    path = write(tmp_path / "lines.txt", "a b\nc\na b\nd e f\n\n")
    made = inputs.batches(loaded, DataSpec(source=str(path), sequence=9), 8, 4)
    tokens = sorted(int(count) for batch in made for count in batch["attention_mask"].sum(1))
    assert tokens == [3, 4, 5]  # different texts, two special tokens each


@pytest.mark.parametrize(
    ("header", "assignments", "count"),
    [
        ("sentence1,sentence2", (), 6),
        ("sentence1,other", (), 3),
        ("text,other", (), 3),
        ("body,other", ("data.text_column=body",), 3),
        ("body,sentence2", ("data.text_column=body",), 6),
        ("text,sentence2", (), r"no column data.text_column='sentence1'; did you mean 'sentence2'"),
        ("body,other", (), "no column data.text_column='sentence1'; it has body, other: set"),
        ("text,other", ("data.text_pair_column=two",), "no column data.text_column='sentence1'"),
    ],
)
def test_an_encoder_is_calibrated_on_the_texts_that_there_are(tmp_path, header, assignments, count):
    """Of the pairs that it is scored on, of a column that is named, or of the column "text"."""
    loaded = load_pretrained(saved_teacher(tmp_path, "encode"))
    path = write(tmp_path / "t.csv", f"{header}\na b,c\nd,e f\ng h,b\n")
    spec = inputs.spec_for(loaded, str(path), assignments)
    if isinstance(count, str):
        with pytest.raises(ValueError, match=count):
            inputs.batches(loaded, spec, 9, 4)
        return
    made = inputs.batches(loaded, spec, 9, 4)
    assert sum(int(batch["weight"].sum()) for batch in made) == count


def test_a_column_named_with_its_file_keeps_the_pair_that_is_set(tmp_path):
    """STS-B's pair is a guess for an encoder; what the user sets, or the run had, is not."""
    path = write(tmp_path / "t.csv", "one,two,score\na,b,1\n")
    loaded = load_pretrained(saved_teacher(tmp_path, "encode"))
    spec = inputs.spec_for(loaded, f"{path}:one", ())
    assert (spec.source, spec.text_column, spec.text_pair_column) == (str(path), "one", None)
    with pytest.raises(ValueError, match=r"'one', is named; set data.text_pair_column to that of"):
        similarity.read_pairs(spec)
    spec = inputs.spec_for(loaded, f"{path}:one", ["data.text_pair_column=two"])
    assert (spec.text_column, spec.text_pair_column) == ("one", "two")
    data = DataSpec(source="x.csv", text_column="p", text_pair_column="two")
    loaded = replace(loaded, config=RunConfig("bert_nano", data=data))
    spec = inputs.spec_for(loaded, f"{path}:one", ())
    assert (spec.text_column, spec.text_pair_column) == ("one", "two")
