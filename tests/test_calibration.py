"""Cutting a trained model without training: the metric, the sequence, the choice, the script."""

import json

import jax
import numpy as np
import pytest
from command_lines import cli
from data_files import letters, write
from meshes import jit
from scipy.stats import spearmanr

from snapjax.boundary import Boundary
from zoo.data import DataSpec
from zoo.embedding import similarity
from zoo.embedding.encoder import Encoder
from zoo.embedding.texts import drawn, read_texts
from zoo.evaluation import agreement
from zoo.evaluation.cut import cut, source_names
from zoo.evaluation.inputs import spec_for
from zoo.models import calibration
from zoo.models.registry import create_model, spike_boundary
from zoo.pretrained import single_file
from zoo.pretrained.load import load_pretrained
from zoo.pretrained.pretrained_model import Pretrained
from zoo.pretrained.source import PretrainedConfig

WIDTH = 16


@pytest.fixture(scope="module")
def model():
    boundary = Boundary(WIDTH, "phase", steps=6, budget=WIDTH)
    sizes = {"vocabulary": 16, "width": WIDTH, "heads": 2, "mlp_width": 32, "layers": 3}
    return create_model("bert_nano", "hnn", 3, boundary, task="encode", **sizes)


@pytest.fixture(scope="module")
def params(model):
    draw = model.init(jax.random.key(0))
    # Trained models have sharp features; fresh ones are nearly linear.
    blocks = jax.tree.map(lambda leaf: 3 * leaf, draw["blocks"])
    return {**draw, "blocks": blocks}


def batches(count, size=16, seed=0):
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        lengths = draw.integers(3, 13, size)
        mask = np.arange(12) < lengths[:, None]
        token = np.where(mask, draw.integers(5, 13, (size, 12)), 0).astype(np.int32)
        made.append(
            {"input_ids": token, "attention_mask": mask, "weight": np.ones(size, np.float32)}
        )
    return made


def test_the_metric_is_the_mean_squared_change_of_the_output(model, params):
    """Against finite differences of the whole output, with no random projection."""
    (batch,) = batches(1, size=6)
    x = model.run_stage(model.stage_blocks(params, 0), model.embed(params, batch), batch)
    many = [batch] * 200  # draws of the projection: each batch has its own
    metric = calibration.sensitivity(model, params, 0, [x] * 200, many, jax.random.key(1))

    @jit
    def rest(x):
        for stage in (1, 2):
            x = model.run_stage(model.stage_blocks(params, stage), x, batch)
        return model.head(params, x, batch).embedding

    error = np.random.default_rng(2).standard_normal(WIDTH).astype(np.float32)
    changes = []
    for row, token in zip(*np.nonzero(batch["attention_mask"]), strict=True):
        step = np.zeros_like(x)
        step[row, token] = 1e-3 * error
        changes.append((((rest(x + step) - rest(x - step)) / 2e-3) ** 2).sum())
    assert error @ metric @ error == pytest.approx(float(np.mean(changes)), rel=0.1)


@pytest.mark.slow  # fits a model twice
def test_padding_and_missing_rows_do_not_count(model, params):
    some = batches(4)
    padded = [
        {
            "input_ids": np.pad(b["input_ids"], ((0, 8), (0, 4)), constant_values=7),
            "attention_mask": np.pad(b["attention_mask"], ((0, 8), (0, 4)))
            | (np.arange(24)[:, None] >= 16) & (np.arange(16) == 0),
            "weight": np.pad(b["weight"], (0, 8)),
        }
        for b in some
    ]
    made = [
        calibration.calibrate(model, params, given, "variance_refit", key=jax.random.key(0))[1]
        for given in (some, padded)
    ]
    for one, other in zip(*(jax.tree.leaves(m["boundaries"]) for m in made), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3)


def test_a_later_boundary_is_fitted_to_what_the_earlier_one_delivers(model, params):
    some = batches(8)
    cut, fitted = calibration.calibrate(model, params, some, "variance", key=jax.random.key(0))
    first, second = (
        jax.tree.map(lambda leaf, i=i: leaf[i], fitted["boundaries"]) for i in range(2)
    )
    rows = []
    for batch in some:
        x = model.run_stage(model.stage_blocks(params, 0), model.embed(params, batch), batch)
        x, _ = cut.boundary.apply(first, x)
        x = model.run_stage(model.stage_blocks(params, 1), x, batch)
        rows.append(np.asarray(x)[batch["attention_mask"]])
    wanted = cut.boundary.calibrate(cut.boundary.init(jax.random.key(0)), np.concatenate(rows))
    for one, other in zip(jax.tree.leaves(second), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.slow  # fits a model by every method
def test_the_chosen_method_is_the_best_on_held_out_samples(model, params):
    methods = ("variance", "sensitivity_pca_refit", "sensitivity_refit")
    some, held = batches(12), batches(4, seed=9)
    cut, fitted, errors = calibration.choose(
        model, params, some, held, methods, key=jax.random.key(0)
    )
    assert set(errors) == set(methods)
    dense = model.cut(1)
    rest = {name: value for name, value in params.items() if name != "boundaries"}
    outputs = lambda model, params: np.concatenate(
        [np.asarray(x) for x in map(jit(lambda b: model.apply(params, b)[0].embedding), held)]
    )
    whole, made = outputs(dense, rest), outputs(cut, fitted)
    # CKA by the Gram matrices of the samples, as first defined (Cortes et al. 2012).
    size = len(whole)
    centre = np.eye(size) - 1 / size
    one, other = (centre @ (y @ y.T) @ centre for y in (made.astype(np.float64), whole))
    error = 1 - (one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum())
    assert error == pytest.approx(min(errors.values()), rel=0.02)
    assert min(errors.values()) < errors["variance"]
    assert 0 < error < 1


@pytest.mark.slow  # fits a model for each budget
def test_more_bits_lose_less(model, params):
    some, held, errors = batches(8), batches(4, seed=9), []
    for budget in (WIDTH // 2, 2 * WIDTH, 5 * WIDTH):
        wider = model.with_boundary(Boundary(WIDTH, "phase", steps=6, budget=budget))
        *_, found = calibration.choose(
            wider, params, some, held, ("variance_refit",), key=jax.random.key(0)
        )
        errors.append(found["variance_refit"])
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02


def test_what_cannot_be_calibrated(model, params):
    run = lambda m, method: calibration.calibrate(
        m, params, batches(1), method, key=jax.random.key(0)
    )
    with pytest.raises(ValueError, match="did you mean 'sensitivity_pca_refit'"):
        run(model, "sensitivity_pca_refits")
    with pytest.raises(ValueError, match="stages=1 has no boundary"):
        run(model.cut(1), "sensitivity_pca")
    with pytest.raises(ValueError, match="code='int8' has nothing to fit"):
        run(model.with_boundary(Boundary(WIDTH, "int8")), "sensitivity_pca")


def test_a_quarter_of_the_batches_is_held_out_and_of_one_batch_none():
    fitted, held_out = calibration.hold_out(list(range(9)))
    assert held_out == [1, 5]
    assert sorted(fitted) == [0, 2, 3, 4, 6, 7, 8]
    assert calibration.hold_out([0]) == ([0], [0])


def test_texts_are_read_once_each_and_drawn(tmp_path):
    rows = ["a\tb", "b\tc", "a\t", "d\te"]
    path = write(tmp_path / "pairs.tsv", "one\tother\n" + "\n".join(rows) + "\n")
    spec = DataSpec(source=str(path), text_column="one", text_pair_column="other")
    assert read_texts(spec) == ["a", "b", "d", "c", "e"]
    draw = drawn(list("abcdefgh"), 5, np.random.default_rng(0))
    assert len(set(draw)) == 5


def test_one_sample_tells_no_error(model, params):
    (one,) = batches(1, size=1)
    with pytest.raises(ValueError, match="1 held-out samples have one output"):
        calibration.Target.of(model.cut(1), params, [one])


def test_the_script(model, params, tmp_path):
    loaded = Pretrained(
        model.cut(1),
        {name: value for name, value in params.items() if name != "boundaries"},
        None, {}, letters(), PretrainedConfig("a test", {}, None, {"max_tokens": 20}),
    )  # fmt: skip
    file, out = tmp_path / "dense.safetensors", tmp_path / "cut.safetensors"
    single_file.save(file, loaded.model, loaded.params, loaded.source, {}, loaded.tokenizer)
    draw = np.random.default_rng(0)
    lines = [" ".join(draw.choice(list("abcdefgh"), 8)) for _ in range(200)]
    data = write(tmp_path / "lines.txt", "\n".join(lines) + "\n")
    done = cli(
        "calibrate", file, "--bits", 1.5, "--steps", 6, "--data", data, "--samples", 200,
        "--method", "variance", "--method", "variance_refit", "--out", out, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["bits_per_token"] == 24
    again = load_pretrained(out)
    assert again.model.boundary.budget == 24
    assert again.record["calibration"]["errors"] == printed["errors"]
    assert int(again.params["boundaries"]["encoder"]["steps_per_feature"].sum(-1).max()) <= 24


def test_the_script_chooses_by_the_pairs(model, params, tmp_path):
    """The error it tells is of the file that it writes, on the pairs of the data."""
    dense = {name: value for name, value in params.items() if name != "boundaries"}
    file, out = tmp_path / "dense.safetensors", tmp_path / "cut.safetensors"
    source = PretrainedConfig("a test", {}, None, {"max_tokens": 20})
    single_file.save(file, model.cut(1), dense, source, {}, letters())
    draw = np.random.default_rng(0)
    words = lambda: " ".join(draw.choice(list("abcdefgh"), 8))
    rows = [f"{words()}\t{words()}\t{draw.uniform(0, 5)}" for _ in range(60)]
    data = write(tmp_path / "pairs.tsv", "\n".join(["sentence1\tsentence2\tscore", *rows]) + "\n")
    done = cli(
        "calibrate", file, "--data", data, "--method", "variance", "--method", "sensitivity",
        "--choose", "stsb", "--out", out, "--samples", 100, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["chosen_by"] == "stsb"
    best = min(printed["errors"].values())
    assert printed["errors"][printed["method"]] == best
    loaded = load_pretrained(out)
    spec = spec_for(loaded, str(data), ())
    assert 1 - similarity.score(Encoder.of(loaded), spec)["spearman"] == pytest.approx(best)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "cut.npz"], "must end in .safetensors"),
        (["--bits", "0", "--data", "x.txt", "--out", "cut.safetensors"], "bits=0.0 a feature"),
        (["--bits", "99", "--data", "x.txt", "--out", "cut.safetensors"], "bits a token must be"),
        (
            ["--out", "cut.safetensors"],
            "its weights do not say on which data; give --data FILE, a table",
        ),
        (["--data", "absent.txt", "--out", "cut.safetensors"], "absent.txt"),
        (["--data", "x.txt", "--out", "cut.safetensors", "--seed", "-1"], "seed=-1 must be"),
        (["--out", "../folder.safetensors"], "folder.safetensors' is a folder"),
    ],
)
def test_the_script_refuses(model, params, tmp_path, arguments, message):
    folder, tmp_path = tmp_path / "folder.safetensors", tmp_path / "here"
    for path in (folder, tmp_path):
        path.mkdir()
    file = tmp_path / "dense.safetensors"
    dense = {name: value for name, value in params.items() if name != "boundaries"}
    source = PretrainedConfig("a test", {}, None, {"max_tokens": 20})
    single_file.save(file, model.cut(1), dense, source, {}, letters())
    done = cli("calibrate", file, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["dense.safetensors"]


def test_agreement_is_the_rank_correlation_of_all_cosines():
    draw = np.random.default_rng(0)
    wanted = draw.normal(size=(7, 5))
    made = wanted + 0.3 * draw.normal(size=(7, 5))

    def cosines(vectors):
        return [
            vectors[i] @ vectors[j] / np.linalg.norm(vectors[i]) / np.linalg.norm(vectors[j])
            for i in range(7)
            for j in range(i)
        ]

    expected = spearmanr(cosines(made), cosines(wanted)).statistic
    assert 0.3 < expected < 0.99
    assert agreement.between("encode", made, wanted) == pytest.approx(expected)
    assert agreement.between("encode", 3 * wanted, wanted) == pytest.approx(1)
    alike = sum(a.argmax() == b.argmax() for a, b in zip(made, wanted, strict=True)) / 7
    assert agreement.between("classify", made, wanted) == pytest.approx(alike)
    with pytest.raises(ValueError, match="2 samples have too few pairs"):
        agreement.between("encode", made[:2], wanted[:2])
    with pytest.raises(ValueError, match="one cosine"):
        agreement.between("encode", np.ones((4, 5)), wanted[:4])


def test_a_cut_tells_its_agreement_on_every_kind_of_data(model, params, tmp_path):
    """On one that it was not fitted to as well, and `evaluate` tells it again."""
    dense = {name: value for name, value in params.items() if name != "boundaries"}
    file, out = tmp_path / "dense.safetensors", tmp_path / "cut.safetensors"
    source = PretrainedConfig("a test", {}, None, {"max_tokens": 20})
    single_file.save(file, model.cut(1), dense, source, {}, letters())
    draw = np.random.default_rng(0)
    words = lambda letters: " ".join(draw.choice(list(letters), 8))
    tables = {"first": "abcd", "second": "efgh", "other": "aceg"}
    for name, those in tables.items():
        rows = [f"{words(those)}\t{words('abcdefgh')}" for _ in range(80)]
        write(tmp_path / f"{name}.tsv", "\n".join(["one\ttwo", *rows]) + "\n")
    sources = {name: f"{tmp_path / name}.tsv:one" for name in tables}
    done = cli(
        "calibrate", file, "--data", sources["first"], "--data", sources["second"],
        "--other", sources["other"], "--bits", 2, "--steps", 4, "--method", "variance",
        "--samples", 100, "--batch-size", 16, "--out", out, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["fitted_to"] == ["first.tsv", "second.tsv"]
    assert list(printed["agreement"]) == ["first.tsv", "second.tsv", "other.tsv"]
    assert all(0.2 < each < 1 for each in printed["agreement"].values()), printed

    done = cli("evaluate", out, "--task", "agreement", "--data", sources["other"], "--json")
    assert done.returncode == 0, done.stderr
    scored = json.loads(done.stdout)
    assert scored["samples"] == 80
    assert 0.2 < scored["agreement"] < 1
    done = cli(
        "evaluate", file, "--task", "agreement", "--against", file, "--data", sources["first"],
        "--json",
    )  # fmt: skip
    assert json.loads(done.stdout)["agreement"] == 1


def test_sources_of_one_name_are_told_apart():
    specs = [DataSpec(source=source) for source in ("/a/x.txt", "/b/x.txt", "digits", "/c/x.txt")]
    assert source_names(specs) == ["x.txt", "x.txt #2", "digits", "x.txt #3"]


def test_columns_of_one_source_are_told_apart():
    specs = [DataSpec(source="/a/x.csv", text_column=name) for name in ("one", "two")]
    assert source_names(specs) == ["x.csv:one", "x.csv:two"]


@pytest.mark.parametrize("columns", [("one", None), ("two", "one")])
def test_no_source_is_fitted_to_and_called_unseen(columns):
    loaded = load_pretrained("vit_nano_patch2_8.ann_digits")
    spec, other = (
        DataSpec(source="/a/x.csv", text_column=text, text_pair_column=pair)
        for text, pair in (("one", None), columns)
    )
    with pytest.raises(ValueError, match=r"x\.csv: is given twice; give each source"):
        cut(loaded, spec, others=[other], stages=2, boundary=spike_boundary(64))


def test_a_model_that_was_fitted_after_its_training_agrees_with_what_it_was_fitted_to():
    loaded = load_pretrained("vit_nano_patch2_8.ann_digits")
    data = spec_for(loaded, None, ())
    wire = spike_boundary(64)
    made = cut(loaded, data, stages=2, boundary=wire, methods=["variance"], samples=64)
    scored = agreement.score(made, data, samples=64)
    whole = agreement.score(made, data, samples=64, dense=loaded)
    assert scored["agreement"] == whole["agreement"] > 0.5
    with pytest.raises(ValueError, match="give the model that it shall agree with, its dense one"):
        agreement.score(load_pretrained("vit_nano_patch2_8.hnn_digits"), data)


def test_an_empty_source_and_a_column_of_images_are_told():
    loaded = load_pretrained("vit_nano_patch2_8.ann_digits")
    with pytest.raises(ValueError, match=r"data.source='' is empty"):
        spec_for(loaded, "", ())
    with pytest.raises(ValueError, match="'image' would be a column of texts, and vit_nano_patch2"):
        spec_for(loaded, "digits:image", ())
