"""Long work tells how far it is: in lines elsewhere than on a terminal, where it is a bar."""

import io
import itertools
import json
import re

import pytest
from command_lines import cli
from data_files import write
from distilling import lines, saved_teacher
from rich.console import Console

from zoo.train.logbook import read_metrics
from zoo.utils import progress
from zoo.utils.progress import Progress, clock, line, plain_console, silent, within


@pytest.fixture
def eager(monkeypatch):
    """A line of every step."""
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(progress, "EVERY", 0.0)


def test_elsewhere_than_on_a_terminal_there_is_a_line_now_and_then(monkeypatch):
    """A step takes a second: the first line after 10 s, then one every 30 s."""
    seconds = itertools.count()
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    console = Console(file=io.StringIO(), width=20)
    with Progress(console) as begin:
        done = begin("digits", 100, start=20)  # looks at the clock twice
        for count in range(21, 101):
            done(count, f"loss {count / 100:.2f}")
    printed = console.file.getvalue().splitlines()
    assert printed == [
        "digits: 30 of 100 (30 %), 0:11 gone, about 1:10 left; loss 0.30",
        "digits: 60 of 100 (60 %), 0:41 gone, about 0:40 left; loss 0.60",
        "digits: 90 of 100 (90 %), 1:11 gone, about 0:10 left; loss 0.90",
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("lines", 3000, None, 7325.0, 2.0), "lines: 3,000, 2:02:05 gone"),
        (("steps", 10, 10, 59.6, 2.0), "steps: 10 of 10 (100 %), 1:00 gone"),
        (("steps", 5, 10, 1.0, None), "steps: 5 of 10 (50 %), 0:01 gone"),  # nothing to tell by
        (("none", 0, 0, 0.0, None), "none: 0 of 0 (0 %), 0:00 gone"),
    ],
)
def test_a_line(arguments, text):
    assert line(*arguments) == text


def test_the_time_that_the_first_takes_to_be_compiled_says_nothing_about_the_rest(monkeypatch):
    times = iter([0, 0, 50, 51, 90])  # it begins; a step of 50 s, and then one each second
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    console = Console(file=io.StringIO())
    with Progress(console) as begin:
        done = begin("steps", 100)
        for count in (1, 2, 41):
            done(count)
    assert console.file.getvalue().splitlines() == [
        "steps: 1 of 100 (1 %), 0:50 gone",
        "steps: 41 of 100 (41 %), 1:30 gone, about 0:59 left",
    ]


def test_a_clock_carries():
    assert [clock(seconds) for seconds in (0, 59.4, 59.5, 3599.6)] == ["0:00", "0:59", "1:00",
                                                                      "1:00:00"]  # fmt: skip


def test_on_a_terminal_there_is_a_bar_and_a_part_leaves_none_behind():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with Progress(console) as begin:
        done, part = begin("[b]whole", 4), begin("[/part]", 2, passing=True)
        part(2)
        done(3, "[x]")
    drawn = console.file.getvalue()
    left = drawn[drawn.rfind("[b]whole") :]
    assert "3/4" in left
    assert "[x]" in left
    assert "[/part]" not in left


def test_the_name_of_the_whole_goes_before_that_of_a_part():
    begun = []
    within(lambda what, total: begun.append((what, total)), "int8")("samples", 3)
    assert begun == [("int8: samples", 3)]
    assert silent("anything", 3)(1, "shown") is None


def test_a_plain_console_prints_names_as_they_are(capsys):
    plain_console().print("runs/[b]/[/x] :cat:")
    assert capsys.readouterr().out == "runs/[b]/[/x] :cat:\n"


@pytest.mark.slow  # trains twice
def test_training_to_a_file_tells_how_far_it_is(tmp_path, eager):
    small = ("layers=2", "stages=2", "width=8", "heads=1", "mlp_width=8")
    done = cli("train", "digits_ann", *(f"--set=model.{value}" for value in small),
               "--set=train.epochs=1", "--set=train.batch_size=256", "--set=mesh.stage=1",
               "--set=log.every=5", "--out", tmp_path / "[run]")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^digits_ann: 3 of 5 \(60 %\), 0:\d\d gone, about", done.stdout, re.M)
    assert re.search(r"^samples scored: 256 of 360 \(71 %\), 0:\d\d", done.stdout, re.M)
    assert f"written to {tmp_path / '[run]'}: model/" in done.stdout
    # A dense boundary has no spikes, and so no rate of them.
    summary = json.loads((tmp_path / "[run]" / "summary.json").read_text())
    trained, scored = read_metrics(tmp_path / "[run]")
    assert all("bits" in each and "spike_rate" not in each for each in (summary, trained, scored))


@pytest.mark.slow  # runs five commands
def test_scoring_and_calibrating_tell_how_far_they_are(tmp_path, eager):
    model, data = saved_teacher(tmp_path), lines(tmp_path)
    rows = ["sentence1\tsentence2\tscore", *(f"a b\tc {letter}\t{score}" for score, letter in
                                            enumerate("abcdefgh"))]  # fmt: skip
    pairs = write(tmp_path / "pairs.tsv", "\n".join(rows) + "\n")
    scored = cli("evaluate", model, "--data", pairs, "--batch-size", 6, "--json")
    assert scored.returncode == 0, scored.stderr
    assert re.search(r"^texts embedded: 6 of 16 \(37 %\), 0:\d\d gone", scored.stderr, re.M)
    assert json.loads(scored.stdout)["samples"] == 8
    out = tmp_path / "cut.safetensors"
    fitted = cli("calibrate", model, "--stages", 2, "--data", data, "--samples", 100, "--out", out,
                 "--set", "data.text_column=text", "--set", "data.text_pair_column=none",
                 "--method", "variance", "--method", "variance_refit")  # fmt: skip
    assert fitted.returncode == 0, fitted.stderr
    assert re.search(r"^boundaries fitted: 1 of 2 \(50 %\), 0:\d\d gone", fitted.stderr, re.M)
    assert "; variance_refit: boundary 1 of 1" in fitted.stderr
    first, *rest = fitted.stdout.splitlines()
    assert first.startswith("error: 1 - CKA of the embeddings")
    methods = [line.split() for line in rest if line.startswith("  ")]
    assert sorted(method for method, _ in methods) == ["variance", "variance_refit"]
    assert rest[-1].endswith("bits a token and hop")
