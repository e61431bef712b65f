"""What sentence-transformers adds to a BERT's folder: how tokens become one embedding."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.files import read_json, read_json_list, write_json

MODULES, SETTINGS, POOLING = "modules.json", "sentence_bert_config.json", "1_Pooling"
MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
PACKAGE = "sentence_transformers.models."
WITHOUT_EFFECT = ("word_embedding_dimension", "include_prompt")
CHAIN = ("Transformer", "Pooling", "Normalize")


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """Kind and folder of each module, in order."""
    modules = read_json_list(folder / MODULES)
    chain = []
    for module in modules:
        if not isinstance(module, dict) or not {"type", "path"} <= module.keys():
            raise ValueError(f"{folder / MODULES}: every module needs a type and a path")
        path = (folder / module["path"]).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise ValueError(f"{folder / MODULES}: {module['path']!r} is not inside the folder")
        chain.append((module["type"].rpartition(".")[2], path))
    kinds = tuple(kind for kind, _ in chain)
    if kinds not in (CHAIN, CHAIN[:2]):
        raise ValueError(
            f"{folder / MODULES}: modules {', '.join(kinds)} are not supported, only "
            f"{', '.join(CHAIN)}, the last of which may be absent"
        )
    return chain


def transformer(folder: Path) -> Path:
    """The folder of the encoder's own config and weights."""
    return _modules(folder)[0][1]


def read(folder: Path, width: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of the encoder's config, and its preprocessing.

    Args:
      folder: with a modules.json.
      width: of the encoder.

    Raises:
      ValueError: a module, a way of pooling or a width that does not fit.
    """
    chain = _modules(folder)
    pooling = read_json(chain[1][1] / "config.json")
    modes = [
        name for name, value in pooling.items() if name not in WITHOUT_EFFECT and value is not False
    ]
    if len(modes) != 1 or modes[0] not in MODES:
        raise ValueError(
            f"{chain[1][1] / 'config.json'}: pooling by {modes} is not supported, only by one of "
            f"{', '.join(MODES)}"
        )
    if pooling.get("word_embedding_dimension", width) != width:
        raise ValueError(
            f"{chain[1][1] / 'config.json'}: word_embedding_dimension="
            f"{pooling['word_embedding_dimension']} is not the encoder's hidden_size={width}"
        )
    changes = {"pooling": MODES[modes[0]], "normalise": len(chain) == 3}
    settings = next(
        (read_json(path) for at in (chain[0][1], folder) if (path := at / SETTINGS).is_file()), {}
    )
    preprocessing = {}
    if settings.get("max_seq_length"):
        preprocessing["max_tokens"] = settings["max_seq_length"]
    return changes, preprocessing


def write(folder: Path, config: Any, preprocessing: Mapping[str, Any]) -> None:
    """The inverse of `read`; nothing for an encoder that is read the same without.

    Args:
      folder: of the model.
      config: a `BertConfig`.
      preprocessing: "max_tokens", if known.
    """
    plain = (config.pooling, config.normalise) == ("mean", False) and not preprocessing
    if config.task != "encode" or plain:
        return
    paths = ("", POOLING, "2_Normalize")
    chain = list(zip(CHAIN, paths, strict=True))[: 3 if config.normalise else 2]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": PACKAGE + kind}
        for index, (kind, path) in enumerate(chain)
    ]
    modes = {name: config.pooling == ours for name, ours in MODES.items()}
    write_json(
        folder / POOLING / "config.json", {"word_embedding_dimension": config.width, **modes}
    )
    if "max_tokens" in preprocessing:
        settings = {"max_seq_length": preprocessing["max_tokens"], "do_lower_case": False}
        write_json(folder / SETTINGS, settings)
    write_json(folder / MODULES, modules)
