"""The boundary: where an activation leaves one device for another.

    x -> [project] -> encode -> symbols =(one uint8 buffer)=> value -> decode -> [project] -> x^
         '----------- sender -----------'                     '-------- receiver --------'

`apply` does it on one device, `send` over a permutation of devices and `all_gather` over all of
them; the three compute the same function of the same parameters.
"""

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
from snapjax.settings import Settings
from snapjax.stats import BoundaryStats
from snapjax.transport import Gather, Hop, Link, Permute, Stay, transport
from snapjax.varying import match_varying, vary_over


@dataclass(frozen=True)
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
      debug: `apply` raises FloatingPointError when x is not finite. Over a link a device that
        raised would leave the others waiting for it: look at `BoundaryStats.finite` on the host.

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
        included, so the encoder can live on the sender and the decoder on the receiver. To
        differentiate, part the plans from the rest with `snapjax.codes.parameters.split_plan`.
        """
        params = self.codec.init()
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
        x = np.asarray(activations)
        x = check_samples(x.reshape(-1, x.shape[-1]) if x.ndim else x, self.features)
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
        """Raises ValueError where parameters are not of this boundary; needs concrete arrays.

        Args:
          params: of one boundary, or of several stacked along a leading axis.
        """
        lead = (
            params["encoder"]["steps_per_feature"].ndim - 1
            if "steps_per_feature" in params["encoder"]
            else 0
        )
        self._check_structure(params, lead)
        if isinstance(self.codec, SpikeCode):
            parameters.check_plan(self.codec, params, self.gradient_features)

    def _check_structure(self, params: dict[str, Params], lead: int = 0) -> None:
        what = f"code={self.code!r}, features={self.features}, rank={self.rank}"
        expected = jax.eval_shape(self.init, jax.random.key(0))
        parameters.check_structure(what, expected, params, lead)

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
          sends to decodes zeros; a device that sends to none still reports the spikes it made.
        """
        value, sent = self.transmit(params, x, axis, pairs, key)
        return self.receive(params["decoder"], value, x.dtype), sent

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
        if pairs is None:
            pairs = tuple((i, i + 1) for i in range(jax.lax.axis_size(axis) - 1))
        return self._transmit(Permute(axis, tuple(pairs)), params, x, key)

    @jax.named_scope("boundary")
    def receive(self, decoder: Params, value: jax.Array, dtype: Any) -> jax.Array:
        """The second half of `send`: values (..., width) -> (..., features) in `dtype`."""
        decoded = self.codec.decode(decoder, value)
        if self.rank is not None:
            decoded = decoded @ decoder["projection"]
            decoded = decoded + per_feature(decoder["bias"], decoded)
        return decoded.astype(dtype)

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
        if not 0 <= dimension < x.ndim - 1:
            raise ValueError(
                f"all_gather: dimension={dimension} must be in [0, {x.ndim - 2}] for x of shape "
                f"{x.shape}; the features cannot be joined"
            )
        value, sent = self._transmit(Gather(axis), params, x, key)
        gathered = self.receive(params["decoder"], value, x.dtype)
        shape = (*x.shape[:dimension], -1, *x.shape[dimension + 1 :])
        return jnp.moveaxis(gathered, 0, dimension).reshape(shape), sent

    @jax.named_scope("boundary")
    def _transmit(
        self, hop: Hop, params: dict[str, Params], x: jax.Array, key: jax.Array | None
    ) -> tuple[jax.Array, BoundaryStats]:
        self._check(x)
        self._check_structure(params)
        if self.debug and isinstance(hop, Stay):
            jax.debug.callback(_raise_if_not_finite, jnp.isfinite(x).all())
        encoder, decoder = params["encoder"], params["decoder"]
        code = self.codec
        # Spikes turn on small differences: the code works in float32 or wider.
        h = x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x
        h = vary_over(h, hop.axes)
        if self.rank is not None:
            h = h @ encoder["projection"]
        symbols, tokens = code.encode(encoder, h), x.size // self.features
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
        return value, stats.count(link, encoder, symbols, jnp.isfinite(h).all(), self.message_bytes)

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


def _raise_if_not_finite(finite: np.ndarray) -> None:
    if not finite:
        raise FloatingPointError(
            "Boundary: the activation that reaches this boundary is not finite; look for a loss "
            "that diverged or bad input data (debug=True made this check)"
        )
