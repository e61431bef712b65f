"""What is to be written is checked before the work: every command, and every way to be wrong."""

import argparse
import importlib
import os
import shutil
from pathlib import Path

import pytest
from command_lines import cli
from data_files import write

from zoo.cli.command_line import Output, check_outputs
from zoo.cli.commands import COMMANDS, COMPARED
from zoo.pretrained.locate import SHIPPED
from zoo.utils.outputs import check_out, check_out_folder

WRITERS = {
    # Command -> its arguments but for the output, the flag, and a name that it takes.
    ("calibrate",): (["vit_nano_patch2_8.ann_digits"], "--out", "x.safetensors"),
    ("compare", "models"): (["a", "b", "--data", "digits"], "--out", "x.json"),
    ("compare", "runs"): (["a", "b", "--hardware", "none"], "--out", "x.json"),
    ("cost",): (["bert_nano"], "--html", "x.html"),
    ("embed",): (["minilm_l6"], "--out", "x.npy"),
    ("mine",): (["minilm_l6", "--data", "topics"], "--out", "x.csv"),
    ("plot",): (["a"], "--out", "x.png"),
}
INTO_FOLDERS = {
    ("demo",): [],
    ("distill",): ["vit_nano_patch2_8.ann_digits", "--data", "digits"],
    ("train",): ["digits_ann"],
}


def test_every_argument_that_is_written_to_is_declared():
    """So that the one check sees it; `convert` alone has one of its own, of a new name."""
    tables = {name: entry for name, entry in COMMANDS.items() if name != "compare"}
    declared = set()
    for name, entry in {**tables, **{f"compare {k}": v for k, v in COMPARED.items()}}.items():
        parser = importlib.import_module(entry.module).parser()
        outputs = {output.name for output in parser.get_default("outputs") or ()}
        for action in parser._actions:
            if action.dest in ("out", "html") and name != "convert":
                assert action.dest in outputs, name
        declared |= {tuple(name.split())} if outputs else set()
    assert declared == {*WRITERS, *INTO_FOLDERS}


def test_an_output_in_the_home_is_there(monkeypatch, tmp_path):
    """The shell leaves the ~ of --out=~/x as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("embed", "train"):
        parser = importlib.import_module(COMMANDS[name].module).parser()
        assert parser.parse_args(["x", "--out=~/y.npy"]).out == tmp_path / "y.npy"


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "vit_nano_patch2_8.ann_digits", "--data", "~no_such_user.tsv"],
        ["evaluate", "~no_such_user"],
        ["embed", "minilm_l6", "--input", "~no_such_user.txt", "--out", "x.npy"],
        [
            "train",
            "topics_ann",
            "--set",
            "data.tokenizer=~no_such_user/t.json",
            "--set",
            "mesh.stage=1",
            "--out",
            "~n",
        ],
        [
            "train",
            "digits_ann",
            "--set",
            "data.source=~no_such_user/x",
            "--set",
            "mesh.stage=1",
            "--out",
            "~n/x",
        ],
    ],
)
def test_a_name_may_begin_with_a_tilde(tmp_path, arguments):
    done = cli(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "'~no_such_user" in done.stderr


@pytest.fixture
def no_work(monkeypatch):
    """The work of every command is an error, which none of these tests expects."""
    refuse = lambda args: pytest.fail("the work began")
    for entry in (*COMMANDS.values(), *COMPARED.values()):
        if hasattr(module := importlib.import_module(entry.module), "run"):
            monkeypatch.setattr(module, "run", refuse)


@pytest.mark.parametrize("command", WRITERS, ids=" ".join)
def test_a_file_that_cannot_be_written_is_named_before_the_work(command, tmp_path, no_work):
    arguments, flag, good = WRITERS[command]
    name = flag.removeprefix("--")
    write(tmp_path / "file", "in the way")
    (tmp_path / f"folder{Path(good).suffix}").mkdir()
    os.mkfifo(tmp_path / f"pipe{Path(good).suffix}")
    for path, message in (
        ("a\0b", "is no name of a file; leave the NUL out"),
        ("", f"{name}='.' is a folder; give the name of a file"),
        ("/etc", f"{name}='/etc' is a folder; give the name of a file"),
        (f"folder{Path(good).suffix}", "is a folder; give the name of a file"),
        (f"pipe{Path(good).suffix}", "is a device or pipe; give the name of a file"),
        ("whole.safetensors.bin", f"{name}='whole.safetensors.bin' must end in ."),
        ("x.exe", f"{name}='x.exe' must end in ."),
        ("x", f"{name}='x' must end in ."),
        (f"file/{good}", "/file is a file, not a folder; give another place"),
        (f"/proc/{good}", "nothing can be written in /proc: "),
    ):
        done = cli(*command, *arguments, flag, path, cwd=tmp_path)
        code = 1 if "another place" in message or "/proc" in message else 2
        assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
        assert message in done.stderr
    assert sorted(path.name.split(".")[0] for path in tmp_path.iterdir()) == [
        "file", "folder", "pipe",
    ]  # fmt: skip


@pytest.mark.parametrize("command", INTO_FOLDERS, ids=" ".join)
def test_a_folder_that_cannot_be_written_into_is_named_before_the_work(command, tmp_path, no_work):
    write(tmp_path / "file", "in the way")
    for path, message in (
        ("file", "out='file': "),
        ("file/run", "/file is a file, not a folder; give another place"),
        ("/proc/run", "out='/proc/run': nothing can be written in /proc: "),
    ):
        done = cli(*command, *INTO_FOLDERS[command], "--out", path, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert message in done.stderr


def test_what_is_read_is_not_overwritten(tmp_path, no_work):
    """Whichever argument names it, and however."""
    table = write(tmp_path / "data" / "pairs.csv", "text\na\n")
    model = Path(shutil.copytree(SHIPPED / "vit_nano_patch2_8.ann_digits", tmp_path / "model"))
    page = write(tmp_path / "mine.html", "not a profile")
    whole = write(tmp_path / "whole.safetensors", "a model")
    (tmp_path / "link.safetensors").symlink_to(whole)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    calibrate, models = ["calibrate", "--data", "digits"], ["compare", "models", "--data"]
    for arguments in (
        ["mine", "minilm_l6", "--data", table, "--out", table],
        ["mine", "minilm_l6", "--data", f"{table}:text", "--out", table],
        ["mine", "minilm_l6", "--data", "data", "--out", "data/../data/pairs.csv"],
        ["mine", "minilm_l6", "--data", "topics", "--set", f"data.source={table}", "--out", table],
        [*calibrate, model, "--out", model / "model.safetensors"],
        [*calibrate, whole, "--out", whole],
        [*calibrate, whole, "--out", "link.safetensors"],
        [*calibrate, "link.safetensors", "--out", whole],
        [*models, "digits", "a", model, "--out", model / "config.json"],
        [*models, "digits", model, "b", "--out", model / "config.json"],
        ["cost", "bert_nano", "--profile", page, "--html", page],
        ["distill", model, "--data", "digits", "--out", model],
        ["distill", "vit_nano_patch2_8.ann_digits", "--data", "data", "--out", "./data"],
        ["train", "digits_ann", "--set", "data.source=data", "--out", "data/"],
    ):
        done = cli(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "what is read" in done.stderr
        assert "would be overwritten; name another" in done.stderr
    assert {path: path.read_bytes() for path in before} == before


def test_a_picture_beside_a_table_is_an_output_too(tmp_path, no_work):
    (tmp_path / "table.png").mkdir()
    done = cli(
        "compare", "models", "a", "b", "--data", "digits", "--out", "table.json", cwd=tmp_path
    )
    assert done.returncode == 2
    assert "out='table.png' is a folder" in done.stderr


def test_what_may_be_written_passes_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    earlier = write(tmp_path / "runs" / "a" / "curves.png", "of before")
    check_out(Path("new/folder/x.csv"), ".csv", ".tsv")
    check_out(Path("x.tsv"), ".csv", ".tsv", inputs=[Path("nowhere"), Path("runs")])
    check_out(earlier, ".png", inputs=[Path("runs/b"), Path("digits")])
    check_out(earlier, ".png", inputs=[Path("runs/a")])  # which no command reads
    check_outputs(
        argparse.Namespace(out=Path("runs/a"), preset="runs/a", outputs=[Output("out", ())])
    )
    check_out_folder(Path("runs/b"), inputs=[Path("runs/a"), Path("runs")])
    check_outputs(argparse.Namespace(out=Path("x.exe")))  # an argument that is no output
    assert sorted(map(str, Path().rglob("*"))) == ["runs", "runs/a", "runs/a/curves.png"]
