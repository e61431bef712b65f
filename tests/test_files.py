"""Files are whole or absent: atomic writes, JSON without NaN, the metrics log."""

import contextlib
import json
import os
import re
import resource
import signal
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from zoo.utils import files


def visible(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_write_atomic_replaces_whole_files_only(tmp_path, monkeypatch):
    path = tmp_path / "new" / "file.txt"
    files.write_atomic(path, "grün\n")
    assert path.read_bytes() == b"gr\xc3\xbcn\n"
    files.write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    mask = os.umask(0o022)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask  # like any file, unlike tempfile's 0600

    def stop(*_):
        raise KeyboardInterrupt

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, name, stop)
            with pytest.raises(KeyboardInterrupt):
                files.write_atomic(path, "other")
        assert visible(path.parent) == ["file.txt"]
        assert path.read_bytes() == b"\x00\xff"
    with pytest.raises(TypeError):
        files.write_atomic(path, 3)
    with pytest.raises(OSError, match="directory"):
        files.write_atomic(path.parent, "x")
    assert visible(tmp_path) == ["new"]


def test_write_json_knows_arrays_and_no_nan(tmp_path):
    obj = {
        "f": np.float32(0.1),
        "j": jnp.asarray([1.5, jnp.inf], jnp.bfloat16),
        "i": np.arange(2),
        "b": np.bool(True),
        "n": [float("-inf"), np.float64("nan"), (1, "é")],
        "e": {},
    }
    files.write_json(tmp_path / "a.json", obj)
    text = (tmp_path / "a.json").read_text()

    def strict(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    assert json.loads(text, parse_constant=strict) == {
        "f": 0.10000000149011612,  # the float32 nearest to 0.1, exactly
        "j": [1.5, None],
        "i": [0, 1],
        "b": True,
        "n": [None, None, [1, "é"]],
        "e": {},
    }
    for bad, match in (
        ({"a": {2: 1}}, r"object\['a'\]: key 2"),
        ([np.array("x")], r"object\[0\]: ndarray"),
        ({1, 2}, "object: set cannot be written"),
        (1j, "object: complex"),
        (np.complex64(1j), "object: complex64"),
    ):
        with pytest.raises(ValueError, match=match):
            files.write_json(tmp_path / "a.json", bad)
    assert (tmp_path / "a.json").read_text() == text


def test_metrics_log_appends_whole_lines(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    with files.MetricsLog(path) as log:
        for step in range(3):
            log.write({"step": step, "loss": float("nan")})
            assert path.read_text().count("\n") == step + 1  # at once, not at the end
        with pytest.raises(ValueError, match=re.escape("metrics['a']: object cannot")):
            log.write({"a": object()})
        with pytest.raises(ValueError, match="metrics must be a mapping"):
            log.write([1])
    whole = '{"step": 0, "loss": null}\n{"step": 1, "loss": null}\n{"step": 2, "loss": null}\n'
    assert path.read_text() == whole
    with pytest.raises(ValueError, match="closed file"):
        log.write({"step": 3})
    for torn in ('{"step": 3, "lo', '{"step": 3}', "\x00\x00"):
        path.write_text(whole + torn)
        with files.MetricsLog(path) as log:
            log.write({"step": 3})
        assert path.read_text() == whole + '{"step": 3}\n'
    path.write_text('{"only a torn')
    with files.MetricsLog(path) as log:
        assert path.read_text() == ""
        log.write({})
    assert path.read_text() == "{}\n"


def test_metrics_log_takes_back_a_line_that_did_not_fit(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with files.MetricsLog(path) as log:
        log.write({"step": 0})
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))  # the line would end at 29
            with pytest.raises(OSError, match="only 8 of 17 bytes"):
                log.write({"step": 123456})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, ignored)
        log.write({"step": 1})
    assert path.read_text() == '{"step": 0}\n{"step": 1}\n'


@contextlib.contextmanager
def small_disk(size: int):
    """Files may grow to so many bytes; what comes from a full disk otherwise comes from here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_file_that_does_not_fit_the_disk_is_named(tmp_path):
    """By the name that it was to have, and what was there before stays."""
    path = tmp_path / "a.bin"
    files.write_atomic(path, b"before")
    with small_disk(1000), pytest.raises(OSError, match=f"File too large: '{path}'"):
        files.write_atomic(path, bytes(10**5))
    assert path.read_bytes() == b"before"
    assert visible(tmp_path) == ["a.bin"]
    with files.MetricsLog(tmp_path / "m.jsonl") as log:
        log.write({"step": 0})
        with small_disk(12), pytest.raises(OSError, match=r"File too large: '.*m\.jsonl'"):
            log.write({"step": 1})
        log.write({"step": 2})
    assert (tmp_path / "m.jsonl").read_text() == '{"step": 0}\n{"step": 2}\n'


def test_other_errors_keep_their_own_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.txt"), files.naming(tmp_path / "a.bin"):
        (tmp_path / "none.txt").read_bytes()
    with pytest.raises(PermissionError, match=r"'.*a\.bin'"), files.naming(tmp_path / "a.bin"):
        raise PermissionError(13, "Permission denied")
    with pytest.raises(OSError, match=r"^neither$"), files.naming(tmp_path / "a.bin"):
        raise OSError("neither")
