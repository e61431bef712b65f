"""Imports go down: scripts -> zoo -> snapjax, and inside each as docs/architecture.md lists it."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Imports = dict[str, set[str]]  # module -> the modules that it imports
Layers = dict[str, list[list[str]]]  # package -> its lines, top to bottom, each of parts


def read_layers(text: str) -> Layers:
    """The blocks "```layers package" of a document: a layer a line, its parts parted by spaces."""
    blocks = re.findall(r"^```\s*\{?layers\}? +(\S+)\n(.*?)^```", text, re.M | re.S)
    return {
        package: [line.split() for line in body.split("\n") if line] for package, body in blocks
    }


def read_imports(root: Path, *folders: str) -> Imports:
    """What every module below the folders imports, inside functions and for type checkers too."""
    files = [path for folder in folders for path in (root / folder).rglob("*.py")]
    name = lambda path: ".".join(path.relative_to(root).with_suffix("").parts)
    modules = {name(path).removesuffix(".__init__"): path for path in files}
    return {
        module: set(imported(ast.parse(path.read_text()), path, module, set(modules)))
        for module, path in modules.items()
    }


def imported(tree: ast.AST, path: Path, module: str, known: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = (
                    module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
                )
                package = package[: len(package) - node.level + 1]
                base = ".".join([*package, *filter(None, [node.module])])
            for alias in node.names:  # a module, or a name in one
                inner = f"{base}.{alias.name}"
                yield inner if inner in known else base


def circles(imports: Imports) -> list[str]:
    """Every circle that a walk along the imports closes, as "a > b > a"."""
    found, done = [], set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            found.append(" > ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for other in sorted(imports.get(module, ())):
                visit(other, [*path, module])
            done.add(module)

    for module in sorted(imports):
        visit(module, [])
    return found


def part_of(module: str, package: str) -> str | None:
    """The part of a package that a module belongs to; None for the package itself and others."""
    inner = module.removeprefix(f"{package}.")
    return inner.split(".")[0] if inner != module else None


def wrong_ways(imports: Imports, layers: Layers) -> list[str]:
    """Imports to a higher layer or to another part of the same one, and parts without a layer."""
    wrong = set()
    for package, lines in layers.items():
        floor = {part: number for number, line in enumerate(lines) for part in line}
        for module, others in imports.items():
            part = part_of(module, package)
            if part is None:
                continue
            if part not in floor:
                wrong.add(f"{package}.{part} has no layer")
                continue
            for other in others:
                below = part_of(other, package)
                if below in floor and below != part and floor[below] <= floor[part]:
                    wrong.add(f"{module} -> {other}")
    return sorted(wrong)


def climbing(imports: Imports, order: tuple[str, ...]) -> list[str]:
    """Imports from a later to an earlier one of top-level packages."""
    height = {package: number for number, package in enumerate(order)}
    top = lambda module: height.get(module.split(".")[0], len(order))
    return sorted(
        f"{module} -> {other}"
        for module, others in imports.items()
        for other in others
        if top(other) < top(module)
    )


@pytest.fixture(scope="module")
def imports():
    found = read_imports(ROOT, "scripts", "zoo", "snapjax")
    assert len(found) > 100
    assert sum(map(len, found.values())) > 300
    return found


@pytest.fixture(scope="module")
def layers():
    return read_layers((ROOT / "docs" / "architecture.md").read_text())


def test_no_module_imports_itself_over_others(imports):
    assert circles(imports) == []


def test_imports_go_down(imports, layers):
    assert set(layers) == {"zoo", "snapjax", "snapjax.cost"}
    assert wrong_ways(imports, layers) == []
    assert climbing(imports, ("scripts", "zoo", "snapjax")) == []


def test_every_layer_that_is_listed_exists(imports, layers):
    for package, lines in layers.items():
        parts = {part_of(module, package) for module in imports} - {None}
        assert {part for line in lines for part in line} == parts


def test_snapjax_needs_jax_and_numpy_alone(imports):
    allowed = sys.stdlib_module_names | {"jax", "numpy", "snapjax"}
    outside = {
        f"{module} -> {other}"
        for module, others in imports.items()
        if module.split(".")[0] == "snapjax"
        for other in others
        if other.split(".")[0] not in allowed
    }
    assert outside == set()


def test_the_folders_of_the_zoo():
    zoo = ROOT / "zoo"
    assert len([path for path in zoo.iterdir() if path.is_file()]) <= 8
    for folder in {path.parent for path in zoo.rglob("*.py")}:
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert docstring, folder
        if folder.parent == zoo:
            assert re.search(r"\b[Ii]mports?\b", docstring), f"{folder}: what may it import?"


def test_a_circle_and_an_import_back_up_are_found(tmp_path):
    """The tests above can fail: inside functions, for type checkers, and by relative imports."""
    files = {
        "__init__.py": "",
        "low.py": "def f():\n    from house.high import attic\n",
        "high/__init__.py": "from . import attic\n",
        "high/attic.py": "import typing\nif typing.TYPE_CHECKING:\n    from ..low import f\n",
        "side.py": "import house.low, json\n",
        "beside.py": "from house import side\n",
        "lost.py": "",
    }
    for name, text in files.items():
        path = tmp_path / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "above").mkdir()
    (tmp_path / "above" / "run.py").write_text("from house.low import f\n")
    found = read_imports(tmp_path, "above", "house")
    assert found["house.side"] == {"house.low", "json"}
    assert found["house.high"] == {"house.high.attic"}
    assert circles(found) == ["house.low > house.high.attic > house.low"]
    layers = read_layers("```layers house\nhigh\nside beside\nlow\n```\n\n```python\nx\n```\n")
    assert layers == {"house": [["high"], ["side", "beside"], ["low"]]}
    assert wrong_ways(found, layers) == [
        "house.beside -> house.side",
        "house.lost has no layer",
        "house.low -> house.high.attic",
    ]
    assert climbing(found, ("above", "house")) == []
    assert climbing(found, ("house", "above")) == ["above.run -> house.low"]
