"""The demo, short: its files, its table, an interrupt, bad arguments."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from zoo import checkpoint, data, demo
from zoo.registry import create_model
from zoo.train import TrainConfig, Trainer

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-W", "error", str(ROOT / "scripts" / "demo.py")]


def abstract(name, variant):
    model = create_model(name, variant)
    return jax.eval_shape(lambda: model.init(jax.random.key(0)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [*COMMAND, "--epochs", "2", "--out", str(out)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_table_and_files(finished):
    out, printed = finished
    table = json.loads((out / "table.json").read_text())
    rows = {(row["code"], row["weights"]): row for row in table["rows"]}
    assert table["devices"] == 4
    sizes = {code: row["bytes_per_token_and_hop"] for (code, _), row in rows.items()}
    dense = {"float32": 256, "bfloat16": 128, "int8": 66, "int4": 34, "int2": 18}
    assert sizes == {**dense, "topk": 6, "phase": 8}
    spikes = rows["phase", "trained with spikes"]
    assert spikes["times_fewer_than_float32"] == 32
    assert spikes["times_fewer_than_bfloat16"] == 16
    assert 0 < spikes["spike_rate"] < 1
    assert "trained with spikes" in printed
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [(m["run"], m["epoch"]) for m in metrics] == [
        ("ann", 1), ("ann", 2), ("hnn", 1), ("hnn", 2)
    ]  # fmt: skip
    assert metrics[1]["loss"] < metrics[0]["loss"]
    assert all(len(m["spike_rate"]) == 3 for m in metrics)
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_checkpoint_repeats_the_table(finished):
    out, _ = finished
    table = json.loads((out / "table.json").read_text())
    params, record = checkpoint.load(out / "hnn", abstract("vit_nano_patch2_8", "hnn"))
    assert record["model"] == "vit_nano_patch2_8"
    model, splits = create_model("vit_nano_patch2_8", "hnn"), data.digits()
    scores = Trainer(model, TrainConfig(batch_size=40), 1).evaluate(params, splits.validation)
    accuracy = next(
        row["accuracy"] for row in table["rows"] if row["weights"] == "trained with spikes"
    )
    # Another batch shape and one device instead of four: a spike in a million may fall elsewhere.
    assert abs(scores.accuracy - accuracy) <= 1 / 360 + 1e-9


def test_checkpoint_of_another_model_is_refused(finished):
    out, _ = finished
    with pytest.raises(ValueError, match="boundaries/encoder/gain"):
        checkpoint.load(out / "ann", abstract("vit_nano_patch2_8", "hnn"))


@pytest.mark.parametrize(
    ("kind", "epochs"), [(signal.SIGINT, 0), (signal.SIGTERM, 1)], ids=["compiling", "training"]
)
def test_interrupt_leaves_a_usable_checkpoint(kind, epochs, tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "--epochs", "500", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    metrics = tmp_path / "metrics.jsonl"
    # The log is made before anything is calibrated or compiled, and has one line an epoch.
    while not (metrics.exists() and metrics.read_text().count("\n") >= epochs):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.kill(process.pid, kind)
    try:
        printed, errors = process.communicate(timeout=120)
    finally:
        process.kill()  # nothing if it has ended; a run of 500 epochs if it has not
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "the newest checkpoint is" in printed
    params, record = checkpoint.load(tmp_path / "ann", abstract("vit_nano_patch2_8", "ann"))
    assert record["step"] >= 44 * epochs
    assert np.isfinite(params["head"]["classifier"]["kernel"]).all()
    names = {path.name for path in tmp_path.rglob("*")}
    assert not [name for name in names if "partial" in name or name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--code", "phaze"], "unknown spike code 'phaze'; did you mean 'phase'"),
        (["--code", "int8"], "unknown spike code 'int8'"),
        (["--seed", "-1"], "seed=-1 must not be negative"),
        (["--model", "vit_nano"], "did you mean 'vit_nano_patch2_8'"),
        (["--gradient-wire", "int5"], "unknown gradient wire 'int5'"),
        (["--epochs", "0"], "epochs=0 must be at least 1"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path):
    done = subprocess.run(
        [*COMMAND, *arguments, "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = subprocess.run(
        [*COMMAND, "--out", str(tmp_path / "file")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert str(tmp_path / "file") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_new_run_replaces_what_an_earlier_one_left(tmp_path):
    kept = tmp_path / "notes.txt"
    kept.write_text("not the demo's")
    checkpoint.save(tmp_path / "hnn", {"old": np.ones(3, np.float32)}, {"model": "another"})
    (tmp_path / "table.json").write_text("{}")
    demo.clear(tmp_path)
    assert checkpoint.latest(tmp_path / "hnn") is None
    assert not (tmp_path / "table.json").exists()
    assert kept.exists()


def test_help():
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "four devices" in done.stdout
