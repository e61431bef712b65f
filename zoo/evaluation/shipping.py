"""A finished run as a model that ships: weights, config, tokenizer and a card."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.config.data import is_path
from zoo.config.specs import RunConfig
from zoo.config.values import to_dict
from zoo.evaluation.cards import card
from zoo.evaluation.compare import SCORES
from zoo.models.model import Model
from zoo.pretrained.load import load_pretrained
from zoo.pretrained.locate import SHIPPED
from zoo.pretrained.model_folder import export
from zoo.utils.files import read_json, write_atomic
from zoo.utils.schema import NUMBER, NUMBERS, TEXT, WHOLE, Object, check

SUMMARY = Object(
    {**dict.fromkeys(("samples", "steps"), WHOLE), **dict.fromkeys(("seconds", "loss"), NUMBER)},
    {**dict.fromkeys(("accuracy", "cosine"), NUMBER), "spike_rate": NUMBERS},
)
"""What a card says of a run's summary.json."""
EVALUATED = Object(
    {
        **dict.fromkeys(("model", "code", "task"), TEXT),
        **dict.fromkeys(("stages", "samples"), WHOLE),
    },
    {**dict.fromkeys((*SCORES, "agreement"), NUMBER), "data": TEXT},
)
"""What `snapjax evaluate --json` prints of a model."""


def ship(
    run: Path,
    name: str,
    facts: Mapping[str, str],
    hardware: str,
    *,
    base: str | None = None,
    scores: Sequence[Path] = (),
    out: Path = SHIPPED,
) -> Path:
    """Writes the folder of a model that ships.

    Args:
      run: folder of a finished run.
      name: MODEL.TAG, such as "vit_nano_patch2_8.hnn_digits".
      facts: for the card, see `zoo.evaluation.cards.card`.
      hardware: what trained it.
      base: a model that it is built on, see `zoo.pretrained.model_folder.export`.
      scores: files of what `snapjax evaluate --json` printed of it: of a task, where the run's own
        validation is not what it is judged by, and of "agreement" on any number of sources.
      out: folder of all models.

    Returns:
      the model's folder.

    Raises:
      ValueError: no finished run, a name that does not fit it, or scores of another model.
    """
    loaded = load_pretrained(run)
    _check_name(name, loaded.model)
    config = without_paths(loaded.config)
    record = {key: value for key, value in loaded.record.items() if key != "tokenizer"}
    record |= {"config": to_dict(config), "name": name, "card": dict(facts)}
    for key in ("scores", "agreement"):  # of a model that this one began as
        record.pop(key, None)
    for path in scores:
        read = read_scores(path, loaded.model)
        if read["task"] == "agreement":
            record.setdefault("agreement", []).append(read)
        else:
            record["scores"] = read
    summary = read_json(run / "summary.json", SUMMARY)
    if "teacher" in record:  # what it was is kept, where it lay is left out
        record["teacher"] = {**record["teacher"], "source": config.distill.teacher}
    folder = export(out / name, loaded.params, record, loaded.tokenizer, base)
    text = card(name, load_pretrained(folder), summary | {"hardware": hardware}, dict(facts))
    write_atomic(folder / "README.md", text)
    return folder


def without_paths(config: RunConfig) -> RunConfig:
    """A run's config for others: a path says where a file was on one machine; its last part says
    what it was."""
    source, teacher = config.data.source, config.distill.teacher
    return replace(
        config,
        data=replace(config.data, source=Path(source).name if is_path(source) else source),
        model=replace(config.model, init_from=None),
        distill=replace(
            config.distill,
            teacher=Path(teacher).name if teacher and Path(teacher).exists() else teacher,
        ),
    )


def read_scores(path: Path, model: Model) -> dict[str, Any]:
    """What `snapjax evaluate --json` printed of a model.

    Raises:
      ValueError: it is something else, or of another model.
    """
    scores = read_json(path)
    missing = {"model", "stages", "code", "task", "samples"} - scores.keys()
    if missing or not {*SCORES, "agreement"} & scores.keys():
        raise ValueError(
            f"{path} lacks {sorted(missing) or 'a score'}; give what `snapjax evaluate --json` "
            "printed"
        )
    check(scores, EVALUATED, str(path))
    wanted = {"model": model.config.name, "stages": model.config.stages,
              "code": model.boundary.code}  # fmt: skip
    given = {key: scores[key] for key in wanted}
    if given != wanted:
        raise ValueError(f"{path} is of another model: {given}, not {wanted}")
    return scores


def _check_name(name: str, model: Model) -> None:
    first, _, tag = name.partition(".")
    if first != model.config.name or not re.fullmatch(r"\w[\w.-]*", tag):
        raise ValueError(
            f"name={name!r} must be MODEL.TAG, here {model.config.name}.TAG, with letters, digits, "
            "'_', '-' and '.'"
        )
