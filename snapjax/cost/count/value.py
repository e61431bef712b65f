"""What a walk knows of an array of the program."""

from collections.abc import Sequence
from typing import NamedTuple

from snapjax.cost.count import layout
from snapjax.cost.count import marks as marked
from snapjax.cost.count.known import Known
from snapjax.cost.count.layout import Spec
from snapjax.cost.count.marks import Mark

Path = tuple[str, ...]


class Value(NamedTuple):
    """What is known of an array.

    Attributes:
      mark: whether it holds spikes.
      known: its value in every iteration on every device, of small integers alone.
      spec: its layout over the mesh, of the axes that no shard_map around divides by hand.
      local: what each device knew of its shard when a shard_map returned it so laid out.
      static: whether it is the same whatever the program's arguments are.
    """

    mark: Mark | None = None
    known: Known = None
    spec: Spec | None = None
    local: Known = None
    static: bool = False


UNKNOWN = Value()


def join_values(values: Sequence[Value], by_data: bool = False) -> Value:
    """What is known of an array that may be any of these; with `by_data` the data say which."""
    join = marked.join_by_data if by_data else marked.join
    return Value(
        mark=join(*(value.mark for value in values)),
        spec=layout.join([value.spec for value in values]),
        static=not by_data and all(value.static for value in values),
    )
