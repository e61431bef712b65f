"""The processes of one run on several hosts: they find each other, and each hears of a lost one.

XLA's own coordination service ends the program with a C++ trace when a process does not come, or
is lost. So the processes meet here first, on the same port, and watch each other from then on:

1. Process 0 listens at the coordinator's address until all have said which they are. Then it says
   "go", and its port is free for XLA's service.
2. The connections stay. Each side sends a sign of life now and then. A connection that breaks, or
   is silent for too long, is of a process that is lost: it is named, and the program ends.
3. The others reach XLA's service through a forwarder of their own. When process 0 dies, they hear
   it here, and XLA's client hears nothing.

All of it runs in one thread with an event loop. A process that ends in order says so, with its exit
code; where that is not 0, the others have a little time for an end of their own.
"""

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, NamedTuple

LOST = 3  # exit code
GRACE = 10.0  # seconds that a process may take to end after another one has failed
GREETING = "snapjax-1"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Address(NamedTuple):
    """Host and port, as `parse` reads them."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Address:
    """The address in "host:port" or "[host]:port".

    Raises:
      ValueError: it is none.

    Example:
      >>> parse("[::1]:1234")
      Address(host='::1', port=1234)
    """
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not (colon and bare and port.isascii() and port.isdigit()) or ":" in host == bare:
        raise ValueError(f"coordinator={text!r} must be HOST:PORT, such as 10.0.0.1:1234")
    check_host(bare)
    if not 1 <= int(port) < 2**16:
        raise ValueError(f"coordinator={text!r}: port {port} is not in [1, 65535]")
    return Address(bare, int(port))


def check_host(host: str) -> None:
    """Raises ValueError for what can be no host's name or address."""
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError(
            f"host {host!r:.80} cannot be looked up ({error}); give its name"
        ) from error
    if host != host.strip() or not host:
        raise ValueError(f"host {host!r} is empty or begins or ends with a space; give its name")


class Group:
    """One process's place among the others.

    Args:
      coordinator: where process 0 is reached.
      bind: host that process 0 listens at.
      processes: how many there are.
      process_id: which this is.
      timeout: seconds to wait for the others to come, and for a sign of life later.
      end: called with what to say when another process is lost; does not return.
    """

    def __init__(
        self,
        coordinator: Address,
        bind: str,
        processes: int,
        process_id: int,
        timeout: float,
        end: Callable[[str], None],
    ) -> None:
        self.coordinator, self.bind = coordinator, bind
        self.processes, self.process_id, self.timeout = processes, process_id, timeout
        self._end = end
        self._peers: dict[int, Streams] = {}
        self._gone: set[int] = set()  # those that ended in order
        # Of this process's own end; after 0 it waits for the others, and may still lose one.
        self._code: int | None = None
        self._tasks: list[asyncio.Task[None]] = []  # the loop holds its tasks weakly
        self._open: list[asyncio.StreamWriter] = []
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="group", daemon=True)
        self._thread.start()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    # Meeting

    def join(self) -> str:
        """Waits until all are there.

        Returns:
          the address at which XLA's client reaches the coordination service.

        Raises:
          ValueError: the address cannot be listened at, or the processes do not fit together.
          ConnectionError: the others did not come in time.
        """
        return self._run(self._gather() if self.process_id == 0 else self._meet()).result()

    def close(self) -> None:
        """Ends the connections and the thread, and tells nobody."""

        async def end() -> None:
            self._loop.set_exception_handler(lambda *_: None)  # of those that are broken off
            for server in self._servers:
                server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            while tasks:  # again, because `wait_for` passes over one that comes with its result
                for task in tasks:
                    task.cancel()
                _, tasks = await asyncio.wait(tasks, timeout=0.1)
            for writer in self._open:
                writer.transport.abort()
            await asyncio.sleep(0)  # in which they go

        self._run(end()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _gather(self) -> str:
        problem: asyncio.Future[str] = self._loop.create_future()
        complete = asyncio.Event()

        async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._open.append(writer)
            with contextlib.suppress(OSError, ValueError, TimeoutError):
                line = await asyncio.wait_for(reader.readline(), self.timeout)
                greeting, *numbers = line.decode().split()
                count, number = map(int, numbers)
                if greeting == GREETING and 1 <= number < count:
                    await self._admit(count, number, (reader, writer), problem)
                    if len(self._peers) == self.processes - 1:
                        complete.set()
                    return
            writer.close()  # whoever it was, it is none of ours

        try:
            server = await asyncio.start_server(welcome, self.bind, self.coordinator.port)
        except OSError as error:
            raise ValueError(
                f"coordinator={str(self.coordinator)!r}: process 0 cannot listen at "
                f"{Address(self.bind, self.coordinator.port)} ({error.strerror or error}); give "
                "another port, or with --coordinator-bind an address of this host"
            ) from error
        self._servers.append(server)
        if self.processes == 1:
            complete.set()
        waiting = asyncio.create_task(complete.wait())
        await asyncio.wait(
            {waiting, problem}, timeout=self.timeout, return_when=asyncio.FIRST_COMPLETED
        )
        server.close()
        if problem.done():
            raise ValueError(problem.result())
        if not complete.is_set():
            waiting.cancel()
            missing = sorted(set(range(1, self.processes)) - self._peers.keys())
            raise ConnectionError(
                f"waited {self.timeout:g} s at {self.coordinator} for process "
                f"{', '.join(map(str, missing))} of {self.processes}; start all of them with the "
                "same --coordinator and --processes, or wait longer with --timeout"
            )
        for number, streams in self._peers.items():
            await self._say(streams, "go")
            self._watch(number, streams)
        return str(self.coordinator)

    async def _admit(
        self, count: int, number: int, streams: Streams, problem: asyncio.Future[str]
    ) -> None:
        """Takes in a process, unless it does not fit to the others."""
        if count != self.processes:
            reason = f"process {number} was started with --processes {count}, process 0 with "
            reason += f"{self.processes}; give all the same"
        elif number in self._peers and not self._peers[number][0].at_eof():  # or it came back
            reason = f"two processes have --process-id {number}; give each its own"
        else:
            self._peers[number] = streams
            return
        for each in (streams, *self._peers.values()):
            await self._say(each, f"no {reason}")
        if not problem.done():
            problem.set_result(reason)

    async def _meet(self) -> str:
        deadline, told = time.monotonic() + self.timeout, False
        while True:
            try:
                reader, writer = await asyncio.open_connection(*self.coordinator)
                self._open.append(writer)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise ConnectionError(
                        f"waited {self.timeout:g} s for process 0 at {self.coordinator} "
                        f"({error.strerror or error}); start it, give its address, or wait longer "
                        "with --timeout"
                    ) from error
                if not told:
                    told = True
                    print(
                        f"waiting up to {self.timeout:g} s (--timeout) for process 0 at "
                        f"{self.coordinator}",
                        file=sys.stderr,
                    )
                await asyncio.sleep(0.2)
        await self._say((reader, writer), f"{GREETING} {self.processes} {self.process_id}")
        what = "went away before all were there, or something else answers there"
        try:
            left = max(deadline - time.monotonic(), 1.0)
            answer = (await asyncio.wait_for(reader.readline(), left)).decode(errors="replace")
        except TimeoutError:
            answer, what = "", f"did not say within {self.timeout:g} s that all are there"
        except (OSError, ValueError):  # a line without end is none of ours
            answer = ""
        if answer.startswith("no "):
            raise ValueError(answer[3:].strip())
        if answer != "go\n":
            raise ConnectionError(
                f"process 0 at {self.coordinator} {what}; look at what it printed, and start all "
                "of them again"
            )
        self._peers[0] = (reader, writer)
        self._watch(0, (reader, writer))
        forwarder = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self._servers.append(forwarder)
        return str(Address(*forwarder.sockets[0].getsockname()[:2]))

    # Watching

    async def _say(self, streams: Streams, text: str) -> None:
        with contextlib.suppress(OSError):
            streams[1].write(f"{text}\n".encode())
            await streams[1].drain()

    def _watch(self, number: int, streams: Streams) -> None:
        self._start(self._signs(streams))
        self._start(self._listen(number, streams[0]))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(self._loop.create_task(work))

    async def _signs(self, streams: Streams) -> None:
        while True:
            await self._say(streams, "here")
            await asyncio.sleep(min(5.0, self.timeout / 4))

    async def _listen(self, number: int, reader: asyncio.StreamReader) -> None:
        """Hears another process until it ends; process 0 passes on what the others have to know."""
        what = "has died"
        while True:
            try:
                line = await asyncio.wait_for(reader.readline(), self.timeout)
            except TimeoutError:
                what, line = f"has been silent for {self.timeout:g} s (--timeout)", b""
            except OSError:
                line = b""
            word, _, text = line.decode(errors="replace").strip().partition(" ")
            if word == "lost":
                self._end(text)
            elif word == "failed":
                self._start(self._fail(text))
            elif word == "end":
                self._gone.add(number)
                if text != "0":
                    reason = f"process {number} ended with exit code {text}"
                    await self._tell(f"failed {reason}", but=number)
                    self._start(self._fail(reason))
            elif not line:
                if number not in self._gone and not self._code:
                    reason = f"process {number} {what}"
                    await self._tell(f"lost {reason}", but=number)
                    self._end(reason)
                self._gone.add(number)
                return

    async def _tell(self, text: str, but: int) -> None:
        """Process 0 tells all others but one; each of those hears only process 0."""
        if self.process_id == 0:
            for number, streams in self._peers.items():
                if number != but:
                    await self._say(streams, text)

    async def _fail(self, reason: str) -> None:
        await asyncio.sleep(GRACE)
        if not self._code:
            self._end(reason)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes on a connection of XLA's client to the service of process 0; when that one goes,
        the client is not told."""
        while True:
            try:
                there, back = await asyncio.open_connection(*self.coordinator)
                self._open += [writer, back]
                break
            except OSError:  # the service begins to listen only after "go"
                await asyncio.sleep(0.05)

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(2**16):
                    target.write(data)
                    await target.drain()

        outward = self._loop.create_task(pump(reader, back))
        inward = self._loop.create_task(pump(there, writer))
        await outward
        back.close()
        await inward

    # Leaving

    def leave(self, code: int) -> None:
        """Says that this process ends; where that is in failure, waits a little for the others to
        end too, and leaves at once: XLA's own way out would wait for those that do not come."""
        if self._code is not None:
            return
        self._code = code
        with contextlib.suppress(Exception):
            self._run(self._goodbye(code)).result(GRACE)
        if code != 0:
            deadline = time.monotonic() + GRACE
            while self._gone != self._peers.keys() and time.monotonic() < deadline:
                time.sleep(0.05)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    async def _goodbye(self, code: int) -> None:
        for streams in self._peers.values():
            await self._say(streams, f"end {code}")
