"""Public names of a package that are loaded when they are first used (PEP 562)."""

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def attach(
    package: str, homes: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package.

    Args:
      package: its `__name__`.
      homes: module -> names that are loaded from it, "name" or "name as public". What is loaded
        from the package itself is a subpackage.
    """
    found = {}
    for module, names in homes.items():
        for name in names:
            original, _, public = name.partition(" as ")
            found[public or original] = (module, original)

    def load(name: str) -> Any:
        if name not in found:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, original = found[name]
        if module == package:
            return import_module(f"{package}.{original}")
        value = getattr(import_module(module), original)
        setattr(sys.modules[package], name, value)  # the next use does not come here
        return value

    def directory() -> list[str]:
        return sorted({*vars(sys.modules[package]), *found})

    return load, directory
