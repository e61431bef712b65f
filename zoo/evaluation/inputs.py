"""What a trained model is scored on or fitted to: how its data are read, and samples of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from zoo.config.data import EMBEDDED, source_and_column
from zoo.config.specs import RunConfig
from zoo.config.values import override
from zoo.data import Batch, Data, DataSpec, load
from zoo.data.prepare import different_texts
from zoo.data.sources import read_rows
from zoo.embedding import similarity
from zoo.embedding.encoder import Encoder
from zoo.embedding.texts import drawn
from zoo.models.registry import registered
from zoo.pretrained.pretrained_model import Pretrained
from zoo.utils.notes import note


def data_for(loaded: Pretrained, spec: DataSpec, task: str | None = None) -> Data:
    """A data set, prepared as the model's training data was.

    Of new data without a validation split, all is scored; of the run's own, what was held out. They
    are the run's own if they have its name and, read in the same way, its digest. Labels that are
    names get the model's own numbers.

    Args:
      loaded: its record gives the images' mean and deviation, and the tokenizer.
      spec: the run's, with another source, columns or split.
      task: refused where it is not what the model was trained for.

    Raises:
      ValueError: another task, data that do not fit, or a class that the model does not have.
    """
    if task is not None and task != spec.task:
        raise ValueError(f"task={task!r}: this model was trained for {spec.task!r}")
    if spec.text_pair_column is not None and loaded.source.preprocessing.get("pairs") is False:
        raise ValueError(
            f"data.text_pair_column={spec.text_pair_column!r}: the model's tokenizer joins two "
            "texts in another way than [CLS] one [SEP] two [SEP] with types 0 and 1, which is done "
            "here; give it single texts"
        )
    own = loaded.config.data if loaded.config is not None else None

    def read(whole: bool) -> Data:
        data = load(
            loaded.preprocessed(spec), tokenizer=loaded.tokenizer, whole=whole,
            class_names=loaded.class_names, inputs=registered(loaded.model).inputs,
            channels=getattr(loaded.model.config, "channels", None),
        )  # fmt: skip
        names = data.record.get("class_names")
        if names and loaded.class_names is None:
            note(
                f"{spec.source}: the model has no names of its classes, and takes those of the "
                f"data in the order {', '.join(names[:10])}; write numbers if it has another"
            )
        return data

    # That of the run is known by its name: cards leave out the folders. What is embedded has a
    # validation split.
    if own is None or Path(spec.source).name != Path(own.source).name or own.source in EMBEDDED:
        return read(whole=True)
    data, began = read(whole=False), loaded.record.get("data", {}).get("sha256")
    if data.record["sha256"] == began:
        return data
    # Read otherwise, even the same rows have another digest.
    if replace(spec, source=own.source, truncate=own.truncate) != own:
        note(
            f"{spec.source}: has the name of the data that the model was trained on, but is read "
            "in another way, so whether it is the same cannot be told; what that run would have "
            "held out is scored. Rename it if it is new"
        )
        return data
    note(
        f"{spec.source}: has the name of the data that the model was trained on, other content: "
        "it is taken as new data, so without a validation split all of it is scored, rows that the "
        "model may have been trained on too"
    )
    return read(whole=True)


def spec_for(loaded: Pretrained, source: str | None, assignments: Sequence[str]) -> DataSpec:
    """How data for a model are read: as in the run that made it, or for weights of others as its
    task and inputs suggest, unless the user says otherwise.

    Args:
      loaded: the model.
      source: of the data; None for the run's. "FILE:COLUMN" names the column of the texts too.
      assignments: what the user says, such as ["data.text_column=sentence"].

    Raises:
      ValueError: no source, or an assignment that does not fit.
    """
    config, unknown, model = loaded.config, None, loaded.model.config
    if config is not None and config.data.task == "unlabelled":
        config = None  # what it was distilled on has no labels to be scored by
    if config is None:
        if source is None:
            columns = f" (to be scored, with the columns {', '.join(similarity.COLUMNS.values())})"
            raise ValueError(
                f"{model.name}: the weights do not say on which data; give --data FILE"
                f"{columns if model.task == 'encode' else ''}"
            )
        if model.task == "encode":
            spec = DataSpec(**similarity.COLUMNS)
        elif hasattr(model, "vocabulary"):
            longest = loaded.source.preprocessing.get("max_tokens", model.positions)
            spec = DataSpec(task=model.task, sequence=min(longest, model.positions))
        else:
            spec = DataSpec(task=model.task)
        config = unknown = RunConfig(model.name, data=spec)
    name, column = (None, None) if source is None else source_and_column(source)
    if column is not None and registered(loaded.model).inputs == "images":
        raise ValueError(
            f"{source}: {column!r} would be a column of texts, and {model.name} reads images; set "
            "data.image_column to that of the images"
        )
    if column is not None and config is unknown:  # the pairs of STS-B were a guess
        config = replace(config, data=replace(config.data, text_pair_column=None))
    spec = override(config, list(assignments)).data
    named = {} if name is None else {"source": name}
    return replace(spec, **named, text_column=column or spec.text_column)


def batches(
    loaded: Pretrained, spec: DataSpec, count: int, batch_size: int, seed: int = 0
) -> list[Batch]:
    """Batches of `count` samples drawn from a source; all there are where it has fewer.

    Args:
      loaded: the model that shall read them.
      spec: where they are; pairs are ignored.
      count: how many.
      batch_size: samples a batch; texts are batched by length, so the batches are in no order.
      seed: of the draw.
    """
    if count < 2 or batch_size < 1:
        raise ValueError(f"samples={count} and batch_size={batch_size}: need at least 2 and 1")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} must be at least 0 and below 2**32")
    draw = np.random.default_rng(seed)
    if loaded.model.config.task == "encode":
        split = spec.split_special_tokens
        encoder = Encoder.of(loaded, batch_size, split_special_tokens=split)
        return [batch for _, batch in encoder.batches(drawn(_texts(spec), count, draw))]
    task, own = loaded.model.config.task, loaded.config and Path(loaded.config.data.source).name
    if task == "classify" and spec.text_pair_column is None and Path(spec.source).name != own:
        task = "unlabelled"  # new data need no labels to be fitted to
    split = data_for(loaded, replace(spec, task=task, pairs=False)).train
    some = np.sort(draw.permutation(split.samples)[:count])
    return [split.take(some[i : i + batch_size]) for i in range(0, len(some), batch_size)]


def _texts(spec: DataSpec) -> list[str]:
    """Every different text of a source: of the pairs that an encoder is scored on by default, or of
    what there is of them, or else of the column "text"."""
    table = read_rows(spec, validation=False)
    first, second = similarity.COLUMNS["text_column"], similarity.COLUMNS["text_pair_column"]
    if spec.text_pair_column == second and second not in table.columns:
        spec = replace(spec, text_pair_column=None)
        if spec.text_column == first and first not in table.columns and "text" in table.columns:
            spec = replace(spec, text_column="text")
    return different_texts(table, spec)
