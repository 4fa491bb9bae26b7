"""Subproblems of a trust region are solved as by their whole spectrum, and solves end where SciPy's do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import DTYPES, mostly_float64
from problems import ALL, one_in

import jaxmin
from jaxmin import Status, minimize
from jaxmin.methods import _secular

METHODS = ("trust_exact", "dogleg", "trust_krylov")
each_method = pytest.mark.parametrize("method", METHODS)


# ---- the subproblem


def model(H, g, z):
    return g @ z + z @ H @ z / 2


def best(H, g, radius):
    """The least of the model in the region: the equation for sigma solved by bisection, hard case included."""
    lam, Q = np.linalg.eigh(H)
    c = Q.T @ g
    c[np.abs(c) <= 1e-14 * np.linalg.norm(g)] = 0
    if lam[0] > 0 and np.linalg.norm(c / lam) <= radius:
        return -(c**2 / lam).sum() / 2
    low, parts = max(0, -lam[0]), lambda sigma: np.where(c == 0, 0, -c / np.where(lam + sigma == 0, 1, lam + sigma))
    if np.linalg.norm(np.where(lam + low == 0, 0, parts(low))) < radius and not c[lam + low == 0].any():
        y = parts(low)
        rest = radius**2 - y @ y
        return c @ y + (lam * y * y).sum() / 2 + lam[0] * rest / 2
    high = low + np.linalg.norm(g) / radius + 1e-300
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.linalg.norm(parts(middle)) > radius else (low, middle)
    y = parts(high)
    return c @ y + (lam * y * y).sum() / 2


def matrix(spectrum, seed):
    Q = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(spectrum),) * 2))[0]
    return (Q * spectrum) @ Q.T, Q


SPECTRA = {
    "positive": [0.5, 1, 2, 5, 20],
    "ill-conditioned": [1e-4, 1e-2, 1, 10, 1e2],
    "indefinite": [-3, -0.1, 0.5, 4, 10],
    "negative": [-5, -4, -3, -2, -1],
    "singular": [0, 0, 1, 2, 3],
    "zero": [0, 0, 0, 0, 0],
    "one": [-1.0],
    "equal": [-2, -2, -2, -2, -2],
}
RADII = (1e-3, 0.3, 1.0, 30.0)


def subproblems(name):
    for seed in range(3):
        H, Q = matrix(SPECTRA[name], seed)
        yield H, np.random.default_rng(10 + seed).normal(size=len(H))
        yield H, 1e-6 * Q[:, -1] + 1e-9 * Q[:, 0]


@jax.jit
def solved(H, g, radius):
    lam, Q = _secular.spectrum(H)
    return Q @ _secular.minimizer(lam, Q.T @ g, radius)


@pytest.mark.parametrize("name", SPECTRA)
def test_the_subproblem_is_solved(name):
    for H, g in subproblems(name):
        for radius in RADII:
            z = np.asarray(solved(H, g, radius))
            assert np.linalg.norm(z) <= radius * (1 + 1e-12)
            rounding = 1e-15 * np.abs(H).max() * radius**2  # of H alone
            np.testing.assert_allclose(model(H, g, z), best(H, g, radius), rtol=1e-6, atol=rounding)


@pytest.mark.parametrize("name", ["indefinite", "negative", "equal"])
def test_the_hard_case_is_solved(name):
    """The gradient has no part where the curvature is the least."""
    for seed in range(3):
        H, Q = matrix(SPECTRA[name], seed)
        lam = np.asarray(SPECTRA[name], float)
        c = np.where(lam > lam[0], np.random.default_rng(seed).normal(size=lam.size), 0)
        for radius in (10.0, 100.0):
            y = np.asarray(_secular.minimizer(jnp.asarray(lam), jnp.asarray(c), radius))
            np.testing.assert_allclose(np.linalg.norm(y), radius)
            np.testing.assert_allclose(model(H, Q @ c, Q @ y), best(H, Q @ c, radius), rtol=1e-6)


def test_the_nearly_hard_case_loses_no_digits():
    lam = jnp.array([-1.0, 2.0, 3.0])
    for tiny in (1e-8, 1e-20, 1e-100):
        y = _secular.minimizer(lam, jnp.array([tiny, 3.0, 4.0]), 5.0)
        np.testing.assert_allclose(y[1:], [-1, -1], rtol=1e-7)
        np.testing.assert_allclose(y[0], -np.sqrt(23), rtol=1e-7)


# ---- steps: on a quadratic the model is the function, and the first step is the best there is


def first_step(method, H, g, radius):
    fun = lambda x: g @ x + x @ (H @ x) / 2
    built = getattr(jaxmin, method)(radius=radius, **({"inexact": False} if method == "trust_krylov" else {}))
    res = minimize(fun, np.zeros(g.size), method=built, options={"maxiter": 1, "gtol": 0.0})
    assert res.nit == 1 and res.nfev == 2
    return np.asarray(res.x)


@pytest.mark.parametrize("method", ["trust_exact", "trust_krylov"])
@pytest.mark.parametrize("name", ["positive", "ill-conditioned", "indefinite", "singular", "one"])
def test_the_first_step_is_the_best_there_is(method, name):
    H, _ = matrix(SPECTRA[name], 5)
    g = np.random.default_rng(6).normal(size=len(H))
    for radius in (0.3, 3.0):
        z = first_step(method, H, g, radius)
        assert np.linalg.norm(z) <= radius * (1 + 1e-12)
        np.testing.assert_allclose(model(H, g, z), best(H, g, radius), rtol=1e-6)


@pytest.mark.parametrize("radius", [0.01, 0.1, 0.5, 1.0, 2.0, 100.0])
def test_the_step_of_the_dogleg_is_the_best_of_its_path(radius):
    H, _ = matrix(SPECTRA["positive"], 3)
    g = np.random.default_rng(4).normal(size=len(H))
    p_U, p_B = -(g @ g) / (g @ H @ g) * g, -np.linalg.solve(H, g)
    path = [t * p_U for t in np.linspace(0, 1, 2001)] + [p_U + t * (p_B - p_U) for t in np.linspace(0, 1, 2001)]
    inside = [model(H, g, p) for p in path if np.linalg.norm(p) <= radius]
    z = first_step("dogleg", H, g, radius)
    assert np.linalg.norm(z) <= radius * (1 + 1e-12)
    grid = 2e-3 * np.linalg.norm(p_B)
    assert min(inside) - grid * np.linalg.norm(g) <= model(H, g, z) <= min(inside) + 1e-12
    assert min(np.linalg.norm(path - z, axis=1)) <= grid


# ---- solves


@pytest.mark.parametrize(
    ("method", "dtype"),
    [
        pytest.param(method, dtype, marks=() if method == "trust_exact" and dtype == "float64" else pytest.mark.slow)
        for method in METHODS
        for dtype in DTYPES
    ],
)
@pytest.mark.parametrize("name", one_in(3, 2))
def test_every_problem_ends_at_a_minimum(method, name, dtype):
    problem = ALL[name]
    res = minimize(problem.fun, jnp.asarray(problem.x0, dtype), method=method)
    assert res.success or (dtype == "float32" and res.status == Status.PRECISION_LOSS)
    f = float(problem.fun(jnp.asarray(res.x, jnp.float64)))
    assert min(abs(f - least) for least in problem.minima) <= 1e-5 * max(1, abs(f))


@each_method
@pytest.mark.parametrize(
    "name",
    [
        "rosen2",
        "helical",
        "expfit",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("beale", "wood", "vardim10", "sinlog")),
    ],
)
def test_no_worse_than_scipys(method, name):
    problem = ALL[name]
    fun, hess = jax.jit(jax.value_and_grad(problem.fun)), jax.jit(jax.hessian(problem.fun))
    x0 = np.asarray(problem.x0, float)
    with np.errstate(all="ignore"):
        other = scipy.optimize.minimize(
            lambda x: tuple(map(np.asarray, fun(x))), x0, jac=True, hess=lambda x: np.asarray(hess(x)),
            method=method.replace("_", "-"), options={"gtol": 1e-5},
        )  # fmt: skip
    res = minimize(problem.fun, x0, method=method)
    assert res.success
    assert res.fun <= other.fun + 1e-8 * max(1, abs(other.fun)) or not other.success
    assert res.nfev <= 1.3 * other.nfev or not other.success


def saddle(x):
    """From (1, 0) the gradient leads to a saddle point, and along it the curvature is seen by nobody."""
    return x[0] ** 2 - x[1] ** 2 + x[1] ** 4 / 4


@mostly_float64
def test_trust_exact_leaves_a_saddle_point_that_the_gradient_leads_to(dtype):
    start = jnp.asarray([1.0, 0.0], dtype)
    res = minimize(saddle, start, method="trust_exact")
    assert res.success
    np.testing.assert_allclose(jnp.abs(res.x), [0, np.sqrt(2)], atol=1e-3)
    assert abs(minimize(saddle, start, method="trust_ncg").x[1]) < 1e-3  # without the spectrum nobody sees it


@each_method
def test_negative_curvature_leaves_a_saddle_point_behind(method):
    res = minimize(saddle, [1.0, 1e-3], method=method)
    assert res.success
    np.testing.assert_allclose(np.abs(res.x), [0, np.sqrt(2)], atol=1e-5)


def test_dogleg_goes_on_where_scipys_ends():
    fun, x0 = ALL["rosen2"].fun, np.array([0.0, 1.0])
    H = jax.hessian(fun)(x0)
    assert np.linalg.eigvalsh(H)[0] < 0
    other = scipy.optimize.minimize(
        fun,
        x0,
        method="dogleg",
        jac=lambda x: np.asarray(jax.grad(fun)(x)),
        hess=lambda x: np.asarray(jax.hessian(fun)(x)),
    )
    assert not other.success
    res = minimize(fun, x0, method="dogleg")
    assert res.success and res.fun < 1e-8


# ---- what it costs


@pytest.mark.parametrize("method", ["trust_exact", "trust_krylov"])
def test_a_step_that_was_refused_asks_for_no_new_product(method):
    res = minimize(ALL["rosen2"].fun, [-1.2, 1.0], method=method)
    assert res.nfev > res.nit + 1
    assert res.nhev <= res.nit * (1 if method == "trust_exact" else 2)


def test_trust_krylov_forms_no_hessian():
    n, solve = 4000, jaxmin.trust_krylov(max_inner=7)
    program = jax.make_jaxpr(lambda x: minimize(lambda x: jnp.sum((x - 1) ** 4), x, method=solve).x)(jnp.zeros(n))
    assert f"{n},{n}" not in str(program) and f"7,{n}" in str(program)


def test_trust_krylov_keeps_to_its_products():
    fun = ALL["rosen10"].fun
    for most in (1, 3):
        method = jaxmin.trust_krylov(max_inner=most)
        res = minimize(fun, np.tile([-1.2, 1.0], 5), method=method, options={"maxiter": 20})
        assert res.nit == 20 and res.nhev <= most * res.nit


def test_it_goes_on_at_the_edge_where_trust_ncg_stops():
    H, _ = matrix(np.linspace(-1, 10, 30), 1)
    g = np.random.default_rng(2).normal(size=30)
    fun = lambda x: g @ x + x @ (H @ x) / 2
    one = {"maxiter": 1, "initial_trust_radius": 2.0}
    steihaug = minimize(fun, np.zeros(30), method="trust-ncg", options=one)
    lanczos = minimize(fun, np.zeros(30), method="trust-krylov", options=one | {"inexact": False})
    least = best(H, g, 2.0)
    np.testing.assert_allclose(lanczos.fun, least, rtol=1e-6)
    assert steihaug.fun > least + 0.01 * abs(least)
    assert lanczos.nhev > steihaug.nhev


# ---- options

SCIPYS = {"initial_trust_radius": 2.0, "max_trust_radius": 50.0, "eta": 0.1, "gtol": 1e-6, "maxiter": 77}
MORE = {"trust_exact": {"subproblem_maxiter": 20}, "dogleg": {}, "trust_krylov": {"inexact": True}}


@each_method
def test_options_in_scipys_spelling(method):
    fun, start = ALL["rosen2"].fun, [-1.2, 1.0]
    given = minimize(fun, start, method=method.replace("_", "-"), options=SCIPYS | MORE[method])
    own = {"max_inner": 20} if method == "trust_exact" else MORE[method]
    built = getattr(jaxmin, method)(radius=2.0, max_radius=50.0, eta=0.1, **own)
    res = minimize(fun, start, method=built, tol=1e-6, options={"maxiter": 77})
    assert given.success
    for one, two in zip(jax.tree.leaves(given), jax.tree.leaves(res), strict=True):
        np.testing.assert_array_equal(one, two)


BAD = {"radius": 0.0, "max_radius": 0.5, "eta": 0.25, "max_inner": 0}


@each_method
@pytest.mark.parametrize("name", BAD)
def test_constants_that_make_no_sense(method, name):
    build = getattr(jaxmin, method)
    if name == "max_inner" and method == "dogleg":
        with pytest.raises(TypeError, match="max_inner"):
            build(max_inner=0)
        return
    with pytest.raises(ValueError, match=f"{name}={BAD[name]}"):
        build(**{name: BAD[name]})


def test_the_radius_stays_below_the_largest():
    far = lambda x: jnp.sum((x - 1000.0) ** 2)
    for method in METHODS:
        built = getattr(jaxmin, method)(max_radius=2.0)
        res = minimize(far, np.zeros(2), method=built, options={"maxiter": 50, "history": 60})
        assert res.status == Status.MAXITER
        assert np.nanmax(res.history.step) <= 2.0


@pytest.mark.parametrize("method", ("trust_ncg", *METHODS))
def test_a_start_whose_last_place_is_more_than_the_radius_is_left(method):
    res = minimize(lambda x: jnp.sum((x - 1) ** 2), jnp.array([5e7], jnp.float32), method=method)
    assert res.success
    np.testing.assert_allclose(res.x, 1, atol=1e-5)


@pytest.mark.parametrize("method", ("trust_ncg", *METHODS))
def test_a_large_f_overflows_nowhere(method):
    res = minimize(lambda x: 1e25 * jnp.sum((x - 1) ** 2), jnp.zeros(2, jnp.float32), method=method)
    assert res.success
    np.testing.assert_allclose(res.x, 1, rtol=1e-6)


@pytest.mark.parametrize("method", ("trust_ncg", *METHODS))
def test_no_variables(method):
    assert minimize(lambda x: jnp.sum(x**2), jnp.zeros(0), method=method).success
