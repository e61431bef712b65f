"""Models that snapjax cuts, and all that trains, saves and finds them by name.

from zoo import create_model, list_models, load_pretrained

A name is imported when it is first asked for, so that `import zoo` alone loads nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.models.registry import create_model, list_models
    from zoo.pretrained.load import load_pretrained
    from zoo.pretrained.locate import list_pretrained

__all__ = ["create_model", "list_models", "list_pretrained", "load_pretrained"]

_MODULES = {
    "create_model": "zoo.models.registry",
    "list_models": "zoo.models.registry",
    "list_pretrained": "zoo.pretrained.locate",
    "load_pretrained": "zoo.pretrained.load",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
