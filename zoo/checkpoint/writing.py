"""Writes one checkpoint to the disk, all or nothing, and removes those that are not to be kept."""

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from zoo.checkpoint.entries import without_empty
from zoo.checkpoint.folder import (
    CHECKSUMS,
    PARTIAL,
    RECORD,
    TOGETHER,
    by_metric,
    checkpoints,
    checksums,
    hidden,
    number,
    together,
)
from zoo.utils.files import sync, write_json


def write(
    folder: Path, tree: dict[str, dict], record: Any, *, keep: int, keep_best: int, make: bool
) -> Path:
    """Writes `tree` and `record` as the newest checkpoint of `folder`, and removes old ones.

    Args:
      folder: absolute.
      tree: named parts, nested dicts of numpy arrays.
      record: JSON.
      keep, keep_best: as of `Saver`.
      make: whether the folder is made if absent.

    Returns:
      the path of the new checkpoint.

    Raises:
      OSError: it could not be written; those that were there are kept.
    """
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        elif not folder.is_dir():
            raise FileNotFoundError("the folder is gone")
        for debris in folder.glob(PARTIAL + "*"):
            shutil.rmtree(debris, ignore_errors=True)
        path = _write(folder, tree, record)
        _remove_old(folder, keep, keep_best)
    except Exception as error:  # Orbax tells of a full disk by a ValueError
        there = ", ".join(path.name for path in checkpoints(folder)) or "none"
        raise OSError(
            f"no checkpoint could be saved into {folder}: {error}. "
            f"The earlier checkpoints are kept: {there}"
        ) from error
    return path


def _write(folder: Path, tree: dict[str, dict], record: Any) -> Path:
    partial = hidden(folder)
    partial.mkdir()
    try:
        for name, part in tree.items():
            if full := without_empty(part):
                write_part(partial / name, full)
        write_json(partial / RECORD, record)
        sums = checksums(partial)
        write_json(partial / CHECKSUMS, {**sums, TOGETHER: together(sums)})
        # Orbax leaves its files to the system's cache, which a machine that dies takes along, maybe
        # after the older checkpoints were removed.
        for entry in (*partial.rglob("*"), partial):
            sync(entry)
        path = folder / f"checkpoint-{number(checkpoints(folder)) + 1:06d}"
        os.rename(partial, path)
        sync(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return path


def _remove_old(folder: Path, keep: int, keep_best: int) -> None:
    paths = checkpoints(folder)
    kept = {*paths[-keep:], *by_metric(paths)[:keep_best]}
    for old in paths:
        if old not in kept:
            # Renamed first: a removal that stops halfway must not leave half a checkpoint under a
            # name.
            removed = hidden(folder)
            os.rename(old, removed)
            shutil.rmtree(removed, ignore_errors=True)  # the next save tries again


def write_part(path: Path, part: dict) -> None:
    """Writes a nested dict of numpy arrays by Orbax, alone, whatever the other processes do.

    By `Checkpointer` and not `v1.save`: that compares the paths of all processes in a collective
    first, also where `active_processes` names this one only (orbax 0.12.8), and would wait for
    ever for processes that do not write. What `Checkpointer` writes, `v1.load` reads.
    """
    import orbax.checkpoint as ocp  # 0.3 s, which readers of records need not wait for

    process = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=process,
        active_processes={process},
        barrier_sync_key_prefix=f"process_{process}",
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    with (
        _no_pattern(path) as plain,
        ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer,
    ):
        checkpointer.save(plain, args=ocp.args.PyTreeSave(part))


@contextmanager
def _no_pattern(path: Path) -> Iterator[Path]:
    """The path by a name that no pattern of files is in.

    Orbax (0.12.8) finds what it wrote by a pattern with the whole path in it. In a folder such as
    "run [1]" it would find nothing, and leave a checkpoint that cannot be read, with a warning.
    """
    if glob.escape(str(path)) == str(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="snapjax-") as folder:
        link = Path(folder, "link")
        link.symlink_to(path.parent, target_is_directory=True)
        yield link / path.name
