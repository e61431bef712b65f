"""Trains a small ViT on real images over four devices with dense boundaries, and cuts it with
spikes at 1 and at 1/2 bit a feature: as calibrated, with nothing trained, and after a short
distillation from the dense model. Shows what crosses the links and what that costs, on other wires
too.

On a machine with four or more GPUs or TPUs it runs on those; with one to three it runs on one of
them, where the cuts compute the same function but cross no link; otherwise on four fake CPU
devices. Interrupt it at any time: it saves a checkpoint and leaves; nothing is half written.
"""

import argparse
import sys
from pathlib import Path

import jax

STAGES = 4
CODES = "phase, rate, latency or ternary"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vit_nano_patch2_8", help="a name of list_models()")
    parser.add_argument(
        "--epochs", type=int, default=20, help="of the dense run; each cut has a quarter"
    )
    parser.add_argument("--code", default="phase", help="spike code of the cuts: " + CODES)
    parser.add_argument("--gradient-wire", default="bfloat16", help="format on the way back")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="results folder; overwritten"
    )
    return parser.parse_args()


def main() -> int:
    args = parse()
    jax.config.update("jax_num_cpu_devices", STAGES)  # before any device is looked at
    from zoo.cli import demo
    from zoo.train.memory import keep_freed_memory
    from zoo.train.stop import StopRequest

    keep_freed_memory()

    stop = StopRequest().listen()
    try:
        finished = demo.run(
            model=args.model,
            stages=STAGES,
            code=args.code,
            gradient_wire=args.gradient_wire,
            epochs=args.epochs,
            seed=args.seed,
            out=args.out,
            stop=stop,
        )
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if finished else stop.exit_code


if __name__ == "__main__":
    sys.exit(main())
