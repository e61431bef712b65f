"""The encoder blocks that the families share, and how a stack of them is made and run.

Linen modules inside, pure functions outside: a stack's parameters are one tree with a leading layer
axis, made by `vmap` over init keys and run by `lax.scan`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from snapjax.errors import unknown_name
from zoo.config.specs import PRECISIONS

Initializer = Callable[..., jax.Array]
LECUN = nn.initializers.lecun_normal()  # variance 1 / inputs, the default of nn.Dense

# What activations are computed in; parameters are always float32, the optimiser's master weights.

POOLINGS = ("mean", "first")


class Encoded(NamedTuple):
    """What a model of task "encode" gives.

    Attributes:
      embedding: (batch, width) float32, of the whole sample.
      tokens: (batch, tokens, width), the last states; padding holds values that mean nothing.
      pooled: (batch, width), of the pooler; None in a model without.
    """

    embedding: jax.Array
    tokens: jax.Array
    pooled: jax.Array | None


def output(result: Any) -> jax.Array:
    """What counts of a head's result: the embedding of an `Encoded`, or logits as they are."""
    return result.embedding if isinstance(result, Encoded) else result


def pool(
    x: jax.Array, mask: jax.Array | None, pooling: str = "mean", normalise: bool = False
) -> jax.Array:
    """One float32 vector a sample, (batch, features), out of its tokens.

    Args:
      x: (batch, tokens, features).
      mask: bool (batch, tokens), true where a token is real; None when all are.
      pooling: "mean" of the real tokens, or the "first" token.
      normalise: divide by the length. A sample of padding alone is 0, not NaN.
    """
    x = x.astype(jnp.float32)
    if pooling == "first":
        pooled = x[:, 0]
    elif mask is None:
        pooled = x.mean(1)
    else:
        real = mask.astype(jnp.float32)
        pooled = jnp.einsum("btd,bt->bd", x, real) / jnp.maximum(real.sum(1), 1)[:, None]
    if not normalise:
        return pooled
    # The maximum inside of the root: the derivative of a root at 0 is infinite.
    square = jnp.maximum((pooled**2).sum(-1, keepdims=True), 1e-24)
    return pooled * jax.lax.rsqrt(square)


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


def layer_norm(x: jax.Array, eps: float, name: str) -> jax.Array:
    """LayerNorm over the features, computed in float32; call it inside a compact module.

    The variance is that of the centred values: E[x^2] - E[x]^2 cancels on the few features of large
    mean that trained BERTs have.
    """
    norm = nn.LayerNorm(eps, dtype=jnp.float32, use_fast_variance=False, name=name)
    return norm(x.astype(jnp.float32)).astype(x.dtype)


def dense(x: jax.Array, features: int, name: str, kernel_init: Initializer = LECUN) -> jax.Array:
    """x W + b over the last axis, in x's dtype; call it inside a compact module.

    The tokens of all samples are one axis of the matmul: XLA:CPU contracts a kernel's gradient over
    two axes by copying a transpose first, which takes 12 to 21 % of a training step.
    """
    layer = nn.Dense(features, name=name, dtype=x.dtype, kernel_init=kernel_init)
    return layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], features)


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) whenever `apply` is given a "dropout" key."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dropout(self.rate, deterministic=not self.has_rng("dropout"))(x)


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017), softmax in float32."""

    heads: int
    dropout: float = 0.0
    kernel_init: Initializer = LECUN

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """x: (batch, tokens, features); mask: bool (batch, tokens), true where a token is real."""
        features = x.shape[-1]
        layer = lambda y, name: dense(y, features, name, self.kernel_init)
        split = lambda y: y.reshape(*y.shape[:-1], self.heads, features // self.heads)
        query, key, value = (split(layer(x, name)) for name in ("query", "key", "value"))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        scores = scores * (features // self.heads) ** -0.5
        if mask is not None:
            # The lowest finite number, not -inf: a sample of padding alone must not become NaN.
            scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
        weights = Dropout(self.dropout)(jax.nn.softmax(scores).astype(x.dtype))
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        return layer(mixed.reshape(x.shape), "out")


class Mlp(nn.Module):
    """Two layers with the exact (erf) GELU: tanh, the JAX default, is 3e-3 off on BERT."""

    hidden: int
    kernel_init: Initializer = LECUN

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = gelu(dense(x, self.hidden, "up", self.kernel_init))
        return dense(hidden, x.shape[-1], "down", self.kernel_init)


class Block(nn.Module):
    """What both kinds of block have; everything but norms and softmax follows the input's dtype.

    Attributes:
      heads: of the attention; divides the width.
      hidden: width of the MLP's hidden layer.
      layer_norm_eps: added to the variance.
      dropout: rate, on attention weights and on the output of attention and MLP.
      kernel_init: of the matrices.
    """

    heads: int
    hidden: int
    layer_norm_eps: float
    dropout: float = 0.0
    kernel_init: Initializer = LECUN

    def attention(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """The attention and its dropout: (batch, tokens, width) -> the same."""
        y = Attention(self.heads, self.dropout, self.kernel_init, name="attention")(x, mask)
        return Dropout(self.dropout)(y)

    def mlp(self, x: jax.Array) -> jax.Array:
        """The MLP and its dropout: (batch, tokens, width) -> the same."""
        return Dropout(self.dropout)(Mlp(self.hidden, self.kernel_init, name="mlp")(x))


class PreNormBlock(Block):
    """x + attention(norm(x)), then x + mlp(norm(x)): the ViT's block (Dosovitskiy et al. 2021)."""

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        x = x + self.attention(layer_norm(x, self.layer_norm_eps, "norm_attention"), mask)
        return x + self.mlp(layer_norm(x, self.layer_norm_eps, "norm_mlp"))


class PostNormBlock(Block):
    """norm(x + attention(x)), then norm(x + mlp(x)): BERT's block (Devlin et al. 2019)."""

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        x = layer_norm(x + self.attention(x, mask), self.layer_norm_eps, "norm_attention")
        return layer_norm(x + self.mlp(x), self.layer_norm_eps, "norm_mlp")


def apply_module(module: nn.Module, params: dict, *args: Any, key: jax.Array | None = None) -> Any:
    """A module's output; a key switches its dropout on."""
    return module.apply({"params": params}, *args, rngs=None if key is None else {"dropout": key})


def init_stack(block: nn.Module, key: jax.Array, layers: int, features: int) -> dict:
    """Parameters of `layers` blocks, every leaf with a leading layer axis."""
    example = jnp.zeros((1, 1, features), jnp.float32)
    init = lambda key: block.init(key, example)["params"]
    return jax.vmap(init)(jax.random.split(key, layers))


def run_stack(
    block: nn.Module,
    params: dict,
    x: jax.Array,
    mask: jax.Array | None = None,
    key: jax.Array | None = None,
) -> jax.Array:
    """x: (batch, tokens, features) through the blocks stacked in `params`, in order.

    Args:
      block: the module.
      params: leaves (layers, ...).
      x: activation.
      mask: bool (batch, tokens), true where a token is real; None when all are.
      key: PRNG key of the dropout; None for none.
    """
    layers = jax.tree.leaves(params)[0].shape[0]
    keys = None if key is None else jax.random.split(key, layers)

    def layer(x: jax.Array, scanned: tuple) -> tuple[jax.Array, None]:
        layer_params, layer_key = scanned
        return apply_module(block, layer_params, x, mask, key=layer_key), None

    return jax.lax.scan(layer, x, (params, keys))[0]


LARGEST = {"layers": 4096}
"""Every stage is traced on its own; more layers would take minutes to be looked at."""


def check_config(config: Any, sizes: Sequence[str]) -> None:
    """Raises ValueError for a field of a family's config that is out of range.

    Args:
      config: with name, width, heads, dropout, precision.
      sizes: fields that are integers of at least 1.
    """
    for name in sizes:
        size, most = getattr(config, name), LARGEST.get(name, 2**31 - 1)
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= most:
            raise ValueError(
                f"{config.name}: {name}={size!r} must be an integer of at least 1 and at most "
                f"{most:,}"
            )
    if config.width % config.heads:
        raise ValueError(f"{config.name}: heads={config.heads} must divide width={config.width}")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"{config.name}: dropout={config.dropout} must be in [0, 1)")
    if config.precision not in PRECISIONS:
        raise unknown_name("precision", config.precision, PRECISIONS)


def row_number(number: jax.Array, rows: int) -> jax.Array:
    """Whole numbers as an index into rows: jax counts a negative one from the end, and gives NaN
    for one that is too large, which it becomes here."""
    wide = number.astype(np.promote_types(number.dtype, np.int32))
    return jnp.where(wide < 0, rows, wide)


def check_numbers(model: str, name: str, numbers: Any, rows: int) -> None:
    """Raises ValueError where an array of a batch holds a number that no row has.

    Args:
      model: for the error.
      name: of the array in the batch.
      numbers: of rows; where they are traced or only a shape, nothing is known of them.
      rows: how many there are.
    """
    known = isinstance(numbers, np.ndarray | jax.Array) and not isinstance(numbers, jax.core.Tracer)
    if not known or not getattr(numbers, "is_fully_addressable", True):
        return
    values = np.asarray(numbers)
    wrong = np.argwhere((values < 0) | (values >= rows))
    if len(wrong):
        place = tuple(wrong[0].tolist())
        raise ValueError(
            f"{model}: batch[{name!r}] holds {values[place]} at {place}, which is not in "
            f"[0, {rows}); {len(wrong)} of its numbers are out of range"
        )


# Tensor parallelism over "model" for canonical (stacked) parameters: columns of the first matrix of
# each pair, rows of the second (Shoeybi et al. 2019, arXiv 1909.08053); XLA adds the collectives.
SHARDING_RULES = (
    (r"blocks/.*(query|key|value|up)/kernel", PartitionSpec(None, None, "model")),
    (r"blocks/.*(query|key|value|up)/bias", PartitionSpec(None, "model")),
    (r"blocks/.*(out|down)/kernel", PartitionSpec(None, "model", None)),
    (r"", PartitionSpec()),
)
