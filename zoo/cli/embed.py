"""Turns texts into embeddings, one vector a text, in a file of numpy or parquet.

snapjax embed minilm_l6 --input sentences.txt --out sentences.npy
snapjax embed minilm_l6 --input reviews.csv:review --out reviews.parquet
cat *.txt | snapjax embed minilm_l6 --out sentences.parquet

Of a text file and of the standard input every line is a text, read as a stream, so it may be longer
than the memory; of a table (.csv, .tsv, .parquet, .jsonl, or packed) every row is. The file appears
when it is whole. Parquet has the columns "text" and "embedding".
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.cli import command_line
from zoo.cli.command_line import Answer, add_output, add_set_flag, make_parser


def parser() -> argparse.ArgumentParser:
    parser = make_parser("embed", __doc__, "how many rows of how many numbers")
    parser.add_argument(
        "model", metavar="NAME", help="a model of task encode: name, folder, Hub id"
    )
    parser.add_argument(
        "--input",
        metavar="FILE[:COLUMN]",
        help="text file, or table and the column of its texts; default: lines of stdin",
    )
    add_set_flag(
        parser,
        "how a table is read, such as data.text_column=sentence (default: text); of lines "
        "data.split_special_tokens alone",
    )
    parser.add_argument("--prompt", help="name of a prompt of the model, put before every text")
    add_output(parser, "--out", ".npy", ".parquet", required=True, help=".npy or .parquet file")
    parser.add_argument("--batch-size", type=int, default=64)
    return parser


def run(args: argparse.Namespace) -> Answer:
    from zoo.embedding.encoder import Encoder
    from zoo.embedding.files import write
    from zoo.embedding.texts import texts_spec
    from zoo.pretrained.load import load_pretrained
    from zoo.utils.notes import note
    from zoo.utils.paths import expanded
    from zoo.utils.progress import Progress, plain_console

    spec = texts_spec("stdin" if args.input is None else args.input, args.assignments)
    path = None if args.input is None else expanded(spec.source)
    with _texts(path, spec) as texts:
        loaded = load_pretrained(args.model)
        encoder = Encoder.of(
            loaded, args.batch_size, prompt=args.prompt,
            split_special_tokens=spec.split_special_tokens,
        )  # fmt: skip
        prompts = loaded.source.preprocessing.get("prompts")
        if prompts and args.prompt is None:
            note(
                f"{args.model} has the prompts {', '.join(prompts)}, of which none is put before "
                "the texts; --prompt NAME does"
            )
        with Progress(plain_console(stderr=True)) as progress:
            rows = write(args.out, encoder, texts, progress("texts"))
    width = encoder.model.config.width
    return Answer(
        {"out": str(args.out), "rows": rows, "width": width},
        lambda: print(f"{args.out}: {rows:,} embeddings of {width} numbers"),
    )


@contextmanager
def _texts(path: Path | None, spec: Any) -> Iterator[Iterable[str]]:
    """The texts of the input, open while they are read.

    Args:
      path: of the input; None for the standard input.
      spec: a `DataSpec` of how a table is read.

    Raises:
      ValueError: no such file, a table that cannot be read, or settings for what is no table.
    """
    from zoo.data.files import nearest, suffix
    from zoo.data.sources import read_rows
    from zoo.data.tables import SUFFIXES
    from zoo.embedding.files import read_lines
    from zoo.embedding.texts import texts_spec

    if path is not None and (path.is_dir() or not path.exists()):
        there = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        state = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"input={str(path)!r} {state}{nearest(path.name, there)}; give a file")
    packed = path is not None and path.suffix.lower() == ".gz"
    if path is not None and suffix(path) in SUFFIXES and (packed or suffix(path) != ".txt"):
        yield read_rows(spec, validation=False).texts(spec.text_column, "text_column")
        return
    lines = replace(texts_spec(spec.source, ()), split_special_tokens=spec.split_special_tokens)
    if spec != lines:
        raise ValueError(
            "--set says how a table is read, the input is lines of text; leave out all but "
            "data.split_special_tokens, and a column behind its name"
        )
    with path.open("rb") if path is not None else nullcontext(sys.stdin.buffer) as file:
        yield read_lines(file, str(path or "stdin"))


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
