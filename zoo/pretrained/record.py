"""The record of a saved model: what it holds, what makes a model again from it, and its checks.

A record is JSON: `config.json` of a model folder, a file beside the arrays of a checkpoint, and a
part of the metadata of a single file. It describes the model in one of two ways: by the config of
the run that made it (`describe`, `rebuild`), or by every field of the model's own config
(`describe_fields`, `rebuild_fields`), which needs neither a run nor a preset.
"""

import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Any

from snapjax.boundary import Boundary
from snapjax.errors import unknown_name
from zoo.config.specs import RunConfig
from zoo.config.values import from_dict, to_dict
from zoo.models.build import build_model
from zoo.models.model import Model
from zoo.models.registry import FAMILIES, registered
from zoo.pretrained.source import PretrainedConfig

FORMAT = "snapjax-1"

KEYS: dict[str, type | tuple[type, ...]] = {
    # What describes the model, of a run.
    "format": str,  # `FORMAT`
    "model": str,  # the name in the model's config
    "config": dict,  # of the run
    "sizes": dict,  # fields of the model's config that the data or the teacher decided
    "boundary": dict,  # see `Boundary.to_dict`
    # What the weights expect, and how they came about.
    "data": dict,  # preprocessing, and which data they were
    "tokenizer": (str, type(None)),  # text of a tokenizer.json; only beside a checkpoint
    "labels": list,  # names of the classes, of weights of others
    "teacher": dict,  # see `zoo.train.distillation`
    "calibration": dict,  # "method", "chosen_by" and "errors", see `zoo.evaluation.cut`
    "step": int,
    "metrics": (dict, type(None)),  # of the run's own validation; None between evaluations
    # Of a model folder.
    "sha256": str,  # of the weights
    "bytes": int,  # of the weights
    "base": dict,  # "name", "parameters" and "tokenizer" of what it is built on
    # Of a model that ships.
    "name": str,  # MODEL.TAG
    "card": dict,  # command, data, licences, limits
    "scores": dict,  # what `snapjax evaluate` printed of it
}
"""What a record may hold, each where it is known, and of which type. Others' keys are let be."""

DESCRIPTION = ("config", "sizes", "boundary")


def describe(
    model: Model, config: RunConfig, sizes: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, Any]:
    """The record from which `rebuild` makes the model again; JSON-able.

    Args:
      model: whose boundary is written; the config's may have been shrunk since.
      config: of the run.
      sizes: fields of the model's config that the data or the teacher decided.
      data: preprocessing.
    """
    return {
        "format": FORMAT,
        "model": model.config.name,
        "config": to_dict(config),
        "sizes": dict(sizes),
        "boundary": model.boundary.to_dict(),
        "data": dict(data),
    }


def rebuild(record: Mapping[str, Any]) -> tuple[Model, RunConfig]:
    """The model of a record and the config of its run.

    Raises:
      ValueError: a record of another format, or one with unknown, missing or damaged entries.
    """
    if record.get("format") != FORMAT:
        raise ValueError(f"format={record.get('format')!r} is not {FORMAT!r}, which this reads")
    if missing := sorted({*DESCRIPTION} - record.keys()):
        raise ValueError(f"the record lacks {missing}")
    config = from_dict(record["config"])
    with _damaged(KeyError, TypeError):
        model = build_model(config.model, **record["sizes"])
    with _damaged(TypeError, ValueError):
        boundary = Boundary.from_dict(record["boundary"])
    check_types(record)
    return model.with_boundary(boundary), config


def describe_fields(model: Model) -> dict[str, Any]:
    """What `rebuild_fields` makes the model of again: its family and its config; JSON-able."""
    return {
        "family": registered(model).name,
        "config": {**asdict(model.config), "boundary": model.boundary.to_dict()},
    }


def rebuild_fields(description: Mapping[str, Any]) -> Model:
    """The model of `describe_fields`.

    Raises:
      ValueError: an unknown family or field, or a value out of range.
      KeyError: a part is missing.
    """
    if description["family"] not in FAMILIES:
        raise unknown_name("family", description["family"], FAMILIES)
    family, values = FAMILIES[description["family"]], dict(description["config"])
    unknown = sorted(values.keys() - {entry.name for entry in fields(family.config)})
    if unknown:
        raise ValueError(f"config fields {', '.join(unknown)} are not known")
    values["boundary"] = Boundary.from_dict(values["boundary"])
    return Model(family.functions, family.config(**values))


def check_types(record: Any) -> dict[str, Any]:
    """The record as a dict.

    Raises:
      ValueError: no JSON object, or a known entry of another type.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"record: a JSON object is needed, got {type(record).__name__}")
    for key, value in record.items():
        if not isinstance(value, KEYS.get(key, object)):
            raise ValueError(
                f"the record's {key}={reprlib.repr(value)} is damaged: it has another type"
            )
    return dict(record)


def source_of(record: Mapping[str, Any], name: str, sha256: Mapping[str, str]) -> PretrainedConfig:
    """Where a model of ours comes from.

    Args:
      record: of the model.
      name: of its folder.
      sha256: of its weight files.
    """
    licence = record.get("card", {}).get("licence")
    return PretrainedConfig(record.get("name", name), sha256, licence, record.get("data", {}))


@contextmanager
def _damaged(*errors: type[Exception]) -> Iterator[None]:
    """Turns errors of what JSON may hold instead into one that says so."""
    try:
        yield
    except errors as error:
        raise ValueError(f"the record's boundary or sizes are damaged: {error!r}") from error
