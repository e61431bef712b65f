"""Complex numbers and float64, counted by hand and against real arithmetic written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cost_inputs import profile
from cost_programs import shape
from jax import lax
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from snapjax import cost
from snapjax.cost.hlo import counts as hlo

C64 = jnp.complex64


def work(function, *args):
    return {k: n for k, n in cost.trace(function, *args, strict=True).by_kind().items() if n}


def pair(*dims):
    """A complex array as its real and imaginary part."""
    return shape(*dims), shape(*dims)


def test_a_matmul_is_four_real_ones():
    counts = cost.trace(jnp.matmul, shape(4, 8, dtype=C64), shape(8, 16, dtype=C64), strict=True)
    # Written out: (a + bi) (c + di) by four real matmuls and two sums of matrices, which a
    # multiply-accumulate has inside.
    real = lambda a, b, c, d: (a @ c - b @ d, a @ d + b @ c)
    assert counts.macs == 4 * 4 * 8 * 16 == cost.trace(real, *pair(4, 8), *pair(8, 16)).macs
    (op,) = [op for op in counts.ops if op.kind == "mac"]
    assert (op.dtype, op.bits) == ("complex64", 32)
    # 18.4 pJ for each complex multiply-accumulate at 4.6 pJ.
    found = cost.estimate(counts, "snap-mesh").energy_parts["compute"].value
    assert found == pytest.approx(4 * 8 * 16 * 18.4)


def test_a_convolution_is_four_real_ones():
    image, kernel = shape(1, 3, 8, 8, dtype=C64), shape(5, 3, 3, 3, dtype=C64)
    conv = lambda x, w: lax.conv(x, w, (1, 1), "VALID")
    assert cost.trace(conv, image, kernel).macs == 4 * (5 * 6 * 6) * (3 * 3 * 3)


def written_out():
    """name -> (of complex numbers, the same of pairs of real ones)."""
    absolute = lambda a, b: lax.sqrt(a * a + b * b)
    return {
        "mul": (lambda x, y: x * y, lambda a, b, c, d: (a * c - b * d, a * d + b * c)),
        "add": (lambda x, y: x + y, lambda a, b, c, d: (a + c, b + d)),
        "sub": (lambda x, y: x - y, lambda a, b, c, d: (a - c, b - d)),
        "select": (
            lambda x, y: lax.select(jnp.ones(8, bool), x, y),
            lambda a, b, c, d: (
                lax.select(jnp.ones(8, bool), a, c), lax.select(jnp.ones(8, bool), b, d),
            ),
        ),
        "abs": (lambda x, y: jnp.abs(x) + jnp.abs(y),
                lambda a, b, c, d: absolute(a, b) + absolute(c, d)),
        "sum": (lambda x, y: (x.sum(), y.sum()),
                lambda a, b, c, d: (a.sum(), b.sum(), c.sum(), d.sum())),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["mul", "add", "sub", "select", "abs", "sum"])
def test_elementwise_work_is_that_of_the_parts(name):
    complex_, real = written_out()[name]
    x = shape(8, dtype=C64)
    assert work(complex_, x, x) == work(real, *pair(8), *pair(8))
    # And the parts written out compute the same.
    if name in ("abs", "sum"):
        return
    a, b, c, d = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    got = [np.asarray(part) for part in real(a, b, c, d)]
    want = np.asarray(complex_((a + 1j * b).astype(C64), (c + 1j * d).astype(C64)))
    np.testing.assert_allclose(got[0] + 1j * got[1], want, rtol=1e-5)


def test_work_of_complex_numbers_by_hand():
    x = shape(100, dtype=C64)
    assert work(lambda x: x * x, x) == {"multiply": 400, "add": 200}
    # By the conjugate: 4 products and 2 sums of the numerator, 2 and 1 of the divisor, 2 quotients.
    assert work(lambda x, y: x / y, x, x) == {"multiply": 600, "add": 300, "divide": 200}
    assert work(jnp.exp, x) == {"multiply": 200, "transcendental": 300}
    assert work(jnp.conj, x) == {"other": 100}
    assert work(lambda x: x.sum(), x) == {"add": 198}
    assert work(lambda x: jnp.cumsum(x), x) == {"add": 198}
    assert work(lambda x: x**3, x) == {"multiply": 800, "add": 400}
    assert work(lambda x: x == x, x) == {"compare": 200}
    # |z| is two squares, a sum and a root; its sign is both parts over it.
    assert work(jnp.sign, x) == {
        "multiply": 200, "add": 100, "transcendental": 100, "divide": 200,
    }  # fmt: skip


def test_a_sum_over_devices_adds_both_parts():
    mesh = AbstractMesh((4,), ("a",), axis_types=(AxisType.Auto,))
    run = jax.shard_map(lambda x: lax.psum(x, "a"), mesh=mesh, in_specs=P("a"), out_specs=P())
    counts = cost.trace(run, shape(32, dtype=C64))
    assert counts.total("add") == 2 * 8 * 3 / 4  # a ring adds 3 of 4 parts on each device
    assert counts.transfers[0].payload_bytes == 8 * 8


def test_bytes_are_those_of_both_parts():
    counts = cost.trace(jnp.matmul, shape(4, 8, dtype=C64), shape(8, 16, dtype=C64))
    (op,) = [op for op in counts.ops if op.kind == "mac"]
    assert (op.bytes_read, op.bytes_written) == (8 * (4 * 8 + 8 * 16), 8 * 4 * 16)


def test_the_gradient_of_a_complex_layer():
    loss = lambda w, x: jnp.abs(x @ w).sum()
    x, w = shape(4, 8, dtype=C64), shape(8, 16, dtype=C64)
    assert cost.trace(jax.grad(loss), w, x).macs == 2 * 4 * 4 * 8 * 16


@pytest.mark.parametrize(("dtype", "each"), [("float64", 20), ("complex128", 4 * 20)])
def test_doubles_have_their_own_price(dtype, each):
    with jax.enable_x64(True):
        x, w = shape(4, 8, dtype=dtype), shape(8, 16, dtype=dtype)
        counts = cost.trace(jnp.matmul, x, w)
    assert {op.bits for op in counts.ops if op.kind == "mac"} == {64}
    assert cost.estimate(counts, profile()).energy_parts["compute"].value == 4 * 8 * 16 * each


@pytest.mark.parametrize("name", cost.list_profiles())
def test_wider_numbers_are_never_cheaper_or_faster(name):
    found = cost.load_profile(name)
    widths = (8, 16, 32, 64)
    energies = [found[f"mac_{width}"] for width in widths]
    rates = [found[f"rate_mac_{width}"] for width in widths]
    assert energies == sorted(energies)
    assert rates == sorted(rates, reverse=True)
    if name != "loihi-like":  # whose synapses are one size
        assert energies[3] > energies[2]
    assert rates[3] < rates[2]


def test_the_compiled_program_is_counted_alike():
    put = lambda *dims: jnp.zeros(dims, C64)
    run = lambda x, y, w: (x * y + x) @ w
    counts = cost.trace(run, put(4, 8), put(4, 8), put(8, 16))
    compiled = jax.jit(run).lower(put(4, 8), put(4, 8), put(8, 16)).compile()
    found = hlo.counts(compiled)
    assert cost.compare(counts, found) == ()
    assert (found.macs, found.total("multiply"), found.total("add")) == (2048, 128, 128)
    assert {op.bits for op in found.ops if op.kind == "mac"} == {32}
