"""A run that is killed, at any moment, and goes on repeats the uninterrupted run bit for bit."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from zoo import checkpoint
from zoo.config.presets import get_preset
from zoo.config.values import override
from zoo.pretrained.load import load_pretrained
from zoo.train.logbook import TIMINGS, read_metrics
from zoo.train.run import train

ROOT = Path(__file__).parents[1]
# Small, but with everything in it that could go astray: dropout, augmentation, a moving average,
# lines of metrics that no checkpoint falls on, and spikes. 22 steps an epoch, a save every 2.
SETTINGS = [
    *("train.epochs=2", "train.ema=0.9", "model.dropout=0.1", "train.batch_size=64"),
    *("model.layers=2", "model.stages=2", "model.width=16", "model.mlp_width=32", "mesh.stage=1"),
    *("log.every=5", "log.save=2", "log.evaluate=17"),
]
RUN = ["digits_hnn", *(part for setting in SETTINGS for part in ("--set", setting))]
STEPS = 2 * 22


def command(out, *arguments):
    """What subprocess needs to run the trainer."""
    return {
        "args": [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments, "--out", str(out)],
        "env": {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "COLUMNS": "400",  # messages stay on one line
        },
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }


def finish(out, *arguments):
    done = subprocess.run(**command(out, *arguments), timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def untimed(out):
    """The run's metrics without what the clock decides, as the text that JSON makes of them."""
    lines = read_metrics(out)
    return [json.dumps({k: v for k, v in line.items() if k not in TIMINGS}) for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run, in a process like those that are killed."""
    out = tmp_path_factory.mktemp("whole")
    finish(out, *RUN)
    return out


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The same run in this process, which is a few seconds faster; equal but for roundings."""
    out, config = tmp_path_factory.mktemp("finished"), override(get_preset("digits_hnn"), SETTINGS)
    with jax.numpy_dtype_promotion("standard"):  # as in test_run.py
        train(config, out, console=Console(file=io.StringIO()))
    return out


def assert_equal_runs(out, whole):
    assert untimed(out) == untimed(whole)
    mine, theirs = (load_pretrained(folder / "model").params for folder in (out, whole))
    for a, b in zip(*map(jax.tree.leaves, (mine, theirs)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow  # eleven processes, ten of them killed
def test_ten_kills_change_nothing(whole, tmp_path):
    """SIGKILL at ten moments spread over the run, every second one aimed at a save."""
    draw, in_save = random.Random(0), 0
    for kill in range(10):
        with subprocess.Popen(**command(tmp_path, *RUN, "--resume")) as process:
            wait_for(process, partial(newer_than, tmp_path, newest_step(tmp_path)))
            if kill % 2:  # during a save: its hidden folder is there
                wait_for(process, partial(saves, tmp_path))
            else:
                time.sleep(draw.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        in_save += saves(tmp_path)  # a killed save leaves its folder behind
    assert in_save >= 3
    assert newest_step(tmp_path) < STEPS
    finish(tmp_path, *RUN, "--resume")
    assert_equal_runs(tmp_path, whole)


def saves(out):
    return any((out / "checkpoints").glob(".partial-*"))


def newer_than(out, step):
    return newest_step(out) > step


def newest_step(out):
    """The step of the newest checkpoint; 0 if there is none, or while it is being replaced."""
    newest = checkpoint.latest(out / "checkpoints")
    if newest is None:
        return 0
    try:
        return json.loads((newest / "record.json").read_text())["step"]
    except OSError:
        return 0


def wait_for(process, condition, seconds=600):
    deadline = time.monotonic() + seconds
    while process.poll() is None and not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow  # two processes each, one stopped by a signal
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves_and_nothing_is_lost(whole, tmp_path, number):
    with subprocess.Popen(**command(tmp_path, *RUN)) as process:
        wait_for(process, lambda: newest_step(tmp_path) >= 12)
        process.send_signal(number)
        printed, errors = process.communicate(timeout=600)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    stopped = newest_step(tmp_path)
    assert f"stopped on request at step {stopped}" in printed
    assert stopped >= 12
    assert not list((tmp_path / "checkpoints").glob(".partial-*"))
    finish(tmp_path, *RUN, "--resume")
    assert_equal_runs(tmp_path, whole)


@pytest.mark.slow  # three processes, one stopped by a signal
def test_a_damaged_checkpoint_is_an_error_and_passed_over_on_request(whole, tmp_path):
    with subprocess.Popen(**command(tmp_path, *RUN)) as process:
        wait_for(process, lambda: newest_step(tmp_path) >= 18)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=600)
    newest = checkpoint.latest(tmp_path / "checkpoints")
    largest = max(newest.rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-100])
    done = subprocess.run(**command(tmp_path, *RUN, "--resume"), timeout=600)
    assert done.returncode == 2
    assert f"checkpoint {newest} is damaged" in done.stderr
    assert "--fallback" in done.stderr
    assert "Traceback" not in done.stderr
    printed = finish(tmp_path, *RUN, "--resume", "--fallback")
    assert "passed over" in printed
    assert_equal_runs(tmp_path, whole)


@pytest.mark.slow  # trains the run that is refused
def test_another_config_is_not_resumed(finished):
    changed = [*RUN, "--set", "train.learning_rate=0.1"]
    done = subprocess.run(**command(finished, *changed, "--resume"), timeout=600)
    assert done.returncode == 2
    assert "train.learning_rate: 0.002, now 0.1" in done.stderr
    done = subprocess.run(**command(finished, *RUN), timeout=600)
    assert done.returncode == 2
    assert "holds a run with checkpoints; go on with it (--resume)" in done.stderr


@pytest.mark.slow  # trains the run
def test_a_finished_run_has_everything(finished):
    names = {path.name for path in finished.iterdir()}
    assert {"config.json", "metrics.jsonl", "checkpoints", "model", "summary.json",
            "curves.png"} <= names  # fmt: skip
    lines = read_metrics(finished)
    trained = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in trained] == [*range(5, STEPS, 5), STEPS]
    wanted = {"loss", "accuracy", "learning_rate", "gradient_norm", "spike_rate", "bits",
              "samples_per_second", "tokens_per_second", "waiting_share"}  # fmt: skip
    assert wanted <= trained[0].keys()
    assert all(len(line["spike_rate"]) == 1 for line in lines)
    scored = [line["step"] for line in lines if line["kind"] == "evaluation"]
    assert scored == [17, 34, STEPS]
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")
    # The newest two and the best one.
    kept = [json.loads((path / "record.json").read_text())
            for path in checkpoint.checkpoints(finished / "checkpoints")]  # fmt: skip
    assert [record["step"] for record in kept][-2:] == [42, STEPS]
    assert len(kept) <= 3
