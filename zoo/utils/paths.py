"""Paths as users write them."""

import os.path
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """The path with the home folder for its ~.

    A name that begins with ~ and is that of no user stays as it is: it may be a file's, of which
    `Path.expanduser` raises RuntimeError.
    """
    return Path(os.path.expanduser(path))
