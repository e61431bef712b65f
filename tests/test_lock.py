"""One process at a time writes into a folder; a dead one does not stand in the way."""

import errno
import fcntl
import os
import socket

import pytest
from command_lines import cli

from zoo.utils.lock import NAME, locked


def test_a_second_holder_is_refused_by_the_name_of_the_first(tmp_path):
    folder, said = tmp_path / "a" / "b", []
    me = f"pid {os.getpid()} on {socket.gethostname()}"
    with locked(folder, said.append):
        refused = pytest.raises(ValueError, match=rf"another run \({me}\) writes here")
        # Another open file is another holder to the system, in whatever process.
        with refused, locked(folder, said.append):
            raise AssertionError("two hold it")
        assert (folder / NAME).read_text() == me + "\n"  # the refused one has left it alone
    assert not (tmp_path / "a").exists()  # nothing was written there, and so nothing is left
    with locked(folder, said.append):
        (folder / "file").write_text("x")
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert said == []


def test_what_a_dead_holder_left_is_taken_over_with_a_note(tmp_path):
    (tmp_path / NAME).write_text("pid 77 on elsewhere\n")
    said = []
    with locked(tmp_path, said.append):
        assert (tmp_path / NAME).read_text() != "pid 77 on elsewhere\n"
    assert said == [
        f"{tmp_path}: taken over from a run that ended without a word (pid 77 on elsewhere)"
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_removed_while_it_is_taken_is_taken_anew(tmp_path, monkeypatch):
    """The first holder leaves between the opening of its file and the lock on it."""
    real, calls = fcntl.flock, []

    def flock(file, how):
        real(file, how)
        calls.append(file)
        if len(calls) == 1:
            (tmp_path / NAME).unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path), pytest.raises(ValueError, match="another run"), locked(tmp_path):
        raise AssertionError("two hold it")
    assert len(calls) == 2


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    said = []
    with locked(tmp_path, said.append):
        pass
    assert said == [
        f"{tmp_path} cannot be locked (No locks available): start no second run into it"
    ]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def pwrite(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", pwrite)
    full = pytest.raises(
        OSError, match=r"nothing can be written there \(No space left on device: .*lock"
    )
    with full, locked(tmp_path / "a" / "b"):
        raise AssertionError("held")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_through_a_link_or_below_a_file(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("x")
    (tmp_path / NAME).symlink_to(precious)
    with (
        pytest.raises(OSError, match=r"nothing can be written there \(.*symbolic links: .*lock"),
        locked(tmp_path),
    ):
        raise AssertionError("held")
    assert precious.read_text() == "x"
    below = precious / "run"
    with pytest.raises(OSError, match=r"nothing can be written there .*precious"), locked(below):
        raise AssertionError("held")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("a\0b", ValueError, r"out='.*\\x00b' holds a NUL"),
        ("x" * 300, OSError, "File name too long"),
    ],
)
def test_a_name_that_no_folder_has_is_told(tmp_path, name, error, message):
    with pytest.raises(error, match=message), locked(tmp_path / name):
        raise AssertionError("held")


def test_a_lock_that_is_no_file_is_told(tmp_path):
    os.mkfifo(tmp_path / NAME)
    told = pytest.raises(OSError, match=r"nothing can be written there \(Illegal seek")
    with told, locked(tmp_path):
        raise AssertionError("held")


def test_commands_refuse_a_folder_that_a_run_writes_into(tmp_path):
    (tmp_path / "table.json").write_text("{}")  # an earlier demo's folder
    with locked(tmp_path / "ann"):
        for arguments in (["train", "digits_ann", "--out", tmp_path / "ann"],
                          ["demo", "--out", tmp_path]):  # fmt: skip
            done = cli(*arguments)
            assert done.returncode == 2
            assert f"another run (pid {os.getpid()} on " in done.stderr
            assert "Traceback" not in done.stderr
        assert [path.name for path in (tmp_path / "ann").iterdir()] == [NAME]
