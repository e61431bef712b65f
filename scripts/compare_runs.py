"""Puts a dense run and a spiking run of one model side by side, with every other wire between.

python scripts/compare_runs.py runs/digits_ann runs/digits_hnn --hardware "2 CPU cores" \\
    --out results/digits.json

Writes the table as JSON with the command of each run, the learning curves beside it as a PNG, and
prints the table as Markdown.
"""

import argparse
import sys
from pathlib import Path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ann", type=Path, metavar="ANN_RUN", help="folder of the dense run")
    parser.add_argument("hnn", type=Path, metavar="HNN_RUN", help="folder of the spiking run")
    parser.add_argument("--hardware", required=True, help="what trained them, for the record")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; the PNG lies beside")
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    from zoo.evaluation import compare, tables
    from zoo.train import curves
    from zoo.utils.files import write_json

    table = tables.of_runs(args.ann, args.hnn, args.hardware)
    write_json(args.out, table)
    curves.runs(args.out.with_suffix(".png"), curves.of_runs([args.ann, args.hnn]))
    print(compare.markdown(table["rows"]))
    print(f"\n{args.out}, {args.out.with_suffix('.png')}")


def main() -> int:
    args = parse()
    from zoo.cli.command_line import exit_code  # after --help, which needs none of this

    return exit_code(run, args)


if __name__ == "__main__":
    sys.exit(main())
