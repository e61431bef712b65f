"""Measures the present machine and writes its hardware profile for the cost model.

python scripts/calibrate_profile.py --out machine.toml
python scripts/bench_latency.py --profile machine.toml

Matmul rates in float32 and bfloat16, memory bandwidth, elementwise and transcendental rates, and
the time to start an operation, each on a small program of its own: a minute, on a machine that does
nothing else. Energies and links are the base profile's.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from snapjax.cost import load_profile
from snapjax.cost.price.constants import MEANINGS
from zoo.bench import machine
from zoo.utils.files import write_atomic
from zoo.utils.outputs import check_out


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("machine.toml"), metavar="FILE")
    add("--name", default="machine", help="of the profile")
    add("--base", default="ethernet-1g", help="profile whose energies and links hold")
    add("--repeats", type=int, default=9, help="of each program, whose median counts")
    add("--small", action="store_true", help="tiny programs, to try the script out")
    args = parser.parse_args(argv)
    if args.repeats < 1:
        parser.error(f"--repeats {args.repeats}: must be at least 1")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    sizes = machine.Sizes(repeats=args.repeats)
    if args.small:
        few = sizes.matmuls[:2]
        sizes = sizes._replace(matmuls=few, stream=1 << 16, wide=1 << 10, loop=20)
    try:
        check_out(args.out, ".toml", inputs=[Path(args.base)])
        load_profile(args.base)  # a wrong name is an error before anything is measured
        found = machine.measure(sizes)
        profile = machine.calibrated(args.name, args.base, found, machine.describe())
        write_atomic(args.out, profile.to_toml())
        load_profile(args.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    table = Table(title=profile.description)
    for name in ("constant", "value", "low", "high", "unit", "what"):
        table.add_column(name)
    for key in found:
        entry = profile.constants[key]
        numbers = (f"{number:.3g}" for number in (entry.value, entry.low, entry.high))
        table.add_row(key, *numbers, entry.unit, MEANINGS[key])
    console = Console() if sys.stdout.isatty() else Console(width=140)
    console.print(table)
    console.print(f"written to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
