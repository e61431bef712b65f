"""Draws the curves of one or more runs in one picture, of running ones too.

python scripts/plot_run.py runs/digits_ann runs/digits_hnn --out runs/digits.png
"""

import argparse
import sys
from pathlib import Path

from zoo.train import curves
from zoo.train.logbook import read_metrics


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--out", type=Path, help="the PNG; default RUN/curves.png of the first")
    return parser.parse_args()


def main() -> int:
    args = parse()
    out = args.out or args.runs[0] / "curves.png"
    try:
        names = curves.names(args.runs)
        lines = {name: read_metrics(run) for name, run in zip(names, args.runs, strict=True)}
        empty = [name for name, found in lines.items() if not found]
        if empty:
            raise ValueError(f"{', '.join(empty)}: metrics.jsonl has no complete line yet")
        curves.runs(out, lines)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
