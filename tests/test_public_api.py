"""What `snapjax` and `zoo` export: every name is there, documented, typed, and loaded late."""

import ast
import dataclasses
import inspect
import itertools
import subprocess
import sys
import tomllib
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import snapjax
import snapjax.cost
import zoo

ROOT = Path(__file__).parents[1]
PACKAGES = pytest.mark.parametrize("package", [snapjax, zoo], ids=lambda package: package.__name__)


def for_type_checkers(package: types.ModuleType) -> dict[str, tuple[str, str]]:
    """Public name -> (module, name there) of the imports under TYPE_CHECKING."""
    tree = ast.parse(Path(package.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        for alias in node.names
    }


@PACKAGES
def test_every_list_of_public_names_is_the_same(package):
    homes = for_type_checkers(package)
    assert package.__all__ == sorted(homes, key=lambda name: (not name.isupper(), name))
    assert set(package.__all__) <= set(dir(package))
    for name, (module, original) in homes.items():
        value = getattr(package, name)
        if isinstance(value, types.ModuleType):
            assert value.__name__ == f"{module}.{original}"
        else:
            assert value is getattr(sys.modules[module], original)
    with pytest.raises(AttributeError, match="has no attribute 'Boundry'"):
        package.Boundry  # noqa: B018


@PACKAGES
def test_every_public_name_is_documented(package):
    for name, (module, original) in for_type_checkers(package).items():
        value = getattr(package, name)
        if callable(value) or isinstance(value, types.ModuleType):
            text = value.__doc__ or ""
            assert not text.startswith(f"{original}("), f"{name}: a dataclass's own words"
        else:
            text = constants(module).get(original, "")
        assert len(text.split()) > 2, name


def constants(module: str) -> dict[str, str]:
    """The strings that follow a module's assignments: what documents a constant."""
    body = ast.parse(inspect.getsource(sys.modules[module])).body
    found = {}
    for before, after in itertools.pairwise(body):
        if isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
            targets = before.targets if isinstance(before, ast.Assign) else [before.target]
            found |= {target.id: ast.literal_eval(after.value) for target in targets}
    return found


# Names in annotations of packages that are imported when they are needed.
LATE = {"Tokenizer": object}


def hints_of(value: typing.Any) -> Iterator[typing.Any]:
    """The types that a function takes and returns, or a class's fields and public methods."""
    if inspect.isclass(value):
        if dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
            hints = typing.get_type_hints(value, localns=LATE)
            yield from (hint for name, hint in hints.items() if name[0] != "_")
        for name, member in vars(value).items():
            if isinstance(member, property):
                member = member.fget
            member = getattr(member, "__func__", member)
            if inspect.isfunction(member) and (name[0] != "_" or name == "__call__"):
                yield from typing.get_type_hints(member, localns=LATE).values()
    elif inspect.isfunction(value):
        yield from typing.get_type_hints(value, localns=LATE).values()


def classes_in(hint: typing.Any) -> Iterator[type]:
    if inspect.isclass(hint) and not typing.get_args(hint):
        yield hint
    for argument in typing.get_args(hint):
        for inner in argument if isinstance(argument, list) else [argument]:
            yield from classes_in(inner)


def test_what_public_names_take_and_return_is_public_too():
    public = {
        getattr(package, name) for package in (snapjax, zoo)
        for name in package.__all__ if callable(getattr(package, name))
    }  # fmt: skip
    missing = {
        f"{found.__module__}.{found.__name__} of {value.__name__}"
        for value in public
        for hint in hints_of(value)
        for found in classes_in(hint)
        if found.__module__.split(".")[0] in ("snapjax", "zoo") and found not in public
    }
    assert missing == set()


def test_importing_loads_nothing_that_takes_time():
    """Not jax, and of the packages only what defers the rest."""
    program = "import sys, snapjax, zoo; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"jax", "numpy", "flax", "rich"}
    ours = {name for name in loaded if name.split(".")[0] in ("snapjax", "zoo")}
    assert ours == {"snapjax", "snapjax.lazy", "zoo"}


def test_the_version_is_written_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "snapjax.__version__"}
    assert [number.isdigit() for number in snapjax.__version__.split(".")] == [True] * 3


@PACKAGES
def test_types_are_shipped(package):
    assert (Path(package.__file__).parent / "py.typed").exists()
