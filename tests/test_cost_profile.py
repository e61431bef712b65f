"""Hardware profiles: those of the package are whole and sourced; a bad file names its fault."""

import re
import tomllib

import pytest

from snapjax.cost import list_profiles, load_profile
from snapjax.cost.price.constants import BETTER_HIGH, STATUSES, UNITS
from snapjax.cost.price.profile import FOLDER

NAMES = (
    "ethernet-100g",
    "ethernet-100m",
    "ethernet-1g",
    "h100-nvlink",
    "h200-nvlink",
    "loihi-like",
    "snap-mesh",
    "tpu-v5e",
    "tpu-v5p",
    "tpu-v6e",
)


def constant(value=1.0, unit="pJ", low=0.5, high=2.0, status="assumed", extra=""):
    return (
        f'value = {value}\nunit = "{unit}"\nlow = {low}\nhigh = {high}\nnode = "-"\n'
        f'source = "a test"\nstatus = "{status}"\n{extra}'
    )


def write(tmp_path, body, base='base = "snap-mesh"\n'):
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\ndescription = "a board"\n{base}\n{body}')
    return path


def test_the_profiles_of_the_package():
    assert tuple(list_profiles()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_constant_has_all_its_fields(name):
    profile = load_profile(name)
    assert profile.name == name
    assert set(profile.constants) == set(UNITS)
    for key, entry in profile.constants.items():
        assert entry.low <= entry.value <= entry.high, key
        assert entry.unit == UNITS[key]
        assert entry.status in STATUSES
        assert entry.node
        assert entry.source
        # An estimate of ours says so, and what was remembered is not called read.
        if entry.status == "read":
            assert not re.search(r"our estimate|remembered|by design", entry.source), key
    assert sum(len(names) for names in profile.by_status().values()) == len(UNITS)


# Figures of the sources, typed in again: Horowitz 2014 (PMC8934428, SpikingJelly), SANA-FE's
# loihi.yaml, Calculon's h100, the scaling book's TPUs (bf16 FLOP/s are two operations a MAC).
@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("snap-mesh", "mac_32", 3.7 + 0.9),
        ("snap-mesh", "mac_16", 1.1 + 0.4),
        ("snap-mesh", "mac_8", 0.2 + 0.1),  # of int8 products, in an int32 sum
        ("snap-mesh", "ac_32", 0.9),
        ("snap-mesh", "ac_16", 0.4),
        ("snap-mesh", "ac_8", 0.1),
        ("snap-mesh", "mac_64", 3.7 * (53 / 24) ** 2 + 2 * 0.9),
        ("snap-mesh", "memory", 20 / 8),  # of the cores' own 32 KB, as is the bandwidth
        ("snap-mesh", "memory_bandwidth", 64 * 32 * 1e9),
        ("snap-mesh", "link_bit", 0.58),
        ("snap-mesh", "hop_x", 1.50 + 1.03 + 0.40 + 0.06 + 0.05 + 64 * 0.0488),
        ("loihi-like", "packet", 111),
        ("loihi-like", "hop_x", 3.0),
        ("loihi-like", "hop_y", 4.2),
        ("loihi-like", "ac_32", 23.6),
        ("h100-nvlink", "rate_mac_16", 989e12 / 2),
        ("h100-nvlink", "rate_mac_8", 1979e12 / 2),
        ("h100-nvlink", "link_bandwidth", 450e9),
        ("h100-nvlink", "link_efficiency", 0.65),
        ("h200-nvlink", "rate_mac_16", 989e12 / 2),
        ("h200-nvlink", "memory_bandwidth", 0.9 * 4800e9),
        ("tpu-v5e", "rate_mac_16", 197e12 / 2),
        ("tpu-v5e", "link_bandwidth", 45e9),
        ("tpu-v5p", "rate_mac_16", 459e12 / 2),
        ("tpu-v5p", "link_bandwidth", 90e9),
        ("tpu-v5p", "rate_mac_8", 918e12 / 2),
        ("tpu-v6e", "rate_mac_8", 1836e12 / 2),
        ("tpu-v6e", "memory_bandwidth", 0.9 * 1638e9),
        ("ethernet-100m", "link_bandwidth", 100e6 / 8),
        ("ethernet-1g", "link_bandwidth", 1e9 / 8),
        ("ethernet-100g", "link_bandwidth", 100e9 / 8),
        ("ethernet-100g", "rate_mac_16", 989e12 / 2),
        ("ethernet-1g", "link_packet_bits", 8 * (7 + 1 + 64 + 12)),
    ],
)
def test_constants_are_those_of_their_sources(name, key, value):
    assert load_profile(name)[key] == pytest.approx(value, rel=6e-3)


@pytest.mark.parametrize(
    ("name", "key", "low", "high"),
    [
        # Where two commits of one source differ, the range has both.
        ("h100-nvlink", "link_latency", 1e-6, 10e-6),
        ("h100-nvlink", "link_efficiency", 0.6, 0.65),
        ("ethernet-100g", "link_latency", 2e-6, 20e-6),
        ("loihi-like", "packet", 76.8, 111),
        ("loihi-like", "ac_32", 23.6, 23.6 + 3.5),
        ("tpu-v5e", "link_latency", 0.5e-6, 1e-6),
        ("tpu-v5e", "link_bandwidth", 45e9, 50e9),
        ("tpu-v5p", "link_bandwidth", 90e9, 100e9),
        # int8, and FP8, which the v5p multiplies no faster than bfloat16.
        ("tpu-v5p", "rate_mac_8", 459e12 / 2, 918e12 / 2),
        ("snap-mesh", "memory", 10 / 8, 100 / 8),  # SRAMs of 8 KB and of 1 MB
    ],
)
def test_ranges_hold_what_sources_disagree_on(name, key, low, high):
    entry = load_profile(name).constants[key]
    assert entry.low <= low < high <= entry.high


def test_a_figure_that_nobody_published_is_not_called_read():
    mesh = load_profile("snap-mesh").constants
    assert mesh["packet_bits"].status == "assumed"  # Noxim's flits have 32 bits by default
    assert mesh["link_bit"].node == "28 nm"


@pytest.mark.parametrize(
    ("size", "topology"), [(2, "line"), (3, "line"), (4, "ring"), (7, "ring"), (64, "ring")]
)
def test_a_ring_needs_enough_devices(tmp_path, size, topology):
    path = write(tmp_path, "", base='base = "snap-mesh"\ntopology = "ring"\nring_from = 4\n')
    mine = load_profile(path)
    assert mine.topology_of(size) == topology
    assert mine.best().topology_of(size) == topology
    path.write_text(mine.to_toml())
    assert load_profile(path) == mine
    line = load_profile(write(tmp_path, "", base='base = "snap-mesh"\n'))
    assert line.topology_of(size) == "line"


@pytest.mark.parametrize("name", NAMES)
def test_best_and_worst_bracket_every_value(name):
    profile = load_profile(name)
    best, worst = profile.best(), profile.worst()
    for key in UNITS:
        first, last = (worst, best) if key in BETTER_HIGH else (best, worst)
        assert first[key] <= profile[key] <= last[key]
        assert first[key] == profile.constants[key].low


def test_what_to_toml_writes_reads_back_the_same(tmp_path):
    profile = load_profile("ethernet-100g")
    path = tmp_path / "whole.toml"
    path.write_text(profile.to_toml())
    assert "base" not in tomllib.loads(path.read_text())
    assert load_profile(path) == profile


def test_a_file_of_before_doubles_were_priced_takes_two_lanes(tmp_path):
    whole = load_profile("h100-nvlink")
    path = tmp_path / "old.toml"
    wide = r"\[(?:rate_)?(?:mac|ac)_64\][^\[]*"
    path.write_text(re.sub(wide, "", whole.to_toml()))
    assert "_64]" not in path.read_text()
    old = load_profile(path)
    assert list(old.constants) == list(UNITS)
    for key, narrow, factor in (
        ("mac_64", "mac_32", 2), ("ac_64", "ac_32", 2), ("rate_mac_64", "rate_mac_32", 0.5),
    ):  # fmt: skip
        entry, of = old.constants[key], old.constants[narrow]
        assert (entry.low, entry.value, entry.high) == (
            factor * of.low, factor * of.value, factor * of.high,
        )  # fmt: skip
        assert entry.status == "assumed"


def test_a_profile_of_the_users_own_needs_only_what_differs(tmp_path):
    path = write(tmp_path, "[link_bit]\n" + constant(2.0, "pJ/bit", 1.0, 3.0))
    mine, base = load_profile(path), load_profile("snap-mesh")
    assert mine["link_bit"] == 2.0
    assert mine.topology == base.topology
    assert {k: c for k, c in mine.constants.items() if k != "link_bit"} == {
        k: c for k, c in base.constants.items() if k != "link_bit"
    }
    assert load_profile(mine) is mine


BAD = {
    "unknown constant": ("[mac_23]\n" + constant(), "mac_23.*did you mean 'mac_32'.*remove it"),
    "unknown field": (
        "[mac_32]\n" + constant(extra="sauce = 1\n"),
        r"mac_32\.sauce = 1.*did you mean 'source'.*remove it",
    ),
    "missing field": (
        "[mac_32]\n" + constant().replace('source = "a test"\n', ""),
        r"mac_32\.source is missing.*every constant has value, unit, low",
    ),
    "not a table": ("mac_32 = 4.6\n", r"mac_32 = 4\.6 must be a table \[mac_32\]"),
    "text for a number": ("[mac_32]\n" + constant(value='"4"'), r"mac_32\.value = '4' must be a"),
    "truth for a number": ("[mac_32]\n" + constant(value="true"), r"mac_32\.value = True must be"),
    "infinite": ("[mac_32]\n" + constant(high="inf"), r"mac_32\.high = inf must be a finite"),
    "not a number": ("[mac_32]\n" + constant(value="nan"), r"mac_32\.value = nan must be a finite"),
    "negative": ("[mac_32]\n" + constant(low=-1), r"mac_32\.low = -1 must be a finite number >= 0"),
    "zero divisor": (
        "[rate_ac]\n" + constant(0, "op/s", 0, 1),
        r"rate_ac\.low = 0 must be greater than 0",
    ),
    "value above high": (
        "[mac_32]\n" + constant(3.0),
        r"mac_32 has low = 0\.5, value = 3, high = 2; they must ascend",
    ),
    "low above value": ("[mac_32]\n" + constant(0.1), "mac_32 has low.*must ascend"),
    "share above one": (
        "[skipping]\n" + constant(1.5, "share", 0.5, 2.0),
        r"skipping\.value = 1\.5 is a share|skipping\.high = 2\.0 is a share",
    ),
    "wrong unit": (
        "[mac_32]\n" + constant(unit="nJ"),
        r"mac_32\.unit = 'nJ' must be 'pJ'; convert the numbers",
    ),
    "unknown status": (
        "[mac_32]\n" + constant(status="sure"),
        r"mac_32\.status = 'sure' must be one of read, measured, secondary, assumed",
    ),
    "empty source": (
        "[mac_32]\n" + constant().replace('"a test"', '" "'),
        r"mac_32\.source = ' ' must be a text",
    ),
    "a list as status": (
        "[mac_32]\n" + constant().replace('"assumed"', '["read"]'),
        r"mac_32\.status = \['read'\] must be one of read, measured",
    ),
    "not a float": (
        "[mac_32]\n" + constant(high="1" + 400 * "0"),
        r"mac_32\.high = 10+ must be a finite number >= 0",
    ),
    "not TOML": ("[mac_32\n", "not a TOML file"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_error_that_names_the_key(tmp_path, case):
    body, message = BAD[case]
    path = write(tmp_path, body)
    with pytest.raises(ValueError, match=message) as caught:
        load_profile(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("", r"topology = None must be one of line, ring, switch"),
        ('topology = "torus"\n', "topology = 'torus' must be one of"),
        ('topology = ["line"]\n', r"topology = \['line'\] must be one of"),
        ('topology = "line"\n', r"\[mac_32\] is missing \(a multiply-accumulate.*name a profile"),
        ('base = "snap-mess"\n', "base = 'snap-mess' is no profile of the package.*snap-mesh"),
        ('base = "snap-mesh"\nring_from = 2\n', "ring_from = 2 must be a whole number of 3 or"),
        ('base = "snap-mesh"\nring_from = 4.5\n', "ring_from = 4.5 must be a whole number"),
        ('base = "snap-mesh"\nring_from = true\n', "ring_from = True must be a whole number"),
        ('bass = "snap-mesh"\n', "unknown key 'bass' .did you mean 'base'"),
    ],
)
def test_a_bad_head(tmp_path, head, message):
    with pytest.raises(ValueError, match=message):
        load_profile(write(tmp_path, "", base=head))


@pytest.mark.parametrize("key", ["name", "description"])
def test_a_head_without_a_text(tmp_path, key):
    path = write(tmp_path, "")
    path.write_text(re.sub(rf"^{key} = .*$", "", path.read_text(), flags=re.MULTILINE))
    with pytest.raises(ValueError, match=f"{key} = None must be a text"):
        load_profile(path)


def test_a_name_that_is_neither_file_nor_profile():
    with pytest.raises(ValueError, match=r"profile='snapmesh'.*did you mean 'snap-mesh'"):
        load_profile("snapmesh")


def test_profiles_are_installed_with_the_package():
    settings = tomllib.loads((FOLDER.parents[2] / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["snapjax"]
    package = FOLDER.parents[1]
    installed = {path for pattern in patterns for path in package.glob(pattern)}
    assert {path.stem for path in installed if path.suffix == ".toml"} == set(NAMES)
