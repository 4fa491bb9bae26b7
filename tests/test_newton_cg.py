"""Newton's method with a line search uses negative curvature, counts its products and stays in a box."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import START, mostly_float64
from problems import ALL, like, one_in, recorded

import jaxmin
from jaxmin import Status, minimize, newton_cg, trust_ncg
from jaxmin.datasets.nist import load

SEARCHES = ("backtracking", "wolfe", "hager_zhang")

_rng = np.random.default_rng(5)
_Q = np.linalg.qr(_rng.normal(size=(6, 6)))[0]
INDEFINITE = _Q @ np.diag([-3.0, -0.1, 0.5, 1.0, 2.0, 10.0]) @ _Q.T


def quartic(x):
    """An indefinite quadratic, held together by a quartic: x = 0 is a saddle point."""
    return x @ (like(x, INDEFINITE) @ x) / 2 + jnp.sum(x**4) / 4


def double_well(x):
    """Minima at (-1, 0) and (1, 0), a saddle point between."""
    return (x[0] ** 2 - 1) ** 2 + x[1] ** 2


def projected(x, g, lower, upper):
    return np.where(((x <= lower) & (g >= 0)) | ((x >= upper) & (g <= 0)), 0, g)


@pytest.mark.parametrize("name", one_in(3, 1))
@mostly_float64
def test_every_problem_ends_at_a_minimum(name, dtype):
    problem = ALL[name]
    res = minimize(problem.fun, jnp.asarray(problem.x0, dtype), method="newton-cg")
    assert res.success or (dtype == "float32" and res.status == Status.PRECISION_LOSS)
    f = float(problem.fun(jnp.asarray(res.x, jnp.float64)))
    if name != "sinlog":  # many minima; which one it finds is its own affair
        assert min(abs(f - least) for least in problem.minima) <= 1e-5 * max(1, abs(f))


@pytest.mark.parametrize("search", SEARCHES)
def test_nfev_counts_points_and_nhev_products(search):
    fun, points = recorded(ALL["rosen2"].fun)
    res = minimize(fun, START, method="newton-cg", linesearch=search)
    jax.effects_barrier()
    assert res.success
    assert len(points) == res.nfev + res.nhev
    assert len(np.unique(np.asarray(points), axis=0)) == res.nfev == res.njev


@pytest.mark.parametrize("name", ["rosen2", "rosen10", "wood", "helical"])
def test_it_needs_no_more_trips_than_scipys(name):
    problem = ALL[name]
    x0 = np.asarray(problem.x0, float)
    fun = jax.jit(jax.value_and_grad(problem.fun))
    product = jax.jit(lambda x, v: jax.jvp(jax.grad(problem.fun), (x,), (v,))[1])
    calls = []

    def hessp(x, v):
        calls.append(1)
        return np.asarray(product(x, v))

    other = scipy.optimize.minimize(
        lambda x: tuple(map(np.asarray, fun(x))), x0, jac=True, method="Newton-CG", hessp=hessp
    )
    res = minimize(problem.fun, x0, method="newton-cg")
    assert res.success
    assert res.nfev + res.nhev <= 1.2 * (other.nfev + len(calls))


@mostly_float64
def test_a_saddle_point_is_left_behind(dtype):
    res = minimize(double_well, jnp.asarray([1e-3, 1.0], dtype), method="newton-cg")
    assert res.success
    np.testing.assert_allclose(jnp.abs(res.x), [1, 0], atol=1e-5)


def test_an_indefinite_hessian_is_no_obstacle():
    for seed in range(5):
        x0 = 1e-3 * np.random.default_rng(seed).normal(size=6)
        res = minimize(quartic, x0, method="newton-cg")
        assert res.success
        assert np.linalg.eigvalsh(jax.hessian(quartic)(res.x)).min() > 0


def test_curvature_that_is_negative_from_the_start_lets_the_steps_grow():
    """No model has a minimum before the steps are a million times as long."""
    res = minimize(lambda x: jnp.sum(1e-6 * x**4 - x**2), np.full(3, 1e-3), method="newton-cg")
    assert res.success
    np.testing.assert_allclose(jnp.abs(res.x), np.sqrt(0.5e6), rtol=1e-6)
    assert res.nfev <= 40


def test_a_quadratic_takes_as_many_products_as_it_has_curvatures():
    curvatures = jnp.array([1.0, 1.0, 10.0, 10.0, 100.0])
    res = minimize(lambda x: jnp.sum(curvatures * (x - 1) ** 2), np.zeros(5), method="newton-cg")
    assert res.success and res.nhev <= 2 * 3  # three curvatures; a loose first step, and an exact second


def test_no_hessian_is_formed():
    n = 4000
    program = jax.make_jaxpr(lambda x: minimize(lambda x: jnp.sum((x - 1) ** 4), x, method="newton-cg").x)(jnp.zeros(n))
    assert f"{n},{n}" not in str(program)


def test_lanes_are_what_they_are_alone():
    starts = jnp.array([START, [2.0, 2.0], [jnp.nan, 0.0]])
    batch = jax.vmap(lambda x0: minimize(ALL["rosen2"].fun, x0, method="newton-cg"))(starts)
    alone = [minimize(ALL["rosen2"].fun, x0, method="newton-cg") for x0 in starts]
    for name in ("status", "nit", "nfev", "nhev"):
        assert getattr(batch, name).tolist() == [int(getattr(res, name)) for res in alone]


# ---- in a box


@pytest.mark.parametrize("name", ["newton-cg", "TNC", "trust-ncg"])
@mostly_float64
@pytest.mark.parametrize("target", [(5, 5), (8, 8), (50, 50), (2, -3)])
@pytest.mark.parametrize("x0", [(0.5, 0.5), (5, 5)])
def test_the_corner_of_a_box(name, dtype, target, x0):
    x0, goal = jnp.asarray(x0, dtype), jnp.asarray(target, dtype)
    res = minimize(_squares, x0, goal, name, bounds=[(0, 1)] * 2)
    assert res.success
    np.testing.assert_array_equal(res.x, np.clip(target, 0, 1))
    np.testing.assert_array_equal(res.active_mask, np.sign(target))


def _squares(x, target):
    return jnp.sum((x - target) ** 2)


@functools.cache
def _indefinite_in_a_box(seed):
    """An indefinite quadratic in a box of 12 variables: every minimum is at some bounds."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    hessian = q @ np.diag(rng.uniform(-2, 5, 12)) @ q.T
    return hessian, rng.normal(size=12), -rng.uniform(0, 1, 12), rng.uniform(0, 1, 12)


def _curved(x, hessian, linear):
    return x @ (hessian @ x) / 2 + linear @ x


@pytest.mark.parametrize("method", ["newton-cg", "trust-ncg"])
@pytest.mark.parametrize("seed", range(4))
def test_an_indefinite_quadratic_in_a_box(method, seed):
    hessian, linear, lower, upper = _indefinite_in_a_box(seed)
    fun, points = recorded(_curved)
    res = minimize(fun, np.zeros(12), (hessian, linear), method, bounds=jaxmin.Bounds(lower, upper))
    jax.effects_barrier()
    assert res.success
    assert np.all((lower <= np.array(points)) & (np.array(points) <= upper))
    assert np.abs(projected(res.x, hessian @ res.x + linear, lower, upper)).max() <= 1e-5
    free = np.asarray(res.active_mask) == 0
    assert np.all(np.linalg.eigvalsh(hessian[np.ix_(free, free)]) > 0)  # a minimum, and no saddle point


@pytest.mark.parametrize("method", ["newton-cg", "trust-ncg"])
def test_boxes_may_be_batched(method):
    uppers = jnp.array([[1.0, 1.0], [0.5, 0.5], [2.0, 0.1]])
    solve = lambda upper: minimize(ALL["rosen2"].fun, START, method=method, bounds=jaxmin.Bounds(-2.0, upper))
    batch = jax.vmap(solve)(uppers)
    assert np.all(batch.success)
    for i, upper in enumerate(uppers):
        alone = solve(upper)
        assert (batch.nit[i], batch.nfev[i], batch.nhev[i]) == (alone.nit, alone.nfev, alone.nhev)
        np.testing.assert_allclose(batch.x[i], alone.x, rtol=1e-9)


# ---- names and options


def test_scipys_names_are_other_names_of_it():
    results = [minimize(ALL["rosen2"].fun, START, method=name) for name in ("newton_cg", "Newton-CG", "TNC", "tnc")]
    assert len({(int(res.nfev), int(res.nhev)) for res in results}) == 1
    few = minimize(ALL["rosen10"].fun, np.array([-1.2, 1.0] * 5), method="TNC", options={"maxCGit": 1, "maxfun": 9})
    assert few.nfev == 9 and few.nhev <= few.nit + 1


@pytest.mark.parametrize("option", ["scale", "offset", "rescale", "stepmx", "accuracy", "minfev", "eta", "mesg_num"])
def test_options_of_tnc_without_a_meaning_are_refused_by_name(option):
    with pytest.raises((ValueError, NotImplementedError), match=option):
        minimize(ALL["rosen2"].fun, START, method="TNC", options={option: 1.0})


def test_tol_asks_for_a_smaller_gradient_and_step():
    loose, tight = (minimize(ALL["logreg"].fun, np.zeros(5), method="newton-cg", tol=tol) for tol in (1e-2, 1e-9))
    assert loose.success and tight.success
    assert loose.nit < tight.nit
    assert np.abs(tight.jac).max() < 1e-8


@pytest.mark.parametrize("wrong", [0, -1])
@pytest.mark.parametrize("build", [newton_cg, trust_ncg])
def test_the_number_of_products_is_checked(build, wrong):
    with pytest.raises(ValueError, match="max_inner"):
        build(max_inner=wrong)


def test_a_valley_with_negative_curvature_is_not_crept_along():
    """Misra1a of the NIST from its first start: where the step's convex part is tiny, the other one must grow."""
    data = load("Misra1a")
    t, y = map(jnp.asarray, (data.x, data.y))
    res = minimize(lambda b: jnp.sum((y - b[0] * (1 - jnp.exp(-b[1] * t))) ** 2), data.starts[0], method="newton-cg")
    assert res.success and res.nfev <= 150
    np.testing.assert_allclose(res.x, data.certified, rtol=1e-6)
