"""Every method makes the same promises with every line search that it takes.

Both are enumerated: a new file is tested without an entry here.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import DTYPES, UNCONSTRAINED, asks_for, identical
from problems import PAIRS, like, recorded

import jaxmin
from jaxmin import Status
from jaxmin._cache.registry import entries

# Curvatures on both sides of 1, all below 2: a fixed step of 1 contracts.
_Q = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
HESSIAN = _Q @ np.diag([0.5, 0.8, 1.0, 1.5]) @ _Q.T
TARGET = np.array([1.0, -2.0, 3.0, 0.5])
FAR = (90, 0, 0, 0)  # no method is at the target within four evaluations

METHODS = UNCONSTRAINED
each_method = pytest.mark.parametrize("method", METHODS)
# By default each method with its own search in float32, and lbfgs with every one; the rest with `pytest -m slow`.
own = lambda method, search: method == "lbfgs" or search in (None, "backtracking")
_SLOW = pytest.mark.slow
each_pair = pytest.mark.parametrize(
    ("method", "linesearch"), [pytest.param(*pair, marks=() if own(*pair) else _SLOW) for pair in PAIRS]
)


def each_method_slow_but(*names):
    """One program a method costs seconds: by default those of the names, the others with `pytest -m slow`."""
    return pytest.mark.parametrize(
        "method", [pytest.param(name, marks=() if name in names else _SLOW) for name in METHODS]
    )


each_solver = pytest.mark.parametrize(
    ("method", "linesearch", "dtype"),
    [
        pytest.param(*pair, dtype, marks=() if own(*pair) and (pair[0] == "lbfgs" or dtype == "float32") else _SLOW)
        for dtype in DTYPES
        for pair in PAIRS
    ],
)


def quadratic(x, target):
    e = x - target
    return e @ (like(x, HESSIAN) @ e) / 2


value_and_grad = jax.jit(jax.value_and_grad(quadratic))


def has_gradient(method):
    return "grad" in asks_for(method)


def tight(method):
    """Options for an x as near to the solution as a gradient within 1e-5 has it."""
    return {} if has_gradient(method) else {"xtol": 1e-5, "ftol": 1e-10}


def solve(method, linesearch, dtype, x0=(0, 0, 0, 0), target=TARGET, **options):
    options = tight(method) | options
    return jaxmin.minimize(
        quadratic, jnp.asarray(x0, dtype), jnp.asarray(target, dtype), method, linesearch=linesearch, options=options
    )


def test_identical_can_tell_results_apart():
    res, again, other = (solve("lbfgs", "wolfe", "float64", x0=x0) for x0 in ((0,) * 4, (0,) * 4, (0, 0, 0, 1)))
    assert identical(res, again)
    assert not identical(res, other)
    leaves, treedef = jax.tree.flatten(res)
    for i, leaf in enumerate(leaves):  # none is left out
        changed = jax.tree.unflatten(treedef, [*leaves[:i], leaf + 1, *leaves[i + 1 :]])
        assert not identical(res, changed)
    assert not identical(jnp.array([np.nan, 1]), jnp.array([np.nan, 2]))
    assert not identical(jnp.zeros(2, "float32"), jnp.zeros(2, "float64"))
    with pytest.raises(ValueError, match="zip"):
        identical(res, res.x)
    with pytest.raises(AssertionError):
        identical(None, None)


def test_there_is_something_to_enumerate():
    assert {"lbfgs", "bfgs", "cg", "gradient_descent"} <= set(entries("methods"))
    assert {"backtracking", "wolfe", "hager_zhang", "fixed"} <= set(entries("linesearches"))


@each_solver
def test_a_convex_problem_is_solved(method, linesearch, dtype):
    res = solve(method, linesearch, dtype)
    assert res.success
    assert res.status == (Status.CONVERGED if has_gradient(method) else Status.SPREAD)
    np.testing.assert_allclose(res.x, TARGET, atol=5e-5)
    exact = value_and_grad(res.x, jnp.asarray(TARGET, dtype))
    rounding = 32 * np.finfo(dtype).eps
    np.testing.assert_allclose(res.fun, exact[0], rtol=rounding)
    assert (res.x.dtype, res.fun.dtype) == (dtype,) * 2
    assert 0 < res.nit < res.nfev
    if has_gradient(method):
        np.testing.assert_allclose(res.jac, exact[1], atol=rounding)
        assert np.abs(exact[1]).max() <= 1e-5 + rounding
        assert res.jac.dtype == dtype
        assert res.nfev == res.njev
    else:
        assert res.jac is res.njev is None


@each_solver
def test_fun_is_the_value_at_x_wherever_the_solve_stops(method, linesearch, dtype):
    """Inside a search too: the point returned is an iterate, and never the last trial."""
    for maxfun in (1, 2, 3, 4, 5):
        res = solve(method, linesearch, dtype, maxfun=maxfun)
        f, g = value_and_grad(res.x, jnp.asarray(TARGET, dtype))
        rounding = 32 * np.finfo(dtype).eps
        np.testing.assert_allclose(res.fun, f, rtol=rounding)
        if has_gradient(method):
            np.testing.assert_allclose(res.jac, g, atol=rounding)


@each_solver
def test_maxfun_is_respected(method, linesearch, dtype):
    for maxfun in (1, 2, 3, 4):
        res = solve(method, linesearch, dtype, FAR, maxfun=maxfun)
        assert (int(res.nfev), int(res.status)) == (maxfun, Status.MAXFUN)
        assert res.nit < maxfun


@pytest.mark.parametrize(
    "method", [method for method in METHODS if asks_for(method) & {"hv", "H"} and "rare" not in asks_for(method)]
)
def test_maxhev_is_respected(method):
    for maxhev in (1, 2, 3):
        res = solve(method, None, "float64", FAR, maxhev=maxhev)
        assert (int(res.nhev), int(res.status)) == (maxhev, Status.MAXHEV)
        assert f"{np.abs(res.jac).max():.3g}" in res.message
        np.testing.assert_allclose(res.fun, quadratic(res.x, TARGET), rtol=1e-12)
    assert solve(method, None, "float64", FAR, maxhev=10_000).success


def test_maxhev_is_a_value_and_needs_second_derivatives():
    lanes = jax.vmap(lambda most: solve("trust_ncg", None, "float64", FAR, maxhev=most))(jnp.asarray([2, 3]))
    assert lanes.nhev.tolist() == [2, 3]
    several = jaxmin.minimize_many(
        quadratic,
        jnp.asarray([FAR, FAR], float),
        jnp.asarray(TARGET),
        in_axes=(0, None),
        method="trust_ncg",
        options={"maxhev": jnp.asarray([2, 3])},
    )
    assert several.nhev.tolist() == [2, 3]
    with pytest.raises(ValueError, match=r"options\['maxhev'\]: .* no second derivatives; give maxfun"):
        solve("lbfgs", None, "float64", maxhev=3)
    for wrong in (0, 2.5, jnp.nan):
        with pytest.raises(ValueError, match="whole number, at least 1"):
            solve("trust_ncg", None, "float64", maxhev=wrong)


@each_solver
def test_maxiter_is_respected(method, linesearch, dtype):
    for maxiter in (0, 1, 3):
        res = solve(method, linesearch, dtype, FAR, maxiter=maxiter)
        assert (int(res.nit), int(res.status)) == (maxiter, Status.MAXITER)


@each_solver
def test_a_second_run_is_identical(method, linesearch, dtype):
    assert identical(solve(method, linesearch, dtype), solve(method, linesearch, dtype))


@each_solver
def test_nan_at_the_start_returns_the_start(method, linesearch, dtype):
    x0 = jnp.asarray([1, np.nan, 0, 2], dtype)
    res = solve(method, linesearch, dtype, x0)
    assert (int(res.status), int(res.nit), int(res.nfev)) == (Status.NAN, 0, 1)
    assert identical(res.x, x0)
    assert not res.success


TREE = {"a": jnp.zeros(3, jnp.float32), "b": (jnp.ones((), jnp.float64), None)}


@functools.cache
def tree_runs(method, linesearch):
    """Solves of the problem on a tree: for each, the result and the evaluations made."""
    fun, points = recorded(lambda x: quadratic(jnp.append(x["a"].astype(jnp.float64), x["b"][0]), jnp.asarray(TARGET)))
    runs = []
    for options in ({}, {"maxfun": 3}):
        points.clear()
        options = tight(method) | options
        res = jaxmin.minimize(fun, TREE, method=method, linesearch=linesearch, options=options)
        jax.effects_barrier()
        runs.append((res, len(points)))
    return runs


@each_pair
def test_structure_and_dtypes_are_kept(method, linesearch):
    for res, _ in tree_runs(method, linesearch):
        for tree in (res.x, res.jac) if has_gradient(method) else (res.x,):
            assert jax.tree.structure(tree) == jax.tree.structure(TREE)
            assert jax.tree.map(lambda u: (u.shape, u.dtype), tree) == jax.tree.map(lambda u: (u.shape, u.dtype), TREE)
    solved, _ = tree_runs(method, linesearch)[0]
    assert solved.success
    np.testing.assert_allclose(jnp.append(solved.x["a"], solved.x["b"][0]), TARGET, atol=5e-5)


@each_pair
def test_every_evaluation_is_counted(method, linesearch):
    for res, evaluations in tree_runs(method, linesearch):
        products = 0 if res.nhev is None else res.nhev  # each linearises fun once more
        assert res.nfev + products == evaluations


@each_pair
def test_lanes_of_a_batch_are_the_single_runs(method, linesearch):
    starts = np.random.default_rng(2).normal(size=(4, 4)) * [[0.1], [1], [10], [1]]
    starts[3, 1] = np.nan

    @jax.jit
    @jax.vmap
    def batch(x0):
        return solve(method, linesearch, "float64", x0)

    lanes = batch(jnp.asarray(starts))
    for i, x0 in enumerate(starts):
        lane, single = jax.tree.map(lambda u, i=i: u[i], lanes), solve(method, linesearch, "float64", x0)
        assert (lane.status, lane.nit) == (single.status, single.nit)
        # XLA rounds a batch otherwise, and where f alone decides, rounding decides in the end how often it is asked.
        assert abs(lane.nfev - single.nfev) <= (0 if has_gradient(method) else 0.02 * single.nfev)
        np.testing.assert_allclose(lane.x, single.x, rtol=1e-9)


# ---- with a method's own search


LOWER, UPPER = np.array([-1.0, -1.0, 0.0, -3.0]), np.array([0.5, 3.0, 2.0, 3.0])


def solution_in_the_box():
    """By projected steps of 1, which contract."""
    x = np.zeros(4)
    for _ in range(500):
        x = np.clip(x - HESSIAN @ (x - TARGET), LOWER, UPPER)
    return x


@each_method
def test_a_box_is_kept_or_refused(method):
    fun, points = recorded(quadratic)

    def in_a_box():
        return jaxmin.minimize(
            fun, np.zeros(4), TARGET, method, bounds=jaxmin.Bounds(LOWER, UPPER), options=tight(method)
        )

    if "box" not in asks_for(method):
        with pytest.raises(ValueError, match=r"bounds.*takes no bounds"):
            in_a_box()
        return
    res = jax.block_until_ready(in_a_box())
    jax.effects_barrier()
    assert res.success
    wanted = solution_in_the_box()
    assert {*wanted} & {*LOWER} and {*wanted} & {*UPPER}
    np.testing.assert_allclose(res.x, wanted, atol=5e-5)
    assert all(((x >= LOWER) & (x <= UPPER)).all() for x in points)


@each_method_slow_but("lbfgs", "nelder_mead")
def test_the_history_holds_every_iterate(method):
    res = solve(method, None, "float32", history=500, history_x=True)
    rows, history = int(res.nit) + 1, res.history
    assert history.nit.tolist() == [*range(rows), *[-1] * (500 - rows)]
    assert identical(
        (history.x[0], history.x[rows - 1], history.fun[rows - 1]), (jnp.zeros(4, "float32"), res.x, res.fun)
    )
    values, grads = jax.vmap(value_and_grad, (0, None))(history.x[:rows], jnp.asarray(TARGET, "float32"))
    np.testing.assert_allclose(history.fun[:rows], values, rtol=1e-5, atol=1e-9)
    if has_gradient(method):
        np.testing.assert_allclose(history.gnorm[:rows], np.abs(grads).max(axis=1), rtol=1e-3, atol=1e-5)
    else:
        assert np.isnan(history.gnorm).all()
    assert np.isnan(history.fun[rows:]).all()


@pytest.mark.rounding
@each_method_slow_but("lbfgs")
def test_steps_by_hand_are_the_solve(method):
    solver = jaxmin.Solver(quadratic, method, options=tight(method))
    state, step = solver.init(jnp.zeros(4), jnp.asarray(TARGET)), jax.jit(solver.step)
    while not state.done:
        state = step(state)
    res = solve(method, None, "float64")
    assert (state.status, state.nit, state.nfev) == (res.status, res.nit, res.nfev)
    assert identical((state.x, state.fun), (res.x, res.fun))


@each_method_slow_but("lbfgs")
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_x0_in_half_precision_is_solved_and_comes_back_so(method, dtype):
    """The solve itself is in float32: the solution is exact, which its own precision would not reach."""
    res = jaxmin.minimize(
        lambda x: jnp.sum(jnp.array([1, 2, 0.5], x.dtype) * (x - 1) ** 2), jnp.array([3, -2, 0.5], dtype), method=method
    )
    assert res.success
    assert res.x.dtype == res.fun.dtype == dtype
    assert res.jac is None or res.jac.dtype == dtype
    np.testing.assert_array_equal(res.x.astype("float32"), 1)
