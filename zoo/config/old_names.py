"""What files and commands of version 0.1.0 call things, and their names now.

Keys of a config and names of parameters go through here, whether out of a file or from a user, so
that the rest of the code knows one name for each thing. Three more old names are read where they
are: the fields of a boundary in `snapjax/settings.py` (`_OLD_FIELDS`; snapjax does not import zoo),
the cosine of an encoder, once called "accuracy", in `zoo/train/logbook.py` (`current_row`) and in
`zoo/evaluation/cards.py`. Keys of a batch are refused by `zoo/models/bert/modeling.py` (`RENAMED`).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

KEYS = {"train.trains": "train.trainable"}
"""Keys of a run's config, old -> new."""

VALUES = {
    "model.calibration": {
        "rotation": "pca",
        "rotation_refit": "pca_refit",
        "metric": "sensitivity_pca",
        "metric_refit": "sensitivity_pca_refit",
    }
}
"""Key (new) -> its values, old -> new."""

_PLAN = re.compile(r"(?P<path>(^|.*[./])boundaries(?P<mark>[./])(encoder|decoder)(?P=mark))steps")

_ADDED = re.compile(r"(^|.*[./])boundaries[./](encoder|decoder)[./]code")


def current_key(key: str) -> str:
    """The name of a config key now.

    Example:
      >>> current_key("train.trains")
      'train.trainable'
    """
    return KEYS.get(key, key)


def current_value(key: str, value: Any) -> Any:
    """The value of a config key now.

    Args:
      key: as it is called now.
      value: as saved or given.
    """
    return VALUES.get(key, {}).get(value, value) if isinstance(value, str) else value


def current_method(name: str) -> str:
    """The name of a calibration method now.

    Example:
      >>> current_method("metric_refit")
      'sensitivity_pca_refit'
    """
    return current_value("model.calibration", name)


def current_section(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys and values of one section of a config now.

    Args:
      section: its name, such as "train".
      values: as saved or given, by key.

    Example:
      >>> current_section("train", {"trains": "all", "epochs": 2})
      {'trainable': 'all', 'epochs': 2}
    """
    made = {}
    for old, value in values.items():
        key = current_key(f"{section}.{old}")
        made[key.rpartition(".")[2]] = current_value(key, value)
    return made


def current_parameter(name: str) -> str:
    """The name of a parameter now; its parts are joined by "." or "/".

    Example:
      >>> current_parameter("boundaries.encoder.steps")
      'boundaries.encoder.steps_per_feature'
    """
    found = _PLAN.fullmatch(name)
    return f"{found['path']}steps_per_feature" if found else name


def current_tree(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested dicts of parameters with the names that they have now."""
    made = {}
    for key, node in tree.items():
        name = current_parameter(f"{path}/{key}" if path else key).rpartition("/")[2]
        inner = f"{path}/{key}" if path else key
        made[name] = current_tree(node, inner) if isinstance(node, Mapping) else node
    return made


def saved_tree(tree: Mapping[str, Any], saved: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The inverse of `current_tree`: a tree with the names that a file has.

    Args:
      tree: with the names of now.
      saved: the file's tree.
    """
    old = {}
    for key in saved:
        name = f"{path}/{key}" if path else key
        old[current_parameter(name).rpartition("/")[2]] = key
    made = {}
    for key, node in tree.items():
        name = old.get(key, key)
        below = saved.get(name, {})
        inner = f"{path}/{name}" if path else name
        deeper = isinstance(node, Mapping) and isinstance(below, Mapping)
        made[name] = saved_tree(node, below, inner) if deeper else node
    return made


def is_added(name: str) -> bool:
    """Whether files of version 0.1.0 lack a parameter: what tells of which code it is.

    Example:
      >>> is_added("boundaries.encoder.code"), is_added("boundaries.encoder.gain")
      (True, False)
    """
    return _ADDED.fullmatch(name) is not None


def without_added(
    tree: Mapping[str, Any], found: Mapping[str, Any], path: str = ""
) -> dict[str, Any]:
    """A tree but for the parameters that are newer than a file, with the names of now.

    Args:
      tree: what is wanted.
      found: what the file has.
      path: of both.
    """
    made: dict[str, Any] = {}
    for key, node in tree.items():
        inner = f"{path}/{key}" if path else key
        if isinstance(node, Mapping):
            below = found.get(key)
            made[key] = without_added(node, below if isinstance(below, Mapping) else {}, inner)
        elif key in found or not is_added(inner):
            made[key] = node
    return made


def with_added(
    tree: Mapping[str, Any], wanted: Mapping[str, Any], fill: Callable[[Any], Any], path: str = ""
) -> dict[str, Any]:
    """The inverse of `without_added`: what the file lacks is `fill` of the shape wanted."""
    made = dict(tree)
    for key, node in wanted.items():
        inner = f"{path}/{key}" if path else key
        if isinstance(node, Mapping):
            made[key] = with_added(tree.get(key, {}), node, fill, inner)
        elif key not in tree and is_added(inner):
            made[key] = fill(node)
    return made
