"""Command lines in this process, seen as `subprocess.run` would show them."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import jax

from zoo.cli.main import main

ROOT = Path(__file__).parents[1]
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Done(NamedTuple):
    """How a command ended, by the names of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def cli(*arguments: object, **settings) -> Done:
    """`snapjax ARGUMENTS`; `settings` are those of `call`."""
    return call(main, arguments, **settings)


def call(
    command: Callable[[Sequence[str]], int],
    arguments: Sequence[object],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str = "",
) -> Done:
    """Calls a `main(argv)` in this process and leaves the process as it was.

    An exception that a command does not handle is raised here. Types are promoted as in a process
    of its own, because optax raises its decay rates to an integer count.

    Args:
      command: the function.
      arguments: made to strings.
      cwd: working directory.
      env: environment variables in addition.
      input: what stdin holds.
    """
    out, err, given = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
                       for _ in range(3))  # fmt: skip
    given.write(input)
    given.seek(0)
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    with (
        contextlib.chdir(cwd or Path.cwd()),
        mock.patch.dict(os.environ, {"COLUMNS": "400", **(env or {})}),
        mock.patch.object(sys, "stdin", given),
        # What it tells the C library's allocator cannot be taken back.
        mock.patch("zoo.train.memory.keep_freed_memory", return_value=False),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        jax.numpy_dtype_promotion("standard"),
    ):
        try:
            code = command([str(argument) for argument in arguments])
        except SystemExit as ended:  # of argparse
            code = ended.code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    text = (stream.buffer.getvalue().decode() for stream in (out, err))
    return Done(code or 0, *text)
