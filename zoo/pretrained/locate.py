"""Where trained models are: with the package, published by others, on the Hub, or at a path."""

from pathlib import Path

from snapjax.errors import unknown_name
from zoo.pretrained.hugging_face.hub import ID, fetch
from zoo.pretrained.hugging_face.known import KNOWN, locate
from zoo.pretrained.hugging_face.tensors import CONVERT

SHIPPED = Path(__file__).parent / "shipped"
CONFIG = "config.json"


def list_pretrained() -> list[str]:
    """Names of the trained models that ship with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{CONFIG}"))


def find(name: str | Path) -> tuple[Path, str | None]:
    """Where a model is: a folder or a safetensors file, and its source where others publish it.

    Args:
      name: a path, a name of `list_pretrained()`, a preset whose weights others publish, or a Hub
        id; a path that exists goes before a name.

    Raises:
      ValueError: nothing of this name is here, or can be fetched.
    """
    path = Path(name)
    if path.is_dir() or (path.is_file() and path.suffix == ".safetensors"):
        return path, None
    if path.is_file():
        raise ValueError(
            f"{path}: a folder or a .safetensors file is needed; pickles (.bin, .pt) are not "
            f"opened, because reading one runs code. Convert it where you trust it: {CONVERT}"
        )
    if (found := named(str(name))) is not None:
        return found
    if ID.fullmatch(str(name)):
        return fetch(str(name))
    raise unknown_name("pretrained model, folder or Hub id", name, [*list_pretrained(), *KNOWN])


def named(name: str) -> tuple[Path, str | None] | None:
    """As `find`, of what ships and of presets whose weights others publish; None for the rest."""
    if name in list_pretrained():
        return SHIPPED / name, None
    return locate(name) if name in KNOWN else None
