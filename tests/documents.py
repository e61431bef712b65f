"""What the README, the docs and the examples say: their blocks, commands and code."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^(?P<mark>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=mark)", re.M | re.S)
_INDENTED = re.compile(r"^ {4}((?:snapjax|make|python) .*)$", re.M)
_MADE = ("_build", "api")
_ENDS = {"|", "&&", ";"}


def pages() -> list[Path]:
    """Every page that is in the repository, those of models included."""
    docs = [
        path
        for path in sorted((ROOT / "docs").rglob("*.md"))
        if not any(part in _MADE for part in path.relative_to(ROOT / "docs").parts)
        and path.name not in ("configuration.md", "commands.md")
    ]
    own = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    of_models = sorted((ROOT / "zoo").rglob("README.md"))
    return [*own, ROOT / "examples" / "README.md", *docs, *of_models]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, info: str) -> list[str]:
    """The fenced blocks of a page whose first line says `info` after the marks."""
    return [found["body"] for found in _FENCE.finditer(text) if found["info"].strip() == info]


def words(line: str) -> Iterator[list[str]]:
    """The commands of a line of a shell, each as its words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    command: list[str] = []
    for word in lexer:
        if word in _ENDS:
            yield command
            command = []
        else:
            command.append(word)
    if command:
        yield command


def commands(path: Path) -> list[list[str]]:
    """Every command in a page's blocks without a language, and in the indented ones of cards."""
    text = path.read_text(encoding="utf-8")
    made = []
    for block in blocks(text, ""):
        if re.search(r"^(from|import) ", block, re.M):
            continue  # Python that needs files which are not here
        for line in block.replace("\\\n", " ").splitlines():
            made += words(line)
    for line in _INDENTED.findall(_FENCE.sub("", text)):
        made += words(line)
    return made


def mentioned(path: Path) -> list[list[str]]:
    """Every command in a page's sentences, in single backticks."""
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    said = re.findall(r"`((?:snapjax|make|python) [a-z][^`]*)`", text)
    return [shlex.split(command) for command in said]
