"""NaN is not scored: loading, evaluating, embedding, calibrating, comparing stop, and say where."""

import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_lines import cli
from data_files import letters, write
from safetensors.numpy import load_file, save_file

from zoo import Encoder, Pretrained, PretrainedConfig, checkpoint, create_model, load_pretrained
from zoo.evaluation import tables
from zoo.evaluation.inputs import data_for
from zoo.evaluation.score import score
from zoo.models import calibration
from zoo.pretrained import single_file
from zoo.pretrained.model_folder import export

GOLDEN = Path(__file__).parent / "golden" / "hugging_face"
SHIPPED = "vit_nano_patch2_8.hnn_digits"


def changed(params, path, change):
    """The parameters with one leaf put through a function."""
    name, *rest = path.split("/")
    node = change(params[name]) if not rest else changed(params[name], "/".join(rest), change)
    return {**params, name: node}


def poisoned(params, path):
    return changed(params, path, lambda leaf: leaf.at[(0,) * leaf.ndim].set(jnp.nan))


@pytest.fixture(scope="module")
def digits():
    return load_pretrained(SHIPPED)


@pytest.fixture(scope="module")
def sentences():
    model = create_model(
        "bert_nano", "hnn", stages=2, task="encode", vocabulary=16, width=16, heads=2, mlp_width=32
    )
    source = PretrainedConfig("a test", {}, None, {"max_tokens": 16})
    return Pretrained(model, model.init(jax.random.key(0)), None, {}, letters(), source)


GAIN, BIAS = "boundaries/encoder/gain", "blocks/mlp/up/bias"


@pytest.mark.parametrize("where", [GAIN, BIAS])
class TestLoaders:
    def refused(self, path, where):
        with pytest.raises(ValueError, match=f"the parameters {where} are not finite") as caught:
            load_pretrained(path)
        assert str(caught.value).startswith(f"{path}: ")

    def test_a_file(self, digits, tmp_path, where):
        path = tmp_path / "model.safetensors"
        single_file.save(path, digits.model, poisoned(digits.params, where), digits.source)
        self.refused(path, where)

    def test_a_folder(self, digits, tmp_path, where):
        export(tmp_path / "model", poisoned(digits.params, where), digits.record)
        self.refused(tmp_path / "model", where)

    def test_a_checkpoint(self, digits, tmp_path, where):
        parts = {"params": poisoned(digits.params, where)}
        checkpoint.save(tmp_path / "run" / "checkpoints", parts, {**digits.record, "step": 1})
        self.refused(tmp_path / "run", where)


def test_weights_of_others_that_are_not_finite_are_refused(tmp_path):
    folder = Path(shutil.copytree(GOLDEN / "bert_5", tmp_path / "bert"))
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("layer.1.attention.self.query.bias"))
    tensors[name][3] = np.inf
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="blocks/attention/query/bias are not finite"):
        load_pretrained(folder)


def test_scores_of_a_model_with_nan(digits):
    data = data_for(digits, digits.config.data)
    for where, what in (
        ("blocks/mlp/up/bias", "what boundary 0 encodes is not finite"),
        ("boundaries/encoder/gain", "what boundary 0 encodes is not finite"),
        ("head/classifier/bias", "the output is not finite"),
    ):
        broken = replace(digits, params=poisoned(digits.params, where))
        if where.startswith("boundaries"):  # said before a program is made
            with pytest.raises(ValueError, match="parameters are not finite: encoder/gain"):
                score(broken, data, ranks=1)
            continue
        with pytest.raises(FloatingPointError, match=f"batch 1 of the split: {what}"):
            score(broken, data, ranks=1)


@pytest.fixture(scope="module")
def overflowing(digits, tmp_path_factory):
    """A model of finite weights whose second stage overflows."""
    huge = lambda leaf: leaf.at[1].set(3e38)
    params = changed(digits.params, "blocks/mlp/up/kernel", huge)
    return export(tmp_path_factory.mktemp("huge") / "model", params, digits.record)


def test_evaluate_ends_with_an_error(overflowing):
    done = cli("evaluate", overflowing)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "batch 1 of the split: what boundary 1 encodes is not finite" in done.stderr
    assert done.stderr.count("\n") == 1


def test_compare_ends_with_an_error(overflowing):
    dense = load_pretrained("vit_nano_patch2_8.ann_digits")
    with pytest.raises(FloatingPointError, match="what boundary 1 encodes is not finite"):
        tables.of_models(dense, [load_pretrained(overflowing)], "digits", codes=[])


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("blocks/mlp/up/bias", "what boundary 0 encodes"),
        ("boundaries/encoder/threshold", "what boundary 0 encodes"),
        ("boundaries/decoder/gain", "the output"),
    ],
)
def test_embeddings_of_a_model_with_nan(sentences, where, what):
    params = poisoned(sentences.params, where)
    encoder = Encoder.of(replace(sentences, params=params), batch_size=4)
    # A boundary looks at its parameters only where they are numbers: here they are traced.
    with pytest.raises(FloatingPointError, match=f"bert_nano: {what} is not finite"):
        encoder.embed(["a b c", "d"])
    assert np.isfinite(Encoder.of(sentences, batch_size=4).embed(["a b c", "d"])).all()


def test_embed_ends_with_an_error_and_writes_nothing(sentences, tmp_path):
    huge = changed(sentences.params, "blocks/mlp/up/kernel", lambda leaf: leaf.at[0].set(3e38))
    path = tmp_path / "huge.safetensors"
    single_file.save(path, sentences.model, huge, sentences.source, {}, sentences.tokenizer)
    out = tmp_path / "out.npy"
    done = cli("embed", path, "--out", out, input="a b c\nd e\n")
    assert done.returncode == 1
    assert "error: bert_nano: what boundary 0 encodes is not finite" in done.stderr
    assert not out.exists()


def test_calibrate_stops(sentences, tmp_path):
    draw = np.random.default_rng(0)
    batches = [
        {"input_ids": draw.integers(5, 13, (8, 6)).astype(np.int32),
         "attention_mask": np.ones((8, 6), bool), "weight": np.ones(8, np.float32)}
        for _ in range(4)
    ]  # fmt: skip
    huge = lambda layer: changed(
        sentences.params, "blocks/mlp/up/kernel", lambda leaf: leaf.at[layer].set(3e38)
    )
    fitted, held_out = calibration.hold_out(batches)
    for layer in range(sentences.model.config.layers):
        with pytest.raises(FloatingPointError, match="held-out samples: the output is not finite"):
            calibration.choose(
                sentences.model, huge(layer), fitted, held_out, ["variance"], key=jax.random.key(0)
            )
    with pytest.raises(ValueError, match="activations: contain non-finite values"):
        sentences.model.calibrate(huge(0), *batches)
    text = write(tmp_path / "lines.txt", "a b c d\n" * 8)
    path = tmp_path / "huge.safetensors"
    single_file.save(path, sentences.model, huge(0), sentences.source, {}, sentences.tokenizer)
    done = cli(
        "calibrate", path, "--stages", 2, "--data", text, "--set", "data.text_column=text",
        "--set", "data.text_pair_column=none", "--out", tmp_path / "c.safetensors",
    )  # fmt: skip
    assert done.returncode == 1
    assert "held-out samples: the output is not finite" in done.stderr
    assert not (tmp_path / "c.safetensors").exists()


def test_parameters_stacked_for_another_model_are_refused(digits):
    """An index beyond the last boundary would read that again, and a slice of blocks be short."""
    image = {"image": np.zeros((1, 8, 8, 1), np.float32)}
    for part, what in (("boundaries", "stages - 1=3"), ("blocks", "layers=4")):
        short = jax.tree.map(lambda leaf: leaf[:2], digits.params[part])
        with pytest.raises(ValueError, match=f"{part}.* is stacked for another model.*{what}"):
            digits.model.apply({**digits.params, part: short}, image)
    without = {name: tree for name, tree in digits.params.items() if name != "boundaries"}
    with pytest.raises(ValueError, match=r"need .*'boundaries'.* for stages=4"):
        digits.model.apply(without, image)


def test_a_cut_that_is_the_models_own_keeps_its_boundaries(digits):
    same = load_pretrained(SHIPPED, variant=None, stages=4)
    jax.tree.map(np.testing.assert_array_equal, same.params, digits.params)


def test_public_objects_print_in_a_line(digits, sentences):
    data = data_for(digits, digits.config.data)
    result = digits.model.apply(digits.params, {"image": np.zeros((1, 8, 8, 1), np.float32)})[1]
    for printed in (digits, digits.model, sentences, Encoder.of(sentences), data, data.train,
                    Encoder.of(sentences).vocabulary, digits.source, result):  # fmt: skip
        text = repr(printed)
        assert "\n" not in text
        assert len(text) < 1000, text
    assert repr(digits.model).startswith("Model(vit_nano_patch2_8, task='classify', layers=4,")
    assert repr(digits).endswith(
        "source='vit_nano_patch2_8.hnn_digits', 136,970 trainable parameters)"
    )
