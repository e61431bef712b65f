"""Paths as users write them."""

import os.path
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """The path with the home folder for its ~.

    A name that begins with ~ and is that of no user stays as it is: it may be a file's, of which
    `Path.expanduser` raises RuntimeError.
    """
    return Path(os.path.expanduser(path))


def there(path: str | Path) -> bool:
    """Whether something lies at a path; nothing does at one that no file system could hold, such as
    a name of 300 letters, of which `Path.exists` raises OSError."""
    return os.path.exists(expanded(path))
