"""The linear maps around a code: which axes it sees, and the best linear way back.

Sent are z = x E, received is z D + b. Rotating to axes on which the features are uncorrelated puts
the variance into few of them, where a plan spends its bits. Which errors matter is told by a metric
M, positive semi-definite: an error e costs e^T M e. With A = M^(1/2) and V the principal axes of
A x, the maps E = A V and D = V^T A^-1 make that cost the plain squared error of z.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from snapjax.codes import calibrate
from snapjax.codes.code import Code, Params
from snapjax.errors import unknown_name

AXES = ("principal", "features")

# Of the metric's mean eigenvalue, added to all: directions that no sample was sensitive to must
# still be invertible. Of 0.005 to 0.1, this did best on sentence embeddings.
FLOOR = 0.02
FLAT = 1e-3  # of the largest deviation: axes of less are not blown up to variance 1
RIDGE = 0.01  # of the mean variance of the values; pulls the way back towards the one it replaces


class Maps(NamedTuple):
    """x @ encoder on the sender, @ decoder + bias on the receiver; numpy or jax arrays."""

    encoder: Any  # (features, rank)
    decoder: Any  # (rank, features)
    bias: Any  # (features,)


def feature_axes(x: np.ndarray) -> Maps:
    """The features themselves: identity maps. x: (samples, features)."""
    unit = np.eye(x.shape[1])
    return Maps(unit, unit, np.zeros(x.shape[1]))


def principal_axes(x: np.ndarray, rank: int, metric: np.ndarray | None = None) -> Maps:
    """The `rank` axes along which x varies most, in a metric.

    Args:
      x: (samples, features).
      rank: at most features.
      metric: (features, features), symmetric and positive semi-definite; None for the identity.
    """
    x = np.asarray(x, np.float64)
    mean = x.mean(0)
    covariance = (x - mean).T @ (x - mean) / len(x)
    root = inverse = np.eye(x.shape[1])
    if metric is not None:
        values, vectors = np.linalg.eigh(metric / max(np.trace(metric) / len(metric), 1e-30))
        values = np.sqrt(np.maximum(values, 0) + FLOOR)
        root, inverse = (vectors * values) @ vectors.T, (vectors / values) @ vectors.T
    _, axes = np.linalg.eigh(root @ covariance @ root)  # ascending
    axes = axes[:, ::-1][:, :rank]
    encoder, decoder = root @ axes, axes.T @ inverse
    # What the code sends has mean `mean @ encoder`; the rest of the mean is the receiver's.
    return Maps(encoder, decoder, mean - mean @ encoder @ decoder)


def best_decoder(value: np.ndarray, x: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, ...]:
    """The ridge regression of x on what arrives: whatever correlates with a feature tells of it,
    also of one that sends nothing. The optimum is the same in every metric of the error.

    Args:
      value: (samples, rank), decoded values.
      x: (samples, features), what was sent.
      prior: (rank, features), the map that few samples leave as it is.

    Returns:
      decoder (rank, features) and bias (features,), float64.
    """
    value, x = np.asarray(value, np.float64), np.asarray(x, np.float64)
    value_mean, x_mean = value.mean(0), x.mean(0)
    centred = value - value_mean
    gram = centred.T @ centred / len(value)
    ridge = RIDGE * max(np.trace(gram) / len(gram), 1e-30)
    cross = centred.T @ (x - x_mean) / len(value)
    decoder = np.linalg.solve(gram + ridge * np.eye(len(gram)), cross + ridge * prior)
    return decoder, x_mean - value_mean @ decoder


def fit(
    code: Code,
    params: dict[str, Params],
    x: np.ndarray,
    rank: int,
    axes: str,
    sensitivity: np.ndarray | None,
    refit: bool,
) -> tuple[dict[str, Params], Maps]:
    """A code fitted between two maps, and the maps; see `Boundary.calibrate` for the options.

    Args:
      code: with `rank` features.
      params: the code's.
      x: (samples, features).
      rank: of the maps.
      axes: one of `AXES`.
      sensitivity: (features, features) metric, (rank,) weights, or None.
      refit: the way back by regression on what arrives.

    Raises:
      ValueError: unknown axes, or "features" of another rank.
    """
    if axes not in AXES:
        raise unknown_name("axes", axes, AXES)
    metric = None if sensitivity is None or np.ndim(sensitivity) < 2 else sensitivity
    weight = sensitivity if metric is None else None
    if axes == "principal":
        maps = principal_axes(x, rank, metric)  # which counts for the metric
    elif rank == x.shape[1]:
        maps = feature_axes(x)
        weight = weight if metric is None else metric.diagonal()
    else:
        raise ValueError(
            f"calibrate: axes='features' needs rank=features={x.shape[1]}, not rank={rank}"
        )
    seen = jnp.asarray(x @ maps.encoder, jnp.float32)
    fitted = calibrate.fit(code, params, seen, weight)
    if refit:
        symbols = code.to_wire(fitted["encoder"], code.encode(fitted["encoder"], seen))
        arrived = code.from_wire(fitted["decoder"], symbols, jnp.float32)
        value = np.asarray(code.decode(fitted["decoder"], arrived))
        maps = Maps(maps.encoder, *best_decoder(value, x, maps.decoder))
    return unit_variance(fitted, maps, np.asarray(seen, np.float64).std(0))


def unit_variance(
    fitted: dict[str, Params], maps: Maps, deviation: np.ndarray
) -> tuple[dict[str, Params], Maps]:
    """The same function with every feature that the code sees at variance 1.

    An optimiser such as Adam moves all entries of a matrix by about as much. On axes whose
    variances differ by orders of magnitude that would, in a few steps, undo the small ones.

    Args:
      fitted: parameters of a code.
      maps: around it.
      deviation: (rank,) of what the code sees; axes along which next to nothing varies are left
        smaller than 1.
    """
    if "gain" not in fitted["encoder"]:
        return fitted, maps
    scale = np.maximum(deviation, FLAT * max(deviation.max(), 1e-30))
    as_param = lambda array: jnp.asarray(array, jnp.float32)
    encoder, decoder = fitted["encoder"], fitted["decoder"]
    turned = {
        "encoder": {
            **encoder,
            "gain": as_param(encoder["gain"] * scale),
            "offset": as_param(encoder["offset"] / scale),
        },
        "decoder": {
            **decoder,
            "gain": as_param(decoder["gain"] / scale),
            "offset": as_param(decoder["offset"] / scale),
        },
    }
    return turned, Maps(maps.encoder / scale, scale[:, None] * maps.decoder, maps.bias)
