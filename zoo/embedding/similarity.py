"""Semantic textual similarity: do embeddings rank pairs of sentences as people do?

The score of STS-B (Cer et al. 2017, arXiv 1708.00055) is Spearman's rank correlation between the
cosine of two embeddings and the pair's grade.
"""

from typing import Any

import numpy as np
from scipy.stats import spearmanr

from zoo.data import DataSpec
from zoo.data.sources import read_rows
from zoo.data.tokenizer import checked_texts
from zoo.embedding.encoder import Encoder
from zoo.models.model import Model
from zoo.utils.progress import Begin, silent

COLUMNS = {
    "text_column": "sentence1",
    "text_pair_column": "sentence2",
    "label_column": "score",
}


def read_pairs(spec: DataSpec) -> tuple[list[str], list[str], np.ndarray]:
    """Both sentences and the grade (float64) of every pair.

    Args:
      spec: a file, whose rows are all taken, or a folder or Hub name, of which the validation split
        is; and the names of the columns.

    Raises:
      ValueError: a column or a value that is not there, or is no number.
    """
    table = read_rows(spec, validation=True)
    if spec.text_pair_column is None:
        raise ValueError(
            f"{spec.source}: similarity is of two texts, and the column of one, "
            f"{spec.text_column!r}, is named; set data.text_pair_column to that of the other"
        )
    pair = [
        table.texts(spec.text_column, "text_column", missing=True),
        table.texts(spec.text_pair_column, "text_pair_column", missing=True),
    ]
    for name, column in zip((spec.text_column, spec.text_pair_column), pair, strict=True):
        for row, text in enumerate(column):
            if text is None or not text.strip():
                raise ValueError(f"{table.place(row)} has no text in column {name!r}; remove it")
    grades = np.empty(len(table))
    for row, value in enumerate(table.column(spec.label_column, "label_column")):
        grades[row] = _grade(value)
        if not np.isfinite(grades[row]):
            raise ValueError(
                f"{table.place(row)} holds {value!r} in column {spec.label_column!r}; a grade is "
                "a finite number"
            )
    if len(grades) < 2 or np.ptp(grades) == 0:
        raise ValueError(
            f"{table.where}: has {len(grades)} grades, none of which differ; give pairs with "
            "different ones, which can be ranked"
        )
    return pair[0], pair[1], grades


def _grade(value: Any) -> float:
    """A grade as a number, NaN of what is none; Python would read "1_0" as ten, and True as one."""
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        return np.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return np.nan


def cosines(
    encoder: Encoder, texts: list[str], others: list[str], progress: Begin = silent
) -> np.ndarray:
    """The cosine of the embeddings of each pair, float64 (pairs,)."""
    checked = [*checked_texts(texts), *checked_texts(others)]
    both = unit(encoder.embed(checked, progress).astype(np.float64))
    return (both[: len(texts)] * both[len(texts) :]).sum(1)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors, (n, width), at length 1; those of length 0 stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def score(encoder: Encoder, spec: DataSpec, progress: Begin = silent) -> dict[str, Any]:
    """One JSON-able object with "spearman", "samples" and "bits_per_token".

    `progress` is told how many texts are embedded.
    """
    texts, others, grades = read_pairs(spec)
    ranked = cosines(encoder, texts, others, progress)
    if np.ptp(ranked) == 0:
        raise ValueError(
            f"{spec.source}: the model gives all {len(ranked)} pairs the cosine {ranked[0]:.4f}, "
            "which ranks none of them; give other pairs, or look at the weights"
        )
    return {
        "model": encoder.model.config.name,
        "task": "stsb",
        "spearman": float(spearmanr(ranked, grades).statistic),
        "samples": len(grades),
        **boundary_figures(encoder.model),
    }


def boundary_figures(model: Model) -> dict[str, Any]:
    """ "stages", and of a model with boundaries their "code", "bits_per_token" and a feature."""
    boundary, cut = model.boundary, model.config.stages > 1
    return {
        "stages": model.config.stages,
        "code": boundary.code if cut else None,
        "bits_per_token": 8 * boundary.bytes_per_token if cut else None,
        "bits_per_feature": 8 * boundary.bytes_per_token / boundary.features if cut else None,
    }
