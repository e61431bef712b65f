"""The metrics of a run, as JSON lines and as TensorBoard's events."""

import errno
import struct
import threading

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from zoo.train.logbook import Logbook, Window, current_row, read_metrics


def events(folder):
    """{tag: [(step, value)]} of an event file: records of length, checksum, bytes, checksum
    (TFRecord, as TensorFlow documents it)."""
    (path,) = folder.iterdir()
    content, at, found = path.read_bytes(), 0, {}
    while at < len(content):
        (size,) = struct.unpack_from("<Q", content, at)
        event = event_pb2.Event.FromString(content[at + 12 : at + 12 + size])
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
        at += 16 + size
    return found


def test_tensorboard_gets_every_number_of_every_line(tmp_path):
    lines = {5: {"loss": 2.5, "bits": [64.0, 72.0]}, 10: {"loss": 1.25, "bits": [64.0, 80.0]}}
    with Logbook(tmp_path) as logbook:
        for step, metrics in lines.items():
            logbook.write("train", step, 0, metrics)
        logbook.write("evaluation", 10, 0, {"accuracy": 0.75})
    assert events(tmp_path / "tensorboard") == {
        "train/loss": [(5, 2.5), (10, 1.25)],
        "train/bits/0": [(5, 64.0), (10, 64.0)],
        "train/bits/1": [(5, 72.0), (10, 80.0)],
        "evaluation/accuracy": [(10, 0.75)],
    }
    assert read_metrics(tmp_path)[0] == {"kind": "train", "step": 5, "epoch": 0, **lines[5]}


def test_lines_after_the_checkpoint_are_written_anew(tmp_path):
    with Logbook(tmp_path) as logbook:
        for step in (5, 10, 15):
            logbook.write("train", step, 0, {"loss": float(step)})
    with Logbook(tmp_path, step=10) as logbook:
        logbook.write("train", 15, 0, {"loss": -1.0})
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [
        (5, 5.0),
        (10, 10.0),
        (15, -1.0),
    ]


@pytest.mark.parametrize("score", ["accuracy", "cosine"])
def test_a_window_is_the_mean_of_its_steps(score):
    draw = np.random.default_rng(0)
    rows = [
        {
            "loss": np.float32(draw.normal()),
            score: np.float32(draw.random()),
            "gradient_norm": np.float32(draw.random()),
            "spike_rate": draw.random(3).astype(np.float32),
            "bits": draw.random(3).astype(np.float32),
        }
        for _ in range(7)
    ]
    window = Window(rows[:3])  # a checkpoint's
    for row in rows[3:]:
        window.add(row)
    line = window.close(samples=8, tokens=128, waited=0.0)
    assert sum(name in line for name in ("accuracy", "cosine")) == 1
    for name in ("loss", score, "gradient_norm", "spike_rate", "bits"):
        expected = np.stack([row[name] for row in rows]).astype(np.float64).mean(0)
        np.testing.assert_allclose(line[name], expected, rtol=1e-12)
    # Only the four steps of this process count for its speed.
    assert line["tokens_per_second"] == pytest.approx(16 * line["samples_per_second"])
    assert window.rows == []


def test_a_window_that_an_older_run_saved_goes_on_under_todays_names():
    row = {"loss": 2.0, "accuracy": 0.75, "gradient_norm": 1.0, "spike_rate": [], "bits": []}
    assert current_row(row, encodes=False) == row
    new = {"loss": 1.0, "cosine": 0.25, "gradient_norm": 1.0, "spike_rate": [], "bits": []}
    window = Window([current_row(row, encodes=True), current_row(new, encodes=True)])
    assert window.close(samples=1, tokens=1, waited=0.0)["cosine"] == 0.5


def test_a_full_disk_is_told_where_it_is_met(tmp_path, monkeypatch):
    """Not by a thread of its own, or at the end of the process."""
    threads = threading.active_count()
    full = OSError(errno.ENOSPC, "No space left on device")

    def flush(writer):
        raise full

    with Logbook(tmp_path) as logbook:
        logbook.write("train", 1, 0, {"loss": 1.0})
        assert threading.active_count() == threads
        monkeypatch.setattr("tensorboardX.record_writer.RecordWriter.flush", flush)
        with pytest.raises(OSError, match=rf"left on device: '{tmp_path}/tensorboard/events"):
            logbook.write("train", 2, 0, {"loss": 0.5})
    monkeypatch.undo()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]


def test_a_window_that_version_0_1_0_began_of_a_dense_run_ends_without_a_spike_rate():
    """That version counted one of dense boundaries too, always 1."""
    row = {"loss": 2.0, "accuracy": 0.5, "gradient_norm": 1.0, "bits": [512.0]}
    window = Window([{**row, "spike_rate": [1.0]}])
    window.add(row)
    line = window.close(samples=1, tokens=1, waited=0.0)
    assert "spike_rate" not in line
    assert (line["loss"], line["accuracy"], line["bits"]) == (2.0, 0.5, [512.0])
