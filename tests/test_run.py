"""Runs in one process: other meshes, bad input, full disks, what is printed and written."""

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from command_lines import ROOT, cli
from data_files import write_idx
from rich.console import Console
from stops import StopAt

from snapjax.codes.parameters import merge_plan
from zoo import checkpoint
from zoo.config.presets import get_preset
from zoo.config.values import override
from zoo.data import train_batches
from zoo.evaluation.inputs import data_for
from zoo.evaluation.score import score
from zoo.pretrained.load import load_pretrained
from zoo.pretrained.locate import SHIPPED
from zoo.train.logbook import TIMINGS, read_metrics
from zoo.train.placement import batch_putter
from zoo.train.run import prepare, train
from zoo.train.step import evaluate

SMALL = ["model.width=16", "model.mlp_width=32", "train.epochs=1", "log.every=10"]


@pytest.fixture(autouse=True)
def _optax_promotes():
    """optax raises its decay rates to an integer count, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def quiet():
    return Console(file=io.StringIO(), width=200)


def small(name="digits_hnn", *more):
    return override(get_preset(name), [*SMALL, *more])


def going_on(config, out):
    """The run that would go on from the newest checkpoint."""
    return prepare(config, out, resume=True, fallback=False, console=quiet())


def canonical(run):
    """Everything a state holds, in the layout that does not depend on the mesh."""
    return jax.tree.map(np.asarray, run.trainer.unshard(run.state))


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A finished run of a dense model: its config, folder, summary, and the stop it was given.

    The stop is asked before each of the 44 steps, and never again by the loop.
    """
    config = small("digits_ann", "mesh.stage=1", "train.microbatches=1")
    out, stop = tmp_path_factory.mktemp("dense") / "run", StopAt(44)
    with jax.numpy_dtype_promotion("standard"):
        return config, out, train(config, out, stop=stop, console=quiet()), stop


@pytest.fixture(scope="module")
def hybrid(dense, tmp_path_factory):
    """A finished run of a spiking model that began as `dense` and hardly moved: as above."""
    more = [f"model.init_from={dense[1]}", "train.learning_rate=1e-9", "mesh.stage=1"]
    config, out = small("digits_hnn", *more), tmp_path_factory.mktemp("hybrid") / "run"
    with jax.numpy_dtype_promotion("standard"):
        return config, out, train(config, out, console=quiet())


@pytest.mark.slow  # compiles a run for five meshes
def test_a_checkpoint_restores_onto_other_meshes(tmp_path):
    """8 devices to 4, 2 and 1; 4 ranks to 2 and 1: state and outputs are equal."""
    config = small("digits_hnn", "mesh.data=2", "mesh.stage=4", "train.ema=0.9",
                   "train.batch_size=120")  # fmt: skip
    assert train(config, tmp_path, stop=StopAt(3), console=quiet()) is None
    first = going_on(config, tmp_path)
    assert first.trainer.mesh.size == 8
    state, scores = canonical(first), evaluate(first.trainer, first.state, first.data.validation)
    for data, ranks in ((1, 4), (2, 2), (1, 2), (1, 1)):
        moved = override(config, [f"mesh.data={data}", f"mesh.stage={ranks}"])
        run = going_on(moved, tmp_path)
        assert run.trainer.mesh.shape["stage"] == ranks
        assert run.step == first.step > 0
        jax.tree.map(np.testing.assert_array_equal, state, canonical(run))
        again = evaluate(run.trainer, run.state, run.data.validation)
        assert again.loss == pytest.approx(scores.loss, rel=1e-5)
        assert again.accuracy == scores.accuracy
        np.testing.assert_allclose(again.spike_rate, scores.spike_rate, atol=1e-5)


@pytest.mark.slow  # trains twice
def test_a_run_goes_on_with_its_config_and_its_data_wherever_they_lie(tmp_path):
    labels = np.arange(64) % 10
    for split in ("train", "t10k"):
        write_idx(tmp_path / "old", split, np.arange(64 * 64).reshape(64, 8, 8) % 251, labels)
    config = small("digits_hnn", f"data.source={tmp_path / 'old'}", "mesh.stage=1")
    out = tmp_path / "run"
    train(config, out, stop=StopAt(1), console=quiet())
    with pytest.raises(ValueError, match=r"another config: model\.width: 16, now 32\. Give"):
        going_on(override(config, ["model.width=32"]), out)
    moved = override(config, [f"data.source={(tmp_path / 'old').rename(tmp_path / 'new')}"])
    assert going_on(moved, out).step == 1
    write_idx(tmp_path / "new", "t10k", np.zeros((64, 8, 8)), labels)
    with pytest.raises(ValueError, match=r"the data in .*new are not those that the run began"):
        going_on(moved, out)


@pytest.mark.slow  # compiles a run for three meshes
def test_the_optimiser_goes_on_where_it_was(tmp_path):
    """The same three steps after a restore onto another mesh as without one."""
    config = small("digits_ann", "mesh.stage=4", "train.microbatches=1")
    train(config, tmp_path, stop=StopAt(8), console=quiet())
    results = []
    for ranks in (4, 2, 1):
        run = going_on(override(config, [f"mesh.stage={ranks}"]), tmp_path)
        state = run.state
        put, losses = batch_putter(run.trainer.mesh, config.train.batch_size), []
        batches = train_batches(run.data.train, 32, seed=0, epoch=0, start=run.step)
        for batch, _ in zip(batches, range(3), strict=False):
            state, metrics = run.trainer.step(state, put(batch))
            losses.append(float(metrics.loss))
        results.append(losses)
    assert results[1] == pytest.approx(results[0], rel=1e-4)
    assert results[2] == pytest.approx(results[0], rel=1e-4)


@pytest.mark.slow  # trains twice
def test_a_hybrid_starts_from_a_dense_run_and_is_evaluated_by_path(dense, hybrid):
    (_, ann, summary, _), (_, hnn, spiking) = dense, hybrid
    blocks = [load_pretrained(out).params["blocks"]["mlp"]["up"]["kernel"] for out in (ann, hnn)]
    np.testing.assert_allclose(*blocks, atol=1e-6)
    assert spiking["bytes_per_token_and_hop"] * 32 == summary["bytes_per_token_and_hop"]
    loaded = load_pretrained(hnn / "checkpoints")
    result = score(loaded, data_for(loaded, loaded.config.data), ranks=2)
    assert result["accuracy"] == pytest.approx(spiking["accuracy"], abs=1.5 / 360)
    assert (result["samples"], result["bits_per_token"]) == (360, 16)


@pytest.mark.slow  # compiles three runs
def test_a_run_goes_on_without_the_weights_that_it_began_with(tmp_path):
    """They may be gone; what images they expect is in the checkpoint."""
    shutil.copytree(SHIPPED / "vit_nano_patch2_8.ann_digits", tmp_path / "ann")
    more = ["model.width=64", "model.mlp_width=128", f"model.init_from={tmp_path / 'ann'}"]
    config = small("digits_hnn", "mesh.stage=1", "data.image_size=8", *more)
    train(config, tmp_path / "out", stop=StopAt(1), console=quiet())
    first = going_on(config, tmp_path / "out")
    shutil.rmtree(tmp_path / "ann")
    run = going_on(config, tmp_path / "out")
    assert run.step == 1
    assert (run.data.record["mean"], run.data.record["size"]) == (first.data.record["mean"], 8)
    jax.tree.map(np.testing.assert_array_equal, canonical(run), canonical(first))


def test_a_stop_in_the_last_step_comes_too_late_to_leave_the_run_unfinished(dense):
    """Other processes may not have heard of it, and export together with this one."""
    _, out, summary, stop = dense
    assert summary["steps"] == 44
    assert stop
    assert (out / "summary.json").exists()


@pytest.mark.slow  # trains a masked language model, and scores it again
def test_masked_lm_runs_and_scores_the_same_from_its_folder(tmp_path):
    config = override(
        get_preset("topics_hnn"),
        ["model.width=16", "model.heads=2", "model.mlp_width=32", "train.epochs=1",
         "distill.teacher=none", "model.calibration=variance", "data.vocabulary=256",
         "data.sequence=32", "train.batch_size=64", "train.learning_rate=1e-3", "mesh.stage=1"],
    )  # fmt: skip
    summary = train(config, tmp_path, console=quiet())
    loaded = load_pretrained(tmp_path)
    assert json.loads(loaded.tokenizer)["model"]["type"] == "WordPiece"
    result = score(loaded, data_for(loaded, loaded.config.data, "mlm"))
    assert result["loss"] == pytest.approx(summary["loss"], rel=1e-4)
    # Another text trains another tokenizer, whose ids are other words.
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 400)
    more = [f"data.source={tmp_path / 'text.txt'}", f"model.init_from={tmp_path}"]
    short = override(config, more)
    with pytest.raises(ValueError, match=r"has another tokenizer .* set data\.tokenizer to"):
        prepare(short, tmp_path / "on", resume=False, fallback=False, console=quiet())
    short = override(short, [f"data.tokenizer={tmp_path / 'model' / 'tokenizer.json'}"])
    assert prepare(short, tmp_path / "on", resume=False, fallback=False, console=quiet()).step == 0
    first, *_, last = [line for line in read_metrics(tmp_path) if line["kind"] == "train"]
    assert last["loss"] < first["loss"]
    assert first["tokens_per_second"] == pytest.approx(32 * first["samples_per_second"])


def test_a_diverging_run_names_step_and_module_and_keeps_the_last_good_checkpoint(tmp_path):
    config = small("digits_ann", "train.learning_rate=1e30", "train.clip=1e30", "log.save=1",
                   "train.warmup=0", "mesh.stage=1")  # fmt: skip
    with pytest.raises(FloatingPointError, match=r"step \d+: loss .* blocks/\d+/") as error:
        train(config, tmp_path, console=quiet())
    newest = checkpoint.latest(tmp_path / "checkpoints")
    assert str(newest) in str(error.value)
    params = load_pretrained(tmp_path / "checkpoints").params
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@pytest.mark.slow  # trains until the disk is full, and goes on
def test_a_full_disk_stops_the_run_and_keeps_what_was_saved(tmp_path, monkeypatch):
    import zoo.checkpoint.writing as writing

    config = small("digits_hnn", "log.save=2", "mesh.stage=1", "train.batch_size=128")
    real, calls = writing.write_part, []

    def full(path, part):
        calls.append(path)
        if len(calls) > 4:  # two parts a checkpoint: the third one fails
            raise OSError(28, "No space left on device")
        return real(path, part)

    monkeypatch.setattr(writing, "write_part", full)
    with pytest.raises(OSError, match="No space left"):
        train(config, tmp_path, console=quiet())
    steps = [
        checkpoint.load_record(path)["step"]
        for path in checkpoint.checkpoints(tmp_path / "checkpoints")
    ]
    assert steps == [2, 4]
    monkeypatch.undo()
    assert train(config, tmp_path, resume=True, console=quiet())["steps"] == 11


def test_resuming_a_finished_run_changes_nothing(dense, tmp_path):
    config, out, first, _ = dense
    copy = shutil.copytree(out, tmp_path / "run")
    second = train(config, copy, resume=True, console=quiet())
    assert (second["loss"], second["accuracy"]) == (first["loss"], first["accuracy"])
    assert read_metrics(copy) == read_metrics(out)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["mesh.data=8", "mesh.stage=4"], "needs 32 devices, found 8"),
        (["model.layers=6"], "stages=4 must divide layers=6"),
        (["data.source=/nowhere/at/all"], "/nowhere/at/all' does not exist"),
        (
            ["data.source=topics", "data.task=mlm", "data.noise=0"],
            r"topics \(train\): the model reads images, and there is no column data\.image_c",
        ),
        (["train.batch_size=2000", "train.microbatches=1"], "batch_size=2000 is larger than"),
        (["model.name=bert_nano", "model.heads=4"], r"digits \(train\): the model reads texts"),
        (["model.init_from=nothing_here"], "model, folder or Hub id 'nothing_here'"),
        (["model.code=phasee"], "unknown code 'phasee'; did you mean 'phase'"),
        (["mesh.data=3", "mesh.fsdp=true", "train.batch_size=36", "mesh.stage=1"],
         "not a multiple of mesh.data=3"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_before_anything_is_written(assignments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(small("digits_hnn", *assignments), tmp_path / "out", console=quiet())
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_a_text_longer_than_the_model_is_refused():
    config = override(get_preset("topics_ann"), ["data.sequence=256"])
    with pytest.raises(ValueError, match="256"):
        prepare(config, Path("unused"), resume=False, fallback=False, console=quiet())
    assert not Path("unused").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_run_without_checkpoints_is_not_overwritten(tmp_path, resume):
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match="holds a finished run, whose checkpoints are gone"):
        train(small(), tmp_path, resume=resume, console=quiet())
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        train(small(), tmp_path / "file" / "run", console=quiet())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digit_hnn"], "unknown preset 'digit_hnn'; did you mean 'digits_hnn'"),
        (["digits_hnn", "--set", "train.epoch=1"], "did you mean 'train.epochs'"),
        (["digits_hnn", "--processes", "2"], "go together"),
        ([], "give a preset"),
    ],
)
def test_the_script_refuses_bad_arguments(arguments, message):
    done = cli("train", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_script_lists_presets_and_keys():
    listed = cli("train", "--list").stdout
    assert all(name in listed for name in ("digits_hnn", "fashion_ann", "gutenberg_hnn"))
    assert "train.epochs = 40" in cli("train", "digits_hnn", "--keys").stdout


def test_plot_run_draws_several_runs_and_refuses_what_is_none(tmp_path):
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        line = {"loss": 1.0, "accuracy": 0.5, "spike_rate": [0.4, 0.5], "bits": [8.0, 8.0],
                "epoch": 0}  # fmt: skip
        lines = [{"kind": kind, "step": step, **line} for step in (1, 2)
                 for kind in ("train", "evaluation")]  # fmt: skip
        text = "".join(json.dumps(entry) + "\n" for entry in lines)
        (folder / "metrics.jsonl").write_text(text + '{"cut off')
    out = tmp_path / "both.png"
    done = cli("plot", tmp_path / "a", tmp_path / "b", "--out", out)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes().startswith(b"\x89PNG")
    done = cli("plot", tmp_path)
    assert done.returncode == 2
    assert "no metrics.jsonl" in done.stderr


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# 11 steps. Tests of two processes are slow: each starts and compiles for itself.
TOGETHER = ["mesh.data=2", "mesh.stage=2", "train.batch_size=128", "log.every=2"]


def two_processes(outs, *arguments, own=((), ()), cwds=(ROOT, ROOT)):
    """(exit codes, errors) of two processes of one run, whose folders are `outs`.

    Args:
      arguments: of both.
      own: arguments of each.
      cwds: of each, where it is started.
    """
    settings = ["digits_hnn", *(f"--set={setting}" for setting in [*SMALL, *TOGETHER])]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": "400"}
    address = f"127.0.0.1:{free_port()}"
    together = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / "train.py"), *settings, *arguments,
             *own[number], "--out", str(out), "--coordinator", address, "--processes", "2",
             "--process-id", str(number)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=cwds[number],
        )
        for number, out in enumerate(outs)
    ]  # fmt: skip
    errors = [process.communicate(timeout=600)[1] for process in together]
    return [process.returncode for process in together], errors


@pytest.mark.slow
def test_two_processes_over_loopback_train_as_one_does(tmp_path):
    """Data split over two processes of two devices each, and the pipeline over both of theirs."""
    codes, errors = two_processes([tmp_path / "two"] * 2)
    assert codes == [0, 0], errors
    train(small("digits_hnn", *TOGETHER), tmp_path / "one", console=quiet())
    one, two = (read_metrics(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two) > 4
    for a, b in zip(one, two, strict=True):
        assert (a["kind"], a["step"]) == (b["kind"], b["step"])
        for key in a.keys() - set(TIMINGS) - {"kind"}:
            # A spike that falls elsewhere by rounding moves a loss a little, and more each step.
            np.testing.assert_allclose(a[key], b[key], rtol=2e-2, atol=2e-2, err_msg=key)
    first_a, first_b = one[0], two[0]
    assert first_a["loss"] == pytest.approx(first_b["loss"], rel=1e-4)
    both = [load_pretrained(tmp_path / name).model for name in ("one", "two")]
    assert both[0].boundary.code == both[1].boundary.code
    # A folder that the second process does not see: both say so, none goes on alone.
    codes, errors = two_processes([tmp_path / "two", tmp_path / "elsewhere"], "--resume")
    assert codes == [2, 2], errors
    assert all("the processes see different checkpoints" in error for error in errors)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
def test_two_processes_of_different_runs_are_refused_by_both(tmp_path):
    """Each would compute its part of another step, and none would notice."""
    outs = [tmp_path / "out"] * 2
    codes, errors = two_processes(outs, own=((), ("--set", "train.learning_rate=0.1")))
    assert codes == [2, 2], errors
    assert all("the processes have different configs" in error for error in errors)
    for name, value in (("one", 0), ("two", 1)):
        for split in ("train", "t10k"):
            pixels = np.arange(64 * 64).reshape(64, 8, 8) % (250 + value)
            write_idx(tmp_path / name / "here", split, pixels, np.arange(64) % 10)
    cwds = (tmp_path / "one", tmp_path / "two")
    codes, errors = two_processes(outs, "--set", "data.source=here", cwds=cwds)
    assert codes == [2, 2], errors
    assert all("the processes have loaded different data" in error for error in errors)
    assert not outs[0].exists()


@pytest.mark.slow
def test_two_processes_of_a_diverging_run_both_end_and_name_the_module(tmp_path):
    """Each looks at its own rows; were one to end without the other, that one would wait for it."""
    diverging = ("train.learning_rate=1e30", "train.clip=1e30", "train.warmup=0", "log.save=1")
    codes, errors = two_processes([tmp_path] * 2, *(f"--set={setting}" for setting in diverging))
    assert codes == [1, 1], errors
    said = [error.strip().splitlines()[-1] for error in errors]
    assert said[0] == said[1]
    assert re.match(r"error: step 2: loss nan .* not finite is blocks/\d+/", said[0])
    assert str(checkpoint.latest(tmp_path / "checkpoints")) in said[0]


def test_a_checkpoint_holds_what_it_says(hybrid, tmp_path):
    config, out, _ = hybrid
    copy = shutil.copytree(out, tmp_path / "run")
    record = checkpoint.load_record(copy / "checkpoints")
    assert (record["step"], record["epoch"]) == (44, 1)
    assert record["config"]["train"]["epochs"] == 1
    run = going_on(override(config, ["mesh.stage=2"]), copy)
    params = merge_plan(run.state.trainable, run.state.plans)
    assert params["blocks"]["mlp"]["up"]["kernel"].shape[:2] == (2, 2)
    assert replace(run, step=0).steps_per_epoch == 44
