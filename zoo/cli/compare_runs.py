"""Puts a dense run and a spiking run of one model side by side, with every other wire between.

snapjax compare runs runs/digits_ann runs/digits_hnn --hardware "2 CPU cores" \\
    --out results/digits.json

Writes the table as JSON with the command of each run, the learning curves beside it as a PNG, and
prints the table as Markdown.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from zoo.cli import command_line
from zoo.cli.command_line import Answer, add_output, make_parser


def parser() -> argparse.ArgumentParser:
    parser = make_parser("compare runs", __doc__, "the table")
    parser.add_argument("ann", type=Path, metavar="ANN_RUN", help="folder of the dense run")
    parser.add_argument("hnn", type=Path, metavar="HNN_RUN", help="folder of the spiking run")
    parser.add_argument("--hardware", required=True, help="what trained them, for the record")
    add_output(parser, "--out", ".json", beside=(".png",), required=True,
               help="JSON file; the PNG lies beside")  # fmt: skip
    return parser


def run(args: argparse.Namespace) -> Answer:
    from zoo.evaluation import compare, tables
    from zoo.train import curves
    from zoo.utils.files import write_json
    from zoo.utils.progress import Progress, plain_console

    with Progress(plain_console(stderr=True)) as progress:
        table = tables.of_runs(args.ann, args.hnn, args.hardware, progress)
    write_json(args.out, table)
    rows, picture = table["rows"], args.out.with_suffix(".png")
    curves.runs(picture, curves.of_runs([args.ann, args.hnn]))
    return Answer(table, lambda: print(f"{compare.markdown(rows)}\n\n{args.out}, {picture}"))


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
