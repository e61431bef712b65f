"""Margins of spiking boundaries over dense ones against model size and devices.

python scripts/cost_scaling.py --json results/cost_scaling.json --plot results/cost_scaling.png
python scripts/cost_scaling.py --train --profile h100-nvlink

One fixed rule (see zoo/cost/scaling.py): only the width and the number of devices change. Spike
rates are those of the trained hybrids that ship with the zoo where a family has one, and the worst
case elsewhere; every row says which.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from zoo.cost import scaling as study
from zoo.utils.files import write_json
from zoo.utils.outputs import check_out


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--profile", default="snap-mesh", metavar="P", help="a name or a TOML file")
    add("--families", nargs="+", choices=tuple(study.FAMILIES), default=list(study.FAMILIES))
    add("--devices", nargs="+", type=int, default=list(study.DEVICES))
    add("--sizes", type=int, help="how many widths, from the smallest; default all")
    add("--train", action="store_true", help="training steps; default forward passes")
    add("--rate", type=float, help="spike rate to assume instead of measured ones")
    add("--json", type=Path, metavar="OUT", help="also write the rows there")
    add("--plot", type=Path, metavar="PNG", help="also draw the margins there")
    args = parser.parse_args(argv)
    for count in args.devices:
        if count < 2 or study.LAYERS % count:
            parser.error(f"--devices {count}: must be 2 or more and divide {study.LAYERS} layers")
    if args.rate is not None and not 0 <= args.rate <= 1:
        parser.error(f"--rate {args.rate}: must be in [0, 1]")
    return args


def table(rows: list[study.Row], title: str) -> Table:
    shown = Table(title=title)
    for name in ("model", "devices", "variant", "rate"):
        shown.add_column(name)
    energies = ("energy uJ", "x less", "boundary uJ", "links uJ", "x less")
    for name in ("hop bytes", *energies, "latency ms", "x less"):
        shown.add_column(name, justify="right")
    for row in rows:
        how = "measured" if "own validation" in row["rate_is"] else "assumed"
        rate = "-" if row["rate"] is None else f"{row['rate']:.3f} {how}"
        margin = row["margin"]
        shown.add_row(
            f"{row['family']} {row['width']} ({row['parameters'] / 1e6:.0f} M)",
            str(row["devices"]),
            row["variant"],
            rate,
            f"{row['hop_bytes']:,.0f}",
            f"{row['energy_pj'] / 1e6:,.0f}",
            f"{margin['energy_pj']:.3f}",
            f"{row['boundary_energy_pj'] / 1e6:,.0f}",
            f"{row['link_energy_pj'] / 1e6:,.1f}",
            f"{margin['link_energy_pj']:.2f}",
            f"{1e3 * row['latency_s']:.3f}",
            f"{margin['latency_s']:.3f}",
        )
    return shown


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    console = Console() if sys.stdout.isatty() else Console(width=180)
    widths = sum(len(study.FAMILIES[family][2][: args.sizes]) for family in args.families)
    total = widths * len(args.devices) * len(study.VARIANTS)
    try:
        for flag, suffix in (("json", ".json"), ("plot", ".png")):
            if (path := getattr(args, flag)) is not None:
                check_out(path, suffix, name=flag, inputs=[Path(args.profile)])
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("pricing", total=total)
            rows = study.run(
                args.profile,
                args.families,
                args.devices,
                args.sizes,
                args.train,
                args.rate,
                done=lambda: bar.advance(task),
            )
        step = "training step" if args.train else "forward pass"
        title = f"One {step} of {study.BATCH} on {args.profile}, against the float32 boundary (ann)"
        growth = {
            f"{figure} along {along}": study.grows(rows, figure, along)
            for figure in study.MARGINS
            for along in ("width", "devices")
        }
        if args.json:
            record = {"profile": args.profile, "train": args.train, "rule": study.__doc__}
            write_json(args.json, {**record, "hnn_margin_grows": growth, "rows": rows})
        if args.plot:
            study.plot(args.plot, rows, title)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console.print(table(rows, title))
    for name, lines in growth.items():
        held = [line for line, ascends in lines.items() if ascends]
        console.print(f"hnn's margin in {name} grows on {len(held)} of {len(lines)} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
