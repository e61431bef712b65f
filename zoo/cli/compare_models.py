"""Scores trained models on one data set, in one table with the dense wires a user would pick.

snapjax compare models minilm_l6 minilm_1bit.safetensors runs/minilm_1bit \\
    --task stsb --data dev.tsv --out results/minilm.json

The first model is the dense one: cut like the next, it is also scored with every code of --codes.
Writes the table as JSON, with a picture beside it, and prints it as Markdown.
"""

import argparse
from collections.abc import Sequence

from zoo.cli import command_line
from zoo.cli.command_line import Answer, add_output, add_set_flag, make_parser


def parser() -> argparse.ArgumentParser:
    parser = make_parser("compare models", __doc__, "the table")
    parser.add_argument("dense", metavar="DENSE_MODEL", help="as snapjax evaluate takes it")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="the same, cut")
    parser.add_argument("--task", choices=("classify", "mlm", "stsb"))
    parser.add_argument("--data", metavar="FILE_OR_HUB_NAME", required=True)
    add_set_flag(parser, "how the data are read, such as data.text_column=sentence")
    parser.add_argument(
        "--codes", default="float32,bfloat16,int8,int4,int2,topk",
        help="of the dense model's boundaries, with commas; top-k has the first MODEL's budget",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=100)
    add_output(parser, "--out", ".json", beside=(".png",), required=True,
               help="JSON file; a .png goes beside it")  # fmt: skip
    parser.add_argument(
        "--append", action="store_true", help="keep the other rows of the table that --out may hold"
    )
    return parser


def run(args: argparse.Namespace) -> Answer:
    from zoo.evaluation import compare, plots, tables
    from zoo.pretrained.load import load_pretrained
    from zoo.utils.files import write_json
    from zoo.utils.progress import Progress, plain_console

    codes = list(dict.fromkeys(filter(None, map(str.strip, args.codes.split(",")))))
    if not (codes or args.append):
        raise ValueError(
            f"codes={args.codes!r} leaves the dense model out of the table; name at least one "
            "code, or give --append to add to the rows that --out has"
        )
    models = [load_pretrained(name) for name in (args.dense, *args.models)]
    with Progress(plain_console(stderr=True)) as progress:
        table = tables.of_models(
            models[0], models[1:], args.data, args.assignments, task=args.task, codes=codes,
            batch_size=args.batch_size, earlier=args.out if args.append else None,
            progress=progress,
        )  # fmt: skip
    write_json(args.out, table)
    rows, picture = table["rows"], args.out.with_suffix(".png")
    plots.scores(picture, rows)
    return Answer(table, lambda: print(f"{compare.markdown(rows)}\n\n{args.out}, {picture}"))


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
