"""Scores trained models on one data set, in one table with the dense wires a user would pick.

python scripts/compare_models.py minilm_l6 minilm_1bit.safetensors runs/minilm_1bit \\
    --task stsb --data dev.tsv --out results/minilm.json

The first model is the dense one: cut like the next, it is also scored with every code of --codes.
Writes the table as JSON, with a picture beside it, and prints it as Markdown.
"""

import argparse
import sys
from pathlib import Path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dense", metavar="DENSE_MODEL", help="as evaluate.py takes it")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="the same, cut")
    parser.add_argument("--task", choices=("classify", "mlm", "stsb"))
    parser.add_argument("--data", metavar="FILE_OR_HUB_NAME", required=True)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments",
        help="how the data are read, such as data.text_column=sentence; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--codes", default="float32,bfloat16,int8,int4,int2,topk",
        help="of the dense model's boundaries, with commas; top-k has the first MODEL's budget",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True, help="JSON file; a .png goes beside it")
    parser.add_argument(
        "--append", action="store_true", help="keep the other rows of the table that --out may hold"
    )
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    from zoo.evaluation import compare, plots, tables
    from zoo.pretrained.load import load_pretrained
    from zoo.utils.files import write_json

    if args.out.suffix != ".json":
        raise ValueError(f"out={str(args.out)!r} must end in .json: a picture .png goes beside it")
    table = tables.of_models(
        load_pretrained(args.dense), [load_pretrained(name) for name in args.models], args.data,
        args.assignments, task=args.task, codes=list(filter(None, args.codes.split(","))),
        batch_size=args.batch_size, earlier=args.out if args.append else None,
    )  # fmt: skip
    write_json(args.out, table)
    print(compare.markdown(table["rows"]))
    plots.scores(args.out.with_suffix(".png"), table["rows"])
    print(f"\n{args.out}, {args.out.with_suffix('.png')}")


def main() -> int:
    args = parse()
    from zoo.cli.command_line import exit_code  # after --help, which needs none of this

    return exit_code(run, args)


if __name__ == "__main__":
    sys.exit(main())
