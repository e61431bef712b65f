"""Results that are finite, or an error: behind a spike boundary NaN would pass for a result."""

from typing import Any

import numpy as np


def check_finite(where: str, crossed: Any, output: Any = 0.0) -> None:
    """Stops where a pass met NaN or infinity.

    Args:
      where: the model and its input, for the error.
      crossed: `BoundaryStats.finite` of every boundary, (cuts,); on the host.
      output: what came out, an array or a number; on the host.

    Raises:
      FloatingPointError: naming the first boundary, or the output.
    """
    stopped = np.flatnonzero(np.asarray(crossed) < 1)
    if stopped.size:
        what = f"what boundary {stopped[0]} encodes"
    elif not np.isfinite(np.asarray(output)).all():
        what = "the output"
    else:
        return
    raise FloatingPointError(
        f"{where}: {what} is not finite. Look for numbers in the weights or in the input that are "
        "too large for the model's precision"
    )
