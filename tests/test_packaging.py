"""What a wheel holds, what it needs, and that it works where nothing else of the checkout is."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser

import pytest
from command_lines import ROOT

from snapjax import __version__
from snapjax.cost import list_profiles
from zoo.config.presets import PRESETS
from zoo.pretrained.locate import list_pretrained

PACKAGES = ("snapjax", "zoo")


def requirements(name):
    lines = (ROOT / name).read_text().splitlines()
    return {line.partition(" #")[0] for line in lines if line and not line.startswith("#")}


def files_of(package):
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built of what is committed to the packages, by the build tools that are installed."""
    tree, out = (tmp_path_factory.mktemp(name) for name in ("tree", "wheel"))
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tree / package, ignore=ignored)
    for path in ROOT.iterdir():
        if path.suffix in (".toml", ".txt", ".md") or path.name == "LICENSE":
            shutil.copy(path, tree)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index",
         "--no-build-isolation", "-w", str(out), str(tree)],
        check=True, timeout=300,
    )  # fmt: skip
    (made,) = out.iterdir()
    return made


@pytest.mark.slow
def test_a_wheel_holds_every_file_and_names_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (info,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        license = archive.read(f"{info}/licenses/LICENSE")
    files = {name for name in names if not name.startswith(info)}
    assert files == set().union(*map(files_of, PACKAGES))
    assert {"snapjax/py.typed", "zoo/py.typed"} <= files
    assert license == (ROOT / "LICENSE").read_bytes()
    assert metadata["Version"] == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", metadata["Version"])
    needed = metadata.get_all("Requires-Dist")
    plain = {re.split(r"[<>=\[]", one)[0] for one in needed if "extra ==" not in one}
    assert plain == {re.split(r"[<>=\[]", one)[0] for one in requirements("requirements.txt")}
    assert metadata.get_all("Provides-Extra") == ["gpu", "tpu", "dev", "docs"]
    assert 'jax[cuda13]; extra == "gpu"' in needed
    assert 'jax[tpu]; extra == "tpu"' in needed
    dev = {one for one in needed if one.endswith('extra == "dev"')}
    assert len(dev) == len(requirements("requirements-dev.txt"))


@pytest.mark.slow
def test_a_wheel_alone_gives_the_command_with_all_that_ships(wheel, tmp_path):
    home, empty = tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps",
         "--no-index", str(wheel)],
        check=True, timeout=300,
    )  # fmt: skip
    # jax and the rest come from where these tests have them; snapjax and zoo are found before.
    (packages,) = (home / "lib").glob("python*/site-packages")
    (packages / "rest.pth").write_text(sysconfig.get_path("purelib") + "\n")
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def snapjax(*arguments):
        done = subprocess.run(
            [str(home / "bin" / "snapjax"), *arguments],
            capture_output=True, text=True, cwd=empty, env=env, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [str(python), "-c", "import snapjax, zoo; print(snapjax.__file__, zoo.__file__)"],
        capture_output=True, text=True, cwd=empty, env=env, check=True,
    ).stdout  # fmt: skip
    assert where.split() == [str(packages / name / "__init__.py") for name in PACKAGES]
    assert snapjax("--version") == f"snapjax {__version__}\n"
    found = json.loads(snapjax("models", "--json"))
    assert [row["name"] for row in found["presets"]] == list(PRESETS)
    assert {row["name"] for row in found["pretrained"]} >= {*list_pretrained()}
    assert json.loads(snapjax("cost", "--list", "--json"))["profiles"] == list_profiles()
    scores = json.loads(snapjax("evaluate", "vit_nano_patch2_8.hnn_digits", "--json"))
    assert scores["accuracy"] > 0.97
