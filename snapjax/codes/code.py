"""The protocol of a code, and every code by name."""

from typing import Any, Protocol

import jax

from snapjax.codes.dense_code import DenseCode, TopKCode, top_k_bytes
from snapjax.codes.spike_code import LatencyCode, PhaseCode, RateCode, SpikeCode, TernaryCode
from snapjax.errors import check_types, unknown_name
from snapjax.neurons.surrogate import Surrogate
from snapjax.wire import dense

Params = dict[str, Any]

MAX_STEPS = 24


class Code(Protocol):
    """What a boundary needs of a code. `x` and `value` are (..., features)."""

    @property
    def features(self) -> int:
        """Width of x."""

    @property
    def bits(self) -> int:
        """Payload bits a token."""

    def init(self) -> dict[str, Params]:
        """Parameters {"encoder": ..., "decoder": ...} for inputs of mean 0 and variance 1."""

    def encode(self, encoder: Params, x: jax.Array) -> jax.Array:
        """Symbols of x, differentiable: spikes (..., planes, features), or x for dense codes."""

    def encode_and_check(self, encoder: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The symbols, and whether all that they were made of was finite, a bool scalar."""

    def to_wire(self, encoder: Params, symbols: jax.Array) -> jax.Array:
        """Symbols as uint8 (..., bytes): exactly what is sent for each token."""

    def from_wire(self, decoder: Params, buffer: jax.Array, dtype: Any) -> jax.Array:
        """Values (..., features) of a received buffer."""

    def cotangent(self, encoder: Params, cotangent: jax.Array) -> jax.Array:
        """The cotangent of the symbols, in their shape, from that of the values (..., features)."""

    def kept_features(self, end: Params) -> jax.Array:
        """bool (features,): the features of which anything is sent."""

    def decode(self, decoder: Params, value: jax.Array) -> jax.Array:
        """Values as an approximation of x."""


SPIKE_CODES: dict[str, type[SpikeCode]] = {
    "phase": PhaseCode,
    "rate": RateCode,
    "latency": LatencyCode,
    "ternary": TernaryCode,
}
"""Every spike code by name."""

CODES = (*SPIKE_CODES, *dense.DENSE_FORMATS, "topk")
"""The names of all codes: spikes, dense formats and top-k."""


def make_code(
    name: str,
    features: int,
    steps: int = 4,
    budget: int | None = None,
    surrogate: Surrogate | None = None,
) -> Code:
    """The code called `name` (one of `CODES`) for `features` features.

    Args:
      name: a spike code, "topk", or a dense format, which ignores the arguments below.
      features: width of x, >= 1.
      steps: T of a spike code, 1 to `MAX_STEPS`.
      budget: bits a token of a spike code or of "topk"; None sends every step of every feature.
      surrogate: gradient of a spike code; None takes the default of `Surrogate`.

    Raises:
      ValueError: for an unknown name, or an argument out of range.
    """
    check_types(
        "make_code",
        {"name": (name, str), "features": (features, int), "steps": (steps, int),
         "budget": (budget, int | None), "surrogate": (surrogate, Surrogate | None)},
    )  # fmt: skip
    if name not in CODES:
        raise unknown_name("code", name, CODES)
    if features < 1:
        raise ValueError(f"features={features} must be at least 1")
    if name == "topk":
        return _make_top_k(features, budget)
    if name not in SPIKE_CODES:
        return DenseCode(features, name)
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(
            f"steps={steps} must be between 1 and {MAX_STEPS}: a spike code needs one time step, "
            "and beyond float32's digits a step says nothing"
        )
    kind = SPIKE_CODES[name]
    largest = features * steps * kind.planes_per_step
    budget = largest if budget is None else budget
    if not kind.planes_per_step <= budget <= largest:
        raise ValueError(
            f"budget={budget} bits a token must be between {kind.planes_per_step} and {largest} "
            f"(features={features} x steps={steps} x {kind.planes_per_step} bits for {name!r})"
        )
    return kind(features, steps, budget, surrogate or Surrogate())


def _make_top_k(features: int, budget: int | None) -> TopKCode:
    pair = 8 * top_k_bytes(features)
    if features > 65536:
        raise ValueError(f"features={features}: 'topk' indices have 2 bytes; use at most 65536")
    count = features if budget is None else min(budget // pair, features)
    if count < 1:
        raise ValueError(
            f"budget={budget} bits a token must be at least {pair}, one (index, value) of 'topk'"
        )
    return TopKCode(features, count=count)
