"""Preconditioners of trust_ncg and newton_cg: a band of the Hessian, and the user's own function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxmin
from jaxmin import Status, minimize, newton_cg, trust_ncg
from jaxmin.methods._band import Band, _times

BANDED = trust_ncg(preconditioner="banded")


def band_matrix(n, h, seed=0, units=1.0):
    """A symmetric matrix without numbers outside its band, with eigenvalues of both signs."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n))
    i, j = np.indices((n, n))
    return units * np.where(np.abs(i - j) <= h, A + A.T, 0) * np.reshape(units, (-1, 1))


def learnt(H, bandwidth):
    """The band after rounds until it is used, or until every bandwidth was tried; and the products that this took."""
    always, products, x = jnp.ones((), bool), 0, jnp.zeros(H.shape[0])
    begin = jax.jit(lambda band: band.counted(jnp.int32(0), always))
    learn = jax.jit(lambda band: band.learnt(band.apply(x), H @ band.apply(x), always))
    band = Band.unknown(x, bandwidth)
    while not band.used and band._replace(spent=10**6).is_due:
        band = begin(band)
        while band.goes_on:
            band, products = learn(band), products + 1
    return band, products


# ---- the matrix


@pytest.mark.parametrize(
    ("n", "h", "bandwidth", "products"),
    [
        (2, 1, 30, 2),  # the band is all of H: no test
        (7, 2, 30, 7),
        (30, 29, 29, 4 + 8 + 30),
        (32, 30, 30, 4 + 8 + 33),
        (100, 10, 30, 4 + 8 + 22),
        (95, 3, 10, 4 + 8),
        (50, 1, 5, 6),
    ],
)
def test_a_band_is_found_by_products_alone(n, h, bandwidth, products):
    """The eigenvalues of M^-1 H are then 1 and -1, whatever the units of the variables are."""
    H = jnp.asarray(band_matrix(n, h, units=np.exp(np.linspace(0, 12, n))))
    band, taken = learnt(H, bandwidth)
    assert band.used and taken == products
    eigenvalues = np.linalg.eigvals(jax.vmap(band.apply, 1, 1)(H))
    np.testing.assert_allclose(np.abs(eigenvalues), 1, rtol=1e-6)


def test_a_matrix_without_a_band_is_not_used():
    rng = np.random.default_rng(1)
    A = rng.standard_normal((120, 120))
    band, products = learnt(jnp.asarray(A @ A.T), 30)
    assert not band.used and products == 4 + 8 + 22 + 62
    z = jnp.asarray(rng.standard_normal(120))
    np.testing.assert_array_equal(band.apply(z), z)


def test_products_with_a_band():
    H = jnp.asarray(band_matrix(40, 4))
    band, _ = learnt(H, 4)
    v = jnp.sin(jnp.arange(40) * 1.0)
    np.testing.assert_allclose(_times(band.B, v), H @ v, rtol=1e-12, atol=1e-12)


def test_a_singular_band_has_a_finite_inverse():
    H = jnp.asarray(np.diag(np.r_[np.ones(40), np.zeros(5)]))
    band, _ = learnt(H, 3)
    assert np.isfinite(band.apply(jnp.ones(45))).all()


# ---- the solves


def curly(x):
    """CURLY10 of CUTEst: sums of eleven neighbours, and as many saddle points as one wants."""
    sums = jnp.cumsum(jnp.pad(x, (1, 10)))
    q = sums[11:] - sums[:-11]
    return jnp.sum(q**4 - 20 * q**2 - 0.1 * q)


X0 = 1e-4 * np.arange(1, 1_001) / 1_001


def in_units(fun, units):
    return lambda x: fun(x / units)


def test_a_band_saves_products():
    plain, banded = (minimize(curly, X0, method=method) for method in ("trust_ncg", BANDED))
    assert plain.success and banded.success
    assert banded.nhev < plain.nhev / 5 and banded.nfev < 2 * plain.nfev


def test_a_band_in_very_different_units():
    units = np.exp(-np.linspace(0, 12, 1_000))
    options = {"maxiter": 2_000, "gtol_relative": 1e-9}
    banded = minimize(in_units(curly, units), X0 * units, method=BANDED, options=options)
    assert banded.success
    known = minimize(curly, X0, method=BANDED)
    assert abs(banded.fun - known.fun) <= 1e-2 * abs(known.fun)  # another of the minima


def dense(x):
    """The variables are coupled with all others."""
    A = jnp.asarray(np.random.default_rng(2).standard_normal((200, 150)))
    return jnp.sum(jnp.log(jnp.cosh(A @ x - 1))) + 1e-3 * jnp.sum(x**2)


def test_where_there_is_no_band_little_is_lost():
    plain, banded = (minimize(dense, np.zeros(150), method=method) for method in ("trust_ncg", BANDED))
    assert plain.success and banded.success and abs(plain.nfev - banded.nfev) <= 1  # two programs round differently
    np.testing.assert_allclose(plain.x, banded.x, rtol=1e-6, atol=1e-8)
    assert plain.nhev < banded.nhev <= 1.3 * plain.nhev


def test_steps_of_one_product_begin_no_round():
    """There is nothing that a better M would save."""
    stretched = lambda x: jnp.sum((x - jnp.arange(x.size)) ** 4)
    plain, banded = (minimize(stretched, np.zeros(100), method=method) for method in ("trust_ncg", BANDED))
    assert plain.success and plain.nhev == plain.nfev - 1 > 20
    assert (banded.nfev, banded.nhev) == (plain.nfev, plain.nhev)


def test_lanes_with_bands_are_what_they_are_alone():
    starts = jnp.stack([X0[:200], -X0[:200], np.linspace(-1, 1, 200)])
    solve = lambda x0: minimize(curly, x0, method=BANDED)
    batch = jax.vmap(solve)(starts)
    assert batch.success.all()
    for i, x0 in enumerate(starts):
        alone = solve(x0)
        np.testing.assert_allclose(batch.fun[i], alone.fun, rtol=1e-6)


def test_a_band_with_bounds():
    bounds = scipy.optimize.Bounds(-0.5, np.where(np.arange(1_000) % 7 == 0, 0.1, 2))
    plain, banded = (minimize(curly, X0, method=method, bounds=bounds) for method in ("trust_ncg", BANDED))
    assert banded.success and (banded.x <= bounds.ub).all() and (banded.x == bounds.ub).any()
    assert banded.fun <= plain.fun + 1e-2 * abs(plain.fun)


def test_a_band_over_leaves_and_complex_numbers():
    """The order is that of the leaves; those of complex numbers are their real parts, then their imaginary parts."""

    def chain(x):
        z = jnp.concatenate([x["a"].ravel(), x["b"].real, x["b"].imag])
        return jnp.sum(100 * (z[1:] - z[:-1] ** 2) ** 2 + (1 - z[:-1]) ** 2)

    x0 = {"a": -np.ones((3, 8)), "b": -(1 + 1j) * np.ones(8)}
    res = minimize(chain, x0, method=BANDED)
    flat = minimize(lambda z: chain({"a": z[:24], "b": z[24:32] + 1j * z[32:]}), -np.ones(40), method=BANDED)
    assert res.success and flat.success
    assert abs(res.nhev - flat.nhev) <= 0.2 * flat.nhev  # rounding decides about the last steps
    np.testing.assert_allclose(res.x["b"], 1 + 1j, atol=1e-5)


# ---- the user's own


def quadratic(n):
    """A quadratic function with condition 1e8, and its Hessian."""
    H = np.logspace(-4, 4, n)
    return lambda x: jnp.sum(H * x**2) / 2 - jnp.sum(x), H


OWN = pytest.mark.parametrize("method", ["trust_ncg", "newton_cg"])


@OWN
def test_a_function_that_knows_the_hessian(method):
    fun, H = quadratic(300)
    plain = minimize(fun, np.zeros(300), method=method)
    exact = minimize(fun, np.zeros(300), method=method, options={"preconditioner": lambda r: r / H})
    assert exact.success and exact.nhev <= 2 * exact.nit < plain.nhev / 10
    np.testing.assert_allclose(exact.x, 1 / H, rtol=1e-5)


@OWN
def test_a_function_of_traced_numbers(method):
    def solve(H):
        fun = lambda x: jnp.sum(H * x**2) / 2 - jnp.sum(x)
        return minimize(fun, jnp.zeros(50), method=method, options={"preconditioner": lambda r: r / H})

    H = jnp.logspace(-3, 3, 50)
    for res in (jax.jit(solve)(H), jax.tree.map(lambda u: u[1], jax.vmap(solve)(jnp.stack([2 * H, H])))):
        assert res.success and res.nhev < 60
        np.testing.assert_allclose(res.x, 1 / H, rtol=1e-4)


@OWN
def test_a_function_sees_the_leaves_of_a_pytree_end_to_end(method):
    fun = lambda x: jnp.sum(jnp.exp(x["a"]) - x["a"]) + 50 * jnp.sum((x["b"] - 1) ** 2)
    units = np.repeat([1.0, 100.0], [3, 4])
    bounds = jaxmin.Bounds(0.2, 5.0)
    x0 = {"a": np.ones(3), "b": np.zeros((2, 2)) + 0.5}
    res = minimize(fun, x0, method=method, options={"preconditioner": lambda r: r / units}, bounds=bounds)
    assert res.success
    np.testing.assert_allclose(res.x["a"], 0.2)
    np.testing.assert_allclose(res.x["b"], 1, rtol=1e-6)


@OWN
def test_a_function_that_is_not_positive_does_no_harm(method):
    fun, H = quadratic(20)
    for wrong in (lambda r: -r, lambda r: jnp.nan * r, lambda r: 0 * r):
        res = minimize(fun, np.zeros(20), method=method, options={"preconditioner": wrong})
        assert res.success and res.status == Status.CONVERGED
        np.testing.assert_allclose(res.x, 1 / H, rtol=1e-3)


@OWN
def test_a_function_that_returns_another_shape(method):
    with pytest.raises(TypeError, match=r"preconditioner returned shapes \(2,\); it must return M\^-1 r"):
        minimize(lambda x: x @ x, np.ones(3), method=method, options={"preconditioner": lambda r: r[:2]})


def test_bad_preconditioners():
    with pytest.raises(ValueError, match=r"preconditioner='ilu': give None, 'diagonal', 'banded', or a function"):
        trust_ncg(preconditioner="ilu")
    with pytest.raises(ValueError, match="bandwidth=0: give at least 1"):
        trust_ncg(preconditioner="banded", bandwidth=0)
    with pytest.raises(ValueError, match=r"preconditioner='banded': give None, or a function r -> M\^-1 r"):
        newton_cg(preconditioner="banded")
