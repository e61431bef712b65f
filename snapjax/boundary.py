"""The boundary: where an activation leaves one device for another.

    x -> [project] -> encode -> symbols =(one uint8 buffer)=> value -> decode -> [project] -> x^
         '----------- sender -----------'                     '-------- receiver --------'

`apply` does it on one device, `send` over a permutation of devices and `all_gather` over all of
them; the three compute the same function of the same parameters.
"""

import reprlib
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snapjax import stats
from snapjax.codes import calibrate, parameters, projection
from snapjax.codes.calibrate import check_metric, check_samples
from snapjax.codes.code import Params
from snapjax.codes.projection import Maps
from snapjax.codes.spike_code import SpikeCode, per_feature
from snapjax.errors import check_types
from snapjax.settings import Settings
from snapjax.stats import BoundaryStats
from snapjax.transport import Gather, Hop, Link, Stay, axis_size, permute, transport
from snapjax.varying import match_varying, vary_over
from snapjax.wire.rows import saturate


@dataclass(frozen=True, repr=False)
class Boundary(Settings):
    """A cut between devices: what is sent over it, and in which form.

    Attributes:
      features: width of the activation.
      code: one of `snapjax.codes.code.CODES`.
      steps: T, the most spike steps of a feature.
      budget: bits a token; None sends every step of every feature.
      surrogate: gradient of the spikes.
      rank: width r of a learned projection features -> r -> features around the code, or None.
      wire: "planes" (a bit per planned spike) or "events", the address-event representation (AER):
        spike indices, fixed capacity, bit planes whenever a device has more spikes than fit.
      event_capacity: spikes a token that an event message has room for, on average.
      gradient_wire: format of the cotangent on the way back, one of
        `snapjax.wire.dense.GRADIENT_FORMATS`.
      kept_features: how many features may be kept by the plan, which is the width of the
        cotangent on the wire; None allows as many as the budget could reach. See `shrink_to_plan`.
      debug: `apply` raises FloatingPointError when what is encoded is not finite, and ValueError
        when the two ends hold other plans or codes. Over a link a device that raised would leave
        the others waiting for it: there NaN arrives from an encoder that is not of the decoder, and
        `BoundaryStats.finite` tells of what was encoded.

    Raises:
      ValueError: for an unknown name or an argument out of range, when constructed.

    Example:
      >>> boundary = Boundary(features=64, code="phase", steps=4, budget=64)
      >>> params = boundary.init(jax.random.key(0))
      >>> x = jax.random.normal(jax.random.key(1), (2, 16, 64))
      >>> decoded, stats = boundary.apply(params, x)
      >>> decoded.shape, boundary.bytes_per_token, float(stats.bits)
      ((2, 16, 64), 8, 64.0)
    """

    def init(self, key: jax.Array) -> dict[str, Params]:
        """Parameters {"encoder", "decoder"} for activations of mean 0 and variance 1.

        Each end holds all it needs, its copy of the plan ("steps_per_feature", int32, not trained)
        included, so the encoder can live on the sender and the decoder on the receiver. The plan
        and the code's mark are integers, which `jax.grad` refuses: part them from the rest with
        `snapjax.split_plan`, or give it `allow_int=True`. Reverse mode only: what goes back over
        the link is a message of its own, so that `jax.jvp` through a boundary is an error.
        """
        code = self.codec
        params = code.init(self.gradient_features) if isinstance(code, SpikeCode) else code.init()
        if self.rank is not None:
            basis = jax.random.orthogonal(key, self.features, dtype=jnp.float32)[:, : self.rank]
            bias = jnp.zeros(self.features, jnp.float32)
            _set_projection(params, Maps(basis, basis.T, bias))
        return params

    def calibrate(
        self,
        params: dict[str, Params],
        activations: jax.Array,
        sensitivity: np.ndarray | None = None,
        axes: str = "principal",
        refit: bool = False,
    ) -> dict[str, Params]:
        """Parameters and plan fitted to a few activations; nothing is trained.

        Args:
          params: from `init`.
          activations: (..., features), at least 2 samples.
          sensitivity: which errors matter. (features, features): the metric of
            `snapjax.codes.projection` on the activation's features, of which only the diagonal
            counts without a rotation; or (width,): the weight of the squared error of each feature
            that the code sees.
          axes: where there is a rank: "principal" for a projection onto the axes of most variance
            in that metric, "features" for the features as they are (the rank must be their number).
          refit: where there is a rank: fit the receiver's projection to what arrives, after the
            plan is made; see `projection.best_decoder`. Wants many more samples than features.

        Returns:
          new parameters of the same structure.

        Raises:
          ValueError: for samples of another shape, fewer than 2, or not finite; options that need
            another rank; or a new plan that keeps more features than `kept_features`.
        """
        check_types("calibrate", {"axes": (axes, str), "refit": (refit, bool)})
        x = check_samples(activations, self.features)
        self._check_made_for_this(params)
        metric = check_metric(sensitivity, self.features)
        weight = sensitivity if metric is None else np.diagonal(metric)
        if self.rank is None:
            if refit:
                raise ValueError("calibrate: refit=True needs a projection; set rank=features")
            fitted = calibrate.fit(self.codec, params, jnp.asarray(x), weight)
            self.check(fitted)
            return fitted
        inner, maps = projection.fit(
            self.codec, params, x, self.rank, axes, sensitivity if metric is None else metric, refit
        )
        _set_projection(inner, maps)
        self.check(inner)
        return inner

    def check(self, params: dict[str, Params]) -> None:
        """Raises ValueError where parameters are not of this boundary, or not finite, naming them.

        Args:
          params: of one boundary, or of several stacked along a leading axis; numbers, not traced
            by `jax.jit` and the like.
        """
        self._check_made_for_this(params)
        code = self.codec
        if isinstance(code, SpikeCode):
            parameters.check_plan(code, params, self.gradient_features)
        parameters.check_finite(params)

    def _check_made_for_this(self, params: dict[str, Params]) -> None:
        """Shapes and code; the plan may be one that a calibration is to replace."""
        code = self.codec
        lead = parameters.leading_axes(params) if isinstance(code, SpikeCode) else 0
        self._check_structure(params, lead)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(params)):
            raise ValueError(
                "Boundary: params are traced, and have no values to check; call it outside of "
                "jax.jit, jax.vmap and jax.grad"
            )
        if isinstance(code, SpikeCode):
            parameters.check_code(self.code, code, params)

    def _check_structure(self, params: dict[str, Params], lead: int = 0) -> None:
        what = f"code={self.code!r}, features={self.features}, rank={self.rank}"
        expected = jax.eval_shape(self.init, jax.random.key(0))
        parameters.check_structure(what, expected, params, lead)

    def _check_params(self, params: dict[str, Params]) -> None:
        """Of one boundary; code and plan too where they are at hand, outside of `jax.jit`."""
        self._check_structure(params)
        code = self.codec
        if isinstance(code, SpikeCode) and parameters.has_concrete_plan(params):
            parameters.check_code(self.code, code, params)
            parameters.check_plan(code, params, self.gradient_features)

    def shrink_to_plan(self, params: dict[str, Params]) -> "Boundary":
        """This boundary with `kept_features` as small as the plans in `params` allow.

        Args:
          params: parameters of one boundary, or of several stacked along a leading axis.
        """
        replace(self, kept_features=None).check(params)
        if not self.spiking:
            return self
        kept = (np.asarray(params["encoder"]["steps_per_feature"]) > 0).sum(-1).max()
        return replace(self, kept_features=max(1, int(kept)))

    def apply(
        self, params: dict[str, Params], x: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, BoundaryStats]:
        """What the receiver would see of x, on one device.

        Args:
          params: {"encoder", "decoder"}.
          x: (..., features) float.
          key: PRNG key, needed to differentiate with an int8 or int4 gradient wire.

        Returns:
          (..., features) in x's dtype, and what was sent.
        """
        x = _activation(x)
        value, sent = self._transmit(Stay(), params, x, key)
        return self.receive(params["decoder"], value, x.dtype), sent

    def send(
        self,
        params: dict[str, Params],
        x: jax.Array,
        axis: str,
        pairs: tuple[tuple[int, int], ...] | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, BoundaryStats]:
        """x to the next device along a mesh axis; call it inside `jax.shard_map`.

        Args:
          params: {"encoder": of this device's outgoing hop, "decoder": of its incoming one}.
          x: (..., features), what this device sends.
          axis: name of the mesh axis.
          pairs: (source, destination) of each hop; None for i -> i + 1 with no wrap-around.
          key: as in `apply`.

        Returns:
          what arrives here, (..., features), and what was sent from here. A device that no pair
          sends to gets zeros, whatever the code; one that sends to none still reports the spikes
          that it made.

        Raises:
          ValueError: an axis that is not of the mesh here, or pairs that name a device twice as
            source or destination, or one that is not on the axis.
        """
        hop, size = permute("send", axis, pairs)
        x = _activation(x)
        value, sent = self._transmit(hop, params, x, key)
        made = self.receive(params["decoder"], value, x.dtype)
        if len(hop.pairs) < size:
            made = jnp.where(hop.receives(), made, jnp.zeros_like(made))
        return made, sent

    def transmit(
        self,
        params: dict[str, Params],
        x: jax.Array,
        axis: str,
        pairs: tuple[tuple[int, int], ...] | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, BoundaryStats]:
        """The first half of `send`: values that arrived here, not yet decoded.

        A schedule that decodes them a tick later, outside the `jax.checkpoint` of this one, keeps
        the backward pass from sending again: nothing in this half needs what arrived.

        Returns:
          (..., width) in float32 or wider, and what was sent from here.
        """
        hop, _ = permute("transmit", axis, pairs)
        return self._transmit(hop, params, _activation(x), key)

    @jax.named_scope("boundary")
    def receive(self, decoder: Params, value: jax.Array, dtype: Any) -> jax.Array:
        """The second half of `send`: values (..., width) -> (..., features) in `dtype`.

        Raises:
          ValueError: a dtype that is no floating-point one.
        """
        decoded = self.codec.decode(decoder, value)
        if self.rank is not None:
            decoded = decoded @ decoder["projection"].astype(decoded.dtype)
            decoded = decoded + per_feature(decoder["bias"], decoded)
        return saturate(decoded, dtype)

    def all_gather(
        self,
        params: dict[str, Params],
        x: jax.Array,
        axis: str,
        dimension: int = 0,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, BoundaryStats]:
        """Every device's x on every device; call it inside `jax.shard_map`.

        Args:
          params: {"encoder", "decoder"}, equal on all devices of the axis.
          x: (..., features), this device's shard.
          axis: name of the mesh axis, of size n.
          dimension: the axis of x along which the shards are joined; not the features.
          key: as in `apply`.

        Returns:
          x with `dimension` n times as long, varying over `axis`; and what was sent from here.
        """
        check_types("all_gather", {"dimension": (dimension, int)})
        x = _activation(x)
        if not 0 <= dimension < x.ndim - 1:
            raise ValueError(
                f"all_gather: dimension={dimension} must be in [0, {x.ndim - 2}] for x of shape "
                f"{x.shape}; the features cannot be joined"
            )
        axis_size("all_gather", axis)
        value, sent = self._transmit(Gather(axis), params, x, key)
        gathered = self.receive(params["decoder"], value, x.dtype)
        shape = (*x.shape[:dimension], -1, *x.shape[dimension + 1 :])
        return jnp.moveaxis(gathered, 0, dimension).reshape(shape), sent

    @jax.named_scope("boundary")
    def _transmit(
        self, hop: Hop, params: dict[str, Params], x: jax.Array, key: jax.Array | None
    ) -> tuple[jax.Array, BoundaryStats]:
        self._check(x)
        self._check_params(params)
        encoder, decoder = params["encoder"], params["decoder"]
        code = self.codec
        # Spikes turn on small differences: the code works in float32 or wider.
        h = x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x
        h = vary_over(h, hop.axes)
        if self.rank is not None:
            h = h @ encoder["projection"].astype(h.dtype)
        symbols, finite = code.encode_and_check(encoder, h)
        tokens = x.size // self.features
        if key is not None:  # the same draw on two devices would add up their rounding errors
            for name in sorted(jax.typeof(h).mat.varying | hop.axes):
                key = jax.random.fold_in(key, jax.lax.axis_index(name))
        link = Link(
            code,
            hop,
            tokens * self.event_capacity if self.wire == "events" and tokens else None,
            self.gradient_wire,
            self.gradient_features,
        )
        symbols, encoder, decoder, key = match_varying(symbols, encoder, decoder, key)
        value = transport(link, symbols, encoder, decoder, key)
        if self.debug:
            value = _debug(link, value, finite, encoder, decoder)
        return value, stats.count(link, encoder, symbols, finite, self.message_bytes)

    def _check(self, x: jax.Array) -> None:
        if x.ndim < 2 or x.shape[-1] != self.features:
            raise ValueError(
                f"Boundary: x has shape {x.shape}, needs (..., features={self.features}) with at "
                "least one leading dimension"
            )
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"Boundary: x has dtype {x.dtype}, needs a floating-point one")


def _set_projection(params: dict[str, Params], maps: Maps) -> None:
    encoder, decoder, bias = (jnp.asarray(array, jnp.float32) for array in maps)
    params["encoder"] = {**params["encoder"], "projection": encoder}
    params["decoder"] = {**params["decoder"], "projection": decoder, "bias": bias}


def _activation(x: Any) -> jax.Array:
    """x as an array of jax; numbers in lists are none, because their dtype would be a guess."""
    if not isinstance(x, jax.Array | np.ndarray):
        raise ValueError(
            f"Boundary: x={reprlib.repr(x)} is a {type(x).__name__}; give an array of floats, such "
            "as jnp.asarray(x, jnp.float32)"
        )
    return jnp.asarray(x)


def _debug(
    link: Link, value: jax.Array, finite: jax.Array, encoder: Params, decoder: Params
) -> jax.Array:
    """The value, after the checks of `Boundary.debug`."""
    same: Any = True
    if isinstance(link.code, SpikeCode):
        theirs = link.hop.forward(parameters.plan_digest(encoder))
        same = (theirs == parameters.plan_digest(decoder)) | (theirs == 0)  # 0: nobody sends here
        same = same.reshape(same.shape + (1,) * (value.ndim - same.ndim))
    if isinstance(link.hop, Stay):
        jax.debug.callback(_raise_if_wrong, finite, same)
        return value
    return jnp.where(same, value, jnp.nan)


def _raise_if_wrong(finite: np.ndarray, same: np.ndarray) -> None:
    if not np.all(same):
        raise ValueError(
            "Boundary: encoder and decoder hold other plans or codes (debug=True made this check); "
            "take both from one `init` or `calibrate`"
        )
    if not finite:
        raise FloatingPointError(
            "Boundary: what this boundary encodes is not finite; look for a loss that diverged or "
            "bad input data (debug=True made this check)"
        )
