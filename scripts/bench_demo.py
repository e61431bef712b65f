"""Repeats the demo over seeds, and tells how far its cuts are from the dense model each time.

  python scripts/bench_demo.py
  python scripts/bench_demo.py --seeds 0 1 --isa AVX2 --out runs/seeds.json

With --isa the machine code is made for a machine that knows no newer instructions: sums come in
another order, and training ends elsewhere. Runs that are in --out already are kept.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax

from zoo.bench.machine import describe
from zoo.evaluation.compare import Record
from zoo.utils.files import read_json, write_json
from zoo.utils.outputs import check_out
from zoo.utils.schema import TEXT, WHOLE, ListOf, Object

DEMO = Path(__file__).with_name("demo.py")
KEPT = ("code", "weights", "bytes_per_token_and_hop", "accuracy", "loss", "spike_rate", "samples")
NATIVE = "native"
RUNS = Object({"runs": ListOf(Object({"seed": WHOLE, "isa": TEXT}))})


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--isa", nargs="+", default=[NATIVE, "AVX2"],
        help="instruction sets, as of XLA's xla_cpu_max_isa; native: all that the machine has",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("results/demo_seeds.json"))
    return parser.parse_args(argv)


def one(seed: int, isa: str) -> dict:
    """The demo once, in a process of its own.

    Raises:
      subprocess.CalledProcessError: it failed.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if isa != NATIVE:
        flags = f"{flags} --xla_cpu_max_isa={isa}"
    before = os.times()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, str(DEMO), "--seed", str(seed), "--out", folder],
            env={**os.environ, "XLA_FLAGS": flags.strip()},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        rows = read_json(Path(folder) / "table.json")["rows"]
    after = os.times()
    return {
        "seed": seed,
        "isa": isa,
        "cpu_seconds": sum(after[2:4]) - sum(before[2:4]),  # of children
        "seconds": after.elapsed - before.elapsed,
        "rows": [{name: row[name] for name in KEPT} for row in rows],
    }


def spread(runs: list[dict]) -> list[Record]:
    """Of each row of the table how its accuracy differs from that run's dense one, in points:
    least, mean and most of all runs."""
    found: dict[tuple, list[float]] = {}
    for run in runs:
        dense = run["rows"][0]["accuracy"]
        for row in run["rows"]:
            key = row["code"], row["weights"], row["bytes_per_token_and_hop"]
            found.setdefault(key, []).append(100 * (row["accuracy"] - dense))
    return [
        {
            "code": code,
            "weights": weights,
            "bytes_per_token_and_hop": size,
            "runs": len(points),
            "least": min(points),
            "mean": sum(points) / len(points),
            "most": max(points),
        }
        for (code, weights, size), points in found.items()
    ]


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        check_out(args.out, ".json")
        runs = read_json(args.out, RUNS)["runs"] if args.out.exists() else []
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    done = {(run["seed"], run["isa"]) for run in runs}
    for seed, isa in [(seed, isa) for seed in args.seeds for isa in args.isa]:
        if (seed, isa) in done:
            continue
        try:
            runs.append(one(seed, isa))
        except subprocess.CalledProcessError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        record = {"jax": jax.__version__, "machine": describe(), "spread": spread(runs)}
        write_json(args.out, {**record, "runs": runs})
        print(f"seed {seed}, {isa}: {runs[-1]['cpu_seconds']:.0f} s of CPU time", flush=True)
    print(f"\nAccuracy less that of the dense model, in points, of {len(runs)} runs")
    for row in spread(runs):
        name = f"{row['code']}, {row['weights']}, {row['bytes_per_token_and_hop']} bytes"
        print(f"{name:44} {row['least']:6.2f} to {row['most']:5.2f}, mean {row['mean']:5.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
