"""How constrained solves end where there is trouble: nothing feasible is lost, and each status is true."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hock_schittkowski import PROBLEMS

import jaxmin
from jaxmin import Bounds, NonlinearConstraint, Status, minimize
from jaxmin._core.kkt import Kkt, Residuals, Rows
from jaxmin._core.protocol import Iterate
from jaxmin._driver.loop import Feasible
from jaxmin._driver.solution import Solution, or_feasible
from jaxmin.methods import _fallback
from jaxmin.methods import slsqp as quadratic
from jaxmin.methods.slsqp import slsqp

INF = np.inf


def box_of_paper(x):
    return -x[0] * x[1] * x[2]


SURFACE = NonlinearConstraint(lambda x: 2 * (x[0] * x[1] + x[1] * x[2] + x[2] * x[0]), ub=6.0)


# ---- a feasible point is not lost


@pytest.mark.parametrize(
    "method", ["interior_point", "augmented_lagrangian", pytest.param("slsqp", marks=pytest.mark.slow)]
)
def test_a_limit_returns_a_feasible_iterate_if_there_was_one(method):
    fun, c, upper, x0, *_ = PROBLEMS["HS71"]
    del fun, c, upper, x0
    inside = jnp.array([0.5, 0.5, 0.2])
    for maxfun in range(1, 8):
        res = minimize(
            box_of_paper, inside, method=method, bounds=[(0, 3)] * 3, constraints=SURFACE, options={"maxfun": maxfun}
        )
        assert res.success or res.status == Status.MAXFUN
        assert res.constr_violation <= 1e-5
        assert res.fun <= box_of_paper(inside) + 1e-12
        np.testing.assert_allclose(res.fun, box_of_paper(res.x), rtol=1e-12)
        np.testing.assert_allclose(res.constr[0], SURFACE.fun(res.x), rtol=1e-12)
        np.testing.assert_allclose(res.jac, jax.grad(box_of_paper)(res.x), rtol=1e-12)


def ended(status, f, found):
    """A solve that ended so, and a feasible iterate with f = 1."""
    at = lambda f: (Iterate(jnp.full(2, f), jnp.asarray(f), jnp.full(2, f)), [jnp.asarray(f)])
    kkt = lambda f: Kkt(Rows(*jnp.full((3, 1), f)), *jnp.full((1, 1), f), *jnp.full((2, 2), f), jnp.full(1, f))
    residuals = lambda f: Residuals(*jnp.full(4, f))
    iterate, aux = at(f)
    best = Feasible(jnp.asarray(found), *at(1.0), kkt(1.0), residuals(1.0))
    return or_feasible(Solution(*iterate, aux, jnp.asarray(status), None, kkt(f), residuals(f)), best)


@pytest.mark.parametrize("status", list(Status))
def test_only_endings_without_success_return_the_best_feasible_iterate(status):
    last = {Status.CALLBACK, Status.UNBOUNDED}
    for found in (True, False):
        solution = ended(status, 5.0, found)
        takes = found and not status.success and status not in last
        expected = 1.0 if takes else 5.0
        leaves = jax.tree.leaves(solution._replace(status=expected))
        assert all(np.all(np.asarray(leaf) == expected) for leaf in leaves)
        mended = takes and status == Status.INFEASIBLE
        assert solution.status == (Status.SEARCH_FAILED if mended else status)


# ---- multipliers without a bound

# Their solutions have no multipliers: no gradient of an active constraint balances that of f.
WITHOUT_MULTIPLIERS = {
    "square": (lambda x: x[0], [1.0], lambda x: x[0] ** 2, 0.0),
    "cusp": (lambda x: -x[0], [0.5, 0.5], lambda x: jnp.stack([x[1] - (1 - x[0]) ** 3, -x[1]]), 0.0),
    "circles that touch": (
        lambda x: x[1], [3.0, 1.0], lambda x: jnp.stack([(x[0] - 1) ** 2, (x[0] + 1) ** 2]) + x[1] ** 2, 1.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WITHOUT_MULTIPLIERS)
def test_a_solution_without_multipliers_is_reached(name):
    """The solve came to rest at x = -5e-4 of the square, and went on there to maxfun = 15,000."""
    fun, x0, c, upper = WITHOUT_MULTIPLIERS[name]
    res = minimize(fun, x0, constraints=NonlinearConstraint(c, ub=upper))
    assert res.nfev < 100
    assert res.success or res.status == Status.MULTIPLIERS
    assert res.constr_violation <= 1e-6
    assert np.max(np.abs(res.v[0])) >= 500


def test_multipliers_without_a_bound_are_a_status():
    fun, x0, c, upper = WITHOUT_MULTIPLIERS["square"]
    res = minimize(fun, x0, constraints=NonlinearConstraint(c, ub=upper), options={"ctol": 1e-14})
    assert res.status == Status.MULTIPLIERS and not res.success
    assert res.constr_violation <= 1e-12
    assert "multipliers grow without bound" in res.message and f"{float(res.v[0]):.3g}" in res.message


# ---- slsqp goes on with the interior-point method


def test_a_convex_program_is_solved_at_once():
    """The terms that make the model convex had a part in the multipliers of bounds that was left out."""
    n = 40
    rng = np.random.default_rng(0)
    M = rng.normal(size=(n, n))
    S, returns = M @ M.T / n + 0.1 * np.eye(n), rng.normal(size=n)
    rows = [jaxmin.LinearConstraint(np.ones(n), 1, 1), jaxmin.LinearConstraint(returns, lb=0.51)]
    res = minimize(lambda w: w @ S @ w, jnp.ones(n) / n, bounds=[(0, 1)] * n, constraints=rows, method="slsqp")
    assert res.success and res.nit <= 3
    assert res.optimality <= 1e-7


def test_a_row_that_is_active_without_a_multiplier_is_no_trouble():
    """HS35 with x[1] fixed at 1/2: x and the multiplier of the row were known to the root of a small product only."""
    fun, c, upper, x0, *_ = PROBLEMS["HS35"]
    rows = NonlinearConstraint(c, np.zeros(1), np.asarray(upper))
    bounds = [(0, None), (0.5, 0.5), (0, None)]
    res = minimize(fun, jnp.asarray(x0), bounds=bounds, constraints=rows, method=slsqp().usual.method)
    assert res.success and res.nit <= 3
    np.testing.assert_allclose(res.x, [1.5, 0.5, 0.5], atol=1e-5)


def failing(monkeypatch):
    """slsqp, whose quadratic part gives up after a step."""
    monkeypatch.setattr(quadratic, "_PATIENCE", 1)
    monkeypatch.setattr(quadratic, "_PER_VARIABLE", 0)
    return slsqp.__wrapped__() if hasattr(slsqp, "__wrapped__") else slsqp()


HS71 = PROBLEMS["HS71"]
ROWS = NonlinearConstraint(HS71.c, np.zeros(2), np.asarray(HS71.upper))


def test_slsqp_goes_on_with_the_interior_method(monkeypatch):
    method = failing(monkeypatch)
    assert isinstance(
        method.usual.method.init(jnp.ones(4), constraints=Rows(*jnp.zeros((3, 2))), box=jaxmin.extend.Unbounded()),
        quadratic.SlsqpState,
    )
    call = lambda x0: minimize(HS71.fun, x0, bounds=HS71.bounds, constraints=ROWS, method=method)
    res = call(jnp.asarray(HS71.x0))
    assert res.success and abs(res.fun - HS71.f) <= 1e-6 * abs(HS71.f)
    alone = minimize(HS71.fun, jnp.asarray(HS71.x0), bounds=HS71.bounds, constraints=ROWS, method=method.usual.method)
    assert alone.status == Status.SEARCH_FAILED and alone.nfev < res.nfev and alone.nit < res.nit
    starts = jnp.stack([jnp.asarray(HS71.x0), jnp.array([2.0, 3.0, 4.0, 2.0])])
    batch = jax.jit(jax.vmap(call))(starts)
    assert batch.success.all()
    assert (batch.status[0], batch.nfev[0], batch.nit[0]) == (res.status, res.nfev, res.nit)
    np.testing.assert_allclose(batch.x, jnp.stack([res.x, res.x]), atol=1e-5)


def test_aux_is_that_of_x_where_the_fallback_begins():
    """The kink makes slsqp give up at an iterate that is new in this very step."""
    fun = lambda x: (jnp.abs(x[0] - 0.3) + 3 * jnp.abs(x[1]) + x[0] ** 2, {"x": x})
    rows = {"type": "ineq", "fun": lambda x: 1 - x[0] - x[1]}
    call = jax.jit(
        lambda most: minimize(
            fun, jnp.array([-1.0, 0.7]), method="slsqp", constraints=rows, has_aux=True, options={"maxiter": most}
        )
    )
    for most in (33, 34, 35, 36, 38):
        res = call(most)
        np.testing.assert_array_equal(res.aux["x"], res.x)


def test_who_watches_sees_one_solve(monkeypatch):
    method, seen = failing(monkeypatch), []

    def fun(x):
        jax.debug.callback(lambda: seen.append(1))
        return HS71.fun(x)

    res = minimize(fun, jnp.asarray(HS71.x0), bounds=HS71.bounds, constraints=ROWS, method=method)
    jax.effects_barrier()
    # Once for f, and once for its second derivatives.
    assert res.success and len(seen) <= 2 * (res.nfev + 2)


def test_the_usual_part_is_the_whole_where_it_succeeds():
    res = minimize(HS71.fun, jnp.asarray(HS71.x0), bounds=HS71.bounds, constraints=ROWS, method="slsqp")
    whole = minimize(
        HS71.fun, jnp.asarray(HS71.x0), bounds=HS71.bounds, constraints=ROWS, method="slsqp", callback=lambda x: None
    )
    assert (res.status, res.nit, res.nfev) == (whole.status, whole.nit, whole.nfev)
    np.testing.assert_allclose(res.x, whole.x, rtol=1e-12)


def test_a_learnt_hessian_goes_with_it():
    first = slsqp(hessian="bfgs")
    x, rows = jnp.ones(2), Rows(*jnp.zeros((3, 1)))
    state = first.init(x, constraints=rows, box=jaxmin.extend.Unbounded())
    assert state.first.B.shape == state.second.B.shape == (2, 2)
    assert isinstance(state, _fallback.FallbackState)


# ---- bounds without an inside


@pytest.mark.parametrize("method", ["lbfgs", "auto", "interior_point"])
def test_bounds_without_an_inside_have_a_status(method):
    lower = jnp.array([-1.0, 2.0, jnp.nan])
    call = lambda low: minimize(lambda x: jnp.sum((x - 3) ** 2), [0.0, 0.5], method=method, bounds=Bounds(low, 1.0))
    res = jax.vmap(call)(lower)
    assert res.status.tolist() == [0, Status.BOUNDS, Status.BOUNDS]
    assert res.success.tolist() == [True, False, False]
    assert res.nfev.tolist()[1:] == [0, 0] and res.nit.tolist()[1:] == [0, 0]
    assert np.isnan(res.fun[1:]).all() and np.isnan(res.jac[1:]).all()
    assert "lower bound is above its upper bound" in res.message[1]


def test_many_bounds_without_an_inside():
    bounds = Bounds(jnp.array([[0.0], [2.0], [-1.0]]), jnp.ones((3, 1)))
    res = jaxmin.minimize_many(lambda x: jnp.sum((x - 3) ** 2), jnp.zeros((3, 1)), bounds=bounds)
    assert res.status.tolist() == [0, Status.BOUNDS, 0]
