"""The wire formats against byte layouts written out in numpy, float64 and plain Python."""

import re
from collections.abc import Callable

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import PartitionSpec

from snapjax.wire import dense, spikes

# Every new shape compiles every operation once, so properties draw from a few shapes.
SHAPES = [(1,), (0, 5), (3, 1), (2, 3, 8), (4, 13)]
KEY = jax.random.key(0)
INT_BITS = {"int8": 8, "int4": 4, "int2": 2}
REACH = {"int8": 127, "int4": 7, "int2": 2}
few = settings(deadline=None, max_examples=30)

# The properties run jitted: one compilation a shape instead of one an operation.
pack_bits = jax.jit(spikes.pack_bits)
unpack_bits = jax.jit(spikes.unpack_bits, static_argnums=(1, 2))
pack_events = jax.jit(spikes.pack_events, static_argnums=1)
unpack_events = jax.jit(spikes.unpack_events, static_argnums=(1, 2, 3, 4))
pack_dense = jax.jit(dense.pack_dense, static_argnums=1)
unpack_dense = jax.jit(dense.unpack_dense, static_argnums=(1, 2, 3))
pack_gradient = jax.jit(dense.pack_gradient, static_argnums=1)
unpack_gradient = jax.jit(dense.unpack_gradient, static_argnums=(1, 2, 3))


def arrays(dtype: type, elements: st.SearchStrategy | None = None) -> st.SearchStrategy:
    return st.sampled_from(SHAPES).flatmap(lambda s: hnp.arrays(dtype, s, elements=elements))


@few
@given(bits=arrays(bool), dtype=st.sampled_from([jnp.bool_, jnp.float32, jnp.bfloat16]))
def test_bits_have_numpys_layout_and_come_back(bits, dtype):
    packed = pack_bits(jnp.asarray(bits, dtype))
    assert packed.dtype == jnp.uint8
    np.testing.assert_array_equal(packed, np.packbits(bits, axis=-1, bitorder="little"))
    assert packed.size == spikes.bit_plane_bytes(int(np.prod(bits.shape[:-1])), bits.shape[-1])
    unpacked = unpack_bits(packed, bits.shape[-1], dtype)
    assert unpacked.dtype == dtype
    np.testing.assert_array_equal(np.asarray(unpacked, bool), bits)


def test_whatever_is_not_zero_is_a_one():
    x = jnp.array([0.0, -0.0, 0.25, -1.0, 2.0, jnp.nan, jnp.inf, 0.0])
    assert spikes.pack_bits(x).tolist() == [0b01111100]
    assert int(spikes.event_count(x)) == 5
    assert spikes.pack_bits(jnp.array([2, 256, -1])).tolist() == [0b111]


# (tokens, k, capacity, bytes of a count, bytes of an index)
EVENT_SIZES = [
    (0, 5, 3, 1, 1),
    (1, 1, 1, 1, 1),
    (3, 33, 20, 1, 1),
    (2, 255, 300, 1, 1),
    (2, 256, 520, 2, 1),
    (2, 257, 514, 2, 2),
    (1, 65535, 65535, 2, 2),
]


def events_by_hand(bits: np.ndarray, capacity: int, count_bytes: int, index_bytes: int) -> bytes:
    """One token after the other, one spike after the other."""
    spikes = [[i for i, spike in enumerate(row) if spike] for row in bits.tolist()]
    counts = b"".join(len(row).to_bytes(count_bytes, "little") for row in spikes)
    indices = b"".join(i.to_bytes(index_bytes, "little") for row in spikes for i in row)
    return counts + indices.ljust(capacity * index_bytes, b"\0")


@settings(deadline=None, max_examples=50)
@given(data=st.data(), size=st.sampled_from(EVENT_SIZES))
def test_events_are_written_as_specified_and_come_back(data, size):
    tokens, k, capacity, count_bytes, index_bytes = size
    flat = np.zeros(tokens * k, bool)
    if flat.size:
        places = st.integers(0, flat.size - 1)
        flat[list(data.draw(st.sets(places, max_size=min(capacity, 40))))] = True
    check_events(flat.reshape(tokens, k), capacity, count_bytes, index_bytes)


@pytest.mark.parametrize("size", EVENT_SIZES)
def test_events_of_every_feature_and_of_none(size):
    tokens, k, capacity, *widths = size
    spikes = np.arange(tokens * k).reshape(tokens, k) < capacity
    check_events(spikes, capacity, *widths)  # full to the last slot wherever the bits suffice
    check_events(~np.ones_like(spikes), capacity, *widths)


def check_events(bits: np.ndarray, capacity: int, count_bytes: int, index_bytes: int) -> None:
    tokens, k = bits.shape
    buffer = pack_events(jnp.asarray(bits), capacity)
    assert bytes(np.asarray(buffer)) == events_by_hand(bits, capacity, count_bytes, index_bytes)
    assert (buffer.shape, buffer.dtype) == ((spikes.event_bytes(tokens, k, capacity),), jnp.uint8)
    assert int(spikes.event_count(jnp.asarray(bits))) == bits.sum() <= capacity
    for dtype in (jnp.float32, jnp.bool_):
        unpacked = unpack_events(buffer, tokens, k, capacity, dtype)
        assert unpacked.dtype == dtype
        np.testing.assert_array_equal(unpacked, bits.astype(dtype))


def test_of_too_many_events_the_first_are_decoded():
    bits = np.random.default_rng(1).random((5, 40)) < 0.5
    capacity = 17
    kept = bits & (np.cumsum(bits).reshape(bits.shape) <= capacity)
    assert int(spikes.event_count(jnp.asarray(bits))) > capacity
    buffer = pack_events(jnp.asarray(bits), capacity)
    np.testing.assert_array_equal(unpack_events(buffer, 5, 40, capacity, jnp.bool_), kept)


@pytest.mark.parametrize(("format", "bits"), [("float32", np.uint32), ("bfloat16", np.uint16)])
@few
@given(data=st.data())
def test_float_formats_keep_every_bit_of_their_own_dtype(format, bits, data):
    words = data.draw(arrays(bits))
    check_bits_survive(words.view(jnp.dtype(format)), format, words)


def test_float_formats_keep_nan_payloads_infinities_and_subnormals():
    words = np.array([0x7F800001, 0xFFC12345, 0xFF800000, 0x80000000, 0x00000001], np.uint32)
    check_bits_survive(words.view(np.float32), "float32", words)
    words = np.array([0x7F81, 0xFFC1, 0xFF80, 0x8000, 0x0001], np.uint16)
    check_bits_survive(words.view(jnp.bfloat16), "bfloat16", words)


def check_bits_survive(x: np.ndarray, format: str, words: np.ndarray) -> None:
    d = x.shape[-1]
    packed = pack_dense(jnp.asarray(x), format)
    np.testing.assert_array_equal(packed, np.ascontiguousarray(words).view(np.uint8))
    back = unpack_dense(packed, d, format, x.dtype)
    np.testing.assert_array_equal(np.asarray(back).view(words.dtype), words)
    gradient = pack_gradient(jnp.asarray(x), format, None)
    assert gradient.dtype == {"float32": jnp.float32, "bfloat16": jnp.uint16}[format]
    np.testing.assert_array_equal(np.asarray(gradient).view(words.dtype), words)
    back = unpack_gradient(gradient, d, format, x.dtype)
    np.testing.assert_array_equal(np.asarray(back).view(words.dtype), words)


LARGEST_BFLOAT16 = float(jnp.finfo(jnp.bfloat16).max)  # beyond, numbers are clipped


@few
@given(
    x=arrays(
        np.float32,
        st.floats(-LARGEST_BFLOAT16, LARGEST_BFLOAT16, width=32)
        | st.sampled_from([np.inf, -np.inf]),
    )
)
@example(x=np.array([4.4e-39, -1e-45], np.float32))
def test_bfloat16_rounds_float32_to_nearest_even(x):
    words = np.ascontiguousarray(x).view(np.uint32).astype(np.uint64)
    expected = ((words + 0x7FFF + (words >> 16 & 1)) >> 16).astype(np.uint16)
    packed = pack_dense(jnp.asarray(x), "bfloat16")
    np.testing.assert_array_equal(packed, expected.view(np.uint8))
    np.testing.assert_array_equal(pack_gradient(jnp.asarray(x), "bfloat16", None), expected)
    back = unpack_dense(packed, x.shape[-1], "bfloat16", jnp.float32)
    np.testing.assert_array_equal(back, (expected.astype(np.uint32) << 16).view(np.float32))


def read_int_rows(packed: np.ndarray, d: int, format: str) -> tuple[np.ndarray, np.ndarray]:
    """Scales (..., 1) and values in units of the scale (..., d), float64, bit by bit."""
    width = INT_BITS[format]
    scale_bits = (packed[..., :2].astype(np.uint32) << np.array([16, 24], np.uint32)).sum(-1)
    scale = scale_bits[..., None].astype(np.uint32).view(np.float32).astype(np.float64)
    bits = np.unpackbits(packed[..., 2:], axis=-1, bitorder="little")
    assert not bits[..., d * width :].any()  # padding
    codes = bits[..., : d * width].reshape(*packed.shape[:-1], d, width) @ (1 << np.arange(width))
    return scale, codes - {"int8": 128, "int4": 8, "int2": 1.5}[format]


def smallest_scale(absmax: np.ndarray, reach: int) -> np.ndarray:
    """The smallest bfloat16 (8 significant bits) whose product with `reach` is not below absmax."""
    quotient = absmax / reach
    _, exponent = np.frexp(quotient)
    guess = np.ldexp(np.ceil(np.ldexp(quotient, 8 - exponent)) - 1, exponent - 8)
    step = np.ldexp(1.0, exponent - 8)
    for _ in range(2):  # the quotient was rounded, the products are exact
        guess = np.where(guess * reach < absmax, guess + step, guess)
    return guess


# Tokens of one feature at, just below and just above every product of a scale and its reach.
EDGES = np.outer([2, 7, 127], np.arange(128, 256)).astype(np.float32).reshape(-1, 1)
EDGES = np.concatenate([np.nextafter(EDGES, np.float32(side)) for side in (0, np.inf)] + [EDGES])


@pytest.mark.parametrize("format", INT_BITS)
@few
@example(x=EDGES)
@given(x=arrays(np.float32, st.floats(-(2.0**100), 2.0**100, width=32)))
def test_integer_rows_hold_the_nearest_levels(format, x):
    x = np.where(np.abs(x) < 2.0**-100, np.float32(0), x)
    d, reach = x.shape[-1], REACH[format]
    packed = pack_dense(jnp.asarray(x), format)
    assert packed.dtype == jnp.uint8
    scale, level = read_int_rows(np.asarray(packed), d, format)
    absmax = np.abs(x.astype(np.float64)).max(axis=-1, keepdims=True)
    np.testing.assert_array_equal(scale, np.where(absmax > 0, smallest_scale(absmax, reach), 0))
    assert np.all(np.abs(level) <= (1.5 if format == "int2" else reach))
    # Half a level, and the two roundings of float32 in x * (1 / scale).
    assert np.all(np.abs(level * scale - x) <= scale * (0.5 + reach * 2.0**-22))
    back = unpack_dense(packed, d, format, jnp.float32)
    np.testing.assert_array_equal(back, level * scale)  # 16 significant bits: exact in float32


@pytest.mark.parametrize(
    ("format", "x", "expected"),
    [
        ("int8", [127, -127, 0, 1, -2.6], [0x80, 0x3F, 255, 1, 128, 129, 125]),
        ("int4", [7, -7, 1, 0, 3.4], [0x80, 0x3F, 0x1F, 0x89, 0x0B]),
        ("int2", [2, -2, 0.5, -0.5, 1.01], [0x80, 0x3F, 0b01_10_00_11, 0b11]),
        ("int4", [0, 0, 0], [0, 0, 0x88, 0x08]),
        # 1 / 127 = 129.008 / 2^14, so the scale is 130 / 2^14 = 0x3C02 and 1 is 126.03 of it.
        ("int8", [1.0], [0x02, 0x3C, 126 + 128]),
    ],
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_integer_rows_written_out(format, x, expected, dtype):
    assert pack_dense(jnp.asarray(x, dtype), format).tolist() == expected


@pytest.mark.parametrize("format", INT_BITS)
def test_zero_tokens_and_buffers_are_exactly_zero(format):
    x = jnp.array([[0.0, -0.0, 0.0], [1e-40, 0.0, -1e-40], [1.0, 2.0, 3.0]])
    back = unpack_dense(pack_dense(x, format), 3, format, jnp.float32)
    assert not back[:2].any()
    assert back[2].all()
    received = jnp.zeros((2, dense.dense_bytes(1, 3, format)), jnp.uint8)
    assert not unpack_dense(received, 3, format, jnp.float32).any()


@pytest.mark.parametrize("format", dense.DENSE_FORMATS)
def test_what_is_not_finite_stays_in_its_token(format):
    clean = np.random.default_rng(2).normal(size=(5, 6)).astype(np.float32)
    x = clean.copy()
    x[1, 2], x[2, 0], x[4, 5] = np.nan, np.inf, -np.inf
    packed, clean_packed = (pack_dense(jnp.asarray(v), format) for v in (x, clean))
    np.testing.assert_array_equal(packed[::3], clean_packed[::3])  # tokens 0 and 3
    back = np.asarray(unpack_dense(packed, 6, format, jnp.float32))
    if format in INT_BITS:
        assert np.isnan(back[[1, 2, 4]]).all()
    else:
        np.testing.assert_array_equal(np.isfinite(back), np.isfinite(x))
        np.testing.assert_array_equal(back[[2, 4], [0, 5]], [np.inf, -np.inf])


@pytest.mark.parametrize("format", ["int8", "int4"])
@pytest.mark.parametrize("d", [15, 16])
def test_stochastic_rounding_is_unbiased_within_one_level(format, d):
    n = 20_000
    # The last feature fixes the scale at 1; the others are fractions of a level.
    x = np.append(np.linspace(-2.999, 2.9, d - 1), REACH[format]).astype(np.float32)
    packed = pack_dense(jnp.tile(jnp.asarray(x), (n, 1)), format, jax.random.key(3))
    scale, level = read_int_rows(np.asarray(packed), d, format)
    assert np.all(scale == 1)
    error = level - x
    assert np.abs(error).max() < 1
    fraction = x - np.floor(x)
    deviation = np.sqrt(fraction * (1 - fraction))
    assert np.all(np.abs(error.mean(axis=0)) <= 5 * deviation / np.sqrt(n) + 2.0**-17)
    correlation = np.corrcoef(error[:, :-1], rowvar=False) - np.eye(d - 1)
    assert np.abs(correlation).max() < 5 / np.sqrt(n)


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_stochastic_rounding_depends_on_the_key_and_keeps_levels(format):
    x = jnp.asarray(np.random.default_rng(4).normal(size=(8, 32)), jnp.float32)
    first, again, other = (pack_dense(x, format, jax.random.key(s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.mean(np.asarray(first) != np.asarray(other)) > 0.1
    levels = jnp.arange(-REACH[format], REACH[format] + 1, dtype=jnp.float32) * 0.25
    for seed in range(5):
        packed = pack_dense(levels, format, jax.random.key(seed))
        back = unpack_dense(packed, levels.size, format, jnp.float32)
        np.testing.assert_array_equal(back, levels)


@pytest.mark.parametrize("format", ["int8", "int4"])
@pytest.mark.parametrize("shape", [(0, 5), (4, 13)])
def test_integer_gradients_are_stochastic_dense_rows(format, shape):
    g = jnp.asarray(np.random.default_rng(5).normal(size=shape), jnp.float32)
    packed = pack_gradient(g, format, KEY)
    np.testing.assert_array_equal(packed, pack_dense(g, format, KEY))
    back = unpack_gradient(packed, shape[-1], format, jnp.bfloat16)
    np.testing.assert_array_equal(back, unpack_dense(packed, shape[-1], format, jnp.bfloat16))


def test_byte_counts_by_hand():
    assert [spikes.bit_plane_bytes(3, k) for k in (1, 7, 8, 9, 384)] == [3, 3, 3, 6, 144]
    assert [spikes.event_bytes(10, k, 100) for k in (255, 256, 257)] == [110, 120, 220]
    per_token = {"float32": 52, "bfloat16": 26, "int8": 15, "int4": 9, "int2": 6}
    assert {f: dense.dense_bytes(1, 13, f) for f in dense.DENSE_FORMATS} == per_token
    assert dense.dense_bytes(0, 13, "int4") == spikes.bit_plane_bytes(0, 3) == 0
    gradients = {f: dense.gradient_bytes(4, 13, f) for f in dense.GRADIENT_FORMATS}
    assert gradients == {"float32": 208, "bfloat16": 104, "int8": 60, "int4": 36}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_byte_counts_are_the_sizes_of_the_buffers(shape, dtype):
    x = jnp.ones(shape, dtype)
    tokens, d = int(np.prod(shape[:-1])), shape[-1]
    for format in dense.DENSE_FORMATS:
        buffer = jax.eval_shape(lambda x, f=format: dense.pack_dense(x, f), x)
        assert buffer.size * buffer.dtype.itemsize == dense.dense_bytes(tokens, d, format)
    for format in dense.GRADIENT_FORMATS:
        buffer = jax.eval_shape(lambda x, f=format: dense.pack_gradient(x, f, KEY), x)
        assert buffer.size * buffer.dtype.itemsize == dense.gradient_bytes(tokens, d, format)
        back = jax.eval_shape(lambda b, f=format: dense.unpack_gradient(b, d, f, dtype), buffer)
        assert (back.shape, back.dtype) == (shape, dtype)


D, CAPACITY = 21, 80


def there_and_back(x: jax.Array, hop: Callable[[jax.Array], jax.Array]) -> dict[str, jax.Array]:
    """Every format over the same hop; x: (tokens, D)."""
    sent = x > 0.5
    results = {
        "planes": spikes.unpack_bits(hop(spikes.pack_bits(sent)), D, x.dtype),
        "events": spikes.unpack_events(
            hop(spikes.pack_events(sent, CAPACITY)), x.shape[0], D, CAPACITY, x.dtype
        ),
        "count": spikes.event_count(sent)[None],  # does not hop
    }
    for f in dense.DENSE_FORMATS:
        results[f] = dense.unpack_dense(hop(dense.pack_dense(x, f)), D, f, x.dtype)
    for f in dense.GRADIENT_FORMATS:
        buffer = hop(dense.pack_gradient(x, f, KEY))
        results[f"{f} gradient"] = dense.unpack_gradient(buffer, D, f, x.dtype)
    return results


def test_transformations_change_no_bit():
    x = jnp.asarray(np.random.default_rng(8).normal(size=(8, 10, D)), jnp.float32)

    def stay(tokens: jax.Array) -> dict[str, jax.Array]:
        return there_and_back(tokens, lambda buffer: buffer)

    alone = [jax.jit(stay)(x[i]) for i in range(8)]
    expected = {name: np.stack([one[name] for one in alone]) for name in alone[0]}
    mapped = jax.jit(jax.vmap(stay))(x)
    mesh = jax.make_mesh((8,), ("stage",), axis_types=(jax.sharding.AxisType.Auto,))
    ring, spec = [(i, (i + 1) % 8) for i in range(8)], PartitionSpec("stage")

    def hop_once(shard: jax.Array) -> dict[str, jax.Array]:
        results = there_and_back(shard[0], lambda buffer: lax.ppermute(buffer, "stage", ring))
        return {name: value[None] for name, value in results.items()}

    step = jax.jit(jax.shard_map(hop_once, mesh=mesh, in_specs=spec, out_specs=spec))
    hopped = step(x)
    for name, value in expected.items():
        np.testing.assert_array_equal(mapped[name], value, err_msg=name)
        moved = value if name == "count" else np.roll(value, 1, axis=0)
        np.testing.assert_array_equal(hopped[name], moved, err_msg=name)

    # What the compiler sends is what the byte counts say, in that dtype.
    sent = re.findall(
        r"= \(?(\w+)\[([\d,]+)\][^=]* collective-permute(?:-start)?\(",
        step.lower(x).compile().as_text(),
    )
    nbytes = [np.prod([int(n) for n in s.split(",")]) * int(t[1:]) // 8 for t, s in sent]
    counts = [spikes.bit_plane_bytes(10, D), spikes.event_bytes(10, D, CAPACITY)]
    counts += [dense.dense_bytes(10, D, f) for f in dense.DENSE_FORMATS]
    counts += [dense.gradient_bytes(10, D, f) for f in dense.GRADIENT_FORMATS]
    assert sorted(nbytes) == sorted(counts)
    assert sorted(dtype for dtype, _ in sent) == sorted(["u8"] * 9 + ["u16", "f32"])


X, BYTES, EMPTY = jnp.ones((2, 3)), jnp.zeros((2, 3), jnp.uint8), jnp.ones((3, 0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spikes.pack_bits(EMPTY), r"pack_bits: bits has shape \(3, 0\); .* at least 1"),
        (lambda: spikes.pack_bits(X[0, 0]), r"pack_bits: bits has shape \(\)"),
        (lambda: spikes.unpack_bits(BYTES, 25, bool), r"packed is uint8 \(2, 3\).* uint8 \(2, 4\)"),
        (lambda: spikes.unpack_bits(X, 24, bool), r"packed is float32 \(2, 3\)"),
        (lambda: spikes.bit_plane_bytes(-1, 8), "bit_plane_bytes: tokens=-1, k=8; need at least 0"),
        (lambda: spikes.event_bytes(1, 65536, 1), r"event_bytes: k=65536; .* bit planes"),
        (lambda: spikes.pack_events(X, 0), r"pack_events: capacity=0; .* at least 1"),
        (lambda: spikes.pack_events(X[0], 1), r"shape \(3,\); reshape it to \(tokens, k\)"),
        (lambda: spikes.unpack_events(BYTES, 2, 3, 2, bool), r"buffer is uint8 \(2, 3\).* \(4,\)"),
        (lambda: dense.dense_bytes(1, 3, "int3"), "unknown dense format 'int3'; did you mean 'int"),
        (lambda: dense.dense_bytes(1, 0, "int4"), r"dense_bytes: tokens=1, d=0"),
        (lambda: dense.pack_dense(X, "flaot32"), r"did you mean 'float32'\?"),
        (lambda: dense.pack_dense(BYTES, "int8"), r"pack_dense: x is uint8; cast it to float32"),
        (lambda: dense.pack_dense(X, "int2", KEY), r"format 'int2' got a key; only int8 and int4"),
        (lambda: dense.unpack_dense(BYTES, 2, "int8", X.dtype), r"must be uint8 \(2, 4\)"),
        (lambda: dense.gradient_bytes(1, 3, "int2"), r"unknown gradient format 'int2'"),
        (lambda: dense.pack_gradient(X, "int2", KEY), r"unknown gradient format 'int2'"),
        (lambda: dense.pack_gradient(X, "int8", None), r"stochastic rounding needs a key"),
        (lambda: dense.pack_gradient(BYTES, "int8", KEY), r"pack_gradient: g is uint8; cast it"),
        (lambda: dense.unpack_gradient(BYTES, 3, "int2", X.dtype), r"unknown gradient format"),
        (lambda: dense.unpack_gradient(BYTES, 3, "bfloat16", X.dtype), r"must be uint16 \(2, 3\)"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
