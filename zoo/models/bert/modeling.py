"""BERT-style encoders of text (Devlin et al. 2019, arXiv 1810.04805), to be cut over devices.

The masked-language-model head has a decoder of its own, not tied to the token table as in the
paper: the table lives on the first stage and the head on the last, and a tied one's gradient (and
every update of it) would have to cross all the stages between.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from snapjax.boundary import Boundary
from snapjax.errors import unknown_name
from zoo.models.layers import (
    POOLINGS,
    Dropout,
    Encoded,
    PostNormBlock,
    apply_module,
    check_config,
    check_numbers,
    dense,
    gelu,
    layer_norm,
    pool,
    row_number,
)

Batch = dict[str, jax.Array]
TASKS = ("mlm", "classify", "encode")
RENAMED = {"token": "input_ids", "type": "token_type_ids", "mask": "attention_mask"}
"""Keys of a batch in version 0.1.0, and their names now."""

INIT = nn.initializers.truncated_normal(0.02)  # of all tables and matrices, as in the paper's code


@dataclass(frozen=True)
class BertConfig:
    """A BERT of `layers` post-norm blocks.

    Attributes:
      name: of the preset.
      vocabulary: number of tokens.
      positions: longest sequence.
      width, layers, heads, mlp_width: of the encoder.
      boundary, stages: what lies between how many slices.
      task: the head: "mlm" predicts masked tokens, "classify" whole sequences (or pairs), "encode"
        gives the sequence's embedding and the tokens' states.
      classes: of "classify".
      types: rows of the token type table, 2 for pairs.
      dropout: rate, after the embedding, on attention weights, after attention and MLP, and before
        the classifier.
      precision: of the activations after the embedding, "float32" or "bfloat16".
      layer_norm_eps: added to the variance.
      pooling: of "encode": "mean" of the real tokens' states, or the "first" token's.
      normalise: of "encode": the embedding has length 1.
      pooler: of "encode": the dense layer on the first token that BERT was pretrained with, too;
        "classify" always has it.
    """

    name: str
    vocabulary: int
    positions: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    boundary: Boundary
    stages: int = 1
    task: str = "mlm"
    classes: int = 2
    types: int = 2
    dropout: float = 0.0
    precision: str = "float32"
    layer_norm_eps: float = 1e-12
    pooling: str = "mean"
    normalise: bool = False
    pooler: bool = False

    def __post_init__(self) -> None:
        sizes = ("vocabulary", "positions", "width", "layers", "heads", "mlp_width")
        check_config(self, (*sizes, "classes", "types"))
        if self.task not in TASKS:
            raise unknown_name("task", self.task, TASKS)
        if self.pooling not in POOLINGS:
            raise unknown_name("pooling", self.pooling, POOLINGS)


class Table(nn.Module):
    """Rows by their numbers; any number that is no row's gives NaN. `nn.Embed` does not promise it
    of negative ones, and of none where it has one row."""

    rows: int
    width: int

    @nn.compact
    def __call__(self, number: jax.Array) -> jax.Array:
        """number: int of any shape -> (..., width)."""
        table = self.param("embedding", INIT, (self.rows, self.width))
        return jnp.take(table, row_number(number, self.rows), axis=0)


class Embed(nn.Module):
    """Token, position and type tables, summed and normalised."""

    config: BertConfig

    @nn.compact
    def __call__(self, token: jax.Array, kind: jax.Array) -> jax.Array:
        """token, kind: (batch, tokens) int -> (batch, tokens, width); a bad id becomes NaN."""
        config = self.config
        table = lambda rows, name: Table(rows, config.width, name=name)
        position = self.param("position", INIT, (config.positions, config.width))
        x = table(config.vocabulary, "token")(token) + table(config.types, "type")(kind)
        x = x + position[None, : token.shape[1]]
        return Dropout(config.dropout)(layer_norm(x, config.layer_norm_eps, "norm"))


class MaskedHead(nn.Module):
    """Dense, GELU and norm, then a logit for each token of the vocabulary."""

    config: BertConfig

    @nn.compact
    def __call__(self, x: jax.Array, position: jax.Array) -> jax.Array:
        """x: (batch, tokens, width), position: (batch, predictions) int -> (batch, predictions,
        vocabulary)."""
        # Gathered first: the decoder is the largest matrix, and most tokens are not predicted.
        x = jnp.take_along_axis(x, row_number(position, x.shape[1])[..., None], axis=1)
        x = gelu(dense(x, self.config.width, "transform", INIT))
        x = layer_norm(x, self.config.layer_norm_eps, "norm")
        return dense(x, self.config.vocabulary, "decoder", INIT)


class ClassifyHead(nn.Module):
    """Pooled first token, linear."""

    config: BertConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x: (batch, tokens, width) -> (batch, classes)."""
        pooled = jnp.tanh(dense(x[:, 0], self.config.width, "pooler", INIT))
        pooled = Dropout(self.config.dropout)(pooled)
        return dense(pooled, self.config.classes, "classifier", INIT)


class EncodeHead(nn.Module):
    """An embedding of the sequence, beside the tokens' states."""

    config: BertConfig

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> Encoded:
        """x: (batch, tokens, width), mask: bool (batch, tokens), true where a token is real."""
        embedding = pool(x, mask, self.config.pooling, self.config.normalise)
        if not self.config.pooler:
            return Encoded(embedding, x, None)
        pooled = jnp.tanh(dense(x[:, 0], self.config.width, "pooler", INIT))
        return Encoded(embedding, x, pooled)


def init_ends(config: BertConfig, key: jax.Array) -> tuple[dict, dict]:
    key_embed, key_head = jax.random.split(key)
    token, x = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1, config.width))
    embed = Embed(config).init(key_embed, token, token)["params"]
    module, args = _head(config, {"position": token}, x)
    return embed, module.init(key_head, *args).get("params", {})


def embed(
    config: BertConfig, params: dict, batch: Batch, key: jax.Array | None = None
) -> jax.Array:
    token = jnp.asarray(batch["input_ids"])
    kind = batch.get("token_type_ids", jnp.zeros_like(token))
    return apply_module(Embed(config), params, token, kind, key=key)


def block(config: BertConfig) -> PostNormBlock:
    return PostNormBlock(
        config.heads, config.mlp_width, config.layer_norm_eps, config.dropout, INIT
    )


def head(
    config: BertConfig, params: dict, x: jax.Array, batch: Batch, key: jax.Array | None = None
) -> jax.Array | Encoded:
    module, args = _head(config, batch, x)
    return apply_module(module, params, *args, key=key)


def _head(config: BertConfig, batch: Batch, x: jax.Array) -> tuple[nn.Module, tuple]:
    """The task's module and its arguments."""
    if config.task == "mlm":
        return MaskedHead(config), (x, jnp.asarray(batch["position"]))
    if config.task == "encode":
        return EncodeHead(config), (x, batch.get("attention_mask"))
    return ClassifyHead(config), (x,)


def check_batch(config: BertConfig, batch: Mapping[str, Any]) -> None:
    for old, name in RENAMED.items():
        if old in batch:  # which nothing reads: without its mask a batch would give other results
            raise ValueError(f"{config.name}: batch[{old!r}] is now called {name!r}; rename it")
    needed = ("input_ids", "position") if config.task == "mlm" else ("input_ids",)
    for name in needed:
        if name not in batch:
            raise ValueError(
                f"{config.name}: the batch has {sorted(batch)}, task={config.task!r} needs {name!r}"
            )
    for name in (*needed, "attention_mask", "token_type_ids"):
        if name in batch and not hasattr(batch[name], "shape"):
            raise ValueError(
                f"{config.name}: batch[{name!r}] is a {type(batch[name]).__name__}, needs an array"
            )
    shape = batch["input_ids"].shape
    if len(shape) != 2 or not 1 <= shape[1] <= config.positions:
        raise ValueError(
            f"{config.name}: batch['input_ids'] has shape {shape}, needs (batch, tokens) of 1 to "
            f"positions={config.positions} tokens; cut the sequences or raise positions"
        )
    for name in ("attention_mask", "token_type_ids"):
        if name in batch and batch[name].shape != shape:
            raise ValueError(
                f"{config.name}: batch[{name!r}] has shape {batch[name].shape}, needs that of the "
                f"tokens, {shape}"
            )
    if "position" in needed:
        slots = batch["position"].shape
        if len(slots) != 2 or slots[0] != shape[0]:
            raise ValueError(
                f"{config.name}: batch['position'] has shape {slots}, needs (batch, predictions) "
                f"with the tokens' batch of {shape[0]}"
            )
    for name in ("input_ids", "position", "token_type_ids"):
        if name in batch and not jnp.issubdtype(batch[name].dtype, jnp.integer):
            raise ValueError(
                f"{config.name}: batch[{name!r}] has dtype {batch[name].dtype}, needs integers"
            )
    for name, rows in (
        ("input_ids", config.vocabulary), ("token_type_ids", config.types), ("position", shape[1])
    ):  # fmt: skip
        if name in batch:
            check_numbers(config.name, name, batch[name], rows)
    if "attention_mask" in batch and batch["attention_mask"].dtype != bool:
        raise ValueError(
            f"{config.name}: batch['attention_mask'] has dtype {batch['attention_mask'].dtype}, "
            "needs bool, true where a token is real"
        )


def _published(
    name: str, layers: int, width: int, heads: int, mlp_width: int, **fields: Any
) -> BertConfig:
    """Of the English uncased vocabulary of Devlin et al. 2019, sequences of up to 512 tokens."""
    return BertConfig(
        name=name,
        vocabulary=30_522,
        positions=512,
        width=width,
        layers=layers,
        heads=heads,
        mlp_width=mlp_width,
        boundary=Boundary(width, code="float32"),
        **fields,
    )


def bert_nano() -> BertConfig:
    """For tests and a first look: 0.5 M parameters with the masked-token head."""
    return BertConfig(
        name="bert_nano",
        vocabulary=2048,
        positions=128,
        width=64,
        layers=4,
        heads=4,
        mlp_width=256,
        boundary=Boundary(64, code="float32"),
    )


def bert_micro() -> BertConfig:
    """For training on a CPU: 2.6 M parameters with the masked-token head."""
    return BertConfig(
        name="bert_micro",
        vocabulary=4096,
        positions=128,
        width=160,
        layers=4,
        heads=5,
        mlp_width=640,
        boundary=Boundary(160, code="float32"),
    )


def bert_tiny() -> BertConfig:
    """BERT-Tiny of Turc et al. 2019 (arXiv 1908.08962): 4.4 M parameters."""
    return _published("bert_tiny", 2, 128, 2, 512)


def bert_mini() -> BertConfig:
    """BERT-Mini of Turc et al. 2019: 11.3 M parameters."""
    return _published("bert_mini", 4, 256, 4, 1024)


def bert_small() -> BertConfig:
    """BERT-Small of Turc et al. 2019: 29.1 M parameters."""
    return _published("bert_small", 4, 512, 8, 2048)


def bert_medium() -> BertConfig:
    """BERT-Medium of Turc et al. 2019: 41.7 M parameters."""
    return _published("bert_medium", 8, 512, 8, 2048)


def bert_base() -> BertConfig:
    """BERT-Base of Devlin et al. 2019: 110 M parameters."""
    return _published("bert_base", 12, 768, 12, 3072)


def bert_large() -> BertConfig:
    """BERT-Large of Devlin et al. 2019: 335 M parameters."""
    return _published("bert_large", 24, 1024, 16, 4096)


def minilm_l6() -> BertConfig:
    """all-MiniLM-L6-v2, sentence embeddings (Wang et al. 2020, arXiv 2002.10957; Reimers and
    Gurevych 2019, arXiv 1908.10084): 22.7 M parameters."""
    return _published("minilm_l6", 6, 384, 12, 1536, task="encode", normalise=True, pooler=True)


PRESETS = {
    preset.__name__: preset
    for preset in (
        *(bert_nano, bert_micro, bert_tiny, bert_mini, bert_small, bert_medium, bert_base),
        *(bert_large, minilm_l6),
    )
}
