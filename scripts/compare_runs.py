"""Puts a dense run and a spiking run of one model side by side, with every other wire between.

python scripts/compare_runs.py runs/digits_ann runs/digits_hnn --hardware "2 CPU cores" \\
    --out results/digits.json

Writes the table as JSON with the command of each run, the learning curves beside it as a PNG, and
prints the table as Markdown.
"""

import argparse
import sys
from pathlib import Path

import jax


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
    from snapjax.parallel.sharding import make_mesh
    from zoo.config.presets import command
    from zoo.evaluation import baselines, compare
    from zoo.evaluation.inputs import data_for
    from zoo.pretrained.load import load_pretrained
    from zoo.train import curves
    from zoo.train.logbook import read_metrics
    from zoo.utils.files import read_json, write_json

    folders = {"ann": args.ann, "hnn": args.hnn}
    loaded = {name: load_pretrained(folder) for name, folder in folders.items()}
    summaries = {name: read_json(folder / "summary.json") for name, folder in folders.items()}
    config = loaded["hnn"].config
    data = data_for(loaded["hnn"], config.data)
    # On one device, whatever the mesh of the runs was: there may be no more here.
    cuts = [baselines.calibrate(loaded["ann"], config, data), loaded["hnn"]]
    rows = baselines.rows(loaded["ann"], cuts, data, make_mesh(stage=1))
    model = loaded["hnn"].model.config
    write_json(
        args.out,
        {
            "model": model.name,
            "parameters": summaries["hnn"]["parameters"],
            "stages": model.stages,
            "task": config.data.task,
            "data": Path(config.data.source).name,
            "commands": {name: command(loaded[name].config) for name in folders},
            "minutes": {name: summaries[name]["seconds"] / 60 for name in folders},
            "hardware": args.hardware,
            "jax": jax.__version__,
            "rows": rows,
        },
    )
    names, lines = curves.names(list(folders.values())), map(read_metrics, folders.values())
    curves.runs(args.out.with_suffix(".png"), dict(zip(names, lines, strict=True)))
    print(compare.markdown(rows))
    print(f"\n{args.out}, {args.out.with_suffix('.png')}")


def main() -> int:
    args = parse()
    from zoo.cli.command_line import exit_code  # after --help, which needs none of this

    return exit_code(run, args)


if __name__ == "__main__":
    sys.exit(main())
