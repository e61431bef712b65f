"""What a weight file or folder holds, of any format that we read: names, shapes, dtypes."""

from math import prod
from pathlib import Path
from typing import NamedTuple

from zoo import checkpoint
from zoo.pretrained.hugging_face import sentence
from zoo.pretrained.hugging_face.tensors import INDEX, WEIGHTS, Tensors, in_folder
from zoo.pretrained.locate import find


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


def contents(name: str | Path) -> list[Tensor]:
    """Every array, in the order of their names; no array is read.

    Args:
      name: what `load_pretrained` takes: a name, a folder, a run, a checkpoint, a safetensors file,
        or a Hub id.

    Raises:
      ValueError: nothing there, or it is damaged.
    """
    path, _ = find(name)
    if (path / sentence.MODULES).is_file():
        path = sentence.transformer(path)
    if (path / "model" / WEIGHTS).is_file():
        path = path / "model"
    if path.is_file():
        files = [path]
    elif (path / WEIGHTS).is_file() or (path / INDEX).is_file() or any(path.glob("*.bin")):
        files = in_folder(path)
    else:
        run = path / "checkpoints"
        at = run if run.is_dir() else path
        found = checkpoint.contents(at)
        return [
            Tensor(name, dtype, shape, name.partition("/")[0])
            for name, (dtype, shape) in sorted(found.items())
        ]
    tensors = Tensors(files)
    return [
        Tensor(name, tensors.dtypes[name], tensors.shapes[name], tensors.file_of(name).name)
        for name in sorted(tensors)
    ]
