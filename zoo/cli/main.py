"""The command `snapjax`: finds the subcommand's module and hands it the arguments.

A module is imported when its subcommand is called, so that the others cost nothing.
"""

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from snapjax import __version__
from snapjax.errors import unknown_name
from zoo.cli.command_line import USAGE, closed_pipe_ends


class Command(NamedTuple):
    """Where a subcommand is, and what it does in a few words."""

    module: str
    about: str


COMMANDS = {
    "demo": Command("zoo.cli.demo_command", "train a small model, cut it with spikes, show both"),
    "train": Command("zoo.cli.train", "train a model by preset"),
    "distill": Command("zoo.cli.distill", "cut a trained model and train it against itself"),
    "calibrate": Command("zoo.cli.calibrate", "cut a trained model without training"),
    "evaluate": Command("zoo.cli.evaluate", "score a model"),
    "embed": Command("zoo.cli.embed", "turn lines of text into vectors"),
    "mine": Command("zoo.cli.mine", "find pairs of like texts to distil on"),
    "compare": Command("zoo.cli.compare", "put models or runs side by side in one table"),
    "convert": Command("zoo.cli.convert", "write a model for transformers, or as one file"),
    "inspect": Command("zoo.cli.inspect", "list the tensors of a weight file"),
    "cost": Command("zoo.cli.cost", "price a model on a hardware profile"),
    "plot": Command("zoo.cli.plot", "draw the curves of runs"),
    "models": Command("zoo.cli.models", "list presets, models and trained weights"),
    "completion": Command("zoo.cli.completion", "print the shell's completion of this command"),
}

ABOUT = """\
Cuts BERT-style and ViT-style models across devices and sends learned sparse spikes over the cut.
"""
MORE = """\
`snapjax SUBCOMMAND --help` tells the rest, with an example. Every subcommand has --json, which
prints one JSON object on stdout and nothing else.

Exit codes: 0 done; 1 could not (a file that cannot be read or written, a run that diverged); 2
arguments or input that do not fit; 3 lost contact with another process; 130 interrupted.

Completion of the shell (bash, zsh or fish):
  source <(snapjax completion bash)

Example:
  snapjax evaluate vit_nano_patch2_8.hnn_digits
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of `snapjax ARGUMENTS`; None for the arguments of this process."""
    return dispatch("snapjax", ABOUT, COMMANDS, MORE, sys.argv[1:] if argv is None else argv)


def dispatch(
    prog: str, about: str, commands: Mapping[str, Command], more: str, argv: Sequence[str]
) -> int:
    """Runs the subcommand that the first argument names.

    Args:
      prog: the command, for its help.
      about: first in its help.
      commands: by name.
      more: last in its help.
      argv: the arguments.
    """
    with closed_pipe_ends():
        name, *rest = argv or [""]
        if name in commands:
            code: int = importlib.import_module(commands[name].module).main(rest)
            return code
        if name in ("-h", "--help"):
            print(help_text(prog, about, commands, more))
            return 0
        if name == "--version":
            print(f"{prog} {__version__}")
            return 0
        print(f"usage: {prog} SUBCOMMAND ...\n", file=sys.stderr)
        error = unknown_name("subcommand", name, commands) if name else "give a subcommand"
        print(f"{prog}: error: {error}; {prog} --help says what each does", file=sys.stderr)
        return USAGE


def help_text(prog: str, about: str, commands: Mapping[str, Command], more: str) -> str:
    """What `--help` prints."""
    width = max(map(len, commands)) + 2
    lines = [f"  {name:{width}}{command.about}" for name, command in commands.items()]
    options = "  -h, --help  this text"
    if prog == "snapjax":
        options += "\n  --version   of the package"
    parts = [f"usage: {prog} SUBCOMMAND ...\n", about, "subcommands:", *lines, "", "options:"]
    return "\n".join([*parts, options, "", more.rstrip()])


if __name__ == "__main__":
    sys.exit(main())
