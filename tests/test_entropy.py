"""The entropy-coded wire: what is written, that it comes back, and how near its entropy it is."""

import jax.numpy as jnp
import numpy as np
import pytest

from snapjax.wire import entropy
from snapjax.wire.rates import Tables, tables


def counts(tokens, features, seed=0, *, levels=4, scale=2.0, decay=0.7):
    """Rounded Laplace samples, features of falling scale in a random order."""
    draw = np.random.default_rng(seed)
    scales = scale * (1 + np.arange(features)) ** -decay
    scales = scales[np.random.default_rng(9).permutation(features)]
    x = draw.laplace(size=(tokens, features)) * scales
    return np.clip(np.sign(x) * np.floor(np.abs(x) + 0.4), -levels, levels).astype(np.int8)


def rates(symbols, levels):
    size = np.abs(symbols)
    return np.array(
        [((size > at).sum(0) + 0.25) / ((size >= at).sum(0) + 0.5) for at in range(levels)]
    )


def needed(symbols, made: Tables):
    """The least size of a buffer that holds them, in bytes."""
    events = int(entropy.event_bits(jnp.asarray(symbols), made))
    header = lambda size: entropy.header_bits(*symbols.shape, len(made.shift), size)
    return next(size for size in range(events // 8, 10**6) if events + header(size) <= 8 * size)


def read(buffer, made: Tables, tokens, features):
    """The message as the module's docstring has it, one bit after another."""
    bits = iter(np.unpackbits(np.asarray(buffer), bitorder="little").tolist())
    take = lambda width: sum(next(bits) << i for i in range(width))
    shift, rare_yes, group = (np.asarray(each) for each in (made.shift, made.rare_yes, made.group))
    most = min(tokens * features, 8 * len(buffer))
    number = [take(max(most.bit_length(), 1)) for _ in shift]
    quotients = []
    for count in number:
        quotients.append([])
        for _ in range(count):
            quotients[-1].append(0)
            while not next(bits):
                quotients[-1][-1] += 1
    gaps = [
        [(quotient << k) + take(int(k)) for quotient in each]
        for each, k in zip(quotients, shift, strict=True)
    ]
    size = np.zeros((features, tokens), int)  # in the order of the tables
    asked = [(feature, token) for feature in range(features) for token in range(tokens)]
    signs = None
    for level in range(len(group)):
        goes_on = []
        for each in range(len(shift)):
            questions = [entry for entry in asked if group[level, entry[0]] == each]
            events, place = set(), -1
            for gap in gaps[each] if questions else []:
                place += gap + 1
                events.add(questions[place])
            goes_on += [entry for entry in questions if (entry in events) == rare_yes[each]]
        asked = goes_on
        for entry in asked:
            size[entry] += 1
        signs = signs if level else list(asked)
    for entry in signs:
        size[entry] *= -1 if next(bits) else 1
    symbols = np.zeros((tokens, features), int)
    symbols[:, np.asarray(made.order)] = size.T
    return symbols


@pytest.mark.parametrize(("tokens", "features", "levels"), [(50, 12, 4), (1, 3, 1), (33, 1, 2)])
def test_the_buffer_is_what_the_text_says(tokens, features, levels):
    known = counts(4000, features, 1, levels=levels)
    made = tables(rates(known, levels), groups=levels + 4)
    messages = [counts(tokens, features, seed, levels=levels) for seed in (2, 3, 4)]
    sizes = [needed(symbols, made) for symbols in messages]
    for symbols, size in zip(messages, sizes, strict=True):
        buffer, fits = entropy.pack(jnp.asarray(symbols), made, max(sizes))
        assert fits
        assert buffer.shape == (max(sizes),)
        assert (read(buffer, made, tokens, features) == symbols).all()
        assert (np.asarray(entropy.unpack(buffer, made, tokens, features)) == symbols).all()
        if size == max(sizes) > 8:
            assert not entropy.pack(jnp.asarray(symbols), made, size - 1)[1]


def test_any_symbols_come_back_or_do_not_fit():
    """Whatever the tables were made for: nothing, everything, one feature, random bits."""
    tokens, features, levels = 40, 8, 3
    made = tables(rates(counts(4000, features, 1, levels=levels), levels), groups=6)
    draw = np.random.default_rng(0)
    one = np.zeros((tokens, features), np.int8)
    one[:, 3] = -levels
    last = np.zeros((tokens, features), np.int8)
    last[-1, -1] = 1
    messages = {
        "nothing": np.zeros((tokens, features), np.int8),
        "all": np.full((tokens, features), levels, np.int8),
        "one feature": one,
        "the last entry": last,
        "random": draw.integers(-levels, levels + 1, (tokens, features)).astype(np.int8),
        "likely": counts(tokens, features, 5, levels=levels),
    }
    fitted = set()
    for size in (40, 120, 400):
        for name, symbols in messages.items():
            buffer, fits = entropy.pack(jnp.asarray(symbols), made, size)
            assert not (fits and needed(symbols, made) > size), name
            if fits:
                fitted.add(name)
                back = np.asarray(entropy.unpack(buffer, made, tokens, features))
                assert (back == symbols).all(), name
    assert fitted == set(messages)  # with room enough


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_a_message_of_a_thousand_tokens_is_near_its_entropy(rate):
    """Bits over the entropy of independent features, at rates of events that differ by feature."""
    features, levels, tokens = 64, 7, 1024
    low, high = 0.001, 30.0
    for _ in range(40):  # the scale that has this rate, by bisection
        scale = np.sqrt(low * high)
        known = counts(4000, features, 1, levels=levels, scale=scale)
        low, high = (scale, high) if (known != 0).mean() < rate else (low, scale)
    known = counts(40000, features, 1, levels=levels, scale=scale)
    ideal = 0.0
    for column in known.T:
        share = np.unique(column, return_counts=True)[1] / len(column)
        ideal -= (share * np.log2(share)).sum()
    made = tables(rates(known, levels), tokens=tokens)
    bits = [
        8 * needed(counts(tokens, features, seed, levels=levels, scale=scale), made)
        for seed in range(2, 8)
    ]
    assert np.mean(bits) < 1.08 * ideal * tokens
    assert np.max(bits) < 1.10 * ideal * tokens


def test_a_message_of_no_tokens():
    made = tables(np.full((2, 3), 0.1), groups=2)
    buffer, fits = entropy.pack(jnp.zeros((0, 3), jnp.int8), made, 4)
    assert fits
    assert entropy.unpack(buffer, made, 0, 3).shape == (0, 3)


@pytest.mark.parametrize("levels", [1, 7, 60])
def test_the_plain_form_holds_everything(levels):
    draw = np.random.default_rng(0)
    symbols = draw.integers(-levels, levels + 1, (9, 7)).astype(np.int8)
    buffer = entropy.pack_plain(jnp.asarray(symbols), levels)
    assert buffer.shape == (entropy.plain_bytes(9, 7, levels),)
    assert (np.asarray(entropy.unpack_plain(buffer, 9, 7, levels)) == symbols).all()


def test_groups_are_the_cheapest():
    """Against all ways to cut five features into groups."""
    rate = np.array([0.9, 0.4, 0.1, 0.09, 0.001])
    made = tables(rate[None], groups=5, tokens=1000)
    price = (5 * 1000).bit_length()

    def bits(questions, yes):
        rare = min(yes, questions - yes)
        gap = rare / questions
        return rare * min(1 + k + (1 - gap) ** 2**k / (1 - (1 - gap) ** 2**k) for k in range(20))

    best = np.inf
    for cuts in range(16):
        group = np.concatenate([[0], np.cumsum([cuts >> i & 1 for i in range(4)])])
        total = sum(
            price + bits(1000 * (group == each).sum(), 1000 * rate[group == each].sum())
            for each in range(group[-1] + 1)
        )
        if total < best:
            best, wanted = total, group
    assert made.group[0].tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("probability", "groups", "message"),
    [
        (np.array([0.1]), 4, r"probability: has shape \(1,\)"),
        (np.array([[1.2]]), 4, "outside"),
        (np.array([[np.nan]]), 4, "not finite"),
        (np.full((3, 2), 0.1), 2, "groups=2 must be at least levels=3"),
    ],
)
def test_what_has_no_tables(probability, groups, message):
    with pytest.raises(ValueError, match=message):
        tables(probability, groups)


def test_symbols_that_the_tables_do_not_know_are_told():
    made = tables(np.full((2, 3), 0.1))
    for symbols in (jnp.zeros(3, jnp.int8), jnp.zeros((4, 2), jnp.int8)):
        with pytest.raises(
            ValueError, match=r"symbols have shape .*; reshape them to \(tokens, 3\)"
        ):
            entropy.pack(symbols, made, 50)
    with pytest.raises(ValueError, match="symbols have shape"):
        entropy.pack_plain(jnp.zeros(3, jnp.int8), 2)
    for size, fits in ((2, True), (3, False)):
        one = jnp.zeros((4, 3), jnp.int8).at[1, 1].set(-size)
        assert entropy.pack(one, made, 50)[1] == fits


def test_a_buffer_too_small_for_its_counts():
    made = tables(np.full((1, 3), 0.1), groups=9)
    with pytest.raises(ValueError, match="size=1 bytes does not hold the counts of 9 groups"):
        entropy.pack(jnp.zeros((4, 3), jnp.int8), made, 1)
