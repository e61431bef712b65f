"""The tables of the docs are the committed results, and these meet what the docs say of them."""

import importlib.util
import json
import re

import pytest
from documents import ROOT, pages

from zoo.cost import scaling
from zoo.evaluation import compare


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make_docs():
    return load(ROOT / "scripts" / "make_docs.py")


def result(name):
    return json.loads((ROOT / "results" / f"{name}.json").read_text())


def trained_spikes(run):
    (found,) = (
        row
        for row in run["rows"]
        if row["code"] == "phase" and row["weights"] != "dense, calibrated"
    )
    return found


def page(name):
    return (ROOT / "docs" / "results" / f"{name}.md").read_text()


def assert_shown(rows, text):
    """A page has a table of boundaries, line by line; columns of costs follow those of quality."""
    want = compare.markdown(rows).splitlines()
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith(want[0])]
    tables = [lines[i : i + len(want)] for i in starts]
    assert any(
        all(line.startswith(part) for line, part in zip(table, want, strict=True))
        and all(
            line.count("|") == part.count("|") + 2 for line, part in zip(table, want, strict=True)
        )
        for table in tables
    )


def test_the_pages_are_up_to_date(make_docs, capsys):
    assert make_docs.main(["--check"]) == 0, capsys.readouterr().out


def test_a_page_that_is_not_is_named(make_docs, monkeypatch, capsys):
    stale = {ROOT / "README.md": "another text"}
    monkeypatch.setattr(make_docs, "made", lambda: stale)
    assert make_docs.main(["--check"]) == 1
    assert capsys.readouterr().out.startswith("README.md: out of date")


def test_every_block_is_used(make_docs):
    text = "".join(path.read_text() for path in pages())
    for name in make_docs.figures().BLOCKS:
        assert f"<!-- make_docs: {name} -->" in text


def test_every_result_has_a_table_or_is_named_beside_its_figures(make_docs, monkeypatch):
    """Read by a block or a picture as it is made, or named in a page with its folder."""
    figures = make_docs.figures()
    read, load_result = set(), figures.result
    monkeypatch.setattr(figures, "result", lambda name: read.add(name) or load_result(name))
    for made in (*figures.BLOCKS.values(), *figures.PICTURES.values()):
        made()
    named = set(re.findall(r"`results/(\w+)\.json`", page("cost")))
    assert {path.stem for path in (ROOT / "results").glob("*.json")} == read | named


def test_the_demo_meets_what_it_promises():
    demo = result("demo")
    assert_shown(demo["rows"], page("demo"))
    (dense,) = (row for row in demo["rows"] if row["code"] == "float32")
    calibrated, distilled = (
        row for row in demo["rows"] if row["code"] == "phase" and row["bits_per_feature"] == 1
    )
    assert calibrated["weights"] == "dense, calibrated"
    assert distilled["weights"].startswith("distilled for ")
    assert dense["accuracy"] >= 0.96
    assert calibrated["accuracy"] >= dense["accuracy"] - 0.010
    assert distilled["accuracy"] >= dense["accuracy"] - 0.006


def test_the_table_over_seeds_is_of_its_runs():
    """Least, mean and most are computed again of the runs themselves."""
    seeds, text = result("demo_seeds"), page("demo")
    points = {}
    for run in seeds["runs"]:
        dense, *others = run["rows"]
        assert (dense["code"], dense["weights"]) == ("float32", "dense")
        for row in others:
            key = row["code"], row["weights"], row["bytes_per_token_and_hop"]
            points.setdefault(key, []).append(100 * (row["accuracy"] - dense["accuracy"]))
        assert re.search(rf"`{run['isa']}` with seeds? [\d, ]*\b{run['seed']}\b", text)
    for (code, weights, sent), found in points.items():
        least, mean, most = min(found), sum(found) / len(found), max(found)
        assert (
            f"| {code} | {weights} | {sent} | {len(found)} | {least:+.2f} | {mean:+.2f} | "
            f"{most:+.2f} |"
        ) in text


@pytest.mark.parametrize("name", ["fashion", "topics", "gutenberg"])
def test_the_longer_runs_are_the_committed_results_and_meet_what_they_promise(name):
    run, text = result(name), page("longer_runs")
    assert_shown(run["rows"], text)
    for command in run["commands"].values():
        assert command.replace("python scripts/train.py", "snapjax train", 1) in text
    (dense,) = (row for row in run["rows"] if row["code"] == "float32")
    spikes = trained_spikes(run)
    assert spikes["bits_per_feature"] == 1
    if name == "fashion":
        assert dense["accuracy"] >= 0.91
        assert spikes["accuracy"] >= dense["accuracy"] - 0.005
    else:
        assert spikes["loss"] <= 1.03 * dense["loss"]


def test_int4_loses_less_than_the_spikes_and_int2_on_the_books_alone():
    for name in ("fashion", "topics", "gutenberg"):
        loss = {(row["code"], row["weights"]): row["loss"] for row in result(name)["rows"]}
        spikes = trained_spikes(result(name))["loss"]
        assert loss["int4", "dense"] < spikes
        assert (loss["int2", "dense"] < spikes) == (name == "gutenberg")


def test_the_distilled_models_are_the_committed_result():
    minilm = result("minilm")
    assert_shown(minilm["rows"], page("minilm"))
    assert {row["samples"] for row in minilm["rows"]} == {1500}
    score = {(row["weights"], compare.WHAT["boundary"](row), row["bytes_per_token_and_hop"]):
             row["spearman"] for row in minilm["rows"]}  # fmt: skip
    on_pairs, plain = "distilled on pairs for 338 steps", "distilled for 312 steps"
    for training in (plain, on_pairs):
        taught = [row for row in minilm["rows"] if row["weights"] == training]
        assert {row["code"] for row in taught} >= {"phase", "int8", "int4", "int2", "topk"}
        spikes = {row["bytes_per_token_and_hop"]: row["spearman"] for row in taught
                  if row["code"] == "phase" and row["boundary"]["steps"] > 1}  # fmt: skip
        assert {6, 12, 24, 48} <= spikes.keys()
        others = {compare.WHAT["boundary"](row): row for row in taught}
        for name, sent in (("phase, 1 step", 48), ("topk", 48), ("int2", 98)):
            assert others[name]["bytes_per_token_and_hop"] == sent
            assert others[name]["spearman"] < spikes[48]
    dense = score["dense", "float32", 1536]
    assert score[on_pairs, "phase", 48] > dense
    assert score["distilled on pairs for 1690 steps", "phase", 48] > score[on_pairs, "phase", 48]
    assert dense > score["distilled boundaries alone on pairs for 338 steps", "phase", 48]
    assert score[on_pairs, "float32", 1536] > max(score[on_pairs, "phase", 48], dense)
    assert score[on_pairs, "phase", 12] >= 0.845
    for sent in (6, 12, 24, 48):
        assert score[on_pairs, "phase", sent] > score[plain, "phase", sent]


def test_the_readme_has_the_wires_of_the_same_table():
    text = (ROOT / "README.md").read_text()
    for row in result("minilm")["rows"]:
        if row["weights"] == "distilled on pairs for 338 steps" and (
            row["code"] != "phase"
            or (row["bytes_per_token_and_hop"] >= 12 and row["boundary"]["steps"] > 1)
        ):
            cells = f"| {row['bytes_per_token_and_hop']} | "
            found = [line for line in text.splitlines() if cells in line]
            assert any(f"| {row['spearman']:.4f} | " in line for line in found)


def test_the_table_of_times_is_of_the_committed_bench():
    rows, text = result("bench_train")["rows"], page("speed")
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
    studies = {
        "snap-mesh": result("cost_scaling")["rows"],
        "ethernet-1g": result("cost_scaling_ethernet_1g")["rows"],
    }
    assert scaling.markdown(studies) in page("cost")


def test_every_row_of_a_table_has_the_cost_of_its_own_boundary():
    tables = result("cost_quality")["tables"]
    for name, costs in tables.items():
        rows = result(name)["rows"]
        assert len(costs) == len(rows)
        for row, cost in zip(rows, costs, strict=True):
            if "boundary" in row:
                for key in ("features", "code", "steps", "budget", "rank"):
                    assert cost["boundary"][key] == row["boundary"][key]
                assert cost["rate"] == row["spike_rate"] or cost["rate"] == 1.0
            else:
                assert cost["boundary"]["budget"] == row["bits_per_token"]
                assert cost["boundary"]["rank"] == cost["boundary"]["features"]
            # Ethernet: microbatches x tokens x hops x bytes, as its table says.
            if "bytes_per_token_and_hop" in row:
                tokens = {"minilm": 128, "demo": 16, "fashion": 49, "topics": 128, "gutenberg": 128}
                hops = result(name)["stages"] - 1
                sent = 32 * tokens[name] * hops * row["bytes_per_token_and_hop"]
                assert cost["hop_bytes"] == sent
            if cost["boundary"]["code"] == "float32":
                for profile in ("snap-mesh", "ethernet-1g"):
                    assert cost[profile]["margin"] == {"energy_pj": 1.0, "latency_s": 1.0}


def test_what_the_readme_says_of_energy():
    """Per cent more energy than float32: MiniLM's trained spikes, and spikes without matrices."""
    (found,) = [
        cost
        for row, cost in zip(
            result("minilm")["rows"], result("cost_quality")["tables"]["minilm"], strict=True
        )
        if (row["code"], row["bytes_per_token_and_hop"], row["weights"], row["boundary"]["steps"])
        == ("phase", 48, "distilled on pairs for 338 steps", 8)
    ]
    more = lambda profile: round(100 * (1 / found[profile]["margin"]["energy_pj"] - 1))
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"for MiniLM {more('snap-mesh')} % more than float32 over short die-to-die" in text
    assert f"links and {more('ethernet-1g')} % more over 1 Gb/s Ethernet, where they save" in text
    assert found["ethernet-1g"]["margin"]["latency_s"] > 1
    saved = {
        variant: round(
            100
            * max(
                1 - 1 / row["margin"]["energy_pj"]
                for row in result("cost_scaling_ethernet_1g")["rows"]
                if row["variant"] == variant
            )
        )
        for variant in ("hnn", "ann_int8")
    }
    assert f"save up to {saved['hnn']} % of energy over Ethernet" in text
    assert f"int8 up to {saved['ann_int8']} %" in text


def test_what_was_cut_without_training():
    rows = result("calibrated")["rows"]
    assert [row["bits_per_feature"] for row in rows if row["model"] == "minilm_l6"] == [
        0.25, 0.5, 1, 1.5, 2,
    ]  # fmt: skip
    for row in rows:
        width = {"minilm_l6": 384, "vit_nano_patch2_8.ann_digits": 64, "vit_tiny_patch4_28": 144}
        assert row["bits_per_token"] == row["bits_per_feature"] * width[row["model"]]
