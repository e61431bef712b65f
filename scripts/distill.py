"""Cuts a trained model with spikes and trains it against the dense model, on unlabelled samples.

  python scripts/distill.py minilm_l6 --stages 3 --bits 1 --data train.tsv \\
      --set data.text_column=sentence1 --set data.text_pair_column=sentence2 --out runs/minilm_1bit
  python scripts/evaluate.py runs/minilm_1bit --task stsb --data dev.tsv

The run is one of `scripts/train.py`: the same keys for --set, the same folder, and --resume. With
--code int4, int2, topk, ... the same is done to a boundary that does not spike.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any


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
        "--method", help="how spikes are fitted first; default: metric_refit, see calibrate.py"
    )
    parser.add_argument("--data", metavar="FILE_OR_HUB_NAME", required=True)
    parser.add_argument(
        "--trains", choices=("all", "boundaries"), default="all", help="which parameters"
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
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    parser.add_argument(
        "--fallback", action="store_true", help="with --resume: pass over damaged checkpoints"
    )
    group = parser.add_argument_group(
        "several processes (found by itself under SLURM, on TPU pods)"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    group.add_argument("--processes", type=int, help="how many there are")
    group.add_argument("--process-id", type=int, help="which this is, from 0")
    return parser.parse_args()


def config_of(args: argparse.Namespace, preset: str) -> Any:
    """The run's config, its model made from a preset of the zoo."""
    from snapjax.code import SPIKE_CODES
    from zoo.train.config import DistillSpec, ModelSpec, RunConfig, TrainSpec, override

    spikes = args.code in SPIKE_CODES
    model = ModelSpec(
        name=preset,
        variant="hnn" if spikes else "ann",
        stages=args.stages,
        code=args.code,
        steps=args.steps,
        bits_per_feature=args.bits,
        calibration=args.method or ("metric_refit" if spikes else "variance"),
    )
    train = TrainSpec(
        epochs=args.epochs,
        batch_size=args.batch_size,
        microbatches=1,
        learning_rate=args.learning_rate,
        weight_decay=0.0,
        trains=args.trains,
        seed=args.seed,
    )
    config = RunConfig("distill", model, train=train, distill=DistillSpec(teacher=args.teacher))
    data = replace(
        config.data, task="unlabelled", source=args.data, sequence=32, truncate=True, held_out=0.05
    )
    return override(replace(config, data=data), args.assignments)


def run(args: argparse.Namespace) -> int:
    from zoo.train import processes
    from zoo.train.memory import keep_freed_memory

    # Before the teacher is loaded, because that already looks at the devices.
    mesh = config_of(args, "the teacher's").mesh
    keep_freed_memory()
    processes.initialise(args.coordinator, args.processes, args.process_id)
    count = args.processes or int(os.environ.get("SLURM_NTASKS", "1"))
    processes.fake_devices(mesh.data * (mesh.stage or 1), count)
    from zoo.distillation import preset_of
    from zoo.pretrained import load_pretrained
    from zoo.train.run import train
    from zoo.train.stop import StopRequest

    config = config_of(args, preset_of(load_pretrained(args.teacher).model))
    stop = StopRequest().listen()
    summary = train(config, args.out, resume=args.resume, fallback=args.fallback, stop=stop)
    return stop.exit_code if summary is None else 0


def main() -> int:
    args = parse()
    from zoo.command_line import run_exit_code  # after --help, which needs none of this

    return run_exit_code(run, args)


if __name__ == "__main__":
    sys.exit(main())
