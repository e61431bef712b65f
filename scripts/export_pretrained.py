"""Turns a finished run into a model that ships: weights, config, tokenizer and a card.

  python scripts/export_pretrained.py runs/digits_hnn vit_nano_patch2_8.hnn_digits \
    --command "snapjax train digits_hnn" --data "..." --data-licence "CC BY 4.0" \
    --hardware "2 CPU cores" --limits "..."

With --base, what is equal in another model is left out and taken from there: of a model whose
boundaries alone were trained, nothing else is written.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("name", help="MODEL.TAG, such as vit_nano_patch2_8.hnn_digits")
    parser.add_argument("--out", type=Path, help="all models; default zoo/pretrained/shipped")
    parser.add_argument("--command", required=True, help="what trained it")
    parser.add_argument("--data", required=True, help="what it was trained on, and the source")
    parser.add_argument("--data-licence", required=True)
    parser.add_argument("--licence", default="Apache-2.0", help="of the weights")
    parser.add_argument("--hardware", required=True)
    parser.add_argument("--limits", required=True, help="what it is not good for")
    parser.add_argument(
        "--base", metavar="NAME", help="a model that ships or is known by name, such as minilm_l6"
    )
    parser.add_argument(
        "--scores", type=Path, metavar="JSON", action="append", default=[],
        help="what `snapjax evaluate --json` printed of it, for the card, where the run's own "
        "validation is not what it is judged by; may be repeated for --task agreement",
    )  # fmt: skip
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    from zoo.evaluation.shipping import ship
    from zoo.pretrained.hugging_face.tensors import WEIGHTS
    from zoo.pretrained.locate import SHIPPED

    facts = {name: getattr(args, name) for name in
             ("command", "data", "data_licence", "licence", "limits")}  # fmt: skip
    folder = ship(
        args.run, args.name, facts, args.hardware,
        base=args.base, scores=args.scores, out=args.out or SHIPPED,
    )  # fmt: skip
    size = (folder / WEIGHTS).stat().st_size
    print(f"{folder}: {size / 1e6:.2f} MB of weights")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    from zoo.cli.command_line import exit_code  # after --help, which needs none of this

    return exit_code(run, args)


if __name__ == "__main__":
    sys.exit(main())
