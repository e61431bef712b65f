"""Trained models as folders: `config.json`, `model.safetensors`, `tokenizer.json`, a card.

`load_pretrained` takes the name of a model that ships with the package, such a folder, the folder
of a run, or a checkpoint, and gives the model with its parameters and what belongs to them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snapjax.boundary import Boundary
from snapjax.errors import unknown_name
from snapjax.parameters import split_plan
from snapjax.surrogate import Surrogate
from zoo import checkpoint
from zoo.files import write_atomic, write_json
from zoo.hybrid import Model, Params
from zoo.train.config import RunConfig, from_dict, to_dict

SHIPPED = Path(__file__).parent / "pretrained"
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
FORMAT = "snapjax-1"


@dataclass(frozen=True)
class Pretrained:
    """A trained model.

    Attributes:
      model: as it was trained, its boundaries included.
      params: canonical parameters.
      config: of the run that made it.
      record: what was saved beside the weights: "data" (preprocessing), "metrics", "step" and, in a
        shipped model, "sha256" and "card" (command, data, licences, limits).
      tokenizer: text of a tokenizer.json, or None.
    """

    model: Model
    params: Params
    config: RunConfig
    record: dict[str, Any]
    tokenizer: str | None


def list_pretrained() -> list[str]:
    """Names of the trained models that ship with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{CONFIG}"))


def describe(
    model: Model, config: RunConfig, sizes: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, Any]:
    """The record from which `rebuild` makes the model again; JSON-able."""
    return {
        "format": FORMAT,
        "model": model.config.name,
        "config": to_dict(config),
        "sizes": dict(sizes),
        "boundary": asdict(model.boundary),
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
    boundary = {**record["boundary"]}
    boundary["surrogate"] = Surrogate(**boundary["surrogate"])
    model = config.model.build(**record["sizes"])
    return model.with_boundary(Boundary(**boundary)), config


def export(
    folder: str | Path,
    params: Params,
    record: Mapping[str, Any],
    tokenizer: str | None = None,
) -> Path:
    """Writes a model folder; each file is whole or absent, the config last.

    Args:
      folder: made if absent.
      params: canonical parameters.
      record: from `describe`, with anything else that belongs to the weights.
      tokenizer: text of a tokenizer.json.
    """
    from safetensors.flax import save

    folder = Path(folder)
    flat = {name: jnp.asarray(leaf) for name, leaf in flatten(params).items()}
    content = save(flat, metadata={"format": FORMAT})
    if tokenizer is not None:
        write_atomic(folder / TOKENIZER, tokenizer)
    write_atomic(folder / WEIGHTS, content)
    digest = hashlib.sha256(content).hexdigest()
    write_json(folder / CONFIG, {**record, "sha256": digest, "bytes": len(content)})
    return folder


def load_pretrained(name: str | Path, averaged: bool = True) -> Pretrained:
    """A trained model by name, model folder, run folder or checkpoint.

    Args:
      name: one of `list_pretrained()`, or a path. Of the folder of a run the exported model is
        taken, or while it still runs its newest checkpoint.
      averaged: of a checkpoint, take the moving average of the weights where there is one.

    Raises:
      ValueError: nothing there, or it is damaged, of another format or of another model.

    Example:
      >>> load_pretrained("vit_nano_patch2_8.hnn_digits").model.boundary.bytes_per_token
      8
    """
    folder = Path(name)
    if not folder.is_dir():
        if str(name) not in list_pretrained():
            raise unknown_name("pretrained model or folder", name, list_pretrained())
        folder = SHIPPED / str(name)
    if (folder / "model" / CONFIG).is_file():
        folder = folder / "model"
    if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
        return _load_folder(folder)
    return _load_checkpoint(folder, averaged)


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
        params = unflatten(load(content), _shapes(model))
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"{folder}: {error}") from error
    tokenizer = folder / TOKENIZER
    text = tokenizer.read_text() if tokenizer.is_file() else None
    return Pretrained(model, params, config, record, text)


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
    return Pretrained(model, tree[part], config, record, record.get("tokenizer"))


def start_from(loaded: Pretrained, model: Model, key: jax.Array) -> tuple[Params, bool]:
    """Parameters for `model` out of a trained one, and whether its boundaries are still to fit.

    Everything but the boundaries must have the same shapes. Boundaries of the same code are kept.

    Raises:
      ValueError: lists the parameters that differ.
    """
    fresh = model.init(key)
    ends = loaded.params.get("boundaries", {})
    same = loaded.model.config.stages == model.config.stages and (
        replace(loaded.model.boundary, kept=None, gradient_wire="float32")
        == replace(model.boundary, kept=None, gradient_wire="float32")
    )
    rest = {name: tree for name, tree in fresh.items() if name != "boundaries"}
    source = {name: value for name, value in flatten(loaded.params).items()}
    params = unflatten(
        {name: value for name, value in source.items() if not name.startswith("boundaries.")}, rest
    )
    if "boundaries" in fresh:
        params["boundaries"] = ends if same else fresh["boundaries"]
    return params, not same


def flatten(params: Params) -> dict[str, Any]:
    """Nested dicts as one, with names such as "blocks.attention.query.kernel"."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, node: Any) -> None:
        if isinstance(node, Mapping):
            for key, child in node.items():
                walk(f"{prefix}.{key}" if prefix else key, child)
        else:
            flat[prefix] = node

    walk("", params)
    return flat


def unflatten(flat: Mapping[str, Any], like: Params) -> Params:
    """The inverse of `flatten`, in the shape of `like`.

    Raises:
      ValueError: one error that lists every name that is missing, unknown or of another shape.
    """
    want = flatten(like)
    wrong = [
        f"{name}: the model has {getattr(want.get(name), 'shape', 'no such parameter')}, "
        f"the file {getattr(flat.get(name), 'shape', 'no such tensor')}"
        for name in sorted(want.keys() | flat.keys())
        if name not in want or name not in flat or want[name].shape != flat[name].shape
    ]
    if wrong:
        raise ValueError("the weights do not fit the model\n  " + "\n  ".join(wrong))
    leaves = {name: jnp.asarray(flat[name]).astype(want[name].dtype) for name in want}

    def build(prefix: str, node: Any) -> Any:
        if not isinstance(node, Mapping):
            return leaves[prefix]
        return {key: build(f"{prefix}.{key}" if prefix else key, node[key]) for key in node}

    return build("", like)


def count(params: Any) -> int:
    """Number of trainable parameters in a tree of arrays or shapes."""
    trainable, _ = split_plan(params)
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(trainable))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
      ValueError: not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: a JSON object is needed, got {type(value).__name__}")
    return value


def _shapes(model: Model) -> Params:
    return jax.eval_shape(lambda key: model.init(key), jax.random.key(0))
