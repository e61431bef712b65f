"""Whether a run's checkpoints will find room, asked before the run begins."""

import os
import shutil
from pathlib import Path

from zoo.checkpoint.folder import PathLike, checkpoints
from zoo.checkpoint.processes import agree, writes
from zoo.utils.outputs import check_place

_MB = 10**6


def check_writable(folder: PathLike, bytes_needed: int, *, keep: int = 2) -> None:
    """Tries whether checkpoints can be written into a folder, without leaving anything there.

    In several processes all call it; the first one looks, and all raise what it found.

    Args:
      folder: of the run; where it is absent, its nearest parent that exists is tried.
      bytes_needed: size of one checkpoint in bytes.
      keep: number of newest checkpoints that are kept. There must be room for two more, the best
        one and the one that is being written; what the folder's present checkpoints take counts as
        free, since they are replaced.

    Raises:
      OSError: a file is in the way, nothing can be written there, or the disk is too full.
    """
    failure = None
    if writes():
        try:
            _check(Path(folder).absolute(), bytes_needed, keep)
        except OSError as error:
            failure = error
    agree(failure)


def _check(folder: Path, bytes_needed: int, keep: int) -> None:
    there = check_place(folder, f"folder={str(folder)!r}")
    present = sum(
        os.path.getsize(file)
        for path in checkpoints(folder)
        for file in path.rglob("*")
        if file.is_file()
    )
    free = shutil.disk_usage(there).free
    needed = bytes_needed * (keep + 2)
    if free + present < needed:
        raise OSError(
            f"folder={str(folder)!r}: {(free + present) / _MB:.0f} MB are free on the disk of "
            f"{there}, and {needed / _MB:.0f} MB are needed for {keep + 2} checkpoints of "
            f"{bytes_needed / _MB:.0f} MB each (keep={keep}, the best one, and the one being "
            "written); free some, or keep fewer"
        )
