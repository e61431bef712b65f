"""The demo, short: its files, its table, an interrupt, bad arguments."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from command_lines import ROOT, cli

from snapjax.parallel.sharding import make_mesh
from zoo import checkpoint
from zoo.cli import demo
from zoo.evaluation import baselines
from zoo.evaluation.inputs import data_for
from zoo.evaluation.score import score
from zoo.models.registry import create_model
from zoo.pretrained.load import load_pretrained

COMMAND = [sys.executable, "-W", "error", str(ROOT / "scripts" / "demo.py")]


def abstract(name, variant):
    model = create_model(name, variant)
    return {"params": jax.eval_shape(lambda: model.init(jax.random.key(0)))}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    done = cli("demo", "--epochs", "2", "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.mark.slow  # the demo trains five models
def test_table_and_files(finished):
    out, printed = finished
    table = json.loads((out / "table.json").read_text())
    assert table["devices"] == 4
    assert [
        (row["code"], row["weights"], row["bytes_per_token_and_hop"]) for row in table["rows"]
    ] == [
        ("float32", "dense", 256),
        ("bfloat16", "dense", 128),
        ("int8", "dense", 66),
        ("int4", "dense", 34),
        ("int2", "dense", 18),
        ("int2", "distilled for 22 steps", 18),
        ("topk", "dense", 6),
        ("topk", "distilled for 22 steps", 6),
        ("phase", "dense, calibrated", 8),
        ("phase", "distilled for 22 steps", 8),
        ("phase", "dense, calibrated", 4),
        ("phase", "distilled for 22 steps", 4),
    ]
    for row, bits in zip(table["rows"][-4:], (1, 1, 0.5, 0.5), strict=True):
        assert row["bits_per_feature"] == bits
        assert row["times_fewer_than_float32"] == 32 / bits
        assert row["times_fewer_than_bfloat16"] == 16 / bits
        assert 0 < row["spike_rate"] < 1
    assert all(row["spike_rate"] is None for row in table["rows"][:-4])
    for row in table["rows"]:
        assert row["loss"] < 2.3 or row["code"] == "topk"  # chance is ln 10 = 2.3
        assert f"{row['loss']:.4f}" in printed
    assert "dense, calibrated" in printed
    assert "distilled for 22 steps" in printed
    for variant, epochs in (("ann", [0, 1]), *((name, [0]) for name in demo.CUTS)):
        text = (out / variant / "metrics.jsonl").read_text()
        metrics = [json.loads(line) for line in text.splitlines()]
        scored = [line for line in metrics if line["kind"] == "evaluation"]
        assert [line["epoch"] for line in scored] == epochs
        rates = [line.get("spike_rate") for line in metrics]
        if variant.startswith("hnn"):
            assert all(len(rate) == 3 for rate in rates)
        else:  # a dense boundary has none
            assert not any(rates)
        if variant != "topk":
            assert scored[-1]["loss"] < 2  # of the cuts T^2 KL from the teacher, and the states'
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow  # the demo trains five models
def test_two_runs_side_by_side(finished, tmp_path):
    out, _ = finished
    runs = [shutil.copytree(out / name, tmp_path / name / "run") for name in ("ann", "hnn")]
    for folder in runs:  # made on a mesh of more devices than compare_runs.py sees
        config = folder / "model" / "config.json"
        record = json.loads(config.read_text())
        record["config"]["mesh"]["stage"] = 2
        config.write_text(json.dumps(record))
    done = cli("compare", "runs", *runs, "--hardware", "a test", "--out", tmp_path / "digits.json")
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "digits.json").read_text())
    table = json.loads((out / "table.json").read_text())
    # Two runs alone: without those distilled for int2 and top-k, and without half a bit.
    alone = table["rows"][:5] + table["rows"][6:7] + table["rows"][8:10]
    assert [row["code"] for row in made["rows"]] == [row["code"] for row in alone]
    assert [row["weights"] for row in made["rows"]] == [row["weights"] for row in alone]
    for mine, theirs in zip(made["rows"], alone, strict=True):
        assert abs(mine["accuracy"] - theirs["accuracy"]) <= 1 / 360 + 1e-9
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=0.02)
        assert f"| {mine['loss']:.4f} |" in done.stdout
    assert made["commands"]["ann"].startswith("snapjax train digits_ann --set train.epochs=2")
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow  # the demo trains five models
def test_two_runs_that_are_no_pair_are_refused(finished):
    out, _ = finished
    ann, hnn = (load_pretrained(out / name) for name in ("ann", "hnn"))
    mesh = make_mesh(stage=1)
    with pytest.raises(ValueError, match="give the dense run first"):
        baselines.rows(hnn, [ann], None, mesh)
    ann.record["data"]["sha256"] = "0"
    with pytest.raises(ValueError, match="trained on different data"):
        baselines.rows(ann, [hnn], None, mesh)


@pytest.mark.slow  # the demo trains five models
def test_the_run_repeats_the_table(finished):
    out, _ = finished
    table = json.loads((out / "table.json").read_text())
    accuracy = next(
        row["accuracy"]
        for row in table["rows"]
        if row["code"] == "phase" and row["weights"].startswith("distilled")
    )
    for path in (out / "hnn", out / "hnn" / "checkpoints"):  # the exported model, and the newest
        loaded = load_pretrained(path)
        assert loaded.model.config.name == "vit_nano_patch2_8"
        again = score(loaded, data_for(loaded, loaded.config.data), batch_size=40, ranks=1)
        # Another batch and one device instead of four: a spike in a million may fall elsewhere.
        assert abs(again["accuracy"] - accuracy) <= 1 / 360 + 1e-9


@pytest.mark.slow  # the demo trains five models
def test_checkpoint_of_another_model_is_refused(finished):
    out, _ = finished
    with pytest.raises(ValueError, match="boundaries/encoder/gain"):
        checkpoint.load(out / "ann" / "checkpoints", abstract("vit_nano_patch2_8", "hnn"))


@pytest.mark.slow  # a process stopped by a signal
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
    config, metrics = tmp_path / "ann" / "config.json", tmp_path / "ann" / "metrics.jsonl"
    # The config is written before the step is compiled; every epoch has a line of its own.
    while not (
        config.exists()
        and (not epochs or (metrics.exists() and "evaluation" in metrics.read_text()))
    ):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.kill(process.pid, kind)
    try:
        printed, errors = process.communicate(timeout=120)
    finally:
        process.kill()  # nothing if it has ended; a run of 500 epochs if it has not
    assert process.returncode == 128 + kind, errors
    assert "Traceback" not in errors
    assert "The newest checkpoint" in printed
    tree, record = checkpoint.load(
        tmp_path / "ann" / "checkpoints", abstract("vit_nano_patch2_8", "ann")
    )
    assert record["step"] >= 22 * epochs
    assert np.isfinite(tree["params"]["head"]["classifier"]["kernel"]).all()
    names = {path.name for path in tmp_path.rglob("*")}
    assert not [name for name in names if "partial" in name or name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--code", "phaze"], "unknown spike code 'phaze'; did you mean 'phase'"),
        (["--code", "int8"], "unknown spike code 'int8'"),
        (["--seed", "-1"], "train.seed=-1 must be in"),
        (["--model", "vit_nano_patch2"], "did you mean 'vit_nano_patch2_8'"),
        (["--gradient-wire", "int5"], "unknown gradient wire 'int5'"),
        (["--epochs", "0"], "epochs=0 must be at least 1"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path):
    done = cli("demo", *arguments, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = cli("demo", "--out", tmp_path / "file")
    assert done.returncode == 1
    assert str(tmp_path / "file") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_new_run_replaces_what_an_earlier_one_left(tmp_path):
    kept = tmp_path / "notes.txt"
    kept.write_text("not the demo's")
    old = {"params": {"old": np.ones(3, np.float32)}}
    checkpoint.save(tmp_path / "hnn" / "checkpoints", old, {"model": "another"})
    (tmp_path / "table.json").write_text("{}")
    demo.clear(tmp_path)
    assert checkpoint.latest(tmp_path / "hnn" / "checkpoints") is None
    assert not (tmp_path / "table.json").exists()
    assert kept.exists()


def test_runs_that_no_demo_made_are_not_removed(tmp_path):
    """A folder of runs may have some of the demo's names."""
    metrics = tmp_path / "hnn" / "metrics.jsonl"
    metrics.parent.mkdir()
    metrics.write_text("of days of training")
    done = cli("demo", "--out", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "holds hnn, which no demo wrote and it would overwrite; give another" in done.stderr
    assert metrics.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hnn"]
    (tmp_path / demo.MARK).write_text("of a demo that was interrupted before its table")
    demo.clear(tmp_path)
    assert not metrics.exists()


def test_help():
    done = cli("demo", "--help")
    assert done.returncode == 0
    assert "four devices" in done.stdout
