"""The maps around a code: against singular values, an analytic optimum, and least squares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snapjax.boundary import Boundary
from snapjax.codes import calibrate, projection
from snapjax.codes.code import make_code
from snapjax.neurons.surrogate import Surrogate


def correlated(samples=4000, features=12, seed=0):
    draw = np.random.default_rng(seed)
    mix = draw.standard_normal((features, features)) * 2.0 ** -np.arange(features)[:, None]
    return draw.standard_normal((samples, features)) @ mix + draw.standard_normal(features)


def metric_of(features=12, seed=1):
    root = np.random.default_rng(seed).standard_normal((features, features))
    return root @ root.T


def test_full_rank_is_lossless():
    x = correlated()
    for metric in (None, metric_of()):
        maps = projection.principal_axes(x, 12, metric)
        np.testing.assert_allclose(x @ maps.encoder @ maps.decoder + maps.bias, x, atol=1e-9)
        z = x @ maps.encoder
        correlation = np.corrcoef(z, rowvar=False)
        np.testing.assert_allclose(correlation, np.eye(12), atol=1e-6)
        assert (np.diff(z.var(0)) <= 1e-9).all()  # most variance first


def test_low_rank_error_is_the_rest_of_the_singular_values():
    """Eckart and Young 1936: in the metric, no rank-3 map leaves less than the other 9 values."""
    x, metric = correlated(), metric_of()
    floored = metric / np.trace(metric) * 12 + projection.FLOOR * np.eye(12)
    root = np.linalg.cholesky(floored)
    for use, factor in ((None, np.eye(12)), (metric, root)):
        maps = projection.principal_axes(x, 3, use)
        error = (x @ maps.encoder @ maps.decoder + maps.bias - x) @ factor
        values = np.linalg.svd((x - x.mean(0)) @ factor, compute_uv=False)
        np.testing.assert_allclose((error**2).sum(), (values[3:] ** 2).sum(), rtol=1e-9)


def test_best_decoder_is_the_ridge_regression():
    draw = np.random.default_rng(2)
    value, prior = draw.standard_normal((500, 4)) * [3, 2, 1, 0], draw.standard_normal((4, 6))
    x = value @ draw.standard_normal((4, 6)) + draw.standard_normal((500, 6)) + 5
    decoder, bias = projection.best_decoder(value, x, prior)
    # The same by stacking the penalty under the samples, as for any ridge regression.
    centred = value - value.mean(0)
    ridge = projection.RIDGE * (centred**2).sum() / 4
    rows = np.vstack([centred, np.sqrt(ridge) * np.eye(4)])
    wanted = np.linalg.lstsq(rows, np.vstack([x - x.mean(0), np.sqrt(ridge) * prior]), rcond=None)[
        0
    ]
    np.testing.assert_allclose(decoder, wanted, atol=1e-9)
    np.testing.assert_allclose(bias, x.mean(0) - value.mean(0) @ wanted, atol=1e-9)


def error_of(boundary, x, metric, **options):
    """Mean e^T M e of what arrives."""
    params = boundary.calibrate(boundary.init(jax.random.key(0)), x, **options)
    error = np.asarray(jax.jit(boundary.apply)(params, jnp.asarray(x, jnp.float32))[0]) - x
    return np.einsum("ni,ij,nj->", error, metric, error) / len(x)


@pytest.mark.slow  # fits every option on many draws
def test_each_option_lowers_the_error_it_is_for():
    x, metric, plain = correlated(), metric_of(), np.eye(12)
    whole = Boundary(12, "phase", steps=8, budget=12)
    full = Boundary(12, "phase", steps=8, budget=12, rank=12)
    features = {"axes": "features"}
    # Identity maps change nothing.
    assert error_of(full, x, plain, **features) == pytest.approx(
        error_of(whole, x, plain), rel=1e-4
    )
    assert error_of(full, x, plain) < 0.5 * error_of(whole, x, plain)  # rotated
    assert error_of(full, x, plain, refit=True, **features) < 0.8 * error_of(whole, x, plain)
    rotated = error_of(full, x, metric)
    assert error_of(full, x, metric, sensitivity=metric) < 0.9 * rotated
    assert error_of(whole, x, metric, sensitivity=metric) < error_of(whole, x, metric)


@pytest.mark.parametrize("code", ["phase", "rate", "ternary"])
def test_at_variance_1_the_function_is_the_same(code):
    """Every feature that the code sees has it, but where next to nothing varies."""
    x = correlated()
    spikes = make_code(code, 12, steps=4, budget=24, surrogate=Surrogate())
    params = spikes.init()
    maps = projection.principal_axes(x, 12, metric_of())
    seen = x @ maps.encoder
    fitted = calibrate.fit(spikes, params, seen, None)
    turned, after = projection.unit_variance(fitted, maps, seen.std(0))

    @jax.jit
    def through_the_wire(fitted, seen):
        buffer = spikes.to_wire(fitted["encoder"], spikes.encode(fitted["encoder"], seen))
        value = spikes.from_wire(fitted["decoder"], buffer, jnp.float32)
        return spikes.decode(fitted["decoder"], value)

    def delivered(fitted, maps):
        seen = jnp.asarray(x @ maps.encoder, jnp.float32)
        return np.asarray(through_the_wire(fitted, seen)) @ maps.decoder + maps.bias

    # A value on a threshold may round to either side.
    apart = np.abs(delivered(turned, after) - delivered(fitted, maps)).max(1)
    assert (apart < 1e-3).mean() > 0.999
    assert delivered(turned, after).std() > 0.1
    deviation = (x @ after.encoder).std(0)
    floor = projection.FLAT * seen.std(0).max()
    np.testing.assert_allclose(deviation, np.minimum(1, seen.std(0) / floor), rtol=1e-6)


def test_the_diagonal_of_a_metric_is_the_weight_of_each_feature():
    x, metric = correlated(), metric_of()
    whole = Boundary(12, "phase", steps=4, budget=12)
    params = whole.init(jax.random.key(0))
    both = [whole.calibrate(params, x, use) for use in (metric, metric.diagonal())]
    jax.tree.map(np.testing.assert_array_equal, *both)


@pytest.mark.parametrize(
    ("rank", "options", "message"),
    [
        (None, {"refit": True}, "refit=True needs a projection"),
        (3, {"axes": "features"}, "needs rank=features=12, not rank=3"),
        (12, {"axes": "feature"}, "did you mean 'features'"),
        (12, {"sensitivity": np.eye(11)}, r"needs a finite \(12, 12\) matrix"),
        (12, {"sensitivity": np.triu(np.ones((12, 12)))}, "symmetric"),
        (12, {"sensitivity": -np.eye(12)}, "no negative diagonal"),
    ],
)
def test_options_that_do_not_fit(rank, options, message):
    boundary = Boundary(12, "phase", rank=rank)
    with pytest.raises(ValueError, match=message):
        boundary.calibrate(boundary.init(jax.random.key(0)), correlated(50), **options)
