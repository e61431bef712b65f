"""The next batches are made in a background thread while the devices compute on this one."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
Placed = TypeVar("Placed")

_POLL = 0.05
"""Seconds between two looks at whether the consumer has closed the iterator."""


class Prefetch(Generic[Placed], Iterator[Placed]):
    """An iterator over put(item), made ahead of time; see `prefetch`.

    Attributes:
      waited: seconds that the consumer has spent waiting for items, so far.
    """

    def __init__(
        self, items: Iterable[Item], put: Callable[[Item], Placed], depth: int = 2
    ) -> None:
        if depth < 1:
            raise ValueError(f"depth={depth} is less than 1; no item could be made ahead of time")
        self.waited = 0.0
        self._queue: queue.Queue[tuple[Placed | None, BaseException | None, bool]]
        # The thread holds one more item in its hand while the queue is full.
        self._queue = queue.Queue(depth)
        self._stop = threading.Event()
        self._finished = False
        self._thread = threading.Thread(
            target=_produce, args=(items, put, self._queue, self._stop), name="prefetch"
        )
        # A consumer that dies without closing must not keep the interpreter alive.
        self._thread.daemon = True
        self._thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Placed:
        if self._finished:
            raise StopIteration
        began = time.perf_counter()
        try:
            placed, error, last = self._queue.get()
        except BaseException:  # an interrupt while waiting: the consumer will not come back
            self.close()
            raise
        finally:
            self.waited += time.perf_counter() - began
        if last:
            self.close()
            if isinstance(error, StopIteration):  # as in a generator (PEP 479): not a silent end
                raise RuntimeError("the prefetching thread raised StopIteration") from error
            if error is not None:
                raise error
            raise StopIteration
        return placed  # type: ignore[return-value]

    def close(self) -> None:
        """Stops the thread and waits for its end; items made but not asked for are dropped.

        An item that is being made is finished first. A second call does nothing.
        """
        self._finished = True
        self._stop.set()
        self._drop()  # makes room, so that a thread that waits for it goes on at once
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._drop()

    def _drop(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        # Without a `with`, an iterator that is dropped half-way takes its thread with it. At the
        # interpreter's end there are no modules left to do so, `sys` included, and no need.
        if hasattr(self, "_thread") and not ending():
            self.close()


def prefetch(
    batches: Iterable[Item], put: Callable[[Item], Placed], depth: int = 2
) -> Prefetch[Placed]:
    """An iterator over put(batch), at most `depth` of them made ahead in a background thread.

    Use it in a `with` statement, or close it: leaving the loop early, by an exception or by
    KeyboardInterrupt then ends the thread. An error of `batches` or `put` is raised to the consumer
    in its turn, after the items before it.

    Args:
      batches: consumed in the thread, never in the caller.
      put: called in the thread; for example places the arrays on the devices.
      depth: largest number of items waiting; one more may be in the making.

    Raises:
      ValueError: depth < 1.

    Example:
      >>> with prefetch(range(4), lambda item: item * 10) as items:
      ...     list(items)
      [0, 10, 20, 30]
    """
    return Prefetch(batches, put, depth)


def _produce(
    items: Iterable[Item],
    put: Callable[[Item], Placed],
    out: queue.Queue,
    stop: threading.Event,
) -> None:
    # A function without a reference to the Prefetch, or that could never be collected.
    error: BaseException | None = None
    try:
        for item in items:
            if stop.is_set():
                return
            if not _offer(out, (put(item), None, False), stop):
                return
    except BaseException as raised:
        error = raised
    _offer(out, (None, error, True), stop)


def _offer(out: queue.Queue, entry: tuple, stop: threading.Event) -> bool:
    """Puts `entry` once there is room; False if the consumer closed the iterator before."""
    while not stop.is_set():
        try:
            out.put(entry, timeout=_POLL)
        except queue.Full:
            continue
        return True
    return False
