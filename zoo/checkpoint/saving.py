"""Saves checkpoints while training goes on: a copy in the host's memory, written by a thread."""

import math
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from zoo.checkpoint.entries import entries_of
from zoo.checkpoint.folder import PathLike
from zoo.checkpoint.processes import agree, to_host, writes
from zoo.checkpoint.writing import write
from zoo.utils.files import to_json

Tree = dict[str, dict]


class Saver:
    """Saves into a run's folder in the background, one checkpoint at a time.

    A context manager. However it is left, it waits for the checkpoint that is being written, and
    leaves no thread. A kill at any moment leaves the checkpoints that were there, or those and
    the new one; what it leaves besides is hidden, and removed by the next save.

    In several processes every one makes a Saver and calls its methods in the same order; the first
    alone writes. An error of its disk is raised in all.

    Args:
      folder: the run's folder; made by the first save if absent, and an error if it goes later.
      keep: number of newest checkpoints to leave in the folder, at least 1.
      keep_best: number of those with the best metric to leave besides, wherever they are among the
        newest. The metrics are read from the folder, so that those of an earlier process count.
      best: name of the metric, and "max" or "min" for which value of it is best.

    Raises:
      ValueError: keep, keep_best or best is not as above.
    """

    def __init__(
        self,
        folder: PathLike,
        *,
        keep: int = 2,
        keep_best: int = 1,
        best: tuple[str, str] | None = None,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep} would remove the checkpoint just saved; give at least 1")
        if keep_best < 0:
            raise ValueError(f"keep_best={keep_best} must not be negative")
        if best is not None and (len(best) != 2 or best[1] not in ("max", "min")):
            raise ValueError(f'best={best!r} must be (name, "max") or (name, "min")')
        self.folder = Path(folder).absolute()  # Orbax takes absolute paths only
        self.keep, self.keep_best, self.best = keep, keep_best, best
        self._path: Path | None = None
        self._writing: Future[Path] | None = None
        self._closed = False
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        # The thread starts here: an interrupt while it starts in `save` would lose sight of it.
        self._pool.submit(int).result()

    def save(self, tree: Tree, record: dict[str, Any], *, metric: float | None = None) -> None:
        """Copies the tree and has it written as the newest checkpoint; the caller may go on.

        On return the arrays may be changed, deleted or donated. A save that is still being written
        is waited for first.

        Args:
          tree: named parts, {"params": ..., "optimiser": ...}, each a nested dict of jax or numpy
            arrays (see `tree_to_dict`); keys are strings without "." and "/". A jax.Array may be
            replicated or sharded over several processes.
          record: what belongs to it, as JSON (see `zoo.utils.files.to_json`: NaN and infinities
            become null). `load` names record["model"] in its errors. "path" and "metric" are the
            Saver's own and replaced.
          metric: the value of the metric `best`; none, NaN and infinities are never best.

        Raises:
          ValueError: an argument is not as above; nothing is written.
          OSError: the save *before* this one failed, naming the folder, the cause and what is
            kept; this one is not begun, and may be tried again.
        """
        if self._closed:
            raise ValueError(f"the Saver of {self.folder} is closed")
        content = self._content(record, metric)
        entries_of("tree", tree)  # an error here, before anything is written
        self.wait()
        host = to_host(tree)
        if writes():
            self._writing = self._pool.submit(
                write,
                self.folder,
                host,
                content,
                keep=self.keep,
                keep_best=self.keep_best,
                make=self._path is None,
            )

    def wait(self) -> Path | None:
        """Waits until what was saved is on the disk.

        Returns:
          the newest checkpoint that this process wrote; None if it wrote none.

        Raises:
          OSError: the last save failed; raised once.
        """
        failure = None
        if self._writing is not None:
            try:
                self._path = self._writing.result()
            except OSError as error:
                failure = error
            self._writing = None
        agree(failure)
        return self._path

    def close(self) -> None:
        """`wait`, and ends the thread. A second call does nothing.

        Raises:
          OSError: as `wait`.
        """
        if not self._closed:
            try:
                self.wait()
            finally:
                self._end()

    def _content(self, record: dict[str, Any], metric: float | None) -> Any:
        if not isinstance(record, dict):
            raise ValueError(f"record must be a dict, got {type(record).__name__}")
        own = {key: value for key, value in record.items() if key not in ("path", "metric")}
        if metric is not None:
            if self.best is None:
                raise ValueError(
                    f'metric={metric} has no name; give Saver best=("accuracy", "max")'
                )
            value = float(metric)
            if math.isfinite(value):
                own["metric"] = {"name": self.best[0], "value": value, "mode": self.best[1]}
        return to_json(own, "record")

    def _end(self) -> None:
        """Ends the thread after its work, however often the wait for it is interrupted."""
        self._closed = True
        while True:
            try:
                self._pool.shutdown(wait=True)
                return
            except KeyboardInterrupt:  # leaving already; a write takes seconds
                continue

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        # Another process may not be leaving: nothing here may wait for one.
        self._end()
        if self._writing is not None and (failure := self._writing.exception()):
            error.add_note(f"besides: {failure}")


def save(folder: PathLike, tree: Tree, record: dict[str, Any], *, keep: int = 2) -> Path | None:
    """Saves one checkpoint as `Saver.save` does, and returns when it is on the disk.

    KeyboardInterrupt waits for it to be complete. A checkpoint with the best metric, which a Saver
    has written, stays besides the newest.

    Returns:
      the path of the new checkpoint; in several processes, None in all but the first.

    Raises:
      ValueError: tree, record or keep are not as `Saver` takes them.
      OSError: it could not be written; those that were there are kept.
    """
    with Saver(folder, keep=keep) as saver:
        saver.save(tree, record)
        return saver.wait()
