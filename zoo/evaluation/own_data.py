"""Whether a saved model says on which data it is to be scored, asked before it is loaded."""

from zoo.embedding.similarity import COLUMNS
from zoo.pretrained.about import about


def check_source(name: str, source: str | None) -> None:
    """Raises ValueError where no data are given, and those of the run that made a model are not
    known, or have no labels.

    Args:
      name: of the model, as `load_pretrained` takes it.
      source: of the data, as the user gives it.
    """
    if source is not None:
        return
    _, config, encodes = about(name)
    if config is not None and config.data.task != "unlabelled":
        return
    if encodes:
        what = f"FILE, a table with the columns {', '.join(COLUMNS.values())}"
        where = "; --set data.text_column=NAME where one has another name"
    else:
        what, where = "FILE or a name on the Hub", ""
    raise ValueError(f"{name}: its weights do not say on which data; give --data {what}{where}")
