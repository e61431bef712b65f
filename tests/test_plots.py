"""Pictures of runs."""

from matplotlib.axes import Axes

from zoo import plots


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
