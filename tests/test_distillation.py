"""Learning from a dense teacher: the loss against numpy, meshes, what is frozen, runs, errors."""

import io
import json
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_lines import call, cli
from data_files import letters, write
from distilling import distilled, lines, pair, saved_teacher
from rich.console import Console
from scipy.spatial.distance import cosine
from scipy.special import log_softmax
from stops import StopAt

from scripts import export_pretrained
from snapjax.parallel.sharding import make_mesh
from zoo.config.specs import DistillSpec, ModelSpec, RunConfig, TrainSpec
from zoo.config.values import override
from zoo.data import DataSpec, load, train_batches
from zoo.data.batches import grouped_epoch, trimmed
from zoo.embedding.encoder import Encoder
from zoo.models.registry import create_model
from zoo.pretrained.load import load_pretrained
from zoo.train.distillation import OUTPUT, STATES, Teacher, student_fields, student_preset
from zoo.train.logbook import read_metrics
from zoo.train.loop import Loop
from zoo.train.run import prepare, train
from zoo.train.step import Trainer
from zoo.train.stop import StopRequest

PAIRS = ("distill.teacher=x", "data.task=unlabelled", "data.text_pair_column=b", "data.pairs=true")


@pytest.fixture(autouse=True)
def _optax_promotes():
    """optax raises its decay rates to an integer count, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def batch_of(task, rows=4, seed=0):
    draw = np.random.default_rng(seed)
    mask = np.arange(10) < draw.integers(3, 11, rows)[:, None]
    token = np.where(mask, draw.integers(5, 13, (rows, 10)), 0).astype(np.int32)
    batch = {"input_ids": token, "attention_mask": mask, "weight": np.ones(rows, np.float32)}
    if task == "mlm":
        batch["position"] = draw.integers(0, 3, (rows, 2)).astype(np.int32)
        batch["weight"] = draw.integers(0, 2, (rows, 2)).astype(np.float32)
        batch["weight"][0] = 1
    return batch


@pytest.mark.parametrize("task", ["encode", "classify", "mlm"])
def test_the_loss_is_its_formula(task):
    """By loops in float64, with weights, padding and what the student should have said."""
    dense, params, _, _ = pair(task)
    similarity = 2.0 * (task == "encode")
    spec = DistillSpec("x", output=0.7, states=0.3, similarity=similarity, temperature=3.0)
    teacher = Teacher.from_model(dense, params, spec)
    batch = batch_of(task)
    if task != "mlm":
        batch["weight"][-1] = 0
    labelled = teacher.add_targets(batch)
    draw = np.random.default_rng(1)
    states = np.asarray(labelled[STATES], np.float64)
    states += draw.standard_normal(states.shape)
    made = dense.head(params, jnp.asarray(states, jnp.float32), batch)
    sums, _ = teacher.loss(made, jnp.asarray(states, jnp.float32), labelled)

    made = np.asarray(made.embedding if task == "encode" else made, np.float64)
    wanted, loss, correct = np.asarray(labelled[OUTPUT], np.float64), 0.0, 0.0
    for row in range(4):
        apart = []
        for token in np.flatnonzero(batch["attention_mask"][row]):
            target = np.asarray(labelled[STATES][row, token], np.float64)
            apart.append(((states[row, token] - target) ** 2).sum() / (target**2).sum())
        for place, weight in np.ndenumerate(batch["weight"][row]):
            one, other = made[row][place], wanted[row][place]
            if task == "encode":
                error = cosine(one, other)
                correct += weight * (1 - error)
            else:
                log_one, log_other = log_softmax(one / 3), log_softmax(other / 3)
                error = 9 * (np.exp(log_other) * (log_other - log_one)).sum()
                correct += weight * (one.argmax() == other.argmax())
            loss += weight * (0.7 * error + 0.3 * np.mean(apart))
        if similarity:
            two = slice(row - row % 2, row - row % 2 + 2)
            loss += 2 * batch["weight"][row] * (cosine(*made[two]) - cosine(*wanted[two])) ** 2
    assert float(sums["loss"]) == pytest.approx(loss, rel=2e-5)
    counted = "cosine" if task == "encode" else "correct"
    assert sums.keys() == {"loss", counted, "weight"}
    assert float(sums[counted]) == pytest.approx(correct, rel=2e-5)
    assert float(sums["weight"]) == batch["weight"].sum()


@pytest.mark.parametrize("task", ["encode", "classify", "mlm"])
def test_the_teacher_has_nothing_to_say_to_itself(task):
    dense, params, _, _ = pair(task)
    teacher = Teacher.from_model(dense, params, DistillSpec("x"))
    batch = teacher.add_targets(batch_of(task))
    made = dense.head(params, batch[STATES], batch)
    sums, _ = teacher.loss(made, batch[STATES], batch)
    assert float(sums["loss"]) == pytest.approx(0, abs=1e-5)
    counted = "cosine" if task == "encode" else "correct"
    assert float(sums[counted]) == pytest.approx(float(sums["weight"]), rel=1e-6)


def test_labels_count_where_there_are_any():
    dense, params, _, _ = pair("classify")
    teacher = Teacher.from_model(dense, params, DistillSpec("x"))
    batch = teacher.add_targets(batch_of("classify"))
    made = dense.head(params, batch[STATES], batch)
    wrong = np.asarray(1 - batch[OUTPUT].argmax(-1), np.int32)
    assert float(teacher.loss(made, batch[STATES], {**batch, "label": wrong})[0]["correct"]) == 0


@cache
def sums_and_gradients(data, stage):
    """Of one batch on a mesh; a dense boundary's gradients are exact."""
    dense, params, student, started = pair("encode", "float32")
    other = jax.tree.map(lambda leaf: 1.1 * leaf, params)
    teacher = Teacher.from_model(dense, other, DistillSpec("x", similarity=3.0))
    spec, batch = TrainSpec(batch_size=8, microbatches=2), batch_of("encode", rows=8)
    trainer = Trainer(student, spec, 10, make_mesh(data=data, stage=stage), teacher=teacher)
    state, taught = trainer.init_state(started), trainer.add_targets(batch)
    (sums, _), gradients = jax.jit(trainer.loss_and_gradients)(state, taught)
    whole = trainer.params(state._replace(trainable=gradients))
    return sums, {name: whole[name] for name in ("embed", "blocks")}


@pytest.mark.slow  # compiles a distillation for each mesh
@pytest.mark.parametrize(("data", "stage"), [(1, 2), (2, 1), (2, 2)])
def test_the_same_on_a_mesh(data, stage):
    """With the pairs kept together."""
    sums, gradients = sums_and_gradients(data, stage)
    wanted_sums, wanted = sums_and_gradients(1, 1)
    for name, value in wanted_sums.items():
        np.testing.assert_allclose(sums[name], value, rtol=1e-5)
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_only_the_boundaries_are_trained_on_request():
    dense, params, student, started = pair("encode")
    teacher = Teacher.from_model(dense, params, DistillSpec("x"))
    spec = TrainSpec(batch_size=4, microbatches=1, trainable="boundaries", warmup=0.0)
    trainer = Trainer(student, spec, 10, make_mesh(), teacher=teacher)
    state = trainer.init_state(started)
    for _ in range(3):
        state, _ = trainer.step(state, batch_of("encode"))
    after = trainer.params(state)
    for name in ("embed", "blocks", "head"):
        for one, other in zip(
            jax.tree.leaves(after[name]), jax.tree.leaves(started[name]), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    moved = [
        (np.asarray(one) != np.asarray(other)).any()
        for one, other in zip(
            jax.tree.leaves(after["boundaries"]),
            jax.tree.leaves(started["boundaries"]),
            strict=True,
        )
    ]
    assert any(moved)


def test_unlabelled_texts_are_those_of_both_columns_once_each(tmp_path):
    rows = ["a b\tb", "b\tc", "a b\t", "d\te"]
    path = write(tmp_path / "pairs.tsv", "one\tother\n" + "\n".join(rows) + "\n")
    spec = DataSpec(
        task="unlabelled", source=str(path), text_column="one", text_pair_column="other",
        sequence=4, held_out=0.25,
    )  # fmt: skip
    data = load(spec, tokenizer=letters(), whole=True)
    assert data.task == "unlabelled"
    assert data.classes is None
    assert data.train.samples == 5  # "a b", "b", "d", "c", "e"
    batch = data.train.take(np.arange(5))
    assert sorted(batch) == ["attention_mask", "input_ids", "token_type_ids", "weight"]
    assert batch["attention_mask"].sum(1).tolist() == [4, 3, 3, 3, 3]


def test_a_text_that_is_trained_on_is_not_held_out(tmp_path):
    draw = np.random.default_rng(0)
    rows = [f"{one}\t{other}" for one, other in draw.choice(list("abcdefgh"), (40, 2))]
    path = write(tmp_path / "pairs.tsv", "one\tother\n" + "\n".join([*rows, "d e\tf g"]) + "\n")
    columns = {"text_column": "one", "text_pair_column": "other"}
    spec = DataSpec(task="unlabelled", source=str(path), sequence=4, held_out=0.5, **columns)
    data = load(spec, tokenizer=letters())
    parts = [
        {tuple(row) for row in part.take(np.arange(part.samples))["input_ids"].tolist()}
        for part in (data.train, data.validation)
    ]
    assert all(parts)
    assert not parts[0] & parts[1]


def test_unlabelled_images_need_no_label():
    data = load(DataSpec(task="unlabelled", source="digits"))
    assert data.train.samples == 1437
    assert sorted(data.train.augmented(np.arange(2), 0, 0)) == ["image", "weight"]


@pytest.mark.slow  # training to a quality
def test_a_run_learns_resumes_and_embeds(tmp_path):
    teacher, data = saved_teacher(tmp_path), lines(tmp_path)
    config = distilled(teacher, data, "train.epochs=12", "model.calibration=sensitivity_pca_refit")
    stop = StopRequest()
    quiet = Console(file=io.StringIO())

    assert train(config, tmp_path / "run", stop=StopAt(30), console=quiet) is None
    summary = train(config, tmp_path / "run", resume=True, stop=stop, console=quiet)
    scores = [line for line in read_metrics(tmp_path / "run") if line["kind"] == "evaluation"]
    assert len(scores) == 12
    assert scores[-1]["loss"] < 0.9 * scores[0]["loss"]
    assert scores[-1]["cosine"] > scores[0]["cosine"]
    assert all("accuracy" not in line for line in read_metrics(tmp_path / "run"))
    assert summary["bytes_per_token_and_hop"] == 2

    loaded = load_pretrained(tmp_path / "run")
    assert loaded.model.boundary.rank == 16
    assert loaded.record["teacher"]["source"] == "a test"
    assert loaded.record["teacher"]["sha256"]
    encoder = Encoder.of(loaded)
    assert encoder.max_tokens == 9
    texts = ["a b c", "h g"]
    wanted = Encoder.of(load_pretrained(teacher)).embed(texts)
    made = encoder.embed(texts)
    similar = (made * wanted).sum(-1)
    similar /= np.linalg.norm(made, axis=-1) * np.linalg.norm(wanted, axis=-1)
    assert similar.min() > 0.8


def test_the_script(tmp_path):
    teacher, data = saved_teacher(tmp_path), lines(tmp_path)
    done = cli(
        "distill", teacher, "--stages", 2, "--code", "int4", "--data", data, "--epochs", 1,
        "--set", "train.batch_size=6", "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    printed = json.loads(done.stdout)
    assert printed == {"out": str(tmp_path / "run"), "finished": True, **summary}
    assert summary["code"] == "int4"
    assert summary["variant"] == "ann"
    assert summary["cosine"] > 0.9
    facts = ("--command", "--data", "--data-licence", "--hardware", "--limits")
    done = call(
        export_pretrained.main,
        [tmp_path / "run", "bert_nano.tag", "--out", tmp_path / "out",
         *(part for name in facts for part in (name, "x"))],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = tmp_path / "out" / "bert_nano.tag"
    card = (made / "README.md").read_text()
    for shown in ("text embeddings", "mean cosine to the teacher", "loss against the teacher"):
        assert shown in card
    assert str(tmp_path) not in (made / "config.json").read_text()
    assert load_pretrained(made).config.distill.teacher == teacher.name


def test_a_student_has_the_teachers_sizes_whatever_its_preset():
    dense, *_ = pair("encode")
    custom = replace(dense, config=replace(dense.config, name="of a folder"))
    name = student_preset(custom)
    assert name in dense.family.PRESETS
    assert student_preset(dense) == "bert_nano"
    student = create_model(name, "hnn", 2, **student_fields(custom))
    shapes = jax.eval_shape(student.init, jax.random.key(0))["blocks"]
    assert shapes == jax.eval_shape(dense.init, jax.random.key(0))["blocks"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.task=unlabelled"], "needs distill.teacher"),
        (["distill.teacher=x", "model.layers=8"], "model.layers=8: a student has the sizes"),
        (["distill.teacher=x", "train.label_smoothing=0.1"], "is for labels"),
        (["distill.output=0", "distill.states=0"], "leave nothing to learn"),
        (["distill.similarity=nan"], "distill.similarity=nan must be a finite number"),
        (["distill.similarity=1"], "is of pairs of texts, but data.pairs=False"),
        (["data.pairs=true"], "keeps unlabelled texts of two columns together"),
        (
            ["distill.teacher=x", "data.task=unlabelled", "data.pairs=true"],
            "data.text_pair_column=None; set data.task='unlabelled' and name the second column",
        ),
        ([*PAIRS, "train.batch_size=12"], "multiple of 8: .* x 2 texts of data.pairs"),
        (["distill.output=-1"], "distill.output=-1.0 must be at least 0"),
        (["distill.temperature=0"], "distill.temperature=0.0 must be positive"),
        (["train.trainable=boundary"], "did you mean 'boundaries'"),
        (["model.calibration=sensitivity_pca_refits"], "did you mean 'sensitivity_pca_refit'"),
    ],
)
def test_what_a_config_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        override(RunConfig("distill"), changes)


def test_what_a_run_refuses(tmp_path):
    teacher, data = saved_teacher(tmp_path), lines(tmp_path)
    base = RunConfig("distill", data=DataSpec(task="unlabelled", source=str(data), sequence=8),
                     distill=DistillSpec(str(teacher)))  # fmt: skip
    refuse = lambda config: train(config, tmp_path / "run", console=Console(file=io.StringIO()))
    with pytest.raises(ValueError, match=r"of another family than model\.name='vit_nano_patch2_8'"):
        refuse(base)
    dense = ModelSpec("bert_nano", "ann", 2, calibration="sensitivity_pca")
    with pytest.raises(ValueError, match=r"model\.calibration='sensitivity_pca' fits spikes"):
        refuse(replace(base, model=dense))
    with pytest.raises(ValueError, match="stages=3 must divide layers=2"):
        refuse(replace(base, model=ModelSpec("minilm_l6", stages=3)))  # whose own layers are 6
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("task", "data_task", "fits"),
    [
        ("encode", "mlm", "'unlabelled'"),
        ("encode", "classify", "'unlabelled'"),
        ("classify", "mlm", "'unlabelled' or 'classify'"),
        ("mlm", "unlabelled", "'mlm'"),
    ],
)
def test_a_teacher_labels_data_that_fit_its_task(task, data_task, fits, tmp_path):
    """The weights of masked tokens, say, are none of samples, yet may have a shape that passes."""
    teacher, data = saved_teacher(tmp_path, task), lines(tmp_path)
    config = distilled(teacher, data, f"data.task={data_task}")
    with pytest.raises(ValueError, match=f"is of task '{task}'; set data.task to {fits}"):
        train(config, tmp_path / "run", console=Console(file=io.StringIO()))


def test_a_teacher_without_a_tokenizer_is_not_given_the_ids_of_another(tmp_path):
    teacher, data = saved_teacher(tmp_path, tokenizer=False), lines(tmp_path)
    config = distilled(teacher, data)
    with pytest.raises(ValueError, match=r"has no tokenizer\.json, and to one trained on the data"):
        train(config, tmp_path / "run", console=Console(file=io.StringIO()))
    write(tmp_path / "tokenizer.json", letters())
    given = override(config, [f"data.tokenizer={tmp_path / 'tokenizer.json'}"])
    run = prepare(given, tmp_path / "run", resume=False, fallback=False,
                  console=Console(file=io.StringIO()))  # fmt: skip
    assert run.record["tokenizer"] == letters()


@pytest.mark.parametrize("model", [ModelSpec("bert_nano", "ann", 2, code="int4"),
                                   ModelSpec("bert_nano", "hnn", 1)])  # fmt: skip
def test_boundaries_that_learn_nothing_are_not_trained_alone(model, tmp_path):
    config = distilled(saved_teacher(tmp_path), lines(tmp_path), "train.trainable=boundaries",
                       model=model)  # fmt: skip
    with pytest.raises(ValueError, match="has nothing to train on a boundary; choose a spike code"):
        train(config, tmp_path / "run", console=Console(file=io.StringIO()))


@pytest.mark.slow  # compiles three runs
def test_a_run_goes_on_with_its_teacher_alone(tmp_path):
    """The weights may be other ones at the same path: then every target would be another."""
    config = distilled(saved_teacher(tmp_path), lines(tmp_path, 60))
    quiet = Console(file=io.StringIO())
    assert train(config, tmp_path / "run", stop=StopAt(2), console=quiet) is None
    saved_teacher(tmp_path, seed=1)
    going_on = lambda: prepare(config, tmp_path / "run", resume=True, fallback=False, console=quiet)
    with pytest.raises(ValueError, match=r"the weights in .* are not those that taught so far"):
        going_on()
    saved_teacher(tmp_path)
    assert going_on().step == 2


@pytest.mark.slow  # trains twice
def test_batches_grouped_by_length_save_padding_and_change_nothing_else(tmp_path):
    """A loss that is the same, whatever the padding; speeds by what is really computed."""
    words = "\n".join(" ".join("abcdefgh"[: n % 8 + 1] * (1 + n % 3)) for n in range(120))
    texts = write(tmp_path / "texts.txt", words + "\n")
    config = distilled(saved_teacher(tmp_path), texts, "data.sequence=32", "train.batch_size=4")
    ready = lambda config: prepare(
        config, tmp_path / "run", resume=False, fallback=False, console=Console(file=io.StringIO())
    )
    plain = ready(config)
    grouped = ready(override(config, ["train.group_by_length=true"]))
    data, at = grouped.data.train, {"seed": 0, "epoch": 0}
    batches = list(train_batches(data, 4, group_by_length=True, **at))
    tokens = [batch["input_ids"].shape[1] for batch in batches]
    assert len(set(tokens)) > 2
    assert plain.tokens_per_sample == 32
    assert grouped.tokens_per_sample == pytest.approx(np.mean(tokens))
    loop = Loop(grouped, StopRequest(), Console(file=io.StringIO()))
    for start in (0, 2):  # as a resumed run does
        fed = list(loop.batches(start))
        assert [batch["input_ids"].tolist() for batch in fed] == [
            batch["input_ids"].tolist() for batch in batches[start:]
        ]
    ratio = grouped.flops_per_sample / plain.flops_per_sample
    # Attention is quadratic in the tokens, everything else linear.
    assert np.mean(np.square(tokens)) / 32**2 < ratio < np.mean(tokens) / 32
    order, padded = grouped_epoch(data, 4, **at)
    index = order[: 4 * len(batches)].reshape(-1, 4)[int(np.argmin(padded))]
    losses = [
        float(plain.trainer.forward(plain.state, batch)[0]["loss"])
        for batch in (data.take(index), trimmed(data.take(index), padded.min()))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_student_keeps_the_names_of_the_teachers_classes(tmp_path):
    teacher = saved_teacher(tmp_path, "classify", record={"labels": ["no", "yes"]})
    ready = lambda *changes: prepare(
        distilled(teacher, lines(tmp_path, 40), *changes), tmp_path / "run", resume=False,
        fallback=False, console=Console(file=io.StringIO()),
    )  # fmt: skip
    assert ready().record["labels"] == ["no", "yes"]
    named = [
        f"{text}\t{name}" for text, name in zip("abcdefgh" * 5, ["maybe", "no"] * 20, strict=True)
    ]
    path = write(tmp_path / "named.tsv", "text\tlabel\n" + "\n".join(named) + "\n")
    with pytest.raises(ValueError, match=r"class .maybe., which is none of the model.s: no, yes"):
        ready("data.task=classify", f"data.source={path}")
