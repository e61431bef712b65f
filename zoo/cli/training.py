"""What the commands that train share: their flags, how they join other processes, the run."""

import argparse
import os
from pathlib import Path
from typing import Any

from zoo.cli.command_line import Answer


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a command that trains: how to go on with a run, and several processes."""
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
    group.add_argument(
        "--coordinator-bind", metavar="HOST",
        help="address of this host that process 0 listens at; default: that of --coordinator",
    )  # fmt: skip
    group.add_argument(
        "--timeout", type=float, default=300.0, metavar="SECONDS",
        help="how long to wait for the others, and for a sign of life of each; default 300",
    )  # fmt: skip


def join_processes(args: argparse.Namespace, devices: int) -> None:
    """Joins the processes named by the flags of `add_run_flags`; makes fake devices on a CPU.

    Args:
      args: as parsed.
      devices: of the mesh, over all processes.
    """
    from zoo.train import processes
    from zoo.train.memory import keep_freed_memory

    keep_freed_memory()
    processes.initialise(
        args.coordinator, args.processes, args.process_id,
        bind=args.coordinator_bind, timeout=args.timeout,
    )  # fmt: skip
    count = args.processes or int(os.environ.get("SLURM_NTASKS", "1"))
    processes.fake_devices(devices, count)


def train_until_stopped(config: Any, out: Path, args: argparse.Namespace) -> Answer:
    """Trains the run of a config; after a stop the exit code is 128 plus the signal's number.

    Args:
      config: a `zoo.config.specs.RunConfig`.
      out: folder of the run.
      args: as parsed.
    """
    from zoo.train.run import train
    from zoo.train.stop import StopRequest

    stop = StopRequest().listen()
    summary = train(config, out, resume=args.resume, fallback=args.fallback, stop=stop)
    if summary is None:
        return Answer({"out": str(out), "finished": False}, _nothing, stop.exit_code)
    return Answer({"out": str(out), "finished": True, **summary}, _nothing)


def _nothing() -> None:
    """The run has said it as it went."""
