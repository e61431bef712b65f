"""Tensors of a folder by name: `model.safetensors`, or shards that an index lists.

Nothing else is ever opened: PyTorch's `.bin` files are pickles, which run code when they are read.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.utils.files import read_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
# AutoModel would drop a head; this keeps what the config names.
CONVERT = (
    'python -c "import transformers as t; '
    "c = t.AutoConfig.from_pretrained('FOLDER'); "
    "getattr(t, c.architectures[0]).from_pretrained('FOLDER').save_pretrained('NEW_FOLDER')\""
)


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a model's files; each is read when it is asked for, ValueError if numpy has
    no array of its dtype.

    Attributes:
      files: where they are.
      shapes, dtypes: by name; dtypes as safetensors calls them, such as "F32".
      metadata: of all files together.
    """

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self._where: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        for path in files:
            with opened(path) as file:
                self.metadata |= file.metadata() or {}
                for name in file.keys():  # noqa: SIM118 (a handle, not a dict)
                    if name in self._where:
                        raise ValueError(
                            f"tensor {name} is in {self._where[name].name} and in {path.name}"
                        )
                    piece = file.get_slice(name)
                    self._where[name] = path
                    self.shapes[name] = tuple(piece.get_shape())
                    self.dtypes[name] = piece.get_dtype()

    def file_of(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._where[name]

    def __getitem__(self, name: str) -> np.ndarray:
        if self.dtypes[name] not in DTYPES:
            raise ValueError(
                f"tensor {name} has dtype {self.dtypes[name]}, which is not read; save it as one "
                "of F32, F16, BF16"
            )
        with opened(self._where[name]) as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def opened(path: Path) -> Any:
    """A safetensors file, its header checked against its size.

    Raises:
      ValueError: it is truncated, damaged or something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: {error}; the file is truncated, damaged or no safetensors file: fetch it "
            "again"
        ) from error


def in_folder(folder: Path) -> list[Path]:
    """The files of a folder's weights.

    Raises:
      ValueError: there are none, a shard is missing, or the index names a file elsewhere.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _shards(folder)
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    if pickles:
        raise ValueError(
            f"{folder} has no {WEIGHTS}, only {', '.join(pickles)}: a pickle, which is not opened "
            f"because reading one runs code. Convert it where you trust it: {CONVERT}"
        )
    raise ValueError(
        f"{folder} has no {WEIGHTS} and no {INDEX}; give a folder that save_pretrained wrote"
    )


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{index}: weight_map must map tensors to files")
    files = sorted(set(names.values()))
    for name in files:
        # An index comes with the download; it must not choose what is read on this machine.
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(
                f"{index}: {name!r} is not a .safetensors file in the same folder; shards must be"
            )
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder}: the index lists {', '.join(missing)}, which are not there")
    tensors = Tensors([folder / name for name in files])
    wrong = sorted(names.keys() ^ tensors.keys())
    if wrong:
        raise ValueError(
            f"{index}: index and shards differ in the tensors {', '.join(wrong)}; fetch them again"
        )
    return tensors.files
