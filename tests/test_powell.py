"""Powell's method ends as low as SciPy's, and Brent's search alone finds a minimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import figures, mostly_float64
from problems import ALL, barrier, beale, like, logistic_regression, recorded, rosenbrock, shifted, wood

import jaxmin
from jaxmin import Status
from jaxmin.methods import _brent
from jaxmin.methods.powell import _worth

CASES = (
    "rosen2", "beale", "powell4", "barrier", "illcond", "zakharov6", "helical", "wood", "logreg", "expfit", "cosh",
    "sinlog",
)  # fmt: skip
each_case = pytest.mark.parametrize("case", CASES)


def scipy_solve(fun, x0, bounds=None, **options):
    fun = jax.jit(fun)
    lifted = lambda x: float(jnp.nan_to_num(fun(x), nan=jnp.inf))
    return scipy.optimize.minimize(lifted, x0, method="Powell", bounds=bounds, options=options)


def solve(fun, x0, bounds=None, tol=None, **options):
    return jaxmin.minimize(fun, jnp.asarray(x0), method="Powell", bounds=bounds, tol=tol, options=options)


# ---- one line


LINES = {
    "parabola": lambda t: (t - 3) ** 2,
    "far": lambda t: (t - 1e6) ** 2,
    "backwards": lambda t: (t + 40) ** 2 + 5,
    "near 0": lambda t: np.cosh(t - 1e-4),
    "kink": lambda t: abs(t - 2.3),
    "flat bottom": lambda t: (t - 0.7) ** 4,
    "steep on one side": lambda t: np.exp(t) - 100 * t,
    "barrier": lambda t: np.inf if t <= -1 else 1e4 * (t + 1) - np.log(t + 1),
    "bell": lambda t: -1 / (1 + (t - 5) ** 2),
}
_advance = jax.jit(_brent.advance)


def search(phi, tol, lower=-np.inf, upper=np.inf, dtype="float64"):
    """(t, phi(t), the points at which phi was evaluated)."""
    scalar = lambda number: jnp.asarray(number, dtype)
    state = _brent.begin(scalar(phi(0)), scalar(lower), scalar(upper), scalar(1e-11))
    points = []
    while not state.done:
        points.append(float(state.step))
        assert len(points) < 200
        state = _advance(state, scalar(phi(points[-1])), tol=scalar(tol), ulp=np.finfo(dtype).eps)
    assert state.fx == scalar(phi(float(state.x)))
    return float(state.x), float(state.fx), points


@pytest.mark.parametrize("tol", (1e-2, 1e-5))
def test_a_search_costs_no_more_than_scipys(tol):
    ours = scipys = 0
    for name, phi in LINES.items():
        oracle = scipy.optimize.minimize_scalar(phi, method="brent", options={"xtol": tol})
        t, f, points = search(phi, tol)
        assert abs(t - oracle.x) <= 3 * tol * abs(oracle.x) + 1e-6, name
        assert f == min(map(phi, [0, *points])), name
        assert len(points) <= 1.3 * oracle.nfev, name
        ours, scipys = ours + len(points), scipys + oracle.nfev
    assert ours <= scipys


def test_a_bounded_search_costs_less_than_scipys():
    ours = scipys = 0
    for name, phi in LINES.items():
        for lower, upper in ((-0.5, 4), (-30, 0.9), (0, 2.5)):
            with np.errstate(invalid="ignore"):  # SciPy's parabolas through infinite values
                oracle = scipy.optimize.minimize_scalar(phi, bounds=(lower, upper), options={"xatol": 1e-4})
            t, f, points = search(phi, 1e-4, lower, upper)
            assert lower <= min(points), name
            assert max(points) <= upper, name
            assert abs(t - oracle.x) <= 3e-4 * abs(oracle.x) + 2e-4, name
            assert f == min(map(phi, [0, *points])), name
            if min(oracle.x - lower, upper - oracle.x) < 1e-3 and name != "near 0":
                assert t in (lower, upper), name  # exactly, where SciPy's only comes near
            ours, scipys = ours + len(points), scipys + oracle.nfev
    assert ours <= 0.6 * scipys


@mostly_float64
@pytest.mark.parametrize(
    ("phi", "limits"),
    (
        (lambda t: 1.0, {}),
        (lambda t: 1.0, {"lower": 0, "upper": 0}),
        (lambda t: -t, {}),
        (lambda t: -t, {"upper": 7}),
        (lambda t: 1 + 1e-30 * t**2, {}),
        (lambda t: abs(t), {}),
        (lambda t: 100 * (1 - (0.7 + t) ** 2) ** 2 + (1.7 - t) ** 2, {"lower": -2.7}),  # the third trial is no lower
        (lambda t: np.inf if t else 0, {}),
    ),
)
def test_every_search_ends(phi, limits, dtype):
    t, f, points = search(phi, 1e-2, dtype=dtype, **limits)
    assert f <= phi(0)
    assert len(points) < 160
    if "upper" in limits:
        assert t == limits["upper"]
    if t > 7:
        assert t > float(np.finfo(dtype).max) / 1000


# ---- the method


def test_ends_and_costs_are_scipys():
    ours = scipys = 0
    for case in CASES:
        fun, x0, *_ = ALL[case]
        res, oracle = solve(fun, x0), scipy_solve(fun, x0)
        assert res.status == Status.SPREAD, case
        np.testing.assert_allclose(res.fun, oracle.fun, rtol=1e-5, atol=1e-11, err_msg=case)
        assert res.jac is res.njev is None
        ours, scipys = ours + int(res.nfev), scipys + oracle.nfev
    assert ours <= 0.9 * scipys


def test_powells_test_is_scipys():
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(200):
        f, f0, decrease, beyond = np.cumsum(rng.exponential(size=4))[[0, 3, 1, 2]] * 10.0 ** rng.integers(-3, 4)
        decrease, beyond = (f0 - f) * rng.uniform(), beyond + rng.normal() * (f0 - f)
        t = 2 * (f0 + beyond - 2 * f) * (f0 - f - decrease) ** 2 - decrease * (f0 - beyond) ** 2
        verdicts.append(bool(_worth(f0, f, beyond, decrease)))
        assert verdicts[-1] == (f0 > beyond and t < 0)
    assert 20 < sum(verdicts) < 180
    large = 1e30 * jnp.asarray([4, 1, 0.5, 1], "float32")  # their cubes overflow
    assert _worth(*large) == _worth(4.0, 1.0, 0.5, 1.0)


def test_conjugate_directions_solve_a_quadratic_in_few_cycles():
    """Searches along the axes alone lower the error by 0.98 a cycle here."""
    x0, solution = np.zeros(3), np.array([1.0, -2.0, 0.5])
    hessian = np.array([[1, 0.9, 0.9], [0.9, 1, 0.9], [0.9, 0.9, 1]])
    res = solve(lambda x: (x - solution) @ hessian @ (x - solution), x0, tol=1e-8)
    assert res.nit <= 7
    np.testing.assert_allclose(res.x, solution, atol=1e-7)


@pytest.mark.parametrize("x0", (7.0, [7.0], [[7.0]]))
def test_one_variable(x0):
    res = solve(lambda x: jnp.sum(jnp.cosh(x - 2)), x0)
    assert res.success
    assert res.x.shape == np.shape(x0)
    np.testing.assert_allclose(res.x, 2, atol=1e-3)


@pytest.mark.parametrize(
    ("limits", "status"),
    (
        ({"maxiter": 3}, Status.MAXITER),
        ({"maxfev": 57}, Status.MAXFUN),
        ({"tol": 1e-2}, Status.SPREAD),
        ({"ftol": 1e-12}, Status.SPREAD),
    ),
)
def test_limits(limits, status):
    res = solve(wood, [-3.0, -1.0, -3.0, -1.0], **limits)
    assert res.status == status
    if "maxiter" in limits:
        assert res.nit == 3
    if "maxfev" in limits:
        assert res.nfev == 57
    if "ftol" in limits:
        assert res.fun < 1e-15


def test_limits_by_default_are_scipys():
    for n in (1, 3):
        res = solve(lambda x: jnp.sum(jnp.abs(x - 0.5)), np.zeros(n), ftol=-1, xtol=-1)  # no test of convergence
        assert figures(res)[0] in (Status.MAXITER, Status.MAXFUN)
        assert max(figures(res)[1:]) == 1000 * n


def test_xtol_says_how_exactly_a_line_is_searched():
    errors, costs = [], []
    for xtol in (1e-3, 1e-6):
        res = solve(lambda x: jnp.cosh(x[0] - 2) + jnp.exp(x[0]), [0.0], xtol=xtol, maxiter=1)
        errors.append(abs(float(jnp.sinh(res.x[0] - 2) + jnp.exp(res.x[0]))))
        costs.append(int(res.nfev))
    assert errors[1] < 1e-3 * errors[0]
    assert costs[1] > costs[0]


def test_a_built_method_has_the_same_limits():
    fun, x0, *_ = ALL["logreg"]
    for tol in (None, 1e-2):
        built = jaxmin.minimize(fun, x0, method=jaxmin.powell(), tol=tol)
        assert figures(built) == figures(solve(fun, x0, tol=tol))


# ---- the directions


DIREC = np.array([[1.0, 1.0], [0.0, 0.1]])


def test_the_directions_given_are_the_first():
    fun, points = recorded(lambda x: jnp.sum((x - 3) ** 2))
    solve(fun, [0.0, 0.0], direc=DIREC, maxfun=2)
    jax.effects_barrier()
    np.testing.assert_array_equal(points, [[0, 0], [1, 1]])
    res = solve(rosenbrock, [-1.2, 1.0], direc=DIREC)
    assert res.success
    np.testing.assert_allclose(res.x, 1, atol=1e-6)


def test_equal_directions_are_one_method():
    built = jaxmin.powell(direc=DIREC)
    assert jaxmin.powell(direc=DIREC.tolist()) is built
    assert jaxmin.powell(direc=DIREC + 1) is not built


def test_directions_may_be_traced_and_batched():
    lanes = jax.vmap(lambda direc: solve(beale, jnp.ones(2), direc=direc))(jnp.stack([DIREC, 2 * DIREC]))
    for i in range(2):
        single = solve(beale, jnp.ones(2), direc=(i + 1) * DIREC)
        assert (lanes.status[i], lanes.nit[i], lanes.nfev[i]) == figures(single)
        np.testing.assert_allclose(lanes.x[i], single.x, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    (
        ({"direc": "axes"}, TypeError, "direc='axes': give an array"),
        ({"direc": np.ones(2)}, ValueError, r"direc: .*\[2\].*\[n, n\]"),
        ({"direc": np.ones((2, 3))}, ValueError, r"direc: .*\[2, 3\].*\[n, n\]"),
        ({"direc": np.ones((2, 2))}, ValueError, "direc=.*independent"),
        ({"direc": np.diag([1, np.nan])}, ValueError, "direc=.*finite"),
        ({"direc": np.eye(3)}, ValueError, "direc: 3 directions, for 2 variables"),
        ({"directions": np.eye(2)}, ValueError, "options: unknown 'directions'.*direc"),
    ),
)
def test_what_cannot_be_right_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        solve(rosenbrock, [0.0, 0.0], **options)


def test_a_line_search_is_refused():
    with pytest.raises(ValueError, match="linesearch='wolfe': method 'powell' takes none"):
        jaxmin.minimize(rosenbrock, [0.0, 0.0], method="powell", linesearch="wolfe")


# ---- values only, and in what box


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


# fun, x0, pairs, the lowest f in the box; SciPy's Powell stops far above the first, at 1.77.
BOUNDED = {
    "valley": (rosenbrock, [-1.2, 0.4], [(None, 0.5), (0, None)], 0.25),
    "corner": (shifted, [1.0] * 5, [(0, 2)] * 5, 90.0),
    "classes": (logistic_regression, [0.0] * 5, [(-0.3, 0.3)] * 5, 0.5004196),
    "one side": (wood, [-3.0, -1.0, -3.0, -1.0], [(-3, None)] * 4, 0.0),
    "start at a bound": (beale, [3.5, -1.0], [(0, 3.5), (-1, 1)], 0.0),
    "start outside": (beale, [9.0, -7.0], [(0, 3.5), (-1, 1)], 0.0),
    "fixed": (lambda x: rosenbrock(x[:2]) + x[2], [0.7, 9.0, 0.5], [(0, 2), (1, 1), (-2, 2)], -2.0),
    "one variable": (barrier, [0.5], [(1e-6, 1)], 10.2103404),
}


@mostly_float64
@pytest.mark.parametrize("name", BOUNDED)
def test_bounds(name, dtype):
    fun, x0, pairs, lowest = BOUNDED[name]
    fun, points = recorded(fun)
    low, high = np.transpose(np.asarray(pairs, float))  # NaN for None
    low, high = np.nan_to_num(low, nan=-np.inf).astype(dtype), np.nan_to_num(high, nan=np.inf).astype(dtype)
    res = solve(fun, np.asarray(x0, dtype), jaxmin.Bounds(low, high))
    jax.effects_barrier()
    assert res.status == Status.SPREAD
    assert len(points) == int(res.nfev)
    assert np.all(low <= points)
    assert np.all(points <= high)
    np.testing.assert_array_equal(points[0], np.clip(np.asarray(x0, dtype), low, high))
    np.testing.assert_allclose(res.fun, lowest, rtol=1e-5, atol=1e-6)
    assert (res.x.dtype, res.fun.dtype) == (dtype,) * 2
    np.testing.assert_array_equal(res.active_mask, np.where(res.x == low, -1, np.where(res.x == high, 1, 0)))


def test_bounds_cost_no_more_than_scipys():
    for name in ("corner", "classes", "one side", "one variable"):
        fun, x0, pairs, _ = BOUNDED[name]
        assert solve(fun, x0, pairs).nfev < scipy_solve(fun, x0, pairs).nfev


@each_case
def test_float32_ends_near_float64(case):
    fun, x0, minima, _ = ALL[case]
    res = solve(fun, np.asarray(x0, "float32"))
    assert res.status == Status.SPREAD
    assert (res.x.dtype, res.fun.dtype) == ("float32",) * 2
    lowest = min(minima, key=lambda f: abs(f - float(res.fun)))
    np.testing.assert_allclose(res.fun, lowest, rtol=1e-5, atol=1e-5)


@mostly_float64
@pytest.mark.parametrize("case", ("logreg", "cosh", "rosen2"))
def test_tolerances_out_of_reach_end_all_the_same(case, dtype):
    fun, x0, *_ = ALL[case]
    res = solve(fun, np.asarray(x0, dtype), tol=0)
    assert res.status == Status.SPREAD
    assert res.nfev < 1000


def root(x):
    return jnp.sum(jnp.sqrt(x) + (x - like(x, [0.2, 3])) ** 2)


@pytest.mark.parametrize(("fun", "x0"), ((barrier, [1.0]), (root, [1.0, 1.0])))
def test_nan_is_as_bad_as_infinity(fun, x0):
    recording, points = recorded(fun)
    res, oracle = solve(recording, x0), solve(lambda x: jnp.where(jnp.isnan(fun(x)), jnp.inf, fun(x)), x0)
    jax.effects_barrier()
    assert np.min(points) < 0  # where it is NaN
    assert res.status == Status.SPREAD
    assert figures(res) == figures(oracle)
    np.testing.assert_allclose(res.x, oracle.x, rtol=1e-12)


@mostly_float64
@pytest.mark.parametrize(
    ("fun", "x0", "status"),
    (
        (lambda x: -x[0] - 2 * x[1] ** 3, [0.0, 0.0], Status.UNBOUNDED),
        (lambda x: jnp.log(jnp.abs(x[0] - 1)) + x[1] ** 2, [0.0, 0.0], Status.UNBOUNDED),  # -inf at the first trial
        (lambda x: jnp.where(x[0] > 0, x[0], jnp.inf) + x[1] ** 2, [-1.0, 0.0], Status.NAN),
        (lambda x: 0 * jnp.sum(x) + 5, [1.0, -2.0], Status.SPREAD),
    ),
)
def test_odd_functions(fun, x0, status, dtype):
    res = solve(fun, np.asarray(x0, dtype))
    assert res.status == status
    assert res.nfev < 400
    if status in (Status.NAN, Status.SPREAD):
        np.testing.assert_array_equal(res.x, x0)


@pytest.mark.parametrize("case", ("rosen2", "logreg"))
def test_aux_is_that_of_the_point_returned(case):
    fun, x0, *_ = ALL[case]
    for maxfun in (1, 2, 3, 4, 9, 20, 1000):
        res = jaxmin.minimize(lambda x: (fun(x), x), x0, method="powell", has_aux=True, options={"maxfun": maxfun})
        np.testing.assert_array_equal(res.aux, res.x)


def test_lanes_of_a_batch_are_the_single_runs():
    starts = np.random.default_rng(0).normal(size=(8, 2)) * 3
    starts[7, 1] = np.nan
    pairs = [(None, 4.0), (-1.0, None)]
    for bounds in (None, pairs):
        lanes = jax.vmap(lambda x0, bounds=bounds: solve(rosenbrock, x0, bounds))(jnp.asarray(starts))
        assert len(set(lanes.nfev.tolist())) > 4
        for i, x0 in enumerate(starts):
            single = solve(rosenbrock, x0, bounds)
            assert (lanes.status[i], lanes.nit[i], lanes.nfev[i]) == figures(single)
            np.testing.assert_allclose(lanes.x[i], single.x, rtol=1e-9)


@pytest.mark.parametrize(("dtype", "far"), [("float32", 2.4e9), ("float64", 1e17)])
def test_a_start_whose_last_place_is_more_than_1_is_no_minimum(dtype, far):
    res = jaxmin.minimize(lambda x: jnp.sum((x / far - 2) ** 2), jnp.full(2, far, dtype), method="powell")
    assert res.success
    np.testing.assert_allclose(res.x, 2 * far, rtol=1e-3)
