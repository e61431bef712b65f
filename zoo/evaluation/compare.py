"""One table for a cut model: what each boundary sends, and how well the model then does.

A row is a plain record, so that the table in the terminal, the one in a document and the JSON file
are the same figures.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from snapjax.boundary import Boundary
from snapjax.codes.code import SPIKE_CODES
from zoo.config.old_names import current_section
from zoo.utils.files import read_json
from zoo.utils.schema import NUMBER, TEXT, WHOLE, ListOf, Maybe, Object, check

Record = dict[str, Any]

ROW = Object(
    {
        **dict.fromkeys(("code", "weights"), TEXT),
        "bytes_per_token_and_hop": WHOLE,
        **dict.fromkeys(("times_fewer_than_float32", "times_fewer_than_bfloat16"), NUMBER),
        "spike_rate": Maybe(NUMBER),
        "boundary": Object({"steps": WHOLE}),
    },
    dict.fromkeys(("accuracy", "loss", "spearman"), NUMBER),
)
TRAINED = Object({"data": Object({"sha256": TEXT})})
TABLE = Object({"rows": ListOf(ROW)})
"""A table in a JSON file, as `snapjax compare models` writes it."""

# Score -> column title.
SCORES = {"accuracy": "accuracy", "loss": "cross-entropy", "spearman": "Spearman"}
# Column title -> how it is shown.
WHAT = {
    # Spikes of one step are signs: another code to a reader, if not to the boundary.
    "boundary": lambda record: (
        f"{record['code']}, 1 step"
        if record["code"] in SPIKE_CODES and record["boundary"]["steps"] == 1
        else record["code"]
    ),
    "weights": lambda record: record["weights"],
}
SENT = {
    "bytes a token and hop": lambda record: str(record["bytes_per_token_and_hop"]),
    "fewer than float32": lambda record: f"{record['times_fewer_than_float32']:.3g}x",
    "than bfloat16": lambda record: f"{record['times_fewer_than_bfloat16']:.3g}x",
    "spike rate": lambda record: (
        "-" if record["spike_rate"] is None else f"{record['spike_rate']:.3f}"
    ),
}


def record(
    boundary: Boundary, weights: str, scores: Mapping[str, float], spike_rate: float | None
) -> Record:
    """One boundary's row, JSON-able.

    Args:
      boundary: what lies between the stages.
      weights: which training the weights come from.
      scores: of the whole model on the held-out split, named as in `SCORES`: "accuracy" in
        [0, 1], "loss", the cross-entropy in nats, or "spearman".
      spike_rate: mean over the cuts; None for dense boundaries.
    """
    sent = boundary.bytes_per_token
    ratio = lambda dense: Boundary(boundary.features, dense).bytes_per_token / sent
    return {
        "code": boundary.code,
        "weights": weights,
        **scores,
        "spike_rate": spike_rate,
        "bits_per_feature": 8 * sent / boundary.features,
        "bytes_per_token_and_hop": sent,
        "times_fewer_than_float32": ratio("float32"),
        "times_fewer_than_bfloat16": ratio("bfloat16"),
        "boundary": boundary.to_dict(),
    }


def data_of(record: Mapping[str, Any]) -> str:
    """The digest of the data that a model was trained on.

    Args:
      record: of a `Pretrained` that a run made.

    Raises:
      ValueError: it says nothing of them.
    """
    return check(record, TRAINED, "the record")["data"]["sha256"]


def weights_of(record: Mapping[str, Any]) -> str:
    """Which training a cut model's weights come from, by what was saved beside them.

    Args:
      record: of a `Pretrained`: "config", "step" and "teacher" of the run that made it, where one
        did, and "calibration" where its boundaries were fitted after that.

    Example:
      >>> weights_of({"calibration": {"method": "variance"}})
      'dense, calibrated'
    """
    config = record.get("config")
    if "teacher" in record:
        train = {} if config is None else current_section("train", config.get("train", {}))
        alone = train.get("trainable") == "boundaries"
        pairs = config is not None and config.get("distill", {}).get("similarity")
        how = "boundaries alone " * bool(alone) + "on pairs " * bool(pairs)
        origin = f"distilled {how}for {record.get('step', 'unknown')} steps"
    else:
        origin = (
            "trained" if config and config.get("model", {}).get("variant") != "ann" else "dense"
        )
    return f"{origin}, calibrated" if "calibration" in record else origin


def rows_of(path: Path, about: Mapping[str, Any]) -> list[Record]:
    """The rows of a table in a JSON file, to add others to.

    Args:
      path: of the file.
      about: what else is in it: the rows to add are of the same model, data, ...

    Raises:
      ValueError: no such file, no such table in it, or one of something else.
    """
    table = read_json(path)
    for name, value in about.items():
        if table.get(name) != value:
            raise ValueError(
                f"{path}: is a table of {name}={table.get(name)!r}, and these rows are of "
                f"{value!r}; give another file"
            )
    try:
        check(table, TABLE, str(path))
    except ValueError as error:
        raise ValueError(
            f"{path}: has no rows as `snapjax compare models` writes them ({error}); give "
            "another file"
        ) from error
    return table["rows"]


def added(before: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """The rows of a table but those that new ones name too, and behind them all new ones.

    A row's name is its boundary, its bytes and its weights: of a table it is what a reader sees.
    """
    names = [_name(row) for row in new]
    return [*(row for row in before if _name(row) not in names), *new]


def _name(row: Record) -> tuple[str, int, str]:
    return WHAT["boundary"](row), row["bytes_per_token_and_hop"], row["weights"]


def table(records: Sequence[Record], title: str) -> Table:
    """The records for a terminal."""
    drawn, columns = Table(title=title), columns_of(records)
    for name in columns:
        drawn.add_column(name, justify="left" if name in WHAT else "right")
    for row in records:
        drawn.add_row(*(show(row) for show in columns.values()))
    return drawn


def markdown(records: Sequence[Record]) -> str:
    """The records as a Markdown table."""
    columns = columns_of(records)
    lines = [list(columns), ["---" if name in WHAT else "---:" for name in columns]]
    lines += [[show(row) for show in columns.values()] for row in records]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def columns_of(records: Sequence[Record]) -> dict[str, Callable[[Record], str]]:
    """Title -> how it is shown, of the scores and rates that the records have."""
    scores = {
        title: lambda row, name=name: f"{row[name]:.4f}"
        for name, title in SCORES.items()
        if all(name in row for row in records)
    }
    sent = dict(SENT)
    if all(row["spike_rate"] is None for row in records):
        del sent["spike rate"]
    return {**WHAT, **scores, **sent}
