"""Spikes: a Heaviside step forward, a surrogate gradient backward.

`v` is how far the membrane is above its threshold; `alpha` is the inverse width of every surrogate:
the larger, the closer to the true derivative of the step, and the fewer neurons learn.

| name | dS/dv, with a = alpha | default | source |
|---|---|---|---|
| atan | (a/2) / (1 + (pi a v / 2)^2) | 2 | Fang et al. 2021, arXiv 2007.05785 |
| sigmoid | a s(av) (1 - s(av)), s logistic | 4 | Zenke & Vogels 2021, 10.1162/neco_a_01367 |
| fast_sigmoid | 1 / (1 + a abs(v))^2 | 25 | Zenke & Ganguli 2018, 10.1162/neco_a_01086 |
| superspike | as fast_sigmoid | 100 | the same paper |
| triangular | max(0, a - a^2 abs(v)) | 1 | Esser et al. 2016, arXiv 1603.08270 |
| gaussian | a / sqrt(pi) exp(-(av)^2) | 2 | Yin et al. 2021, arXiv 2103.12593 |
| rectangular | a where abs(v) < 1 / (2a), else 0 | 1 | Wu et al. 2018, arXiv 1706.02609 |
| straight_through | 1 | - | Bengio et al. 2013, arXiv 1308.3432 |

`superspike` is `fast_sigmoid` under its authors' name, with the default of the libraries that
followed them; it is kept because users look for it. Peers that have the same function (the default
of the first one is ours): atan in SpikingJelly `ATan`, snnTorch `atan`; sigmoid in SpikingJelly
`Sigmoid`, snnTorch `sigmoid` (not finite there for very negative v); fast_sigmoid in snnTorch, and
as `superspike` in spyx and jaxsnn; superspike in braintools `InvSquareGrad`; triangular in
SpikingJelly `PiecewiseQuadratic`; gaussian in SpikingJelly `Erf`; rectangular in SpikingJelly
`Rect`; straight_through in snnTorch `straight_through_estimator`, SpikingJelly `DeterministicPass`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from snapjax.errors import check_types, unknown_name


def _atan(v: jax.Array, alpha: float) -> jax.Array:
    return (alpha / 2) / (1 + jnp.square(math.pi / 2 * alpha * v))


def _sigmoid(v: jax.Array, alpha: float) -> jax.Array:
    # s(-z) is 1 - s(z) without the cancellation, and neither overflows.
    return alpha * jax.nn.sigmoid(alpha * v) * jax.nn.sigmoid(-alpha * v)


def _fast_sigmoid(v: jax.Array, alpha: float) -> jax.Array:
    return 1 / jnp.square(1 + alpha * jnp.abs(v))


def _triangular(v: jax.Array, alpha: float) -> jax.Array:
    # alpha outside of max(): a bare alpha^2 would overflow float16 from alpha = 256 on.
    return alpha * jnp.maximum(1 - alpha * jnp.abs(v), 0)


def _gaussian(v: jax.Array, alpha: float) -> jax.Array:
    return alpha / math.sqrt(math.pi) * jnp.exp(-jnp.square(alpha * v))


def _rectangular(v: jax.Array, alpha: float) -> jax.Array:
    return alpha * (jnp.abs(v) < 0.5 / alpha).astype(v.dtype)


def _straight_through(v: jax.Array, alpha: float) -> jax.Array:
    return jnp.ones_like(v)


# name -> (gradient, default alpha)
_SURROGATES: dict[str, tuple[Callable[[jax.Array, float], jax.Array], float]] = {
    "atan": (_atan, 2.0),
    "sigmoid": (_sigmoid, 4.0),
    "fast_sigmoid": (_fast_sigmoid, 25.0),
    "superspike": (_fast_sigmoid, 100.0),
    "triangular": (_triangular, 1.0),
    "gaussian": (_gaussian, 2.0),
    "rectangular": (_rectangular, 1.0),
    "straight_through": (_straight_through, 1.0),
}

SURROGATES = tuple(_SURROGATES)
"""The names of all surrogate gradients: the rows of the table above."""


@dataclass(frozen=True)
class Surrogate:
    """When a neuron fires, and the gradient that stands in for the step's.

    Attributes:
      name: one of `SURROGATES`, the rows of the table above.
      alpha: inverse width, > 0; None takes the default of the table, and the attribute then holds
        it. `straight_through` has no width, so it takes 1 alone.
      fires_at_zero: True fires at v >= 0 (SpikingJelly, braintools), False at v > 0 (snnTorch,
        norse, spyx).

    Raises:
      ValueError: for an unknown name or an alpha out of range.

    Example:
      >>> Surrogate("sigmoid")
      Surrogate(name='sigmoid', alpha=4.0, fires_at_zero=True)
    """

    name: str = "atan"
    alpha: float | None = None
    fires_at_zero: bool = True

    def __post_init__(self) -> None:
        check_types(
            "Surrogate",
            {"name": (self.name, str), "alpha": (self.alpha, float | None),
             "fires_at_zero": (self.fires_at_zero, bool)},
        )  # fmt: skip
        if self.name not in _SURROGATES:
            raise unknown_name("surrogate", self.name, _SURROGATES)
        default = _SURROGATES[self.name][1]
        alpha = default if self.alpha is None else float(self.alpha)
        if not (math.isfinite(alpha) and alpha > 0):
            raise ValueError(
                f"alpha={self.alpha} of surrogate {self.name!r} must be finite and greater than 0; "
                f"leave it out for the default, {default}"
            )
        if self.name == "straight_through" and alpha != default:
            raise ValueError(
                f"alpha={self.alpha}: surrogate 'straight_through' has no width; leave alpha out"
            )
        object.__setattr__(self, "alpha", alpha)  # the class is frozen

    def fires(self, v: jax.Array) -> jax.Array:
        """Where v (any shape) is over the threshold, as bool. NaN does not fire."""
        return v >= 0 if self.fires_at_zero else v > 0

    def gradient(self, v: jax.Array) -> jax.Array:
        """dS/dv by the table above, elementwise in v's shape and floating dtype."""
        assert self.alpha is not None  # __post_init__ saw to it
        return _SURROGATES[self.name][0](v, self.alpha)


_DEFAULT = Surrogate()


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def spike(v: jax.Array, surrogate: Surrogate = _DEFAULT) -> jax.Array:
    """1 where a neuron fires and 0 elsewhere, with the surrogate's gradient.

    Reverse mode only. In a jaxpr this is a `custom_vjp_call` named "spike", in the forward pass of
    a gradient too, so that a cost model can see where spikes begin.

    Args:
      v: how far the membrane is above the threshold, any shape, any floating dtype.
      surrogate: the firing rule and the gradient.

    Returns:
      0 or 1 in v's shape and dtype.

    Raises:
      ValueError: if v is not floating point: integers have no gradient.
    """
    v = jnp.asarray(v)
    if not jnp.issubdtype(v.dtype, jnp.floating):
        raise ValueError(
            f"v has dtype {v.dtype}, but spike() needs floating point; cast it with astype"
        )
    return surrogate.fires(v).astype(v.dtype)


def _spike_forward(v: jax.Array, surrogate: Surrogate) -> tuple[jax.Array, jax.Array]:
    return spike(v, surrogate), v  # not the bare comparison: the call keeps its name in the jaxpr


def _spike_backward(surrogate: Surrogate, v: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    return (cotangent * surrogate.gradient(v),)


spike.defvjp(_spike_forward, _spike_backward)
