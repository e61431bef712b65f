"""How a script ends: bad input is one line on stderr and exit code 2, an interrupt is 130."""

import argparse
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
