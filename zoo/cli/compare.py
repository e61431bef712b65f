"""`snapjax compare`: models on one data set, or two runs of one model."""

import sys
from collections.abc import Sequence

from zoo.cli.main import Command, dispatch

COMMANDS = {
    "models": Command("zoo.cli.compare_models", "score trained models on one data set"),
    "runs": Command("zoo.cli.compare_runs", "a dense run and a spiking run, with their curves"),
}
ABOUT = "Puts models or runs side by side in one table, as JSON and Markdown, with a picture.\n"
MORE = """\
Example:
  snapjax compare models minilm_l6 minilm_l6.hnn_1bit --task stsb --data dev.tsv --out table.json
  snapjax compare runs runs/digits_ann runs/digits_hnn --hardware "2 CPU cores" --out digits.json
"""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[2:] if argv is None else argv
    return dispatch("snapjax compare", ABOUT, COMMANDS, MORE, arguments)
