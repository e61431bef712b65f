"""Trained weights in another model: cut anew, pooled in another way, or where a run starts."""

from dataclasses import replace

import jax

from snapjax.boundary import Boundary
from snapjax.errors import check_types
from zoo.models.model import Model, Params, without_boundaries
from zoo.models.registry import default_boundary
from zoo.pretrained.pretrained_model import Pretrained
from zoo.utils.trees import flatten, unflatten


def partition(
    loaded: Pretrained,
    variant: str | None = None,
    stages: int | None = None,
    boundary: Boundary | str | None = None,
) -> Pretrained:
    """A trained model cut in another way, its boundaries new and not calibrated.

    Args:
      loaded: the model.
      variant, stages, boundary: as in `create_model`; None keeps what there is. A cut that is the
        model's own keeps its boundaries.
    """
    check_types(
        "partition",
        {"loaded": (loaded, Pretrained), "variant": (variant, str | None),
         "stages": (stages, int | None),
         "boundary": (boundary, Boundary | str | None)},
    )  # fmt: skip
    if variant is None and stages is None and boundary is None:
        return loaded
    width = loaded.model.config.width
    if isinstance(boundary, str):
        boundary = Boundary(width, code=boundary)
    if boundary is None and variant is not None:
        boundary = default_boundary(width, variant)
    model = loaded.model.cut(loaded.model.config.stages if stages is None else stages, boundary)
    if model == loaded.model:
        return loaded
    params = model.with_new_boundaries(loaded.params, jax.random.key(0))
    return replace(loaded, model=model, params=params)


def pooled(loaded: Pretrained, pooling: str) -> Pretrained:
    """An encoder of texts that makes its embedding in a stated way.

    Args:
      loaded: the model.
      pooling: "mean" or "first".

    Raises:
      ValueError: no encoder, or another way of pooling.
    """
    config = loaded.model.config
    if config.task != "encode":
        raise ValueError(f"pooling={pooling!r} is for encoders; {config.name} is for {config.task}")
    model = replace(loaded.model, config=replace(config, pooling=pooling))
    known = {key: value for key, value in loaded.source.preprocessing.items() if key != "pooling"}
    return replace(loaded, model=model, source=replace(loaded.source, preprocessing=known))


def start_from(loaded: Pretrained, model: Model, key: jax.Array) -> tuple[Params, bool]:
    """Parameters for `model` out of a trained one, and whether its boundaries are still to fit.

    Everything but the boundaries must have the same shapes. Boundaries of the same code are kept.

    Raises:
      ValueError: lists the parameters that differ.
    """
    fresh = model.init(key)
    dense = unflatten(flatten(without_boundaries(loaded.params)), without_boundaries(fresh))
    same = loaded.model.config.stages == model.config.stages and (
        _kind(loaded.model.boundary) == _kind(model.boundary)
    )
    if "boundaries" in fresh:
        dense["boundaries"] = loaded.params.get("boundaries", {}) if same else fresh["boundaries"]
    return dense, not same


def _kind(boundary: Boundary) -> Boundary:
    """What two boundaries must share for the parameters of one to fit the other."""
    return replace(boundary, kept_features=None, gradient_wire="float32")
