"""The command `snapjax`."""

import sys
from collections.abc import Sequence

from zoo.cli.commands import COMMANDS
from zoo.cli.dispatch import dispatch

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


if __name__ == "__main__":
    sys.exit(main())
