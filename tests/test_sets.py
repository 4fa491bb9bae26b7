"""Projections are the nearest points of their sets, and solves in a set are those of SciPy and of brute force."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from helpers import asks_for, compilations, mostly_float64
from problems import like, recorded, rosenbrock

import jaxmin
from jaxmin import Bounds, Status, minimize, sets
from jaxmin._cache.registry import entries

N = 6
_rng = np.random.default_rng(5)
_A = np.concatenate([_rng.normal(size=(2, N)), np.zeros((2, N))])
_A[2] = _A[0] + 2 * _A[1]  # rows that depend on others
_A[3] = _A[0]
_B = _A @ _rng.normal(size=N)
_a = _rng.normal(size=N)
INSIDE = 1e-6  # up to rounding, in float32 too

sum_of = lambda x: np.sum(np.abs(x), axis=-1)


class Known:
    """A set, and how far a point is outside of it, and a sample of its points."""

    def __init__(self, made, outside, sample):
        self.made, self.outside, self.sample = made, outside, sample


def _nullspace(points):
    Q = np.linalg.svd(_A)[2][2:]
    return np.linalg.pinv(_A) @ _B + points @ Q.T @ Q


def _shares(points):
    return np.abs(points) / sum_of(points)[..., None]


KNOWN = {
    "simplex": Known(
        sets.simplex(2.0), lambda x: max(-x.min(), abs(x.sum() - 2)), lambda points: 2 * _shares(points)
    ),
    "ball 1": Known(
        sets.ball(1.5, norm=1), lambda x: sum_of(x) - 1.5,
        lambda points: 1.5 * points / sum_of(points)[..., None],
    ),
    "ball 2": Known(
        sets.ball(1.5), lambda x: np.linalg.norm(x) - 1.5,
        lambda points: 1.5 * points / np.linalg.norm(points, axis=-1, keepdims=True),
    ),
    "ball inf": Known(
        sets.ball(0.5, norm=np.inf), lambda x: np.abs(x).max() - 0.5, lambda points: np.clip(points, -0.5, 0.5)
    ),
    "ball of nothing": Known(sets.ball(0.0, norm=1), lambda x: np.abs(x).max(), lambda points: 0 * points),
    "half-space": Known(
        sets.half_space(_a, -0.5), lambda x: _a @ x + 0.5,
        lambda points: points - np.maximum(points @ _a + 0.5, 0)[..., None] * _a / (_a @ _a),
    ),
    "affine": Known(sets.affine(_A, _B), lambda x: np.abs(_A @ x - _B).max(), _nullspace),
    "affine of nothing": Known(sets.affine(np.zeros((0, N)), []), lambda x: 0, lambda points: points),
    "nonnegative": Known(sets.nonnegative(), lambda x: -x.min(), np.abs),
    "function": Known(
        sets.projection(lambda x: jnp.clip(x, -1, 0.5)), lambda x: max(x.max() - 0.5, -1 - x.min()),
        lambda points: np.clip(points, -1, 0.5),
    ),
    "product": Known(
        sets.product(sets.simplex()), lambda x: max(-x.min(), abs(x.sum() - 1)), _shares
    ),
}  # fmt: skip
each_set = pytest.mark.parametrize("name", KNOWN)

POINTS = np.concatenate(
    [_rng.normal(size=(40, N)) * np.logspace(-2, 1, 40)[:, None], np.zeros((1, N)), np.ones((1, N))]
)


# ---- projections


@each_set
@mostly_float64
def test_a_projection_is_the_nearest_point(name, dtype):
    """v - p makes no acute angle with q - p for any q of the set: that says which point p is."""
    known, points = KNOWN[name], POINTS.astype(dtype)
    found = jax.jit(jax.vmap(known.made.project))(points)
    assert found.dtype == dtype
    sample = known.sample(_rng.normal(size=(500, N)) * np.logspace(-2, 1, 500)[:, None])
    eps = 50 * np.finfo(dtype).eps
    for v, p in zip(points.astype(float), np.asarray(found, float)):
        size = max(1, np.abs(v).max(), np.abs(p).max())
        assert known.outside(p) <= eps * size
        assert np.max((sample - p) @ (v - p)) <= eps * size * max(1, np.abs(sample).max())


@each_set
@mostly_float64
def test_a_projection_is_idempotent(name, dtype):
    project = jax.jit(jax.vmap(KNOWN[name].made.project))
    once = np.asarray(project(POINTS.astype(dtype)))
    size = np.maximum(np.abs(once).max(axis=1, keepdims=True), 1)
    assert np.all(np.abs(project(once) - once) <= 30 * np.finfo(dtype).eps * size)


def test_projections_are_those_of_a_quadratic_program():
    """SciPy's SLSQP minimizes the distance."""
    constraints = {
        "simplex": [{"type": "eq", "fun": lambda x: x.sum() - 2}],
        "half-space": [{"type": "ineq", "fun": lambda x: -0.5 - _a @ x}],
        "affine": [{"type": "eq", "fun": lambda x: _A[:2] @ x - _B[:2]}],
        "ball 2": [{"type": "ineq", "fun": lambda x: 1.5**2 - x @ x}],
    }
    for name, rows in constraints.items():
        for v in POINTS[25:28]:
            res = scipy.optimize.minimize(
                lambda x, v=v: (np.sum((x - v) ** 2) / 2, x - v), np.full(N, 0.3), jac=True, method="SLSQP",
                constraints=rows, bounds=[(0, None)] * N if name == "simplex" else None,
                options={"ftol": 1e-14, "maxiter": 500},
            )  # fmt: skip
            np.testing.assert_allclose(KNOWN[name].made.project(v), res.x, atol=1e-5)


def test_many_shares_sum_to_the_total():
    v = _rng.normal(size=100_000).astype(np.float32)
    x = sets.simplex(3.0).project(v)
    assert abs(np.sum(np.asarray(x, float)) - 3) <= 1e-5


def test_projections_of_pytrees_and_of_integers():
    tree = {"a": np.array([2, 0]), "b": (1.0, np.ones((1, 2), np.float32))}
    found = sets.simplex().project(tree)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    np.testing.assert_allclose(found["a"], [1, 0])
    assert found["b"][1].shape == (1, 2) and found["b"][1].dtype == np.float32
    with pytest.raises(TypeError, match="x: "):
        sets.simplex().project(np.array([1j, 2]))


# ---- solves


def portfolio(w, covariance, returns):
    return w @ (like(w, covariance) @ w) - like(w, returns) @ w


_FACTORS = _rng.normal(size=(60, 12)) * np.logspace(0, -1, 12)
COVARIANCE, RETURNS = np.cov(_FACTORS.T), 0.1 * _rng.normal(size=12)
_MATRIX = _rng.normal(size=(30, N)) @ np.diag(np.logspace(0, -1, N))
_DATA = _rng.normal(size=30)


def misfit(x, matrix=_MATRIX, data=_DATA):
    return jnp.sum((like(x, matrix) @ x - like(x, data)) ** 2) / 2


def in_set(fun, x0, within, *args, method="gradient_descent", **options):
    return minimize(fun, x0, args, method=method, bounds=within, options=options)


@mostly_float64
def test_a_portfolio_is_that_of_scipy(dtype):
    fun, points = recorded(portfolio)
    res = in_set(fun, np.full(12, 1 / 12, dtype), sets.simplex(), COVARIANCE, RETURNS)
    jax.effects_barrier()
    reference = scipy.optimize.minimize(
        lambda w: (w @ COVARIANCE @ w - RETURNS @ w, 2 * COVARIANCE @ w - RETURNS), np.full(12, 1 / 12), jac=True,
        method="SLSQP", bounds=[(0, 1)] * 12, constraints=[{"type": "eq", "fun": lambda w: w.sum() - 1}],
        options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    assert res.success, res.message
    assert res.status in (Status.CONVERGED, Status.PRECISION_FLOOR)
    np.testing.assert_allclose(res.x, reference.x, atol=2e-4)
    np.testing.assert_allclose(res.fun, reference.fun, atol=1e-6)
    assert len(points) == res.nfev
    assert max(KNOWN["product"].outside(np.asarray(w, float)) for w in points) <= INSIDE


def test_least_squares_in_a_ball_of_norm_1_are_the_lasso():
    """With the multiplier of the ball as its weight; checked by its own conditions."""
    res = in_set(misfit, np.zeros(N), sets.ball(0.3, norm=1), gtol=1e-8)
    assert res.status == Status.CONVERGED
    assert abs(sum_of(res.x) - 0.3) <= 1e-12
    weight = np.abs(res.jac).max()
    held = np.abs(res.x) > 1e-10
    assert 0 < held.sum() < N
    np.testing.assert_allclose(np.asarray(res.jac)[held], -weight * np.sign(res.x[held]), rtol=1e-6)


@pytest.mark.parametrize(
    "within", [sets.nonnegative(), pytest.param(Bounds(0, None), marks=pytest.mark.slow)], ids=["set", "box"]
)
def test_nonnegative_least_squares_are_those_of_scipy(within):
    res = in_set(misfit, np.ones(N), within, gtol=1e-9)
    expected, _ = scipy.optimize.nnls(_MATRIX, _DATA)
    assert res.success
    assert np.any(expected == 0)
    np.testing.assert_allclose(res.x, expected, atol=1e-6)


def test_equations_give_the_solution_of_the_linear_system():
    res = in_set(misfit, np.zeros(N), sets.affine(_A, _B), gtol=1e-7)
    rows = _A[:2]
    system = np.block([[_MATRIX.T @ _MATRIX, rows.T], [rows, np.zeros((2, 2))]])
    expected = np.linalg.solve(system, np.concatenate([_MATRIX.T @ _DATA, _B[:2]]))[:N]
    assert res.status == Status.CONVERGED
    np.testing.assert_allclose(res.x, expected, atol=1e-5)


VALLEYS = {"ball 2": sets.ball(1.2), "half-space": sets.half_space(np.ones(4), 2.0), "simplex": sets.simplex(2.0)}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "ball 2" else pytest.mark.slow) for n in VALLEYS])
def test_the_valley_in_a_set_ends_at_a_stationary_point(name):
    within = VALLEYS[name]
    res = in_set(rosenbrock, np.array([-1.2, 1.0, -1.2, 1.0]), within, gtol=1e-6)
    assert res.status == Status.CONVERGED, res.message
    moved = within.project(res.x - res.jac) - res.x
    assert np.abs(moved).max() <= 1e-6
    np.testing.assert_allclose(res.gnorm, np.abs(moved).max(), atol=1e-12)
    # Nothing near in the set is lower.
    near = np.asarray(res.x) + 1e-3 * _rng.normal(size=(2000, 4))
    assert jax.jit(jax.vmap(lambda x: rosenbrock(within.project(x))))(near).min() >= res.fun - 1e-10


def test_an_ill_conditioned_problem_needs_few_evaluations():
    """A monotone search takes ten times as many."""
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(50, 50)))[0]
    H, b = Q @ np.diag(np.logspace(0, -4, 50)) @ Q.T, np.random.default_rng(1).normal(size=50)
    res = in_set(lambda x: x @ (H @ x) / 2 - b @ x, np.zeros(50), sets.nonnegative())
    assert res.status == Status.CONVERGED
    assert res.nfev <= 1000


def test_a_start_outside_moves_inside_and_x0_may_be_the_solution():
    res = in_set(lambda x: jnp.sum(x**2), np.array([5.0, -3.0]), sets.half_space([1.0, 1.0], -2.0))
    np.testing.assert_allclose(res.x, [-1, -1], atol=1e-6)
    again = in_set(lambda x: jnp.sum(x**2), res.x, sets.half_space([1.0, 1.0], -2.0))
    assert (again.nit, again.nfev, again.status) == (0, 1, Status.CONVERGED)
    assert again.active_mask is None and "active_mask" not in again


def test_the_names_none_and_auto_choose_gradient_descent():
    fun = lambda x: jnp.sum((x - 1) ** 2)
    expected = in_set(fun, np.zeros(3), sets.simplex())
    for method in (None, "auto"):
        res = in_set(fun, np.zeros(3), sets.simplex(), method=method)
        assert (res.nfev, res.status) == (expected.nfev, Status.CONVERGED)


LEAST = 0.1114965226  # of the Rosenbrock function in a ball of radius 0.8, along its edge
SEARCHES = [pytest.param(name, marks=pytest.mark.slow) for name in ("wolfe", "hager_zhang")]


@pytest.mark.parametrize("linesearch", ["backtracking", *SEARCHES])
def test_every_search_stays_inside(linesearch):
    """And the history has the measure of the stopping test."""
    fun, points = recorded(rosenbrock)
    res = minimize(
        fun, np.array([-1.2, 1.0]), method="gradient_descent", linesearch=linesearch, bounds=sets.ball(0.8),
        options={"history": 200},
    )  # fmt: skip
    jax.effects_barrier()
    assert len(points) == res.nfev
    assert max(np.linalg.norm(x) for x in points) <= 0.8 + 1e-12
    assert res.success, res.message
    np.testing.assert_allclose(res.fun, LEAST, rtol=1e-6)
    np.testing.assert_allclose(res.history.gnorm[res.nit], res.gnorm, atol=1e-14)


# ---- pytrees, batches, tracers

TREE = {"w": np.zeros((2, 2), np.float32), "level": np.zeros(()), "name": "label", "count": np.array(True)}


def on_tree(x):
    return jnp.sum((x["w"] - 1) ** 2) + (x["level"] - 3) ** 2


TREES = {
    "product": (sets.product({"w": sets.simplex(), "level": None, "name": None, "count": None}), 0.25, 3),
    "nested": (
        sets.product({"w": sets.product(sets.ball(1.0)), "level": sets.ball(2.0, norm=np.inf), "name": None,
                      "count": None}),
        0.5, 2,
    ),
    "whole": (sets.simplex(), 0, 1),
    "function": (
        sets.projection(lambda x: {**x, "w": jnp.minimum(x["w"], 0.5), "level": jnp.maximum(x["level"], 4)}), 0.5, 4
    ),
    "coefficients": (sets.half_space({"w": np.zeros((2, 2)), "level": 2.0, "name": None, "count": None}, 1.0), 1, 0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_sets_of_a_tree(name):
    within, w, level = TREES[name]
    res = minimize(on_tree, TREE, method="sgd", bounds=within, options={"learning_rate": 0.5})
    assert res.success, res.message
    assert res.x["w"].dtype == np.float32 and res.x["name"] == "label"
    np.testing.assert_allclose(res.x["w"], np.full((2, 2), w), atol=1e-5)
    np.testing.assert_allclose(res.x["level"], level, atol=1e-5)


def test_a_batch_is_the_single_runs():
    """The parameters of the set are batched too."""

    def solve(total, target):
        return in_set(lambda x: jnp.sum((x - target) ** 2 * like(x, [1, 3, 9])), jnp.zeros(3), sets.simplex(total))

    totals, targets = np.array([0.5, 1.0, 4.0]), _rng.normal(size=(3, 3))
    lanes = jax.jit(jax.vmap(solve))(totals, targets)
    for i in range(3):
        single = solve(totals[i], targets[i])
        assert (lanes.status[i], lanes.nit[i], lanes.nfev[i]) == (single.status, single.nit, single.nfev)
        np.testing.assert_allclose(lanes.x[i], single.x, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(lanes.x[i].sum(), totals[i], rtol=1e-12)
    assert lanes.success.all()


TRACED = {
    "simplex": (lambda p: sets.simplex(p), (1.0, 2.0), -1.0),
    "ball": (lambda p: sets.ball(p, norm=1), (1.0, 0.0), -1.0),
    "half-space": (lambda p: sets.half_space(p * jnp.ones(2), p), (1.0, 2.0), None),
    "affine": (lambda p: sets.affine(jnp.array([[1.0, 1.0], [2.0, 2.0]]), jnp.array([1.0, p])), (2.0,), 3.0),
    "function": (lambda p: sets.projection(lambda x: jnp.clip(x, 0, p)), (1.0, 2.0), None),
}


@pytest.mark.parametrize("name", TRACED)
def test_traced_parameters_are_those_given(name):
    """One that is wrong gives NaN: it is known too late for an exception."""
    make, right, wrong = TRACED[name]
    v = np.array([3.0, 1.0])
    traced = jax.jit(lambda p: make(p).project(v))
    for p in right:
        np.testing.assert_allclose(traced(p), make(p).project(v), rtol=1e-12)
    if wrong is not None:
        assert np.isnan(traced(wrong)).all()


@pytest.mark.parametrize("name", ["simplex", "affine"])
def test_a_traced_set_without_points_is_no_success(name):
    make, (right, *_), wrong = TRACED[name]
    fun = lambda x: jnp.sum((x - jnp.array([3.0, 1.0])) ** 2)
    solve = jax.jit(lambda p: minimize(fun, jnp.zeros(2), method="sgd", bounds=make(p), options={"learning_rate": 0.5}))
    assert solve(right).success
    assert not solve(wrong).success and np.isnan(solve(wrong).fun)


def test_sets_are_pytrees():
    project = jax.jit(lambda within: within.project(np.array([3.0, 3.0])))
    np.testing.assert_allclose(project(sets.simplex(4.0)), [2, 2])
    np.testing.assert_allclose(project(sets.product(sets.ball(2.0))), [2**0.5] * 2, rtol=1e-12)
    np.testing.assert_allclose(jax.tree.leaves(sets.affine(_A, _B))[1], _B)


def test_other_values_and_another_function_compile_nothing():
    def solve(total, high):
        in_set(lambda x: jnp.sum((x - 1) ** 2), np.zeros(3), sets.simplex(total))
        minimize(
            lambda x: jnp.sum((x - 1) ** 2), np.zeros(3), method="sgd", options={"learning_rate": 0.5},
            bounds=sets.projection(lambda x: jnp.minimum(x, high)),
        )  # fmt: skip

    solve(1.0, np.full(3, 0.5))
    with compilations() as programs:
        solve(2.0, np.full(3, 0.7))
    assert not programs


# ---- transformations

TRANSFORMATIONS = {
    "optax.adam": {"method": optax.adam(0.02)},
    "optax.sgd": {"method": optax.sgd(0.1)},
    "optax.sgd with a search of ours": {"method": optax.sgd(1.0), "linesearch": "backtracking"},
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_transformations_stay_inside(name):
    given = TRANSFORMATIONS[name]
    fun, points = recorded(lambda x: jnp.sum((x - like(x, [0.9, 0.5, -2.0])) ** 2 * like(x, [1, 2, 3])))
    options = {"maxiter": 3000, "gtol": 1e-3} | given.get("options", {})
    res = minimize(
        fun, np.zeros(3), method=given["method"], bounds=sets.simplex(), options=options,
        linesearch=given.get("linesearch"),
    )  # fmt: skip
    jax.effects_barrier()
    if name != "optax.adam":
        assert res.status == Status.CONVERGED, res.message
        np.testing.assert_allclose(res.x, [0.9 - 0.8 / 3, 0.5 - 0.4 / 3, 0], atol=1e-3)
    assert len(points) == res.nfev
    assert max(max(-x.min(), abs(x.sum() - 1)) for x in points) <= 1e-12


def test_a_transformation_that_searches_is_refused():
    with pytest.raises(ValueError, match=r"bounds: .*search"):
        minimize(lambda x: jnp.sum(x**2), np.ones(2), method=optax.lbfgs(), bounds=sets.simplex())


def test_unrolled_steps_have_derivatives():
    def share(target):
        fun = lambda x: jnp.sum((x - jnp.array([target, 0.0])) ** 2)
        options = {"diff": "unroll", "maxiter": 40, "gtol": -1.0}
        return minimize(fun, jnp.zeros(2), method=optax.sgd(0.3), bounds=sets.simplex(), options=options).x[0]

    np.testing.assert_allclose(jax.grad(share)(0.4), 0.5, rtol=1e-6)


# ---- what surrounds a solve


def test_many_problems_share_a_set():
    targets = _rng.normal(size=(7, 3))
    fun = lambda x, target: jnp.sum((x - target) ** 2)
    res = jaxmin.minimize_many(fun, np.zeros((7, 3)), args=(targets,), method="gradient_descent", bounds=sets.simplex())
    assert res.success.all()
    np.testing.assert_allclose(res.x, jax.vmap(sets.simplex().project)(targets), atol=1e-6)


def test_a_solver_steps_in_a_set():
    fun = lambda x: jnp.sum((x - jnp.array([0.3, 2.0])) ** 2 * jnp.array([1.0, 5.0]))
    solver = jaxmin.Solver(fun, method="gradient_descent", bounds=sets.ball(1.0))
    state = solver.init(jnp.zeros(2))
    while int(state.status) == Status.RUNNING:
        state = solver.step(state)
    res = solver.result(state)
    assert res.status == Status.CONVERGED
    np.testing.assert_allclose(sets.ball(1.0).project(res.x - res.jac), res.x, atol=1e-5)


# ---- what is refused


@pytest.mark.parametrize("method", [name for name in entries("methods") if name != "gradient_descent"])
def test_other_methods_are_refused_by_name(method):
    given = {"constraints": jaxmin.LinearConstraint(np.ones(2), 0, 1)} if "constraints" in asks_for(method) else {}
    with pytest.raises(ValueError, match=rf"bounds: method='{method}' .*'gradient_descent'.*'adam'"):
        minimize(rosenbrock, [0.5, 0.5], method=method, bounds=sets.simplex(), **given)


def test_built_methods_are_refused_with_the_choices():
    for method in (jaxmin.lbfgs(), jaxmin.descend(optax.sgd(1.0), "wolfe")):
        with pytest.raises(ValueError, match=r"bounds: this method .*'gradient_descent'.*'set' in its wants"):
            minimize(rosenbrock, [0.5, 0.5], method=method, bounds=sets.simplex())


solved = functools.partial(minimize, lambda x: jnp.sum(jnp.abs(x) ** 2), method="gradient_descent")
WRONG = {
    "a total of 0": (lambda: sets.simplex(0), ValueError, r"sets\.simplex: total=0: .*> 0"),
    "a negative total": (lambda: sets.simplex(-1.5), ValueError, r"total=-1\.5"),
    "an infinite total": (lambda: sets.simplex(np.inf), ValueError, r"total=inf.*finite"),
    "a total that is NaN": (lambda: sets.simplex(np.nan), ValueError, r"total=nan"),
    "two totals": (lambda: sets.simplex(np.ones(2)), TypeError, r"total=.*one real number"),
    "a total in words": (lambda: sets.simplex("one"), TypeError, r"total='one'"),
    "a flag as total": (lambda: sets.simplex(True), TypeError, r"total=True"),
    "a negative radius": (lambda: sets.ball(-1), ValueError, r"sets\.ball: radius=-1: .*>= 0"),
    "a norm of 3": (lambda: sets.ball(1, norm=3), ValueError, r"sets\.ball: norm=3: give 1, 2 or inf"),
    "a norm in words": (lambda: sets.ball(1, norm="max"), ValueError, r"norm='max'"),
    "a normal of 0": (lambda: sets.half_space(np.zeros(2), 1), ValueError, r"sets\.half_space: a is 0"),
    "a normal of None": (lambda: sets.half_space(None, 1), TypeError, r"sets\.half_space: a=None"),
    "a complex normal": (lambda: sets.half_space([1j, 0], 1), TypeError, r"sets\.half_space: a="),
    "a normal with NaN": (lambda: sets.half_space([np.nan, 0], 1), ValueError, r"a: .*NaN"),
    "two right-hand sides": (lambda: sets.half_space(np.ones(2), np.ones(2)), TypeError, r"half_space: b="),
    "one row as a vector": (lambda: sets.affine(np.ones(2), [1.0]), TypeError, r"sets\.affine: A: .*2 axes.*\(2,\)"),
    "b of another length": (lambda: sets.affine(np.ones((1, 2)), np.ones(3)), ValueError, r"A has 1 rows, and b 3"),
    "a product of numbers": (lambda: sets.product({"w": 1.0}), TypeError, r"sets\.product: 1\.0"),
    "no function": (lambda: sets.projection(3), TypeError, r"sets\.projection: fun=3"),
    "a longer normal": (lambda: solved([0.0, 0.0], bounds=sets.half_space(np.ones(3), 1)), ValueError,
                        r"\(3,\).*\(2,\)"),
    "another matrix": (lambda: solved([0.0, 0.0], bounds=sets.affine(np.ones((1, 3)), [1])), ValueError,
                       r"bounds: sets\.affine: A .*\(1, 3\).* 2 variables"),
    "no solution": (lambda: solved([0.0, 0.0], bounds=sets.affine(np.ones((2, 2)), [1, 2])), ValueError,
                    r"sets\.affine: no x"),
    "another tree": (lambda: solved([0.0, 0.0], bounds=sets.product({"w": None})), ValueError,
                     r"bounds: sets\.product is built as"),
    "a function of another shape": (lambda: solved([0.0, 0.0], bounds=sets.projection(lambda x: x[:1])), TypeError,
                                    r"sets\.projection: .*\(1,\) for \(2,\)"),
    "a function of another tree": (lambda: solved([0.0, 0.0], bounds=sets.projection(lambda x: (x, x))), TypeError,
                                   r"sets\.projection: fun returns"),
    "complex variables": (lambda: solved(np.array([1j]), bounds=sets.ball()), TypeError, r"bounds: .*complex"),
    "leaves apart": (lambda: solved(np.ones(2), bounds=sets.ball(), options={"flat": False}), TypeError,
                     r"bounds: .*'flat'"),
    "the function instead of the set": (lambda: solved(np.ones(2), bounds=sets.ball), TypeError,
                                        r"bounds.*jaxmin\.sets"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_sets_are_refused_by_name(name):
    make, kind, words = WRONG[name]
    with pytest.raises(kind, match=f"(?s){words}"):
        make()
