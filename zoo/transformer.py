"""The encoder block that both families share, and how a stack of them is made and run.

Linen modules inside, pure functions outside: a stack's parameters are one tree with a leading layer
axis, made by `vmap` over init keys and run by `lax.scan`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
    """x Phi(x), the exact GELU (Hendrycks and Gimpel 2016), elementwise.

    The derivative is written out, Phi(x) + x phi(x), because jax 0.12 fails to differentiate erf
    inside a `jax.shard_map`.
    """
    return jax.nn.gelu(x, approximate=False)


@gelu.defjvp
def _gelu_jvp(primals: tuple, tangents: tuple) -> tuple:
    (x,), (tangent,) = primals, tangents
    cumulative = (1 + jax.lax.erf(x * 0.5**0.5)) / 2
    density = jnp.exp(-(x**2) / 2) / (2 * jnp.pi) ** 0.5
    return gelu(x), (cumulative + x * density) * tangent


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017), softmax in float32."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """x: (batch, tokens, features); mask: bool (batch, tokens), true where a token is real."""
        features = x.shape[-1]
        split = lambda y: y.reshape(*y.shape[:-1], self.heads, features // self.heads)
        query = split(nn.Dense(features, name="query", dtype=x.dtype)(x))
        key = split(nn.Dense(features, name="key", dtype=x.dtype)(x))
        value = split(nn.Dense(features, name="value", dtype=x.dtype)(x))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key).astype(jnp.float32)
        scores = scores * (features // self.heads) ** -0.5
        if mask is not None:
            scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores).astype(x.dtype)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        return nn.Dense(features, name="out", dtype=x.dtype)(mixed.reshape(x.shape))


class Mlp(nn.Module):
    """Two layers with the exact (erf) GELU: tanh, the JAX default, is 3e-3 off on BERT."""

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = nn.Dense(self.hidden, name="up", dtype=x.dtype)(x)
        h = gelu(h)
        return nn.Dense(x.shape[-1], name="down", dtype=x.dtype)(h)


class PreNormBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): the ViT's block (Dosovitskiy et al. 2021)."""

    heads: int
    hidden: int
    layer_norm_eps: float

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        norm = lambda name: nn.LayerNorm(self.layer_norm_eps, dtype=x.dtype, name=name)
        x = x + Attention(self.heads, name="attention")(norm("norm_attention")(x), mask)
        return x + Mlp(self.hidden, name="mlp")(norm("norm_mlp")(x))


def init_stack(block: nn.Module, key: jax.Array, layers: int, features: int) -> dict:
    """Parameters of `layers` blocks, every leaf with a leading layer axis."""
    example = jnp.zeros((1, 1, features), jnp.float32)
    init = lambda key: block.init(key, example)["params"]
    return jax.vmap(init)(jax.random.split(key, layers))


def run_stack(
    block: nn.Module, params: dict, x: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """x: (batch, tokens, features) through the blocks stacked in `params`, in order."""

    def layer(x: jax.Array, layer_params: dict) -> tuple[jax.Array, None]:
        return block.apply({"params": layer_params}, x, mask), None

    return jax.lax.scan(layer, x, params)[0]


# Tensor parallelism over "model" for canonical (stacked) parameters: columns of the first matrix of
# each pair, rows of the second (Shoeybi et al. 2019, arXiv 1909.08053); XLA adds the collectives.
SHARDING_RULES = (
    (r"blocks/.*(query|key|value|up)/kernel", PartitionSpec(None, None, "model")),
    (r"blocks/.*(query|key|value|up)/bias", PartitionSpec(None, "model")),
    (r"blocks/.*(out|down)/kernel", PartitionSpec(None, "model", None)),
    (r"", PartitionSpec()),
)
