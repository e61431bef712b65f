"""Turns lines of text into embeddings, one vector a line, in a file of numpy or parquet.

snapjax embed minilm_l6 --input sentences.txt --out sentences.npy
cat *.txt | snapjax embed minilm_l6 --out sentences.parquet

The input is read as a stream, so it may be longer than the memory; the file appears when it is
whole. Parquet has the columns "text" and "embedding".
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from zoo.cli import command_line
from zoo.cli.command_line import Answer, make_parser


def parser() -> argparse.ArgumentParser:
    parser = make_parser("embed", __doc__, "how many rows of how many numbers")
    parser.add_argument(
        "model", metavar="NAME", help="a model of task encode: name, folder, Hub id"
    )
    parser.add_argument("--input", type=Path, help="text file; default: standard input")
    parser.add_argument("--out", type=Path, required=True, help="a .npy or .parquet file")
    parser.add_argument("--batch-size", type=int, default=64)
    return parser


def run(args: argparse.Namespace) -> Answer:
    from zoo.embedding.encoder import Encoder
    from zoo.embedding.files import read_lines, write
    from zoo.pretrained.load import load_pretrained
    from zoo.utils.progress import Progress, plain_console

    encoder = Encoder.of(load_pretrained(args.model), args.batch_size)
    opened = args.input.open("rb") if args.input else nullcontext(sys.stdin.buffer)
    with opened as source, Progress(plain_console(stderr=True)) as progress:
        rows = write(args.out, encoder, read_lines(source, str(args.input or "stdin")),
                     progress("lines"))  # fmt: skip
    width = encoder.model.config.width
    return Answer(
        {"out": str(args.out), "rows": rows, "width": width},
        lambda: print(f"{args.out}: {rows:,} embeddings of {width} numbers"),
    )


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
