"""Trains a model of the zoo by preset, on one device, a mesh, or several processes.

  python scripts/train.py --list
  python scripts/train.py digits_hnn --set train.epochs=10 --set model.bits_per_feature=0.5
  python scripts/train.py digits_hnn --resume

Interrupt it at any time (Ctrl-C or SIGTERM): it saves a checkpoint and leaves with 128 plus the
signal's number; --resume goes on as if nothing had happened. On a CPU a mesh is made of fake
devices.
"""

import argparse
import os
import sys
from pathlib import Path


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
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    parser.add_argument(
        "--fallback", action="store_true", help="with --resume: pass over damaged checkpoints"
    )
    group = parser.add_argument_group(
        "several processes (found by itself under SLURM, on TPU pods)"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    group.add_argument("--processes", type=int, help="how many there are")
    group.add_argument("--process-id", type=int, help="which this is, from 0")
    args = parser.parse_args()
    if not args.preset and not args.list:
        parser.error("give a preset; --list names them")
    return args


def run(args: argparse.Namespace) -> int:
    from zoo.train import config as configs
    from zoo.train import presets, processes
    from zoo.train.memory import keep_freed_memory

    if args.list:
        for name, preset in presets.PRESETS.items():
            print(f"{name:16} {(preset.__doc__ or '').splitlines()[0]}")
        return 0
    config = configs.override(presets.get_preset(args.preset), args.assignments)
    if args.keys:
        for key, value in configs.pairs(config).items():
            print(f"{key} = {value}")
        return 0
    keep_freed_memory()
    processes.initialise(args.coordinator, args.processes, args.process_id)
    count = args.processes or int(os.environ.get("SLURM_NTASKS", "1"))
    places = config.mesh.stage or config.model.stages
    processes.fake_devices(config.mesh.data * places, count)
    from zoo.train.run import train
    from zoo.train.stop import StopRequest

    stop = StopRequest().listen()
    out = args.out or Path("runs") / config.name
    summary = train(config, out, resume=args.resume, fallback=args.fallback, stop=stop)
    return stop.exit_code if summary is None else 0


def main() -> int:
    args = parse()
    from zoo.command_line import run_exit_code  # after --help, which needs none of this

    return run_exit_code(run, args)


if __name__ == "__main__":
    sys.exit(main())
