"""A Hugging Face folder as a model with parameters: everything in it is used, or it is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from snapjax.errors import unknown_name
from zoo.models import config_map
from zoo.models.model import Model, Params
from zoo.models.registry import FAMILIES, registered
from zoo.models.weight_map import to_ours
from zoo.pretrained.hugging_face import images, sentence, tokens
from zoo.pretrained.hugging_face.tensors import Tensors, in_folder
from zoo.pretrained.source import ASSUMED
from zoo.utils.files import read_json, read_text
from zoo.utils.schema import TEXTS, WHOLE, Maybe, Object

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
FIELDS = Object(optional={"architectures": Maybe(TEXTS), "num_labels": Maybe(WHOLE)})
"""Of a config.json what is used without the checks of `zoo.models.config_map`."""


class Imported(NamedTuple):
    """A folder's content.

    Attributes:
      model: dense, in one stage.
      params: canonical parameters.
      files: that the weights were read from.
      tokenizer: text of the tokenizer.json, or None.
      preprocessing: see `zoo.pretrained.source.PretrainedConfig`.
      licence: as the folder's README states it, or None.
      labels: names of the classes of a classifier, or None.
    """

    model: Model
    params: Params
    files: list[Path]
    tokenizer: str | None
    preprocessing: dict[str, Any]
    licence: str | None
    labels: list[str] | None


def is_folder(folder: Path) -> bool:
    """Whether a folder holds a model of transformers or of sentence-transformers."""
    if (folder / sentence.MODULES).is_file():
        return True
    if not (folder / CONFIG).is_file():
        return False
    names = read_json(folder / CONFIG).keys()
    return "format" not in names and not names.isdisjoint(("model_type", "hidden_size"))


def load(folder: Path, task: str | None = None, ignore: Sequence[str] = ()) -> Imported:
    """A dense model and its parameters.

    Args:
      folder: of `save_pretrained`, or of sentence-transformers.
      task: which head to take; None for the one that the folder was saved with.
      ignore: patterns such as "cls.seq_relationship.*" of tensors that may be left out.

    Raises:
      ValueError: one error that lists every tensor without a parameter, parameter without a tensor,
        shape that differs, and config field that is not handled; or the files are damaged.
    """
    home = sentence.transformer(folder) if (folder / sentence.MODULES).is_file() else folder
    theirs, tensors = read_json(home / CONFIG, FIELDS), Tensors(in_folder(home))
    try:
        model, params = convert(theirs, tensors, task, ignore)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    inputs = registered(model).inputs
    if inputs == "images":
        preprocessing = images.read(folder, model.config.image_size, model.config.channels)
    elif (folder / sentence.MODULES).is_file():
        changes, preprocessing = sentence.read(folder, model.config.width, model.config.positions)
        if model.config.task == "encode":
            model = replace(model, config=replace(model.config, **changes))
    else:
        preprocessing = _plain_text(home, model)
    tokenizer = next((p for p in (home / TOKENIZER, folder / TOKENIZER) if p.is_file()), None)
    text = read_text(tokenizer) if tokenizer else None
    if text is not None and inputs == "text":
        _check_vocabulary(text, model.config.vocabulary, folder)
        text, more = tokens.read(tokenizer, text, theirs)
        preprocessing = {**preprocessing, **more}
        if (folder / sentence.MODULES).is_file() and sentence.settings(folder).get("do_lower_case"):
            text = sentence.lowered(text)
    model = replace(model, config=replace(model.config, name=_name(model)))
    labels = None
    if model.config.task == "classify":
        _check_problem(theirs, model.config.classes, folder)
        labels = config_map.labels(theirs)
    return Imported(model, params, tensors.files, text, preprocessing, _licence(folder), labels)


def _plain_text(home: Path, model: Model) -> dict[str, Any]:
    """The preprocessing of a folder that sentence-transformers did not write."""
    found: dict[str, Any] = {"pooling": ASSUMED} if model.config.task == "encode" else {}
    where, limit = tokens.longest(home / tokens.SETTINGS, model.config.positions)
    if limit is not None:
        found["max_tokens"] = tokens.check_limit(where, limit)
    return found


def _check_problem(theirs: dict[str, Any], classes: int, folder: Path) -> None:
    """Raises ValueError for a classifier whose outputs are not the classes of one choice."""
    problem = theirs.get("problem_type")
    if problem not in (None, "single_label_classification") or classes < 2:
        raise ValueError(
            f"{folder / CONFIG}: problem_type={problem!r} with {classes} labels is no choice of "
            "one class, which is all that is scored and trained here (by softmax); for the states "
            "of the tokens load it with task='encode', ignore=['classifier.*']"
        )


def convert(
    theirs: dict[str, Any], tensors: Any, task: str | None = None, ignore: Sequence[str] = ()
) -> tuple[Model, Params]:
    """A dense model and its parameters out of a config and tensors by name; see `load`."""
    kind = theirs.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise unknown_name("model_type", kind, FAMILIES)
    family, weights = FAMILIES[kind].functions, FAMILIES[kind].weights
    names = {name: _plain(name, weights) for name in tensors}
    ignored = [name for name in names if any(fnmatch(name, pattern) for pattern in ignore)]
    task = task or _task(theirs, names.values(), weights)
    if task not in weights.ARCHITECTURES:
        raise unknown_name("task", task, weights.ARCHITECTURES)
    source, problems = {}, []
    for name, plain in names.items():
        if name in ignored:
            continue
        if plain in source:
            problems.append(f"tensor {plain} is there twice, once as {name}")
        try:
            array = tensors[name]
        except ValueError as error:  # a dtype that is not read
            problems.append(str(error))
            continue
        if plain in weights.BUFFERS:
            problems += _buffer(name, array, weights.BUFFERS[plain])
        else:
            source[plain] = array
    _check_sizes(theirs, source, weights)
    config, lines = weights.config(theirs, source, task)
    problems += lines
    if config is not None:
        lines, table = weights.table_for(theirs, source, config)
        model = Model(family, config)
        params, more = to_ours(table, source, model.param_shape, config.layers)
        problems += lines + more
    if problems:
        hint = (
            "\ntensors that may be left out can be named: ignore=[...]"
            if any("has no parameter" in line or "the model computes" in line for line in problems)
            else ""
        )
        raise ValueError(
            f"{len(problems)} things do not fit a {weights.ARCHITECTURES[task]}\n  "
            + "\n  ".join(problems)
            + hint
        )
    return model, params


def _check_sizes(theirs: Mapping[str, Any], source: Mapping[str, np.ndarray], weights: Any) -> None:
    """Raises ValueError for a size that no weights here can be of, before anything is made of it:
    a config may ask for a model of any size, and takes a few bytes."""
    largest = max((array.size for array in source.values()), default=0)
    for name, (ours, _) in weights.FIELDS.sizes.items():
        value = theirs.get(name)
        most, of = (len(source), "tensors") if ours == "layers" else (largest, "numbers")
        if isinstance(value, int) and value > most > 0:
            there = "there are" if ours == "layers" else "the largest tensor has"
            raise ValueError(
                f"config field {name}={value} does not fit the weights, of which {there} {most:,} "
                f"{of}; config.json is of another model, or damaged"
            )


def _buffer(name: str, array: np.ndarray, rise: int) -> list[str]:
    """What is wrong with a tensor that the model computes itself: 0, rise, 2 rise, ..."""
    if array.ndim and array.size:
        # In the file's dtype: a bfloat16 does not hold all numbers above 256.
        expected = (rise * np.arange(array.shape[-1])).astype(array.dtype)
        if np.array_equal(array, np.broadcast_to(expected, array.shape)):
            return []
    shown = ", ".join(str(rise * i) for i in range(3))
    found = ", ".join(str(value) for value in array.ravel()[:3]) or "nothing"
    return [f"tensor {name} holds {found}, ... where the model computes {shown}, ..."]


def _task(theirs: dict[str, Any], names: Any, weights: Any) -> str:
    architectures = theirs.get("architectures") or []
    if not architectures:
        return weights.task_of(set(names))
    for task, architecture in weights.ARCHITECTURES.items():
        if architecture == architectures[0]:
            return task
    raise ValueError(
        f"architectures={architectures} is none of {', '.join(weights.ARCHITECTURES.values())}; "
        "give the task whose head to take: task=" + " or ".join(map(repr, weights.ARCHITECTURES))
    )


def _plain(name: str, weights: Any) -> str:
    """A tensor's name without the family's prefix, old spellings replaced."""
    name = name.removeprefix(weights.PREFIX)
    for pattern, new in weights.RENAMES:
        name = pattern.sub(new, name)
    return name


def _name(model: Model) -> str:
    """Of the preset that has the model's sizes, or of its family."""
    weights = registered(model).weights
    sizes = [ours for ours, default in weights.FIELDS.sizes.values() if isinstance(default, int)]
    for name, preset in model.family.PRESETS.items():
        if all(getattr(preset(), size) == getattr(model.config, size) for size in sizes):
            return name
    return model.config.name


def _check_vocabulary(text: str, vocabulary: int, folder: Path) -> None:
    from tokenizers import Tokenizer

    try:
        ids = Tokenizer.from_str(text).get_vocab(with_added_tokens=True).values()
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{folder / TOKENIZER}: {error}") from error
    if max(ids, default=-1) >= vocabulary:
        raise ValueError(
            f"{folder / TOKENIZER}: its largest id is {max(ids)}, the model has a vocabulary of "
            f"{vocabulary}; the tokenizer is of another model"
        )


def _licence(folder: Path) -> str | None:
    """The "license:" line of a model card's front matter."""
    card = folder / "README.md"
    # What else a card says does not matter here, nor how it is written.
    lines = card.read_text("utf-8", "replace").splitlines() if card.is_file() else []
    if lines[:1] != ["---"]:
        return None
    for line in lines[1:]:
        if line == "---":
            break
        key, _, value = line.partition(":")
        if key == "license" and value.strip():
            return value.strip()
    return None
