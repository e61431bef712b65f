"""Prints what makes a shell complete `snapjax`: subcommands, flags, and names that they take.

  source <(snapjax completion bash)           # into ~/.bashrc, to keep it
  source <(snapjax completion zsh)            # after `autoload -U compinit && compinit`
  snapjax completion fish > ~/.config/fish/completions/snapjax.fish

Where no name is known, files are completed. Nothing is started while you type.
"""

import argparse
import importlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from zoo.cli import command_line
from zoo.cli.command_line import Answer, make_parser
from zoo.cli.commands import COMMANDS, COMPARED

SHELLS = ("bash", "zsh", "fish")


class Words(NamedTuple):
    """What may follow a subcommand.

    Attributes:
      command: its words, such as ("compare", "runs").
      first: names that its positional arguments take.
      flags: each with the names that its value takes; None for a flag without a value.
    """

    command: tuple[str, ...]
    first: tuple[str, ...]
    flags: dict[str, tuple[str, ...] | None]


def parser() -> argparse.ArgumentParser:
    parser = make_parser("completion", __doc__, "the shell and the script")
    parser.add_argument("shell", choices=SHELLS)
    return parser


def run(args: argparse.Namespace) -> Answer:
    words = list(vocabulary())
    script = fish(words) if args.shell == "fish" else bash(words, args.shell)
    return Answer({"shell": args.shell, "script": script}, lambda: print(script))


def vocabulary() -> Iterator[Words]:
    """The words of every subcommand, those that only lead to others included."""
    from zoo.config.presets import PRESETS
    from zoo.models.registry import list_models
    from zoo.pretrained.hugging_face.known import KNOWN
    from zoo.pretrained.locate import list_pretrained

    trained = tuple([*list_pretrained(), *KNOWN])
    named = {
        "train": tuple(PRESETS),
        "cost": tuple(sorted({*list_models(), *trained})),
        **dict.fromkeys(
            ("distill", "calibrate", "evaluate", "embed", "mine", "convert", "inspect"), trained
        ),
    }
    yield Words((), tuple(COMMANDS), {"--help": None, "--version": None})
    for name, command in COMMANDS.items():
        if name == "compare":
            yield Words((name,), tuple(COMPARED), {"--help": None})
            for second, inner in COMPARED.items():
                yield _words((name, second), inner.module, trained if second == "models" else ())
        else:
            yield _words((name,), command.module, named.get(name, ()))


def _words(command: tuple[str, ...], module: str, first: tuple[str, ...]) -> Words:
    flags: dict[str, tuple[str, ...] | None] = {}
    for action in importlib.import_module(module).parser()._actions:
        names = tuple(map(str, action.choices or ()))
        if action.dest == "assignments":
            names = tuple(f"{key}=" for key in config_keys())
        for flag in () if action.help == argparse.SUPPRESS else action.option_strings:
            flags[flag] = None if action.nargs == 0 else names
        if not action.option_strings:
            first = names or first
    return Words(command, first, flags)


def config_keys() -> dict[str, tuple[str, ...]]:
    """Every key that --set takes, with the names that it may have; none for numbers and texts."""
    from zoo.config.keys import describe
    from zoo.config.specs import RunConfig

    return {
        key.name: ("true", "false") if key.kind == "bool" else key.allowed
        for key in describe(RunConfig("defaults"))
    }


def bash(words: Sequence[Words], shell: str = "bash") -> str:
    """The script for bash, and through its emulation for zsh."""
    cases = []
    for entry in words:
        key = " ".join(entry.command)
        values = "".join(
            f'        {flag}) words="{" ".join(names)}" ;;\n'
            for flag, names in entry.flags.items()
            if names is not None
        )
        flags = " ".join(entry.flags)
        cases.append(
            f'    "{key}")\n      case $previous in\n{values}'
            f'        *) words="{" ".join(entry.first)}"; [[ $word == -* ]] && words="{flags}" ;;\n'
            "      esac ;;\n"
        )
    allowed = "".join(
        f'    {key}) words="{" ".join(names)}" ;;\n'
        for key, names in config_keys().items()
        if names
    )
    emulated = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return f"""{emulated}_snapjax() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} words= key=
  [[ $COMP_CWORD -gt 1 ]] && key=${{COMP_WORDS[1]}}
  [[ $key == compare && $COMP_CWORD -gt 2 ]] && key="compare ${{COMP_WORDS[2]}}"
  case $key in
{"".join(cases)}  esac
  # The shell parts KEY=VALUE into three words.
  [[ $word == = ]] && word= words= key=$previous
  [[ $previous == = ]] && words= key=${{COMP_WORDS[COMP_CWORD-2]}}
  case $key in
{allowed}  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  [[ ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace 2> /dev/null
}}
complete -o default -F _snapjax snapjax"""


def fish(words: Sequence[Words]) -> str:
    """The script for fish."""
    lines = []
    for entry in words:
        if not entry.command:
            when = "__fish_use_subcommand"
        else:
            when = " && ".join(f"__fish_seen_subcommand_from {word}" for word in entry.command)
        start = f"complete -c snapjax -n '{when}'"
        if entry.first:
            lines.append(f"{start} -a '{' '.join(entry.first)}'")
        for flag, names in entry.flags.items():
            option = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
            if flag == "--set":
                names = tuple(f"{key}={v}" for key, vs in config_keys().items() for v in vs or [""])
            value = "" if names is None else f" -r -a '{' '.join(names)}'" if names else " -r"
            lines.append(f"{start} {option}{value}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
