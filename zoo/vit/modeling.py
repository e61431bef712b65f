"""ViT-style classifiers (Dosovitskiy et al. 2021, arXiv 2010.11929), to be cut over devices."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from snapjax.boundary import Boundary
from zoo.transformer import PreNormBlock

Batch = dict[str, jax.Array]


@dataclass(frozen=True)
class ViTConfig:
    """A ViT of `layers` pre-norm blocks on square images, mean-pooled into a linear classifier."""

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
    layer_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"{self.name}: patch_size={self.patch_size} must divide "
                f"image_size={self.image_size}"
            )
        if self.width % self.heads:
            raise ValueError(f"{self.name}: heads={self.heads} must divide width={self.width}")

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
        x = nn.Dense(self.config.width, name="patch", dtype=images.dtype)(patches)
        position = self.param(
            "position", nn.initializers.normal(0.02), (1, self.config.tokens, self.config.width)
        )
        return x + position.astype(x.dtype)


class Head(nn.Module):
    """Norm, mean over tokens, linear."""

    config: ViTConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x: (batch, tokens, width) -> (batch, classes)."""
        x = nn.LayerNorm(self.config.layer_norm_eps, dtype=x.dtype, name="norm")(x)
        return nn.Dense(self.config.classes, dtype=x.dtype, name="classifier")(x.mean(1))


def init_ends(config: ViTConfig, key: jax.Array) -> tuple[dict, dict]:
    key_embed, key_head = jax.random.split(key)
    images = jnp.zeros((1, config.image_size, config.image_size, config.channels))
    embed = Embed(config).init(key_embed, images)["params"]
    head = Head(config).init(key_head, jnp.zeros((1, config.tokens, config.width)))["params"]
    return embed, head


def embed(config: ViTConfig, params: dict, batch: Batch) -> jax.Array:
    return Embed(config).apply({"params": params}, batch["image"])


def block(config: ViTConfig) -> PreNormBlock:
    return PreNormBlock(config.heads, config.mlp_width, config.layer_norm_eps)


def head(config: ViTConfig, params: dict, x: jax.Array, batch: Batch) -> jax.Array:
    return Head(config).apply({"params": params}, x)


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


PRESETS = {preset.__name__: preset for preset in (vit_nano_patch2_8,)}
