"""Pairs of like texts out of texts alone, for a distillation that learns their similarity.

  snapjax mine minilm_l6 --data sentences.txt --out pairs.csv
  snapjax distill minilm_l6 --stages 3 --bits 1 --data pairs.csv \\
      --set data.text_column=sentence1 --set data.text_pair_column=sentence2 \\
      --set data.pairs=true --set distill.similarity=3 --out runs/minilm_1bit

Every text is in one pair at most, with one of its nearest that is in none yet. The columns are
those of STS-B (sentence1, sentence2, score), the score is the cosine that the model gives the pair:
on pairs of other texts than a cut model was trained on, `snapjax evaluate --task stsb` tells
how well it ranks as the dense one does. Several such files in a folder are --data FOLDER --set
data.train='*'.
Time grows with the square of the texts: bound them with --samples.
"""

import argparse
from collections.abc import Sequence

from zoo.cli import command_line
from zoo.cli.command_line import Answer, add_batch_flags, add_output, add_set_flag, make_parser


def parser() -> argparse.ArgumentParser:
    parser = make_parser("mine", __doc__, "how many pairs, and their cosines")
    parser.add_argument(
        "model", metavar="NAME", help="a model of task encode: name, folder, file, Hub id"
    )
    parser.add_argument("--data", metavar="SOURCE[:COLUMN]", required=True)
    add_set_flag(
        parser,
        "how the texts are read, such as data.text_column=sentence (default: text) and "
        "data.text_pair_column, whose texts are added",
    )
    parser.add_argument("--samples", type=int, help="texts drawn at random; default: all")
    parser.add_argument(
        "--neighbours", type=int, default=10,
        help="how many nearest texts a partner is drawn from; default: %(default)s",
    )  # fmt: skip
    add_batch_flags(parser)
    add_output(parser, "--out", ".csv", required=True, help="a .csv file")
    return parser


def run(args: argparse.Namespace) -> Answer:
    import numpy as np

    from zoo.embedding import mining
    from zoo.embedding.encoder import Encoder
    from zoo.embedding.texts import read_texts, texts_spec
    from zoo.pretrained.load import load_pretrained
    from zoo.utils.progress import Progress, plain_console

    for name, least in (("samples", 2), ("neighbours", 1), ("batch_size", 1), ("seed", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"{name}={value} must be at least {least}")
    spec = texts_spec(args.data, args.assignments)
    texts = read_texts(spec, whole=True)
    encoder = Encoder.of(
        load_pretrained(args.model), args.batch_size,
        split_special_tokens=spec.split_special_tokens,
    )  # fmt: skip
    with Progress(plain_console(stderr=True)) as progress:
        texts, pairs = mining.mine(
            encoder, texts, args.neighbours, samples=args.samples, seed=args.seed, progress=progress
        )
    mining.write(args.out, texts, pairs)
    low, middle, high = np.quantile([pair.cosine for pair in pairs], (0.1, 0.5, 0.9))
    return Answer(
        {"out": str(args.out), "pairs": len(pairs),
         "cosines": {"10%": low, "median": middle, "90%": high}},
        lambda: print(
            f"{args.out}: {len(pairs):,} pairs; cosines {low:.2f}, {middle:.2f} and {high:.2f} "
            "(10 %, median, 90 %)"
        ),
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
