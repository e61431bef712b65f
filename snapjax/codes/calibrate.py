"""Calibration: gain, offset and plan of a spike code from a few activations, with no training.

Every feature is standardised and sent through the code under a grid of coverages (how many standard
deviations the code's range spans) and shifts. For each of them, and for each number of steps, the
decoder is the least-squares line from value to feature; the residual is the expected error. The
plan then picks each feature's number of steps (`plan.optimal_steps`), and the best grid point for
that number gives the feature its parameters. Nothing here knows which code it fits.
"""

import reprlib
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from snapjax.codes import plan
from snapjax.codes.code import Code
from snapjax.codes.spike_code import Params, SpikeCode

# The optimal uniform quantisers of a Gaussian at 1 to 5 bits span 1.6, 2.0, 2.3, 2.7 and 3.0
# deviations (Max 1960); heavier tails want more. The first entry wins ties (one step has many).
COVERAGES = (2.0, *(c for c in np.linspace(0.8, 5.0, 22).round(2).tolist() if c != 2.0))
SHIFTS = (0.0, -0.6, -0.3, -0.15, 0.15, 0.3, 0.6)
MAX_ROWS = 4096  # an error estimate from so many rows is within 2 to 3 % of the true one


class Fit(NamedTuple):
    """Per number of steps and feature, each (T + 1, features); index 0 is "send nothing"."""

    error: jax.Array  # mean squared error in units of the feature's variance
    gain: jax.Array  # the decoder's line, in units of the feature's deviation
    offset: jax.Array


def fit(
    code: Code,
    params: dict[str, Params],
    x: jax.Array,
    weight: np.ndarray | None = None,
) -> dict[str, Params]:
    """`params` fitted to samples, for any code.

    A spike code is fitted by `fit_spike_code`. A dense code keeps its parameters: the scale of the
    integer formats is each token's own.

    Args:
      code: the code to fit.
      params: {"encoder", "decoder"} of the code.
      x: (n, features) samples, n >= 2.
      weight: (features,) importance of each feature's squared error; None weighs all alike.
    """
    if isinstance(code, SpikeCode):
        return fit_spike_code(code, params, x, weight)
    return params


def fit_spike_code(
    code: SpikeCode,
    params: dict[str, Params],
    x: jax.Array,
    weight: np.ndarray | None = None,
) -> dict[str, Params]:
    """`params` with gain, offset and plan set from samples.

    Args:
      code: the code to fit.
      params: its parameters; what the firing rule learns (thresholds, leaks) is kept.
      x: (n, features) samples, n >= 2.
      weight: (features,) importance of each feature's squared error; None weighs all alike.

    Returns:
      new parameters; the plan uses at most `code.budget` bits.
    """
    rows = check_samples(x, code.features)
    if rows.shape[0] > MAX_ROWS:
        rows = rows[np.linspace(0, rows.shape[0] - 1, MAX_ROWS).astype(int)]
    mean = rows.mean(0, dtype=np.float64)
    deviation = rows.std(0, dtype=np.float64)
    # A feature that hardly moves, beside its mean or the others, would get a gain that no training
    # could use; where none moves, any gain will do.
    scale_of = np.maximum(np.abs(mean), deviation.max())
    deviation = np.maximum(deviation, 1e-6 * np.where(scale_of > 0, scale_of, 1))
    scale = np.ones_like(mean) if weight is None else _as_numbers(weight)
    if scale.shape != mean.shape or not (np.isfinite(scale).all() and (scale >= 0).all()):
        raise ValueError(
            f"sensitivity: needs {mean.shape} finite non-negative weights, got shape {scale.shape}"
        )

    grid = np.array([(c, s) for s in SHIFTS for c in COVERAGES], np.float32)
    standard = jnp.asarray((rows - mean) / deviation, jnp.float32)
    fits = _fit_grid(code, params["encoder"], standard, jnp.asarray(grid))
    error = np.asarray(fits.error)  # (grid, T + 1, features)
    best = error.argmin(0)
    smallest = np.take_along_axis(error, best[None], 0)[0] * deviation**2
    steps = plan.optimal_steps(smallest * scale, code.budget // code.planes_per_step)

    feature = np.arange(code.features)
    # A feature that sends nothing still needs an encoder to restart from when it is trained.
    chosen = best[np.maximum(steps, 1), feature]
    gain, offset = _encoder_line(code, grid[chosen, 0], grid[chosen, 1])
    decoder_gain = np.asarray(fits.gain)[chosen, steps, feature]
    decoder_offset = np.asarray(fits.offset)[chosen, steps, feature]
    encoder = {"gain": gain / deviation, "offset": mean + offset * deviation}
    decoder = {"gain": decoder_gain * deviation, "offset": decoder_offset * deviation + mean}
    _check_representable(mean, deviation, encoder, decoder)
    lines = [
        {name: jnp.asarray(array, jnp.float32) for name, array in end.items()}
        for end in (encoder, decoder)
    ]
    plan_of_both = {"steps_per_feature": jnp.asarray(steps)}
    return {
        "encoder": {**params["encoder"], **lines[0], **plan_of_both},
        "decoder": {**params["decoder"], **lines[1], **plan_of_both},
    }


def _check_representable(
    mean: np.ndarray, deviation: np.ndarray, encoder: Params, decoder: Params
) -> None:
    """Raises ValueError where float32 has no number for a gain or an offset.

    XLA flushes numbers below the smallest normal one to 0, and with the gain the whole feature.
    """
    smallest, largest = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    wrong = encoder["gain"] < smallest
    for line in (encoder, decoder):
        for array in line.values():
            wrong = wrong | ~(np.abs(array) <= largest)
    if wrong.any():
        feature = int(wrong.argmax())
        raise ValueError(
            f"activations: feature {feature} has mean {mean[feature]:.3g} and deviation "
            f"{deviation[feature]:.3g}, for which float32 has no gain; divide the activations by a "
            "constant, such as in a normalisation before the boundary"
        )


def _encoder_line(code: SpikeCode, coverage: Any, shift: Any) -> tuple[Any, Any]:
    """Gain and offset that map shift -+ coverage (in deviations) onto the code's input range."""
    low, high = code.input_range
    gain = (high - low) / (2 * coverage)
    return gain, shift - (low + high) / 2 / gain


@partial(jax.jit, static_argnums=0)  # compiled once for all boundaries of a model
def _fit_grid(code: SpikeCode, encoder: Params, x: jax.Array, grid: jax.Array) -> Fit:
    """A `Fit` for every grid point, leaves (grid, T + 1, features)."""

    def one(point: jax.Array) -> Fit:
        gain, offset = _encoder_line(code, point[0], point[1])
        full = lambda number: jnp.full(code.features, number, x.dtype)
        spikes = code.encode({**encoder, "gain": full(gain), "offset": full(offset)}, x)
        return _lines(code, spikes, x)

    return jax.lax.map(one, grid)


def _lines(code: SpikeCode, spikes: jax.Array, x: jax.Array) -> Fit:
    """The least-squares lines from the value of the first n steps to x, n = 0 to T, per feature."""
    x_mean = x.mean(0, keepdims=True)
    x_centred = x - x_mean

    def line(value: jax.Array) -> Fit:
        centred = value - value.mean(0, keepdims=True)
        variance = (centred**2).mean(0)
        gain = (centred * x_centred).mean(0) / jnp.maximum(variance, 1e-8)
        gain = jnp.where(variance > 1e-8, gain, 0.0)
        error = ((x_centred - gain[None] * centred) ** 2).mean(0)
        return Fit(error, gain, x_mean[0] - gain * value.mean(0))

    per_step = (code.steps, code.planes_per_step)
    amplitudes = jnp.asarray(code.amplitudes()).reshape(per_step)
    planes = jnp.moveaxis(spikes, -2, 0).reshape(*per_step, *x.shape)

    def add(value: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, Fit]:
        value = value + jnp.einsum("p,pnd->nd", *step)
        return value, line(value)

    nothing = jnp.zeros_like(x)
    _, fits = jax.lax.scan(add, nothing, (amplitudes, planes))
    return jax.tree.map(
        lambda first, rest: jnp.concatenate([first[None], rest]), line(nothing), fits
    )


def check_samples(x: Any, features: int) -> np.ndarray:
    """Samples (..., features) as float32 (n, features) on the host.

    Raises:
      ValueError: no numbers, another shape, fewer than 2 samples, or values that are not finite.
    """
    if isinstance(x, jax.core.Tracer):
        raise ValueError(
            "activations: are traced, and have no values to fit to; calibrate outside of jax.jit"
        )
    try:
        given = np.asarray(x)
        number = jnp.issubdtype(given.dtype, jnp.floating) or given.dtype.kind in "iu"
    except (TypeError, ValueError):  # rows of several lengths
        number = False
    if not number:
        raise ValueError(
            f"activations: {reprlib.repr(x)} is no array of real numbers; give (samples, "
            f"features={features})"
        )
    with np.errstate(over="ignore"):  # said below
        rows = given.astype(np.float32)
    if rows.ndim > 2 and rows.shape[-1]:
        rows = rows.reshape(-1, rows.shape[-1])
    if rows.ndim != 2 or rows.shape[1] != features or rows.shape[0] < 2:
        raise ValueError(
            f"activations: need (samples >= 2, features={features}), got shape {given.shape}"
        )
    if not np.isfinite(rows).all():
        raise ValueError("activations: contain non-finite values; calibrate on finite samples")
    return rows


def check_metric(sensitivity: np.ndarray | None, features: int) -> np.ndarray | None:
    """The sensitivity as float64 (features, features), or None where it is no matrix.

    Raises:
      ValueError: a matrix of another shape, not finite, not symmetric or with a negative diagonal.
    """
    if sensitivity is None or np.ndim(sensitivity) < 2:
        return None
    metric = _as_numbers(sensitivity)
    if metric.shape != (features, features) or not np.isfinite(metric).all():
        raise ValueError(
            f"sensitivity: needs a finite ({features}, {features}) matrix, got shape {metric.shape}"
        )
    if (
        np.abs(metric - metric.T).max() > 1e-6 * np.abs(metric).max()
        or (metric.diagonal() < 0).any()
    ):
        raise ValueError("sensitivity: a metric is symmetric, with no negative diagonal entry")
    return metric


def _as_numbers(sensitivity: Any) -> np.ndarray:
    try:
        return np.asarray(sensitivity, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"sensitivity: {reprlib.repr(sensitivity)} is no array: {error}"
        ) from error
