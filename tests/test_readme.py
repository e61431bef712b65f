"""The README is short, and its examples run as pasted."""

import re
import subprocess
import sys

from documents import ROOT, blocks

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_read_in_two_minutes():
    assert len(README.encode()) <= 8192
    assert len(re.findall(r"^!\[", README, re.M)) == 1


def test_the_boundary_example_runs(tmp_path):
    code, *_ = blocks(README, "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    sent, dense, error = re.match(
        r"(\d+) bytes a token, float32 takes (\d+); error ([\d.]+) of the variance", done.stdout
    ).groups()
    assert int(dense) == 32 * int(sent)
    assert 0.3 < float(error) < 0.4  # one bit a feature of a Gaussian: 0.363 (Max 1960)


def test_the_five_commands():
    said = [line for block in blocks(README, "") for line in block.splitlines()]
    assert len([line for line in said if line.startswith("snapjax ")]) == 5


def test_no_model_is_shown_cut_and_not_calibrated():
    for code in blocks(README, "python"):
        assert not re.search(r"load_pretrained\([^)]*(variant|stages)=", code)
