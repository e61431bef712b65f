"""A whole hybrid in one safetensors file: parameters, boundaries, and what they are.

The metadata hold a JSON record: the family, every field of the config, the boundary, the tokenizer
and where the weights come from. So the file needs no preset, run or folder to be loaded again.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snapjax.boundary import Boundary
from snapjax.errors import unknown_name
from zoo.config.old_names import current_parameter
from zoo.models.bert import modeling as bert
from zoo.models.model import Model, Params
from zoo.models.vit import modeling as vit
from zoo.pretrained.hugging_face.tensors import Tensors
from zoo.pretrained.source import PretrainedConfig
from zoo.utils.files import write_atomic
from zoo.utils.trees import flatten, unflatten

FORMAT = "snapjax-hybrid-1"
FAMILIES: dict[str, tuple[Any, Any]] = {
    "bert": (bert, bert.BertConfig),
    "vit": (vit, vit.ViTConfig),
}


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
      record: anything else that is JSON-able.
      tokenizer: text of a tokenizer.json.
    """
    from safetensors.numpy import save as serialise

    flat = {
        name: np.ascontiguousarray(leaf) for name, leaf in flatten(jax.device_get(params)).items()
    }
    family = next(name for name, (module, _) in FAMILIES.items() if module is model.family)
    whole = {
        "family": family,
        "config": {**asdict(model.config), "boundary": model.boundary.to_dict()},
        "source": asdict(source),
        "record": dict(record or {}),
        "tokenizer": tokenizer,
        "sha256": digest(flat),
    }
    text = json.dumps(whole)
    metadata = {"format": FORMAT, "record": text, "sha256": digest_of(text)}
    write_atomic(path, serialise(flat, metadata=metadata))
    return Path(path)


def load(
    path: str | Path,
) -> tuple[Model, Params, PretrainedConfig, dict[str, Any], str | None]:
    """What `save` was given, in its order; parameters bit for bit.

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
        text = tensors.metadata["record"]
        # Files of before have none: the record then speaks for the tensors alone.
        if tensors.metadata.get("sha256", digest_of(text)) != digest_of(text):
            raise ValueError("its record is not that of its SHA-256: the file is damaged")
        whole = json.loads(text)
        model = _model(whole)
        flat = {name: tensors[name] for name in tensors}
        if digest(flat) != whole["sha256"]:
            raise ValueError("the tensors are not those of its SHA-256: the file is damaged")
        flat = {current_parameter(name): leaf for name, leaf in flat.items()}
        params = unflatten(flat, jax.eval_shape(model.init, jax.random.key(0)))
        source = PretrainedConfig(**whole["source"])
        record, tokenizer = dict(whole["record"]), whole["tokenizer"]
    except KeyError as error:
        raise ValueError(f"{path}: lacks {error} in its record; the file is damaged") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error
    return model, jax.tree.map(jnp.asarray, params), source, record, tokenizer


def digest_of(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest(flat: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, dtypes, shapes and bytes of arrays, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(flat):
        array = np.ascontiguousarray(flat[name])
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _model(whole: Mapping[str, Any]) -> Model:
    if whole["family"] not in FAMILIES:
        raise unknown_name("family", whole["family"], FAMILIES)
    family, kind = FAMILIES[whole["family"]]
    values = dict(whole["config"])
    unknown = sorted(values.keys() - {entry.name for entry in fields(kind)})
    if unknown:
        raise ValueError(f"config fields {', '.join(unknown)} are not known")
    return Model(family, kind(**{**values, "boundary": Boundary.from_dict(values["boundary"])}))
