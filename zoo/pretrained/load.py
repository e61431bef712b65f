"""Trained models as folders: `config.json`, `model.safetensors`, `tokenizer.json`, a card.

`load_pretrained` takes the name of a model that ships with the package, such a folder, the folder
of a run, a checkpoint, or a folder of Hugging Face transformers, and gives the model with its
parameters and what belongs to them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snapjax.boundary import Boundary
from snapjax.errors import unknown_name
from zoo import checkpoint
from zoo.config.old_names import current_parameter
from zoo.config.specs import RunConfig
from zoo.config.values import from_dict, to_dict
from zoo.models.build import build_model
from zoo.models.model import Model, Params
from zoo.models.registry import default_boundary
from zoo.pretrained import single_file
from zoo.pretrained.hugging_face import folder as hugging_face
from zoo.pretrained.hugging_face.known import KNOWN
from zoo.pretrained.locate import CONFIG, SHIPPED, find, list_pretrained, named
from zoo.pretrained.source import PretrainedConfig, check_digests, digests
from zoo.utils.files import read_json, write_atomic, write_json
from zoo.utils.trees import flatten, unflatten

WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
FORMAT = "snapjax-1"


@dataclass(frozen=True)
class Pretrained:
    """A trained model.

    Attributes:
      model: as it was trained, its boundaries included.
      params: canonical parameters.
      config: of the run that made it; None for weights of others.
      record: what was saved beside the weights: "data" (preprocessing), "metrics", "step" and, in a
        shipped model, "sha256", "card" (command, data, licences, limits) and where it is built on
        weights of others their "base".
      tokenizer: text of a tokenizer.json, or None.
      source: where the weights come from and what they expect.
    """

    model: Model
    params: Params
    config: RunConfig | None
    record: dict[str, Any]
    tokenizer: str | None
    source: PretrainedConfig


def describe(
    model: Model, config: RunConfig, sizes: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, Any]:
    """The record from which `rebuild` makes the model again; JSON-able."""
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
      ValueError: a record of another format, or one with unknown or missing keys.
    """
    if record.get("format") != FORMAT:
        raise ValueError(f"format={record.get('format')!r} is not {FORMAT!r}, which this reads")
    missing = {"config", "sizes", "boundary"} - set(record)
    if missing:
        raise ValueError(f"the record lacks {sorted(missing)}")
    config = from_dict(record["config"])
    try:
        model = build_model(config.model, **record["sizes"])
        return model.with_boundary(Boundary.from_dict(record["boundary"])), config
    except (KeyError, TypeError) as error:  # of what JSON may hold instead
        raise ValueError(f"the record's boundary or sizes are damaged: {error!r}") from error


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
      record: from `describe`, with anything else that belongs to the weights.
      tokenizer: text of a tokenizer.json.
      base: a model that ships or is known by name. What is equal in it, and the tokenizer if that
        is, is left out, and taken from there when the folder is loaded.

    Raises:
      ValueError: the base is not here, not one that may be named, or the folder itself.
    """
    from safetensors.flax import save

    folder = Path(folder)
    flat = {name: jnp.asarray(leaf) for name, leaf in flatten(params).items()}
    record = {key: value for key, value in record.items() if key != "base"}
    if base is not None:
        if (SHIPPED / base).resolve() == folder.resolve():
            raise ValueError(f"base={base!r} is the model to be written; name the one below it")
        below = _base(base)
        flat = {
            name: leaf
            for name, leaf in flat.items()
            if name not in below.tensors or not _equal(leaf, below.tensors[name])
        }
        record["base"] = {"name": base, "parameters": below.digest, "tokenizer": None}
        if tokenizer is not None and tokenizer == below.tokenizer:
            record["base"]["tokenizer"], tokenizer = single_file.digest_of(tokenizer), None
    content = save(flat, metadata={"format": FORMAT})
    if tokenizer is None:
        (folder / TOKENIZER).unlink(missing_ok=True)  # of a model that was here before
    else:
        write_atomic(folder / TOKENIZER, tokenizer)
    write_atomic(folder / WEIGHTS, content)
    digest = hashlib.sha256(content).hexdigest()
    write_json(folder / CONFIG, {**record, "sha256": digest, "bytes": len(content)})
    return folder


def load_pretrained(
    name: str | Path,
    averaged: bool = True,
    *,
    variant: str | None = None,
    stages: int | None = None,
    boundary: Boundary | str | None = None,
    task: str | None = None,
    ignore: Sequence[str] = (),
    sha256: Mapping[str, str] | None = None,
) -> Pretrained:
    """A trained model by name, model folder, run folder, checkpoint or Hugging Face folder.

    Args:
      name: one of `list_pretrained()`, a preset whose weights others publish ("minilm_l6"), the
        path of a folder or of one safetensors file, or a Hub id, "organisation/name" or
        "organisation/name@revision". Of the folder of a run the exported model is taken, or while
        it still runs its newest checkpoint.
      averaged: of a checkpoint, take the moving average of the weights where there is one.
      variant, stages, boundary: cut the model so, as in `create_model`, with new boundaries that
        are not calibrated; None keeps what was loaded. A Hugging Face model comes uncut, stages=1.
      task: of a Hugging Face model, which head to take; None for the one it was saved with.
      ignore: of a Hugging Face model, patterns of tensors that may be left out.
      sha256: of the weight files, by name, where you know what they must be.

    Raises:
      ValueError: nothing there, or it is damaged, of another format or of another model.

    Example:
      >>> load_pretrained("vit_nano_patch2_8.hnn_digits").model.boundary.bytes_per_token
      8
    """
    path, source = find(name)
    loaded = _load(path, averaged, task, ignore, source)
    if source is not None:
        loaded = _as_published(loaded, str(name), source)
    if sha256 is not None:
        check_digests(loaded.source.sha256, sha256, str(name))
    return partition(loaded, variant, stages, boundary)


def _as_published(loaded: Pretrained, name: str, source: str) -> Pretrained:
    """Weights of others, checked if a preset's name stands for them."""
    if (known := KNOWN.get(name)) is None:
        return loaded
    check_digests(loaded.source.sha256, known.sha256, source)
    return replace(loaded, source=replace(loaded.source, licence=known.licence))


def _load(
    path: Path, averaged: bool, task: str | None, ignore: Sequence[str], source: str | None
) -> Pretrained:
    """By what is in the folder or file."""
    if (path / "model" / CONFIG).is_file():
        path = path / "model"
    if path.is_dir() and hugging_face.is_folder(path):
        return _load_hugging_face(path, task, ignore, source)
    if task is not None or ignore:
        raise ValueError(f"{path}: task and ignore are for Hugging Face folders; this is none")
    if path.is_file():
        return _load_file(path)
    if (path / CONFIG).is_file() and (path / WEIGHTS).is_file():
        return _load_folder(path)
    return _load_checkpoint(path, averaged)


def partition(
    loaded: Pretrained,
    variant: str | None = None,
    stages: int | None = None,
    boundary: Boundary | str | None = None,
) -> Pretrained:
    """A trained model cut in another way, its boundaries new and not calibrated.

    Args:
      loaded: the model.
      variant, stages, boundary: as in `create_model`; None keeps what there is.
    """
    if variant is None and stages is None and boundary is None:
        return loaded
    width = loaded.model.config.width
    if isinstance(boundary, str):
        boundary = Boundary(width, code=boundary)
    if boundary is None and variant is not None:
        boundary = default_boundary(width, variant)
    model = loaded.model.cut(loaded.model.config.stages if stages is None else stages, boundary)
    params = model.with_new_boundaries(loaded.params, jax.random.key(0))
    return replace(loaded, model=model, params=params)


def _load_hugging_face(
    folder: Path, task: str | None, ignore: Sequence[str], source: str | None
) -> Pretrained:
    found = hugging_face.load(folder, task, ignore)
    origin = PretrainedConfig(
        source or folder.name, digests(found.files), found.licence, found.preprocessing
    )
    record = {"labels": found.labels} if found.labels else {}
    return Pretrained(found.model, found.params, None, record, found.tokenizer, origin)


def _load_file(path: Path) -> Pretrained:
    model, params, source, record, tokenizer = single_file.load(path)
    source = replace(source, sha256=digests([path]))
    return Pretrained(model, params, None, record, tokenizer, source)


def _load_folder(folder: Path) -> Pretrained:
    from safetensors import SafetensorError
    from safetensors.flax import load

    record = read_json(folder / CONFIG)
    content = (folder / WEIGHTS).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != record.get("sha256"):
        raise ValueError(
            f"{folder / WEIGHTS}: SHA-256 {digest} is not the {record.get('sha256')} of its "
            f"{CONFIG}; the file is damaged or not the one that belongs here: copy it again"
        )
    try:
        model, config = rebuild(record)
        below = _base_of(record)
        # Its other boundaries, or another head, are no part of this model.
        wanted = flatten(_shapes(model)).keys()
        kept = {name: leaf for name, leaf in below.tensors.items() if name in wanted}
        tensors = {current_parameter(name): leaf for name, leaf in load(content).items()}
        params = unflatten({**kept, **tensors}, _shapes(model))
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"{folder}: {error}") from error
    tokenizer = folder / TOKENIZER
    text = below.tokenizer
    if tokenizer.is_file():
        text = tokenizer.read_text(encoding="utf-8")
    source = _source(record, folder.name, {WEIGHTS: digest})
    return Pretrained(model, params, config, record, text, source)


@dataclass(frozen=True)
class Base:
    """What a model folder leaves out because another model has it.

    Attributes:
      tensors: that model's parameters without its boundaries, by name.
      digest: their SHA-256.
      tokenizer: text of its tokenizer.json, or None.
    """

    tensors: Mapping[str, np.ndarray]
    digest: str
    tokenizer: str | None


def _base(name: str) -> Base:
    """By the name of a model alone, whatever lies in the working directory: a folder's config names
    it, and must not choose what is read or fetched beyond these."""
    found = named(name)
    if found is None:
        raise unknown_name("base", name, [*list_pretrained(), *KNOWN])
    path, source = found
    if source is None and "base" in read_json(path / CONFIG):
        raise ValueError(f"base={name!r} is itself built on another model; name that one")
    loaded = _load(path, True, None, (), source)
    if source is not None:
        loaded = _as_published(loaded, name, source)
    dense = {key: tree for key, tree in loaded.params.items() if key != "boundaries"}
    tensors = flatten(jax.device_get(dense))
    return Base(tensors, single_file.digest(tensors), loaded.tokenizer)


def _base_of(record: Mapping[str, Any]) -> Base:
    """What a model folder's record takes from another model; empty where it is whole."""
    if "base" not in record:
        return Base({}, "", None)
    named = record["base"]
    if not isinstance(named, Mapping) or not {"name", "parameters", "tokenizer"} <= named.keys():
        raise ValueError(f"the record's base={named!r} is damaged")
    base = _base(str(named["name"]))
    text = base.tokenizer if named["tokenizer"] is not None else None
    for part, digest in (
        ("parameters", base.digest),
        ("tokenizer", text and single_file.digest_of(text)),
    ):
        if digest != named[part]:
            raise ValueError(
                f"it is built on {named['name']} with {part} of SHA-256 {named[part]}, and those "
                f"here have {digest}: other weights of that name"
            )
    return replace(base, tokenizer=text)


def _equal(one: jax.Array, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other)


def _load_checkpoint(folder: Path, averaged: bool) -> Pretrained:
    run = folder if (folder / "checkpoints").is_dir() else None
    path = folder / "checkpoints" if run else folder
    record = checkpoint.load_record(path)
    try:
        model, config = rebuild(record)
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: {error}") from error
    part = "ema" if averaged and config.train.ema else "params"
    tree, record = checkpoint.load(path, {part: _shapes(model)}, model=model.config.name)
    source = _source(record, folder.name, {})
    return Pretrained(model, tree[part], config, record, record.get("tokenizer"), source)


def _source(record: Mapping[str, Any], name: str, sha256: Mapping[str, str]) -> PretrainedConfig:
    """Of a model of ours."""
    card = record.get("card", {})
    return PretrainedConfig(
        record.get("name", name), sha256, card.get("licence"), record.get("data", {})
    )


def start_from(loaded: Pretrained, model: Model, key: jax.Array) -> tuple[Params, bool]:
    """Parameters for `model` out of a trained one, and whether its boundaries are still to fit.

    Everything but the boundaries must have the same shapes. Boundaries of the same code are kept.

    Raises:
      ValueError: lists the parameters that differ.
    """
    fresh = model.init(key)
    ends = loaded.params.get("boundaries", {})
    same = loaded.model.config.stages == model.config.stages and (
        replace(loaded.model.boundary, kept_features=None, gradient_wire="float32")
        == replace(model.boundary, kept_features=None, gradient_wire="float32")
    )
    rest = {name: tree for name, tree in fresh.items() if name != "boundaries"}
    source = {name: value for name, value in flatten(loaded.params).items()}
    params = unflatten(
        {name: value for name, value in source.items() if not name.startswith("boundaries.")}, rest
    )
    if "boundaries" in fresh:
        params["boundaries"] = ends if same else fresh["boundaries"]
    return params, not same


def check_classes(loaded: Pretrained, data: Mapping[str, Any], source: str) -> None:
    """Raises ValueError when data have classes of other names than a model, or in another order.

    Args:
      loaded: the model.
      data: record of the data.
      source: of them, for the error.
    """
    trained = loaded.source.preprocessing.get("class_names") or loaded.record.get("labels")
    given = data.get("class_names")
    if trained and given and list(trained) != list(given):
        raise ValueError(
            f"data.source={source!r} has the classes {', '.join(map(str, given))}; the model "
            f"was trained for {', '.join(map(str, trained))}, in this order. Rename the data's"
        )


def _shapes(model: Model) -> Params:
    return jax.eval_shape(lambda key: model.init(key), jax.random.key(0))
