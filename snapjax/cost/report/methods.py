"""The estimate that users get: the priced one of `snapjax.cost.price`, with its reports."""

import os
from typing import Any

from snapjax.cost.counts import Counts
from snapjax.cost.price import estimate as price
from snapjax.cost.price.profile import Profile
from snapjax.cost.price.ticks import Schedule
from snapjax.cost.price.traffic import Cut
from snapjax.cost.report import html as pages
from snapjax.cost.report import text


class Estimate(price.Estimate):
    """What a program costs on a profile, and the reports of it.

    The attributes are those of `snapjax.cost.price.estimate.Estimate`: `modules`, `links`,
    `traffic`, `times`, `latency`, `energy`, `notes` and more.
    """

    def table(self, depth: int = 3) -> str:
        """Readable text: see `snapjax.cost.table`."""
        return text.table(self, depth)

    def to_dict(self) -> dict[str, Any]:
        """Everything, in JSON's own types: see `snapjax.cost.to_dict`."""
        return text.to_dict(self)

    def html(self, title: str = "Cost") -> str:
        """One page with charts: see `snapjax.cost.html`."""
        return pages.html(self, title)


def estimate(
    counts: Counts,
    profile: "str | os.PathLike[str] | Profile",
    *,
    overlap: bool = False,
    schedule: Schedule | None = None,
    cut: Cut | None = None,
) -> Estimate:
    """What a program costs on a hardware profile.

    Args:
      counts: from `snapjax.cost.trace`.
      profile: a name of `list_profiles()`, a TOML file, or a `Profile`.
      overlap: the links work while the devices compute, all of the time; otherwise they take turns.
      schedule: of a pipeline; None where there is none or the program's own is enough.
      cut: what one message of spikes stands for, to compare it with dense activations.

    Raises:
      ValueError: for a profile that does not exist or is not one.

    Example:
      >>> from snapjax.cost.counts import Op
      >>> counts = Counts(ops=(Op("layer", "dot_general", "mac", 1e6, "float32", 32),))
      >>> estimate(counts, "snap-mesh").energy_parts["compute"].value  # 4.6 pJ each
      4600000.0
    """
    found = price.estimate(counts, profile, overlap=overlap, schedule=schedule, cut=cut)
    return Estimate(**vars(found))
