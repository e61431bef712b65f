"""ViT-style classifiers (Dosovitskiy et al. 2021, arXiv 2010.11929), to be cut over devices."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from snapjax.boundary import Boundary
from snapjax.errors import unknown_name
from zoo.models.layers import (
    Dropout,
    Encoded,
    PreNormBlock,
    apply_module,
    check_config,
    dense,
    layer_norm,
    pool,
)

Batch = dict[str, jax.Array]
TASKS = ("classify", "encode")
POOLINGS = ("mean", "class")


@dataclass(frozen=True)
class ViTConfig:
    """A ViT of `layers` pre-norm blocks on square images.

    Attributes:
      name: of the preset.
      image_size, patch_size: in pixels; patches are square and do not overlap.
      channels: of the images.
      width, layers, heads, mlp_width: of the encoder.
      classes: of the classifier.
      boundary, stages: what lies between how many slices.
      dropout: rate, after the embedding, on attention weights, and after attention and MLP.
      precision: of the activations after the embedding, "float32" or "bfloat16".
      layer_norm_eps: added to the variance.
      task: the head: "classify" is linear on the pooled image, "encode" gives the pooled image and
        the tokens' states.
      pooling: "mean" of the patches, or the state of a "class" token before them.
      pooler: of "encode" with a class token: a dense layer and tanh on its state, too.
    """

    name: str
    image_size: int
    patch_size: int
    channels: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    classes: int
    boundary: Boundary
    stages: int = 1
    dropout: float = 0.0
    precision: str = "float32"
    layer_norm_eps: float = 1e-6
    task: str = "classify"
    pooling: str = "mean"
    pooler: bool = False

    def __post_init__(self) -> None:
        sizes = ("image_size", "patch_size", "channels", "width", "layers", "heads", "mlp_width")
        check_config(self, (*sizes, "classes"))
        if self.image_size % self.patch_size:
            raise ValueError(
                f"{self.name}: patch_size={self.patch_size} must divide "
                f"image_size={self.image_size}"
            )
        if self.task not in TASKS:
            raise unknown_name("task", self.task, TASKS)
        if self.pooling not in POOLINGS:
            raise unknown_name("pooling", self.pooling, POOLINGS)
        if self.pooler and (self.task, self.pooling) != ("encode", "class"):
            raise ValueError(f"{self.name}: pooler=True needs task='encode' and pooling='class'")

    @property
    def tokens(self) -> int:
        """Of the encoder: the patches, and the class token."""
        return (self.image_size // self.patch_size) ** 2 + (self.pooling == "class")


class Embed(nn.Module):
    """Patches, flattened and projected, behind a class token, plus a learned position each."""

    config: ViTConfig

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """images: (batch, size, size, channels) -> (batch, tokens, width)."""
        size, side = self.config.patch_size, self.config.image_size // self.config.patch_size
        patches = images.reshape(-1, side, size, side, size, self.config.channels)
        patches = patches.swapaxes(2, 3).reshape(images.shape[0], side * side, -1)
        x = dense(patches, self.config.width, "patch")
        if self.config.pooling == "class":
            token = self.param("class", nn.initializers.zeros, (1, 1, self.config.width))
            token = jnp.broadcast_to(token.astype(x.dtype), (len(x), 1, self.config.width))
            x = jnp.concatenate([token, x], axis=1)
        # Of the size of what it is added to: from the usual 0.02, lost beside unit activations, a
        # mean-pooled model learns where its patches are only after hundreds of steps.
        position = self.param(
            "position", nn.initializers.normal(0.5), (1, self.config.tokens, self.config.width)
        )
        return Dropout(self.config.dropout)(x + position.astype(x.dtype))


class Head(nn.Module):
    """Norm and pooling, then a linear classifier or what "encode" gives."""

    config: ViTConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array | Encoded:
        """x: (batch, tokens, width) -> (batch, classes), or `Encoded`."""
        config = self.config
        x = layer_norm(x, config.layer_norm_eps, "norm")
        if config.task == "encode":
            pooling = "mean" if config.pooling == "mean" else "first"
            pooled = jnp.tanh(dense(x[:, 0], config.width, "pooler")) if config.pooler else None
            return Encoded(pool(x, None, pooling), x, pooled)
        pooled = x.mean(1) if config.pooling == "mean" else x[:, 0]
        return dense(pooled, config.classes, "classifier")


def init_ends(config: ViTConfig, key: jax.Array) -> tuple[dict, dict]:
    key_embed, key_head = jax.random.split(key)
    images = jnp.zeros((1, config.image_size, config.image_size, config.channels))
    embed = Embed(config).init(key_embed, images)["params"]
    head = Head(config).init(key_head, jnp.zeros((1, config.tokens, config.width)))["params"]
    return embed, head


def embed(config: ViTConfig, params: dict, batch: Batch, key: jax.Array | None = None) -> jax.Array:
    return apply_module(Embed(config), params, batch["image"], key=key)


def block(config: ViTConfig) -> PreNormBlock:
    return PreNormBlock(config.heads, config.mlp_width, config.layer_norm_eps, config.dropout)


def head(
    config: ViTConfig, params: dict, x: jax.Array, batch: Batch, key: jax.Array | None = None
) -> jax.Array | Encoded:
    return apply_module(Head(config), params, x)  # no dropout before the classifier


def check_batch(config: ViTConfig, batch: Batch) -> None:
    expected = (config.image_size, config.image_size, config.channels)
    shape = batch["image"].shape if "image" in batch else None
    if shape is None or len(shape) != 4 or shape[1:] != expected:
        sized = shape is not None and len(shape) == 4 and shape[3] == config.channels
        raise ValueError(
            f"{config.name}: batch['image'] needs shape (batch, {', '.join(map(str, expected))}), "
            f"got {shape}" + f"; set data.image_size={config.image_size} to resize all" * sized
        )
    if not jnp.issubdtype(batch["image"].dtype, jnp.floating):
        raise ValueError(
            f"{config.name}: batch['image'] has dtype {batch['image'].dtype}, needs a "
            "floating-point one; normalise the images first"
        )


def vit_nano_patch2_8() -> ViTConfig:
    """For 8x8 grey images such as scikit-learn's digits: 16 tokens, 0.14 M parameters."""
    return ViTConfig(
        name="vit_nano_patch2_8",
        image_size=8,
        patch_size=2,
        channels=1,
        width=64,
        layers=4,
        heads=4,
        mlp_width=128,
        classes=10,
        boundary=Boundary(64, code="float32"),
    )


def vit_tiny_patch4_28() -> ViTConfig:
    """For 28x28 grey images such as Fashion-MNIST's: 49 tokens, 1.0 M parameters."""
    return ViTConfig(
        name="vit_tiny_patch4_28",
        image_size=28,
        patch_size=4,
        channels=1,
        width=144,
        layers=4,
        heads=4,
        mlp_width=576,
        classes=10,
        boundary=Boundary(144, code="float32"),
    )


def _published(name: str, patch_size: int, width: int, layers: int, heads: int) -> ViTConfig:
    """Of 224x224 colour images and ImageNet's 1,000 classes, with a class token."""
    return ViTConfig(
        name=name,
        image_size=224,
        patch_size=patch_size,
        channels=3,
        width=width,
        layers=layers,
        heads=heads,
        mlp_width=4 * width,
        classes=1000,
        boundary=Boundary(width, code="float32"),
        pooling="class",
    )


def vit_tiny_patch16_224() -> ViTConfig:
    """ViT-Ti/16 of Touvron et al. 2021 (DeiT, arXiv 2012.12877): 5.7 M parameters."""
    return _published("vit_tiny_patch16_224", 16, 192, 12, 3)


def vit_small_patch16_224() -> ViTConfig:
    """ViT-S/16 of Touvron et al. 2021: 22 M parameters."""
    return _published("vit_small_patch16_224", 16, 384, 12, 6)


def vit_base_patch16_224() -> ViTConfig:
    """ViT-B/16 of Dosovitskiy et al. 2021: 87 M parameters."""
    return _published("vit_base_patch16_224", 16, 768, 12, 12)


def vit_base_patch32_224() -> ViTConfig:
    """ViT-B/32 of Dosovitskiy et al. 2021: 88 M parameters."""
    return _published("vit_base_patch32_224", 32, 768, 12, 12)


def vit_large_patch16_224() -> ViTConfig:
    """ViT-L/16 of Dosovitskiy et al. 2021: 304 M parameters."""
    return _published("vit_large_patch16_224", 16, 1024, 24, 16)


PRESETS = {
    preset.__name__: preset
    for preset in (
        *(vit_nano_patch2_8, vit_tiny_patch4_28, vit_tiny_patch16_224, vit_small_patch16_224),
        *(vit_base_patch16_224, vit_base_patch32_224, vit_large_patch16_224),
    )
}
