"""The record of a saved model: what it holds, what makes a model again from it, and its checks.

A record is JSON: `config.json` of a model folder, a file beside the arrays of a checkpoint, and a
part of the metadata of a single file. It describes the model in one of two ways: by the config of
the run that made it (`describe`, `rebuild`), or by every field of the model's own config
(`describe_fields`, `rebuild_fields`), which needs neither a run nor a preset.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
from typing import Any

from snapjax.boundary import Boundary
from snapjax.errors import unknown_name
from zoo.config.fields import coerce
from zoo.config.specs import RunConfig
from zoo.config.values import from_dict, to_dict
from zoo.models.build import build_model
from zoo.models.model import Model
from zoo.models.registry import FAMILIES, registered
from zoo.pretrained.source import PREPROCESSING, PretrainedConfig
from zoo.utils.schema import NUMBER, OBJECT, TEXT, TEXTS, WHOLE, ListOf, Maybe, Object, check

FORMAT = "snapjax-1"

RECORD = Object(
    optional={
        # What describes the model, of a run.
        "format": TEXT,  # `FORMAT`
        "model": TEXT,  # the name in the model's config
        "config": OBJECT,  # of the run
        "sizes": OBJECT,  # fields of the model's config that the data or the teacher decided
        "boundary": OBJECT,  # see `Boundary.to_dict`
        # What the weights expect, and how they came about.
        "data": PREPROCESSING,  # and which data they were
        "tokenizer": Maybe(TEXT),  # text of a tokenizer.json; only beside a checkpoint
        "labels": TEXTS,  # names of the classes, of weights of others
        "teacher": Object(optional={"source": TEXT, "sha256": OBJECT, "parameters": TEXT}),
        # See `zoo.evaluation.cut`.
        "calibration": Object(optional={"method": TEXT, "chosen_by": TEXT, "errors": OBJECT}),
        "step": WHOLE,
        "metrics": Maybe(OBJECT),  # of the run's own validation; None between evaluations
        "window": Maybe(ListOf(OBJECT)),  # steps since the last line of metrics, of a checkpoint
        "seconds": NUMBER,  # of training so far, of a checkpoint
        # Of a model folder.
        "sha256": TEXT,  # of the weights
        "bytes": WHOLE,  # of the weights
        # What it is built on.
        "base": Object({"name": TEXT, "parameters": TEXT, "tokenizer": Maybe(TEXT)}),
        # Of a model that ships.
        "name": TEXT,  # MODEL.TAG
        # Command, data, licences, limits.
        "card": Object(optional={"licence": Maybe(TEXT)}),
        "scores": OBJECT,  # what `snapjax evaluate` printed of it
        # And of task "agreement", by source.
        "agreement": ListOf(Object({"data": TEXT, "agreement": NUMBER})),
    }
)
"""What a record may hold, each where it is known. Others' keys are let be."""

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
    check(record, RECORD, "the record")
    if missing := sorted({*DESCRIPTION} - record.keys()):
        raise ValueError(f"the record lacks {missing}")
    config = from_dict(record["config"])
    with _damaged(KeyError, TypeError):
        model = build_model(config.model, **record["sizes"])
    with _damaged(TypeError, ValueError):
        boundary = Boundary.from_dict(record["boundary"])
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
      ValueError: an unknown family or field, one that is missing, or a value out of range.
    """
    if description["family"] not in FAMILIES:
        raise unknown_name("family", description["family"], FAMILIES)
    family, found = FAMILIES[description["family"]], dict(description["config"])
    known = {entry.name: entry for entry in fields(family.config)}
    if unknown := sorted(found.keys() - known.keys()):
        raise ValueError(f"config fields {', '.join(unknown)} are not known")
    needed = {name for name, entry in known.items() if entry.default is MISSING}
    if missing := sorted(needed - found.keys()):
        raise ValueError(f"config fields {', '.join(missing)} are missing")
    check(found["boundary"], OBJECT, "config", "boundary")
    with _damaged(TypeError, ValueError):
        boundary = Boundary.from_dict(found.pop("boundary"))
    values = {name: coerce(family.config, name, value, "config") for name, value in found.items()}
    return Model(family.functions, family.config(**values, boundary=boundary))


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
