"""Pictures of runs and of tables of models."""

import pytest
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.text import Text

from snapjax.boundary import Boundary
from zoo.evaluation import compare, plots
from zoo.train import curves
from zoo.utils.notes import Note


def test_runs_of_long_names_are_all_drawn(tmp_path, monkeypatch):
    """Names are shortened where that tells them apart."""
    drawn, plot = set(), Axes.plot

    def note(axes, *arguments, **options):
        drawn.add(options.get("label"))
        return plot(axes, *arguments, **options)

    monkeypatch.setattr(Axes, "plot", note)
    line = {"kind": "evaluation", "step": 1, "loss": 1.0, "accuracy": 0.5}
    for first, second in (("a", "b"), ("a" * 30, "b" * 30), ("a" + "c" * 30, "b" + "c" * 30)):
        drawn.clear()
        curves.runs(tmp_path / "both.png", {first: [line], second: [line]})
        assert len(drawn - {None}) == 2, (first, second)
    folders = [tmp_path / "one" / "run", tmp_path / "two" / "run"]
    assert curves.names(folders) == [str(folder) for folder in folders]
    assert curves.names([tmp_path / "one", tmp_path / "two"]) == ["one", "two"]


def test_a_run_is_drawn_with_the_score_that_it_has(tmp_path, monkeypatch):
    """Also one that began when an encoder's cosine was called "accuracy"."""
    drawn, titles, plot, name = [], [], Axes.plot, Axes.set

    def note(axes, x, y, **options):
        drawn.append(([*x], [*y]))
        return plot(axes, x, y, **options)

    monkeypatch.setattr(Axes, "plot", note)
    monkeypatch.setattr(Axes, "set", lambda axes, **given: (titles.append(given["title"]),
                                                            name(axes, **given)))  # fmt: skip
    line = lambda step, **score: {"kind": "evaluation", "step": step, "loss": 1.0, **score}
    for lines, title in (
        ([line(1, accuracy=0.25), line(2, accuracy=0.5)], "validation accuracy"),
        ([line(1, cosine=0.25), line(2, cosine=0.5)], "validation cosine"),
        ([line(1, accuracy=0.25), line(2, cosine=0.5)], "validation accuracy or cosine"),
    ):
        drawn.clear()
        titles.clear()
        curves.runs(tmp_path / "run.png", {"run": lines})
        assert ([1, 2], [0.25, 0.5]) in drawn
        assert title in titles


def test_every_model_is_drawn_where_it_stands(tmp_path, monkeypatch):
    """Except one far under the others, which would leave them no room, and says what it is."""
    drawn, noted, plot = {}, [], Axes.plot

    def note(axes, x, y, **options):
        style = options["color"], options["marker"], options["ls"]
        drawn[options["label"]] = [*x], [*y], style
        return plot(axes, x, y, **options)

    monkeypatch.setattr(Axes, "plot", note)
    monkeypatch.setattr(
        Axes, "annotate", lambda axes, text, place, **_: noted.append((text, place))
    )
    row = lambda code, weights, score, budget=None: compare.record(
        Boundary(64, code, budget=budget), weights, {"spearman": score}, None
    )
    rows = [row("float32", "dense", 0.86), row("int8", "dense", 0.85), row("int2", "dense", 0.1),
            row("phase", "trained", 0.84, 64), row("phase", "trained", 0.8, 16),
            row("int2", "trained", 0.83)]  # fmt: skip
    plots.scores(tmp_path / "scores.png", rows)
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")
    points = {label: drawn[label][:2] for label in drawn}
    assert points["float32, dense"] == ([256], [0.86])
    assert points["phase, trained"] == ([2, 8], [0.8, 0.84])
    assert points["int2, trained"] == ([18], [0.83])
    ((text, (size, edge)),) = noted
    assert text == "0.100"
    assert points["int2, dense"] == ([size], [edge]) == ([18], [edge])
    assert 0.7 < edge < 0.8
    plots.scores(tmp_path / "two.png", [*rows, row("int2", "other", 0.2)])
    assert [text for text, _ in noted[1:]] == ["0.100, 0.200"]
    colour, marker, line = ({label: drawn[label][2][i] for label in drawn} for i in range(3))
    assert colour["int2, dense"] == colour["int2, trained"]
    assert len(set(colour.values())) == 4
    assert marker["int2, trained"] == marker["phase, trained"] != marker["int2, dense"]
    assert [label for label in line if line[label]] == ["phase, trained"]


def test_models_that_are_level_are_all_in_their_place(tmp_path, monkeypatch):
    noted = []
    monkeypatch.setattr(Axes, "annotate", lambda axes, text, place, **_: noted.append(text))
    row = lambda code, score: compare.record(Boundary(64, code), "x", {"accuracy": score}, None)
    rows = [row(code, 0.99) for code in ("float32", "bfloat16", "int8", "int4")]
    plots.scores(tmp_path / "one.png", rows[:1])
    plots.scores(tmp_path / "level.png", [*rows, row("int2", 0.98)])
    assert not noted
    other = compare.record(Boundary(64, "topk"), "x", {"loss": 1.0}, None)
    for wrong in ([], [*rows, other]):
        with pytest.raises(ValueError, match=f"{len(wrong)} models have no score in common"):
            plots.scores(tmp_path / "wrong.png", wrong)
    assert not (tmp_path / "wrong.png").exists()


@pytest.mark.parametrize("name", [r"$\frac{x}$", "$", "a$b$c", "_hidden", "%s {0} {x}"])
def test_a_name_is_drawn_letter_by_letter(tmp_path, monkeypatch, name):
    """It is no mathematics, and none is left out of the legend."""
    drawn, begin = [], Legend.__init__

    def note(legend, parent, handles, labels, **options):
        drawn.extend(labels)
        return begin(legend, parent, handles, labels, **options)

    monkeypatch.setattr(Legend, "__init__", note)
    line = {"kind": "train", "step": 1, "loss": 1.0, "spike_rate": [0.5], "bits": [64.0]}
    other = {"kind": "evaluation", "step": 1, "loss": 1.0, "accuracy": 0.5}
    curves.runs(tmp_path / "runs.png", {name: [line, other], "b": [line]})
    row = compare.record(Boundary(64, "int8"), name, {"accuracy": 0.5}, None)
    plots.scores(tmp_path / "scores.png", [row])
    for made in ("runs.png", "scores.png"):
        assert (tmp_path / made).read_bytes().startswith(b"\x89PNG")
    shown = Text(text=curves.plain(name))
    text, mathematics = shown._preprocess_math(shown.get_text())
    assert (text.strip(), mathematics) == (name, False)
    # Of the runs: loss, score, rate and bits; of the scores: the weights.
    assert sum(label.strip().startswith(curves.plain(name).strip()) for label in drawn) == 5


def test_a_run_that_diverged_is_drawn_where_it_has_values(tmp_path):
    """What is not finite is null in its metrics."""
    line = {
        "kind": "train",
        "step": 1,
        "loss": None,
        "spike_rate": [None, 0.5],
        "bits": [None, 64.0],
    }
    other = {**line, "step": 2, "loss": -1.0, "spike_rate": [0.25], "bits": [64.0]}
    without = {key: value for key, value in line.items() if key != "spike_rate"}
    scored = {"kind": "evaluation", "step": 2, "loss": None, "accuracy": None}
    bare = [{"kind": kind, "step": 3} for kind in ("train", "evaluation")]
    runs = {"run": [line, other, scored], "dense": [without], "bare": bare}
    curves.runs(tmp_path / "run.png", runs)
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_characters_that_no_font_has_are_told_once(tmp_path):
    line = {"kind": "train", "step": 1, "loss": 1.0, "bits": [64.0]}
    with pytest.warns(Note, match=r"run.png: characters that no font here has") as told:
        curves.runs(tmp_path / "run.png", {"\u5b9e\u9a8c": [line]})
    assert len(told) == 1
