"""A request to stop, set by a signal and asked between steps."""

import os
import signal
import sys
from types import FrameType


class StopRequest:
    """Set by the first signal and asked between steps; the second leaves at once.

    An exception in the middle of a step, or of XLA's compilation, could leave threads behind that
    the interpreter's exit then trips over; between steps everything is at rest.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """What a process that stopped on request returns: 128 plus the signal's number."""
        return 128 + (self.signal or 0)

    def listen(self) -> "StopRequest":
        """Handles SIGINT (Ctrl-C) and SIGTERM (a scheduler's notice) from now on."""
        signal.signal(signal.SIGINT, self.handle)
        signal.signal(signal.SIGTERM, self.handle)
        return self

    def handle(self, number: int, frame: FrameType | None) -> None:
        """A signal handler."""
        if self:
            os._exit(128 + number)
        self.signal = number
        print("stopping after this step; once more to leave at once", file=sys.stderr)
