"""Writes the API reference: a page for each layer, with all of its modules from their docstrings.

The pages are made at each build, so that they have the modules that there are. A public name
without a docstring is a warning, and with it an error of `make docs`.
"""

import importlib
import inspect
import pkgutil
import re
from functools import cache
from pathlib import Path
from types import GenericAlias, ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger(__name__)

ARCHITECTURE = Path(__file__).resolve().parents[1] / "architecture.md"
OWN_PAGES = ("cli",)
"""Of `zoo`: the reference of commands has it."""


def read_layers(text: str) -> dict[str, list[str]]:
    """The parts of each package, top to bottom, as the blocks "layers" of the architecture say."""
    return {
        package: [part for part in parts.split() if part not in OWN_PAGES]
        for package, parts in re.findall(r"^```layers (\w+)\n(.*?)^```", text, re.M | re.S)
    }


LAYERS = read_layers(ARCHITECTURE.read_text(encoding="utf-8"))

ENGINES = ("snapjax.cost.count.", "snapjax.cost.hlo.")
"""Whose functions call one another and are not for users; what is exported has its docstring."""


def modules(name: str) -> list[str]:
    """A module, and the public ones below it."""
    found = importlib.import_module(name)
    below = [
        entry.name
        for entry in pkgutil.walk_packages(getattr(found, "__path__", []), f"{name}.")
        if not any(part.startswith("_") for part in entry.name.split("."))
    ]
    return [name, *sorted(below)]


def public(module: ModuleType) -> dict[str, object]:
    """The public functions and classes that a module defines."""
    return {
        name: item
        for name, item in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(item) or inspect.isfunction(item))
        and item.__module__ == module.__name__
    }


def undocumented(name: str) -> list[str]:
    """Public names of a module without a docstring, the module and its classes' methods included.

    A method that a base class or a protocol documents needs none of its own.
    """
    module = importlib.import_module(name)
    if name.startswith(ENGINES):
        return [] if (module.__doc__ or "").strip() else [name]
    protocols = documented_protocols()
    missing = [] if (module.__doc__ or "").strip() else [name]
    for key, item in public(module).items():
        if not (item.__doc__ or "").strip():
            missing.append(f"{name}.{key}")
        if inspect.isclass(item):
            missing += [
                f"{name}.{key}.{member}"
                for member, value in vars(item).items()
                if not member.startswith("_")
                and (inspect.isfunction(value) or isinstance(value, property))
                and not inspect.getdoc(getattr(item, member))
                and not any(member in names <= members(item) for names in protocols)
                and member not in getattr(item, "__dataclass_fields__", {})
            ]
        elif any(key in names <= vars(module).keys() for names in protocols):
            missing = [each for each in missing if each != f"{name}.{key}"]
    return missing


def members(kind: type) -> set[str]:
    """What instances of a class have, fields included."""
    return {*dir(kind), *getattr(kind, "__dataclass_fields__", ())}


@cache
def documented_protocols() -> tuple[frozenset[str], ...]:
    """The methods of each protocol; a module too may be an implementation, as families are."""
    found = []
    for root, parts in LAYERS.items():
        for name in (each for part in parts for each in modules(f"{root}.{part}")):
            for item in public(importlib.import_module(name)).values():
                if getattr(item, "_is_protocol", False):
                    names = {
                        key
                        for key, value in vars(item).items()
                        if not key.startswith("_")
                        and (callable(value) or isinstance(value, property))
                    }
                    found.append(frozenset(names))
    return tuple(names for names in found if names)


def exported(name: str) -> list[str]:
    """A package's public API as a list that links to where each name is defined."""
    package = importlib.import_module(name)
    lines = []
    for key in sorted(getattr(package, "__all__", [])):
        item = getattr(package, key)
        if inspect.ismodule(item):
            lines.append(f"- `{name}.{key}`: module {{py:mod}}`{item.__name__}`")
        elif hasattr(item, "__module__") and hasattr(item, "__qualname__"):
            full = f"{item.__module__}.{item.__qualname__}"
            first = (inspect.getdoc(item) or "").partition("\n")[0]
            lines.append(f"- {{py:obj}}`{name}.{key} <{full}>`: {first}")
        else:
            lines.append(f"- `{name}.{key}`")
    return lines


def page(name: str) -> str:
    """The page of a layer."""
    lines = [f"# {name}", ""]
    if listed := exported(name):
        lines += [*listed, ""]
    for module in modules(name):
        if module != name:
            lines += [f"## {module}", ""]
        lines += ["```{eval-rst}", f".. automodule:: {module}", "   :members:",
                  "   :ignore-module-all:",
                  "   :show-inheritance:", "```", ""]  # fmt: skip
    return "\n".join(lines)


def write(app: Sphinx) -> None:
    """Writes the pages, and warns of what has no docstring."""
    folder = Path(app.srcdir) / "reference" / "api"
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for root, parts in LAYERS.items():
        head = [f"# {root}", "", f"```{{eval-rst}}\n.. automodule:: {root}\n```", "",
                "The public API:" if exported(root) else "", "", *exported(root), "",
                "```{toctree}", *(f"{root}.{part}" for part in parts), "```", ""]  # fmt: skip
        written[root] = "\n".join(head)
        for part in parts:
            name = f"{root}.{part}"
            written[name] = page(name)
            for module in modules(name):
                for missing in undocumented(module):
                    log.warning("no docstring: %s", missing)
    for old in folder.glob("*.md"):
        if old.stem not in written:
            old.unlink()
    for name, text in written.items():
        path = folder / f"{name}.md"
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


def unresolved(app: Sphinx, env: Any, node: Any, content: Any) -> None:
    """Warns of a full name in a docstring or page that is nothing of this repository."""
    del app, env, content
    target = node.get("reftarget", "").removesuffix("()")
    if re.fullmatch(r"(snapjax|zoo)(\.\w+)+", target):
        try:
            pkgutil.resolve_name(target)
        except (ImportError, AttributeError):
            log.warning("no such name: %s", target, location=node)


def skip(app: Sphinx, what: str, name: str, item: Any, skipped: bool, options: Any) -> bool | None:
    """Leaves out aliases of types, whose docstring is the type's."""
    del app, what, name, skipped, options
    return True if isinstance(item, GenericAlias) or is_alias(item) else None


def is_alias(item: Any) -> bool:
    """Whether an object is a form of `typing`, such as a Callable with its arguments."""
    return getattr(type(item), "__module__", "") == "typing"


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", write)
    app.connect("missing-reference", unresolved)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True}
