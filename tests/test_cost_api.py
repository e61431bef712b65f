"""The public names of `snapjax.cost`: what there is, where it comes from, and when it is loaded."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from snapjax import cost
from snapjax.cost.price import estimate as price

ROOT = Path(__file__).parents[1]


def test_every_public_name_is_there():
    assert sorted(cost.__all__) == cost.__all__
    assert {"trace", "estimate", "table", "to_dict", "html", "list_profiles"} <= set(cost.__all__)
    for name in cost.__all__:
        assert getattr(cost, name).__doc__
    assert set(cost.__all__) <= set(dir(cost))
    assert cost.counts.KINDS == importlib.import_module("snapjax.cost.counts").KINDS


def test_type_checkers_see_the_names_where_they_are_found():
    """The imports under TYPE_CHECKING are of the same objects as the lazy ones, and of all."""
    module = ast.parse(Path(cost.__file__).read_text())
    block = next(node for node in module.body if isinstance(node, ast.If))
    imported = {alias.name: node.module for node in block.body for alias in node.names}
    assert sorted(imported) == cost.__all__
    for name, home in imported.items():
        assert getattr(importlib.import_module(home), name) is getattr(cost, name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'snapjax.cost' has no attribute 'price_of'"):
        cost.price_of  # noqa: B018 (the look-up is the test)


def test_importing_the_module_loads_nothing_else():
    """In a process of its own, as this one has loaded everything."""
    code = "import sys, snapjax.cost; print(*sys.modules)"
    command = [sys.executable, "-S", "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert [name for name in loaded.split() if name.startswith("snapjax.cost.")] == []
    assert not {"jax", "numpy"} & set(loaded.split())


def test_the_methods_of_an_estimate_are_the_functions():
    found = cost.estimate(cost.Counts(), "snap-mesh")
    assert type(found) is cost.Estimate
    assert found.table(2) == cost.table(found, 2)
    assert found.to_dict() == cost.to_dict(found)
    assert found.html("Mine") == cost.html(found, "Mine")


def test_an_estimate_is_the_priced_one_with_reports():
    """They are methods of a class, not set on it, so that they are there whatever is imported."""
    priced = price.estimate(cost.Counts(), "snap-mesh")
    found = cost.estimate(cost.Counts(), "snap-mesh")
    assert type(priced) is price.Estimate
    assert issubclass(cost.Estimate, price.Estimate)
    assert vars(found) == vars(priced)
    assert {"table", "to_dict", "html"} <= vars(cost.Estimate).keys()
    assert not {"table", "to_dict", "html"} & vars(price.Estimate).keys()
    assert cost.table(priced) == found.table()
    parameters = lambda function: str(inspect.signature(function)).partition(" ->")[0]
    assert parameters(cost.estimate) == parameters(price.estimate)
