"""Sparse signed counts <-> one uint8 buffer near their entropy.

A message is q: (tokens, features), whole numbers from -levels to levels, most of them 0. It becomes
questions with the answers yes and no: level 0 asks of every entry whether |q| > 0, level 1 asks of
those that were yes whether |q| > 1, and so on; the signs of the entries that are not 0 follow as
they are. An answer that is rarer than the other is an event, and the gaps between the events of a
level are Rice-coded (Rice 1979; Golomb 1966): gap = quotient * 2^k + remainder, the quotient in
unary, the remainder in k bits.

Questions are asked feature by feature, the most frequent features first, so that neighbours have
the same rate. Runs of features that share k, and which answer is the event, are a group. All that
depends on rates is in `rates.Tables`, which both ends hold.

The buffer is a string of bits, the lowest of a byte first: the number of events of every group, the
unary quotients of all events, their remainders, the signs, and zeros. Quotients and remainders lie
apart so that both ends work on all events at once: a place follows from cumulative sums.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from snapjax.wire.rates import Tables
from snapjax.wire.rows import check_buffer, check_sizes, pack_codes, unpack_codes
from snapjax.wire.spikes import owner_of_slot, set_bits


def plain_bytes(tokens: int, features: int, levels: int) -> int:
    """Bytes of `pack_plain`."""
    check_sizes("plain_bytes", tokens, "features", features)
    return tokens * -(-features * _plain_width(levels) // 8)


def pack_plain(symbols: jax.Array, levels: int) -> jax.Array:
    """Any symbols in fields of 2, 4 or 8 bits.

    Args:
      symbols: (tokens, features), whole numbers from -levels to levels; others would come back as
        different ones.
      levels: 1 to 127.

    Returns:
      (plain_bytes(tokens, features, levels),) uint8.

    Raises:
      ValueError: another shape.
    """
    _check_symbols("pack_plain", symbols, symbols.shape[-1:])
    width = _plain_width(levels)
    return pack_codes((symbols + levels).astype(jnp.uint8), width).reshape(-1)


def unpack_plain(buffer: jax.Array, tokens: int, features: int, levels: int) -> jax.Array:
    """Inverse of `pack_plain`: int8 (tokens, features)."""
    check_buffer("unpack_plain: buffer", buffer, (plain_bytes(tokens, features, levels),))
    rows = buffer.reshape(tokens, -1)
    return unpack_codes(rows, features, _plain_width(levels)).astype(jnp.int8) - levels


def header_bits(tokens: int, features: int, groups: int, size: int) -> int:
    """Bits of a buffer of `size` bytes that say how many events each group has."""
    return groups * _count_bits(tokens * features, size)


@jax.jit
def event_bits(symbols: jax.Array, tables: Tables) -> jax.Array:
    """Bits that these symbols take behind the header, () int32."""
    return _events(symbols, tables, None).bits


@partial(jax.jit, static_argnums=2)
def pack(symbols: jax.Array, tables: Tables, size: int) -> tuple[jax.Array, jax.Array]:
    """Symbols as a buffer of a fixed size.

    Args:
      symbols: (tokens, features) of any integer or float dtype, whole numbers of magnitude up to
        the levels of the tables; fewer than 2^31 entries and bits in all.
      tables: of both ends.
      size: bytes of the buffer.

    Returns:
      the buffer (size,) uint8; and whether the message fits, () bool. Of one that does not, the
      buffer holds nothing useful: send it in the plain form. One with a magnitude beyond the levels
      fits into no size.

    Raises:
      ValueError: symbols of another shape than the tables', or no room for the counts of groups.
    """
    _check_symbols("pack", symbols, tables.order.shape)
    tokens, features = symbols.shape
    groups, width = tables.shift.shape[0], _count_bits(tokens * features, size)
    room = 8 * size - groups * width
    if room < 0:
        raise ValueError(
            f"pack: size={size} bytes does not hold the counts of {groups} groups, "
            f"{groups * width} bits"
        )
    if tokens == 0:
        return jnp.zeros(size, jnp.uint8), jnp.asarray(True)
    made = _events(symbols, tables, room)
    known = (jnp.abs(symbols) <= tables.group.shape[0]).all()
    fits = known & made.all_there & (made.bits <= room)
    quotient_end = groups * width + jnp.cumsum(jnp.where(made.used, made.quotient + 1, 0))
    shift = jnp.where(made.used, tables.shift[made.group], 0)
    low = quotient_end[-1] + jnp.cumsum(shift) - shift
    sign = low[-1] + shift[-1] + jnp.arange(made.negative.shape[0], dtype=jnp.int32)
    count = width * jnp.arange(groups, dtype=jnp.int32)
    words = jnp.zeros(size // 4 + 2, jnp.uint32)
    # Fields do not overlap, so adding them is the same as or-ing them.
    words = _put(words, count, made.counts.astype(jnp.uint32), fits)
    words = _put(words, quotient_end - 1, made.used.astype(jnp.uint32), made.used & fits)
    words = _put(words, low, made.remainder, made.used & fits)
    words = _put(words, sign, made.negative.astype(jnp.uint32), made.negative & fits)
    return lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:size], fits


@partial(jax.jit, static_argnums=(2, 3))
def unpack(buffer: jax.Array, tables: Tables, tokens: int, features: int) -> jax.Array:
    """Inverse of `pack`: int8 (tokens, features). Of any other buffer the result is unspecified."""
    levels, groups = tables.group.shape[0], tables.shift.shape[0]
    width = _count_bits(tokens * features, buffer.shape[0])
    header, n = groups * width, tokens * features
    if n == 0:
        return jnp.zeros((tokens, features), jnp.int8)
    room = 8 * buffer.shape[0] - header
    padded = jnp.pad(buffer, (0, -buffer.shape[0] % 4 + 8)).reshape(-1, 4)
    words = lax.bitcast_convert_type(padded, jnp.uint32)
    count = width * jnp.arange(groups, dtype=jnp.int32)
    counts = _get(words, count, jnp.full_like(count, width)).astype(jnp.int32)

    most = _capacity(room, n)
    ends = jnp.cumsum(counts)
    group = owner_of_slot(ends, min(levels * most, max(room, 1)))
    used = group < groups
    one = set_bits(_without(words, header), group.shape[0])
    before = jnp.concatenate([jnp.full(1, header - 1, one.dtype), one[:-1]])
    shift = jnp.where(used, _at(tables.shift, group), 0)
    low_start = jnp.where(ends[-1] > 0, one[jnp.maximum(ends[-1] - 1, 0)] + 1, header)
    low = low_start + jnp.cumsum(shift) - shift
    gap = (one - before - 1 << shift) + _get(words, low, shift).astype(jnp.int32)
    steps = jnp.cumsum(jnp.where(used, gap + 1, 0))
    first = _at(ends - counts, group)  # event of the group
    within = steps - jnp.where(first > 0, steps[jnp.maximum(first - 1, 0)], 0) - 1

    def answers(of: jax.Array, feature: jax.Array, valid: jax.Array) -> jax.Array:
        """Of the questions of a level, bool, from the groups of its features."""
        mine = _at(of, feature)
        here = used & (group >= of[0]) & (group <= of[-1])
        place = jnp.where(here, _at(_starts(mine, valid, groups), group) + within, len(mine))
        event = jnp.zeros(mine.shape, bool).at[place].set(True, mode="drop")
        return (event == tables.rare_yes[mine]) & valid

    def level(carry: Any, of: jax.Array) -> Any:
        rank, alive, magnitude = carry  # of what is not 0 already: which of it is asked again
        yes = answers(of, _at(entry, rank) // tokens, _first(alive, most))
        rank = _at(rank, _positions(yes, most), fill=most)
        return (rank, yes.sum(dtype=jnp.int32), magnitude.at[rank].add(1, mode="drop")), None

    every = jnp.arange(n, dtype=jnp.int32)
    yes = answers(tables.group[0], every // tokens, jnp.ones(n, bool))
    entry, alive = _positions(yes, most), yes.sum(dtype=jnp.int32)
    start = (jnp.arange(most, dtype=jnp.int32), alive, jnp.ones(most, jnp.int8))
    (_, _, magnitude), _ = lax.scan(level, start, tables.group[1:])
    bit = low_start + shift.sum() + jnp.arange(most, dtype=jnp.int32)
    negative = _get(words, bit, jnp.ones_like(bit)) == 1
    found = jnp.where(negative, -magnitude, magnitude)
    symbols = jnp.zeros(n, jnp.int8).at[entry].set(found, mode="drop").reshape(features, tokens)
    return symbols[jnp.argsort(tables.order)].T


class _Events(NamedTuple):
    """Events of all levels, one after another with unused slots between; leaves (slots,) unless
    said otherwise."""

    used: jax.Array
    group: jax.Array
    quotient: jax.Array
    remainder: jax.Array
    counts: jax.Array  # (groups,), of events
    negative: jax.Array  # (entries that are not 0 at most,) bool, in the order of level 0
    bits: jax.Array  # (), of quotients, remainders and signs
    all_there: jax.Array  # (), whether all of them found a slot


def _events(symbols: jax.Array, tables: Tables, room: int | None) -> _Events:
    """The events of a message.

    Args:
      symbols: (tokens, features).
      tables: of both ends.
      room: bits that they may take, which bounds their number; None for as many as there are.
    """
    tokens, features = symbols.shape
    n, groups = tokens * features, tables.shift.shape[0]
    most = n if room is None else _capacity(room, n)

    def level(
        entry: jax.Array, feature: jax.Array, valid: jax.Array, of: jax.Array, at: Any
    ) -> Any:
        """Events of a level's questions, and the entries, features and number of what goes on."""
        mine = _at(of, feature)
        yes = (jnp.abs(entry) > at) & valid
        event = (yes == tables.rare_yes[mine]) & valid
        number, alive = event.sum(dtype=jnp.int32), yes.sum(dtype=jnp.int32)
        place = _positions(event, most)
        used, group = _first(number, most), _at(mine, place)
        before = jnp.concatenate([jnp.full(1, -1, place.dtype), place[:-1]])
        gap = place - jnp.maximum(before, _starts(mine, valid, groups)[group] - 1) - 1
        gap, shift = jnp.where(used, gap, 0), tables.shift[group]
        events = (used, group, gap >> shift, gap & (1 << shift) - 1)
        chosen, there = _positions(yes, most), (number <= most) & (alive <= most)
        return (events, there), (_at(entry, chosen), _at(feature, chosen), alive)

    def again(carry: Any, asked: Any) -> Any:
        entry, feature, alive = carry
        made, carry = level(entry, feature, _first(alive, most), *asked)
        return carry, made

    entry = symbols[:, tables.order].T.reshape(-1).astype(jnp.int8)
    feature = jnp.arange(n, dtype=jnp.int32) // max(tokens, 1)
    first, carry = level(entry, feature, jnp.ones(n, bool), tables.group[0], 0)
    higher = jnp.arange(1, tables.group.shape[0], dtype=jnp.int8)
    _, rest = lax.scan(again, carry, (tables.group[1:], higher))
    (used, group, quotient, remainder), there = jax.tree.map(
        lambda one, more: jnp.concatenate([jnp.atleast_1d(one), more.reshape(-1)]), first, rest
    )
    bits = jnp.where(used, quotient + 1 + tables.shift[group], 0).sum() + carry[2]
    counts = jnp.zeros(groups, jnp.int32).at[group].add(used.astype(jnp.int32))
    negative = (carry[0] < 0) & _first(carry[2], most)
    return _Events(
        used, group, quotient, remainder.astype(jnp.uint32), counts, negative, bits, there.all()
    )


def _check_symbols(where: str, symbols: jax.Array, features: tuple[int, ...]) -> None:
    if symbols.ndim != 2 or symbols.shape[1:] != features:
        shown = f"(tokens, {features[0]})" if features else "(tokens, features)"
        raise ValueError(f"{where}: symbols have shape {symbols.shape}; reshape them to {shown}")


def _capacity(room: int, n: int) -> int:
    """Slots for the events, and for the entries that go on, of a level.

    An entry that is not 0 takes a bit for its sign and seldom less than one to say where it is. A
    message of so many that they find no slot is one that does not fit.
    """
    return max(min(n, room // 2), 1)


def _at(values: jax.Array, index: jax.Array, fill: int = 0) -> jax.Array:
    return values.at[index].get(mode="fill", fill_value=fill)


def _first(number: jax.Array, size: int) -> jax.Array:
    """bool (size,), true at the first `number`."""
    return jnp.arange(size, dtype=jnp.int32) < number


def _starts(of: jax.Array, valid: jax.Array, groups: int) -> jax.Array:
    """Where the questions of each group begin, (groups,) int32; `of` ascends where it is valid."""
    last = jnp.where(valid, of, groups)
    return jnp.searchsorted(last, jnp.arange(groups, dtype=last.dtype)).astype(jnp.int32)


def _positions(mask: jax.Array, capacity: int) -> jax.Array:
    """Where the mask is true, ascending, (capacity,) int32; its length past the last one."""
    n = mask.shape[0]
    packed = pack_codes(jnp.pad(mask, (0, -n % 32)).astype(jnp.uint8), 1).reshape(-1, 4)
    found = set_bits(lax.bitcast_convert_type(packed, jnp.uint32), capacity)
    return jnp.minimum(found, n)


def _put(words: jax.Array, bit: jax.Array, value: jax.Array, used: jax.Array) -> jax.Array:
    """Adds values of up to 32 bits at bit positions."""
    at = jnp.where(used, bit >> 5, words.shape[0])
    offset = (bit & 31).astype(jnp.uint32)
    words = words.at[at].add(value << offset, mode="drop")
    # A shift by 32 is undefined, so the upper part goes in two steps.
    return words.at[at + 1].add(value >> 1 >> 31 - offset, mode="drop")


def _get(words: jax.Array, bit: jax.Array, width: jax.Array) -> jax.Array:
    """Fields of up to 31 bits, uint32."""
    offset = (bit & 31).astype(jnp.uint32)
    low = words.at[bit >> 5].get(mode="fill", fill_value=0) >> offset
    high = words.at[(bit >> 5) + 1].get(mode="fill", fill_value=0) << 1 << 31 - offset
    return (low | high) & (jnp.uint32(1) << width.astype(jnp.uint32)) - jnp.uint32(1)


def _plain_width(levels: int) -> int:
    return 2 if levels == 1 else 4 if levels <= 7 else 8


def _count_bits(entries: int, size: int) -> int:
    """Bits of a number of events: no more than there are entries, or than `size` bytes can hold."""
    return max(min(entries, 8 * size).bit_length(), 1)


def _without(words: jax.Array, bits: int) -> jax.Array:
    """The words with the first bits cleared."""
    whole, rest = divmod(bits, 32)
    kept = jnp.arange(words.shape[0], dtype=jnp.int32) > whole
    words = jnp.where(kept, words, words.at[whole].get() >> rest << rest)
    return words.at[:whole].set(0)
