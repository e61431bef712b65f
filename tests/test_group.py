"""How the processes of a run find each other, and hear of one that is lost; here all in one."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import pytest
from command_lines import ROOT, cli

from zoo.train import group
from zoo.train.group import Address, Group, parse


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def member(port):
    """Makes a process of a group; what it would end with goes into the queue `ended`."""
    made = []

    def make(number, count=2, timeout=10.0, ended=None, host="127.0.0.1"):
        end = (lambda text: ended.put((number, text))) if ended else None
        made.append(Group(Address(host, port), host, count, number, timeout, end))
        return made[-1]

    yield make
    for each in made:
        each.close()


def together(member, count=2, **settings):
    """The members of a group that have joined, and where each reaches XLA's service."""
    members = [member(number, count, **settings) for number in range(count)]
    with ThreadPoolExecutor(count) as pool:
        return members, list(pool.map(Group.join, members))


def drop(one):
    """Breaks a process's connections, as the system does with those of a dead one."""

    async def abort():
        for _, writer in one._peers.values():
            writer.transport.abort()

    one._end = lambda text: None
    one._run(abort()).result()


@pytest.mark.parametrize(
    ("text", "host", "number"),
    [("10.0.0.1:1234", "10.0.0.1", 1234), ("[::1]:1", "::1", 1), ("n-0.x:65535", "n-0.x", 65535)],
)  # fmt: skip
def test_an_address_is_read_and_written(text, host, number):
    assert parse(text) == (host, number)
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("localhost", "must be HOST:PORT"),
        (":1234", "must be HOST:PORT"),
        ("::1:1234", "must be HOST:PORT"),
        ("host:", "must be HOST:PORT"),
        ("host:-1", "must be HOST:PORT"),
        ("host:1e3", "must be HOST:PORT"),
        ("host:\u0663", "must be HOST:PORT"),
        ("host:0", r"port 0 is not in \[1, 65535\]"),
        ("host:65536", r"port 65536 is not in \[1, 65535\]"),
        ("host:99999999", r"port 99999999 is not in \[1, 65535\]"),
        (" host:1", "begins or ends with a space"),
        ("a" * 300 + ":1", r"host 'aaa.* cannot be looked up .*too long"),
    ],
)
def test_what_is_no_address_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)
    done = cli("train", "digits_hnn", "--coordinator", text, "--processes", 2, "--process-id", 0)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--coordinator-bind", "0.0.0.0"], "give --coordinator, --processes and --process-id too"),
        (["--processes", 2], "go together"),
        (["--coordinator", "h:1", "--processes", 2, "--process-id", 2], "process_id=2 must be in"),
        (["--coordinator", "h:1", "--processes", 0, "--process-id", 0], "processes=0"),
        (["--coordinator", "h:1", "--processes", 2, "--process-id", 0,
          "--coordinator-bind", "a..b"], "host 'a..b' cannot be looked up"),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit_are_refused(flags, message):
    done = cli("train", "digits_hnn", *flags)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize("timeout", [0, -1, "nan", "inf", 1e9])
def test_a_time_out_that_is_none_is_refused(timeout):
    address = ("--coordinator", "127.0.0.1:1", "--processes", 2, "--process-id", 1)
    done = cli("train", "digits_hnn", *address, "--timeout", timeout)
    assert done.returncode == 2
    assert "must be at least 1 second and less than a day" in done.stderr


def test_a_port_in_use_and_an_address_of_another_host_are_refused(port, member):
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(ValueError, match=rf"process 0 cannot listen at 127\.0\.0\.1:{port} "):
            member(0).join()
        done = cli("train", "digits_hnn", "--coordinator", f"127.0.0.1:{port}",
                   "--processes", 2, "--process-id", 0)  # fmt: skip
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
    # TEST-NET-1 (RFC 5737), which no host has.
    with pytest.raises(ValueError, match=r"192\.0\.2\.1:\d+ .*--coordinator-bind an address of"):
        member(0, host="192.0.2.1").join()


def test_only_the_coordinators_own_address_is_listened_at(port, member):
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(member(0, timeout=3.0).join)
        with contextlib.suppress(OSError):
            while not waiting.done():
                with socket.create_connection(("127.0.0.1", port), 1):
                    break
        with socket.socket() as other:
            other.bind(("127.0.0.2", port))  # it would be taken, were every interface
        with pytest.raises(ConnectionError):
            waiting.result()


@pytest.mark.parametrize("number", [0, 1])
def test_one_process_alone_waits_for_its_time_and_says_for_whom(port, number):
    started = time.monotonic()
    done = cli("train", "digits_hnn", "--coordinator", f"127.0.0.1:{port}", "--processes", 2,
               "--process-id", number, "--timeout", 1)  # fmt: skip
    assert done.returncode == 3
    assert time.monotonic() - started < 10
    *before, last = done.stderr.splitlines()
    awaited = ("process 1 of 2; start all", "process 0 at 127.0.0.1")[number]
    assert last.startswith("error: waited 1 s")
    assert awaited in last
    assert before == [f"waiting up to 1 s (--timeout) for process 0 at 127.0.0.1:{port}"] * number


def test_processes_that_do_not_fit_together_are_refused_by_both(member):
    members = [member(0, count=2), member(1, count=3)]
    message = "process 1 was started with --processes 3, process 0 with 2"
    with ThreadPoolExecutor(2) as pool:
        for joined in [pool.submit(each.join) for each in members]:
            with pytest.raises(ValueError, match=message):
                joined.result()


def test_two_processes_of_one_number_are_refused_by_all(member):
    members = [member(number, count=3) for number in (0, 1, 1)]
    with ThreadPoolExecutor(3) as pool:
        for joined in [pool.submit(each.join) for each in members]:
            with pytest.raises(ValueError, match="two processes have --process-id 1"):
                joined.result()


def test_a_process_that_dies_while_it_waits_may_come_back(port, member):
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(member(0, count=3).join)]
        while not waiting[0].done():  # until process 0 listens
            with contextlib.suppress(OSError):
                early = socket.create_connection(("127.0.0.1", port), 1)
                break
        early.sendall(b"snapjax-1 3 1\n")
        early.close()
        time.sleep(0.2)
        waiting += [pool.submit(member(number, count=3).join) for number in (1, 2)]
        assert waiting[0].result() == f"127.0.0.1:{port}"
        assert all(each.result() for each in waiting)


def test_a_process_0_that_goes_away_and_a_stranger_in_its_place_are_told(port, member):
    """XLA's own service of another run, say, which answers in HTTP/2."""
    for answer in (b"", b"\x00\x00\x18\x04\x00\n", b"x" * 2**17):
        listening = socket.create_server(("127.0.0.1", port))
        with listening as stranger, ThreadPoolExecutor(1) as pool:
            joining = pool.submit(member(1).join)
            there, _ = stranger.accept()
            with there, there.makefile("rb") as said:
                assert said.readline() == b"snapjax-1 2 1\n"
                there.sendall(answer)
            with pytest.raises(ConnectionError, match=r"went away before all were there, or"):
                joining.result()


def test_strangers_are_no_processes(port, member):
    """A scan of the port, a browser, and silence."""
    first, second = member(0), member(1)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(first.join)
        strangers = []
        for text in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\xff\xfe\n",
            b"snapjax-1 2 x\n",
            b"snapjax-1 2 2\n",
            b"snapjax-1 2 -1\n",
            b"snapjax-1\n",
            b"x" * 2**17,
            b"half a li",
            b"",
        ):
            while not waiting.done():
                with contextlib.suppress(OSError):
                    strangers.append(socket.create_connection(("127.0.0.1", port), 1))
                    break
            strangers[-1].sendall(text)
        assert second.join().startswith("127.0.0.1:")
        assert waiting.result() == f"127.0.0.1:{port}"
        for stranger in strangers:
            stranger.close()
    assert list(first._peers) == [1]


def test_the_forwarder_passes_on_both_ways_and_hides_that_the_service_is_gone(port, member):
    _, (_, address) = together(member)
    host, _, number = address.rpartition(":")
    with socket.create_connection((host, int(number)), 5) as client:
        client.settimeout(5)
        client.sendall(b"early")  # before the service listens
        with socket.create_server(("127.0.0.1", port)) as service:
            there, _ = service.accept()
            there.settimeout(5)
            assert there.recv(99) == b"early"
            there.sendall(b"answer")
            assert client.recv(99) == b"answer"
            there.close()
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):  # an end would be read as b""
            client.recv(1)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_is_named_by_all_others_at_once(member, lost):
    ended = Queue()
    members, _ = together(member, count=3, timeout=60.0, ended=ended)
    started = time.monotonic()
    drop(members[lost])
    said = dict(ended.get(timeout=5) for _ in range(2))
    assert time.monotonic() - started < 5
    assert said == {number: f"process {lost} has died" for number in {0, 1, 2} - {lost}}


def test_a_silent_process_is_lost_after_the_time_out(member, monkeypatch):
    """It is there, but does nothing any more: stopped, or cut off from the network."""

    async def nothing(self, streams):
        await asyncio.sleep(0)

    ended = Queue()
    monkeypatch.setattr(Group, "_signs", nothing)
    together(member, timeout=1.0, ended=ended)
    said = dict(ended.get(timeout=10) for _ in range(2))
    assert said[0] == "process 1 has been silent for 1 s (--timeout)"


def test_signs_of_life_keep_a_group_together(member):
    ended = Queue()
    together(member, timeout=1.0, ended=ended)
    time.sleep(2.5)
    assert ended.empty()


@pytest.mark.slow  # two processes, one of them killed while they compile
@pytest.mark.parametrize("lost", [0, 1])
def test_a_process_that_is_killed_ends_the_other_in_one_line(port, lost, tmp_path):
    out = tmp_path / "run"
    together = [
        subprocess.Popen(
            [sys.executable, "-m", "zoo.cli.main", "train", "digits_hnn", "--set=mesh.stage=2",
             "--coordinator", f"127.0.0.1:{port}", "--processes", "2", "--process-id", str(number),
             "--out", str(out)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        for number in range(2)
    ]  # fmt: skip
    try:
        while not (out / ".lock").exists():  # they have met, and go on to data and model
            assert [process.poll() for process in together] == [None, None]
            time.sleep(0.05)
        together[lost].kill()
        killed = time.monotonic()
        errors = together[1 - lost].communicate(timeout=60)[1]
        assert time.monotonic() - killed < 30
        assert together[1 - lost].returncode == 3
        said = [line for line in errors.splitlines() if not line.startswith("waiting up to")]
        assert said == [f"error: process {lost} has died. Start all of them again with --resume"]
    finally:
        for process in together:
            process.kill()
            process.communicate()


def test_an_end_in_order_is_no_loss_and_a_failure_gives_time_for_an_own_end(member, monkeypatch):
    monkeypatch.setattr(group, "GRACE", 0.5)
    ended = Queue()
    members, _ = together(member, count=3, ended=ended)
    members[1].leave(0)
    drop(members[1])
    time.sleep(1)
    assert ended.empty()
    members[2]._run(members[2]._goodbye(2)).result()
    drop(members[2])
    assert ended.get(timeout=5) == (0, "process 2 ended with exit code 2")
    assert ended.empty()


def test_who_has_ended_in_order_and_waits_for_the_others_still_hears_of_a_lost_one(member):
    """Process 0 writes the model while the others wait for it in XLA's way out."""
    ended = Queue()
    members, _ = together(member, count=2, ended=ended)
    members[1].leave(0)
    drop(members[0])
    assert ended.get(timeout=5) == (1, "process 0 has died")


def test_who_fails_leaves_with_its_own_exit_code_when_the_others_have_ended(member, monkeypatch):
    codes = Queue()
    monkeypatch.setattr("os._exit", codes.put)
    members, _ = together(member, ended=codes)
    leaving = [threading.Thread(target=each.leave, args=(2,)) for each in members]
    started = time.monotonic()
    for thread in leaving:
        thread.start()
    assert [codes.get(timeout=20) for _ in members] == [2, 2]
    assert time.monotonic() - started < group.GRACE
