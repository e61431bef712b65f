"""What a run goes on from: a record that can be, its own config, and more epochs if asked for."""

import io
import json
import math
import shutil
from pathlib import Path

import jax
import pytest
from rich.console import Console
from stops import StopAt

from zoo import checkpoint
from zoo.checkpoint import folder
from zoo.config.presets import get_preset
from zoo.config.values import from_dict, override
from zoo.train.logbook import read_metrics
from zoo.train.resume import check_progress, check_updates
from zoo.train.run import prepare, train

# Of version 0.1.0, at step 25 of 44 in the middle of a window, one boundary.
OLD = Path(__file__).parent / "golden" / "v0.1.0" / "run_averaged"
ROW = {"loss": 2.0, "accuracy": 0.5, "gradient_norm": 1.0, "spike_rate": [0.5], "bits": [8.0]}
GOOD = {"step": 25, "seconds": 1.5, "window": [ROW] * 5}


@pytest.fixture(autouse=True)
def _optax_promotes():
    """optax raises its decay rates to an integer count, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def quiet():
    return Console(file=io.StringIO(), width=400)


def without(name):
    return {key: value for key, value in ROW.items() if key != name}


@pytest.mark.parametrize(
    "record",
    [
        GOOD,
        {**GOOD, "step": 0, "window": []},
        {**GOOD, "step": 44, "seconds": 0},
        {**GOOD, "window": [without("spike_rate")]},  # of a dense run
        {**GOOD, "window": [{**without("accuracy"), "cosine": 0.1}]},
    ],
)
def test_what_a_run_writes_is_taken(record):
    check_progress(record, 44, 1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        *(({"step": step}, "step=.* is not in")
          for step in (-5, 10**9, 45, 3.7, 25.0, True, "25", None, [25])),
        *(({"seconds": seconds}, "seconds=.* is no time")
          for seconds in (-1e99, -1, 1e99, 10**400, math.nan, math.inf, True, "1", None)),
        *(({"window": window}, "window=.* is no list of at most 25")
          for window in ("x", None, {}, 3, [ROW] * 26)),
        *(({"window": [ROW, row]}, r"window\[1\]=.* is not what a step reports")
          for row in ("x", None, [], {}, without("loss"), without("bits"), without("accuracy"),
                      without("gradient_norm"), {**ROW, "cosine": 1.0}, {**ROW, "more": 1},
                      {**ROW, "loss": "2"}, {**ROW, "loss": math.nan}, {**ROW, "loss": None},
                      {**ROW, "bits": [8.0, 8.0]}, {**ROW, "bits": 8.0}, {**ROW, "bits": ["8"]},
                      {**ROW, "spike_rate": []}, {**ROW, "spike_rate": [math.inf]})),
    ],
)  # fmt: skip
def test_what_no_run_writes_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        check_progress({**GOOD, **changed}, 44, 1)


def test_the_optimiser_counts_the_steps_of_the_record():
    optimiser = {"1": {"0": {"count": 25, "mu": {"head": 1.0}}, "2": {"count": 25}}}
    check_updates(optimiser, 25)
    optimiser["1"]["2"]["count"] = 24
    with pytest.raises(ValueError, match="step=25, but its optimiser has made 24 updates"):
        check_updates(optimiser, 25)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, None),
        ({"step": 24}, "step=24, but its optimiser has made 25 updates"),
        ({"step": 10**9}, r"step=1000000000 is not in \[0, 44\], the steps of the run"),
        ({"window": "x"}, "window='x'"),
        ({"data": {}}, "the data in digits are not those that the run began with"),
        ({"data": None}, "data="),
        ({"config": 5}, "config"),
        ({"boundary": {}}, "boundary"),
    ],
)
def test_a_changed_record_is_refused_with_the_right_checksums_too(tmp_path, changed, message):
    out = shutil.copytree(OLD, tmp_path / "run")
    (path,) = checkpoint.checkpoints(out / "checkpoints")
    record = json.loads((path / "record.json").read_text())
    (path / "record.json").write_text(json.dumps({**record, **changed}))
    (path / "checksums.json").write_text(json.dumps(folder.checksums(path)))
    config = from_dict(json.loads((OLD / "config.json").read_text()))
    go_on = lambda: prepare(config, out, resume=True, fallback=False, console=quiet())
    if message is None:
        assert go_on().step == 25
    else:
        with pytest.raises(ValueError, match=message) as caught:
            go_on()
        assert str(path) in str(caught.value) or str(out) in str(caught.value)


@pytest.mark.slow  # trains three times
def test_more_epochs_extend_a_finished_run_by_the_schedule_of_the_longer_one(tmp_path):
    small = ["model.width=8", "model.mlp_width=8", "model.heads=1", "model.layers=2",
             "model.stages=1", "train.batch_size=256", "train.microbatches=1", "train.epochs=2",
             "train.warmup=0.25", "log.every=5"]  # fmt: skip
    config, out = override(get_preset("digits_ann"), small), tmp_path / "run"
    first = train(config, out, console=quiet())  # 5 steps an epoch
    before, longer = read_metrics(out), override(config, ["train.epochs=4"])
    with pytest.raises(ValueError, match=r"holds a run with checkpoints"):
        train(longer, out, console=quiet())
    other = override(longer, ["train.clip=2"])
    with pytest.raises(ValueError, match=r"another config: train\.clip: 1\.0, now 2\.0\. Give"):
        train(other, out, resume=True, console=quiet())
    console = quiet()
    summary = train(longer, out, resume=True, console=console)
    said = console.file.getvalue()
    assert "train.epochs: 2, now 4. From here on the learning rate is that of a run of 4" in said
    assert (first["steps"], summary["steps"]) == (10, 20)
    lines = read_metrics(out)
    assert lines[: len(before)] == before
    trained = {line["step"]: line["learning_rate"] for line in lines if line["kind"] == "train"}
    # Warm-up over a quarter of all steps, then half a cosine to 0 at the end: 2 and 5 steps.
    rate = lambda step, warm, total: (
        2e-3
        * (
            step / warm
            if step < warm
            else (1 + math.cos(math.pi * (step - warm) / (total - warm))) / 2
        )
    )
    wanted = {5: rate(4, 2, 10), 10: rate(9, 2, 10), 15: rate(14, 5, 20), 20: rate(19, 5, 20)}
    assert trained == pytest.approx(wanted, rel=1e-5)
    assert f"{rate(10, 5, 20):.3g} at this step, which was {0:.3g}" in said
    assert checkpoint.load_record(out / "checkpoints")["config"]["train"]["epochs"] == 4
    assert json.loads((out / "config.json").read_text())["train"]["epochs"] == 4
    with pytest.raises(ValueError, match=r"train\.epochs: 4, now 2\. A run may be given more"):
        train(config, out, resume=True, console=quiet())


@pytest.mark.slow  # trains three times
def test_an_extension_that_is_stopped_goes_on_and_is_no_run_of_fewer_epochs_any_more(tmp_path):
    small = ["model.width=8", "model.mlp_width=8", "model.heads=1", "model.layers=2",
             "model.stages=1", "train.batch_size=256", "train.microbatches=1", "train.epochs=1",
             "log.every=5"]  # fmt: skip
    config, out = override(get_preset("digits_ann"), small), tmp_path / "run"
    assert train(config, out, stop=StopAt(2), console=quiet()) is None
    longer = override(config, ["train.epochs=2"])  # of a run that is not finished either
    assert train(longer, out, resume=True, stop=StopAt(4), console=quiet()) is None
    assert checkpoint.load_record(out / "checkpoints")["step"] == 6
    with pytest.raises(ValueError, match=r"train\.epochs: 2, now 1\. A run may be given more"):
        train(config, out, resume=True, console=quiet())
    assert train(longer, out, resume=True, console=quiet())["steps"] == 10
    lines = [line["step"] for line in read_metrics(out) if line["kind"] == "train"]
    assert lines == [5, 10]


def test_metrics_that_are_gone_are_told_of(tmp_path):
    out, console = shutil.copytree(OLD, tmp_path / "run"), quiet()
    config = from_dict(json.loads((OLD / "config.json").read_text()))
    go_on = lambda: prepare(config, out, resume=True, fallback=False, console=console)
    go_on()
    assert "metrics.jsonl" not in console.file.getvalue()
    (out / "metrics.jsonl").unlink()
    assert go_on().step == 25
    assert f"{out}: metrics.jsonl is gone" in console.file.getvalue()
