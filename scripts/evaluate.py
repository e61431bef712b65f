"""Scores a trained model: one that ships with the package, a model folder, a run or a checkpoint.

python scripts/evaluate.py vit_nano_patch2_8.hnn_digits
python scripts/evaluate.py runs/fashion_hnn --task classify --data FOLDER --json
python scripts/evaluate.py minilm_l6 --task stsb --data dev.tsv
"""

import argparse
import json
import sys


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model",
        metavar="NAME_OR_CHECKPOINT",
        help="a model that ships, a model's folder, a run, a checkpoint, or weights of others",
    )
    parser.add_argument(
        "--task", choices=("classify", "mlm", "stsb"), help="default: the model's own"
    )
    parser.add_argument(
        "--data", metavar="FILE_OR_HUB_NAME",
        help="default: what the model was trained on; of other data without a validation split, "
        "all is scored",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments",
        help="how the data are read, such as data.text_column=sentence; may be repeated",
    )  # fmt: skip
    parser.add_argument("--split", choices=("validation", "train"), default="validation")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument(
        "--ranks", "--places", type=int, default=1, help="devices that the stages are spread over"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and no table")
    return parser.parse_args()


def run(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from zoo.evaluation.inputs import spec_for
    from zoo.evaluation.score import score_any
    from zoo.pretrained.load import load_pretrained
    from zoo.train.processes import fake_devices

    fake_devices(args.ranks, 1)
    loaded = load_pretrained(args.model)
    spec = spec_for(loaded, args.data, args.assignments)
    result = score_any(
        loaded,
        spec,
        args.task,
        batch_size=args.batch_size,
        ranks=args.ranks,
        train_split=args.split == "train",
    )
    if args.json:
        print(json.dumps(result))
        return 0
    table = Table(title=f"{args.model} on {spec.source}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in result.items():
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    Console().print(table)
    return 0


def main() -> int:
    args = parse()
    from zoo.cli.command_line import exit_code  # after --help, which needs none of this

    return exit_code(run, args)


if __name__ == "__main__":
    sys.exit(main())
