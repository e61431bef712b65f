"""Lists what a weight file or folder holds: names, shapes, dtypes, of any of our or their formats.

snapjax inspect minilm_l6
snapjax inspect runs/digits_hnn --match "boundaries*"
"""

import argparse
from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Any

from zoo.cli import command_line
from zoo.cli.command_line import Answer, make_parser


def parser() -> argparse.ArgumentParser:
    parser = make_parser("inspect", __doc__, "the tensors")
    parser.add_argument(
        "model", metavar="NAME_OR_PATH_OR_HUB_ID", help="a folder, safetensors file, run, name"
    )
    parser.add_argument("--match", default="*", metavar="PATTERN", help="only names that match")
    return parser


def run(args: argparse.Namespace) -> Answer:
    from zoo.pretrained.listing import contents

    found = [tensor for tensor in contents(args.model) if fnmatch(tensor.name, args.match)]
    record = {
        "model": args.model,
        "tensors": [tensor._asdict() for tensor in found],
        "numbers": sum(tensor.size for tensor in found),
        "parameters": sum(tensor.size for tensor in found if tensor.trainable),
    }
    return Answer(record, lambda: _show(args.model, found))


def _show(model: str, found: Sequence[Any]) -> None:
    """A table of `zoo.pretrained.listing.Tensor`s."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{model}: {len(found):,} tensors")
    table.add_column("name", overflow="fold")
    table.add_column("dtype")
    table.add_column("shape")
    table.add_column("numbers", justify="right")
    table.add_column("file")
    for tensor in found:
        shape = " x ".join(map(str, tensor.shape)) or "scalar"
        table.add_row(tensor.name, tensor.dtype, shape, f"{tensor.size:,}", tensor.file)
    table.add_section()
    table.add_row("total", "", "", f"{sum(tensor.size for tensor in found):,}", "")
    trained = sum(tensor.size for tensor in found if tensor.trainable)
    table.add_row("of these trainable parameters", "", "", f"{trained:,}", "")
    plain = {"markup": False, "emoji": False}  # a name may hold "[b]" or ":cat:"
    console = Console(**plain)
    if not console.is_terminal:  # names are cut off at 80 columns otherwise
        console = Console(width=160, **plain)
    console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
