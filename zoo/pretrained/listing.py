"""What a weight file or folder holds, of any format that we read: names, shapes, dtypes."""

from math import prod
from pathlib import Path
from typing import NamedTuple

from zoo import checkpoint
from zoo.pretrained.dispatch import Kind, kind_of
from zoo.pretrained.hugging_face import sentence
from zoo.pretrained.hugging_face.tensors import INDEX, WEIGHTS, Tensors, in_folder
from zoo.pretrained.locate import find
from zoo.pretrained.run_checkpoint import checkpoints_in


class Tensor(NamedTuple):
    """One array of a file.

    Attributes:
      name: in the file's own words.
      dtype: as the file calls it, "F32" in safetensors, "float32" in a checkpoint.
      shape: of the array.
      file: that holds it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def trainable(self) -> bool:
        """Whether its values count as parameters: floats, of the model and not of an optimiser."""
        # A checkpoint's arrays have their part of it before the first "/".
        ours = "/" not in self.name or self.name.startswith("params/")
        return ours and self.dtype.lower().startswith(("f", "bf"))


def contents(name: str | Path) -> list[Tensor]:
    """Every array, in the order of their names; no array is read.

    Args:
      name: what `load_pretrained` takes: a name, a folder, a run, a checkpoint, a safetensors file,
        or a Hub id.

    Raises:
      ValueError: nothing there, or it is damaged.
    """
    kind, path = kind_of(find(name)[0])
    if (path / sentence.MODULES).is_file():
        path = sentence.transformer(path)
    if kind is Kind.CHECKPOINT and not _has_weights(path):
        found = checkpoint.contents(checkpoints_in(path))
        return [
            Tensor(name, dtype, shape, name.partition("/")[0])
            for name, (dtype, shape) in sorted(found.items())
        ]
    tensors = Tensors([path] if kind is Kind.SINGLE_FILE else in_folder(path))
    return [
        Tensor(name, tensors.dtypes[name], tensors.shapes[name], tensors.file_of(name).name)
        for name in sorted(tensors)
    ]


def _has_weights(folder: Path) -> bool:
    """Whether a folder that lacks the config of a model has weights all the same."""
    return any((folder / name).is_file() for name in (WEIGHTS, INDEX)) or any(folder.glob("*.bin"))
