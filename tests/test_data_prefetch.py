"""Batches made in a background thread: their order, their errors, and the thread's end."""

import gc
import signal
import subprocess
import sys
import threading
import time

import pytest

from zoo.data import Prefetch, prefetch


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    assert threads() == []
    yield
    assert threads() == []


def until(condition) -> None:
    """Waits for what another thread does, with an end to it."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize("depth", [1, 2, 7, 200])
def test_items_come_in_order_and_are_placed_in_another_thread(depth):
    ran = set()

    def put(item):
        ran.add(threading.current_thread())
        return item * 10

    with prefetch(iter(range(100)), put, depth) as items:
        assert isinstance(items, Prefetch)
        assert list(items) == list(range(0, 1000, 10))
        assert next(items, None) is None  # and stays at its end
    assert len(ran) == 1
    assert threading.current_thread() not in ran


def test_no_items_at_all():
    assert list(prefetch([], str)) == []


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_than_depth_items_wait_and_one_is_in_the_making(depth):
    drawn = []

    def source():
        for item in range(50):
            drawn.append(item)
            yield item

    with prefetch(source(), str, depth) as items:
        until(lambda: len(drawn) == depth + 1)
        time.sleep(0.15)  # longer than it looks away
        assert len(drawn) == depth + 1
        assert next(items) == "0"
        until(lambda: len(drawn) == depth + 2)


@pytest.mark.parametrize("where", ["items", "put"])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_comes_in_its_turn(where, kind):
    def check(item, here):
        if here == where and item == 3:
            raise kind("at 3")
        return item

    items = prefetch((check(i, "items") for i in range(9)), lambda i: check(i, "put"), depth=8)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(kind, match="at 3"):
        next(items)
    assert threads() == []
    assert list(items) == []


def test_a_stop_iteration_in_put_is_no_silent_end():
    items = prefetch([1, 2], lambda item: next(iter([])))
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(items)


def test_close_ends_the_thread_and_may_be_called_again():
    items = prefetch(iter(int, 1), lambda item: item)  # without end
    assert next(items) == 0
    items.close()
    assert threads() == []
    assert list(items) == []
    items.close()


@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt, GeneratorExit])
def test_leaving_the_with_block_by_an_exception_ends_the_thread(kind):
    def leave():
        with prefetch(iter(int, 1), str) as items:
            next(items)
            raise kind

    with pytest.raises(kind):
        leave()


def test_an_iterator_that_is_dropped_takes_its_thread_with_it():
    items = prefetch(iter(int, 1), str)
    next(items)
    del items
    gc.collect()
    until(lambda: threads() == [])


def test_an_interrupt_while_waiting_ends_the_thread():
    release = threading.Event()

    def interrupt():
        # Not before the consumer waits; a signal of its own thread, as from a terminal.
        time.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        release.set()

    helper = threading.Thread(target=interrupt)
    items = prefetch([1], lambda item: release.wait(10))
    # A job in the background may have been started with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        helper.start()
        with pytest.raises(KeyboardInterrupt):
            next(items)
    finally:
        signal.signal(signal.SIGINT, before)
    helper.join()
    assert threads() == []


def test_waited_is_the_consumers_time_without_an_item():
    with prefetch(range(3), lambda item: time.sleep(0.05)) as items:
        assert items.waited == 0
        began = time.perf_counter()
        list(items)
        assert 0.1 < items.waited <= time.perf_counter() - began
    until_full = threading.Event()
    with prefetch([1, 2], lambda item: until_full.set() if item == 2 else None, depth=2) as items:
        until_full.wait(10)
        time.sleep(0.2)
        next(items)
        assert items.waited < 0.2  # it was there


def test_depth_zero_is_refused():
    with pytest.raises(ValueError, match="depth=0"):
        prefetch([1], str, 0)


def test_a_program_that_ends_without_closing_ends():
    code = "import itertools; from zoo.data import prefetch\n" \
           "items = prefetch(itertools.count(), str); print(next(items))"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
