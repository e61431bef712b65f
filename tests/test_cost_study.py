"""The scaling study by hand counts, and the machine's own profile from fit to prediction."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from scripts import bench_latency, calibrate_profile, cost_scaling
from snapjax import cost
from snapjax.boundary import Boundary
from zoo.bench import machine
from zoo.cost import models, quality, scaling
from zoo.models.registry import create_model, spike_boundary
from zoo.pretrained.locate import SHIPPED

PRETRAINED = "vit_nano_patch2_8.hnn_digits"


@pytest.fixture(autouse=True)
def _optax_mixes_types():
    """optax raises its decay rates to an integer count, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


# The scaling study


@pytest.fixture(scope="module")
def study():
    return scaling.run("snap-mesh", ["vit"], (2, 4), sizes=1, rate=0.5)


@pytest.mark.slow  # prices a study
def test_rows_of_the_study(study):
    assert len(study) == 2 * len(scaling.VARIANTS)
    by = {(row["devices"], row["variant"]): row for row in study}
    # 196 tokens, 16 layers: macs are the model's, whatever the cut.
    layer = 196 * (4 * 192**2 + 2 * 192 * 768 + 2 * 196 * 192)
    macs = 32 * (16 * layer + 196 * 768 * 192 + 192 * 1000)
    assert {row["macs"] for row in study if row["variant"] != "hnn_fitted"} == {macs}
    # Hops x microbatches of 2 x 196 tokens x bytes a token.
    for devices in (2, 4):
        sent = (devices - 1) * 16 * 2 * 196
        assert by[devices, "ann"]["hop_bytes"] == sent * 4 * 192
        assert by[devices, "ann_packets"]["hop_bytes"] == sent * 8 * 192
        assert by[devices, "ann_int8"]["hop_bytes"] == sent * (192 + 2)
        assert by[devices, "hnn"]["hop_bytes"] == sent * 24
        # Two matrices a cut, which every token passes once; and as many bytes.
        fitted = by[devices, "hnn_fitted"]
        assert fitted["macs"] == macs + (devices - 1) * 2 * 32 * 196 * 192**2
        assert fitted["hop_bytes"] == sent * 24
        assert fitted["parameters"] == by[devices, "ann"]["parameters"] + (devices - 1) * (
            2 * 192**2 + 6 * 192
        )
        assert by[devices, "hnn"]["margin"]["link_energy_pj"] == pytest.approx(32)
        assert by[devices, "ann"]["margin"] == dict.fromkeys(scaling.MARGINS, 1)
        assert by[devices, "ann"]["boundary_energy_pj"] < by[devices, "hnn"]["boundary_energy_pj"]
    assert by[2, "hnn"]["rate_is"] == "assumed"
    assert by[2, "ann"]["rate"] is None


def test_growth_is_read_off_the_rows():
    row = lambda width, devices, margin: {
        "family": "f", "variant": "hnn", "width": width, "devices": devices,
        "margin": {"energy_pj": margin},
    }  # fmt: skip
    rows = [row(1, 2, 1.0), row(1, 4, 3.0), row(2, 2, 2.0), row(2, 4, 2.0)]
    grows = lambda along: scaling.grows(rows, "energy_pj", along)
    assert grows("devices") == {"f, width=1": True, "f, width=2": False}
    assert grows("width") == {"f, devices=2": True, "f, devices=4": False}
    # One point does not grow.
    assert scaling.grows(rows[:1], "energy_pj", "devices") == {}


def test_what_a_study_finds_in_per_cent():
    row = lambda variant, energy, latency: {
        "variant": variant, "margin": {"energy_pj": energy, "latency_s": latency}
    }  # fmt: skip
    rows = [row(name, 1.0, 2.0) for name in scaling.LABELS] + [row("hnn", 0.8, 0.5)]
    assert scaling.finding(rows) == (
        "spikes 0 to +25 % of energy and -50 to +100 % of time; spikes with matrices 0 % of energy "
        "and -50 % of time; int8 0 % of energy and -50 % of time"
    )


def test_rates_of_the_study_are_measured_where_a_trained_model_ships():
    rates = json.loads((SHIPPED / PRETRAINED / "config.json").read_text())["metrics"]["spike_rate"]
    found = scaling.family_rate("vit")
    assert found.how.startswith(f"{PRETRAINED}: of its own validation")
    assert found.value == pytest.approx(sum(rates) / 3)
    assert scaling.family_rate("nothing") == (1.0, "not known, so the worst case")


def test_the_studys_command(capsys, tmp_path):
    out, png = tmp_path / "s.json", tmp_path / "s.png"
    argv = ["--families", "bert", "--sizes", "1", "--devices", "2", "--rate", "0.4"]
    assert cost_scaling.main([*argv, "--json", str(out), "--plot", str(png)]) == 0
    record = json.loads(out.read_text())
    assert len(record["rows"]) == len(scaling.VARIANTS)
    assert {row["rate"] for row in record["rows"]} == {None, 0.4}
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "0.400 assumed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cost_scaling.main(["--devices", "3"])
    assert "divide 16 layers" in capsys.readouterr().err


# The machine's own profile


def test_a_line_is_fitted_by_relative_error():
    work = np.array([1e3, 1e5, 1e7])
    rate, half = machine.fit_line(work, (work + 5e4) / 2e9)
    assert (rate, half) == pytest.approx((2e9, 5e4))
    rate, half = machine.fit_line(work, work / 2e9 * np.array([0.9, 1.0, 1.1]))
    assert half == 0
    assert rate == pytest.approx(2e9)


class Ticking:
    """A clock on which every program takes one second."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def test_measured_constants_are_work_over_time():
    few = ((8, 4, 2), (16, 4, 2))
    sizes = machine.Sizes(few, stream=4096, wide=64, passes=2, loop=5, repeats=1)
    found = machine.measure(sizes, clock=Ticking())
    assert found["memory_bandwidth"].value == 2 * 8 * 4096
    assert found["rate_elementwise"].value == 2 * 64 * 64
    assert found["rate_transcendental"].value == 2 * 64
    assert found["start"].value == 1 / 5
    # Both matmuls took a second: the rate is that of the median, and no size is free.
    assert found["rate_mac_32"].value == pytest.approx((64 + 128) / 2, rel=0.2)
    profile = machine.calibrated("mine", "ethernet-1g", found, "a test")
    assert profile["rate_mac_8"] == profile["rate_mac_32"]
    assert profile["link_bandwidth"] == cost.load_profile("ethernet-1g")["link_bandwidth"]
    assert profile.constants["start"].status == "measured"


@pytest.mark.slow  # measures a machine
def test_calibrating_and_predicting(capsys, tmp_path):
    """The whole way on tiny programs: what is written can be read, and every row is there."""
    path, out = tmp_path / "machine.toml", tmp_path / "latency.json"
    argv = ["--small", "--repeats", "1", "--name", "here", "--out", str(path)]
    assert calibrate_profile.main(argv) == 0
    profile = cost.load_profile(path)
    assert profile.name == "here"
    assert {"rate_mac_32", "memory_bandwidth"} <= set(profile.by_status()["measured"])
    argv = ["--profile", str(path), "--models", "vit_nano_patch2_8", "--batch-size", "8"]
    assert bench_latency.main([*argv, "--repeats", "1", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["step"] for row in rows] == ["forward", "train"]
    for row in rows:
        assert row["low"] <= row["predicted"] <= row["high"]
        assert row["error"] == pytest.approx(row["predicted"] / row["measured"] - 1)
    assert "mean error" in capsys.readouterr().out


@pytest.mark.parametrize("command", [calibrate_profile.main, bench_latency.main])
def test_a_wrong_profile_is_an_error_before_anything_is_measured(capsys, tmp_path, command):
    flag = "--base" if command is calibrate_profile.main else "--profile"
    extra = ["--out", str(tmp_path / "x.toml")] if command is calibrate_profile.main else []
    assert command([flag, "ethernet-2g", *extra]) == 2
    assert "did you mean" in capsys.readouterr().err


# Quality and cost of the same boundary


def test_a_row_of_a_table_is_priced_with_its_own_boundary():
    boundary = replace(spike_boundary(64, steps=8), rank=64, gradient_wire="bfloat16")
    rows = [
        {"boundary": boundary.to_dict(), "spike_rate": 0.25},
        {"steps": 8, "bits_per_feature": 1, "method": "pca_refit"},
        {"boundary": Boundary(64, "float32").to_dict(), "spike_rate": None},
    ]
    about = {"model": "vit_nano_patch2_8", "stages": 2, "rows": rows}
    own, calibrated, dense = quality.price({"t": about})["t"]
    model = create_model("vit_nano_patch2_8", "ann", 2, boundary)
    for profile in quality.PROFILES:
        found = models.estimate(model, quality.SETTING, profile, 0.25)
        assert own[profile]["energy_pj"] == pytest.approx(found.energy.value)
        assert own[profile]["latency_s"] == pytest.approx(found.latency.value)
        less = dense[profile]["energy_pj"] / own[profile]["energy_pj"]
        assert own[profile]["margin"]["energy_pj"] == less
        assert calibrated[profile]["latency_s"] == own[profile]["latency_s"]  # no rate is in it
    # Two matrices of 64 x 64 on 32 x 16 tokens.
    assert own["macs"] - dense["macs"] == 32 * 16 * 2 * 64 * 64
    assert (own["rate"], calibrated["rate"], dense["rate"]) == (0.25, 1.0, None)
    assert own["hop_bytes"] == 32 * 16 * 8
