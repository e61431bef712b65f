"""How far a cut model decides as the dense one does, on data that nothing was fitted to.

A task's score alone flatters a cut: with nothing sent over the link a model can keep most of its
score on one benchmark while its answers on other kinds of data are no longer those of the dense
model.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import rankdata

from zoo.data import Batch, DataSpec
from zoo.data.tokenizer import read_tokenizer
from zoo.embedding.similarity import boundary_figures, unit
from zoo.evaluation import inputs
from zoo.models import calibration
from zoo.models.model import Model, Params, without_boundaries
from zoo.models.registry import registered
from zoo.pretrained.pretrained_model import Pretrained


def score(
    loaded: Pretrained,
    spec: DataSpec,
    *,
    dense: Pretrained | None = None,
    samples: int = 600,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, Any]:
    """One JSON-able object with "agreement", "samples" and "bits_per_token".

    Args:
      loaded: the model, usually cut.
      spec: where the samples are, see `zoo.evaluation.inputs.spec_for`.
      dense: the model to agree with; None for the same parameters in one piece, which are the dense
        model's where nothing but the boundaries was trained.
      samples, batch_size, seed: see `zoo.evaluation.inputs.batches`.

    Raises:
      ValueError: the models are of two tasks, or all parameters were trained and `dense` is None.
    """
    model, config = loaded.model, loaded.config
    fitted = "calibration" in loaded.record  # after the training, to what it ended with
    if dense is None and not fitted and config is not None and config.train.trainable == "all":
        teacher = config.distill.teacher
        if teacher is not None or model.config.stages > 1:
            raise ValueError(
                f"{model.config.name}: all its parameters were trained; give the model that it "
                f"shall agree with, {f'such as {teacher}' if teacher else 'its dense one'} "
                "(--against NAME, in Python dense=)"
            )
    dense = dense or replace(loaded, model=model.cut(1))
    if dense.model.config.task != model.config.task:
        raise ValueError(
            f"{dense.model.config.name} is for task={dense.model.config.task!r}, "
            f"{model.config.name} for {model.config.task!r}; compare models of one task"
        )
    dense = dense.in_order(loaded.class_names)
    _check_same_inputs(loaded, dense, spec)
    batches = inputs.batches(loaded, spec, samples, batch_size, seed)
    return {
        "model": model.config.name,
        "task": "agreement",
        "data": spec.named,
        "with": dense.model.config.name,
        "agreement": on(model, loaded.params, dense.model, dense.params, batches),
        "samples": int(sum((np.asarray(batch["weight"]) > 0).sum() for batch in batches)),
        **boundary_figures(model),
    }


def _check_same_inputs(loaded: Pretrained, dense: Pretrained, spec: DataSpec) -> None:
    """Raises ValueError where one batch is not the same sample to both models, or one class."""
    pair = loaded, dense
    names = [each.class_names for each in pair]
    if all(names) and names[0] != names[1]:
        differ = f"the classes {', '.join(names[0][:10])} and {', '.join(names[1][:10])}"
    elif all(each.tokenizer for each in pair) and _rules(loaded) != _rules(dense):
        differ = "two tokenizers"
    elif registered(loaded.model).inputs == "images" and not np.allclose(
        _scale(loaded, spec), _scale(dense, spec), rtol=1e-3
    ):
        differ = "two means or deviations of their images"
    else:
        return
    raise ValueError(
        f"{loaded.source.source} and {dense.source.source} have {differ}, so they cannot agree on "
        "one sample; give the dense model that the other was made from"
    )


def _rules(loaded: Pretrained) -> list[Any]:
    """What decides the ids of a text."""
    assert loaded.tokenizer is not None
    read = read_tokenizer(loaded.tokenizer, loaded.source.source).tokenizer
    made = json.loads(read.to_str())
    return [made[part] for part in ("normalizer", "pre_tokenizer", "model")]


def _scale(loaded: Pretrained, spec: DataSpec) -> tuple[Any, ...]:
    """What images are scaled by."""
    made = loaded.preprocessed(spec)
    return made.mean, made.std


def on(
    model: Model, params: Params, dense: Model, dense_params: Params, batches: Sequence[Batch]
) -> float:
    """The agreement of a model with a dense one on batches; see `between`."""
    task = model.config.task
    if dense.config.stages == 1:  # the parameters may be those of the cut model
        dense_params = without_boundaries(dense_params)
    wanted = answers(dense, dense_params, batches)
    return between(task, answers(model, params, batches), wanted)


def answers(model: Model, params: Params, batches: Sequence[Batch]) -> np.ndarray:
    """What `between` compares: of an encoder embeddings, of others the logits.

    Returns:
      float64 (samples, width or classes); of a masked LM (tokens that the loss counts, vocabulary).
    """
    made = calibration.outputs(model, params, batches)
    if model.config.task == "mlm":
        made = [
            each[np.asarray(batch["weight"]) > 0] for each, batch in zip(made, batches, strict=True)
        ]
    return np.concatenate(made)


def between(task: str, made: np.ndarray, wanted: np.ndarray) -> float:
    """Agreement of two sets of answers to the same samples, 1 where they are alike.

    Args:
      task: "encode": Spearman's correlation of the cosines of all pairs of samples. Else: the share
        of samples of which both say the same class, or token.
      made, wanted: (samples, width or classes).

    Raises:
      ValueError: fewer than 3 embeddings, or some without a direction.
    """
    if task != "encode":
        return float((made.argmax(-1) == wanted.argmax(-1)).mean())
    if len(made) < 3:
        raise ValueError(f"{len(made)} samples have too few pairs to rank; give at least 3")
    pairs = np.triu_indices(len(made), 1)
    ranks = [rankdata((unit(each) @ unit(each).T)[pairs]) for each in (made, wanted)]
    if not all(np.ptp(rank) for rank in ranks):
        raise ValueError("all pairs have one cosine, which no order tells apart; give other texts")
    return float(np.corrcoef(*ranks)[0, 1])
