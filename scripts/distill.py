"""Cuts a trained model with spikes and trains it against the dense model, on unlabelled samples.

  python scripts/distill.py minilm_l6 --stages 3 --bits 1 --data train.tsv \\
      --set data.text_column=sentence1 --set data.text_pair_column=sentence2 \\
      --set data.pairs=true --set distill.similarity=3 --out runs/minilm_1bit
  python scripts/evaluate.py runs/minilm_1bit --task stsb --data dev.tsv

With data.pairs and distill.similarity the similarity of the two texts of a row is learned too; no
score of a pair is read.

The run is one of `scripts/train.py`: the same keys for --set, the same folder, and --resume. With
--code int4, int2, topk, ... the same is done to a boundary that does not spike.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from zoo.cli.command_line import add_run_flags, join_processes, run_exit_code, train_until_stopped


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("teacher", metavar="NAME", help="name, folder, file or Hub id of a model")
    parser.add_argument("--stages", type=int, default=3, help="pieces; must divide the layers")
    parser.add_argument("--bits", type=float, default=1.0, help="a feature and hop")
    parser.add_argument("--steps", type=int, default=8, help="spikes a feature may send, at most")
    parser.add_argument("--code", default="phase")
    parser.add_argument(
        "--method",
        help="how spikes are fitted first; default: sensitivity_pca_refit, see calibrate.py",
    )
    parser.add_argument("--data", metavar="FILE_OR_HUB_NAME", required=True)
    parser.add_argument(
        "--trainable",
        "--trains",
        choices=("all", "boundaries"),
        default="all",
        help="which parameters",
    )
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments",
        help="any other value of the run, such as data.sequence=64; may be repeated",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    add_run_flags(parser)
    return parser.parse_args()


def config_of(args: argparse.Namespace, preset: str) -> Any:
    """The run's config, its model made from a preset of the zoo."""
    from zoo.config.distillation import distillation

    return distillation(
        args.teacher, args.data, preset, stages=args.stages, code=args.code,
        bits_per_feature=args.bits, steps=args.steps, calibration=args.method,
        trainable=args.trainable, epochs=args.epochs, batch_size=args.batch_size,
        learning_rate=args.learning_rate, seed=args.seed, assignments=args.assignments,
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    # Before the teacher is loaded, because that already looks at the devices.
    mesh = config_of(args, "the teacher's").mesh
    join_processes(args, mesh.data * (mesh.stage or 1))
    from zoo.pretrained.load import load_pretrained
    from zoo.train.distillation import preset_of

    config = config_of(args, preset_of(load_pretrained(args.teacher).model))
    return train_until_stopped(config, args.out, args)


def main() -> int:
    return run_exit_code(run, parse())


if __name__ == "__main__":
    sys.exit(main())
