"""Notes: what was done that a user may not have meant, and how to say otherwise.

A note is a Python warning, so that programs can count it, silence it or make it an error. On the
command line it is one line on stderr, see `zoo.cli.command_line`.
"""

import warnings


class Note(UserWarning):
    """Nothing is wrong, but something was decided."""


def note(text: str) -> None:
    """Warns with a `Note`; `text` says what was done, with numbers, and what changes it."""
    warnings.warn(text, Note, stacklevel=3)
