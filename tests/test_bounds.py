"""Solutions in a box are SciPy's, nothing is evaluated outside, and every form of bounds means the same."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from helpers import UNCONSTRAINED, asks_for, compilations
from problems import like, recorded, rosenbrock, wood

import jaxmin
from jaxmin import Bounds, Status, minimize

INF = np.inf
GTOL = 1e-5

# The native methods that take a box, and those of them that follow a gradient.
METHODS = [name for name in UNCONSTRAINED if "box" in asks_for(name)]
DESCENTS = [name for name in METHODS if "grad" in asks_for(name)]
# By default one of each kind; the others, which share their code, with `pytest -m slow`.
_ALWAYS = ("lbfgs", "trust_ncg", "powell")


def _of(names):
    return [pytest.param(name, marks=() if name in _ALWAYS else pytest.mark.slow) for name in names]


each_method = pytest.mark.parametrize("method", _of(METHODS))
each_descent = pytest.mark.parametrize("method", _of(DESCENTS))


# ---- a table of problems, SciPy's answer beside ours


class Bounded(NamedTuple):
    fun: Callable
    x0: Any
    lower: Any
    upper: Any


_rng = np.random.default_rng(11)


def _random_box(n):
    """The Rosenbrock chain in a box among positive numbers, where f has one minimum."""
    lower = _rng.uniform(0.2, 0.9, n)
    upper = lower + _rng.uniform(0.0, 1.0, n)
    return Bounded(rosenbrock, _rng.uniform(-2, 2, n), lower, upper)


_Q = np.linalg.qr(_rng.normal(size=(12, 12)))[0]
_HESSIAN = _Q @ np.diag(np.logspace(0, 2, 12)) @ _Q.T
_HELD = np.array([1, -1, 1, 0, 0, -1, 0, 0, 1, 0, 0, 0])  # the active set of the quadratic
_SOLUTION = np.where(_HELD == 0, _rng.uniform(-0.9, 0.9, 12), _HELD)
_LINEAR = _HESSIAN @ _SOLUTION + _HELD * _rng.uniform(1, 5, 12)

# Spectra that overlap, one on the other, and a mixture of three of them with noise.
_SPECTRA = np.exp(-((np.linspace(0, 10, 60)[:, None] - np.arange(1, 9)) ** 2) / 2)
_MIXTURE = _SPECTRA @ [0, 0.5, 0, 1.2, 0, 0, 0.3, 0] + 0.02 * _rng.normal(size=60)


def _quadratic(x):
    return x @ (like(x, _HESSIAN) @ x) / 2 - like(x, _LINEAR) @ x


def _nonnegative_least_squares(x):
    return jnp.sum((like(x, _SPECTRA) @ x - like(x, _MIXTURE)) ** 2) / 2


def _to(*target):
    return lambda x: jnp.sum((x - like(x, target)) ** 2)


# HS: W. Hock and K. Schittkowski, Test Examples for Nonlinear Programming Codes, 1981, problems 1 to 5, 38 and 45.
TABLE = {
    "rosen2": _random_box(2),
    "rosen5": _random_box(5),
    "rosen25": _random_box(25),
    "quadratic": Bounded(_quadratic, np.zeros(12), -np.ones(12), np.ones(12)),
    "nnls": Bounded(_nonnegative_least_squares, np.full(8, 0.1), np.zeros(8), np.full(8, INF)),
    "hs1": Bounded(rosenbrock, [-2, 1], [-INF, -1.5], [INF, INF]),
    "hs2": Bounded(rosenbrock, [-2, 1], [-INF, 1.5], [INF, INF]),
    "hs3": Bounded(lambda x: x[1] + 1e-5 * (x[1] - x[0]) ** 2, [10, 1], [-INF, 0], [INF, INF]),
    "hs4": Bounded(lambda x: (x[0] + 1) ** 3 / 3 + x[1], [1.125, 0.125], [1, 0], [INF, INF]),
    "hs5": Bounded(
        lambda x: jnp.sin(x[0] + x[1]) + (x[0] - x[1]) ** 2 - 1.5 * x[0] + 2.5 * x[1] + 1,
        [0, 0],
        [-1.5, -3],
        [4, 3],
    ),
    "hs38": Bounded(wood, [-3, -1, -3, -1], [-10] * 4, [10] * 4),
    "hs45": Bounded(lambda x: 2 - jnp.prod(x) / 120, [2] * 5, [0] * 5, [1, 2, 3, 4, 5]),
    "corner near": Bounded(_to(5, 5), [0.5, 0.5], [0, 0], [1, 1]),
    "corner": Bounded(_to(8, 8), [0.5, 0.5], [0, 0], [1, 1]),
    "corner far": Bounded(_to(50, 50), [0.5, 0.5], [0, 0], [1, 1]),
    "start outside": Bounded(_to(2, -3), [5, 5], [0, 0], [1, 1]),
    # Evaluated outside it would be NaN.
    "entropy": Bounded(lambda x: jnp.sum(x * jnp.log(x) + x * like(x, [3, -2])), [0.5, 0.5], [0.1, 1e-9], [1, 1]),
}
# Curved valleys and nearly dependent columns: no place for steepest descent.
SLOW = ("hs1", "hs38", "nnls")
# The lower of two minima, where SciPy finds the other.
LOWER = {"hs2": 0.0504261879}

# One program for all of them: each problem is a branch on the first of 25 variables, the others are fixed.
WIDTH = 25
_BRANCHES = [lambda x, p=p: p.fun(x[: len(p.x0)]).astype(x.dtype) for p in TABLE.values()]


def _any_of_them(x, k):
    return jax.lax.switch(k, _BRANCHES, x)


evaluated, POINTS = recorded(_any_of_them)
evaluated = jax.jit(evaluated)  # traced once, so that all solves share a program
value_and_grad = jax.jit(jax.value_and_grad(_any_of_them))


def _padded(name):
    """Which branch, x0, and the box, of 25 numbers each."""
    problem = TABLE[name]
    rest = np.zeros(WIDTH - len(problem.x0))
    return np.int32(list(TABLE).index(name)), *(np.concatenate([part, rest]) for part in problem[1:])


@functools.cache
def scipys(name):
    """SciPy's solution in float64, to the same gtol alone."""
    k, x0, lower, upper = _padded(name)
    fun = lambda x: tuple(map(np.asarray, value_and_grad(x, k)))
    bounds = scipy.optimize.Bounds(lower, upper)
    options = {"ftol": 0, "gtol": GTOL}
    return scipy.optimize.minimize(fun, x0, jac=True, bounds=bounds, method="L-BFGS-B", options=options)


@functools.cache
def solved(name, method, dtype):
    """Our solution, and the points that were evaluated for it."""
    k, x0, lower, upper = _padded(name)
    POINTS.clear()
    options = {"maxiter": 1000, "gtol": GTOL}
    res = minimize(
        evaluated, jnp.asarray(x0, dtype), k, method, bounds=Bounds(lower, upper), options=options
    )  # the bounds in float64, also where x cannot hold them
    jax.effects_barrier()
    return res, np.array(POINTS)


def projected(x, g, lower, upper):
    """The gradient of the variables that no bound holds; x may be rounded."""
    x, g = np.asarray(x, float), np.asarray(g, float)
    near = 1e-6 * np.maximum(1, np.abs(x))
    return np.where(((x <= lower + near) & (g >= 0)) | ((x >= upper - near) & (g <= 0)), 0, g)


def each_solve_by(methods):
    # By default lbfgs in float64, every third problem of it in float32 and of a method of each kind in float64, and one
    # of every method; the rest with `-m slow`.
    def chosen(i, method, dtype):
        if method == "lbfgs":
            return dtype == "float64" or i % 3 == 0
        return dtype == "float64" and i % (3 if method in _ALWAYS else len(TABLE)) == 0

    solves = [
        pytest.param(name, method, dtype, marks=() if chosen(i, method, dtype) else pytest.mark.slow)
        for dtype in ("float64", "float32")
        for method in methods
        for i, name in enumerate(TABLE)
    ]
    return pytest.mark.parametrize(("name", "method", "dtype"), solves)


def test_there_is_something_to_enumerate():
    assert {"lbfgs", "bfgs", "cg", "gradient_descent", "newton_cg", "trust_ncg"} <= set(DESCENTS)


@each_solve_by(DESCENTS)
def test_solutions_are_scipys(name, method, dtype):
    res, _ = solved(name, method, dtype)
    if method == "gradient_descent" and name in SLOW and res.status == Status.MAXITER:
        return
    reference, exact = scipys(name), dtype == "float64"
    by_rounding = not exact and res.status in (
        Status.PRECISION_LOSS,
        Status.SEARCH_FAILED,
    )  # the answer must be right all the same
    assert res.success or by_rounding, res.message
    if name in LOWER and res.fun < LOWER[name] + 1e-6:
        return
    np.testing.assert_allclose(res.fun, reference.fun, rtol=1e-8 if exact else 3e-6, atol=1e-7 if exact else 2e-5)
    np.testing.assert_allclose(res.x, reference.x, atol=3e-4 if exact else 5e-3)


@each_solve_by(METHODS)
def test_nothing_is_evaluated_outside(name, method, dtype):
    res, points = solved(name, method, dtype)
    _, _, lower, upper = _padded(name)
    products = 0 if res.nhev is None else res.nhev
    assert len(points) == res.nfev + products
    assert points.dtype == dtype
    points = points.astype(np.float64)
    assert np.all((lower <= points) & (points <= upper))
    assert np.all((lower <= np.asarray(res.x, float)) & (np.asarray(res.x, float) <= upper))


@each_solve_by(DESCENTS)
def test_converged_means_that_the_projected_gradient_is_small(name, method, dtype):
    res, _ = solved(name, method, dtype)
    k, _, lower, upper = _padded(name)
    g = value_and_grad(jnp.asarray(res.x, float), k)[1]
    rounding = 0 if dtype == "float64" else 1e3 * np.finfo(dtype).eps  # of g and of the bounds
    if res.status == Status.CONVERGED:
        assert np.abs(projected(res.x, g, lower, upper)).max() <= GTOL + rounding


@each_solve_by(DESCENTS)
def test_active_mask_says_what_is_held(name, method, dtype):
    res, _ = solved(name, method, dtype)
    _, _, lower, upper = _padded(name)
    x, g, mask = (np.asarray(part) for part in (res.x, res.jac, res.active_mask))
    assert mask.dtype == np.int32
    ulps = 2 * np.finfo(dtype).eps * np.abs(x)
    at_lower, at_upper = x <= lower + ulps, x >= upper - ulps
    assert np.all(at_lower[mask == -1] & (g[mask == -1] >= 0))
    assert np.all(at_upper[mask == 1] & (g[mask == 1] <= 0))
    assert not np.any((at_lower & (g > 0) | at_upper & (g < 0)) & (mask == 0))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@each_descent
def test_a_known_active_set_is_found(method, dtype):
    res, _ = solved("quadratic", method, dtype)
    np.testing.assert_array_equal(res.active_mask[:12], _HELD)
    np.testing.assert_array_equal(res.x[:12][_HELD != 0], _HELD[_HELD != 0])
    hidden = np.sqrt(2 * np.finfo(dtype).eps * np.abs(res.fun))  # rounding of f, where the least curvature is 1
    np.testing.assert_allclose(res.x[:12], _SOLUTION, atol=max(1e-5, hidden))


def test_evaluations_are_no_more_than_scipys():
    """In the geometric mean over the table; hs38 takes three times as many, others fewer."""
    ratios = [float(solved(name, "lbfgs", "float64")[0].nfev) / scipys(name).nfev for name in TABLE]
    assert np.exp(np.mean(np.log(ratios))) <= 1.1


def test_a_hundred_variables():
    p = _random_box(100)
    fun, points = recorded(rosenbrock)
    res = minimize(fun, p.x0, bounds=Bounds(p.lower, p.upper))
    jax.effects_barrier()
    vg = jax.jit(jax.value_and_grad(rosenbrock))
    reference = scipy.optimize.minimize(
        lambda x: tuple(map(np.asarray, vg(x))), p.x0, jac=True, bounds=scipy.optimize.Bounds(p.lower, p.upper),
        method="L-BFGS-B", options={"ftol": 0, "gtol": GTOL},
    )  # fmt: skip
    assert res.success, res.message
    np.testing.assert_allclose(res.fun, reference.fun, rtol=1e-9)
    np.testing.assert_allclose(res.x, reference.x, atol=1e-5)
    assert all(np.all((p.lower <= x) & (x <= p.upper)) for x in points)
    assert res.nfev <= 1.5 * reference.nfev


# ---- how they are said

TARGET = np.array([2.0, -3.0])


def squares(x, target=TARGET):
    return jnp.sum((x - target) ** 2)


SPELLINGS = {
    "pairs": ([(0, 1), (0.0, 1.0)], 0, 1),
    "tuple of lists": (([0, 1], [0, 1]), 0, 1),
    "pairs with None": ([(None, 1), (-1, None)], [-INF, -1], [1, INF]),
    "pairs of nothing": ([(None, None), (None, None)], -INF, INF),
    "infinite pairs": ([(-INF, 1), (-1, INF)], [-INF, -1], [1, INF]),
    "equal pair": ([(0.5, 0.5), (None, None)], [0.5, -INF], [0.5, INF]),
    "all fixed": ([(0.5, 0.5), (-3, -3)], [0.5, -3], [0.5, -3]),
    "array of pairs": (np.array([[0, 1], [-4, 1]]), [0, -4], 1),
    "array of pairs with None": (np.array([[None, 1], [-1, None]], object), [-INF, -1], [1, INF]),
    "JAX array of pairs": (jnp.array([[0.0, 1], [-4, 1]]), [0, -4], 1),
    "SciPy's, numbers": (scipy.optimize.Bounds(0, 1), 0, 1),
    "SciPy's, lists": (scipy.optimize.Bounds([-INF, -1], [1, INF]), [-INF, -1], [1, INF]),
    "numbers": (Bounds(0, 1), 0, 1),
    "arrays": (Bounds(np.array([-5, -1]), jnp.array([1.0, INF])), [-5, -1], [1, INF]),
    "lists": (Bounds([-5, -1], [1.0, INF]), [-5, -1], [1, INF]),
    "one side": (Bounds(lower=-1), -1, INF),
    "the other": (Bounds(upper=1), -INF, 1),
    "None on a side": (Bounds(None, 1), -INF, 1),
    "no sides": (Bounds(), -INF, INF),
    "None": (None, -INF, INF),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_bounds_may_be_said_as(name):
    bounds, lower, upper = SPELLINGS[name]
    res = minimize(squares, [5.0, 5.0], bounds=bounds)
    assert res.status == Status.CONVERGED
    np.testing.assert_allclose(res.x, np.clip(TARGET, lower, upper), atol=1e-6)
    if bounds is None:
        assert res.active_mask is None and "active_mask" not in res
    else:
        held = (lower >= TARGET) | (upper <= TARGET)
        np.testing.assert_array_equal(res.active_mask != 0, held)
        assert res["active_mask"] is res.active_mask


def test_all_fixed_takes_one_evaluation():
    res = minimize(squares, [5.0, 5.0], bounds=[(1, 1), (3, 3)])
    assert (int(res.status), int(res.nfev), int(res.nit)) == (Status.CONVERGED, 1, 0)


def test_bounds_of_a_matrix_and_of_a_number():
    for x0, pairs in ((np.zeros((2, 2)), [(0, 1), (None, 3), (-1, None), (3, 4)]), (np.float64(0), [(0, 1)])):
        res = minimize(lambda x: jnp.sum((x - 2) ** 2), x0, bounds=pairs)
        limits = [1, 2, 2, 3] if np.ndim(x0) else [1]
        np.testing.assert_allclose(res.x, np.reshape(limits, np.shape(x0)), atol=1e-6)
        assert np.shape(res.active_mask) == np.shape(x0)


# float32, float64 and leaves that do not vary; 0.1 is above its neighbour in float32, and -0.1 below.
TREE = {"a": np.zeros(2, np.float32), "b": (np.zeros(()), None, "label")}
TREES = {
    "leaf by leaf": (
        Bounds({"a": np.array([-0.1, 0.3]), "b": (-1.0, None, None)}, {"a": np.array([0.1, 9]), "b": (5, None, None)}),
        [0.1, 2], -1),
    "upper parts": (Bounds({"a": None, "b": -0.1}, {"a": 0.1, "b": None}), [0.1, 0.1], -0.1),
    "numbers": (Bounds(-0.1, 0.1), [0.1, 0.1], -0.1),
    "outside": (Bounds({"a": 0.7, "b": None}, None), [2, 2], -3),
}  # fmt: skip
_on_tree, TREE_POINTS = recorded(lambda x: jnp.sum((x["a"] - 2) ** 2) + (x["b"][0] + 3) ** 2)


@pytest.mark.parametrize("name", TREES)
def test_bounds_of_a_tree(name):
    bounds, a, b = TREES[name]
    TREE_POINTS.clear()
    res = minimize(_on_tree, TREE, bounds=bounds)
    jax.effects_barrier()
    assert res.success, res.message
    np.testing.assert_allclose(res.x["a"], a, atol=1e-5)
    np.testing.assert_allclose(res.x["b"][0], b, atol=1e-5)
    np.testing.assert_array_equal(res.active_mask["a"], np.where(np.array(a) < 2, 1, 0))
    assert res.active_mask["b"] == (-1 if b > -3 else 0, None, None)
    assert jax.tree.map(jnp.result_type, res.x["a"]) == np.float32
    lower, upper = (_leaf_bounds(side, none) for side, none in ((bounds.lower, -INF), (bounds.upper, INF)))
    for x in TREE_POINTS:
        for leaf, low, high in zip((x["a"], x["b"][0]), lower, upper):
            leaf = np.asarray(leaf, float)
            assert np.all((low <= leaf) & (leaf <= high))


def _leaf_bounds(side, none):
    """One side's bound of the two leaves of TREE that vary."""
    if not isinstance(side, dict):
        side = {"a": side, "b": side}
    b = side["b"][0] if isinstance(side["b"], tuple) else side["b"]
    return [none if bound is None else bound for bound in (side["a"], b)]


@pytest.mark.parametrize("x64", [True, False])
def test_float32_stays_inside_bounds_that_it_cannot_hold(x64):
    """One tenth and its like in NumPy's float64, with and without JAX's 64-bit types."""
    lower, upper = np.array([-0.7, 0.3]), np.array([0.1, 0.6])
    fun, points = recorded(squares)
    enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    with enable_x64(x64):
        for target in (9, -9):
            points.clear()
            res = minimize(fun, np.zeros(2, np.float32), np.full(2, target, np.float32), bounds=Bounds(lower, upper))
            jax.effects_barrier()
            assert res.success
            np.testing.assert_allclose(res.x, upper if target > 0 else lower, rtol=2e-7)
            assert points
            for x in points:
                assert np.all((lower <= x.astype(float)) & (x.astype(float) <= upper))


def test_a_variable_fixed_at_a_number_that_float32_cannot_hold():
    """The two neighbours of 1000.1 are further apart than gtol."""
    res = minimize(lambda x: (x[1] - 2) ** 2, np.zeros(2, np.float32), bounds=[(1000.1, 1000.1), (None, None)])
    assert res.status == Status.CONVERGED, res.message
    np.testing.assert_allclose(res.x, [1000.1, 2], rtol=1e-6)
    assert res.active_mask[0] != 0


# ---- traced and batched


@jax.jit
def _traced(lower, upper):
    return minimize(squares, [5.0, 5.0], bounds=Bounds(lower, upper))


def test_traced_bounds_compile_nothing_for_new_values():
    boxes = [([0, 0], [1, 1]), ([-9, -1], [1, 9]), ([0.5, -INF], [0.5, INF]), ([-INF, -INF], [INF, INF])]
    compiled = []
    for lower, upper in boxes:
        lower, upper = np.array(lower, float), np.array(upper, float)
        with compilations() as programs:
            traced = jax.block_until_ready(_traced(lower, upper))
            given = jax.block_until_ready(minimize(squares, [5.0, 5.0], bounds=Bounds(lower, upper)))
        compiled.append(len(programs))
        for res in (traced, given):
            np.testing.assert_allclose(res.x, np.clip(TARGET, lower, upper), atol=1e-6)
    assert compiled[1:] == [0, 0, 0]


def test_pairs_of_traced_numbers():
    @jax.jit
    def solve(a, b, c):
        return minimize(squares, [5.0, 5.0], bounds=[(a, b), (c, None)])

    for bounds in ((0.0, 1.0, -1.0), (-1.0, 9.0, 4.0)):
        a, b, c = bounds
        np.testing.assert_allclose(solve(*bounds).x, np.clip(TARGET, [a, c], [b, INF]), atol=1e-6)


def test_batched_bounds_are_the_single_runs():
    rng = np.random.default_rng(3)
    lower = rng.uniform(-2, 1, (5, 2))
    upper = lower + rng.uniform(0, 2, (5, 2))
    upper[2] = lower[2]
    lower[3], upper[4] = -INF, INF
    solve = lambda lower, upper: minimize(rosenbrock, [-1.2, 1.0], bounds=Bounds(lower, upper))
    lanes = jax.jit(jax.vmap(solve))(lower, upper)
    for i in range(5):
        lane, single = jax.tree.map(lambda u, i=i: u[i], lanes), solve(lower[i], upper[i])
        assert (lane.status, lane.nit, lane.nfev) == (single.status, single.nit, single.nfev)
        np.testing.assert_allclose(lane.x, single.x, rtol=1e-9)
        np.testing.assert_array_equal(lane.active_mask, single.active_mask)
        assert np.all((lower[i] <= lane.x) & (lane.x <= upper[i]))


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_no_success_in_a_box_that_is_empty(offset):
    """Traced, the values are not known in time for an exception."""
    solve = jax.jit(lambda lower, upper, c: minimize(lambda x: squares(x) + c, [5.0, 5.0], bounds=Bounds(lower, upper)))
    assert not solve(1.0, 0.0, offset).success
    assert solve(0.0, 1.0, offset).success


# ---- what the result says


def test_message_gives_the_projected_gradient():
    """x[1] is at its bound, where f falls outwards."""
    fun = lambda x: 5 * (x[0] - 1) ** 2 + 5 * x[1]
    res = minimize(fun, [2.0, 1.0], bounds=Bounds(0, None), options={"maxiter": 0})
    assert "10" in res.message
    res = minimize(fun, [2.0, 0.0], bounds=Bounds(0, None), options={"gtol": 10})
    assert res.status == Status.CONVERGED
    assert "gradient norm 10 " in res.message


@pytest.mark.parametrize("method", DESCENTS)
def test_a_variable_near_its_bound_is_not_converged(method):
    """The bound is nearer than gtol, and the gradient is 1e7 (bashtage/arch#85)."""
    steep = lambda x, k: 1e12 * (x[0] - k) ** 2
    solve = lambda k: minimize(steep, [8e-6], (k,), method, bounds=[(0, None)])
    res = solve(3e-6)
    assert res.success
    np.testing.assert_allclose(res.x, [3e-6], rtol=1e-9)
    np.testing.assert_allclose(jax.jacobian(lambda k: solve(k).x)(3e-6), [1], rtol=1e-9)


@pytest.mark.parametrize("method", DESCENTS)
def test_a_small_rate_constant_is_fitted(method):
    """A decay of 3e-6 per second, with both variables bounded below by 0."""
    t = np.linspace(0.0, 1e6, 50)
    misfit = lambda p, y: jnp.sum((p[0] * jnp.exp(-p[1] * t) - y) ** 2)
    res = minimize(misfit, [1.0, 8e-6], (np.exp(-3e-6 * t),), method, bounds=[(0, None)] * 2)
    if method != "gradient_descent":  # its condition is 1e12
        assert res.success
        np.testing.assert_allclose(res.x, [1, 3e-6], rtol=1e-6)


def test_message_leaves_out_what_is_held():
    res = minimize(squares, [5.0, 5.0], bounds=Bounds(0, 1))
    assert np.abs(res.jac).min() > 1
    assert "gradient norm 0 " in res.message


@each_descent
def test_an_unbounded_direction_is_no_success(method):
    res = minimize(lambda x: x[1] - x[0], [0.5, 0.5], method=method, bounds=[(0, None), (0, 1)])
    assert not res.success
    assert (res.x[1], res.active_mask[1]) == (0, -1)
    assert res.x[0] > 100


# ---- transformations

TRANSFORMATIONS = {
    "optax.sgd": {"method": optax.sgd(0.1)},
    "optax.adam": {"method": optax.adam(0.1)},
    "sgd": {"method": "sgd", "options": {"learning_rate": 0.1}},
    "adam": {"method": "adam", "options": {"learning_rate": 0.1}},
    "extra_gradient": {"method": "extra_gradient", "options": {"learning_rate": 0.1}},
    "optax.sgd with a search of ours": {"method": optax.sgd(1.0), "linesearch": "wolfe"},
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_transformations_are_projected(name):
    fun, points = recorded(squares)
    lower, upper = np.array([0.0, -9]), np.array([0.7, 9])
    res = minimize(fun, [5.0, 5.0], bounds=Bounds(lower, upper), **TRANSFORMATIONS[name])
    jax.effects_barrier()
    assert res.status == Status.CONVERGED
    np.testing.assert_allclose(res.x, [0.7, -3], atol=1e-5)
    assert res.active_mask.tolist() == [1, 0]
    assert len(points) == res.nfev
    assert all(np.all((lower <= x) & (x <= upper)) for x in points)


SEARCHING = {
    "optax.lbfgs": optax.lbfgs(),
    "backtracking": optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(15)),
    "backtracking, storing": optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(15, store_grad=True)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEARCHING)
def test_transformations_that_search_are_refused(name):
    with pytest.raises(ValueError, match=r"bounds: .*search"):
        minimize(squares, [5.0, 5.0], method=SEARCHING[name], bounds=Bounds(0, 1))


def test_a_method_that_knows_no_box_is_refused():
    lbfgs = jaxmin.lbfgs()
    unaware = lbfgs._replace(
        update=lambda grad, state, params, *, value: lbfgs.update(grad, state, params, value=value),
        wants=frozenset({"grad"}),
    )
    assert minimize(squares, [5.0, 5.0], method=unaware).success
    with pytest.raises(ValueError, match=r"bounds: .*'box'"):
        minimize(squares, [5.0, 5.0], method=unaware, bounds=Bounds(0, 1))


# ---- what cannot be right

WRONG = {
    "lower above upper, pairs": ([(0, 1), (1, 0)], r"above.*lower \[0 1\], upper \[1 0\]"),
    "lower above upper, arrays": (Bounds(np.array([0, 2]), jnp.ones(2)), "above"),
    "too few pairs": ([(0, 1)] * 1, "1 pairs for 2"),
    "too many pairs": ([(0, 1)] * 3, "3 pairs for 2"),
    "one pair, bare": ((0, 1), "pair"),
    "an array in a pair": ([(0, np.ones(3)), (None, None)], "pair of numbers"),
    "triples": (np.zeros((2, 3)), "pair"),
    "a longer array": (Bounds(np.zeros(3), 1), r"\(3,\).*\(2,\)"),
    "a column": (Bounds(0, np.ones((2, 1))), r"\(2, 1\).*\(2,\)"),
    "another tree": (Bounds({"a": 0}, 1), "built as"),
    "a dictionary": ({"lower": 0, "upper": 1}, "Bounds"),
    "a string": ("01", "Bounds"),
    "a number": (1, "Bounds"),
    "pairs of strings": ([("a", "b")] * 2, "not a real number"),
    "strings": (Bounds("a", 1), "'a'"),
    "booleans": (Bounds(False, True), "False"),
    "complex pairs": ([(0, 1j)] * 2, "complex|number"),
    "complex numbers": (Bounds(0, 1j), "complex|number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_bounds_are_refused_by_name(name):
    bounds, word = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=rf"(?s)bounds.*({word})"):
        minimize(squares, [5.0, 5.0], bounds=bounds)


def test_pairs_for_a_tree_and_bounds_of_complex_numbers_are_refused():
    with pytest.raises(TypeError, match=r"bounds: .*Bounds\(lower, upper\)"):
        minimize(_on_tree, TREE, bounds=[(0, 1)] * 3)
    with pytest.raises(ValueError, match=r"bounds: .*'c'"):
        minimize(_on_tree, TREE, bounds=Bounds({"c": 0}, 1))
    with pytest.raises(TypeError, match=r"bounds: .*complex"):
        minimize(lambda z: jnp.sum(jnp.abs(z) ** 2), np.array([1j, 2]), bounds=Bounds(0, 1))
