"""A whole hybrid in one safetensors file: parameters, boundaries, and what they are.

The metadata hold a JSON record: the family, every field of the config, the boundary, the tokenizer
and where the weights come from. So the file needs no preset, run or folder to be loaded again.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.config.specs import RunConfig
from zoo.config.values import from_dict
from zoo.models.model import Model, Params
from zoo.pretrained.arrays import digest, digest_of, serialise, to_arrays, to_params
from zoo.pretrained.hugging_face.tensors import Tensors
from zoo.pretrained.pretrained_model import Pretrained
from zoo.pretrained.record import RECORD, describe_fields, rebuild_fields
from zoo.pretrained.source import PREPROCESSING, PretrainedConfig, digests
from zoo.utils.files import parse_json, write_atomic
from zoo.utils.schema import OBJECT, TEXT, Maybe, Object, check

FORMAT = "snapjax-hybrid-1"
SOURCE = Object({"source": TEXT}, {"licence": Maybe(TEXT), "preprocessing": PREPROCESSING})
WHOLE = Object(
    {
        "family": TEXT,
        "config": OBJECT,
        "source": SOURCE,
        "record": RECORD,
        "tokenizer": Maybe(TEXT),
        "sha256": TEXT,
    }
)
"""The JSON in a file's metadata."""


def save(
    path: str | Path,
    model: Model,
    params: Params,
    source: PretrainedConfig,
    record: Mapping[str, Any] | None = None,
    tokenizer: str | None = None,
) -> Path:
    """Writes the file, whole or not at all.

    Args:
      path: should end in ".safetensors".
      model: with its boundary.
      params: canonical parameters, boundaries included.
      source: where the dense weights come from and what they expect.
      record: what else belongs to the weights, JSON-able; see `zoo.pretrained.record.RECORD`.
      tokenizer: text of a tokenizer.json.
    """
    arrays = to_arrays(params)
    whole = {
        **describe_fields(model),
        "source": asdict(source),
        "record": dict(record or {}),
        "tokenizer": tokenizer,
        "sha256": digest(arrays),
    }
    text = json.dumps(whole)
    metadata = {"format": FORMAT, "record": text, "sha256": digest_of(text)}
    write_atomic(path, serialise(arrays, metadata))
    return Path(path)


def load(path: str | Path) -> Pretrained:
    """What `save` was given; parameters bit for bit.

    Raises:
      ValueError: the file is damaged, of another format, or its parameters do not fit its config.
    """
    path = Path(path)
    tensors = Tensors([path])
    found = tensors.metadata.get("format")
    if found != FORMAT:
        raise ValueError(
            f"{path}: format={found!r} is not {FORMAT!r}, which this reads; of a Hugging Face "
            "model give the folder, which has the config"
        )
    try:
        whole = _record(tensors.metadata)
        model = rebuild_fields(whole)
        arrays = dict(tensors)
        if digest(arrays) != whole["sha256"]:
            raise ValueError("the tensors are not those of its SHA-256: the file is damaged")
        params = to_params(model, arrays)
        config = _run(whole["record"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error
    origin = whole["source"]
    source = PretrainedConfig(
        origin["source"], digests([path]), origin.get("licence"), origin.get("preprocessing", {})
    )
    return Pretrained(model, params, config, whole["record"], whole["tokenizer"], source)


def described(path: Path) -> tuple[Model, RunConfig | None]:
    """The model of a file and the config of the run that made it, without its weights.

    Raises:
      ValueError: the file is damaged, or of another format.
    """
    metadata = Tensors([path]).metadata
    try:
        whole = _record(metadata)
        return rebuild_fields(whole), _run(whole["record"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


def _run(record: Any) -> RunConfig | None:
    """The config of the run that made a model; None for weights of others."""
    has = isinstance(record, Mapping) and "config" in record
    return from_dict(record["config"]) if has else None


def _record(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The record in a file's metadata, which must be the one that its digest is of."""
    text = metadata.get("record", "")
    # Files of before have none: the record then speaks for the tensors alone.
    if metadata.get("sha256", digest_of(text)) != digest_of(text):
        raise ValueError("its record is not that of its SHA-256: the file is damaged")
    return check(parse_json(text, "its record"), WHOLE, "its record")
