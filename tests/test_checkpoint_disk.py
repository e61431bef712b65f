"""A folder that cannot take the checkpoints is found before the run begins."""

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from zoo.checkpoint import check_writable, save


def test_a_folder_that_is_there_or_can_be_made_is_left_as_it_was(tmp_path, monkeypatch):
    check_writable(tmp_path, 10)
    check_writable(tmp_path / "not" / "yet" / "there", 10, keep=3)
    monkeypatch.chdir(tmp_path)
    check_writable("runs/one", 10)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match=rf"{folder}'?: {tmp_path}/file is a file, not a folder"):
            check_writable(folder, 10)


def test_a_folder_that_takes_no_files_is_named(tmp_path, monkeypatch):
    # Nobody, root included, makes files in /proc.
    with pytest.raises(OSError, match=r"folder='/proc/run': nothing can be written in /proc: "):
        check_writable("/proc/run", 10)

    def refused(self, data):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_bytes", refused)
    with pytest.raises(OSError, match=f"nothing can be written in {tmp_path}: Permission denied"):
        check_writable(tmp_path, 10)
    assert list(tmp_path.iterdir()) == []


def test_room_for_the_kept_ones_and_two_more(tmp_path, monkeypatch):
    # 3 + 2 checkpoints of 20 MB are 100 MB.
    for free, enough in ((100_000_000, True), (99_400_000, False)):
        monkeypatch.setattr(
            shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free)
        )
        if enough:
            check_writable(tmp_path / "run", 20_000_000, keep=3)
        else:
            with pytest.raises(OSError, match="99 MB are free on the disk") as caught:
                check_writable(tmp_path / "run", 20_000_000, keep=3)
            assert "100 MB are needed for 5 checkpoints of 20 MB each (keep=3," in str(caught.value)


def test_checkpoints_of_the_run_will_be_replaced(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).standard_normal(250_000).astype(np.float32)
    save(tmp_path, {"params": {"w": noise}}, {})  # 1 MB, hardly compressible
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2_300_000))
    check_writable(tmp_path, 1_000_000, keep=1)
    with pytest.raises(OSError, match="2 MB are free"):
        check_writable(tmp_path / "another", 1_000_000, keep=1)
