"""Cutting a trained model with no training: every boundary fitted to a few unlabelled samples.

The boundaries are fitted in sequence, so that a later one sees the earlier ones' error. Which
errors matter is measured, not assumed: the metric of a cut is the mean of g g^T over tokens, g the
gradient, at a token of the cut, of a random projection of the model's output.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from snapjax.boundary import Boundary
from snapjax.errors import check_types, unknown_name
from zoo.data import Batch
from zoo.models.finite import check_finite
from zoo.models.layers import output
from zoo.models.model import Model, Params, real_tokens, without_boundaries

DRAWS = 4  # random projections of each sample's output


@dataclass(frozen=True)
class Method:
    """A way of fitting a boundary; see `Boundary.calibrate`.

    Attributes:
      rotate: onto the principal axes, which costs both ends a matrix.
      sensitive: errors count by the output's sensitivity, otherwise all alike.
      refit: the receiver's matrix is fitted to what arrives.
    """

    rotate: bool
    sensitive: bool
    refit: bool

    def shape(self, boundary: Boundary) -> Boundary:
        """The boundary with matrices at its ends where the method fits any, else as it is."""
        if not (self.rotate or self.refit):
            return boundary
        return replace(boundary, rank=boundary.features, kept_features=None)


METHODS = {
    f"{axes}{'_refit' if refit else ''}": Method(rotate, sensitive, refit)
    for axes, rotate, sensitive in (
        ("variance", False, False),
        ("sensitivity", False, True),
        ("pca", True, False),
        ("sensitivity_pca", True, True),
    )
    for refit in (False, True)
}

PLAIN = "variance"
"""What `Model.calibrate` does by itself, for dense codes too."""

DEFAULT = ("sensitivity_refit", "sensitivity_pca_refit", "variance_refit")


def calibrate(
    model: Model,
    params: Params,
    batches: Sequence[Batch],
    method: str,
    *,
    key: jax.Array,
    progress: Callable[[str], None] = lambda step: None,
) -> tuple[Model, Params]:
    """A model with spiking boundaries, and its parameters with every boundary fitted.

    Args:
      model: cut, with the code, steps and budget that the boundaries shall have; whether they have
        a projection is the method's.
      params: canonical; the boundaries in them, if any, are replaced.
      batches: the family's inputs; tokens that "attention_mask" leaves out are not fitted to, nor
        are rows of "weight" 0.
      method: one of `METHODS`.
      key: of the random projections of the output.
      progress: called with what is about to be done.

    Raises:
      ValueError: an unknown method, a model in one piece, or dense boundaries.
    """
    _check(model, method)
    config, how = model.config, METHODS[method]
    boundary = how.shape(replace(model.boundary, rank=None, kept_features=None))
    model = model.with_boundary(boundary)
    params = model.with_new_boundaries(params, key)
    axes = "principal" if how.rotate else "features"

    def fit(stage: int, samples: np.ndarray, states: list[jax.Array]) -> Params:
        progress(f"boundary {stage + 1} of {config.stages - 1}")
        metric = None
        if how.sensitive:
            draw = jax.random.fold_in(key, stage)
            metric = sensitivity(model, params, stage, states, batches, draw)
        fresh = boundary.init(jax.random.fold_in(key, stage))
        return boundary.calibrate(fresh, samples, metric, axes, how.refit)

    return model, model.calibrate(params, *batches, fit=fit)


def sensitivity(
    model: Model,
    params: Params,
    stage: int,
    states: Sequence[jax.Array],
    batches: Sequence[Batch],
    key: jax.Array,
) -> np.ndarray:
    """The metric of the cut after `stage`, float64 (width, width).

    What follows the cut is taken without its own boundaries. For a small error e at one token,
    e^T M e is the mean squared change of a random projection of the output, up to a factor.

    Args:
      model, params: the model.
      stage: that the cut follows.
      states: (batch, tokens, width) of each batch at the cut.
      batches: the family's inputs.
      key: of the projections.
    """

    @jax.jit  # parameters are an argument: closed over, they would be constants of the program
    def slope(params: Params, x: jax.Array, batch: Batch, key: jax.Array) -> jax.Array:
        def projected(x: jax.Array) -> jax.Array:
            for later in range(stage + 1, model.config.stages):
                x = model.run_stage(model.stage_blocks(params, later), x, batch)
            out = output(model.head(params, x, batch))
            return (out * jax.random.normal(key, out.shape, out.dtype)).sum()

        return jax.grad(projected)(x)

    width = model.config.width
    metric, tokens = np.zeros((width, width)), 0
    for index, (x, batch) in enumerate(zip(states, batches, strict=True)):
        keep = real_tokens(batch)
        for draw in range(DRAWS):
            own = jax.random.fold_in(key, index * DRAWS + draw)
            rows = np.asarray(slope(params, x, batch, own), np.float64)[keep].reshape(-1, width)
            metric += rows.T @ rows
            tokens += len(rows)
    return metric / max(tokens, 1)


@dataclass(frozen=True, eq=False)
class Target:
    """What a dense model makes of some samples.

    Attributes:
      batches: the family's inputs.
      output: float64 (samples, ...), embeddings or logits.
    """

    batches: Sequence[Batch]
    output: np.ndarray

    @classmethod
    def of(cls, dense: Model, params: Params, batches: Sequence[Batch]) -> "Target":
        """The outputs of a model in one piece; boundaries in `params` are ignored.

        Raises:
          ValueError: they are all alike, as those of one sample are.
        """
        made = np.concatenate(outputs(dense, without_boundaries(params), batches))
        if not (made - made.mean(0)).any():
            raise ValueError(
                f"{dense.config.name}: {len(made)} held-out samples have one output, so that no "
                "error can be told; give more samples"
            )
        return cls(batches, made)

    def error(self, model: Model, params: Params) -> float:
        """How far the output of a cut model is from this.

        Of embeddings, whose similarities are what is used: 1 - CKA, the linear centred kernel
        alignment of the two sets (Kornblith et al. 2019, arXiv 1905.00414), blind to scale and
        rotation. Of logits: the squared error over the dense model's variance.
        """
        made, wanted = np.concatenate(outputs(model, params, self.batches)), self.output
        centred = wanted - wanted.mean(0)
        if model.config.task != "encode":
            return float(((made - wanted) ** 2).sum() / (centred**2).sum())
        made = made - made.mean(0)
        norm = np.linalg.norm
        aligned = norm(made.T @ centred) ** 2
        return float(1 - aligned / (norm(made.T @ made) * norm(centred.T @ centred)))


def outputs(model: Model, params: Params, batches: Sequence[Batch]) -> list[np.ndarray]:
    """Of every batch, float64 (samples, ...): embeddings or logits of samples of weight above 0.

    Raises:
      FloatingPointError: a boundary or the output met NaN or infinity.
    """

    # Parameters are an argument: closed over, they would be constants of the compiled program.
    @jax.jit
    def apply(params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
        made, result = model.apply(params, batch)
        return output(made), result.stats.finite

    made = []
    for batch in batches:
        rows: Any = slice(None)
        if "weight" in batch and np.ndim(batch["weight"]) == 1:
            rows = np.asarray(batch["weight"]) > 0
        each, finite = jax.device_get(apply(params, batch))
        check_finite(f"{model.config.name}, held-out samples", finite, each)
        made.append(each.astype(np.float64)[rows])
    return made


def hold_out(batches: Sequence[Batch]) -> tuple[list[Batch], list[Batch]]:
    """What to fit to, and every fourth batch from the second to choose by; one batch alone is both.

    Every fourth, because batches of texts may come in order of length: both parts have all lengths.
    """
    held_out = list(batches[1::4])
    fitted = [*batches[::2], *batches[3::4]]
    return fitted, held_out or fitted


def choose(
    model: Model,
    params: Params,
    batches: Sequence[Batch],
    held_out: Sequence[Batch],
    methods: Sequence[str],
    *,
    key: jax.Array,
    error: Callable[[Model, Params], float] | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> tuple[Model, Params, Mapping[str, float]]:
    """The best of several methods: the one of least error.

    Args:
      model, params, batches, key, progress: as of `calibrate`.
      held_out: samples that none is fitted to.
      methods: names of `METHODS`, at least one.
      error: of a cut model; None for `Target.error` on `held_out`.

    Returns:
      the cut model, its parameters, and every method's error.
    """
    if not methods:
        raise ValueError("methods=[]: name at least one")
    for method in methods:
        _check(model, method)
    error = error or Target.of(model.cut(1), params, held_out).error
    best, errors = None, {}
    for method in methods:
        made = calibrate(
            model, params, batches, method, key=key,
            progress=lambda step, method=method: progress(f"{method}: {step}"),
        )  # fmt: skip
        errors[method] = error(*made)
        if best is None or errors[method] < best[0]:
            best = errors[method], made
    return *best[1], errors


def _check(model: Model, method: str) -> None:
    """Raises ValueError for an unknown method, a model in one piece, or dense boundaries."""
    check_types("calibrate", {"model": (model, Model), "method": (method, str)})
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    config = model.config
    if config.stages == 1:
        raise ValueError(f"{config.name}: stages=1 has no boundary; cut it into 2 or more")
    if not model.boundary.spiking:
        raise ValueError(
            f"{config.name}: code={model.boundary.code!r} has nothing to fit; choose a spike code"
        )
