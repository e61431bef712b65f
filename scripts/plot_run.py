"""Draws the curves of one or more runs in one picture, of running ones too.

python scripts/plot_run.py runs/digits_ann runs/digits_hnn --out runs/digits.png
"""

import argparse
import sys
from pathlib import Path

from zoo.train import curves


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
        curves.runs(out, curves.of_runs(args.runs))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
