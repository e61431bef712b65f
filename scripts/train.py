"""Trains a model of the zoo by preset, on one device, a mesh, or several processes.

  python scripts/train.py --list
  python scripts/train.py digits_hnn --set train.epochs=10 --set model.bits_per_feature=0.5
  python scripts/train.py digits_hnn --resume

Interrupt it at any time (Ctrl-C or SIGTERM): it saves a checkpoint and leaves with 128 plus the
signal's number; --resume goes on as if nothing had happened. On a CPU a mesh is made of fake
devices.
"""

import argparse
import sys
from pathlib import Path

from zoo.cli.command_line import add_run_flags, join_processes, run_exit_code, train_until_stopped


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset", nargs="?", help="a name from --list")
    parser.add_argument("--list", action="store_true", help="print the presets and leave")
    parser.add_argument(
        "--keys", action="store_true", help="print what --set can change, and leave"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments",
        help="change a value of the preset, such as train.epochs=4; may be repeated",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="folder of the run; default runs/PRESET")
    add_run_flags(parser)
    args = parser.parse_args()
    if not args.preset and not args.list:
        parser.error("give a preset; --list names them")
    return args


def run(args: argparse.Namespace) -> int:
    from zoo.config import presets
    from zoo.config import values as config_values

    if args.list:
        for name, preset in presets.PRESETS.items():
            print(f"{name:16} {(preset.__doc__ or '').splitlines()[0]}")
        return 0
    config = config_values.override(presets.get_preset(args.preset), args.assignments)
    if args.keys:
        for key, value in config_values.pairs(config).items():
            print(f"{key} = {value}")
        return 0
    ranks = config.mesh.stage or config.model.stages
    join_processes(args, config.mesh.data * ranks)
    return train_until_stopped(config, args.out or Path("runs") / config.name, args)


def main() -> int:
    return run_exit_code(run, parse())


if __name__ == "__main__":
    sys.exit(main())
