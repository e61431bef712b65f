"""Finds a subcommand's module by the first argument and hands it the others.

A module is imported when its subcommand is called, so that the others cost nothing.
"""

import importlib
import sys
from collections.abc import Mapping, Sequence

from snapjax import __version__
from snapjax.errors import unknown_name
from zoo.cli.command_line import USAGE, closed_pipe_ends
from zoo.cli.commands import Command


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
