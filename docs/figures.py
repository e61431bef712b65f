"""The tables, findings and pictures of the docs, each made of a file of results/.

`scripts/make_docs.py` puts them into the pages. A finding is a sentence whose numbers are computed
here, so that it cannot say anything but what the table beside it says.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from figures import pictures  # docs/pictures.py: `scripts/make_docs.py` loads both

from zoo.cost import quality, scaling
from zoo.evaluation import compare

RESULTS = Path(__file__).resolve().parents[1] / "results"
Row = Mapping[str, Any]

PAIRS, SENTENCES = "distilled on pairs for 338 steps", "distilled for 312 steps"
CALIBRATED = "dense, calibrated"
LONGER_RUNS = ("fashion", "topics", "gutenberg")


@cache
def result(name: str) -> Any:
    """A file of results/."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def lines(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: int) -> str:
    """A Markdown table whose last `numbers` columns are aligned to the right."""
    rule = ["---"] * (len(head) - numbers) + ["---:"] * numbers
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def with_costs(name: str) -> str:
    """A table of boundaries side by side, with the cost of each."""
    rows = result(name)["rows"]
    columns = {title: list(map(show, rows)) for title, show in compare.columns_of(rows).items()}
    columns |= quality.columns(result("cost_quality")["tables"][name])
    left = sum(title in compare.WHAT for title in columns)
    return lines(list(columns), list(zip(*columns.values(), strict=True)), len(columns) - left)


def spearman(code: str, sent: int, weights: str = PAIRS) -> float:
    """A score of results/minilm.json by boundary, bytes and training."""
    (found,) = (
        row["spearman"]
        for row in result("minilm")["rows"]
        if (compare.WHAT["boundary"](row), row["bytes_per_token_and_hop"], row["weights"])
        == (code, sent, weights)
    )
    return found


def signed(value: float) -> str:
    """A difference of scores, with its sign."""
    return f"{value:+.3f}"


# ---------------------------------------------------------------------------------- all-MiniLM


def readme_wires() -> str:
    """The wires that a user would pick, trained alike."""
    shown = (
        ("float32", "float32", 1536, PAIRS),
        ("bfloat16 (dense weights, not trained)", "bfloat16", 768, "dense"),
        ("int8", "int8", 386, PAIRS),
        ("int4", "int4", 194, PAIRS),
        ("int2", "int2", 98, PAIRS),
        ("**spikes, 1 bit a feature**", "phase", 48, PAIRS),
        ("top-k", "topk", 48, PAIRS),
        ("**spikes, half a bit a feature**", "phase", 24, PAIRS),
        ("**spikes, a quarter of a bit**", "phase", 12, PAIRS),
    )
    every, costs = result("minilm")["rows"], result("cost_quality")["tables"]["minilm"]
    key = lambda row: (
        compare.WHAT["boundary"](row), row["bytes_per_token_and_hop"], row["weights"],
    )  # fmt: skip
    found = {key(row): (row, cost) for row, cost in zip(every, costs, strict=True)}
    rows = [["dense model, not cut", "-", "-", f"{spearman('float32', 1536, 'dense'):.4f}", "-"]]
    for name, *which in shown:
        row, cost = found[tuple(which)]
        sent, (less,) = row["bytes_per_token_and_hop"], quality.cells([cost], "ethernet-1g")
        rows.append([name, str(sent), f"{768 / sent:.3g}x", f"{row['spearman']:.4f}", less])
    head = ["wire", "bytes a token and hop", "fewer than bfloat16", "Spearman", "less energy, time"]
    return lines(head, rows, numbers=4)


def minilm_table() -> str:
    """Every row of results/minilm.json."""
    return with_costs("minilm")


def minilm_findings() -> str:
    """What the table of MiniLM says."""
    dense = spearman("float32", 1536, "dense")
    one, half = spearman("phase", 48), spearman("phase", 24)
    full = spearman("float32", 1536)
    alone = spearman("phase", 48, "distilled boundaries alone on pairs for 338 steps")
    signs = max(spearman("phase, 1 step", 48, weights) for weights in (PAIRS, SENTENCES))
    topk = spearman("topk", 48)
    gain = {sent: spearman("phase", sent) - spearman("phase", sent, SENTENCES)
            for sent in (48, 24, 12, 6)}  # fmt: skip
    wires = (("int8", 386), ("int4", 194), ("int2", 98), ("topk", 48), ("phase, 1 step", 48))
    other = {code: spearman(code, sent) - spearman(code, sent, SENTENCES) for code, sent in wires}
    no_similarity = spearman("phase", 48, "distilled for 338 steps")
    found = [
        f"At 1 bit a feature the spikes trained on pairs score {one:.4f}, the dense model that "
        f"taught them {dense:.4f}. A float32 wire trained in the same way scores {full:.4f}: its "
        "student begins as a copy of the teacher and has nothing to learn, drifts from it (mean "
        f"cosine 0.99 in the end) and gains {full - dense:.3f}, which nothing in the loss asks "
        f"for. Against that row the spikes lose {full - one:.3f}. Trained boundaries alone, which "
        f"cannot drift so, lose {dense - alone:.3f} of the dense model's {dense:.4f}.",
        f"At equal bytes (48), one spike step (a sign for each feature) loses {dense - signs:.3f} "
        f"of {dense:.4f} at its best, and top-k {dense - topk:.3f}. int2 loses "
        f"{dense - spearman('int2', 98):.3f} at twice the bytes. int4 and int8, at four and eight "
        f"times the bytes and trained alike, score {spearman('int4', 194) - one:.3f} and "
        f"{spearman('int8', 386) - one:.3f} more than the spikes: if you can afford 194 bytes, "
        "you do not need spikes.",
        f"Training on pairs changes the spikes' score by {signed(gain[48])} at 1 bit, "
        f"{signed(gain[24])} at half a bit, {signed(gain[12])} at a quarter and {signed(gain[6])} "
        f"at an eighth; int2's by {signed(other['int2'])}, top-k's by {signed(other['topk'])}, "
        f"int4's by {signed(other['int4'])}, int8's by {signed(other['int8'])}, and that of one "
        f"spike step by {signed(other['phase, 1 step'])}. At 1 bit about half of the gain comes "
        f"from the pairs as data alone, without the similarity ({no_similarity:.4f}).",
        f"Half a bit stops at about 0.862 of the dense {dense:.3f}: 338 steps score {half:.4f}, "
        f"10 epochs {spearman('phase', 24, 'distilled on pairs for 1690 steps'):.4f}, 13 epochs "
        "with fewer sentences cut off "
        f"{spearman('phase', 24, 'distilled on pairs for 2197 steps'):.4f}, and twice the pairs "
        f"{spearman('phase', 24, 'distilled on pairs for 1356 steps'):.4f}, although the cosine "
        "to the teacher was still rising (0.92 on held-out pairs, in the second-to-last run).",
    ]
    return "\n".join(f"- {text}" for text in found)


def minilm_bits() -> str:
    """What calibration alone reaches on MiniLM, bit for bit."""
    rows = [row for row in result("calibrated")["rows"] if row["model"] == "minilm_l6"]
    head = ["bits a feature", *(f"{row['bits_per_feature']}" for row in rows), "dense"]
    bits = ["bits a token", *(str(row["bits_per_token"]) for row in rows), "12288"]
    score = ["Spearman", *(f"{row['value']:.3f}" for row in rows), f"{rows[0]['dense']:.3f}"]
    return lines(head, [bits, score], numbers=len(head) - 1)


def calibrated_table() -> str:
    """All that was cut without training."""
    rows = [
        [f"`{row['model']}`", row["data"], str(row["stages"] - 1), str(row["steps"]),
         f"{row['bits_per_feature']}", row["score"],
         f"{row['value']:.{3 if row['score'] == 'Spearman' else 4}f}", f"{row['dense']:.4f}"]
        for row in result("calibrated")["rows"]
    ]  # fmt: skip
    head = ["model", "scored on", "cuts", "steps", "bits a feature", "score", "cut", "dense"]
    for title, cells in quality.columns(result("cost_quality")["tables"]["calibrated"]).items():
        head.append(title)
        for row, cell in zip(rows, cells, strict=True):
            row.append(cell)
    return lines(head, rows, numbers=4)


# ------------------------------------------------------------------------- runs of the trainer


def demo_table() -> str:
    """The demo's boundaries side by side."""
    return with_costs("demo")


def demo_findings() -> str:
    """What the wires of the demo lose against its dense model, and what training changes."""
    rows = result("demo")["rows"]
    (dense,) = (row for row in rows if row["code"] == "float32")
    samples = dense["samples"]
    found = []
    for row in rows:
        if row["boundary"]["code"] == "phase":
            points = 100 * (row["accuracy"] - dense["accuracy"])
            found.append(
                f"- Spikes at {row['bits_per_feature']:g} bit a feature, *{row['weights']}*: "
                f"{row['accuracy']:.4f}, {points:+.2f} points against the dense model's "
                f"{dense['accuracy']:.4f}, at {row['times_fewer_than_bfloat16']:.3g} times fewer "
                "bytes than bfloat16."
            )
    most = max(
        round(samples * (dense["accuracy"] - row["accuracy"]))
        for row in rows
        if row["code"] in ("int8", "int4") and row["weights"] == "dense"
    )
    lost = f"at most {most} image{'' if most == 1 else 's'}" if most > 0 else "no image"
    found.append(
        f"- int8 and int4 lose {lost} here, with nothing trained for them, so they are the fair "
        "baselines where their bytes can be afforded."
    )
    changes = [
        f"{code} at {sent} bytes {100 * (after['accuracy'] - before['accuracy']):+.2f} points and "
        f"{after['loss'] / before['loss'] - 1:+.0%}"
        for (code, sent), before, after in distilled_pairs(rows)
    ]
    found.append(
        f"- What distillation changes in accuracy and in cross-entropy: {'; '.join(changes)}."
    )
    found.append(
        f"- {samples} images make steps of {100 / samples:.2f} points: differences of one or two "
        "steps are chance."
    )
    return "\n".join(found)


def distilled_pairs(rows: Sequence[Row]) -> list[tuple[tuple[str, int], Row, Row]]:
    """(code, bytes), the row before its distillation and the row after it."""
    key = lambda row: (row["code"], row["bytes_per_token_and_hop"])
    before = {key(row): row for row in rows if row["weights"] in ("dense", CALIBRATED)}
    return [(key(row), before[key(row)], row) for row in rows
            if row["weights"].startswith("distilled")]  # fmt: skip


def demo_seeds() -> str:
    """How far the demo's accuracies are from those of its dense model, over seeds and machines."""
    about = result("demo_seeds")
    rows = [
        [row["code"], row["weights"], str(row["bytes_per_token_and_hop"]), str(row["runs"]),
         f"{row['least']:+.2f}", f"{row['mean']:+.2f}", f"{row['most']:+.2f}"]
        for row in about["spread"]
        if row["code"] != "float32"
    ]  # fmt: skip
    seeds: dict[str, list[int]] = {}
    for run in about["runs"]:
        seeds.setdefault(run["isa"], []).append(run["seed"])
    listed = "; ".join(
        f"`{isa}` with seed{'' if len(each) == 1 else 's'} {', '.join(map(str, sorted(each)))}"
        for isa, each in seeds.items()
    )
    count = len(about["runs"])
    head = ["boundary", "weights", "bytes a token and hop", "runs", "least", "mean", "most"]
    said = (
        f"{count} run{'' if count == 1 else 's'} on {about['machine']}. Instruction sets: {listed}."
    )
    return f"{lines(head, rows, numbers=5)}\n\n{said}"


def longer_table(name: str) -> Callable[[], str]:
    """The table of one of the longer runs."""
    return lambda: with_costs(name)


def longer_commands(name: str) -> Callable[[], str]:
    """The commands of one of the longer runs, as they are typed now."""

    def block() -> str:
        said = result(name)["commands"].values()
        typed = [command.replace("python scripts/train.py", "snapjax train") for command in said]
        return "\n".join(["```", *typed, "```"])

    return block


def longer_times(name: str) -> Callable[[], str]:
    """How long they took."""

    def block() -> str:
        about = result(name)
        dense, hybrid = (round(minutes) for minutes in about["minutes"].values())
        return (
            f"`{about['model']}`, {about['parameters'] / 1e6:.1f} M parameters with its "
            f"boundaries. {dense} minutes dense and {hybrid} more for the hybrid, on "
            f"{about['hardware']}."
        )

    return block


def row_of(name: str, code: str, weights: str) -> Row:
    """The row of a table by its boundary and weights."""
    (found,) = (
        row for row in result(name)["rows"] if (row["code"], row["weights"]) == (code, weights)
    )
    return found


def trained_spikes(name: str) -> Row:
    """The row of a table whose spikes were trained, which newer files call distilled."""
    (found,) = (row for row in result(name)["rows"]
                if row["code"] == "phase" and row["weights"] != CALIBRATED)  # fmt: skip
    return found


def longer_findings() -> str:
    """What the three longer runs lose against their dense model."""
    rows = []
    for name in LONGER_RUNS:
        dense, spikes = row_of(name, "float32", "dense"), trained_spikes(name)
        others = (("phase", CALIBRATED), ("int4", "dense"), ("int2", "dense"))
        for row in (spikes, *(row_of(name, *each) for each in others)):
            ratio = row["bytes_per_token_and_hop"] / spikes["bytes_per_token_and_hop"]
            points = 100 * (row["accuracy"] - dense["accuracy"])
            loss = 100 * (row["loss"] / dense["loss"] - 1)
            rows.append([name, row["code"], row["weights"], f"{ratio:.1f}x",
                         f"{points:+.1f} points", f"{loss:+.1f} %"])  # fmt: skip
    head = ["run", "boundary", "weights", "bytes, of the spikes'", "accuracy", "cross-entropy"]
    return lines(head, rows, numbers=3)


# --------------------------------------------------------------------------- speed and the cost


def bench_table() -> str:
    """Speed of training, and the boundaries' share."""
    rows = [
        [f"`{row['model']}`", row["pass"], row["run"], f"{1e3 * row['seconds']:.0f}",
         f"{row['samples_per_second']:.0f}", f"{row['tokens_per_second']:.0f}",
         f"{row['time_over_ann']:.3f}"]
        for row in result("bench_train")["rows"]
    ]  # fmt: skip
    head = ["model", "step", "run", "ms", "samples/s", "tokens/s", "time / dense"]
    return lines(head, rows, numbers=4)


def bench_findings() -> str:
    """What the speeds say."""
    rows = result("bench_train")["rows"]
    shares = [row["boundary_share"] for row in rows if row["boundary_share"] is not None]
    waits = [row["waiting_share"] for row in rows if "waiting_share" in row]
    return (
        f"The boundaries take {min(shares):+.1%} to {max(shares):+.1%} of a step (a negative share "
        f"is noise between rounds), and a step waits for its input for at most {max(waits):.2%} of "
        "its time."
    )


def cost_table() -> str:
    """Margins over the dense model on two profiles."""
    studies = {"snap-mesh": "cost_scaling", "ethernet-1g": "cost_scaling_ethernet_1g"}
    return scaling.markdown({name: result(file)["rows"] for name, file in studies.items()})


def cost_findings() -> str:
    """What boundaries take more or less than float32, over all widths and devices."""
    steps = (("a forward pass", ""), ("a whole training step", "_train"))
    stems = (("snap-mesh", "cost_scaling"), ("ethernet-1g", "cost_scaling_ethernet_1g"))
    return "\n".join(
        f"- In {step} on `{profile}`, against float32: "
        f"{scaling.finding(result(f'{stem}{suffix}')['rows'])}."
        for step, suffix in steps
        for profile, stem in stems
    )


def latency_table() -> str:
    """Predicted against measured time."""
    rows = [
        [f"`{row['model']}`", row["step"], f"{1e3 * row['predicted']:.3g}",
         f"{1e3 * row['measured']:.3g}", f"{100 * row['error']:+.0f} %"]
        for row in result("latency")["rows"]
    ]  # fmt: skip
    head = ["model", "step", "predicted ms", "measured ms", "error"]
    return f"{lines(head, rows, numbers=3)}\n\nMean error: {result('latency')['mean_error']:.0%}."


def minilm_picture() -> str:
    """Spearman against bytes of every wire that was trained on pairs, as SVG."""
    rows = [row for row in result("minilm")["rows"] if row["weights"] == PAIRS]
    return pictures.scores_against_bytes(rows, spearman("float32", 1536, "dense"))


PICTURES: dict[str, Callable[[], str]] = {"minilm.svg": minilm_picture}

BLOCKS: dict[str, Callable[[], str]] = {
    made.__name__: made
    for made in (
        readme_wires, minilm_table, minilm_findings, minilm_bits, calibrated_table, demo_table,
        demo_findings, demo_seeds, longer_findings, bench_table, bench_findings, cost_table,
        cost_findings,
        latency_table,
    )
}  # fmt: skip
for each in LONGER_RUNS:
    BLOCKS[f"{each}_table"] = longer_table(each)
    BLOCKS[f"{each}_commands"] = longer_commands(each)
    BLOCKS[f"{each}_times"] = longer_times(each)
