"""A trained model cut without training: samples of a data source, a method, and by what it won."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax

from snapjax.boundary import Boundary
from snapjax.errors import unknown_name
from zoo.data import DataSpec
from zoo.embedding import similarity
from zoo.embedding.encoder import Encoder
from zoo.evaluation import inputs
from zoo.models import calibration
from zoo.models.model import Model, Params
from zoo.pretrained.pretrained_model import Pretrained
from zoo.pretrained.warm_start import partition

CRITERIA = ("output", "stsb")


def cut(
    loaded: Pretrained,
    spec: DataSpec,
    *,
    stages: int,
    boundary: Boundary,
    methods: Sequence[str] = calibration.DEFAULT,
    choose_by: str = "output",
    samples: int = 1024,
    batch_size: int = 64,
    seed: int = 0,
    progress: Callable[[str], None] = lambda step: None,
) -> Pretrained:
    """The model in pieces, every boundary fitted by the best of some methods to unlabelled samples.

    A quarter of the samples is held out from the fit, to choose the method by.

    Args:
      loaded: the model; what it has of boundaries is replaced.
      spec: where the samples are, see `zoo.evaluation.inputs.spec_for`.
      stages: pieces; must divide the layers.
      boundary: between them, of a spike code.
      methods: of `zoo.models.calibration.METHODS`.
      choose_by: "output", by `calibration.Target.error` on what is held out; or "stsb", by 1 -
        Spearman's correlation on the pairs and scores of the data.
      samples: how many are drawn.
      batch_size: samples a batch.
      seed: of the draw, and of the random projections of the output.
      progress: called with what is about to be done.

    Returns:
      the model, with "calibration" in its record: the "method", what it was "chosen_by", and the
      "errors" of all methods.

    Raises:
      ValueError: an unknown method or criterion, a model or data that do not fit.
    """
    if choose_by not in CRITERIA:
        raise unknown_name("choose_by", choose_by, CRITERIA)
    whole = partition(loaded, stages=stages, boundary=boundary)
    error = None
    if choose_by == "stsb":
        similarity.read_pairs(spec)  # what is wrong with them is said before anything is fitted

        def error(model: Model, params: Params) -> float:
            trial = replace(whole, model=model, params=params)
            encoder = Encoder.of(trial, split_special_tokens=spec.split_special_tokens)
            return 1 - similarity.score(encoder, spec)["spearman"]

    fitted, held_out = calibration.hold_out(inputs.batches(whole, spec, samples, batch_size, seed))
    model, params, errors = calibration.choose(
        whole.model, whole.params, fitted, held_out, methods,
        key=jax.random.key(seed), error=error, progress=progress,
    )  # fmt: skip
    best = min(errors, key=lambda method: errors[method])
    chosen = {"method": best, "chosen_by": choose_by, "errors": errors}
    record = {**loaded.record, "calibration": chosen}
    return replace(loaded, model=model, params=params, record=record)
