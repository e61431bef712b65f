"""What sentence-transformers adds to a BERT's folder: how tokens become one embedding."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.pretrained.hugging_face import tokens
from zoo.pretrained.source import ASSUMED
from zoo.utils.files import read_json, write_json
from zoo.utils.schema import TEXT, ListOf, Object

MODULES, SETTINGS, POOLING = "modules.json", "sentence_bert_config.json", "1_Pooling"
PROMPTS = "config_sentence_transformers.json"
MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
# What newer versions say instead of a truth value for each.
MODE = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
PACKAGE = "sentence_transformers.models."
SIZES = ("word_embedding_dimension", "embedding_dimension")
WITHOUT_EFFECT = (*SIZES, "include_prompt")  # the last is read beside the prompts
CHAIN = ("Transformer", "Pooling", "Normalize")
# Settings of the encoder with the only values that ours computes; the rest is how it is run.
FIXED = {
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "modality_config": (
        None, {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    ),
    "processing_kwargs": (None, {}),
    "query_length": (None,),
    "document_length": (None,),
    "query_expansion": (None,),
}  # fmt: skip
IDLE = ("max_seq_length", "do_lower_case", "unpad_inputs")
# What the file of the prompts may say besides them; how embeddings are compared is no part of them.
BESIDE = ("__version__", "model_type", "similarity_fn_name")


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """Kind and folder of each module, in order."""
    modules = read_json(folder / MODULES, ListOf(Object({"type": TEXT, "path": TEXT})))
    chain = []
    for module in modules:
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


def read(folder: Path, width: int, positions: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of the encoder's config, and its preprocessing.

    Args:
      folder: with a modules.json.
      width: of the encoder.
      positions: longest sequence of the encoder.

    Raises:
      ValueError: a module, a way of pooling, a width or a setting that does not fit.
    """
    chain = _modules(folder)
    pooling = read_json(chain[1][1] / "config.json")
    modes = [
        name
        for name, value in pooling.items()
        if name not in (*WITHOUT_EFFECT, "pooling_mode") and value is not False
    ]
    if "pooling_mode" in pooling:
        named = pooling["pooling_mode"]
        named = named if isinstance(named, list) else [named]
        modes = [MODE.get(str(name), str(name)) for name in named]
    if len(modes) != 1 or modes[0] not in MODES:
        raise ValueError(
            f"{chain[1][1] / 'config.json'}: pooling by {modes} is not supported, only by one of "
            f"{', '.join(MODES)}"
        )
    for name in SIZES:
        if pooling.get(name, width) != width:
            raise ValueError(
                f"{chain[1][1] / 'config.json'}: {name}={pooling[name]} is not the encoder's "
                f"hidden_size={width}"
            )
    prompts = _prompts(folder, pooling.get("include_prompt", True))
    changes = {"pooling": MODES[modes[0]], "normalise": len(chain) == 3}
    longest = _longest(folder, chain[0][1], positions)
    return changes, prompts if longest is None else {"max_tokens": longest, **prompts}


def _prompts(folder: Path, include: Any) -> dict[str, Any]:
    """The preprocessing of the prompts that a folder names; {} where it names none.

    Args:
      folder: with a modules.json.
      include: whether the tokens of a prompt count in the mean.

    Raises:
      ValueError: one goes before every text, or the file says what is not done here.
    """
    path = folder / PROMPTS
    fields = read_json(path) if path.is_file() else {}
    default = fields.get("default_prompt_name")
    if default is not None:
        raise ValueError(
            f"{path}: default_prompt_name={default!r} puts a prompt before every text, which is "
            "not done here; set it to null and name the prompt where texts are embedded"
        )
    wrong = [
        f"{name}={value!r}"
        for name, value in fields.items()
        if name not in ("prompts", *BESIDE) and value is not None
    ]
    prompts = fields.get("prompts") or {}
    if wrong:
        raise ValueError(f"{path}: {', '.join(wrong)} is not handled")
    if not isinstance(prompts, dict) or not all(isinstance(p, str) for p in prompts.values()):
        raise ValueError(f"{path}: prompts={prompts!r} must map names to texts")
    prompts = {name: prompt for name, prompt in prompts.items() if prompt}
    if not prompts:
        return {}
    return (
        {"prompts": prompts} if include is True else {"prompts": prompts, "include_prompt": False}
    )


def settings(folder: Path) -> dict[str, Any]:
    """The encoder's sentence_bert_config.json, {} where there is none.

    Raises:
      ValueError: it says something that is not done here.
    """
    home = transformer(folder)
    path = next((at / SETTINGS for at in (home, folder) if (at / SETTINGS).is_file()), None)
    found = {} if path is None else read_json(path)
    wrong = [
        f"{name}={value!r}"
        for name, value in found.items()
        if name not in IDLE and not (name in FIXED and value in FIXED[name])
    ]
    if wrong:
        raise ValueError(f"{path}: {', '.join(wrong)} is not handled")
    return found


def _longest(folder: Path, home: Path, positions: int) -> int | None:
    """To how many tokens texts are cut: as the settings say, or else as the tokenizer's do."""
    where, limit = f"{folder}: max_seq_length", settings(folder).get("max_seq_length")
    if limit is None:
        where, limit = tokens.longest(home / tokens.SETTINGS, positions)
    return None if limit is None else tokens.check_limit(where, limit)


def lowered(text: str) -> str:
    """A tokenizer.json that makes texts lower case first, as "do_lower_case" says.

    Args:
      text: of a tokenizer.json.
    """
    fields = json.loads(text)
    first = fields.get("normalizer")
    parts = first["normalizers"] if first and first["type"] == "Sequence" else [first] * bool(first)
    if any(part["type"] == "Lowercase" or part.get("lowercase") for part in parts):
        return text
    parts = [{"type": "Lowercase"}, *parts]
    return json.dumps({**fields, "normalizer": {"type": "Sequence", "normalizers": parts}})


def write(folder: Path, config: Any, preprocessing: Mapping[str, Any]) -> None:
    """The inverse of `read`; nothing for an encoder of which it is not known how it pools.

    Args:
      folder: of the model.
      config: a `BertConfig`.
      preprocessing: "max_tokens", "prompts" and "include_prompt", if known.
    """
    if config.task != "encode" or preprocessing.get("pooling") == ASSUMED:
        return
    paths = ("", POOLING, "2_Normalize")
    chain = list(zip(CHAIN, paths, strict=True))[: 3 if config.normalise else 2]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": PACKAGE + kind}
        for index, (kind, path) in enumerate(chain)
    ]
    modes = {name: config.pooling == ours for name, ours in MODES.items()}
    if "prompts" in preprocessing:
        write_json(folder / PROMPTS, {"prompts": preprocessing["prompts"]})
        modes["include_prompt"] = preprocessing.get("include_prompt", True)
    write_json(
        folder / POOLING / "config.json", {"word_embedding_dimension": config.width, **modes}
    )
    if "max_tokens" in preprocessing:
        settings = {"max_seq_length": preprocessing["max_tokens"], "do_lower_case": False}
        write_json(folder / SETTINGS, settings)
    write_json(folder / MODULES, modules)
