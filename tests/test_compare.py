"""The table of boundaries: its columns, and the script that scores models into one."""

import json

import pytest
from command_lines import cli

from snapjax.boundary import Boundary
from zoo.evaluation import compare, tables
from zoo.evaluation.inputs import spec_for
from zoo.evaluation.score import score_any
from zoo.pretrained.load import load_pretrained
from zoo.pretrained.warm_start import partition
from zoo.utils.files import write_json
from zoo.utils.progress import silent

DENSE, SPIKING = "vit_nano_patch2_8.ann_digits", "vit_nano_patch2_8.hnn_digits"


def test_a_row_counts_what_is_sent():
    row = compare.record(Boundary(384, "phase", budget=96), "x", {"spearman": 0.8}, None)
    assert row["bytes_per_token_and_hop"] == 12
    assert row["bits_per_feature"] == 0.25
    assert row["times_fewer_than_bfloat16"] == 64
    assert compare.markdown([row]).splitlines() == [
        "| boundary | weights | Spearman | bytes a token and hop | fewer than float32 "
        "| than bfloat16 |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        "| phase | x | 0.8000 | 12 | 128x | 64x |",
    ]


def test_columns_are_the_scores_that_all_rows_have():
    boundary = Boundary(8, "phase")
    rows = [
        compare.record(boundary, "x", {"accuracy": 0.5, "loss": 1.0}, 0.25),
        compare.record(boundary, "y", {"loss": 2.0}, None),
    ]
    lines = compare.markdown(rows).splitlines()
    assert "accuracy" not in lines[0]
    assert lines[2].split(" | ")[2] == "1.0000"
    assert lines[2].endswith("| 0.250 |")
    assert lines[3].endswith("| - |")


def test_the_origin_of_weights():
    run = lambda variant, trains, key="trains": {
        "config": {"model": {"variant": variant}, "train": {key: trains}}
    }
    fitted, taught = {"calibration": {}}, {"teacher": {}, "step": 9}
    assert compare.weights_of(run("ann", "all") | fitted) == "dense, calibrated"
    assert compare.weights_of(run("hnn", "all")) == "trained"
    assert compare.weights_of(run("hnn", "all") | taught) == "distilled for 9 steps"
    pairs = run("hnn", "all") | taught
    pairs["config"]["distill"] = {"similarity": 3.0}
    assert compare.weights_of(pairs) == "distilled on pairs for 9 steps"
    alone = run("hnn", "boundaries") | taught
    assert compare.weights_of(alone) == "distilled boundaries alone for 9 steps"
    assert compare.weights_of(run("hnn", "boundaries", "trainable") | taught) == (
        "distilled boundaries alone for 9 steps"
    )
    assert (
        compare.weights_of(alone | fitted) == "distilled boundaries alone for 9 steps, calibrated"
    )


def test_the_script(tmp_path):
    out = tmp_path / "table.json"
    done = cli(
        "compare", "models", DENSE, SPIKING, "--data", "digits", "--codes", "int2", "--out", out
    )
    assert done.returncode == 0, done.stderr
    assert out.with_suffix(".png").is_file()
    result = json.loads(out.read_text())
    assert compare.markdown(result["rows"]) in done.stdout
    int2, spikes = result["rows"]
    dense = load_pretrained(DENSE)
    wired = partition(dense, stages=4, boundary=Boundary(dense.model.config.width, "int2"))
    wanted = [score_any(one, spec_for(one, None, ())) for one in (wired, load_pretrained(SPIKING))]
    assert [int2["accuracy"], spikes["accuracy"]] == [one["accuracy"] for one in wanted]
    assert [int2["weights"], spikes["weights"]] == ["dense", "trained"]
    assert spikes["bytes_per_token_and_hop"] == 8
    more = ("--codes", "", "--out", out, "--append", "--json")
    done = cli("compare", "models", DENSE, SPIKING, "--data", "digits", *more)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == result
    assert json.loads(out.read_text()) == result
    assert spikes["spike_rate"] == pytest.approx(0.5, abs=0.1)


def test_a_table_without_the_dense_model_is_refused(tmp_path):
    """Before anything is loaded; --append has its rows in the table."""
    out = tmp_path / "table.json"
    for codes in ("", " , "):
        done = cli("compare", "models", "absent", "absent", "--data", "x", "--codes", codes,
                   "--out", out)  # fmt: skip
        assert done.returncode == 2
        assert "leaves the dense model out of the table; name at least one code" in done.stderr


def test_rows_are_added_to_a_table_and_replace_those_of_their_name():
    row = lambda weights, score, code="int4", budget=96: compare.record(
        Boundary(96, code, budget=budget), weights, {"accuracy": score}, None
    )
    before = [row("dense", 0.1), row("trained", 0.2), row("trained", 0.3, "topk")]
    new = [row("trained", 0.4), row("trained", 0.5, "topk", 48), row("dense", 0.6, "int8")]
    rows = compare.added(before, new)
    assert [one["accuracy"] for one in rows] == [0.1, 0.3, 0.4, 0.5, 0.6]
    # Two seeds of one training are two rows.
    twice = compare.added([], [row("trained", 0.4), row("trained", 0.5)])
    assert [one["accuracy"] for one in twice] == [0.4, 0.5]


def test_rows_that_another_command_adds_meanwhile_are_kept(tmp_path):
    out, dense, spiking = tmp_path / "table.json", load_pretrained(DENSE), load_pretrained(SPIKING)
    table = tables.of_models(dense, [spiking], "digits", codes=[])
    write_json(out, {**table, "rows": []})
    other = compare.record(Boundary(64, "int8"), "dense", {"accuracy": 0.5, "loss": 1.0}, None)

    def begin(what, total):
        write_json(out, {**table, "rows": [other]})
        return silent(what, total)

    again = tables.of_models(dense, [spiking], "digits", codes=[], earlier=out, progress=begin)
    assert again["rows"] == [other, *table["rows"]]


def test_a_table_of_something_else_is_not_added_to(tmp_path):
    out = tmp_path / "table.json"
    rows = [compare.record(Boundary(96, "int8"), "dense", {"accuracy": 0.5}, None)]
    write_json(out, {"model": "a", "data": "dev.tsv", "rows": rows})
    assert compare.rows_of(out, {"model": "a", "data": "dev.tsv"}) == rows
    with pytest.raises(ValueError, match=r"a table of data='dev.tsv', and these rows are of 'x'"):
        compare.rows_of(out, {"model": "a", "data": "x"})
    with pytest.raises(ValueError, match="nowhere"):
        compare.rows_of(tmp_path / "nowhere.json", {})
    for damaged in ({}, {"rows": 3}, {"rows": [{"code": "int8"}]}, {"rows": ["int8"]}):
        write_json(out, damaged)
        with pytest.raises(ValueError, match=r"table.json: has no rows as `snapjax compare mo"):
            compare.rows_of(out, {})


def test_runs_that_are_not_finished_are_not_compared(tmp_path):
    with pytest.raises(ValueError, match=r"has no summary\.json, .* go on with it by --resume"):
        tables.of_runs(tmp_path, tmp_path, "none")
