"""Random models of transformers through `save_pretrained`, files and our loader, and back."""

import jax
import numpy as np
import pytest
import reference
import torch
import transformers as hf
from compared import TOLERANCE, largest_gaps
from safetensors.numpy import load_file

from zoo import load_pretrained, partition
from zoo.data.tokenizer import train_tokenizer
from zoo.pretrained.hugging_face.export import save

# Of every kind of size at least two; odd lengths, among them 1 and the longest.
BERTS = [
    ({}, 7),
    ({"num_hidden_layers": 1, "vocab_size": 31, "type_vocab_size": 1}, 1),
    ({"hidden_size": 12, "num_attention_heads": 3, "layer_norm_eps": 1e-5}, 9),
    ({"num_hidden_layers": 3, "intermediate_size": 40, "max_position_embeddings": 33}, 33),
    ({"num_attention_heads": 1, "type_vocab_size": 3, "layer_norm_eps": 1e-3}, 5),
]
BERT_CLASSES = [
    (hf.BertModel, {}),
    (hf.BertForMaskedLM, {}),
    (hf.BertForMaskedLM, {"tie": False}),
    (hf.BertForSequenceClassification, {"num_labels": 3}),
]
VITS = [
    {},
    {"num_hidden_layers": 1, "num_channels": 1, "image_size": 12},
    {"hidden_size": 12, "num_attention_heads": 3, "patch_size": 2, "layer_norm_eps": 1e-5},
    {"num_hidden_layers": 3, "intermediate_size": 40, "patch_size": 8},
]
VIT_CLASSES = [(hf.ViTModel, {}), (hf.ViTForImageClassification, {"num_labels": 5})]


def check(model, batch, folder, **options):
    loaded = load_pretrained(reference.saved(model, folder, **options))
    gaps = largest_gaps(loaded, batch, reference.outputs(model, batch))
    assert max(gaps.values()) < TOLERANCE, gaps
    return loaded


@pytest.mark.parametrize(("fields", "tokens"), BERTS)
@pytest.mark.parametrize(("kind", "more"), BERT_CLASSES)
def test_bert(kind, more, fields, tokens, tmp_path):
    model = reference.bert(kind, seed=tokens, **fields, **more)
    check(model, reference.text(model.config, tokens, tokens), tmp_path)


@pytest.mark.parametrize("fields", VITS)
@pytest.mark.parametrize(("kind", "more"), VIT_CLASSES)
def test_vit(kind, more, fields, tmp_path):
    model = reference.vit(kind, seed=len(fields), **fields, **more)
    check(model, reference.pictures(model.config), tmp_path)


def test_models_without_a_pooler(tmp_path):
    config = hf.BertConfig(**reference.BERT, attn_implementation="eager")
    model = reference.randomised(hf.BertModel(config, add_pooling_layer=False))
    loaded = check(model, reference.text(config), tmp_path / "bert")
    assert not loaded.model.config.pooler
    config = hf.ViTConfig(**reference.VIT, attn_implementation="eager")
    model = reference.randomised(hf.ViTModel(config, add_pooling_layer=False))
    assert not check(model, reference.pictures(config), tmp_path / "vit").model.config.pooler


def test_shards(tmp_path):
    model = reference.bert(hf.BertForMaskedLM)
    check(model, reference.text(model.config), tmp_path, max_shard_size=2000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2


def test_half_precision(tmp_path):
    model = reference.bert(hf.BertModel).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    check(model.float(), reference.text(model.config), tmp_path / "again")
    loaded = load_pretrained(tmp_path)
    again = load_pretrained(tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, loaded.params, again.params)


def test_a_cut_with_dense_boundaries(tmp_path):
    model = reference.bert(hf.BertForSequenceClassification, num_hidden_layers=6)
    batch = reference.text(model.config)
    expected = reference.outputs(model, batch)
    reference.saved(model, tmp_path)
    for stages in (2, 3, 6):
        loaded = load_pretrained(tmp_path, stages=stages)
        assert loaded.params["boundaries"] is not None
        assert max(largest_gaps(loaded, batch, expected).values()) < TOLERANCE


@pytest.mark.parametrize(
    ("make", "kind", "more"),
    [
        *((reference.bert, *entry) for entry in BERT_CLASSES),
        *((reference.vit, *entry) for entry in VIT_CLASSES),
    ],
)
def test_transformers_loads_what_we_write(make, kind, more, tmp_path):
    model = make(kind, **more)
    batch = (reference.text if make is reference.bert else reference.pictures)(model.config)
    dense = load_pretrained(reference.saved(model, tmp_path / "theirs"))
    loaded = partition(dense, "hnn", stages=2)
    save(tmp_path / "ours", loaded.model, loaded.params, labels=loaded.record.get("labels"))
    again, info = kind.from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation="eager"
    )
    assert not any(info.values()), info  # missing, unexpected, mismatched
    expected, found = (reference.outputs(m, batch) for m in (model, again.eval()))
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    before, after = (load_file(tmp_path / at / "model.safetensors") for at in ("theirs", "ours"))
    if more.get("tie") is False:
        # transformers 4 saves this bias once, transformers 5 twice, of which it uses one; the equal
        # logits above are what matters.
        for name in ("cls.predictions.bias", "cls.predictions.decoder.bias"):
            before.pop(name, None)
            after.pop(name)
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


@pytest.mark.parametrize("kind", ["wordpiece", "bytes"])
def test_transformers_makes_the_ids_that_we_do(kind, tmp_path):
    """Of a tokenizer of a run's, which is not a BERT's."""
    texts = ["The Cat sat on the mat.", "the mat is FLAT", "na\u00efve cats, sat?"]
    vocabulary = train_tokenizer(kind, texts, 300)
    model = reference.bert(hf.BertModel, vocab_size=vocabulary.size)
    loaded = load_pretrained(reference.saved(model, tmp_path / "theirs"))
    save(tmp_path / "ours", loaded.model, loaded.params, tokenizer=vocabulary.text,
         preprocessing={"max_tokens": 8})  # fmt: skip
    theirs = hf.AutoTokenizer.from_pretrained(tmp_path / "ours")
    for text in texts:
        inner = vocabulary.encode([text])[0]
        assert theirs(text).input_ids == [vocabulary.start, *inner, vocabulary.separator]
        cut = theirs(text, truncation=True).input_ids
        assert cut == [vocabulary.start, *inner[:6], vocabulary.separator]
    assert theirs.pad_token_id == vocabulary.pad
    pair = theirs(texts[0], texts[1])
    assert pair.input_ids.count(vocabulary.separator) == 2
    assert set(pair.token_type_ids) == {0, 1}
