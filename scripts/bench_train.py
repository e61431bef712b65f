"""Times training and evaluation: dense and spiking boundaries, and PyTorch on the same sizes.

  python scripts/bench_train.py
  python scripts/bench_train.py --models vit_nano_patch2_8 --batch-size 32 --no-torch

All runs of a model take turns in one process. PyTorch's rows need requirements-torch.txt.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from zoo.bench.report import bench, table, visits
from zoo.train.memory import keep_freed_memory
from zoo.utils.files import write_json
from zoo.utils.outputs import check_out


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["vit_tiny_patch4_28", "bert_micro"])
    parser.add_argument("--batch-size", type=int, default=64, help="samples a step")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that the medians are of")
    parser.add_argument("--images", metavar="SOURCE", help="data of the ViTs, as data.source")
    parser.add_argument("--text", metavar="SOURCE", help="text of the BERTs, as data.source")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the figures there")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch's rows out")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args, console = parse(argv), Console()
    keep_freed_memory()
    with_torch = not args.no_torch
    try:
        if args.json is not None:
            check_out(args.json, ".json", name="json")
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("bench", total=visits(args.models, args.repeats, with_torch))
            record = bench(
                args.models,
                args.batch_size,
                args.repeats,
                with_torch,
                args.images,
                args.text,
                done=lambda: bar.advance(task),
            )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if console.is_terminal:
        console.print(table(record))
    else:  # a file has no width; cut nothing
        Console(width=160).print(table(record))
    if args.json:
        write_json(args.json, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
