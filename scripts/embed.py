"""Turns lines of text into embeddings, one vector a line, in a file of numpy or parquet.

python scripts/embed.py minilm_l6 --input sentences.txt --out sentences.npy
cat *.txt | python scripts/embed.py minilm_l6 --out sentences.parquet

The input is read as a stream, so it may be longer than the memory; the file appears when it is
whole. Parquet has the columns "text" and "embedding".
"""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model", metavar="NAME", help="a model of task encode: name, folder, Hub id"
    )
    parser.add_argument("--input", type=Path, help="text file; default: standard input")
    parser.add_argument("--out", type=Path, required=True, help="a .npy or .parquet file")
    parser.add_argument("--batch-size", type=int, default=64)
    return parser.parse_args()


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from zoo.embedding.encoder import Encoder
    from zoo.embedding.files import read_lines, write
    from zoo.pretrained.load import load_pretrained
    from zoo.train.logbook import progress_bar

    encoder = Encoder.of(load_pretrained(args.model), args.batch_size)
    console = Console(stderr=True)
    opened = args.input.open("rb") if args.input else nullcontext(sys.stdin.buffer)
    with opened as source, progress_bar(console) as bar:
        task = bar.add_task("lines", total=None, shown="")
        rows = write(args.out, encoder, read_lines(source, str(args.input or "stdin")),
                     lambda done: bar.update(task, completed=done))  # fmt: skip
    print(f"{args.out}: {rows:,} embeddings of {encoder.model.config.width} numbers")
    return 0


def main() -> int:
    args = parse()
    from zoo.cli.command_line import exit_code  # after --help, which needs none of this

    return exit_code(run, args)


if __name__ == "__main__":
    sys.exit(main())
