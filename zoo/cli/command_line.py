"""How a script ends: bad input is one line on stderr and exit code 2, an interrupt is 130.

And what the scripts that train share: their flags, how they join other processes, how they train.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def exit_code(run: Callable[[argparse.Namespace], int | None], args: argparse.Namespace) -> int:
    """What `run(args)` returns, 0 for None; errors that a user can mend are told, not traced.

    Args:
      run: the script's work; raises ValueError or OSError where its input does not fit.
      args: as parsed.
    """
    try:
        return run(args) or 0
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def run_exit_code(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """As `exit_code`, of a training run: one that diverged is told too, as is a lost process."""
    import jax

    try:
        return exit_code(run, args)
    except FloatingPointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        print(
            f"error: lost contact with another process ({str(error).splitlines()[0]}). Start all "
            "of them again with --resume",
            file=sys.stderr,
        )
        os._exit(3)  # the process group cannot be left in order once a peer is gone


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a script that trains: how to go on with a run, and several processes."""
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


def join_processes(args: argparse.Namespace, devices: int) -> None:
    """Joins the other processes that `add_run_flags` told of, and makes fake devices on a CPU.

    Args:
      args: as parsed.
      devices: of the mesh, over all processes.
    """
    from zoo.train import processes
    from zoo.train.memory import keep_freed_memory

    keep_freed_memory()
    processes.initialise(args.coordinator, args.processes, args.process_id)
    count = args.processes or int(os.environ.get("SLURM_NTASKS", "1"))
    processes.fake_devices(devices, count)


def train_until_stopped(config: Any, out: Path, args: argparse.Namespace) -> int:
    """Trains the run of a config; the exit code, 128 plus the signal's number after a stop.

    Args:
      config: a `zoo.config.specs.RunConfig`.
      out: folder of the run.
      args: as parsed.
    """
    from zoo.train.run import train
    from zoo.train.stop import StopRequest

    stop = StopRequest().listen()
    summary = train(config, out, resume=args.resume, fallback=args.fallback, stop=stop)
    return stop.exit_code if summary is None else 0
