"""Constraints: every form of the call, right answers with multipliers, honest endings, inside jit, vmap and float32."""

import jax
import jax.experimental.sparse
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import each_dtype
from hock_schittkowski import PROBLEMS

import jaxmin
from jaxmin import LinearConstraint, NonlinearConstraint, Status, minimize
from jaxmin._core.box import Box, Unbounded
from jaxmin._core.kkt import Kkt, Rows
from jaxmin._core.kkt import residuals as strict_residuals
from jaxmin._core.promotion import standard
from jaxmin._problem.constraints import checked

INF = np.inf
residuals = standard(strict_residuals)
BOTH = ("interior_point", "slsqp")
_SLOW = pytest.mark.slow
each_method = pytest.mark.parametrize("method", ["interior_point", pytest.param("slsqp", marks=_SLOW)])
# Both methods compile for seconds a problem: by default these, the others with `pytest -m slow`.
_ALWAYS = {("interior_point", "HS14"), ("interior_point", "HS71"), ("slsqp", "HS39")}


def solve(name, method="interior_point", dtype="float64", **options):
    fun, c, upper, x0, _, bounds = PROBLEMS[name]
    rows = NonlinearConstraint(c, np.zeros(len(upper), dtype), np.asarray(upper, dtype))
    return minimize(fun, jnp.asarray(x0, dtype), method=method, bounds=bounds, constraints=rows, **options)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        pytest.param(method, name, marks=() if (method, name) in _ALWAYS else _SLOW)
        for method in BOTH
        for name in PROBLEMS
    ],
)
def test_hock_schittkowski(method, name):
    res = solve(name, method)
    assert res.status == Status.CONVERGED
    assert res.constr_violation <= 1e-5
    assert abs(res.fun - PROBLEMS[name].f) <= 1e-6 * max(1, abs(PROBLEMS[name].f))
    assert res.optimality <= 1e-6 * max(1, np.max(np.abs(res.jac)))


@each_method
def test_limits_are_respected_and_the_best_so_far_comes_back(method):
    for maxfun in (1, 2, 4):
        res = solve("HS71", method, options={"maxfun": maxfun})
        assert (res.status, res.nfev, res.success) == (Status.MAXFUN, maxfun, False)
        assert "maxfun evaluations were made" in res.message and "violation" in res.message
    for maxiter in (0, 2):
        res = solve("HS71", method, options={"maxiter": maxiter})
        assert (res.status, res.nit) == (Status.MAXITER, maxiter)


# ---- the call


def disk(x):
    return x @ x


def test_every_form_gives_the_same_rows():
    jac = lambda x: 2 * x
    scipys = (
        scipy.optimize.NonlinearConstraint(disk, -INF, 1.0),
        scipy.optimize.LinearConstraint([[1.0, 2.0]], 0.5, 0.5),
    )
    ours = NonlinearConstraint(disk, ub=1.0), LinearConstraint([1.0, 2.0], 0.5, 0.5)
    of_scipy, of_ours = checked(scipys), checked(list(ours))
    assert of_scipy.limits == of_ours.limits == ((-INF, 1.0), (0.5, 0.5))
    assert [part.fun for part in of_scipy.parts] == [part.fun for part in of_ours.parts] == [disk, None]
    assert of_scipy.parts[0].jac is of_scipy.parts[0].hess is None  # SciPy's defaults are differences
    np.testing.assert_array_equal(of_scipy.parts[1].A, of_ours.parts[1].A)
    one = checked({"type": "ineq", "fun": disk, "jac": jac, "args": 3})
    assert one.limits == ((0.0, INF),) and one.parts[0].args == (3,) and one.parts[0].jac is jac
    assert checked([{"type": "eq", "fun": disk}]).limits == ((0.0, 0.0),)


def test_a_list_of_different_forms_is_solved_as_scipy_does():
    fun = lambda x: (x[0] - 2) ** 2 + (x[1] - 1) ** 2 + x[2] ** 2
    forms = [
        {"type": "ineq", "fun": lambda x, r: r - x @ x, "args": (1.0,)},
        LinearConstraint([[1.0, -2.0, 1.0]], -1, -1),
    ]
    res = minimize(fun, [1.0, 1.0, 1.0], constraints=forms)
    to_numpy = [forms[0], scipy.optimize.LinearConstraint([[1.0, -2.0, 1.0]], -1, -1)]
    theirs = scipy.optimize.minimize(
        fun, [1.0, 1.0, 1.0], constraints=to_numpy, method="SLSQP", options={"ftol": 1e-12}
    )
    assert res.success
    np.testing.assert_allclose(res.x, theirs.x, atol=1e-6)


BAD = [
    ({"type": "le", "fun": disk}, "constraints.0.: its 'type' is 'le'; give 'eq' for fun = 0, or 'ineq'"),
    ({"type": "eq"}, "its 'fun' is None; give a callable"),
    ({"type": "eq", "fun": disk, "hess": 1}, "unknown 'hess'"),
    (NonlinearConstraint(disk, 0, 1, jac="2-point"), "its jac is '2-point'; give a callable, or omit it"),
    (NonlinearConstraint(disk, 0, 1, keep_feasible=True), "keep_feasible=True is not offered"),
    (NonlinearConstraint(disk, 2, 1), "a lower limit is above its upper limit"),
    (NonlinearConstraint(disk, np.zeros(3), 1), r"lb has the shape \(3,\), and fun returns \(\)"),
    (NonlinearConstraint(disk, "a", 1), "lb holds 'a'; give real numbers"),
    (LinearConstraint(np.zeros((1, 2, 2))), r"A has the shape \(1, 2, 2\)"),
    (disk, "give NonlinearConstraint"),
    ([3], r"constraints\[0\]=3: give NonlinearConstraint"),
]


@pytest.mark.parametrize(("wrong", "says"), BAD)
def test_a_wrong_constraint_is_named(wrong, says):
    with pytest.raises((TypeError, ValueError, NotImplementedError), match=says):
        minimize(disk, [1.0, 1.0], constraints=wrong)


def test_a_sparse_matrix_is_refused_with_the_way_out():
    S = scipy.sparse.eye(2)
    with pytest.raises(TypeError, match=r"A is sparse; give A\.toarray.*BCOO\.from_scipy_sparse"):
        minimize(disk, [1.0, 1.0], constraints=LinearConstraint(S, 0, 1))
    way_out = jax.experimental.sparse.BCOO.from_scipy_sparse(S)
    res = minimize(disk, jnp.ones(2), constraints=NonlinearConstraint(lambda x: way_out @ x, 0.5, 1))
    np.testing.assert_allclose(res.x, 0.5, atol=1e-6)


def test_an_error_in_a_constraint_names_it():
    rows = [{"type": "ineq", "fun": disk}, {"type": "ineq", "fun": lambda x: np.exp(x)}]
    with pytest.raises(TypeError, match=r"constraints\[1\]: fun: it passes a traced array to NumPy"):
        minimize(disk, [1.0, 1.0], constraints=rows)
    rows[1]["fun"] = lambda x: x["a"]
    with pytest.raises(Exception) as error:
        minimize(disk, [1.0, 1.0], constraints=rows)
    assert "The error is that of constraints[1]." in error.value.__notes__
    with pytest.raises(TypeError, match="a constraint returns a number, and not whether it holds"):
        minimize(disk, [1.0, 1.0], constraints={"type": "ineq", "fun": lambda x: x[0] < 1})


def test_other_methods_refuse_by_name():
    with pytest.raises(
        ValueError, match=r"constraints: this method takes none; use one of .*'interior_point'.*'slsqp'"
    ):
        minimize(disk, [1.0, 1.0], method="bfgs", constraints={"type": "eq", "fun": disk})
    for name in ("COBYLA", "COBYQA"):
        with pytest.raises(NotImplementedError, match=f"method='{name}'"):
            minimize(disk, [1.0, 1.0], method=name, constraints={"type": "eq", "fun": disk})


# ---- multipliers


def test_multipliers_are_prices_with_the_signs_of_trust_constr():
    """min (x - 2)^2: 2 at an upper limit, -2 for the same limit written as a lower one, 2 for the equality."""

    def one(sign, lower, upper):
        rows = NonlinearConstraint(lambda x: sign * x, lower, upper)
        return minimize(lambda x: (x - 2) ** 2, 0.0, constraints=rows)

    cases = np.array([[1, -INF, 1], [-1, -1, INF], [1, 1, 1], [1, -3, 1], [1, -INF, 3]])
    res = jax.vmap(one)(*cases.T)
    assert res.success.all()
    np.testing.assert_allclose(res.v[0], [2, -2, 2, 2, 0], atol=1e-6)
    np.testing.assert_allclose(res.x, [1, 1, 1, 1, 2], atol=1e-6)


def test_multipliers_of_hs71_agree_with_ipopts_and_the_bounds_come_last():
    res = solve("HS71")
    v, w = res.v
    np.testing.assert_allclose(v, [0.16146857, -0.55229366], atol=1e-6)
    np.testing.assert_allclose(w, [-1.0878712, 0, 0, 0], atol=1e-6)
    assert res.active_mask.tolist() == [-1, 0, 0, 0]
    np.testing.assert_allclose(res.constr[0], [0, 0], atol=1e-6)
    assert "constr_violation" in res and "the violation of the constraints" in res.message


def test_x_and_constraints_may_be_pytrees():
    rows = NonlinearConstraint(
        lambda x: {"sum": x["a"].sum() + x["b"], "each": x["a"]}, {"sum": 1.0, "each": -INF}, {"sum": 1.0, "each": 0.2}
    )
    res = minimize(lambda x: jnp.sum((x["a"] - 1) ** 2) + x["b"] ** 2, {"a": jnp.zeros(2), "b": 0.5}, constraints=rows)
    assert res.success
    np.testing.assert_allclose(res.x["a"], [0.2, 0.2], atol=1e-6)
    assert res.v[0]["each"].shape == (2,) and res.v[0]["sum"].shape == () and res.v[1]["b"].shape == ()
    np.testing.assert_allclose(res.v[0]["sum"], -2 * 0.6, atol=1e-5)


# ---- endings


def stuck(fun, c, lower, upper, x0, method, bounds=None):
    return minimize(fun, x0, method=method, bounds=bounds, constraints=NonlinearConstraint(c, lower, upper))


@each_method
def test_rows_that_repeat_each_other(method):
    fun, c, _, x0, f, bounds = PROBLEMS["HS71"]
    res = stuck(fun, lambda x: jnp.tile(c(x), 3), np.zeros(6), np.tile([0, INF], 3), x0, method, bounds)
    assert res.status == Status.CONVERGED and abs(res.fun - f) < 1e-5
    res = stuck(
        disk, lambda x: jnp.stack([x[0] - 1, x[1] - 2, x[0] + x[1] - 3]), np.zeros(3), np.zeros(3), [0.0, 0.0], method
    )
    assert res.status == Status.CONVERGED
    np.testing.assert_allclose(res.x, [1, 2], atol=1e-6)


POSITIVE = [(0, None)] * 2
INFEASIBLE = {
    "opposite": (disk, lambda x: jnp.stack([x[0] - 1, -x[0]]), [INF, INF], [0.3, 0.7], None),
    "no common point": (disk, lambda x: jnp.stack([x[0] + x[1] - 1, x[0] - 2]), [0, INF], [1.0, 2.0], POSITIVE),
    "Waechter and Biegler": (
        lambda x: x[0],
        lambda x: jnp.stack([x[0] ** 2 - x[1] - 1, x[0] - x[2] - 0.5]),
        [0, 0],
        [-2.0, 3.0, 1.0],
        [(None, None), *POSITIVE],
    ),
}


@pytest.mark.parametrize(
    ("method", "name"),
    [
        pytest.param(method, name, marks=() if (method == BOTH[0]) == (i != 0) else _SLOW)
        for method in BOTH
        for i, name in enumerate(INFEASIBLE)
    ],
)
def test_an_infeasible_problem_is_called_locally_infeasible(method, name):
    fun, c, upper, x0, bounds = INFEASIBLE[name]
    res = stuck(fun, c, [0, 0], upper, x0, method, bounds)
    assert res.status == Status.INFEASIBLE and not res.success
    assert res.constr_violation > 0.1 and "Locally infeasible: the violation" in res.message


@each_method
def test_rows_in_other_units(method):
    c = lambda x: jnp.stack([1e6 * (x[0] - 2 * x[1] + 1), 1e-6 * (1 - x[0] ** 2 / 4 - x[1] ** 2)])
    res = stuck(PROBLEMS["HS14"].fun, c, [0, 0], [0, INF], [2.0, 2.0], method)
    assert res.status == Status.CONVERGED
    assert abs(res.fun - PROBLEMS["HS14"].f) < 1e-5


@each_method
def test_nan_outside_a_domain_is_stepped_back_from(method):
    c = lambda x: jnp.stack([x[0] + x[1] - 1, jnp.log(x[0]) + jnp.log(x[1]) + 3])
    res = stuck(lambda x: x[0] - 2 * x[1], c, [0, 0], [0, INF], [0.5, 0.5], method)
    assert res.status == Status.CONVERGED
    np.testing.assert_allclose(res.fun, -1.84235, atol=1e-4)


def test_nan_at_x0_is_said():
    res = stuck(disk, lambda x: jnp.log(x), 0, 0, [-1.0, 1.0], "interior_point")
    assert res.status == Status.NAN


@each_method
def test_a_fixed_variable_and_a_start_at_a_bound(method):
    fun, c, upper, x0, *_ = PROBLEMS["HS71"]
    res = stuck(fun, c, np.zeros(2), upper, x0, method, [(1, 5), (4, 4), (1, 5), (1, 5)])
    assert res.status == Status.CONVERGED and res.x[1] == 4
    np.testing.assert_allclose(res.fun, 17.64382, atol=1e-4)


@each_method
def test_nothing_is_evaluated_outside_the_bounds(method):
    fun, c, upper, x0, _, bounds = PROBLEMS["HS65"]
    seen = []

    def watched(x):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), x)
        return fun(x)

    rows = NonlinearConstraint(c, np.zeros(1), np.asarray(upper, float))
    res = minimize(watched, x0, method=method, bounds=bounds, constraints=rows)
    jax.effects_barrier()
    low, high = np.transpose(bounds)
    points = np.array(seen)
    assert res.success and len(points) >= res.nfev > 3
    assert (points >= low).all() and (points <= high).all()


# ---- the tests of a solution, each alone

AT = Kkt(
    Rows(jnp.array([1.0, 2.0]), jnp.array([1.0, -INF]), jnp.array([1.0, 3.0])), v=jnp.array([2.0, 0.0]),
    w=jnp.zeros(2), slope=jnp.zeros(2), unit=jnp.array([1.0, 10.0]),
)  # fmt: skip


def test_residuals_measure_each_condition_in_its_own_units():
    zero = residuals(AT, jnp.zeros(2), Unbounded())
    assert max(zero) == 0
    assert residuals(AT._replace(slope=jnp.array([0.0, -3.0])), jnp.zeros(2), Unbounded()).optimality == 3
    far = residuals(AT._replace(rows=AT.rows._replace(c=jnp.array([1.0, 5.0]))), jnp.zeros(2), Unbounded())
    assert far.violation == 2 and far.distance == 0.2
    assert residuals(AT._replace(v=jnp.array([2.0, 0.5])), jnp.zeros(2), Unbounded()).complementarity == 0.5
    # A multiplier of a limit that is not there is no solution, however small.
    assert residuals(AT._replace(v=jnp.array([2.0, -1e-9])), jnp.zeros(2), Unbounded()).complementarity == INF
    box = Box(jnp.array([-1.0, -INF]), jnp.array([1.0, 4.0]))
    at_bound = AT._replace(w=jnp.array([0.0, 0.25]), slope=jnp.array([0.0, -0.25]))
    assert residuals(at_bound, jnp.array([0.0, 2.0]), box)[::3] == (0, 0.5)


# ---- a citizen of JAX


def test_a_batch_equals_its_lanes_and_an_infeasible_lane_is_its_own():
    def one(radius, lower):
        rows = NonlinearConstraint(
            lambda x: jnp.stack([x @ x, x[0]]), jnp.array([-INF, 1.0]) * lower, jnp.array([1.0, INF]) * radius
        )
        return minimize(lambda x: jnp.sum((x - 2) ** 2), jnp.zeros(2), constraints=rows)

    radius, lower = jnp.array([1.0, 4.0, 1.0]), jnp.array([0.5, 1.0, 3.0])
    batch = jax.jit(jax.vmap(one))(radius, lower)
    assert batch.status.tolist() == [0, 0, 12]
    single = jax.jit(one)
    for lane in range(3):
        alone = single(radius[lane], lower[lane])
        np.testing.assert_allclose(batch.x[lane], alone.x, atol=1e-6)
        assert alone.status == batch.status[lane] and alone.nfev == batch.nfev[lane]


def test_many_starts_and_steps_by_hand():
    fun, c, upper, x0, f, bounds = PROBLEMS["HS71"]
    rows = NonlinearConstraint(c, np.zeros(2), np.asarray(upper, float))
    starts = np.random.default_rng(0).uniform(1, 5, (40, 4))
    many = jaxmin.minimize_many(fun, starts, bounds=bounds, constraints=rows, lanes=8)
    assert many.success.all() and many.v[0].shape == (40, 2) and np.isclose(many.fun.min(), f, atol=1e-5)
    solver = jaxmin.Solver(fun, bounds=bounds, constraints=rows)
    state = solver.init(jnp.asarray(x0, float))
    while not state.done:
        state = solver.step(state)
    np.testing.assert_array_equal(solver.result(state).x, solve("HS71").x)


@each_dtype
def test_float32_has_tolerances_to_match(dtype):
    res = solve("HS71", dtype=dtype)
    assert res.success and res.x.dtype == dtype and res.v[0].dtype == dtype
    assert abs(float(res.fun) - 17.0140173) < (1e-2 if dtype == "float32" else 1e-6)


# ---- derivatives by hand, and learnt ones


@jax.custom_vjp
def opaque(x):
    return jnp.sum((x - 2) ** 2)


opaque.defvjp(lambda x: (opaque(x), x), lambda x, ct: (2 * ct * (x - 2),))


@each_method
def test_second_derivatives_may_be_learnt(method):
    res = solve("HS71", method, hess="bfgs")
    assert res.status == Status.CONVERGED and res.nhev is None and abs(res.fun - 17.0140173) < 1e-5


def test_a_function_without_second_derivatives_is_told_the_way():
    rows = NonlinearConstraint(disk, ub=1.0)
    with pytest.raises(TypeError, match="Give hess='bfgs'"):
        minimize(opaque, [0.1, 0.2], constraints=rows)
    res = minimize(opaque, [0.1, 0.2], constraints=rows, hess="bfgs")
    np.testing.assert_allclose(res.x, np.sqrt([0.5, 0.5]), atol=1e-5)


def test_derivatives_by_hand_are_used():
    used = set()

    def note(name, value):
        used.add(name)
        return value

    rows = NonlinearConstraint(
        disk, ub=1.0, jac=lambda x: note("jac", 2 * x), hess=lambda x, v: note("hess", 2 * v * jnp.eye(2))
    )
    hess = lambda x: note("of fun", 2 * jnp.eye(2))
    res = minimize(lambda x: jnp.sum((x - 2) ** 2), [0.1, 0.2], hess=hess, constraints=rows)
    assert res.success and used == {"jac", "hess", "of fun"}
    np.testing.assert_allclose(res.x, np.sqrt([0.5, 0.5]), atol=1e-6)


def test_without_constraints_the_methods_minimise():
    for method in BOTH:
        res = minimize(lambda x: jnp.sum((x - 1) ** 4 + x**2), jnp.zeros(2), method=method, bounds=[(None, 0.2)] * 2)
        assert res.success and res.constr == [] and res.active_mask.tolist() == [1, 1]


def test_tolerances_of_constraints_are_refused_elsewhere():
    for name in ("ctol", "barrier_tol"):
        with pytest.raises(ValueError, match=f"options.'{name}'.: it is for methods with constraints"):
            minimize(disk, [1.0, 1.0], options={name: 1e-3})
