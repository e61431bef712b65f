"""The README's example runs as pasted, and its figures are those of the committed result."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.cost import scaling as cost_study
from zoo.evaluation import compare

ROOT = Path(__file__).parents[1]


def test_example_runs(tmp_path):
    code, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    sent, dense, error = re.match(
        r"(\d+) bytes a token, float32 takes (\d+); error ([\d.]+) of the variance", done.stdout
    ).groups()
    assert int(dense) == 32 * int(sent)
    assert 0.3 < float(error) < 0.4  # one bit a feature of a Gaussian: 0.363 (Max 1960)


def test_table_is_the_committed_result_and_meets_what_it_promises():
    result = json.loads((ROOT / "results" / "demo.json").read_text())
    assert compare.markdown(result["rows"]) in (ROOT / "README.md").read_text()
    rows = {(row["code"], row["weights"]): row for row in result["rows"]}
    dense, spikes = rows["float32", "dense"], rows["phase", "trained with spikes"]
    assert dense["accuracy"] >= 0.96
    assert spikes["accuracy"] >= dense["accuracy"] - 0.015
    assert spikes["bits_per_feature"] == 1


@pytest.mark.parametrize("name", ["fashion", "topics", "gutenberg"])
def test_the_longer_runs_are_the_committed_results_and_meet_what_they_promise(name):
    result = json.loads((ROOT / "results" / f"{name}.json").read_text())
    text = (ROOT / "README.md").read_text()
    assert compare.markdown(result["rows"]) in text
    for command in result["commands"].values():
        assert command.replace("python ", ".venv/bin/python ", 1) in text
    rows = {(row["code"], row["weights"]): row for row in result["rows"]}
    dense, spikes = rows["float32", "dense"], rows["phase", "trained with spikes"]
    assert spikes["bits_per_feature"] == 1
    if name == "fashion":
        assert dense["accuracy"] >= 0.91
        assert spikes["accuracy"] >= dense["accuracy"] - 0.005
    else:
        assert spikes["loss"] <= 1.03 * dense["loss"]


def test_the_distilled_models_are_the_committed_result():
    result = json.loads((ROOT / "results" / "minilm.json").read_text())
    assert compare.markdown(result["rows"]) in (ROOT / "README.md").read_text()
    assert {row["samples"] for row in result["rows"]} == {1500}
    score = {(row["weights"], compare.WHAT["boundary"](row), row["bytes_per_token_and_hop"]):
             row["spearman"] for row in result["rows"]}  # fmt: skip
    on_pairs, plain = "distilled on pairs for 338 steps", "distilled for 312 steps"
    for training in (plain, on_pairs):
        taught = [row for row in result["rows"] if row["weights"] == training]
        assert {row["code"] for row in taught} >= {"phase", "int8", "int4", "int2", "topk"}
        spikes = {row["bytes_per_token_and_hop"]: row["spearman"] for row in taught
                  if row["code"] == "phase" and row["boundary"]["steps"] > 1}  # fmt: skip
        assert {6, 12, 24, 48} <= spikes.keys()
        rivals = {compare.WHAT["boundary"](row): row for row in taught}
        for name, sent in (("phase, 1 step", 48), ("topk", 48), ("int2", 98)):
            assert rivals[name]["bytes_per_token_and_hop"] == sent
            assert rivals[name]["spearman"] < spikes[48]
    dense = score["dense", "float32", 1536]
    assert score[on_pairs, "phase", 48] > dense
    assert score["distilled on pairs for 1690 steps", "phase", 48] > score[on_pairs, "phase", 48]
    assert dense > score["distilled boundaries alone on pairs for 338 steps", "phase", 48]
    assert score[on_pairs, "float32", 1536] > max(score[on_pairs, "phase", 48], dense)
    assert score[on_pairs, "phase", 12] >= 0.845
    for sent in (6, 12, 24, 48):
        assert score[on_pairs, "phase", sent] > score[plain, "phase", sent]


def test_the_table_of_times_is_of_the_committed_bench():
    rows = json.loads((ROOT / "results" / "bench_train.json").read_text())["rows"]
    text = (ROOT / "README.md").read_text()
    for row in rows:
        assert (
            f"| `{row['model']}` | {row['pass']} | {row['run']} | {1e3 * row['seconds']:.0f} | "
            f"{row['samples_per_second']:.0f} | {row['tokens_per_second']:.0f} | "
            f"{row['time_over_ann']:.3f} |"
        ) in text
    shares = [row["boundary_share"] for row in rows if row["boundary_share"] is not None]
    assert len(shares) == 4
    assert max(shares) < 0.05


def test_the_table_of_costs_is_of_the_committed_studies():
    rows = lambda name: json.loads((ROOT / "results" / f"{name}.json").read_text())["rows"]
    studies = {
        "snap-mesh": rows("cost_scaling"),
        "ethernet-1g": rows("cost_scaling_ethernet_1g"),
    }
    assert cost_study.markdown(studies) in (ROOT / "README.md").read_text()
