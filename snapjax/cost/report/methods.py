"""The reports as methods: `estimate.table()` is `table(estimate)`.

`price` knows nothing of reports, so `Estimate` gets its methods here, and `snapjax.cost` takes the
class and the function that makes one from here.
"""

from snapjax.cost.price.estimate import Estimate, estimate
from snapjax.cost.report.html import html
from snapjax.cost.report.text import table, to_dict

__all__ = ["Estimate", "estimate"]

for report in (table, to_dict, html):
    setattr(Estimate, report.__name__, report)
