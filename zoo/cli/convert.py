"""Converts a model: to a folder that Hugging Face transformers loads, or to one safetensors file.

  snapjax convert runs/topics_ann bert_for_transformers
  snapjax convert minilm_l6 minilm.safetensors --variant hnn --stages 3
  snapjax convert FOLDER encoder.safetensors --task encode --ignore "cls.*"

A folder gets the dense part, uncut; a file whose name ends in .safetensors gets everything, the
boundaries included, and is loaded again by its path.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from zoo.cli import command_line
from zoo.cli.command_line import Answer, make_parser


def parser() -> argparse.ArgumentParser:
    parser = make_parser("convert", __doc__, "what was written")
    parser.add_argument("model", metavar="NAME_OR_PATH_OR_HUB_ID", help="what to convert")
    parser.add_argument("out", type=Path, help="a new folder, or a new file NAME.safetensors")
    parser.add_argument("--task", help="which head of a Hugging Face model to take")
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="PATTERN",
        help="tensors of a Hugging Face model that may be left out",
    )  # fmt: skip
    parser.add_argument(
        "--pooling", choices=("mean", "first"),
        help="of an encoder whose folder does not say how its tokens become one embedding",
    )  # fmt: skip
    parser.add_argument("--variant", choices=("ann", "hnn"), help="cut it anew, not calibrated")
    parser.add_argument("--stages", type=int, help="how many stages to cut it into")
    return parser


def run(args: argparse.Namespace) -> Answer:
    from snapjax.codes.parameters import count_trainable
    from zoo.pretrained.about import about
    from zoo.pretrained.convert import check_model, check_target, convert
    from zoo.pretrained.load import load_pretrained

    check_target(args.out, cut=bool(args.variant or args.stages))
    model = about(args.model).model
    if model is not None:  # of weights of others the class is known
        check_model(args.out, model)
    loaded = load_pretrained(
        args.model,
        variant=args.variant,
        stages=args.stages,
        task=args.task,
        ignore=args.ignore,
        pooling=args.pooling,
    )
    name, written = loaded.model.config.name, count_trainable(convert(loaded, args.out))
    return Answer(
        {"out": str(args.out), "model": name, "parameters": written},
        lambda: print(f"{args.out}: {name}, {written:,} trainable parameters"),
    )


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
