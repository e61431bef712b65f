"""Trains a model by preset, on one device, a mesh, or several processes.

  snapjax train --list
  snapjax train digits_hnn --set train.epochs=10 --set model.bits_per_feature=0.5
  snapjax train digits_hnn --resume
  snapjax train --keys

Interrupt it at any time (Ctrl-C or SIGTERM): it saves a checkpoint and leaves with 128 plus the
signal's number; --resume goes on as if nothing had happened. On a CPU a mesh is made of fake
devices.
"""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from zoo.cli import command_line
from zoo.cli.command_line import Answer, add_output, add_set_flag, make_parser
from zoo.cli.training import add_run_flags, join_processes, train_until_stopped


def parser() -> argparse.ArgumentParser:
    parser = make_parser("train", __doc__, "the run's summary")
    parser.add_argument("preset", nargs="?", help="a name from --list")
    parser.add_argument("--list", action="store_true", help="print the presets and leave")
    parser.add_argument(
        "--keys", action="store_true", help="print what --set can change, with the values of the "
        "preset or else the defaults, and leave",
    )  # fmt: skip
    add_set_flag(parser, "change a value of the preset, such as train.epochs=4")
    add_output(parser, "--out", help="folder of the run; default runs/PRESET")
    add_run_flags(parser)
    return parser


def run(args: argparse.Namespace) -> Answer:
    if not (args.preset or args.list or args.keys):
        parser().error("give a preset; --list names them")
    from zoo.config import presets
    from zoo.config.specs import RunConfig
    from zoo.config.values import override

    if args.list:
        return _presets()
    config = override(
        presets.get_preset(args.preset) if args.preset else RunConfig("defaults"), args.assignments
    )
    if args.keys:
        return _keys(config)
    ranks = config.mesh.stage or config.model.stages
    join_processes(args, config.mesh.data * ranks)
    return train_until_stopped(config, args.out or Path("runs") / config.name, args)


def _presets() -> Answer:
    from zoo.config.presets import PRESETS

    about = {name: (make.__doc__ or "").splitlines()[0] for name, make in PRESETS.items()}

    def show() -> None:
        for name, text in about.items():
            print(f"{name:16} {text}")

    return Answer({"presets": about}, show)


def _keys(config: object) -> Answer:
    from zoo.config.keys import describe

    keys = describe(config)

    def show() -> None:
        for key in keys:
            print(f"{key.name} = {key.value}  ({key.kind})")
            allowed = f" One of: {', '.join(key.allowed)}." if key.allowed else ""
            print(textwrap.fill(key.meaning + allowed, 100, initial_indent="    ",
                                subsequent_indent="    "))  # fmt: skip

    return Answer({key.name: key._asdict() for key in keys}, show)


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
