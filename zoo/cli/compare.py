"""`snapjax compare`: models on one data set, or two runs of one model."""

import sys
from collections.abc import Sequence

from zoo.cli.commands import COMPARED
from zoo.cli.dispatch import dispatch

ABOUT = "Puts models or runs side by side in one table, as JSON and Markdown, with a picture.\n"
MORE = """\
Example:
  snapjax compare models minilm_l6 minilm_l6.hnn_1bit --task stsb --data dev.tsv --out table.json
  snapjax compare runs runs/digits_ann runs/digits_hnn --hardware "2 CPU cores" --out digits.json
"""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[2:] if argv is None else argv
    return dispatch("snapjax compare", ABOUT, COMPARED, MORE, arguments)
