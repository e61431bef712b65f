"""Commands, code, paths and names in the README, the docs and the examples are real."""

import argparse
import ast
import importlib.util
import json
import pkgutil
import re
import sys
from pathlib import Path

import pytest
from command_lines import cli
from documents import ROOT, blocks, commands, mentioned, name_of, pages

from zoo.cli.commands import COMMANDS
from zoo.cli.main import main as snapjax
from zoo.config.presets import get_preset
from zoo.config.specs import RunConfig
from zoo.config.values import override, pairs

OTHERS = {"pip", "cat", "cut", "mkdir", "jupytext"}
"""Programs of others that the blocks may call."""
PLACEHOLDERS = {"NAME", "COMMAND", "SUBCOMMAND", "PRESET", "RUN"}
CHEAP = {
    ("snapjax", "models"),
    ("snapjax", "train", "--list"),
    ("snapjax", "train", "digits_hnn", "--keys"),
    ("snapjax", "cost", "bert_base", "--tokens", "128", "--stages", "1"),
    ("snapjax", "cost", "vit_nano_patch2_8.hnn_digits", "--rate", "measured"),
}
"""Commands of the documents that are also run."""


class Parsed(BaseException):
    """What a parser made of its arguments, before anything is done with it."""


@pytest.fixture
def parse_only(monkeypatch):
    """Every program stops where its arguments are parsed."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop(self, args=None, namespace=None):
        raise Parsed(parse_args(self, args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    return monkeypatch


def script(path: str):
    """A program's module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_snapjax(words: list[str]) -> None:
    """A command of `snapjax`, and the keys of its --set."""
    if words[1] in PLACEHOLDERS or words[2:] == ["--help"]:
        return
    with pytest.raises(Parsed) as parsed:
        snapjax(words[1:])
    args = parsed.value.args[0]
    assignments = getattr(args, "assignments", [])
    if words[1] == "train" and args.preset not in (None, *PLACEHOLDERS):
        override(get_preset(args.preset), assignments)
    known = pairs(RunConfig("any"))
    for assignment in assignments:
        if assignment != "KEY=VALUE":
            assert assignment.partition("=")[0] in known


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for word in words[1:]:
        assert word in targets or re.match(r"(PYTHON|PYTEST_ARGS)=", word), word


def check_python(words: list[str], patch) -> None:
    if words[1].startswith("examples/"):
        assert words[1] == "examples/NAME.py" or (ROOT / words[1]).is_file()
        return
    patch.setattr(sys, "argv", words[1:])
    main = script(words[1]).main
    with pytest.raises(Parsed):
        main()


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_commands_parse(path, parse_only, capsys):
    said = mentioned(path)
    for words in said:
        assert words[0] != "snapjax" or words[1] in {*COMMANDS, *PLACEHOLDERS}
    # A sentence may also name a command without its arguments.
    for words in [*commands(path), *(words for words in said if len(words) > 2)]:
        program = words[0].removeprefix(".venv/bin/")
        try:
            if program == "snapjax":
                check_snapjax(words)
            elif program == "make":
                check_make(words)
            elif program == "python":
                check_python(words, parse_only)
            else:
                assert program in OTHERS
        except (Exception, SystemExit) as error:
            raise AssertionError(
                f"{name_of(path)}: {' '.join(words)}: {error} {capsys.readouterr().err}"
            ) from error


def test_cheap_commands_run():
    said = {tuple(words) for path in pages() for words in [*commands(path), *mentioned(path)]}
    assert said >= CHEAP
    for words in CHEAP:
        done = cli(*words[1:])
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.slow
def test_a_cut_without_training_is_as_good_as_said(tmp_path):
    said = {tuple(words) for words in commands(ROOT / "docs" / "results" / "calibration.md")}
    cut, score = (
        next(words for words in said if words[1] == name and "digits_cut.safetensors" in words)
        for name in ("calibrate", "evaluate")
    )
    assert cli(*cut[1:], cwd=tmp_path).returncode == 0
    done = cli(*score[1:], "--json", cwd=tmp_path)
    (row,) = (
        row
        for row in json.loads((ROOT / "results" / "calibrated.json").read_text())["rows"]
        if row["model"] == cut[2]
    )
    # Sums in another order move it: three of the 360 images.
    assert json.loads(done.stdout)["accuracy"] == pytest.approx(row["value"], abs=3.1 / 360)


CODE = [
    (path, code)
    for path in pages()
    for code in blocks(path.read_text(encoding="utf-8"), "python")
    if "jax_num_cpu_devices" not in code  # the README's, which runs in a process of its own
    and '("minilm_l6' not in code  # needs weights that are not here
]


@pytest.mark.parametrize(("path", "code"), CODE, ids=[name_of(path) for path, _ in CODE])
def test_code_runs(path, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, name_of(path), "exec"), {"__name__": "pasted"})


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_other_code_is_python(path):
    for block in blocks(path.read_text(encoding="utf-8"), ""):
        if re.search(r"^(from|import) ", block, re.M):
            ast.parse(block)


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_paths_and_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    made = {"configuration.md", "commands.md"}
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target and Path(target).name not in made:
            assert (path.parent / target).exists(), target
    for target in re.findall(
        r"`((?:snapjax|zoo|scripts|tests|docs|examples|results)/[^`*]*)`", text
    ):
        if not re.search(r"[A-Z]{3}", target):
            assert (ROOT / target.split()[0]).exists(), target


@pytest.mark.parametrize("path", pages(), ids=name_of)
def test_names_are_names(path):
    text = path.read_text(encoding="utf-8")
    if path.name == "CHANGELOG.md":
        text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.M)  # a table's old names
    for name in re.findall(r"`((?:snapjax|zoo)(?:\.\w+)+)(?:\([^`]*\))?`", text):
        pkgutil.resolve_name(name)
