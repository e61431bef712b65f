"""What a user would put on the link instead: a trained pair of models scored on every wire."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from snapjax.boundary import Boundary
from zoo.data import Data
from zoo.evaluation import compare
from zoo.models.model import Model
from zoo.pretrained.pretrained_model import Pretrained
from zoo.train.start import calibrated
from zoo.train.step import Trainer, evaluate

WIRES = ("bfloat16", "int8", "int4", "int2", "topk")  # tried with the ANN's weights as they are


def rows(ann: Pretrained, hnn: Pretrained, data: Data, mesh: Mesh) -> list[compare.Record]:
    """The table of a pair: each wire and calibrated spikes on the ANN's weights, and the HNN.

    Args:
      ann: with dense boundaries.
      hnn: the same model, trained with spikes on them.
      data: that both are scored on, and whose training split calibrates the untrained spikes.
      mesh: that they are scored on.

    Raises:
      ValueError: they are no pair.
    """
    config, dense = hnn.config, ann.params
    if (ann.model.config.name, ann.model.config.stages) != (
        hnn.model.config.name,
        hnn.model.config.stages,
    ):
        raise ValueError(
            f"{ann.model.config.name} in {ann.model.config.stages} stages and "
            f"{hnn.model.config.name} in {hnn.model.config.stages} are no pair; give two runs of "
            "one model"
        )
    if ann.model.boundary.spiking or not hnn.model.boundary.spiking:
        raise ValueError(
            f"boundaries {ann.model.boundary.code!r} and {hnn.model.boundary.code!r}: give the "
            "dense run first, then the spiking one"
        )
    if ann.record["data"]["sha256"] != hnn.record["data"]["sha256"]:
        raise ValueError("the two runs were trained on different data; give two on the same")

    def row(model: Model, params: Any, weights: str) -> compare.Record:
        trainer = Trainer(model, config.train, 1, mesh)
        scores = evaluate(trainer, trainer.init_state(params), data.validation)
        rate = float(np.mean(scores.spike_rate)) if model.boundary.spiking else None
        figures = {"accuracy": scores.accuracy, "loss": scores.loss}
        record = compare.record(model.boundary, weights, figures, rate)
        return {**record, "samples": scores.samples}

    made = [row(ann.model, dense, "dense")]
    for name in WIRES:
        # The budget is the spikes'; only top-k looks at it.
        wire = Boundary(ann.model.config.width, name, budget=hnn.model.boundary.budget)
        made.append(row(ann.model.with_boundary(wire), dense, "dense"))
    # The plan that training kept may keep fewer features than the one fitted here.
    loose = hnn.model.with_boundary(replace(hnn.model.boundary, kept_features=None))
    fresh = loose.with_new_boundaries(dense, jax.random.key(config.train.seed))
    made.append(row(loose, calibrated(loose, fresh, data, config), "dense, calibrated"))
    made.append(row(hnn.model, hnn.params, "trained with spikes"))
    return made
