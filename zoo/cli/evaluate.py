"""Scores a trained model: one that ships with the package, a model folder, a run or a checkpoint.

snapjax evaluate vit_nano_patch2_8.hnn_digits
snapjax evaluate runs/fashion_hnn --task classify --data FOLDER --json
snapjax evaluate minilm_l6 --task stsb --data dev.tsv
snapjax evaluate minilm_l6.hnn_1bit --task agreement --data books.txt
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.cli import command_line
from zoo.cli.command_line import Answer, add_set_flag, make_parser


def parser() -> argparse.ArgumentParser:
    parser = make_parser("evaluate", __doc__, "the scores")
    parser.add_argument(
        "model",
        metavar="NAME_OR_CHECKPOINT",
        help="a model that ships, a model's folder, a run, a checkpoint, or weights of others",
    )
    parser.add_argument(
        "--task", choices=("classify", "mlm", "stsb", "agreement"),
        help="default: the model's own; agreement: how far a cut model answers as the dense one",
    )  # fmt: skip
    parser.add_argument(
        "--against", metavar="NAME",
        help="the model of task agreement; default: the same weights in one piece",
    )  # fmt: skip
    parser.add_argument(
        "--data", metavar="SOURCE[:COLUMN]",
        help="file, folder or Hub name, and the column of its texts; default: what the model was "
        "trained on; of other data without a validation split, all is scored",
    )  # fmt: skip
    add_set_flag(parser, "how the data are read, such as data.text_column=sentence")
    parser.add_argument("--split", choices=("validation", "train"), default="validation")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument(
        "--ranks", type=int, default=1, help="devices that the stages are spread over"
    )
    parser.add_argument(  # its name in version 0.1.0
        "--places", dest="ranks", type=int, default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    return parser


def run(args: argparse.Namespace) -> Answer:
    from zoo.evaluation.inputs import spec_for
    from zoo.evaluation.own_data import check_source
    from zoo.evaluation.score import score_any
    from zoo.pretrained.load import load_pretrained
    from zoo.train.processes import fake_devices
    from zoo.utils.progress import Progress, plain_console

    fake_devices(args.ranks, 1)
    check_source(args.model, args.data)
    loaded = load_pretrained(args.model)
    spec = spec_for(loaded, args.data, args.assignments)
    dense = load_pretrained(args.against) if args.against else None
    with Progress(plain_console(stderr=True)) as progress:
        result = score_any(
            loaded, spec, args.task, batch_size=args.batch_size, ranks=args.ranks,
            train_split=args.split == "train", dense=dense, progress=progress,
        )  # fmt: skip
    return Answer(result, lambda: _show(f"{args.model} on {spec.source}", result))


def _show(title: str, result: Mapping[str, Any]) -> None:
    from rich.table import Table

    from zoo.utils.progress import plain_console

    table = Table(title=title)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in result.items():
        table.add_row(name, _figure(value))
    plain_console().print(table)


def _figure(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_figure, value)) or "-"
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
