"""Every command once in a process of its own, and what only such a process shows."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from command_lines import ROOT
from distilling import saved_teacher

from zoo.cli.commands import COMMANDS, COMPARED

HEAVY = {"jax", "numpy", "matplotlib", "rich"}
SUBCOMMANDS = [
    *([name] for name in COMMANDS),
    *(["compare", name] for name in COMPARED),
]
# Those that are no subcommand import what they measure; their tests call them in the process.
DEVELOPERS = ("bench_", "calibrate_profile", "cost_", "export_pretrained", "make_docs")
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


def snapjax(*arguments, **settings):
    """The JSON that a command prints, as a process that turns every warning into an error."""
    done = run(*SNAPJAX, *map(str, arguments), "--json", **settings)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


TINY = ("stages=2", "layers=2", "width=8", "heads=1", "mlp_width=8")


@pytest.mark.slow
def test_every_kind_of_command_runs_as_a_process(tmp_path):
    """What the other tests call in their own process, once each as a user would start it."""
    small = [part for value in TINY for part in ("--set", f"model.{value}")]
    folder = tmp_path / "run"
    trained = snapjax(
        *(
            "train",
            "digits_hnn",
            *small,
            "--set",
            "train.epochs=1",
            "--set",
            "train.batch_size=256",
        ),
        *("--set", "train.batch_size=256", "--out", folder),
    )
    assert trained["finished"]
    assert (folder / "summary.json").is_file()
    assert trained["parameters"] == json.loads((folder / "summary.json").read_text())["parameters"]

    dense, cut = "vit_nano_patch2_8.ann_digits", tmp_path / "cut.safetensors"
    fitted = snapjax("calibrate", dense, "--stages", "2", "--method", "variance",
                     "--samples", "128", "--out", cut)  # fmt: skip
    assert (fitted["method"], fitted["out"]) == ("variance", str(cut))

    scored = snapjax("evaluate", cut, "--data", "digits")
    assert (scored["samples"], scored["stages"]) == (360, 2)
    assert scored["accuracy"] > 0.5

    copy = tmp_path / "copy.safetensors"
    assert snapjax("convert", folder, copy)["parameters"] == trained["parameters"]
    assert snapjax("evaluate", copy, "--data", "digits")["accuracy"] == trained["accuracy"]

    teacher, text, vectors = saved_teacher(tmp_path), tmp_path / "few.txt", tmp_path / "few.npy"
    text.write_text("a b c\nd e\nf g h a\n")
    snapjax("embed", teacher, "--input", text, "--out", vectors)
    assert np.load(vectors).shape == (3, 16)

    table = tmp_path / "table.json"
    snapjax("compare", "models", dense, cut, "--data", "digits", "--codes", "int4", "--out", table)
    int4, spiking = json.loads(table.read_text())["rows"]
    assert (int4["code"], spiking["code"]) == ("int4", "phase")
    assert spiking["accuracy"] == scored["accuracy"]
    assert table.with_suffix(".png").is_file()
