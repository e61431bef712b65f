"""Trains a small ViT on real images over four devices with dense boundaries, and cuts it with
spikes at 1 and at 1/2 bit a feature: as calibrated, with nothing trained, and after a short
distillation from the dense model. Shows what crosses the links and what that costs, on other wires
too.

  snapjax demo
  snapjax demo --epochs 10 --code rate --out runs/demo_rate

On a machine with four or more GPUs or TPUs it runs on those; with one to three it runs on one of
them, where the cuts compute the same function but cross no link; otherwise on four fake CPU
devices. Interrupt it at any time: it saves a checkpoint and leaves; nothing is half written.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from zoo.cli import command_line
from zoo.cli.command_line import Answer, add_output, make_parser

STAGES = 4
CODES = "phase, rate, latency or ternary"


def parser() -> argparse.ArgumentParser:
    parser = make_parser("demo", __doc__, "the table's rows")
    parser.add_argument("--model", default="vit_nano_patch2_8", help="a name of `snapjax models`")
    parser.add_argument(
        "--epochs", type=int, default=20, help="of the dense run; each cut has a quarter"
    )
    parser.add_argument("--code", default="phase", help="spike code of the cuts: " + CODES)
    parser.add_argument("--gradient-wire", default="bfloat16", help="format on the way back")
    parser.add_argument("--seed", type=int, default=0)
    add_output(parser, "--out", default=Path("runs/demo"), help="results folder; overwritten")
    return parser


def run(args: argparse.Namespace) -> Answer:
    from zoo.train.memory import keep_freed_memory
    from zoo.train.processes import fake_devices
    from zoo.train.stop import StopRequest

    fake_devices(STAGES, 1)  # before any device is looked at
    keep_freed_memory()
    from zoo.cli import demo

    stop = StopRequest().listen()
    rows = demo.run(
        model=args.model,
        stages=STAGES,
        code=args.code,
        gradient_wire=args.gradient_wire,
        epochs=args.epochs,
        seed=args.seed,
        out=args.out,
        stop=stop,
    )
    record = {"out": str(args.out), "finished": rows is not None, "rows": rows or []}
    return Answer(record, lambda: None, stop.exit_code if rows is None else 0)


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
