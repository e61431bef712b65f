"""Reads this repository's docstrings, which are plain text with backticks, as reStructuredText.

An indented block in the text is code, as in Markdown; `*`, `|` and a trailing `_` are themselves;
a table with bars keeps its lines.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # tests read docstrings without it
    from sphinx.application import Sphinx

SECTIONS = re.compile(
    r"(Args|Arguments|Attributes|Returns|Yields|Raises|Example|Examples|Note|References):$"
)
QUOTED = re.compile(r"(``.+?``|`[^`]+`)")


def escape(line: str) -> str:
    """A line of text with the marks of reStructuredText made harmless, outside of backticks."""
    parts = QUOTED.split(line)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([*|\\])", r"\\\1", parts[i])
        parts[i] = re.sub(r"(\w)_(?!\w)", r"\1\\_", parts[i])
        if i and re.match(r"\w", parts[i]):
            parts[i] = f"\\ {parts[i]}"  # "`Array`s": a letter may not follow the mark at once
    return "".join(parts)


def indent_of(line: str) -> int:
    """Leading spaces."""
    return len(line) - len(line.lstrip())


def convert(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText with Google's sections."""
    made: list[str] = []
    section, code, table = False, -1, False
    for line in lines:
        text = line.strip()
        bars = text.startswith("|") and text.endswith("|")
        if bars != table:
            made += ["", "::", ""] if bars and code < 0 else [""]
            table = bars
        if not text:
            made.append("")
            continue
        if code >= 0 and indent_of(line) < code:
            code = -1
        if not indent_of(line):
            section = bool(SECTIONS.match(text))
        blank = not made or not made[-1]
        drawn = indent_of(line) and not section and blank and not bars
        if code < 0 and drawn and not text.startswith((">>>", "- ")):
            made += ["::", ""]
            code = indent_of(line)
        if code >= 0 or text.startswith((">>>", "...")):
            made.append(line)
        elif bars:
            made.append(f"   {line}")
        elif section and ">>>" in "".join(made[-3:]):
            made.append(line)  # what an example prints
        else:
            made.append(escape(line))
    return made


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Sphinx's hook, before napoleon's."""
    del app, name, obj, options
    lines[:] = convert(lines)
    if what in ("attribute", "data", "property"):
        lines.insert(0, "")  # or napoleon takes what is before a colon for a type


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", process, priority=100)
    return {"parallel_read_safe": True}
