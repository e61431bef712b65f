"""Converts a model: to a folder that Hugging Face transformers loads, or to one safetensors file.

  python scripts/convert.py runs/topics_ann bert_for_transformers
  python scripts/convert.py minilm_l6 minilm.safetensors --variant hnn --stages 3
  python scripts/convert.py FOLDER encoder.safetensors --task encode --ignore "cls.*"

A folder gets the dense part, uncut; a file whose name ends in .safetensors gets everything, the
boundaries included, and is loaded again by its path.
"""

import argparse
import sys
from pathlib import Path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="NAME_OR_PATH_OR_HUB_ID", help="what to convert")
    parser.add_argument("out", type=Path, help="a new folder, or a new file NAME.safetensors")
    parser.add_argument("--task", help="which head of a Hugging Face model to take")
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="PATTERN",
        help="tensors of a Hugging Face model that may be left out; may be repeated",
    )  # fmt: skip
    parser.add_argument("--variant", choices=("ann", "hnn"), help="cut it anew, not calibrated")
    parser.add_argument("--stages", type=int, help="how many stages to cut it into")
    return parser.parse_args()


def run(args: argparse.Namespace) -> int:
    from snapjax.codes.parameters import count
    from zoo.pretrained.convert import check_target, convert
    from zoo.pretrained.load import load_pretrained

    check_target(args.out, cut=bool(args.variant or args.stages))
    loaded = load_pretrained(
        args.model, variant=args.variant, stages=args.stages, task=args.task, ignore=args.ignore
    )
    written = count(convert(loaded, args.out))
    print(f"{args.out}: {loaded.model.config.name}, {written:,} trainable parameters")
    return 0


def main() -> int:
    args = parse()
    from zoo.cli.command_line import exit_code  # after --help, which needs none of this

    return exit_code(run, args)


if __name__ == "__main__":
    sys.exit(main())
