"""Draws the curves of one or more runs in one picture, of running ones too.

snapjax plot runs/digits_ann runs/digits_hnn --out runs/digits.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from zoo.cli import command_line
from zoo.cli.command_line import Answer, make_parser


def parser() -> argparse.ArgumentParser:
    parser = make_parser("plot", __doc__, "the runs and the picture")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--out", type=Path, help="the PNG; default RUN/curves.png of the first")
    return parser


def run(args: argparse.Namespace) -> Answer:
    from zoo.train import curves
    from zoo.train.logbook import read_metrics

    out = args.out or args.runs[0] / "curves.png"
    names = curves.names(args.runs)
    lines = {name: read_metrics(folder) for name, folder in zip(names, args.runs, strict=True)}
    empty = [name for name, found in lines.items() if not found]
    if empty:
        raise ValueError(f"{', '.join(empty)}: metrics.jsonl has no complete line yet")
    curves.runs(out, lines)
    return Answer({"runs": list(lines), "out": str(out)}, lambda: print(out))


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
