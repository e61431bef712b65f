"""A model's dense part as a folder that Hugging Face transformers loads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from zoo.models.model import Model, Params
from zoo.models.registry import registered
from zoo.models.weight_map import to_theirs
from zoo.pretrained.hugging_face import images, sentence, tokens
from zoo.pretrained.hugging_face.folder import CONFIG
from zoo.pretrained.hugging_face.tensors import WEIGHTS
from zoo.utils.files import write_atomic, write_json


def save(
    folder: str | Path,
    model: Model,
    params: Params,
    *,
    tokenizer: str | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
) -> Path:
    """Writes `config.json`, `model.safetensors` and what else describes the model.

    The boundaries are left out: transformers has none, and computes the uncut model. What `load`
    makes of the folder has the same parameters, bit for bit.

    Args:
      folder: made if absent; one that holds a model is refused, whose other files would be taken
        for this one's.
      model: whose embedding, blocks and head are written.
      params: canonical parameters.
      tokenizer: text of a tokenizer.json.
      preprocessing: see `zoo.pretrained.source.PretrainedConfig`.
      labels: names of the classes.

    Raises:
      ValueError: transformers has no class for the model, or the folder holds one.
    """
    from safetensors.numpy import save as serialise

    folder, config = Path(folder), model.config
    family = registered(model)
    weights = family.weights
    if (folder / CONFIG).exists():
        raise ValueError(f"{folder} holds a model already; give a new folder")
    fields = {
        "model_type": family.name,
        "architectures": [weights.ARCHITECTURES[config.task]],
        "dtype": "float32",
        **weights.fields(config),
    }
    dense = {name: params[name] for name in ("embed", "blocks", "head")}
    tensors = to_theirs(weights.table(config), jax.device_get(dense), config.layers)
    fields |= weights.finish(config, tensors)
    if config.task == "classify":
        names = labels or [f"LABEL_{index}" for index in range(config.classes)]
        if len(names) != config.classes:
            raise ValueError(f"labels={names} must name classes={config.classes} classes")
        fields["id2label"] = {str(index): name for index, name in enumerate(names)}
        fields["label2id"] = {name: index for index, name in enumerate(names)}
    if config.task != "encode":
        bare = ("cls.", "classifier.")
        tensors = {
            name if name.startswith(bare) else weights.PREFIX + name: array
            for name, array in tensors.items()
        }
    if tokenizer is not None:
        tokens.write(folder, tokenizer, config, preprocessing or {})
    if family.inputs == "text":
        sentence.write(folder, config, preprocessing or {})
    else:
        images.write(folder, config, preprocessing or {})
    write_atomic(folder / WEIGHTS, serialise(tensors, metadata={"format": "pt"}))
    write_json(folder / CONFIG, fields)
    return folder
