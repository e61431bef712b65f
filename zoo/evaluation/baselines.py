"""What a user would put on the link instead: one dense model's cuts scored beside every wire."""

from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np
from jax.sharding import Mesh

from snapjax.boundary import Boundary
from zoo.config.specs import RunConfig
from zoo.data import Data
from zoo.evaluation import compare
from zoo.models.build import build_boundary
from zoo.models.model import Params
from zoo.pretrained.pretrained_model import Pretrained
from zoo.train.start import calibrated
from zoo.train.step import Trainer, evaluate
from zoo.utils.progress import Begin, silent, within

WIRES = ("bfloat16", "int8", "int4", "int2", "topk")  # tried with the ANN's weights as they are


def calibrate(ann: Pretrained, config: RunConfig, data: Data) -> Pretrained:
    """A dense model cut as a run's config says, its boundaries fitted and nothing trained.

    Args:
      ann: with dense boundaries, in as many stages as the config's.
      config: whose model.calibration says how.
      data: to whose training split the boundaries are fitted.
    """
    boundary = build_boundary(config.model, ann.model.config.width)
    model = ann.model.with_boundary(boundary)
    fresh = model.with_new_boundaries(ann.params, jax.random.key(config.train.seed))
    params = calibrated(model, fresh, data, config)
    model = model.with_boundary(boundary.shrink_to_plan(params["boundaries"]))
    record = {**ann.record, "calibration": {"method": config.model.calibration}}
    return replace(ann, model=model, params=params, record=record)


def rows(
    ann: Pretrained,
    cuts: Sequence[Pretrained],
    data: Data,
    mesh: Mesh,
    progress: Begin = silent,
) -> list[compare.Record]:
    """The table of a dense model and of what was made of it for other boundaries.

    Every wire stands with the dense weights as they are, and beside it those of `cuts` with the
    same boundary; the column of the weights tells where each comes from.

    Args:
      ann: with dense boundaries.
      cuts: the same model calibrated or trained for other boundaries; the first that spikes gives
        top-k its budget.
      data: that all are scored on.
      mesh: that they are scored on.
      progress: told how many samples of each row are scored.

    Raises:
      ValueError: they do not belong together.
    """
    for cut in cuts:
        check_pair(ann, cut)
    spiking = [cut.model.boundary for cut in cuts if cut.model.boundary.spiking]
    if ann.model.boundary.spiking or not spiking:
        codes = ", ".join(repr(loaded.model.boundary.code) for loaded in (ann, *cuts))
        raise ValueError(f"boundaries {codes}: give the dense run first, then the spiking one")
    width = ann.model.config.width
    wires = [Boundary(width, name, budget=spiking[0].budget) for name in WIRES]
    entries = [("dense", wire, ann.params) for wire in (ann.model.boundary, *wires)]
    entries += [(_origin(cut), cut.model.boundary, cut.params) for cut in cuts]
    alike: dict[tuple[object, ...], list[tuple[str, Boundary, Params]]] = {}
    for entry in entries:
        key = entry[1].code, entry[1].steps, entry[1].budget, entry[1].rank
        alike.setdefault(key, []).append(entry)
    made = []
    for group in alike.values():
        # Their plans may keep different numbers of features.
        loose = replace(group[0][1], kept_features=None)
        # One trainer for all of them, which compiles once.
        trainer = Trainer(ann.model.with_boundary(loose), ann.config.train, 1, mesh)
        for weights, boundary, params in group:
            begin = within(progress, f"{weights}, {boundary.code}")
            state = trainer.init_state(params)
            scores = evaluate(trainer, state, data.validation, progress=begin)
            rate = None if scores.spike_rate is None else float(np.mean(scores.spike_rate))
            figures = {"accuracy": scores.accuracy, "loss": scores.loss}
            record = compare.record(boundary, weights, figures, rate)
            made.append({**record, "samples": scores.samples})
    return made


def check_pair(ann: Pretrained, cut: Pretrained) -> None:
    """Raises ValueError when a cut is of another model, or was trained on other data."""
    one, other = ann.model.config, cut.model.config
    if (one.name, one.stages) != (other.name, other.stages):
        raise ValueError(
            f"{one.name} in {one.stages} stages and {other.name} in {other.stages} are no pair; "
            "give runs of one model"
        )
    if compare.data_of(ann.record) != compare.data_of(cut.record):
        raise ValueError("the runs were trained on different data; give runs on the same")


def _origin(cut: Pretrained) -> str:
    """Which training a cut's weights come from."""
    if {"teacher", "calibration"} & cut.record.keys():
        return compare.weights_of(cut.record)
    return "trained with spikes" if cut.model.boundary.spiking else "trained"
