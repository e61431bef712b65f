"""Whole tables: some trained models on one data set; a dense and a spiking run of one model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from snapjax.boundary import Boundary
from snapjax.parallel.sharding import make_mesh
from zoo.config.presets import command
from zoo.evaluation import baselines, compare
from zoo.evaluation.inputs import data_for, spec_for
from zoo.evaluation.score import score_any
from zoo.pretrained.load import load_pretrained
from zoo.pretrained.pretrained_model import Pretrained
from zoo.pretrained.warm_start import partition
from zoo.utils.files import read_json
from zoo.utils.progress import Begin, silent, within
from zoo.utils.schema import NUMBER, WHOLE, Object

CODES = ("float32", *baselines.WIRES)
"""The dense wires that a user would pick."""
SUMMARY = Object({"parameters": WHOLE, "seconds": NUMBER})
"""What is read of a run's summary.json."""


def of_models(
    dense: Pretrained,
    cut: Sequence[Pretrained],
    source: str,
    assignments: Sequence[str] = (),
    *,
    task: str | None = None,
    codes: Sequence[str] = CODES,
    batch_size: int = 100,
    earlier: Path | None = None,
    progress: Begin = silent,
) -> dict[str, Any]:
    """The dense model behind every code, and the cut ones as they are, scored on one data set.

    Args:
      dense: cut as the first of `cut` is, and where the code is top-k with its budget.
      cut: at least one.
      source: of the data, for `spec_for`, which reads them as each model needs them.
      assignments: how they are read, such as ["data.text_column=sentence"].
      task: for `score_any`.
      codes: of the dense model's boundaries.
      batch_size: samples a batch.
      earlier: a table whose other rows are kept, in a file of this function's results; one that is
        not there has none.
      progress: told how much of each row is scored.

    Returns:
      "model", "stages", "task", "data", "jax" and "rows", JSON-able.

    Raises:
      ValueError: models and data that do not fit, or an earlier table of something else.
    """
    first = cut[0].model
    about = {
        "model": first.config.name,
        "stages": first.config.stages,
        "task": task or first.config.task,
        "data": Path(source).name,
        "jax": jax.__version__,
    }
    there = lambda: compare.rows_of(earlier, about) if earlier and earlier.exists() else []
    there()  # an error in it is said before anything is scored

    def row(loaded: Pretrained, weights: str) -> compare.Record:
        result = score_any(
            loaded, spec_for(loaded, source, assignments), task, batch_size=batch_size,
            progress=within(progress, f"{weights}, {loaded.model.boundary.code}"),
        )  # fmt: skip
        scores = {name: result[name] for name in compare.SCORES if name in result}
        rates = result.get("spike_rate")
        rate = sum(rates) / len(rates) if rates else None
        made = compare.record(loaded.model.boundary, weights, scores, rate)
        return {**made, "samples": result["samples"]}

    rows = []
    for code in codes:
        wire = Boundary(first.config.width, code, budget=first.boundary.budget)
        rows.append(row(partition(dense, stages=first.config.stages, boundary=wire), "dense"))
    rows += [row(loaded, compare.weights_of(loaded.record)) for loaded in cut]
    # Read only now: others may have added to it while these were scored.
    return {**about, "rows": compare.added(there(), rows)}


def of_runs(ann: Path, hnn: Path, hardware: str, progress: Begin = silent) -> dict[str, Any]:
    """A dense and a spiking run of one model, with every other wire between; see `baselines.rows`.

    Args:
      ann, hnn: folders of the finished runs.
      hardware: what trained them, for the record.
      progress: told how much of each row is scored.

    Returns:
      "rows", what the model and its data are, and the "commands" and "minutes" of the runs;
      JSON-able.

    Raises:
      ValueError: a run that is not there or not finished, or runs that are no pair.
    """
    folders = {"ann": ann, "hnn": hnn}
    for folder in folders.values():
        if folder.is_dir() and not (folder / "summary.json").is_file():
            raise ValueError(
                f"{folder}: has no summary.json, which a run writes at its end; go on with it by "
                "--resume, or give the folder of a finished run"
            )
    loaded = {name: load_pretrained(folder) for name, folder in folders.items()}
    summaries = {
        name: read_json(folder / "summary.json", SUMMARY) for name, folder in folders.items()
    }
    baselines.check_pair(loaded["ann"], loaded["hnn"])
    config, model = loaded["hnn"].config, loaded["hnn"].model.config
    data = data_for(loaded["hnn"], config.data.without_augmentation())
    # On one device, whatever the mesh of the runs was: there may be no more here.
    cuts = [baselines.calibrate(loaded["ann"], config, data), loaded["hnn"]]
    rows = baselines.rows(loaded["ann"], cuts, data, make_mesh(stage=1), progress)
    return {
        "model": model.name,
        "parameters": summaries["hnn"]["parameters"],
        "stages": model.stages,
        "task": config.data.task,
        "data": Path(config.data.source).name,
        "commands": {name: command(loaded[name].config) for name in folders},
        "minutes": {name: summaries[name]["seconds"] / 60 for name in folders},
        "hardware": hardware,
        "jax": jax.__version__,
        "rows": rows,
    }
