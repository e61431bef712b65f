"""ViT weights in the layout of Hugging Face transformers: ViTModel, ViTForImageClassification."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from snapjax.boundary import Boundary
from zoo.models.config_map import Fields, classes
from zoo.models.vit.modeling import ViTConfig
from zoo.models.weight_map import Change, Entry, linear, norm

PREFIX = "vit."  # of the encoder's tensors in models with a head
ARCHITECTURES = {"encode": "ViTModel", "classify": "ViTForImageClassification"}
BUFFERS: dict[str, int] = {}
# transformers 5 has other names in memory and saves these ones unless told otherwise.
_LAYER = r"^layers\.(\d+)\."
RENAMES = (
    (re.compile(_LAYER + r"attention\.q_proj"), r"encoder.layer.\1.attention.attention.query"),
    (re.compile(_LAYER + r"attention\.k_proj"), r"encoder.layer.\1.attention.attention.key"),
    (re.compile(_LAYER + r"attention\.v_proj"), r"encoder.layer.\1.attention.attention.value"),
    (re.compile(_LAYER + r"attention\.o_proj"), r"encoder.layer.\1.attention.output.dense"),
    (re.compile(_LAYER + r"mlp\.fc1"), r"encoder.layer.\1.intermediate.dense"),
    (re.compile(_LAYER + r"mlp\.fc2"), r"encoder.layer.\1.output.dense"),
    (re.compile(_LAYER + r"layernorm"), r"encoder.layer.\1.layernorm"),
)
FIELDS = Fields(
    sizes={
        "image_size": ("image_size", 224),
        "patch_size": ("patch_size", 16),
        "num_channels": ("channels", 3),
        "hidden_size": ("width", 768),
        "num_hidden_layers": ("layers", 12),
        "num_attention_heads": ("heads", 12),
        "intermediate_size": ("mlp_width", 3072),
        "layer_norm_eps": ("layer_norm_eps", 1e-12),
    },
    fixed={"qkv_bias": (True,), "pooler_act": ("tanh",)},
    # The stride is of the decoder of masked image modelling.
    others=frozenset({"encoder_stride", "pooler_output_size"}),
)


def task_of(names: Collection[str]) -> str:
    """Which head the tensors are of, where the config does not say."""
    return "classify" if "classifier.weight" in names else "encode"


def config(
    theirs: Mapping[str, Any], names: Collection[str], task: str
) -> tuple[ViTConfig | None, list[str]]:
    """Our config of a `config.json` and the tensors' names, or lines that say why there is none."""
    values, problems = FIELDS.read(theirs)
    size = theirs.get("pooler_output_size")
    if size not in (None, values["width"]):
        problems.append(f"config field pooler_output_size={size} must equal hidden_size")
    if problems:
        return None, problems
    values["classes"] = classes(theirs)
    values["pooler"] = task == "encode" and "pooler.dense.weight" in names
    boundary = Boundary(values["width"], code="float32")
    return ViTConfig("vit", task=task, pooling="class", boundary=boundary, **values), []


def fields(config: ViTConfig) -> dict[str, Any]:
    """The family's part of a `config.json`.

    Raises:
      ValueError: the model is mean-pooled, which transformers' ViT has no class for.
    """
    if config.pooling != "class":
        raise ValueError(
            f"{config.name}: pooling={config.pooling!r} has no class in transformers, whose ViT "
            "has a class token; only pooling='class' can be written"
        )
    return {
        **FIELDS.write(config),
        "hidden_act": "gelu",
        "qkv_bias": True,
        "attention_probs_dropout_prob": config.dropout,
        "hidden_dropout_prob": config.dropout,
        "pooler_act": "tanh",
        "pooler_output_size": config.width,
    }


def finish(config: ViTConfig, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Further fields of an exported config: none."""
    return {}


def table_for(
    theirs: Mapping[str, Any], source: Mapping[str, np.ndarray], config: ViTConfig
) -> tuple[list[str], list[Entry]]:
    """The table of a checkpoint, and lines for what contradicts itself in it: here nothing can."""
    return [], table(config)


def table(config: ViTConfig) -> list[Entry]:
    """Which tensor is which parameter; names without the prefix."""
    layer, patch = "encoder.layer.{}", "embeddings.patch_embeddings.projection"
    size, channels = config.patch_size, config.channels
    # A convolution whose stride is its size is a dense layer on patches: (outputs, channels, rows,
    # columns) there, (rows x columns x channels, outputs) here.
    patches = Change(
        lambda x: x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),
        lambda x: x.reshape(size, size, channels, -1).transpose(3, 2, 0, 1),
    )
    heads = {
        "encode": linear("head.pooler", "pooler.dense") if config.pooler else [],
        "classify": linear("head.classifier", "classifier"),
    }
    return [
        Entry("embed.class", "embeddings.cls_token"),
        Entry("embed.position", "embeddings.position_embeddings"),
        Entry("embed.patch.kernel", f"{patch}.weight", patches),
        Entry("embed.patch.bias", f"{patch}.bias"),
        *norm("blocks.norm_attention", f"{layer}.layernorm_before"),
        *linear("blocks.attention.query", f"{layer}.attention.attention.query"),
        *linear("blocks.attention.key", f"{layer}.attention.attention.key"),
        *linear("blocks.attention.value", f"{layer}.attention.attention.value"),
        *linear("blocks.attention.out", f"{layer}.attention.output.dense"),
        *norm("blocks.norm_mlp", f"{layer}.layernorm_after"),
        *linear("blocks.mlp.up", f"{layer}.intermediate.dense"),
        *linear("blocks.mlp.down", f"{layer}.output.dense"),
        *norm("head.norm", "layernorm"),
        *heads[config.task],
    ]
