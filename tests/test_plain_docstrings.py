"""Docstrings of this repository as reStructuredText, for the site."""

import importlib.util

import pytest
from documents import ROOT

SPEC = importlib.util.spec_from_file_location(
    "plain_docstrings", ROOT / "docs" / "_ext" / "plain_docstrings.py"
)
docstrings = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(docstrings)


@pytest.mark.parametrize(
    ("plain", "marked"),
    [
        ("x * y, |z| and a_ of `b_c*`", r"x \* y, \|z\| and a\_ of `b_c*`"),
        ("one of `Array`s", "one of `Array`\\ s"),
        ("*args: things", r"\*args: things"),
    ],
)
def test_marks_are_harmless(plain, marked):
    assert docstrings.convert([plain]) == [marked]


def test_an_indented_block_is_code():
    lines = ["What.", "", "    snapjax train --set a=*b", "", "More."]
    assert docstrings.convert(lines) == [
        "What.", "", "::", "", "    snapjax train --set a=*b", "", "More.",
    ]  # fmt: skip


def test_a_section_keeps_its_indents_and_an_example_its_text():
    lines = ["Args:", "  x: a", "    and *b*.", "", "Example:", "  >>> f(*x)", "  'a_'"]
    assert docstrings.convert(lines) == [
        "Args:", "  x: a", r"    and \*b\*.", "", "Example:", "  >>> f(*x)", "  'a_'",
    ]  # fmt: skip


def test_a_table_keeps_its_lines():
    made = docstrings.convert(["Of:", "| a | b |", "|---|---|", "and so on"])
    assert [line for line in made if line] == [
        "Of:", "::", "   | a | b |", "   |---|---|", "and so on",
    ]  # fmt: skip
