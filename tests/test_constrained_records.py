"""What a constrained solve tells and hands on: history, callbacks, plots, multipliers, warm starts, checks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hock_schittkowski import PROBLEMS

import jaxmin
from jaxmin import LinearConstraint, NonlinearConstraint, minimize
from jaxmin._core.kkt import Rows
from jaxmin._problem.constraints import Shape, multipliers

HS71 = PROBLEMS["HS71"]
ROWS = NonlinearConstraint(HS71.c, np.zeros(2), np.asarray(HS71.upper))


def solve(**more):
    return minimize(HS71.fun, jnp.asarray(HS71.x0), bounds=HS71.bounds, constraints=ROWS, **more)


# ---- on the way


def test_the_history_has_the_violation_and_the_gradient_of_the_lagrangian():
    res = solve(options={"history": 100, "history_x": True})
    history, count = res.history, int(res.nit) + 1
    for x, violation in zip(history.x[:count], history.violation[:count]):
        c = np.asarray(HS71.c(x))
        assert violation == pytest.approx(np.max([*np.abs(c[np.asarray(HS71.upper) == 0]), *-c, 0]), abs=1e-9)
    assert history.violation[count - 1] == res.constr_violation
    assert history.gnorm[count - 1] == res.optimality
    assert np.isnan(history.violation[count:]).all()
    assert minimize(lambda x: x @ x, jnp.ones(2), options={"history": 3}).history.violation is None


def test_callbacks_see_the_violation():
    seen = []

    def callback(intermediate_result):
        seen.append((intermediate_result.nit, intermediate_result.constr_violation, intermediate_result.optimality))

    res = solve(callback=callback)
    assert [int(nit) for nit, *_ in seen] == list(range(1, int(res.nit) + 1))
    assert seen[-1][1] == res.constr_violation and seen[-1][2] == res.optimality


def test_a_traced_callback_may_stop_by_the_violation():
    feasible = jaxmin.traced(lambda intermediate_result: intermediate_result.constr_violation < 1e-2)
    res = solve(callback=feasible)
    assert res.status == jaxmin.Status.CALLBACK and res.constr_violation < 1e-2
    plain = minimize(lambda x: x @ x, jnp.ones(2), callback=jaxmin.traced(lambda intermediate_result: None))
    assert plain.success


def test_lines_and_bars_show_the_violation(capsys):
    pytest.importorskip("tqdm")
    solve(options={"disp": True}, progress=True)
    out, err = capsys.readouterr()
    assert "violation = " in out + err and "|∇L| = " in out + err
    assert "violation=" in err


def test_plots_have_a_panel_for_the_violation():
    pytest.importorskip("matplotlib")
    res = solve(options={"history": 100})
    plain = minimize(lambda x: jnp.sum((x - 1) ** 4), jnp.zeros(2), options={"history": 100})
    assert [axes.get_ylabel() for axes in jaxmin.plot(res).axes] == ["|f − last f|", "|∇L|", "violation"]
    assert len(jaxmin.plot([res, plain]).axes) == 3


# ---- multipliers as SciPy's SLSQP has them


def test_multipliers_of_slsqp_are_those_of_scipy():
    numpys = lambda c: lambda x: np.asarray(c(x))
    theirs = scipy.optimize.minimize(
        numpys(HS71.fun), HS71.x0, bounds=HS71.bounds, method="SLSQP", tol=1e-10,
        jac=numpys(jax.grad(HS71.fun)),
        constraints=[
            {"type": "ineq", "fun": lambda x: float(np.prod(x)) - 25},
            {"type": "eq", "fun": lambda x: float(x @ x) - 40},
        ],
    )  # fmt: skip
    rows = [
        {"type": "ineq", "fun": lambda x: jnp.prod(x) - 25},
        {"type": "eq", "fun": lambda x: x @ x - 40},
    ]
    ours = minimize(HS71.fun, jnp.asarray(HS71.x0), bounds=HS71.bounds, constraints=rows, method="SLSQP")
    np.testing.assert_allclose(ours.multipliers, theirs.multipliers, rtol=1e-5)


def test_the_order_of_multipliers():
    """Equalities of all constraints first; then of each constraint the lower sides, and the upper ones."""
    inf = np.inf
    lower, upper = np.array([0.0, 1.0, -inf, -1.0, 2.0]), np.array([5.0, 1.0, 0.0, 1.0, 2.0])
    shapes = [Shape(None, ((3,),)), Shape(None, ((2,),))]
    v = jnp.array([-1.0, 2.0, 3.0, 4.0, -5.0])
    found = multipliers(v, Rows(jnp.zeros(5), lower, upper), shapes)
    assert found.tolist() == [-2.0, 5.0, 1.0, 0.0, 3.0, 0.0, 4.0]
    batch = multipliers(jnp.stack([v, 2 * v]), Rows(jnp.zeros(5), lower, upper), shapes)
    np.testing.assert_array_equal(batch, np.stack([found, 2 * found]))
    assert jax.jit(lambda l: multipliers(v, Rows(jnp.zeros(5), l, upper), shapes) is None)(lower)


# ---- warm starts


@pytest.mark.parametrize(
    "method", ["interior_point", "augmented_lagrangian", pytest.param("slsqp", marks=pytest.mark.slow)]
)
def test_a_warm_start_saves_evaluations(method):
    def at(limit, x0, **options):
        rows = [
            NonlinearConstraint(lambda x: jnp.prod(x), lb=limit),
            {"type": "eq", "fun": lambda x: x @ x - 40},
        ]
        return minimize(HS71.fun, x0, bounds=HS71.bounds, constraints=rows, method=method, options=options)

    first = at(25.0, jnp.asarray(HS71.x0))
    cold, from_x = at(25.1, jnp.asarray(HS71.x0)), at(25.1, first.x)
    warm = at(25.1, first.x, warm_start=first)
    assert cold.success and from_x.success and warm.success
    np.testing.assert_allclose(warm.x, cold.x, atol=1e-5)
    np.testing.assert_allclose(warm.v[1], cold.v[1], rtol=1e-4)
    assert warm.nfev <= from_x.nfev and 2 * warm.nfev <= cold.nfev


def test_a_warm_start_under_jit_and_vmap():
    first = solve()
    again = jax.jit(lambda earlier: solve(options={"warm_start": earlier}))(first)
    assert again.success
    batch = jax.vmap(lambda earlier: solve(options={"warm_start": earlier}))(
        jax.tree.map(lambda u: jnp.stack([u, u]), first)
    )
    assert batch.success.all() and (batch.nfev == again.nfev).all()


def test_warm_starts_that_do_not_fit():
    first, plain = solve(), minimize(lambda x: x @ x, jnp.ones(4))
    with pytest.raises(TypeError, match="solve with constraints"):
        solve(options={"warm_start": plain})
    one = LinearConstraint(np.ones(4), ub=1.0)
    with pytest.raises(ValueError, match=r"multipliers of shapes \[\(2,\)\], and constraints of \[\(1,\)\]"):
        minimize(HS71.fun, jnp.ones(4), constraints=one, options={"warm_start": first})
    with pytest.raises(ValueError, match=r"an x of shapes \[\(4,\)\]"):
        minimize(
            lambda x: x @ x,
            jnp.ones(3),
            constraints=NonlinearConstraint(lambda x: x[:2], ub=1.0),
            options={"warm_start": first},
        )
    with pytest.raises(ValueError, match=r"'lbfgs'.*multipliers v"):
        minimize(lambda x: x @ x, jnp.ones(4), method="cg", options={"warm_start": first})


# ---- checks


def test_check_derivatives_looks_at_constraints():
    x = jnp.array([1.0, 2.0])
    fun = lambda x: jnp.sum(x**2)
    fine = NonlinearConstraint(
        lambda x: {"a": jnp.sum(x**3), "b": x}, jac=lambda x: {"a": 3 * x**2, "b": jnp.eye(2)},
        hess=lambda x, v: jnp.diag(6 * x * v["a"]),
    )  # fmt: skip
    check = jaxmin.check_derivatives(fun, x, constraints=[fine, LinearConstraint(np.ones(2), ub=1.0)])
    assert check.ok, check
    assert list(check.errors) == [
        "fun",
        "constraints[0]",
        "constraints[0].jac",
        "constraints[0].hess",
        "constraints[1]",
    ]
    kinked = NonlinearConstraint(lambda x: jnp.sum(jnp.abs(x - 1)))
    check = jaxmin.check_derivatives(fun, x, constraints=kinked)
    assert not check.ok and "constraints[0] has a kink" in str(check)
    wrong = NonlinearConstraint(lambda x: x @ x, jac=lambda x: x)
    assert not jaxmin.check_derivatives(fun, x, constraints=wrong).ok
    with pytest.raises(TypeError, match=r"constraints\[0\]"):
        jaxmin.check_derivatives(fun, x, constraints=[3])
