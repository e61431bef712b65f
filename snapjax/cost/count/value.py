"""What a walk knows of an array of the program."""

from typing import NamedTuple

from snapjax.cost.count import spike_marks
from snapjax.cost.count.known import Known
from snapjax.cost.count.layout import Spec
from snapjax.cost.count.spike_marks import Mark

Path = tuple[str, ...]


class Value(NamedTuple):
    """What is known of an array.

    Attributes:
      mark: whether it holds spikes.
      known: its value in every iteration on every device, of small integers alone.
      spec: its layout over the mesh, outside of shard_map.
      local: what each device knew of its shard when a shard_map returned it so laid out.
    """

    mark: Mark | None = None
    known: Known = None
    spec: Spec | None = None
    local: Known = None


UNKNOWN = Value()


def join_values(values: list[Value]) -> Value:
    """What is known of an array that may be any of these."""
    specs = {value.spec for value in values}
    mark = spike_marks.join(*(value.mark for value in values))
    return Value(mark, None, specs.pop() if len(specs) == 1 else None)
