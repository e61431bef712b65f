"""Prices the boundary of every row of the results tables, so that each row has quality and cost.

python scripts/cost_quality.py --json results/cost_quality.json

Reads the tables in results/ and prices each row's own boundary, with its matrices and steps, in the
model of its table (see zoo/cost/quality.py).
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from zoo.cost import quality
from zoo.utils.files import read_json, write_json

RESULTS = Path(__file__).resolve().parents[1] / "results"
TABLES = ("minilm", "calibrated", "demo", "fashion", "topics", "gutenberg")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    add("--json", type=Path, metavar="OUT", required=True, help="write the costs there")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        tables = {name: read_json(RESULTS / f"{name}.json") for name in args.tables}
        total = sum(len(table["rows"]) for table in tables.values())
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("pricing", total=total)
            found = quality.price(tables, done=lambda: bar.advance(task))
        setting = {"batch": quality.SETTING.batch, "microbatches": quality.SETTING.microbatches}
        write_json(args.json, {"what": quality.__doc__, "setting": setting, "tables": found})
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{total} rows priced, written to {args.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
