"""A trained model cut without training: samples of some sources, a method, and by what it won."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import jax

from snapjax.boundary import Boundary
from snapjax.errors import unknown_name
from zoo.data import DataSpec
from zoo.embedding import similarity
from zoo.embedding.encoder import Encoder
from zoo.evaluation import agreement, inputs
from zoo.models import calibration
from zoo.models.model import Model, Params
from zoo.pretrained.pretrained_model import Pretrained
from zoo.pretrained.warm_start import partition
from zoo.utils.progress import Begin, silent

CRITERIA = ("output", "stsb")


def cut(
    loaded: Pretrained,
    specs: DataSpec | Sequence[DataSpec],
    *,
    others: Sequence[DataSpec] = (),
    stages: int,
    boundary: Boundary,
    methods: Sequence[str] = calibration.DEFAULT,
    choose_by: str = "output",
    samples: int = 1024,
    batch_size: int = 64,
    seed: int = 0,
    progress: Begin = silent,
) -> Pretrained:
    """The model in pieces, every boundary fitted by the best of some methods to unlabelled samples.

    A quarter of the samples is held out from the fit, to choose the method by. A cut loses more on
    other kinds of data than on those that it was fitted to: give several sources, of which as many
    samples are drawn each, and look at the agreement on others.

    Args:
      loaded: the model; what it has of boundaries is replaced.
      specs: where the samples are, one or several; see `zoo.evaluation.inputs.spec_for`.
      others: sources to tell the agreement on, fitted to none of their samples.
      stages: pieces; must divide the layers.
      boundary: between them, of a spike code.
      methods: of `zoo.models.calibration.METHODS`.
      choose_by: "output", by `calibration.Target.error` on what is held out; or "stsb", by 1 -
        Spearman's correlation on the pairs and scores of the first source.
      samples: how many are drawn, of all sources together.
      batch_size: samples a batch.
      seed: of the draw, and of the random projections of the output.
      progress: told how many boundaries are fitted, over all methods, and how much is scored.

    Returns:
      the model, with "calibration" in its record: the "method", what it was "chosen_by", the
      "errors" of all methods, the names of the sources that it was "fitted_to", and by source the
      "agreement" with the model in one piece (`zoo.evaluation.agreement.between`), of the sources
      fitted to on the samples held out.

    Raises:
      ValueError: an unknown method or criterion, a model or data that do not fit.
    """
    if choose_by not in CRITERIA:
        raise unknown_name("choose_by", choose_by, CRITERIA)
    specs = [specs] if isinstance(specs, DataSpec) else list(specs)
    if not specs:
        raise ValueError("specs=[]: give at least one source of samples")
    names = source_names([*specs, *others])
    _check_different([*specs, *others])
    loaded = loaded.scaled_by(specs[0])
    whole = partition(loaded, stages=stages, boundary=boundary)
    error = None
    if choose_by == "stsb":
        similarity.read_pairs(specs[0])  # what is wrong with them is said before anything is fitted

        def error(model: Model, params: Params) -> float:
            trial = replace(whole, model=model, params=params)
            encoder = Encoder.of(trial, split_special_tokens=specs[0].split_special_tokens)
            return 1 - similarity.score(encoder, specs[0], progress)["spearman"]

    share = -(-samples // len(specs))
    kinds = [
        calibration.hold_out(inputs.batches(whole, spec, share, batch_size, seed)) for spec in specs
    ]
    fitted, held_out = ([batch for kind in kinds for batch in kind[part]] for part in (0, 1))
    total, count = len(methods) * (stages - 1), itertools.count()
    done = progress("boundaries fitted", total)
    model, params, errors = calibration.choose(
        whole.model, whole.params, fitted, held_out, methods,
        key=jax.random.key(seed), error=error, progress=lambda step: done(next(count), step),
    )  # fmt: skip
    done(total)
    unseen = [inputs.batches(whole, spec, share, batch_size, seed) for spec in others]
    dense, agreements = whole.model.cut(1), {}
    done = progress("agreement with the dense model", len(names))
    for name, batches in zip(names, [*(kind[1] for kind in kinds), *unseen], strict=True):
        agreements[name] = round(agreement.on(model, params, dense, whole.params, batches), 4)
        done(len(agreements))
    chosen = {
        "method": min(errors, key=lambda method: errors[method]),
        "chosen_by": choose_by,
        "errors": errors,
        "fitted_to": names[: len(specs)],
        "agreement": agreements,
    }
    record = {**loaded.record, "calibration": chosen}
    return replace(loaded, model=model, params=params, record=record)


def source_names(specs: Sequence[DataSpec]) -> list[str]:
    """The sources without their folders, with the column of the texts where one source is given
    with several; where two have one name still, with a number behind."""
    columns: dict[str, set[str]] = {}
    for spec in specs:
        columns.setdefault(spec.source, set()).add(spec.text_column)
    names: list[str] = []
    for spec in specs:
        name = f"{spec.named}:{spec.text_column}" if len(columns[spec.source]) > 1 else spec.named
        same = sum(each.partition(" #")[0] == name for each in names)
        names.append(f"{name} #{same + 1}" if same else name)
    return names


def _check_different(specs: Sequence[DataSpec]) -> None:
    """Raises ValueError where one source is given twice: of data that were fitted to, "not fitted
    to" would be said."""
    for one, other in itertools.combinations(specs, 2):
        columns = ({each.text_column, each.text_pair_column} - {None} for each in (one, other))
        if one.source == other.source and set.intersection(*columns):
            raise ValueError(
                f"{one.named}: is given twice; give each source, or each of its columns, once, to "
                "be fitted to or to tell the agreement on"
            )


def measure_of(choose_by: str, task: str) -> str:
    """What the errors are that `cut` chooses a method by.

    Args:
      choose_by: one of `CRITERIA`.
      task: of the model.
    """
    if choose_by == "stsb":
        return "1 - Spearman's correlation with the scores of the data"
    if task == "encode":
        return "1 - CKA of the embeddings, cut and dense, on samples held out (0: the same)"
    return "squared error of the output over the dense output's variance, on samples held out"
