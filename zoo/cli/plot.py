"""Draws the curves of one or more runs in one picture, of running ones too.

snapjax plot runs/digits_ann runs/digits_hnn --out runs/digits.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from zoo.cli import command_line
from zoo.cli.command_line import Answer, add_output, make_parser


def parser() -> argparse.ArgumentParser:
    parser = make_parser("plot", __doc__, "the runs and the picture")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    add_output(parser, "--out", ".png", help="the PNG; default RUN/curves.png of the first")
    return parser


def run(args: argparse.Namespace) -> Answer:
    from zoo.train import curves

    out = args.out or args.runs[0] / "curves.png"
    runs = curves.of_runs(args.runs)
    curves.runs(out, runs)
    return Answer({"runs": list(runs), "out": str(out)}, lambda: print(out))


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
