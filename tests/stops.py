"""A stop at a known step, for tests of runs."""

from zoo.train.stop import StopRequest


class StopAt(StopRequest):
    """A stop that is asked for once the loop has asked so many times."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def __bool__(self):
        self.left -= 1
        if self.left < 0:
            self.signal = 15
        return super().__bool__()
