"""Writes two pages of the reference from the code: the keys of a run, and the command line."""

import argparse
import importlib
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from zoo.cli.commands import COMMANDS, COMPARED, Command
from zoo.config.keys import describe
from zoo.config.specs import RunConfig

KEYS = """\
# Configuration keys

What `snapjax train PRESET --set KEY=VALUE` changes, and `snapjax distill`, `calibrate`, `evaluate`
and `mine` where they read data. The defaults are those of the dataclasses in `zoo/config/`; a
preset has its own, which `snapjax train PRESET --keys` prints.
"""
LINE = """\
# Commands

Each has `--help` with an example, and `--json` for one JSON object on stdout. Exit codes: 0 done, 1
could not, 2 arguments or input that do not fit, 3 lost contact with another process, 130
interrupted.
"""


def cell(text: object) -> str:
    """A text as a cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def keys() -> str:
    """The page of the configuration keys: a section for each part of a run's config."""
    parts, section = [KEYS], ""
    for key in describe(RunConfig("defaults")):
        name = key.name.partition(".")[0]
        if name != section:
            about = type(getattr(RunConfig("defaults"), name)).__doc__ or ""
            parts += ["", f"## {name}", "", about.splitlines()[0], "",
                      "| key | default | type | meaning |", "|---|---|---|---|"]  # fmt: skip
            section = name
        one_of = f" One of: {', '.join(key.allowed)}." if key.allowed else ""
        cells = f"`{key.name}`", f"`{key.value}`", key.kind, f"{key.meaning}{one_of}"
        parts.append(f"| {' | '.join(map(cell, cells))} |")
    return "\n".join([*parts, ""])


def commands(table: Mapping[str, Command], prefix: str = "snapjax") -> Iterator[tuple[str, Any]]:
    """Full name and module of every command, those of a command's own table included."""
    for name, command in table.items():
        full = f"{prefix} {name}"
        if full == "snapjax compare":
            yield from commands(COMPARED, full)
        else:
            yield full, importlib.import_module(command.module)


def option(action: argparse.Action) -> str:
    """How an option or argument is written."""
    value = action.metavar or action.dest.upper()
    if action.choices is not None and not action.metavar:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    names = ", ".join(action.option_strings)
    if not names:
        return str(action.metavar or action.dest)
    return names if action.nargs == 0 else f"{names} {value}"


def section(name: str, parser: argparse.ArgumentParser) -> str:
    """One command: what it does, an example, its options."""
    text = inspect.cleandoc(parser.description or "")
    parts = [f"## {name}", ""]
    for paragraph in text.split("\n\n"):
        code = paragraph.lstrip().startswith("snapjax")
        parts += ["```", textwrap.dedent(paragraph), "```", ""] if code else [paragraph, ""]
    parts += ["| option | meaning | default |", "|---|---|---|"]
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or "--help" in action.option_strings:
            continue
        plain = isinstance(action.default, str | int | float) and action.default is not False
        default = f"`{action.default}`" if plain and action.default != argparse.SUPPRESS else ""
        meaning = (action.help or "").replace("%(default)s", str(action.default))
        parts.append(f"| `{cell(option(action))}` | {cell(meaning)} | {default} |")
    return "\n".join([*parts, ""])


def write(app: Sphinx) -> None:
    """Writes the pages where they have changed."""
    lines = [LINE, *(section(name, module.parser()) for name, module in commands(COMMANDS))]
    for name, text in {"configuration": keys(), "commands": "\n".join(lines)}.items():
        path = Path(app.srcdir) / "reference" / f"{name}.md"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
