"""Writes every table, finding and picture of the README and the docs out of results/*.json.

  python scripts/make_docs.py
  python scripts/make_docs.py --check

Between the lines `<!-- make_docs: NAME -->` and `<!-- end -->` of a page stands what the function
NAME of `docs/figures.py` gives. With --check nothing is written; pages that are out of date are
named, and the exit code is 1.
"""

import argparse
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- make_docs: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def figures() -> ModuleType:
    """`docs/figures.py`, as a package of its own with what lies beside it."""
    spec = importlib.util.spec_from_file_location(
        "figures", ROOT / "docs" / "figures.py", submodule_search_locations=[str(ROOT / "docs")]
    )
    if spec is None or spec.loader is None:
        raise ImportError("docs/figures.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules["figures"] = module
    spec.loader.exec_module(module)
    return module


def pages() -> list[Path]:
    """The README and every page of the docs that is not made when the site is built."""
    docs = ROOT / "docs"
    made = (docs / "_build", docs / "reference" / "api")
    found = [path for path in docs.rglob("*.md") if not any(path.is_relative_to(at) for at in made)]
    return [ROOT / "README.md", *sorted(found)]


def made() -> dict[Path, str]:
    """Path -> text of every page with blocks, and of every picture, as they ought to be.

    Raises:
      ValueError: a block that no function makes.
    """
    source = figures()
    texts = {ROOT / "docs" / "images" / name: draw() for name, draw in source.PICTURES.items()}

    def block(found: re.Match[str]) -> str:
        if found[2] not in source.BLOCKS:
            known = ", ".join(source.BLOCKS)
            raise ValueError(f"make_docs: {found[2]} is not known; the blocks are {known}")
        return f"{found[1]}{source.BLOCKS[found[2]]()}\n{found[3]}"

    for path in pages():
        text = path.read_text(encoding="utf-8")
        if BLOCK.search(text):
            texts[path] = BLOCK.sub(block, text)
    return texts


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    args = parser.parse_args(argv)
    texts = made()
    stale = [
        path
        for path, text in texts.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        if args.check:
            print(f"{path.relative_to(ROOT)}: out of date; run python scripts/make_docs.py")
        else:
            path.write_text(texts[path], encoding="utf-8")
            print(path.relative_to(ROOT))
    return int(args.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
