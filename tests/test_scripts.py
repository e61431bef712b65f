"""Every command once in a process of its own, and what only such a process shows."""

import os
import subprocess
import sys

import pytest
from command_lines import ROOT

from zoo.cli.commands import COMMANDS, COMPARED

HEAVY = {"jax", "numpy", "matplotlib", "rich"}
SUBCOMMANDS = [
    *([name] for name in COMMANDS),
    *(["compare", name] for name in COMPARED),
]
# Those that are no subcommand import what they measure; their tests call them in the process.
DEVELOPERS = ("bench_", "calibrate_profile", "cost_scaling", "export_pretrained", "make_docs")
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
HELP = f"""
import sys
from zoo.cli.main import main
for arguments in {SUBCOMMANDS}:
    try:
        code = main([*arguments, "--help"])
    except SystemExit as ended:
        code = ended.code
    heavy = {HEAVY} & sys.modules.keys()
    assert code == 0 and not heavy, (arguments, code, heavy)
"""
SNAPJAX = [sys.executable, "-W", "error", "-m", "zoo.cli.main"]


def run(*command, **settings):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **settings)


def test_help_of_no_subcommand_imports_jax():
    """One process for all of them: what one imports would be seen in the next, and is named."""
    done = run(sys.executable, "-W", "error", "-c", HELP)
    assert done.returncode == 0, done.stderr
    for arguments in SUBCOMMANDS:
        assert f"usage: snapjax {' '.join(arguments)} " in done.stdout


@pytest.mark.parametrize("script", [one for one in SCRIPTS if not one.startswith(DEVELOPERS)])
def test_a_script_is_a_subcommand(script):
    done = run(sys.executable, "-W", "error", ROOT / "scripts" / script, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: snapjax ")


@pytest.mark.slow
@pytest.mark.parametrize("script", [one for one in SCRIPTS if one.startswith(DEVELOPERS)])
def test_a_developers_script_starts(script):
    done = run(sys.executable, "-W", "error", ROOT / "scripts" / script, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {script}")


def test_a_reader_that_leaves_early_is_no_error():
    """As `| head` does, of a command that has more to say."""
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}  # argparse passes over a write that fails
    for arguments in (["train", "--keys"], ["train", "--help"]):
        writer = subprocess.Popen(
            [*SNAPJAX, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered
        )
        writer.stdout.close()  # before anything is written
        assert writer.stderr.read() == b""
        writer.stderr.close()
        assert writer.wait(120) == 141
