"""Cuts a trained model with spikes and trains it against the dense model, on unlabelled samples.

  snapjax distill minilm_l6 --stages 3 --bits 1 --data train.tsv \\
      --set data.text_column=sentence1 --set data.text_pair_column=sentence2 \\
      --set data.pairs=true --set distill.similarity=3 --out runs/minilm_1bit
  snapjax evaluate runs/minilm_1bit --task stsb --data dev.tsv

With data.pairs and distill.similarity the similarity of the two texts of a row is learned too; no
score of a pair is read.

The run is one of `snapjax train`: the same keys for --set, the same folder, and --resume. With
--code int4, int2, topk, ... the same is done to a boundary that does not spike.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from zoo.cli import command_line
from zoo.cli.command_line import (
    Answer,
    add_batch_flags,
    add_cut_flags,
    add_output,
    add_set_flag,
    make_parser,
)
from zoo.cli.training import add_run_flags, join_processes, train_until_stopped
from zoo.config.old_names import current_method


def parser() -> argparse.ArgumentParser:
    parser = make_parser("distill", __doc__, "the run's summary")
    parser.add_argument("teacher", metavar="NAME", help="name, folder, file or Hub id of a model")
    add_cut_flags(parser)
    parser.add_argument(
        "--method",
        type=current_method,
        help="how spikes are fitted first; default: sensitivity_pca_refit, see snapjax calibrate",
    )
    parser.add_argument("--data", metavar="SOURCE[:COLUMN]", required=True)
    parser.add_argument(
        "--trainable", choices=("all", "boundaries"), default="all", help="which parameters"
    )
    parser.add_argument(  # its name in version 0.1.0
        "--trains",
        dest="trainable",
        choices=("all", "boundaries"),
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    add_batch_flags(parser)
    add_set_flag(parser, "any other value of the run, such as data.sequence=64")
    add_output(parser, "--out", required=True, help="folder of the run")
    add_run_flags(parser)
    return parser


def config_of(args: argparse.Namespace, preset: str) -> Any:
    """The run's config, its model made from a preset of the zoo."""
    from zoo.config.distillation import distillation

    return distillation(
        args.teacher, args.data, preset, stages=args.stages, code=args.code,
        bits_per_feature=args.bits, steps=args.steps, calibration=args.method,
        trainable=args.trainable, epochs=args.epochs, batch_size=args.batch_size,
        learning_rate=args.learning_rate, seed=args.seed, assignments=args.assignments,
    )  # fmt: skip


def run(args: argparse.Namespace) -> Answer:
    # Before the teacher is loaded, because that already looks at the devices.
    mesh = config_of(args, "the teacher's").mesh
    join_processes(args, mesh.data * (mesh.stage or 1))
    from zoo.pretrained.load import load_pretrained
    from zoo.train.distillation import student_preset

    config = config_of(args, student_preset(load_pretrained(args.teacher).model))
    return train_until_stopped(config, args.out, args)


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
