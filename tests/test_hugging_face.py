"""Hugging Face folders: ours compute what transformers did, refuse what does not fit, go back."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from command_lines import cli
from compared import TOLERANCE, largest_gaps
from PIL import Image
from safetensors.numpy import load_file, save_file

from zoo import load_pretrained, partition
from zoo.data import DataSpec
from zoo.evaluation.inputs import data_for
from zoo.evaluation.score import score
from zoo.models.registry import create_model
from zoo.pretrained.hugging_face.export import save
from zoo.pretrained.warm_start import start_from

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden" / "hugging_face"
FOLDERS = sorted(path.name for path in GOLDEN.iterdir())


def golden(folder: Path) -> tuple[dict, dict]:
    """Inputs and what transformers made of them; see tests/parity/make_golden.py."""
    with np.load(folder / "golden.npz") as arrays:
        parts = {name: arrays[name] for name in arrays.files}
    pick = lambda prefix: {
        name.removeprefix(prefix): array for name, array in parts.items() if name.startswith(prefix)
    }
    return pick("in_"), pick("out_")


def test_files_of_both_versions_are_there():
    assert len(FOLDERS) == 12
    assert {json.loads((GOLDEN / name / "config.json").read_text())["transformers_version"][0]
            for name in FOLDERS} == {"4", "5"}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_states_and_logits_are_those_of_transformers(name):
    loaded = load_pretrained(GOLDEN / name)
    gaps = largest_gaps(loaded, *golden(GOLDEN / name))
    assert len(gaps) >= 2
    assert max(gaps.values()) < TOLERANCE, gaps


@pytest.mark.parametrize("name", ["bert_5", "vit_classify_5"])
def test_a_dense_cut_changes_nothing(name):
    loaded = load_pretrained(GOLDEN / name, stages=2)
    assert loaded.model.config.stages == 2
    assert max(largest_gaps(loaded, *golden(GOLDEN / name)).values()) < TOLERANCE
    for stages in (0, 3):
        assert f"stages={stages} must divide layers=2" in refusal(GOLDEN / name, stages=stages)
    with pytest.warns(UserWarning, match="its 1 spiking boundaries are new and fitted to nothing"):
        spiking = load_pretrained(GOLDEN / name, variant="hnn", stages=2)
    assert max(largest_gaps(spiking, *golden(GOLDEN / name)).values()) > 0.1


@pytest.fixture
def copied(tmp_path):
    return lambda name: Path(shutil.copytree(GOLDEN / name, tmp_path / name))


@pytest.mark.parametrize("name", FOLDERS)
def test_export_writes_the_tensors_that_were_read(name, tmp_path):
    loaded = partition(load_pretrained(GOLDEN / name), "hnn", stages=2)
    folder = save(tmp_path / "out", loaded.model, loaded.params, labels=loaded.record.get("labels"))
    again = load_pretrained(folder)
    dense = {part: tree for part, tree in loaded.params.items() if part != "boundaries"}
    jax.tree.map(np.testing.assert_array_equal, dense, again.params)
    assert again.model == load_pretrained(GOLDEN / name).model
    theirs, ours = (json.loads((at / "config.json").read_text()) for at in (GOLDEN / name, folder))
    for field in ("architectures", "model_type", "hidden_size", "layer_norm_eps", "id2label"):
        assert ours.get(field) == theirs.get(field)
    if name.startswith("vit_own"):
        return  # transformers 5 saves other names than its own, and so do we
    before = {}
    for path in sorted((GOLDEN / name).glob("*.safetensors")):
        before |= load_file(path)
    after = load_file(folder / "model.safetensors")
    before.pop("embeddings.position_ids", None)
    renamed = {
        key.replace("gamma", "weight").replace("beta", "bias"): array
        for key, array in before.items()
    }
    if name == "bert_mlm_untied_4":  # one bias of two names, the other of which 5 reads
        renamed["cls.predictions.decoder.bias"] = renamed["cls.predictions.bias"]
    if name == "bert_mlm_untied_5":  # two biases, one of which transformers 5 does not use
        renamed["cls.predictions.bias"] = renamed["cls.predictions.decoder.bias"]
    assert sorted(after) == sorted(renamed)
    for key, array in renamed.items():
        np.testing.assert_array_equal(after[key], array)


def edit(folder: Path, change) -> None:
    """Applies a function to the tensors of a folder."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def configure(folder: Path, **fields) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def refusal(folder: Path, **options) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        load_pretrained(folder, **options)
    return str(caught.value)


def test_one_error_lists_everything_that_does_not_fit(copied):
    folder = copied("bert_5")

    def change(tensors):
        tensors["embeddings.extra"] = np.zeros(3, np.float32)
        del tensors["encoder.layer.1.output.dense.bias"]
        tensors["encoder.layer.0.intermediate.dense.weight"] = np.zeros((8, 12), np.float32)
        tensors["pooler.dense.bias"] = np.zeros(8, np.int32)

    edit(folder, change)
    message = refusal(folder)
    for line in (
        "4 things do not fit a BertModel",
        "tensor embeddings.extra of shape (3,) has no parameter",
        "parameter blocks.mlp.down.bias is not filled: no tensor encoder.layer.1.output.dense.bias",
        "tensor encoder.layer.0.intermediate.dense.weight has shape (8, 12), needs (12, 8)",
        "tensor pooler.dense.bias has dtype int32",
    ):
        assert line in message
    configure(folder, hidden_act="gelu_new", position_embedding_type="relative_key", rotary=True)
    message = refusal(folder)
    for line in (
        "config field hidden_act='gelu_new' is not supported, only 'gelu'",
        "config field position_embedding_type='relative_key' is not supported, only 'absolute'",
        "config field rotary=True is not handled",
    ):
        assert line in message
    configure(folder, hidden_size="8")
    assert "config field hidden_size='8' must be a number" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "array", "line"),
    [
        ("position_ids", np.arange(9)[None], ""),
        ("position_ids", np.arange(9, dtype=np.float32), ""),
        ("position_ids", np.arange(512).astype(ml_dtypes.bfloat16), ""),
        (
            "position_ids",
            np.arange(9)[None] + 2,
            "holds 2, 3, 4, ... where the model computes 0, 1",
        ),
        ("position_ids", np.zeros((1, 0), np.int64), "holds nothing, ..."),
        ("position_ids", np.int64(3), "holds 3, ..."),
        ("token_type_ids", np.zeros((1, 9), np.int64), ""),
        (
            "token_type_ids",
            np.ones((1, 9), np.int64),
            "holds 1, 1, 1, ... where the model computes 0, 0",
        ),
    ],
)
def test_counters_in_old_files_are_those_of_the_model(name, array, line, copied):
    """Such as positions from 2 on: the model would look up others than the file's did."""
    folder = copied("bert_5")
    edit(folder, lambda tensors: tensors.update({f"embeddings.{name}": np.asarray(array)}))
    if line:
        assert f"tensor embeddings.{name} {line}" in refusal(folder)
        assert "ignore=[...]" in refusal(folder)
        load_pretrained(folder, ignore=[f"*.{name}"])
    else:
        load_pretrained(folder)


def test_configs_of_the_original_code_are_read(copied):
    folder = copied("bert_5")
    configure(folder, directionality="bidi", pooler_type="first_token_transform", pooler_fc_size=8)
    load_pretrained(folder)
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    del fields["architectures"]  # the tensors tell
    path.write_text(json.dumps(fields))
    assert load_pretrained(folder).model.config.task == "encode"
    configure(folder, directionality="unidi")
    assert "config field directionality='unidi' is not supported, only 'bidi'" in refusal(folder)


def test_tensors_are_left_out_only_by_name(copied):
    folder = copied("bert_mlm_5")
    message = refusal(folder, task="encode")
    assert "tensor cls.predictions.bias of shape (20,) has no parameter" in message
    assert "ignore=" in message
    loaded = load_pretrained(folder, task="encode", ignore=["cls.*"])
    assert loaded.model.config.task == "encode"
    batch, expected = golden(folder)
    states = {"states": expected["states"], "tokens": expected["states"][-1]}
    assert max(largest_gaps(loaded, batch, states).values()) < TOLERANCE


def test_a_config_of_another_architecture_is_refused(copied):
    folder = copied("bert_5")
    configure(folder, architectures=["BertForTokenClassification"])
    assert "is none of BertModel, BertForMaskedLM" in refusal(folder)
    configure(folder, architectures=["BertForMaskedLM"])
    assert "parameter head.decoder.kernel is not filled" not in refusal(folder)  # it is tied
    assert "parameter head.transform.kernel is not filled" in refusal(folder)
    configure(folder, model_type="roberta")
    assert "unknown model_type 'roberta'" in refusal(folder)
    fields = json.loads((folder / "config.json").read_text())
    del fields["model_type"]
    (folder / "config.json").write_text(json.dumps(fields))
    assert "unknown model_type None" in refusal(folder)
    folder = copied("vit_5")
    configure(folder, architectures=["ViTForImageClassification"])
    assert "tensor pooler.dense.weight of shape (8, 8) has no parameter" in refusal(folder)
    configure(folder, model_type="bert", architectures=["BertModel"])
    assert "config field image_size=8 is not handled" in refusal(folder)
    configure(folder, model_type="vit", architectures=[], pooler_output_size=4)
    assert "pooler_output_size=4 must equal hidden_size" in refusal(folder)


def test_a_decoder_that_is_tied_and_differs_is_refused(copied):
    folder = copied("bert_mlm_untied_5")
    configure(folder, tie_word_embeddings=True)
    message = refusal(folder)
    assert "cls.predictions.decoder.weight differs from embeddings.word_embeddings" in message
    folder = copied("bert_mlm_5")
    configure(folder, tie_word_embeddings=False)
    assert "parameter head.decoder.kernel is not filled" in refusal(folder)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_weights_in_half_precision_become_float32(copied, kind):
    folder = copied("vit_5")
    whole = load_pretrained(folder).params
    edit(folder, lambda tensors: tensors.update({k: x.astype(kind) for k, x in tensors.items()}))
    rounded = lambda x: np.asarray(x).astype(kind).astype(np.float32)
    found = load_pretrained(folder).params
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, rounded(b)), found, whole)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(found)} == {"float32"}


def test_damaged_files_are_refused(copied):
    folder = copied("bert_5")
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for content in (whole[:-5], whole[:40], b"", b"\x80\x04pickle"):
        path.write_bytes(content)
        assert "truncated, damaged or no safetensors file" in refusal(folder)
    path.write_bytes(whole)
    wrong = {"model.safetensors": "0" * 64}
    assert "SHA-256 is" in refusal(folder, sha256=wrong)
    digest = load_pretrained(folder).source.sha256
    assert load_pretrained(folder, sha256=digest).source.sha256 == digest
    (folder / "config.json").write_text("{")
    assert "config.json" in refusal(folder)


def test_a_pickle_is_never_opened(copied):
    folder = copied("bert_5")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"not to be read")
    message = refusal(folder)
    assert "pytorch_model.bin" in message
    assert "save_pretrained" in message  # how to convert
    (folder / "pytorch_model.bin").unlink()
    assert "has no model.safetensors" in refusal(folder)


def test_an_index_names_files_of_its_own_folder_alone(copied):
    folder = copied("bert_classify_5")
    index = folder / "model.safetensors.index.json"
    record = json.loads(index.read_text())
    first = sorted(record["weight_map"])[0]
    for name in ("../outside.safetensors", "/etc/outside.safetensors", "model.bin"):
        changed = {**record["weight_map"], first: name}
        index.write_text(json.dumps({**record, "weight_map": changed}))
        assert f"{name!r} is not a .safetensors file in the same folder" in refusal(folder)
    lost = {name: file for name, file in record["weight_map"].items() if name != first}
    index.write_text(json.dumps({**record, "weight_map": lost}))
    assert f"index and shards differ in the tensors {first}" in refusal(folder)
    index.write_text(json.dumps({**record, "weight_map": [1]}))
    assert "weight_map must map tensors to files" in refusal(folder)
    index.write_text(json.dumps(record))
    (folder / record["weight_map"][first]).unlink()
    assert "which are not there" in refusal(folder)


def word_tokenizer(size: int) -> str:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    return Tokenizer(WordLevel({f"w{index}": index for index in range(size)}, "w0")).to_str()


def test_a_vocabulary_that_does_not_fit_is_refused(copied):
    folder = copied("bert_5")
    (folder / "tokenizer.json").write_text(word_tokenizer(21))
    assert "its largest id is 20, the model has a vocabulary of 20" in refusal(folder)
    (folder / "tokenizer.json").write_text(word_tokenizer(20))
    assert load_pretrained(folder).tokenizer == word_tokenizer(20)
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer.json" in refusal(folder)


def test_images_are_prepared_as_the_folder_says_and_of_the_models_size(copied, tmp_path):
    folder = copied("vit_classify_5")
    settings = folder / "preprocessor_config.json"
    fields = {"size": {"height": 8, "width": 8}, "image_mean": [0.1, 0.2, 0.3],
              "image_std": [0.5, 0.5, 0.6], "do_normalize": True}  # fmt: skip
    settings.write_text(json.dumps(fields))
    loaded = load_pretrained(folder)
    expected = {"size": 8, "resample": "bilinear", "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.6]}
    assert loaded.source.preprocessing == expected
    out = save(tmp_path / "out", loaded.model, loaded.params, preprocessing=expected)
    assert load_pretrained(out).source.preprocessing == expected
    with pytest.raises(ValueError, match=r"needs shape \(batch, 8, 8, 3\), got \(1, 9, 9, 3\)"):
        loaded.model.apply(loaded.params, {"image": np.zeros((1, 9, 9, 3), np.float32)})
    for change, message in (
        ({"size": 16}, "size=16 is not the model's image_size=8"),
        ({"size": {"shortest_edge": 8}}, "size={'shortest_edge': 8} is not the model's"),
        ({"image_mean": [0.5]}, "num_channels=3 numbers"),
        ({"image_std": [0.5, 0, 1]}, "num_channels=3 numbers above 0"),
        ({"image_mean": ["a", 0, 0]}, "num_channels=3 numbers"),
        ({"do_rescale": False}, "pixels are always divided by 255"),
        ({"rescale_factor": 1 / 127.5}, "pixels are always divided by 255"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order=True is not handled"),
        ({"resample": 9}, "resample=9 must be one of 0, 1, 2"),
        ({"do_center_crop": True, "crop_size": 8, "size": 6}, "at least crop_size=8"),
        (
            {"do_center_crop": True, "crop_size": {"height": 8, "width": 6}},
            "size={'height': 8, 'width': 6} is not the model's image_size=8",
        ),
        # DeiT's own are bicubic, 256 and the 224 in the middle; Bit's cut the middle out too.
        (
            {"image_processor_type": "DeiTImageProcessor"},
            "='DeiTImageProcessor' has defaults of its own; write out resample, do_center_crop",
        ),
        (
            {"feature_extractor_type": "BitImageProcessor", "resample": 3},
            "='BitImageProcessor' has defaults of its own; write out do_center_crop",
        ),
    ):
        settings.write_text(json.dumps({**fields, **change}))
        assert message in refusal(folder)


def test_images_that_are_not_normalised_keep_their_scale(copied, tmp_path):
    """Without a mean, a data set's own would be taken."""
    folder = copied("vit_classify_5")
    (folder / "preprocessor_config.json").write_text('{"size": 8, "do_normalize": false}')
    loaded = load_pretrained(folder)
    spec = DataSpec(mean=(0.5,) * 3, std=(0.1,) * 3).like(loaded.source.preprocessing)
    assert (spec.mean, spec.std) == ((0.0,) * 3, (1.0,) * 3)


def test_pictures_that_are_not_resized_must_have_the_models_size(copied, tmp_path):
    folder = copied("vit_classify_5")
    (folder / "preprocessor_config.json").write_text('{"size": 8, "do_resize": false}')
    loaded = load_pretrained(folder)
    assert loaded.source.preprocessing == {"mean": [0.5] * 3, "std": [0.5] * 3}
    for size in (8, 9):
        for label in range(5):
            path = tmp_path / str(size) / f"LABEL_{label}" / "0.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (size, size)).save(path)
        data = data_for(loaded, DataSpec(source=str(tmp_path / str(size))))
        if size == 8:
            assert score(loaded, data, ranks=1)["samples"] == 5
        else:
            with pytest.raises(
                ValueError, match=r"got \(1, 9, 9, 3\); set data.image_size=8 to resize"
            ):
                score(loaded, data, ranks=1)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_pixels_are_those_of_the_preprocessor(copied, tmp_path, name):
    """Resized in the folder's way to its size, and the middle cut out: DeiT's 256, then 224."""
    folder = copied("vit_classify_5")
    number = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[name]
    fields = {"size": 10, "do_center_crop": True, "crop_size": 8, "resample": int(number),
              "image_mean": [0.5] * 3, "image_std": [0.25] * 3}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))
    loaded = load_pretrained(folder)
    expected = {"size": 8, "resize": 10, "resample": name, "mean": [0.5] * 3, "std": [0.25] * 3}
    assert loaded.source.preprocessing == expected
    out = save(tmp_path / "out", loaded.model, loaded.params, preprocessing=expected)
    assert load_pretrained(out).source.preprocessing == expected

    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (5, 23, 31, 3)).astype(np.uint8)
    for label, picture in enumerate(pixels):
        path = tmp_path / "data" / f"LABEL_{label}" / "0.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(picture).save(path)
    data = data_for(loaded, DataSpec(source=str(tmp_path / "data")))
    wanted = [
        np.asarray(Image.fromarray(x).resize((10, 10), number))[1:9, 1:9] / 255 for x in pixels
    ]
    found = data.validation.take(np.arange(5))["image"]
    np.testing.assert_allclose(found, (np.array(wanted) - 0.5) / 0.25, atol=1e-6)


def sentence_folder(folder: Path, *kinds: str, **pooling: bool) -> Path:
    """What sentence-transformers adds."""
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, ("", "1_Pooling", "2_Normalize"), strict=False))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    fields = {"word_embedding_dimension": 8, **pooling}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(fields))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 7}))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntags: []\n---\n# A card\n")
    return folder


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token"])
def test_sentence_folders_embed_as_their_modules_say(copied, tmp_path, mode, normalise):
    kinds = ("Transformer", "Pooling", "Normalize")[: 3 if normalise else 2]
    modes = {f"pooling_mode_{name}": name == mode for name in ("mean_tokens", "cls_token")}
    folder = sentence_folder(copied("bert_5"), *kinds, **modes, pooling_mode_max_tokens=False)
    loaded = load_pretrained(folder)
    assert loaded.source.preprocessing == {"max_tokens": 7}
    assert loaded.source.licence == "apache-2.0"
    batch, expected = golden(folder)
    out, _ = loaded.model.apply(loaded.params, batch)
    tokens, mask = expected["tokens"].astype(np.float64), batch["attention_mask"]
    for sample in range(len(mask)):
        real = tokens[sample][mask[sample]]
        wanted = real.mean(0) if mode == "mean_tokens" else real[0]
        wanted = wanted / np.linalg.norm(wanted) if normalise else wanted
        np.testing.assert_allclose(out.embedding[sample], wanted, atol=TOLERANCE)
    again = save(tmp_path / "out", loaded.model, loaded.params,
                 preprocessing=loaded.source.preprocessing)  # fmt: skip
    assert load_pretrained(again).model == loaded.model
    assert load_pretrained(again).source.preprocessing == loaded.source.preprocessing
    with pytest.raises(ValueError, match="holds a model already"):
        save(again, load_pretrained(GOLDEN / "bert_5").model, loaded.params)


def test_sentence_folders_with_other_modules_are_refused(copied):
    folder = copied("bert_5")
    mean = {"pooling_mode_mean_tokens": True}
    sentence_folder(folder, "Transformer", "Pooling", "Dense", **mean)
    assert "modules Transformer, Pooling, Dense are not supported" in refusal(folder)
    sentence_folder(folder, "Transformer", "Pooling", pooling_mode_max_tokens=True)
    assert "pooling by ['pooling_mode_max_tokens'] is not supported" in refusal(folder)
    sentence_folder(folder, "Transformer", "Pooling", **mean, word_embedding_dimension=9)
    assert "is not the encoder's hidden_size=8" in refusal(folder)
    sentence_folder(folder, "Transformer", "Pooling", **mean)
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = "../elsewhere"
    (folder / "modules.json").write_text(json.dumps(modules))
    assert "is not inside the folder" in refusal(folder)


MEAN = {"pooling_mode_mean_tokens": True}


@pytest.mark.parametrize(
    ("named", "ours"), [("mean", "mean"), ("cls", "first"), (["cls"], "first")]
)
def test_newer_sentence_folders_name_the_pooling(copied, named, ours):
    fields = {"embedding_dimension": 8, "pooling_mode": named, "include_prompt": True}
    folder = sentence_folder(copied("bert_5"), "Transformer", "Pooling", **fields)
    # They leave the length to the tokenizer's settings.
    text = {"method": "forward", "method_output_name": "last_hidden_state"}
    settings = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings",
                "modality_config": {"text": text}}  # fmt: skip
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    for length, expected in ((5, {"max_tokens": 5}), (int(1e30), {}), (1e30, {})):
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": length}))
        loaded = load_pretrained(folder)
        assert loaded.model.config.pooling == ours
        assert loaded.source.preprocessing == expected


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("1_Pooling/config.json", {"embedding_dimension": 8, "pooling_mode": "max"}, "by ['max']"),
        ("1_Pooling/config.json", {"pooling_mode": ["cls", "mean"]}, "is not supported"),
        ("1_Pooling/config.json", {"embedding_dimension": 9, "pooling_mode": "cls"}, "hidden_size"),
        ("modules.json", [{"type": "Transformer", "path": 5}], "[0].path=5 must be a text"),
        ("modules.json", [{"type": 5, "path": ""}], "[0].type=5 must be a text"),
        ("config_sentence_transformers.json", {"prompts": ["query: "]}, "must map names to texts"),
        ("config_sentence_transformers.json", {"prompts": {"a": 1}}, "must map names to texts"),
        ("config_sentence_transformers.json", {"truncate_dim": 4}, "truncate_dim=4 is not handled"),
        ("config_sentence_transformers.json", {"default_prompt_name": "query"},
         "default_prompt_name='query' puts a prompt before every text"),
        ("sentence_bert_config.json", {"max_seq_length": "7"}, "max_seq_length='7' must be"),
        ("sentence_bert_config.json", {"max_seq_length": 7.5}, "max_seq_length=7.5 must be"),
        ("sentence_bert_config.json", {"max_seq_length": 2}, "max_seq_length=2 must be"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"},
         "transformer_task='fill-mask' is not handled"),
        ("sentence_bert_config.json", {"other": 1}, "other=1 is not handled"),
    ],
)  # fmt: skip
def test_sentence_folders_that_would_embed_otherwise_are_refused(copied, file, content, message):
    folder = sentence_folder(copied("bert_5"), "Transformer", "Pooling", **MEAN)
    (folder / file).write_text(json.dumps(content))
    assert message in refusal(folder)


def test_prompts_of_a_folder_are_kept(copied, tmp_path):
    folder = sentence_folder(
        copied("bert_5"), "Transformer", "Pooling", **MEAN, include_prompt=False
    )
    prompts = {"query": "query: ", "document": ""}
    settings = {"__version__": {"pytorch": "2"}, "prompts": prompts, "default_prompt_name": None,
                "similarity_fn_name": "cosine"}  # fmt: skip
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    loaded = load_pretrained(folder)
    expected = {"max_tokens": 7, "prompts": {"query": "query: "}, "include_prompt": False}
    assert loaded.source.preprocessing == expected
    again = save(tmp_path / "out", loaded.model, loaded.params, preprocessing=expected)
    assert load_pretrained(again).source.preprocessing == expected


def test_a_folder_that_does_not_state_its_pooling_says_so_until_it_is_stated(copied, tmp_path):
    folder = copied("bert_5")
    assert load_pretrained(folder).source.preprocessing == {"pooling": "assumed"}
    for pooling in ("mean", "first"):
        loaded = load_pretrained(folder, pooling=pooling)
        assert loaded.source.preprocessing == {}
        assert loaded.model.config.pooling == pooling
        again = load_pretrained(save(tmp_path / pooling, loaded.model, loaded.params))
        assert again.model.config.pooling == pooling
        assert again.source.preprocessing == {}
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 6}))
    found = load_pretrained(folder).source.preprocessing
    assert found == {"pooling": "assumed", "max_tokens": 6}


@pytest.mark.parametrize("name", ["bert_classify_5", "vit_classify_5"])
def test_a_classifier_of_several_labels_a_sample_is_refused(copied, name):
    """Softmax would choose one of them."""
    folder = copied(name)
    for problem in ("multi_label_classification", "regression"):
        configure(folder, problem_type=problem)
        assert f"problem_type='{problem}' with " in refusal(folder)
        assert "is no choice of one class" in refusal(folder)
    configure(folder, problem_type="single_label_classification")
    assert load_pretrained(folder).model.config.task == "classify"


def test_texts_are_made_lower_case_where_the_folder_says_so(copied):
    from tokenizers import Tokenizer, normalizers

    folder = sentence_folder(copied("bert_5"), "Transformer", "Pooling", **MEAN)
    settings = {"max_seq_length": 7, "do_lower_case": True}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    ids = lambda text: Tokenizer.from_str(text).encode("W3").ids
    for normaliser in (None, normalizers.NFC(), normalizers.Sequence([normalizers.NFC()])):
        tokenizer = Tokenizer.from_str(word_tokenizer(9))
        if normaliser is not None:
            tokenizer.normalizer = normaliser
        (folder / "tokenizer.json").write_text(tokenizer.to_str())
        assert ids(tokenizer.to_str()) == [0]  # unknown
        assert ids(load_pretrained(folder).tokenizer) == [3]
    for normaliser in (normalizers.BertNormalizer(lowercase=True), normalizers.Lowercase()):
        tokenizer.normalizer = normaliser
        (folder / "tokenizer.json").write_text(tokenizer.to_str())
        assert load_pretrained(folder).tokenizer == tokenizer.to_str()


def test_files_are_utf_8_in_every_locale(copied):
    folder = copied("bert_5")
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    text = Tokenizer(WordLevel({"\u00e9": 0, "w": 1}, "w")).to_str()
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    (folder / "README.md").write_bytes("---\nlicense: mit\n---\ncaf\u00e9".encode("latin-1"))
    program = (
        "import sys, zoo\nloaded = zoo.load_pretrained(sys.argv[1])\n"
        "print(ascii(loaded.tokenizer == open(sys.argv[1] + '/tokenizer.json', 'rb').read()"
        ".decode()), loaded.source.licence)"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", program, str(folder)], env=environment,
                          capture_output=True, text=True, timeout=300, cwd=ROOT)  # fmt: skip
    assert done.stdout == "True mit\n", done.stderr
    (folder / "tokenizer.json").write_bytes(b"\xff")
    assert "tokenizer.json" in refusal(folder)


def head_change(folder: Path, **entries: dict) -> None:
    """Adds entries without data of their own to the header of a folder's weights."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    head = {**json.loads(content[8:end]), **entries}
    size = len(content) - end
    for entry in entries.values():
        entry["data_offsets"] = [size, size + 1]
    made = json.dumps(head).encode()
    path.write_bytes(len(made).to_bytes(8, "little") + made + content[end:] + b"\0")


def test_dtypes_that_numpy_lacks_are_listed(copied):
    folder = copied("bert_5")
    head_change(folder, extra={"dtype": "F8_E4M3", "shape": [1]})
    assert "tensor extra has dtype F8_E4M3, which is not read" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("vit_classify_5", {"id2label": dict.fromkeys("12345", "a")}, "must map 0, 1, 2, ... to"),
        ("vit_classify_5", {"id2label": list("abcde")}, "must map 0, 1, 2, ... to names"),
        ("vit_classify_5", {"id2label": 5}, "must map 0, 1, 2, ... to names"),
        ("vit_classify_5", {"id2label": dict.fromkeys("01234", 1)}, "must map 0, 1, 2, ... to"),
        ("bert_5", {"model_type": ["bert"]}, "unknown model_type ['bert']"),
        ("bert_5", {"layer_norm_eps": -1.0}, "layer_norm_eps=-1.0 must be at least 0"),
        ("bert_5", {"layer_norm_eps": float("nan")}, "layer_norm_eps=nan must be at least 0"),
        ("bert_mlm_5", {"tie_word_embeddings": "false"}, "'false' must be true or false"),
    ],
)
def test_values_that_make_no_sense_are_refused(copied, name, fields, message):
    folder = copied(name)
    configure(folder, **fields)
    assert message in refusal(folder)


def cased() -> str:
    """Word pieces, case kept, with nothing around a text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Paris", "paris")
    made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(list(words[:5]))
    return made.to_str()


def test_an_exported_tokenizer_is_not_taken_for_that_of_a_bert(tmp_path):
    """transformers lowers texts and looks for word pieces where no class is named."""
    from tokenizers import Tokenizer

    loaded = load_pretrained(GOLDEN / "bert_5")
    folder = save(tmp_path / "out", loaded.model, loaded.params, tokenizer=cased(),
                  preprocessing={"max_tokens": 6})  # fmt: skip
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert settings["model_max_length"] == 6
    assert "token_type_ids" in settings["model_input_names"]
    assert {settings[f"{name}_token"] for name in ("pad", "unk", "cls", "sep", "mask")} == {
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
    }  # fmt: skip
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert made.encode("Paris paris").ids == [2, 5, 6, 3]
    pair = made.encode("Paris", "paris")
    assert (pair.ids, pair.type_ids) == ([2, 5, 3, 6, 3], [0, 0, 0, 1, 1])
    # As it now is, it is written unchanged.
    text = load_pretrained(folder).tokenizer
    again = save(tmp_path / "again", loaded.model, loaded.params, tokenizer=text)
    assert load_pretrained(again).tokenizer == text


@pytest.mark.parametrize("known", [{"split_special_tokens": True}, {"tokenizer_kind": "bytes"}])
def test_an_exported_tokenizer_splits_special_tokens_as_the_model_did(tmp_path, known):
    loaded = load_pretrained(GOLDEN / "bert_5", pooling="mean")
    folder = save(tmp_path / "out", loaded.model, loaded.params, tokenizer=cased(),
                  preprocessing=known)  # fmt: skip
    assert (
        json.loads((folder / "tokenizer_config.json").read_text())["split_special_tokens"] is True
    )
    assert load_pretrained(folder).source.preprocessing == {"split_special_tokens": True}


def test_a_vit_of_a_run_is_written_with_its_images(tmp_path):
    """The record of a run has no "size", which the model knows."""
    loaded = load_pretrained(GOLDEN / "vit_classify_5")
    record = {"image": [8, 8, 3], "mean": [0.1] * 3, "std": [0.5] * 3, "class_names": list("abcde")}
    folder = save(tmp_path / "out", loaded.model, loaded.params, preprocessing=record)
    expected = {"size": 8, "resample": "bicubic", "mean": [0.1] * 3, "std": [0.5] * 3}
    assert load_pretrained(folder).source.preprocessing == expected


def test_training_starts_from_a_folder():
    loaded = load_pretrained(GOLDEN / "bert_mlm_5")
    config = loaded.model.config
    sizes = {name: getattr(config, name) for name in
             ("vocabulary", "positions", "width", "layers", "heads", "mlp_width")}  # fmt: skip
    model = create_model("bert_nano", "hnn", stages=2, task="mlm", **sizes)
    params, fit = start_from(loaded, model, jax.random.key(0))
    assert fit  # the boundaries are new
    for part in ("embed", "blocks", "head"):
        jax.tree.map(np.testing.assert_array_equal, params[part], loaded.params[part])
    other = create_model("bert_nano", stages=2, task="classify", **sizes)
    with pytest.raises(ValueError, match=r"head\.classifier\.kernel"):
        start_from(loaded, other, jax.random.key(0))


def test_a_mean_pooled_vit_has_no_class_in_transformers(tmp_path):
    loaded = load_pretrained("vit_nano_patch2_8.ann_digits")
    with pytest.raises(ValueError, match="only pooling='class' can be written"):
        save(tmp_path, loaded.model, loaded.params)
    with pytest.raises(ValueError, match="this is none"):
        load_pretrained("vit_nano_patch2_8.ann_digits", task="encode")


def test_convert_says_so_before_it_loads_and_names_what_can_be_written(tmp_path, monkeypatch):
    def load(*arguments, **settings):
        raise AssertionError("loaded")

    monkeypatch.setattr("zoo.pretrained.load.load_pretrained", load)
    out = tmp_path / "out"
    done = cli("convert", "vit_nano_patch2_8.ann_digits", out)
    assert done.returncode == 2
    assert f"out='{out}': vit_nano_patch2_8: pooling='mean' has no class" in done.stderr
    assert "Name a file, out.safetensors: every command reads it" in done.stderr
    assert not out.exists()
