"""Inner products and norms, measured in one pass: against NumPy, for all lengths, dtypes and transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import each_dtype

from jaxmin._core import vector as vec

LENGTHS = (0, 1, 2, 7, 31, 32, 33, 35, 100, 1000, 2**16 - 1, 2**16, 2**16 + 67)


def vectors(n, dtype="float64"):
    rng = np.random.default_rng(n)
    return [jnp.asarray(rng.standard_normal(n), dtype) for _ in range(3)]


def by_numpy(x, y, z):
    x, y, z = (np.asarray(u, np.float64) for u in (x, y, z))
    return [x @ y, z @ z, np.sqrt(z @ z), *(np.max(np.abs(u), initial=0) for u in (x, z, x))]


def measured(x, y, z):
    return vec.measure((x, y), (z, z), norms=(z,), largest=(x, z, x))


@each_dtype
@pytest.mark.parametrize("n", LENGTHS)
def test_products_and_norms_of_any_length(n, dtype):
    given = vectors(n, dtype)
    found = measured(*given)
    assert [u.dtype for u in found] == [dtype] * 6
    assert [u.shape for u in found] == [()] * 6
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(found, by_numpy(*given), rtol=eps * (20 + n**0.5), atol=4 * eps * n**0.5)


def test_norms_are_exact():
    x, *_ = vectors(1003)
    assert float(vec.max_abs(x)) == np.max(np.abs(x))


@pytest.mark.parametrize("n", [3, 33, 5000, 70_000])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, -1, -2])
def test_what_is_not_finite_is_seen_wherever_it_is(n, bad, where):
    x = jnp.ones(n).at[where].set(bad)
    product, largest = vec.measure((x, jnp.ones(n)), largest=(x,))
    assert np.isnan(largest)
    assert np.isnan(product) if np.isnan(bad) else product == bad


def test_half_precision_accumulates_in_float32():
    x = jnp.ones(4096, jnp.bfloat16) * 0.5
    product, largest = vec.measure((x, x), largest=(x,))
    assert product.dtype == largest.dtype == jnp.float32
    assert (float(product), float(largest)) == (1024.0, 0.5)


@pytest.mark.parametrize("n", [2, 45])
def test_a_batch_gives_what_its_lanes_give(n):
    x, y, z = (jnp.stack([u, 2 * u, -u]) for u in vectors(n))
    for axes in ((0, 0, 0), (0, None, 0)):
        given = [u if axis == 0 else u[0] for u, axis in zip((x, y, z), axes, strict=True)]
        batch = jax.vmap(measured, axes)(*given)
        nested = jax.vmap(jax.vmap(measured, axes), axes)(*(u if a is None else u[None] for u, a in zip(given, axes)))
        for lane in range(3):
            alone = measured(*(u[lane] if axis == 0 else u for u, axis in zip(given, axes, strict=True)))
            np.testing.assert_allclose([u[lane] for u in batch], alone, rtol=1e-14)
            np.testing.assert_allclose([u[0, lane] for u in nested], alone, rtol=1e-14)


@pytest.mark.parametrize("n", [2, 45])
def test_derivatives_are_those_of_the_plain_formulas(n):
    x, y, z = vectors(n)
    weighted = lambda found: sum(w * u for w, u in zip((1.0, 2.0, 4.0, 3.0, 5.0, 7.0), found, strict=True))
    plain = lambda x, y, z: weighted(
        [x @ y, z @ z, jnp.sqrt(z @ z), jnp.max(jnp.abs(x)), jnp.max(jnp.abs(z)), jnp.max(jnp.abs(x))]
    )
    ours = lambda x, y, z: weighted(measured(x, y, z))
    slopes = lambda f: jax.jit(jax.grad(f, (0, 1, 2)))
    for one, other in zip(*(slopes(f)(x, y, z) for f in (ours, plain)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(*(jax.jit(jax.hessian(f, 2))(x, y, z) for f in (ours, plain)), atol=1e-12)
    batch, *_ = jax.vmap(slopes(ours))(jnp.stack([x, y]), jnp.stack([y, x]), jnp.stack([z, z]))
    np.testing.assert_allclose(batch[1], slopes(plain)(y, x, z)[0], rtol=1e-12, atol=1e-13)


def test_dot_is_linear():
    x, y, _ = vectors(45)
    (back,) = jax.linear_transpose(lambda u: vec.dot(y, u), x)(2.0)
    np.testing.assert_allclose(back, 2 * y)


def test_one_pass_is_one_kernel():
    """On a CPU: the reduction is one operation of the program, whatever is measured."""
    program = jax.jit(measured).lower(*vectors(100)).compile().as_text()
    assert program.count(" reduce(") == 1
