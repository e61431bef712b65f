"""What a trained model is scored on or fitted to: how its data are read, and samples of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from zoo.config.specs import RunConfig
from zoo.config.values import override
from zoo.data import Batch, Data, DataSpec, load
from zoo.embedding import similarity
from zoo.embedding.encoder import Encoder
from zoo.embedding.texts import drawn, read_texts
from zoo.pretrained.pretrained_model import Pretrained


def data_for(loaded: Pretrained, spec: DataSpec, task: str | None = None) -> Data:
    """A data set, prepared as the model's training data was.

    Of new data without a validation split, all is scored; of the run's own, what was held out.

    Args:
      loaded: its record gives the images' mean and deviation, and the tokenizer.
      spec: the run's, with another source, columns or split.
      task: refused where it is not what the model was trained for.

    Raises:
      ValueError: another task, data that do not fit, or classes of other names or in another order.
    """
    if task is not None and task != spec.task:
        raise ValueError(f"task={task!r}: this model was trained for {spec.task!r}")
    spec = loaded.preprocessed(spec)
    # A file of new data is for scoring alone. That of the run is known by its name: cards leave out
    # the folders.
    own = loaded.config is not None and Path(loaded.config.data.source).name
    data = load(
        spec,
        tokenizer=loaded.tokenizer,
        whole=Path(spec.source).name != own,
        channels=getattr(loaded.model.config, "channels", None),
    )
    loaded.check_classes(data.record, spec.source)
    return data


def spec_for(loaded: Pretrained, source: str | None, assignments: Sequence[str]) -> DataSpec:
    """How data for a model are read: as in the run that made it, or for weights of others as its
    task and inputs suggest, unless the user says otherwise.

    Args:
      loaded: the model.
      source: of the data; None for the run's.
      assignments: what the user says, such as ["data.text_column=sentence"].

    Raises:
      ValueError: no source, or an assignment that does not fit.
    """
    config, model = loaded.config, loaded.model.config
    if config is not None and config.data.task == "unlabelled":
        config = None  # what it was distilled on has no labels to be scored by
    if config is None:
        if source is None:
            columns = f" with the columns {', '.join(similarity.COLUMNS.values())}"
            raise ValueError(
                f"{model.name}: the weights do not say on which data; give --data FILE"
                f"{columns if model.task == 'encode' else ''}"
            )
        if model.task == "encode":
            spec = DataSpec(**similarity.COLUMNS)
        elif hasattr(model, "vocabulary"):
            spec = DataSpec(task=model.task, sequence=model.positions, truncate=True)
        else:
            spec = DataSpec(task=model.task)
        config = RunConfig(model.name, data=spec)
    spec = override(config, list(assignments)).data
    return spec if source is None else replace(spec, source=source)


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
        encoder = Encoder.of(loaded, batch_size)
        return [batch for _, batch in encoder.batches(drawn(read_texts(spec), count, draw))]
    split = data_for(loaded, replace(spec, task=loaded.model.config.task, pairs=False)).train
    some = np.sort(draw.permutation(split.samples)[:count])
    return [split.take(some[i : i + batch_size]) for i in range(0, len(some), batch_size)]
