"""ViT-style classifiers (Dosovitskiy et al. 2021, arXiv 2010.11929), to be cut over devices."""

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from snapjax.boundary import Boundary
from zoo.transformer import Dropout, PreNormBlock, apply_module, check_config, dense, layer_norm

Batch = dict[str, jax.Array]


@dataclass(frozen=True)
class ViTConfig:
    """A ViT of `layers` pre-norm blocks on square images, mean-pooled into a linear classifier.

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
    """

    task: ClassVar[str] = "classify"

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

    def __post_init__(self) -> None:
        sizes = ("image_size", "patch_size", "channels", "width", "layers", "heads", "mlp_width")
        check_config(self, (*sizes, "classes"))
        if self.image_size % self.patch_size:
            raise ValueError(
                f"{self.name}: patch_size={self.patch_size} must divide "
                f"image_size={self.image_size}"
            )

    @property
    def tokens(self) -> int:
        return (self.image_size // self.patch_size) ** 2


class Embed(nn.Module):
    """Patches, flattened and projected, plus a learned position each."""

    config: ViTConfig

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """images: (batch, size, size, channels) -> (batch, tokens, width)."""
        size, side = self.config.patch_size, self.config.image_size // self.config.patch_size
        patches = images.reshape(-1, side, size, side, size, self.config.channels)
        patches = patches.swapaxes(2, 3).reshape(images.shape[0], side * side, -1)
        x = dense(patches, self.config.width, "patch")
        # Of the size of what it is added to: from the usual 0.02, lost beside unit activations, a
        # mean-pooled model learns where its patches are only after hundreds of steps.
        position = self.param(
            "position", nn.initializers.normal(0.5), (1, self.config.tokens, self.config.width)
        )
        return Dropout(self.config.dropout)(x + position.astype(x.dtype))


class Head(nn.Module):
    """Norm, mean over tokens, linear."""

    config: ViTConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x: (batch, tokens, width) -> (batch, classes)."""
        x = layer_norm(x, self.config.layer_norm_eps, "norm")
        return dense(x.mean(1), self.config.classes, "classifier")


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
) -> jax.Array:
    return apply_module(Head(config), params, x)  # no dropout before the classifier


def check_batch(config: ViTConfig, batch: Batch) -> None:
    expected = (config.image_size, config.image_size, config.channels)
    shape = batch["image"].shape if "image" in batch else None
    if shape is None or len(shape) != 4 or shape[1:] != expected:
        raise ValueError(
            f"{config.name}: batch['image'] needs shape (batch, {', '.join(map(str, expected))}), "
            f"got {shape}"
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


PRESETS = {preset.__name__: preset for preset in (vit_nano_patch2_8, vit_tiny_patch4_28)}
