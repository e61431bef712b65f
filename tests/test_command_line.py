"""How a script ends."""

import argparse

import pytest

from zoo.cli.command_line import exit_code, run_exit_code


def ends(what):
    def run(args):
        if isinstance(what, BaseException):
            raise what
        return what

    return exit_code(run, argparse.Namespace())


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        (None, 0, ""),
        (3, 3, ""),
        (ValueError("bits=0: give more"), 2, "error: bits=0: give more\n"),
        (OSError(2, "No such file", "a.txt"), 2, "error: [Errno 2] No such file: 'a.txt'\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_exit_codes(capsys, what, code, message):
    assert ends(what) == code
    assert capsys.readouterr().err == message


def test_a_defect_is_not_hidden():
    with pytest.raises(KeyError):
        ends(KeyError("x"))


def test_a_run_that_diverged_is_told(capsys):
    def run(args):
        raise FloatingPointError("step 2: loss nan")

    assert run_exit_code(run, argparse.Namespace()) == 2
    assert capsys.readouterr().err == "error: step 2: loss nan\n"
    with pytest.raises(KeyError):
        run_exit_code(lambda args: {}[0], argparse.Namespace())
