"""The model and the boundary that a run's config describes."""

from typing import Any

from snapjax.boundary import Boundary
from zoo.config.specs import ModelSpec
from zoo.models.calibration import METHODS, PLAIN
from zoo.models.model import Model
from zoo.models.registry import budget_of, create_model, default_boundary


def build_model(spec: ModelSpec, **sizes: Any) -> Model:
    """The model of a run.

    Args:
      spec: which model, and what lies on its boundaries.
      sizes: config fields that the data set decides, such as classes or vocabulary.

    Raises:
      ValueError: an unknown name, or values that do not go together.
    """
    changed = {
        name: getattr(spec, name)
        for name in ("layers", "width", "heads", "mlp_width")
        if getattr(spec, name) is not None
    }
    model = create_model(
        spec.name,
        spec.variant,
        spec.stages,
        dropout=spec.dropout,
        precision=spec.precision,
        **changed,
        **sizes,
    )
    return model.with_boundary(build_boundary(spec, model.config.width))


def build_boundary(spec: ModelSpec, width: int) -> Boundary:
    """The boundary between two stages of a model of this width.

    Raises:
      ValueError: an unknown code, or options of spikes for a code that has none.
    """
    default = default_boundary(width, spec.variant)
    boundary = Boundary(
        width,
        code=default.code if spec.code is None else spec.code,
        steps=spec.steps,
        budget=budget_of(width, spec.bits_per_feature),
        surrogate=spec.gradient() or default.surrogate,
        gradient_wire=spec.gradient_wire,
    )
    if spec.surrogate is not None and not boundary.spiking:
        raise ValueError(
            f"model.surrogate={spec.surrogate!r} is for spikes, but "
            f"model.code={boundary.code!r} has none; leave it out"
        )
    if spec.calibration != PLAIN and not boundary.spiking:
        raise ValueError(
            f"model.calibration={spec.calibration!r} fits spikes, but "
            f"model.code={boundary.code!r} has none; leave it out"
        )
    return METHODS[spec.calibration].shape(boundary)
