"""Lists what a weight file or folder holds: names, shapes, dtypes, of any of our or their formats.

python scripts/inspect_weights.py minilm_l6
python scripts/inspect_weights.py runs/digits_hnn --match "boundaries*"
"""

import argparse
import json
import sys
from fnmatch import fnmatch


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model", metavar="NAME_OR_PATH_OR_HUB_ID", help="a folder, safetensors file, run, name"
    )
    parser.add_argument("--match", default="*", metavar="PATTERN", help="only names that match")
    parser.add_argument("--json", action="store_true", help="print one JSON array and no table")
    return parser.parse_args()


def run(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from zoo.pretrained.listing import contents

    found = [tensor for tensor in contents(args.model) if fnmatch(tensor.name, args.match)]
    if args.json:
        print(json.dumps([tensor._asdict() for tensor in found]))
        return 0
    table = Table(title=f"{args.model}: {len(found):,} tensors")
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
    plain = {"markup": False, "emoji": False}  # a name may hold "[b]" or ":cat:"
    console = Console(**plain)
    if not console.is_terminal:  # names are cut off at 80 columns otherwise
        console = Console(width=160, **plain)
    console.print(table)
    return 0


def main() -> int:
    args = parse()
    from zoo.cli.command_line import exit_code  # after --help, which needs none of this

    return exit_code(run, args)


if __name__ == "__main__":
    sys.exit(main())
