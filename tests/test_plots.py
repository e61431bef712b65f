"""Pictures of runs and of tables of models."""

from matplotlib.axes import Axes

from snapjax.boundary import Boundary
from zoo import compare, plots


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
        plots.runs(tmp_path / "both.png", {first: [line], second: [line]})
        assert len(drawn - {None}) == 2, (first, second)
    folders = [tmp_path / "one" / "run", tmp_path / "two" / "run"]
    assert plots.names(folders) == [str(folder) for folder in folders]
    assert plots.names([tmp_path / "one", tmp_path / "two"]) == ["one", "two"]


def test_every_model_is_drawn_where_it_stands(tmp_path, monkeypatch):
    """Except one far under the others, which would leave them no room, and says what it is."""
    drawn, noted, plot = {}, [], Axes.plot

    def note(axes, x, y, **options):
        drawn[options["label"]] = [*x], [*y]
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
    assert drawn["float32, dense"] == ([256], [0.86])
    assert drawn["phase, trained"] == ([2, 8], [0.8, 0.84])
    assert drawn["int2, trained"] == ([18], [0.83])
    ((text, (size, floor)),) = noted
    assert text == "0.100"
    assert drawn["int2, dense"] == ([size], [floor]) == ([18], [floor])
    assert 0.1 < floor < 0.8
    noted.clear()
    losses = [compare.record(Boundary(64, code), "x", {"loss": loss}, None)
              for code, loss in (("int8", 9.0), ("int4", 0.1))]  # fmt: skip
    plots.scores(tmp_path / "loss.png", losses)
    assert drawn["int4, x"][1] == [0.1]
    assert not noted
