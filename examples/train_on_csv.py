"""Trains a small BERT with spiking boundaries to classify the texts of a csv file.

python examples/train_on_csv.py [FILE.csv]

The file has the columns "text" and "label" (a whole number or a name). Without one, a small file of
made-up sentences is written and used.
"""

import csv
import random
import sys
import tempfile
from pathlib import Path

from zoo import get_preset, override, train_model

WORDS = {
    "good": ("good", "fine", "great", "lovely", "pleasant"),
    "bad": ("bad", "poor", "awful", "dull", "unpleasant"),
}


def write_sample(path: Path, rows: int = 400) -> None:
    """Sentences with a word of praise or of blame."""
    draw = random.Random(0)
    things = ("film", "book", "song", "meal", "walk", "talk")
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for _ in range(rows):
            label = draw.choice(list(WORDS))
            thing, word = draw.choice(things), draw.choice(WORDS[label])
            table.writerow([f"the {thing} that we had was {word} and not long", label])


def main(source: str | None = None, out: str | None = None, epochs: int = 6) -> float:
    folder = Path(out or tempfile.mkdtemp())
    if source is None:
        folder.mkdir(parents=True, exist_ok=True)
        source = str(folder / "sample.csv")
        write_sample(Path(source))
    config = override(
        get_preset("topics_ann"),
        [
            "model.variant=hnn",
            "model.layers=2",
            "model.stages=2",
            "mesh.stage=1",
            "data.task=classify",
            f"data.source={source}",
            "data.vocabulary=100",
            "data.sequence=16",
            f"train.epochs={epochs}",
            "train.microbatches=1",
        ],
    )
    summary = train_model(config, folder / "run")
    assert summary is not None
    print(f"{folder / 'run'}: accuracy {summary['accuracy']:.3f} on what was held out")
    return summary["accuracy"]


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except ValueError as error:
        sys.exit(f"error: {error}")
