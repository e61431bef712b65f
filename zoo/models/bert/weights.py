"""BERT weights in the layout of Hugging Face transformers: BertModel, BertForMaskedLM,
BertForSequenceClassification, and sentence-transformers' folders of a BertModel."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from snapjax.boundary import Boundary
from zoo.models.bert.modeling import BertConfig
from zoo.models.config_map import Fields, classes
from zoo.models.weight_map import MATRIX, SAME, Entry, linear, norm

PREFIX = "bert."  # of the encoder's tensors in models with a head
ARCHITECTURES = {
    "encode": "BertModel",
    "mlm": "BertForMaskedLM",
    "classify": "BertForSequenceClassification",
}
# What older versions saved and the model computes -> how much it rises from one to the next.
BUFFERS = {"embeddings.position_ids": 1, "embeddings.token_type_ids": 0}
# The TensorFlow names, which files converted from it keep.
RENAMES = (
    (re.compile(r"LayerNorm\.gamma$"), "LayerNorm.weight"),
    (re.compile(r"LayerNorm\.beta$"), "LayerNorm.bias"),
)
WORDS = "embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder"
FIELDS = Fields(
    sizes={
        "vocab_size": ("vocabulary", 30_522),
        "max_position_embeddings": ("positions", 512),
        "hidden_size": ("width", 768),
        "num_hidden_layers": ("layers", 12),
        "num_attention_heads": ("heads", 12),
        "intermediate_size": ("mlp_width", 3072),
        "type_vocab_size": ("types", 2),
        "layer_norm_eps": ("layer_norm_eps", 1e-12),
    },
    fixed={
        "position_embedding_type": ("absolute",),
        # What the original TensorFlow configs say, and some still do.
        "directionality": ("bidi",),
        "pooler_type": ("first_token_transform",),
    },
    # Dropout is a choice of whoever trains next; whether the decoder is tied, the tensors tell.
    others=frozenset(
        {
            *("classifier_dropout", "tie_word_embeddings", "pooler_fc_size"),
            *("pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head"),
        }
    ),
)


def task_of(names: Collection[str]) -> str:
    """Which head the tensors are of, where the config does not say."""
    if any(name.startswith("cls.predictions.") for name in names):
        return "mlm"
    return "classify" if "classifier.weight" in names else "encode"


def config(
    theirs: Mapping[str, Any], names: Collection[str], task: str
) -> tuple[BertConfig | None, list[str]]:
    """Our config of a `config.json` and the tensors' names, or lines that say why there is none."""
    values, problems = FIELDS.read(theirs)
    tied = theirs.get("tie_word_embeddings", True)
    if not isinstance(tied, bool):
        problems.append(f"config field tie_word_embeddings={tied!r} must be true or false")
    if problems:
        return None, problems
    if task == "classify":
        values["classes"] = classes(theirs)
    if task == "encode":
        values["pooler"] = "pooler.dense.weight" in names
    boundary = Boundary(values["width"], code="float32")
    return BertConfig("bert", task=task, boundary=boundary, **values), []


def fields(config: BertConfig) -> dict[str, Any]:
    """The family's part of a `config.json`."""
    return {
        **FIELDS.write(config),
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "attention_probs_dropout_prob": config.dropout,
        "hidden_dropout_prob": config.dropout,
        "pad_token_id": 0,
    }


def finish(config: BertConfig, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Makes of exported tensors what transformers would save; further fields of the config.

    A masked-token decoder that equals the word table is written as the tied one that it was. Of
    another one the bias is written twice: transformers 4 reads one, transformers 5 the other.
    """
    if config.task != "mlm":
        return {}
    tensors["cls.predictions.bias"] = tensors[f"{DECODER}.bias"]
    tied = np.array_equal(tensors[f"{DECODER}.weight"], tensors[WORDS])
    if tied:
        del tensors[f"{DECODER}.weight"], tensors[f"{DECODER}.bias"]
    return {"tie_word_embeddings": tied}


def table_for(
    theirs: Mapping[str, Any], source: Mapping[str, np.ndarray], config: BertConfig
) -> tuple[list[str], list[Entry]]:
    """The table of a checkpoint, and lines for what contradicts itself in it.

    A decoder that is tied to the word table is mostly left out of the file; a file that says it is
    tied and holds another one would compute other logits in transformers than it seems to hold.
    """
    if config.task != "mlm":
        return [], table(config)
    tied = theirs.get("tie_word_embeddings", True)
    pairs = ((f"{DECODER}.weight", WORDS), (f"{DECODER}.bias", "cls.predictions.bias"))
    problems = [
        f"tensor {one} differs from {other}, but tie_word_embeddings says that they are one"
        for one, other in pairs
        if tied and one in source and other in source
        if not np.array_equal(source[one], source[other])
    ]
    return problems, table(config, tied)


def table(config: BertConfig, tied: bool = False) -> list[Entry]:
    """Which tensor is which parameter; names without the prefix.

    Args:
      config: of the model.
      tied: a masked-token head's decoder may be absent: it is the word table.
    """
    layer = "encoder.layer.{}"
    pooler = linear("head.pooler", "pooler.dense")
    heads = {
        "encode": pooler if config.pooler else [],
        "classify": [*pooler, *linear("head.classifier", "classifier")],
        "mlm": [
            *linear("head.transform", "cls.predictions.transform.dense"),
            *norm("head.norm", "cls.predictions.transform.LayerNorm"),
            Entry("head.decoder.kernel", f"{DECODER}.weight", MATRIX, (WORDS,) if tied else ()),
            Entry("head.decoder.bias", f"{DECODER}.bias", SAME, ("cls.predictions.bias",)),
        ],
    }
    return [
        Entry("embed.token.embedding", WORDS),
        Entry("embed.position", "embeddings.position_embeddings.weight"),
        Entry("embed.type.embedding", "embeddings.token_type_embeddings.weight"),
        *norm("embed.norm", "embeddings.LayerNorm"),
        *linear("blocks.attention.query", f"{layer}.attention.self.query"),
        *linear("blocks.attention.key", f"{layer}.attention.self.key"),
        *linear("blocks.attention.value", f"{layer}.attention.self.value"),
        *linear("blocks.attention.out", f"{layer}.attention.output.dense"),
        *norm("blocks.norm_attention", f"{layer}.attention.output.LayerNorm"),
        *linear("blocks.mlp.up", f"{layer}.intermediate.dense"),
        *linear("blocks.mlp.down", f"{layer}.output.dense"),
        *norm("blocks.norm_mlp", f"{layer}.output.LayerNorm"),
        *heads[config.task],
    ]
