"""What is likely in a message of sparse counts, as both ends of `entropy` hold it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MAX_LEVELS = 127  # symbols are int8
_SHIFTS = range(25)
_PRIOR = 0.02  # yes and no that are added to every group's: a rare event must not cost a mile


class Tables(NamedTuple):
    """Rates as the parameters of a code; leaves are arrays, so that they travel with others.

    Questions are those of `snapjax.wire.entropy`.

    Attributes:
      order: int32 (features,), the features by rate, the most frequent first.
      group: int32 (levels, features), the group of each question, in that order; the first is 0,
        and along level after level it grows by 0 or 1.
      shift: int32 (groups,), k of the Rice code of each group.
      rare_yes: bool (groups,), whether "yes" is the event.
    """

    order: jax.Array
    group: jax.Array
    shift: jax.Array
    rare_yes: jax.Array


def tables(probability: np.ndarray, groups: int | None = None, tokens: int = 1024) -> Tables:
    """The tables that suit given rates: groups of least expected bits, their counts included.

    Args:
      probability: (levels, features), of "yes" at each level among the entries that are asked.
      groups: how many there are, those that do not pay without features; None: those that pay.
      tokens: of the messages that they shall suit.

    Raises:
      ValueError: no probabilities, or fewer groups than levels.

    Example:
      >>> made = tables(np.array([[0.01, 0.2, 0.9]]), groups=3)
      >>> made.order.tolist(), made.shift.tolist(), made.rare_yes.tolist()
      ([2, 1, 0], [3, 2, 6], [False, True, True])
    """
    rates = np.asarray(probability, np.float64)
    if rates.ndim != 2 or not 1 <= len(rates) <= MAX_LEVELS or not rates.shape[1]:
        raise ValueError(
            f"probability: has shape {rates.shape}, needs (levels, features) with 1 to "
            f"{MAX_LEVELS} levels"
        )
    if not ((rates >= 0) & (rates <= 1)).all():
        raise ValueError("probability: holds values outside [0, 1], or not finite ones")
    levels, features = rates.shape
    if groups is not None and groups < levels:
        raise ValueError(f"groups={groups} must be at least levels={levels}, one for each")
    order = np.argsort(-rates[0], kind="stable")
    rates = rates[:, order]
    asked = tokens * np.concatenate([np.ones((1, features)), np.cumprod(rates[:-1], axis=0)])
    costs = [_costs(*each) for each in zip(asked, asked * rates, strict=True)]
    likely = sum(cost[0, -1] for cost in costs)
    price = float(max(int(likely), 1).bit_length())  # bits of one more count in a message
    while sum(map(len, cuts := [_cheapest(cost, price) for cost in costs])) > (groups or np.inf):
        price *= 1.25
    group = np.zeros((levels, features), np.int32)
    shift: list[int] = []
    rare_yes: list[bool] = []
    for level, starts in enumerate(cuts):
        for start, end in zip(starts, [*starts[1:], features], strict=True):
            group[level, start:end] = len(shift)
            run = slice(start, end)
            k, yes = _code(asked[level, run].sum(), (asked * rates)[level, run].sum())
            shift.append(k)
            rare_yes.append(yes)
    unused = max((groups or 0) - len(shift), 0)
    return Tables(
        jnp.asarray(order, jnp.int32),
        jnp.asarray(group),
        jnp.asarray([*shift, *[0] * unused], jnp.int32),
        jnp.asarray([*rare_yes, *[True] * unused], bool),
    )


def _costs(asked: np.ndarray, yes: np.ndarray) -> np.ndarray:
    """Expected bits of the features i to j - 1 as one group: (features + 1, features + 1)."""
    total, sure = (np.concatenate([[0], np.cumsum(each)]) for each in (asked, yes))
    questions, certain = total[None] - total[:, None], sure[None] - sure[:, None]
    inside = np.triu(np.ones_like(questions, bool), 1)
    questions, certain = (np.where(inside, each, 1.0) for each in (questions, certain))
    rate = (certain + _PRIOR) / (questions + 2 * _PRIOR)
    rare = np.minimum(rate, 1 - rate)
    bits = np.minimum.reduce([_rice_bits(rare, shift) for shift in _SHIFTS])
    return np.where(inside, questions * rare * bits, np.inf)


def _cheapest(cost: np.ndarray, price: float) -> list[int]:
    """Starts of the groups of least cost, each of which costs `price` more; exact, by dynamic
    programming over the first j features."""
    best, start = np.zeros(len(cost)), np.zeros(len(cost), int)
    for end in range(1, len(cost)):
        options = best[:end] + cost[:end, end] + price
        start[end] = options.argmin()
        best[end] = options[start[end]]
    starts, end = [], len(cost) - 1
    while end > 0:
        end = int(start[end])
        starts.append(end)
    return starts[::-1]


def _code(asked: float, yes: float) -> tuple[int, bool]:
    """k, and whether "yes" is the event, of least expected bits."""
    rate = (yes + _PRIOR) / (asked + 2 * _PRIOR)
    rare = np.asarray(min(rate, 1 - rate))
    return int(np.argmin([_rice_bits(rare, shift) for shift in _SHIFTS])), bool(rate <= 0.5)


def _rice_bits(rate: np.ndarray, shift: int) -> np.ndarray:
    """Expected bits of a geometric gap between events: 1 + k + E[gap >> k]."""
    stays = np.minimum((1 - rate) ** (2.0**shift), 1 - 1e-12)
    return 1 + shift + stays / (1 - stays)
