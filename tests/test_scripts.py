"""Every command once in a process of its own, and what only such a process shows."""

import os
import subprocess
import sys

import pytest
from command_lines import ROOT

from zoo.cli.compare import COMMANDS as COMPARED
from zoo.cli.main import COMMANDS

SUBCOMMANDS = [
    *([name] for name in COMMANDS),
    *(["compare", name] for name in COMPARED),
]
# Those that are no subcommand import what they measure; their tests call them in the process.
DEVELOPERS = ("bench_", "calibrate_profile", "cost_scaling", "export_pretrained")
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
SNAPJAX = [sys.executable, "-W", "error", "-m", "zoo.cli.main"]


def run(*command, **settings):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **settings)


@pytest.mark.parametrize("arguments", SUBCOMMANDS, ids=" ".join)
def test_help_of_a_subcommand_needs_no_jax(arguments):
    code = (
        "import sys\n"
        "from zoo.cli.main import main\n"
        "try:\n"
        f"    code = main([*{arguments!r}, '--help'])\n"
        "except SystemExit as ended:\n"
        "    code = ended.code\n"
        "assert not {'jax', 'numpy', 'matplotlib', 'rich'} & sys.modules.keys()\n"
        "sys.exit(code)\n"
    )
    done = run(sys.executable, "-W", "error", "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: snapjax {' '.join(arguments)}")


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
