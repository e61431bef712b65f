"""Predicted against measured time of a forward pass and a training step of models of the zoo.

python scripts/calibrate_profile.py --out machine.toml
python scripts/bench_latency.py --profile machine.toml --json results/latency.json

The prediction is the cost model's, from the jaxpr of the step and the machine's profile; models are
not among the programs that the profile was measured on. Run it on a machine that does nothing else.
"""

import argparse
import statistics
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from snapjax.cost import load_profile
from zoo import create_model, list_models
from zoo.bench import inputs, machine
from zoo.bench.ours import Ours
from zoo.utils.files import write_json
from zoo.utils.outputs import check_out

MODELS = ("vit_nano_patch2_8", "vit_tiny_patch4_28", "bert_nano", "bert_micro")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--profile", required=True, metavar="P", help="of this machine; see calibrate_profile.py")
    add("--models", nargs="+", default=list(MODELS), choices=list_models(), metavar="MODEL")
    add("--batch-size", type=int, default=64, help="samples a step")
    add("--repeats", type=int, default=7, help="rounds that the medians are of")
    add("--json", type=Path, metavar="OUT", help="also write the figures there")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    rows: list[machine.Prediction] = []
    try:
        if args.json is not None:
            check_out(args.json, ".json", name="json", inputs=[Path(args.profile)])
        profile = load_profile(args.profile)
        for name in track(args.models, "bench", console=Console(stderr=True), transient=True):
            model = create_model(name, "ann", 1)
            split, _ = inputs.split_for(model.config)
            batch = next(inputs.batches(split, args.batch_size))
            ours = Ours(model, args.batch_size)
            rows += machine.compare(name, ours, batch, profile, args.repeats)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    table = Table(title=f"Batches of {args.batch_size}; {profile.name}: {profile.description}")
    for name in ("model", "step"):
        table.add_column(name)
    for name in ("predicted ms", "range", "measured ms", "error"):
        table.add_column(name, justify="right")
    for row in rows:
        low, high = f"{1e3 * row.low:.3g}", f"{1e3 * row.high:.3g}"
        predicted, measured = f"{1e3 * row.predicted:.3g}", f"{1e3 * row.measured:.3g}"
        table.add_row(
            row.model, row.step, predicted, f"{low} to {high}", measured, f"{row.error:+.0%}"
        )
    mean = statistics.mean(abs(row.error) for row in rows)
    console = Console() if sys.stdout.isatty() else Console(width=140)
    console.print(table)
    worst = max(rows, key=lambda row: abs(row.error))
    console.print(f"mean error {mean:.0%}, worst {worst.error:+.0%} ({worst.model}, {worst.step})")
    if args.json:
        record = {"profile": profile.description, "batch_size": args.batch_size}
        figures = [{**row._asdict(), "error": row.error} for row in rows]
        write_json(args.json, {**record, "mean_error": mean, "rows": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
