"""How a script ends: bad input is one line on stderr and exit code 2, an interrupt is 130."""

import argparse
import os
import sys
from collections.abc import Callable

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
