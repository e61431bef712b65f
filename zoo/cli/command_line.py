"""What every subcommand shares: its parser, how its result is printed, and its exit code.

Exit codes: 0 done; 1 could not (a file that cannot be read or written, a run that diverged); 2
arguments or input that do not fit; 3 contact with another process was lost; 130 interrupted, and
128 plus the number of any other signal. Such an error is one line on stderr.

Nothing here imports jax: `--help` must be quick.
"""

import argparse
import contextlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zoo.config.data import source_and_column
from zoo.utils.paths import expanded

COULD_NOT, USAGE, LOST, INTERRUPTED = 1, 2, 3, 130
BROKEN_PIPE = 141  # 128 + SIGPIPE, as shells report it


class Answer(NamedTuple):
    """What a command has found.

    Attributes:
      record: that `--json` prints.
      show: prints the same for a reader.
      code: the exit code.
    """

    record: Mapping[str, Any]
    show: Callable[[], object]
    code: int = 0


Run = Callable[[argparse.Namespace], Answer | int | None]


def make_parser(name: str, text: str | None, json_help: str) -> argparse.ArgumentParser:
    """The parser of a subcommand, with `--json`.

    Args:
      name: of the subcommand, such as "train".
      text: the help's, with an example: the module's docstring.
      json_help: what the JSON object holds.
    """
    parser = argparse.ArgumentParser(
        prog=f"snapjax {name}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--json", action="store_true", help=f"print one JSON object and no more: {json_help}"
    )
    return parser


def add_set_flag(parser: argparse.ArgumentParser, text: str) -> None:
    """`--set KEY=VALUE`, as `args.assignments`.

    Args:
      parser: to add it to.
      text: the help's.
    """
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments",
        help=f"{text}; may be repeated, `snapjax train --keys` lists all keys",
    )  # fmt: skip


class Output(NamedTuple):
    """What a flag says to write; checked before the work, against all that is read.

    Attributes:
      name: of the argument.
      suffixes: that the file may have; empty for a folder.
      beside: suffixes of further files of that name, which are written too.
    """

    name: str
    suffixes: tuple[str, ...]
    beside: tuple[str, ...] = ()


def add_output(
    parser: argparse.ArgumentParser,
    flag: str,
    *suffixes: str,
    beside: tuple[str, ...] = (),
    **options: Any,
) -> None:
    """A flag that names what is to be written, which `exit_code` checks.

    Args:
      parser: to add it to.
      flag: such as "--out".
      suffixes, beside: see `Output`; without suffixes it is a folder.
      options: of `add_argument`.
    """
    added = parser.add_argument(flag, type=expanded, **options)
    others = parser.get_default("outputs") or ()
    parser.set_defaults(outputs=(*others, Output(added.dest, suffixes, beside)))


def check_outputs(args: argparse.Namespace) -> None:
    """Raises ValueError or OSError where an output must not or cannot be written.

    Every other argument that is the path of something is taken to be read.

    Args:
      args: as parsed, with the `outputs` of `add_output`.
    """
    from zoo.utils.outputs import check_out, check_out_folder

    outputs: Sequence[Output] = getattr(args, "outputs", ())
    # A preset is known by its name alone, and may be that of its run's folder.
    names = {"preset", *(output.name for output in outputs)}
    inputs = [
        path for name, value in vars(args).items() if name not in names for path in _paths(value)
    ]
    for output in outputs:
        path = getattr(args, output.name)
        if path is None:
            continue
        if not output.suffixes:
            check_out_folder(path, name=output.name, inputs=inputs)
            continue
        check_out(path, *output.suffixes, name=output.name, inputs=inputs)
        for suffix in output.beside:
            check_out(path.with_suffix(suffix), suffix, name=output.name, inputs=inputs)


def _paths(value: Any) -> Iterator[Path]:
    """The paths that an argument may name: itself, each of several, VALUE of KEY=VALUE, or
    FILE of FILE:COLUMN."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from _paths(each)
    elif isinstance(value, str | Path) and str(value) and "\0" not in str(value):
        yield expanded(value)
        yield expanded(str(value).partition("=")[2] or value)
        yield expanded(source_and_column(str(value))[0])


def add_cut_flags(parser: argparse.ArgumentParser) -> None:
    """How a model is cut and what its boundaries send."""
    parser.add_argument("--stages", type=int, default=3, help="pieces; must divide the layers")
    parser.add_argument("--bits", type=float, default=1.0, help="a feature and hop")
    parser.add_argument("--steps", type=int, default=8, help="spikes a feature may send, at most")
    parser.add_argument("--code", default="phase")


def add_batch_flags(parser: argparse.ArgumentParser) -> None:
    """How data are gone through."""
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)


def main(parser: argparse.ArgumentParser, run: Run, argv: Sequence[str] | None) -> int:
    """Parses, runs, and gives the exit code.

    Args:
      parser: of the command.
      run: its work.
      argv: the arguments; None for those of this process.

    Raises:
      SystemExit: after `--help` (code 0), and on arguments that do not parse (code 2).
    """
    with closed_pipe_ends():
        code = exit_code(run, parser.parse_args(argv))
        if "zoo.train.processes" in sys.modules:
            sys.modules["zoo.train.processes"].leave(code)
        return code


def exit_code(run: Run, args: argparse.Namespace) -> int:
    """Runs a command, prints its answer and gives its exit code; errors that a user can mend are
    told, not traced.

    Args:
      run: the work; raises ValueError, OSError or FloatingPointError where it cannot be done.
      args: as parsed. With `args.json` whatever else is printed goes to stderr.
    """
    as_json = getattr(args, "json", False)
    alone = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    try:
        with alone, told_notes():
            check_outputs(args)
            answer = run(args)
        if not isinstance(answer, Answer):
            return answer or 0
        if as_json:
            from zoo.utils.files import to_json

            print(json.dumps(to_json(answer.record), allow_nan=False))
        else:
            answer.show()
        return answer.code
    except BrokenPipeError:
        raise
    except ValueError as error:
        return _told(error, USAGE)
    except ConnectionError as error:
        return _told(error, LOST)
    except (OSError, FloatingPointError) as error:
        return _told(error, COULD_NOT)
    except MemoryError as error:
        return _told(f"out of memory ({error or 'no more is said'}); give smaller sizes", COULD_NOT)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if _lost_process(error):
            time.sleep(2)  # `zoo.train.group` may know which one, and ends the program
            print(
                f"error: lost contact with another process ({str(error).splitlines()[0]}). Start "
                "all of them again with --resume",
                file=sys.stderr,
            )
            os._exit(LOST)  # the process group cannot be left in order once a peer is gone
        raise


def _told(error: Exception | str, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


def _lost_process(error: Exception) -> bool:
    if "jax" not in sys.modules:
        return False
    import jax

    return isinstance(error, jax.errors.JaxRuntimeError) and jax.process_count() > 1


@contextlib.contextmanager
def told_notes() -> Iterator[None]:
    """Each different `zoo.utils.notes.Note` is one line on stderr, as errors are."""
    from zoo.utils.notes import Note

    told: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", Note)
        usual = warnings.showwarning

        def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
            if not issubclass(category, Note):
                usual(message, category, *place, **more)
            elif str(message) not in told:
                told.add(str(message))
                print(f"note: {message}", file=sys.stderr)

        warnings.showwarning = show
        yield


@contextlib.contextmanager
def closed_pipe_ends() -> Iterator[None]:
    """Where the reader of stdout has gone, as `| head` does, the process ends without a word; what
    a closed stdout or stderr would get (`>&-`) is dropped."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (as long as the process)
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would be written again, and fail again, as the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(BROKEN_PIPE) from None
