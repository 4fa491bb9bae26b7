"""Nelder and Mead's method has the same simplices, counts and ends as SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import mostly_float64
from problems import barrier, like, recorded, rosenbrock, shifted

import jaxmin
from jaxmin import Status
from jaxmin._core.box import Box, Unbounded
from jaxmin.methods.nelder_mead import _first_simplex


def waves(x):
    """So narrow that contractions fail and the simplex shrinks."""
    return jnp.sum(like(x, np.arange(1, x.size + 1)) * jnp.abs(x)) + jnp.sum(jnp.cos(30 * x**2))


CASES = {
    "rosen2": (rosenbrock, [-1.2, 1.0]),
    "rosen5": (rosenbrock, [-1.2, 1.0, -1.2, 1.0, 0.5]),
    "a zero": (rosenbrock, [0.0, 3.0, -1.0]),
    "shifted": (shifted, [1.0, 2.1, 0.0, -1.3, 3.4]),
    "waves": (waves, [5.0, 9.0, -4.0]),
}
# Adaptive or not, and the bounds. Vertices of the first simplex are above the upper one, and x0 may be on it.
VARIANTS = {
    "plain": (False, None),
    "adaptive": (True, None),
    "bounds": (False, (-1.3, 1.02)),
    "both": (True, (-4, 0.9)),
}

each_case = pytest.mark.parametrize("case", CASES)
# By default two of the variants of each case, in turn; the others with `pytest -m slow`.
each_setting = pytest.mark.parametrize(
    ("case", "variant"),
    [
        pytest.param(case, variant, marks=() if (i + k) % 2 == 0 else pytest.mark.slow)
        for i, case in enumerate(CASES)
        for k, variant in enumerate(VARIANTS)
    ],
)


def setting(case, variant):
    """(fun, x0, adaptive, pairs), with x0 inside the bounds."""
    fun, x0 = CASES[case]
    adaptive, bounds = VARIANTS[variant]
    x0 = np.asarray(x0) if bounds is None else np.clip(x0, *bounds)
    return fun, x0, adaptive, None if bounds is None else [bounds] * x0.size


def scipy_solve(fun, x0, bounds=None, tol=None, **options):
    """SciPy's solve; with bounds from our first simplex, since at a lower bound its own is flat."""
    fun = jax.jit(fun)
    if bounds is not None:
        options["initial_simplex"] = np.asarray(_first_simplex(jnp.asarray(x0), Box(*map(jnp.asarray, zip(*bounds)))))
    return scipy.optimize.minimize(
        lambda x: float(fun(x)), x0, method="Nelder-Mead", bounds=bounds, tol=tol, options=options
    )


def solve(fun, x0, bounds=None, tol=None, **options):
    return jaxmin.minimize(fun, jnp.asarray(x0), method="Nelder-Mead", bounds=bounds, tol=tol, options=options)


def figures(res):
    return int(res.nit), int(res.nfev)


# ---- SciPy's rules


@each_setting
def test_the_first_30_iterations_are_scipys(case, variant):
    fun, x0, adaptive, bounds = setting(case, variant)
    method = jaxmin.nelder_mead(adaptive)
    box = Unbounded() if bounds is None else Box(*map(jnp.asarray, zip(*bounds)))

    @jax.jit
    def trip(state):
        return method.update(None, state, state.trial, value=fun(state.trial), box=box)[1]

    state, nfev = method.init(jnp.asarray(x0)), 0
    for k in range(1, 32):  # SciPy counts the building of the simplex
        while state.nit < k:
            state, nfev = trip(state), nfev + 1
        oracle = scipy_solve(fun, x0, bounds, adaptive=adaptive, maxiter=k)
        assert (k, nfev) == figures(oracle)
        simplex, values = oracle.final_simplex
        np.testing.assert_allclose(state.simplex, simplex, rtol=0, atol=1e-10)
        np.testing.assert_allclose(state.values, values, rtol=1e-10)
        np.testing.assert_array_equal(state.iterate.x, state.simplex[0])
        spread = np.abs(values[1:] - values[0]).max(), np.abs(simplex[1:] - simplex[0]).max()
        np.testing.assert_allclose(state.spread, spread, rtol=1e-7)


@each_setting
def test_the_end_is_scipys(case, variant):
    fun, x0, adaptive, bounds = setting(case, variant)
    res, oracle = solve(fun, x0, bounds, adaptive=adaptive), scipy_solve(fun, x0, bounds, adaptive=adaptive)
    assert figures(res) == figures(oracle)
    assert res.success == oracle.success
    np.testing.assert_allclose(res.fun, oracle.fun, rtol=0, atol=1e-6)
    np.testing.assert_allclose(res.x, oracle.x, rtol=0, atol=1e-6)
    assert res.jac is res.njev is None


def slope(x):
    """Down without end, two evaluations an iteration."""
    return -x[0] - 2 * x[1]


@pytest.mark.parametrize(
    ("fun", "limits"),
    (
        (rosenbrock, {"fatol": 1e-9}),
        (rosenbrock, {"xatol": 1e-2, "fatol": 10.0}),
        (rosenbrock, {"tol": 1e-2}),
        (rosenbrock, {"maxiter": 40}),
        (rosenbrock, {"maxfev": 57}),
        (slope, {}),
        (slope, {"maxiter": 300}),  # and more evaluations than there are by default
        (slope, {"maxfev": 901}),
    ),
)
def test_limits_are_scipys(fun, limits):
    res, oracle = solve(fun, [-1.2, 1.0], **limits), scipy_solve(fun, [-1.2, 1.0], **limits)
    assert figures(res) == figures(oracle)
    assert res.success == oracle.success
    if figures(res)[1] % 2 or fun is not slope:
        np.testing.assert_allclose(res.fun, oracle.fun, rtol=1e-9, atol=1e-6)
    else:  # the limit falls between a reflection and its expansion: SciPy drops the reflected point
        assert res.fun < oracle.fun


def test_a_built_method_has_the_same_limits():
    fun, x0 = CASES["rosen2"]
    for tol in (None, 1e-2):
        built = jaxmin.minimize(fun, x0, method=jaxmin.nelder_mead(), tol=tol)
        assert figures(built) == figures(solve(fun, x0, tol=tol))
        assert built.status == Status.SPREAD


SIMPLEX = np.array([[-1.2, 1.0], [0.0, 2.0], [1.0, 3.0]])


def test_the_simplex_given_is_the_first():
    res = solve(rosenbrock, [7.0, 7.0], initial_simplex=SIMPLEX)
    oracle = scipy_solve(rosenbrock, [7.0, 7.0], initial_simplex=SIMPLEX)
    assert figures(res) == figures(oracle)
    np.testing.assert_allclose(res.x, oracle.x, rtol=0, atol=1e-6)


def test_equal_simplices_are_one_method():
    built = jaxmin.nelder_mead(initial_simplex=SIMPLEX)
    assert jaxmin.nelder_mead(initial_simplex=SIMPLEX.tolist()) is built
    assert jaxmin.nelder_mead(initial_simplex=SIMPLEX + 1) is not built


def test_simplices_may_be_traced_and_batched():
    simplices = jnp.stack([SIMPLEX, 2 * SIMPLEX])
    lanes = jax.vmap(lambda simplex: solve(rosenbrock, jnp.zeros(2), initial_simplex=simplex))(simplices)
    for i, simplex in enumerate(simplices):
        single = solve(rosenbrock, jnp.zeros(2), initial_simplex=np.asarray(simplex))
        assert (lanes.nit[i], lanes.nfev[i]) == figures(single)
        np.testing.assert_allclose(lanes.x[i], single.x, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    (
        ({"adaptive": 1}, TypeError, "adaptive=1: True or False"),
        ({"initial_simplex": "large"}, TypeError, "initial_simplex='large'"),
        ({"initial_simplex": np.zeros((2, 2))}, ValueError, r"initial_simplex: .*\[2, 2\].*\[n\+1, n\]"),
        ({"initial_simplex": np.zeros((4, 3))}, ValueError, "initial_simplex: 3 coordinates, for 2 variables"),
    ),
)
def test_what_cannot_be_right_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        solve(rosenbrock, [0.0, 0.0], **options)


def test_a_line_search_is_refused():
    with pytest.raises(ValueError, match="linesearch='wolfe': method 'nelder_mead' takes none"):
        jaxmin.minimize(rosenbrock, [0.0, 0.0], method="nelder-mead", linesearch="wolfe")


# ---- values only


@jax.custom_jvp
def without_derivative(x):
    return rosenbrock(x)


@without_derivative.defjvp
def _(primals, tangents):
    raise AssertionError("differentiated")


def test_no_gradient_is_traced():
    with pytest.raises(AssertionError, match="differentiated"):
        jaxmin.minimize(without_derivative, [-1.2, 1.0])
    assert solve(without_derivative, [-1.2, 1.0]).success


@mostly_float64
@each_case
def test_nothing_is_evaluated_outside_the_bounds(case, dtype):
    fun, x0 = CASES[case]
    fun, points = recorded(fun)
    low, high = np.asarray(-4.5, dtype), np.asarray(0.7, dtype)
    res = solve(fun, np.asarray(x0, dtype), jaxmin.Bounds(low, high))  # x0 outside
    jax.effects_barrier()
    assert len(points) == int(res.nfev) > 30
    assert np.min(points) >= low
    assert np.max(points) <= high
    assert res.x.dtype == dtype
    np.testing.assert_array_equal(res.active_mask, np.where(res.x == high, 1, np.where(res.x == low, -1, 0)))


@each_case
def test_float32_ends_near_float64(case):
    fun, x0 = CASES[case]
    options = {"adaptive": True, "maxfev": 5000}
    wide, narrow = (solve(fun, np.asarray(x0, dtype), **options) for dtype in ("float64", "float32"))
    assert narrow.success
    assert (narrow.x.dtype, narrow.fun.dtype) == ("float32",) * 2
    np.testing.assert_allclose(narrow.fun, wide.fun, atol=1e-4)
    np.testing.assert_allclose(narrow.x, wide.x, atol=5e-3)


def root(x):
    return jnp.sum(jnp.sqrt(x) + (x - like(x, [0.2, 3])) ** 2)


@pytest.mark.parametrize(("fun", "x0", "known"), ((barrier, [1.0], [1e-4]), (root, [1.0, 1.0], None)))
def test_nan_is_as_bad_as_infinity(fun, x0, known):
    guarded = lambda x: jnp.where(jnp.isnan(fun(x)), jnp.inf, fun(x))
    recording, points = recorded(fun)
    res, oracle = solve(recording, x0, xatol=1e-7), solve(guarded, x0, xatol=1e-7)
    jax.effects_barrier()
    assert np.min(points) < 0  # where it is NaN
    assert res.status == Status.SPREAD
    assert figures(res) == figures(oracle)
    np.testing.assert_allclose(res.x, oracle.x, rtol=1e-12)
    if known is not None:
        np.testing.assert_allclose(res.x, known, atol=1e-6)


def test_a_constant_function_leaves_x0():
    res = solve(lambda x: 0 * jnp.sum(x) + 5, [1.0, -2.0])
    assert res.status == Status.PRECISION_LOSS
    assert "same value" in res.message
    np.testing.assert_array_equal(res.x, [1.0, -2.0])


@each_case
def test_aux_is_that_of_the_point_returned(case):
    fun, x0 = CASES[case]
    for maxfun in (1, 2, 7, 8, 9, 10, 11, 12, 13, 14, 40, 1000):
        res = jaxmin.minimize(lambda x: (fun(x), x), x0, method="nelder_mead", has_aux=True, options={"maxfun": maxfun})
        np.testing.assert_array_equal(res.aux, res.x)


def test_lanes_of_a_batch_are_the_single_runs():
    starts = np.random.default_rng(0).normal(size=(8, 2)) * 3
    lanes = jax.vmap(lambda x0: solve(rosenbrock, x0))(jnp.asarray(starts))
    assert len(set(lanes.nfev.tolist())) > 4
    for i, x0 in enumerate(starts):
        single = solve(rosenbrock, x0)
        assert (lanes.nit[i], lanes.nfev[i], lanes.status[i]) == (*figures(single), single.status)
        np.testing.assert_allclose(lanes.x[i], single.x, rtol=1e-9)


def test_a_start_on_a_lower_bound_makes_no_flat_simplex():
    """SciPy moves the vertex beyond the bound back onto it, and ends at x[0] = -1 with success."""
    res = solve(lambda x: (x[0] - 0.3) ** 2 + (x[1] - 0.2) ** 2, np.array([-1.0, 0.5]), [(-1, 1)] * 2)
    assert res.success
    np.testing.assert_allclose(res.x, [0.3, 0.2], atol=1e-3)
