"""A trained model as a folder: `config.json`, `model.safetensors`, `tokenizer.json`, a card.

A folder may be built on another model: what is equal in that one is left out, and taken from there
when the folder is loaded.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from snapjax.errors import unknown_name
from zoo.models.model import Params, without_boundaries
from zoo.pretrained import locate, published
from zoo.pretrained.arrays import (
    Arrays,
    digest,
    digest_of,
    serialise,
    to_arrays,
    to_params,
)
from zoo.pretrained.hugging_face.known import KNOWN
from zoo.pretrained.hugging_face.tensors import WEIGHTS, Tensors
from zoo.pretrained.locate import CONFIG
from zoo.pretrained.pretrained_model import Pretrained
from zoo.pretrained.record import FORMAT, rebuild, source_of
from zoo.pretrained.source import digests
from zoo.utils.files import read_json, read_text, write_atomic, write_json
from zoo.utils.trees import flatten

TOKENIZER = "tokenizer.json"


def export(
    folder: str | Path,
    params: Params,
    record: Mapping[str, Any],
    tokenizer: str | None = None,
    base: str | None = None,
) -> Path:
    """Writes a model folder; each file is whole or absent, the config last.

    Args:
      folder: made if absent.
      params: canonical parameters.
      record: from `record.describe`, with anything else that belongs to the weights.
      tokenizer: text of a tokenizer.json.
      base: a model that ships or is known by name. What is equal in it, and the tokenizer if that
        is, is left out.

    Raises:
      ValueError: the base is not here, not one that may be named, or the folder itself.
    """
    folder, arrays = Path(folder), to_arrays(params)
    record = {key: value for key, value in record.items() if key != "base"}
    if base is not None:
        if (locate.SHIPPED / base).resolve() == folder.resolve():
            raise ValueError(f"base={base!r} is the model to be written; name the one below it")
        below = load_base(base)
        arrays = below.missing_in(arrays)
        record["base"] = {"name": base, "parameters": below.digest, "tokenizer": None}
        if tokenizer is not None and tokenizer == below.tokenizer:
            record["base"]["tokenizer"], tokenizer = digest_of(tokenizer), None
    content = serialise(arrays, {"format": FORMAT})
    if tokenizer is None:
        (folder / TOKENIZER).unlink(missing_ok=True)  # of a model that was here before
    else:
        write_atomic(folder / TOKENIZER, tokenizer)
    write_atomic(folder / WEIGHTS, content)
    sha256 = hashlib.sha256(content).hexdigest()
    write_json(folder / CONFIG, {**record, "sha256": sha256, "bytes": len(content)})
    return folder


def load(folder: Path) -> Pretrained:
    """The model of a folder that `export` wrote.

    Raises:
      ValueError: it is damaged, of another format, or its base is not here.
    """
    record = read_json(folder / CONFIG)
    try:
        model, config = rebuild(record)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    sha256 = digests([folder / WEIGHTS])[WEIGHTS]
    if sha256 != record.get("sha256"):
        raise ValueError(
            f"{folder / WEIGHTS}: SHA-256 {sha256} is not the {record.get('sha256')} of its "
            f"{CONFIG}; the file is damaged or not the one that belongs here: copy it again"
        )
    try:
        below = _base_of(record)
        # Its other boundaries, or another head, are no part of this model.
        wanted = flatten(model.param_shape).keys()
        taken = {name: array for name, array in below.arrays.items() if name in wanted}
        params = to_params(model, {**taken, **Tensors([folder / WEIGHTS])})
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    tokenizer, path = below.tokenizer, folder / TOKENIZER
    if path.is_file():
        tokenizer = read_text(path)
    source = source_of(record, folder.name, {WEIGHTS: sha256})
    return Pretrained(model, params, config, record, tokenizer, source)


@dataclass(frozen=True)
class Base:
    """What a model folder leaves out because another model has it.

    Attributes:
      arrays: that model's parameters without its boundaries, by name.
      tokenizer: text of its tokenizer.json, or None.
    """

    arrays: Arrays = field(default_factory=dict)
    tokenizer: str | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the arrays, their names, dtypes and shapes."""
        return digest(self.arrays)

    def missing_in(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """Those of the arrays that the base has not, or has otherwise."""
        return {
            name: array
            for name, array in arrays.items()
            if name not in self.arrays
            or array.dtype != self.arrays[name].dtype
            or not np.array_equal(array, self.arrays[name])
        }


def load_base(name: str) -> Base:
    """By the name of a model alone, whatever lies in the working directory: a folder's config names
    it, and must not choose what is read or fetched beyond these.

    Raises:
      ValueError: no such name, or the model is not here, or is itself built on another.
    """
    found = locate.named(name)
    if found is None:
        raise unknown_name("base", name, [*locate.list_pretrained(), *KNOWN])
    path, source = found
    if source is not None:
        loaded = published.check_known(published.load(path, source=source), name, source)
    elif "base" in read_json(path / CONFIG):
        raise ValueError(f"base={name!r} is itself built on another model; name that one")
    else:
        loaded = load(path)
    return Base(to_arrays(without_boundaries(loaded.params)), loaded.tokenizer)


def _base_of(record: Mapping[str, Any]) -> Base:
    """What a model folder's record takes from another model; empty where it is whole."""
    if "base" not in record:
        return Base()
    named = record["base"]
    base = load_base(named["name"])
    text = base.tokenizer if named["tokenizer"] is not None else None
    for part, sha256 in (
        ("parameters", base.digest),
        ("tokenizer", text and digest_of(text)),
    ):
        if sha256 != named[part]:
            raise ValueError(
                f"it is built on {named['name']} with {part} of SHA-256 {named[part]}, and those "
                f"here have {sha256}: other weights of that name"
            )
    return replace(base, tokenizer=text)
