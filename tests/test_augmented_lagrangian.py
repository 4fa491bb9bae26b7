"""The augmented Lagrangian: answers and multipliers, endings, and what it never forms."""

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmin
from jaxmin import NonlinearConstraint, Status
from jaxmin.extend import Method, Rows
from jaxmin.methods.augmented_lagrangian import shifted

METHOD = "augmented_lagrangian"


def rosen(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def hs71(x):
    return x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2]


HS71 = [NonlinearConstraint(jnp.prod, 25.0), NonlinearConstraint(lambda x: x @ x, 40.0, 40.0)]
HS71_X = [1.0, 4.7429994, 3.8211503, 1.3794082]


def solve_hs71(x0, **more):
    return jaxmin.minimize(hs71, x0, method=METHOD, bounds=[(1.0, 5.0)] * 4, constraints=HS71, **more)


# ---- the function itself


@pytest.mark.parametrize("c", [-2.0, -0.1, 0.3, 1.4, 4.0])
@pytest.mark.parametrize("limits", [(0.0, 1.0), (-np.inf, 1.0), (0.0, np.inf), (0.3, 0.3), (-np.inf, np.inf)])
def test_the_shifted_rows_are_the_gradient_of_the_squared_distance(c, limits):
    v, rho = jnp.array([0.7]), 2.0
    rows = lambda c: Rows(c, *(jnp.array([limit]) for limit in limits))

    def penalty(c):
        z = c + v / rho
        return jnp.sum(rho / 2 * (z - jnp.clip(z, *limits)) ** 2 - v**2 / (2 * rho))

    seen = shifted(rows(jnp.array([c])), v, rho)
    np.testing.assert_allclose(seen.v, jax.grad(penalty)(jnp.array([c])), atol=1e-14)
    np.testing.assert_allclose(jnp.sum(seen.s * (seen.v + v)) / 2, penalty(jnp.array([c])), atol=1e-14)


def test_an_equation_that_holds_still_bends_the_function():
    at = lambda c: shifted(Rows(c, jnp.ones(1), jnp.ones(1)), jnp.zeros(1), 3.0).v
    assert jax.jvp(at, (jnp.ones(1),), (jnp.ones(1),))[1].tolist() == [3.0]


# ---- answers


def test_hs71_has_its_answer_and_its_multipliers():
    res = solve_hs71(jnp.array([1.0, 5.0, 5.0, 1.0]))
    assert res.success and res.status == Status.CONVERGED
    np.testing.assert_allclose(res.x, HS71_X, atol=1e-5)
    np.testing.assert_allclose([res.v[0], res.v[1]], [-0.5522937, 0.1614686], atol=1e-4)
    np.testing.assert_allclose(res.v[2], [-1.0878712, 0, 0, 0], atol=1e-4)
    assert res.active_mask.tolist() == [-1, 0, 0, 0]
    assert res.nfev < 60 and res.nhev < 200


@pytest.mark.parametrize(
    ("lower", "upper", "x", "v"),
    [(-np.inf, 1.0, 1.0, 2.0), (3.0, np.inf, 3.0, -2.0), (1.0, 1.0, 1.0, 2.0), (3.0, 5.0, 3.0, -2.0), (0, 5.0, 2.0, 0)],
)
def test_a_multiplier_is_positive_at_an_upper_limit(lower, upper, x, v):
    row = NonlinearConstraint(lambda x: x, lower, upper)
    res = jaxmin.minimize(lambda x: jnp.sum((x - 2) ** 2), jnp.zeros(1), method=METHOD, constraints=row)
    assert res.success
    np.testing.assert_allclose([res.x[0], res.v[0][0]], [x, v], atol=2e-6)


def test_another_method_may_be_inside():
    ring = NonlinearConstraint(lambda x: x @ x, 0.2, 0.5)
    options = {"inner": "L-BFGS-B", "initial_constr_penalty": 1.0}
    res = jaxmin.minimize(rosen, jnp.array([-1.2, 1.0]), method="ALGENCAN", constraints=ring, options=options)
    assert res.success and res.nhev is None
    np.testing.assert_allclose(res.x, [0.6054758, 0.3652284], atol=1e-5)
    for inner in ("newton_cg", "trust_krylov", jaxmin.trust_ncg(radius=0.5)):
        assert "lagrangian_product" in jaxmin.augmented_lagrangian(inner).wants


# (f, c, limits, x0, x); problems of Hock and Schittkowski
SMALL = {
    "HS7": (
        lambda x: jnp.log(1 + x[0] ** 2) - x[1], lambda x: (1 + x[0] ** 2) ** 2 + x[1] ** 2, (4, 4), [2.0, 2.0],
        [0.0, 3**0.5],
    ),
    "HS39": (
        lambda x: -x[0], lambda x: jnp.array([x[1] - x[0] ** 3 - x[2] ** 2, x[0] ** 2 - x[1] - x[3] ** 2]), (0, 0),
        [2.0] * 4, [1.0, 1.0, 0.0, 0.0],
    ),
    "HS43": (
        lambda x: x @ x + x[2] ** 2 - 5 * x[0] - 5 * x[1] - 21 * x[2] + 7 * x[3],
        lambda x: jnp.array([
            x @ x + x[0] - x[1] + x[2] - x[3],
            x @ x + x[1] ** 2 + x[3] ** 2 - x[0] - x[3],
            2 * x[0] ** 2 + x[1] ** 2 + x[2] ** 2 + 2 * x[0] - x[1] - x[3],
        ]),
        (-np.inf, np.array([8.0, 10.0, 5.0])), [0.0] * 4, [0.0, 1.0, 2.0, -1.0],
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "HS43" else pytest.mark.slow) for name in SMALL]
)
def test_small_problems(name):
    f, c, limits, x0, x = SMALL[name]
    res = jaxmin.minimize(f, jnp.array(x0), method=METHOD, constraints=NonlinearConstraint(c, *limits))
    assert res.status == Status.CONVERGED
    np.testing.assert_allclose(res.x, x, atol=1e-5)


def test_float32_meets_its_own_tolerances():
    res = solve_hs71(jnp.array([1.0, 5.0, 5.0, 1.0], jnp.float32))
    assert res.x.dtype == jnp.float32 and res.success
    np.testing.assert_allclose(res.fun, 17.0140173, rtol=1e-3)
    np.testing.assert_allclose(res.x, HS71_X, atol=3e-2)


@pytest.mark.parametrize("unit", [1e-6, 1e3])
def test_a_unit_of_all_rows_changes_no_claim(unit):
    f = lambda x: jnp.sum((x - 2) ** 2)
    row = NonlinearConstraint(jax.tree_util.Partial(lambda unit, x: unit * (x @ x), unit), ub=unit)
    res = jaxmin.minimize(f, jnp.array([1.1, 1.2]), method=METHOD, constraints=row)
    assert res.success
    np.testing.assert_allclose(res.x, [0.5**0.5] * 2, atol=1e-5)


def test_jacobians_by_hand_and_matrices_are_used():
    by_hand = NonlinearConstraint(lambda x: x @ x, ub=1.0, jac=lambda x: 2 * x)
    flat = jaxmin.LinearConstraint(jnp.array([[1.0, -1.0]]), 0.0, 0.0)
    f = lambda x: jnp.sum((x - jnp.array([2.0, 3.0])) ** 2)
    res = jaxmin.minimize(f, jnp.zeros(2), method=METHOD, constraints=[by_hand, flat])
    assert res.success
    np.testing.assert_allclose(res.x, [0.5**0.5] * 2, atol=1e-6)


def test_trees_and_aux():
    f = lambda x: ((x["a"] - 2) ** 2 + jnp.sum(x["b"] ** 2), x["a"])
    row = NonlinearConstraint(lambda x: {"sum": x["a"] + jnp.sum(x["b"])}, 1.0, 1.0)
    x0 = {"a": jnp.zeros(()), "b": jnp.zeros(3)}
    res = jaxmin.minimize(f, x0, method=METHOD, constraints=row, has_aux=True)
    assert res.success and res.aux == res.x["a"]
    np.testing.assert_allclose(res.x["a"], 1.75, atol=1e-6)
    np.testing.assert_allclose(res.v[0]["sum"], 0.5, atol=1e-5)


# ---- endings


def test_rows_that_contradict_each_other_are_infeasible():
    both = NonlinearConstraint(lambda x: jnp.stack([x[0] + x[1]] * 2), np.array([1.0, -np.inf]), np.array([np.inf, 0]))
    res = jaxmin.minimize(lambda x: x @ x, jnp.array([1.0, 2.0]), method=METHOD, constraints=both)
    assert res.status == Status.INFEASIBLE and not res.success
    np.testing.assert_allclose(res.constr_violation, 0.5, rtol=1e-3)


@pytest.mark.parametrize(("inner", "dtype"), [("trust_ncg", jnp.float64), ("lbfgs", jnp.float32)])
def test_a_row_that_nothing_meets_is_no_success(inner, dtype):
    row = NonlinearConstraint(lambda x: x @ x, ub=-1.0)
    x0, method = jnp.array([1.0, 2.0], dtype), jaxmin.augmented_lagrangian(inner)
    res = jaxmin.minimize(lambda x: jnp.sum((x - 1) ** 2), x0, method=method, constraints=row)
    assert not res.success and res.status in (Status.INFEASIBLE, Status.SEARCH_FAILED)


def test_nan_at_the_start_is_its_status():
    row = NonlinearConstraint(lambda x: jnp.log(x[0]), ub=0.0)
    res = jaxmin.minimize(lambda x: x @ x, jnp.array([-1.0, 2.0]), method=METHOD, constraints=row)
    assert res.status == Status.NAN


def test_it_ends_where_no_tolerance_can_be_met():
    row = NonlinearConstraint(lambda x: x[0] + x[1], 1.0, 1.0)
    res = jaxmin.minimize(lambda x: x @ x, jnp.zeros(2), method=METHOD, constraints=row, options={"gtol": -1.0})
    assert not res.success and res.nfev < 100


def test_the_arguments_are_checked():
    with pytest.raises(ValueError, match="rho=0"):
        jaxmin.augmented_lagrangian(rho=0)
    with pytest.raises(ValueError, match="it must want 'grad'"):
        jaxmin.augmented_lagrangian("interior_point")
    with pytest.raises(ValueError, match="unknown"):
        jaxmin.augmented_lagrangian("simplex")


def test_a_state_without_a_cotangent_is_refused():
    from jaxmin._core.protocol import check_state

    state = jaxmin.trust_ncg().init(jnp.zeros(2))
    with pytest.raises(TypeError, match="no 'cotangent'"):
        check_state(state, frozenset({"grad", "constraint_pull"}))


# ---- many variables


N = 3000


def chain(x):
    return jnp.concatenate([x[:1], x[1:] - x[:-1] / 2 - x[:-1] ** 2 / 10])


def sizes(jaxpr):
    """The sizes of all arrays that a computation makes."""
    for eqn in jaxpr.eqns:
        yield from (int(np.prod(v.aval.shape)) for v in eqn.outvars)
        for value in jax.tree.leaves(eqn.params, is_leaf=lambda p: isinstance(p, (jex.Jaxpr, jex.ClosedJaxpr))):
            if isinstance(value, (jex.Jaxpr, jex.ClosedJaxpr)):
                yield from sizes(getattr(value, "jaxpr", value))


def test_no_matrix_is_formed():
    target = jnp.sin(jnp.arange(N) / 100)
    f = lambda x: jnp.sum((x - target) ** 2)
    rows = NonlinearConstraint(chain, -0.2, np.repeat([0.2, -0.2], N // 2))
    solve = lambda x0: jaxmin.minimize(f, x0, method=METHOD, constraints=rows)
    assert max(sizes(jax.make_jaxpr(solve)(jnp.zeros(N)).jaxpr)) <= 4 * N
    res = solve(jnp.zeros(N))
    assert res.success and res.constr_violation <= 1e-6
    # The conditions of Karush, Kuhn and Tucker, computed here.
    c, pull = jax.vjp(chain, res.x)
    (Jv,) = pull(res.v[0])
    np.testing.assert_allclose(jax.grad(f)(res.x) + Jv, 0, atol=1e-5)
    assert bool(jnp.all((jnp.abs(res.v[0]) < 1e-6) | (jnp.abs(jnp.abs(c) - 0.2) < 1e-5)))


def test_the_constraints_are_evaluated_once_a_step():
    def counted(x):
        return jax.lax.scan(lambda y, a: (jnp.sin(y) + a, y), 0.0, x)[1]

    row = NonlinearConstraint(lambda x: counted(x)[-1], ub=0.1)
    method = jaxmin.augmented_lagrangian("lbfgs")
    text = str(
        jax.make_jaxpr(lambda x: jaxmin.minimize(lambda x: x @ x, x, method=method, constraints=row))(jnp.ones(5))
    )
    # One forward and one backward.
    assert text.count("= scan[") == 2


# ---- under transformations


def test_vmap_equals_single_solves():
    starts = jnp.array([[1.0, 5, 5, 1], [2.0, 3, 4, 2], [1.5, 1.5, 4.5, 3.0]])
    batch = jax.vmap(solve_hs71)(starts)
    for i, x0 in enumerate(starts):
        res = solve_hs71(x0)
        assert batch.status[i] == res.status and batch.nfev[i] == res.nfev
        np.testing.assert_allclose(batch.x[i], res.x, rtol=1e-9)
        np.testing.assert_allclose(batch.v[0][i], res.v[0], rtol=1e-6)


def test_jit_and_a_solver_give_the_same():
    x0 = jnp.array([1.0, 5.0, 5.0, 1.0])
    res = solve_hs71(x0)
    np.testing.assert_allclose(jax.jit(solve_hs71)(x0).x, res.x, rtol=1e-12)
    solver = jaxmin.Solver(hs71, method=METHOD, bounds=[(1.0, 5.0)] * 4, constraints=HS71)
    state = solver.run(solver.step(solver.init(x0)))
    np.testing.assert_allclose(solver.result(state).x, res.x, rtol=1e-12)


def test_rules_of_the_users_own_are_kept():
    @jax.custom_jvp
    def square(x):
        return x * x

    square.defjvp(lambda primals, tangents: (square(*primals), 2 * primals[0] * tangents[0]))
    row = NonlinearConstraint(lambda x: jnp.sum(square(x)), ub=1.0)
    res = jaxmin.minimize(lambda x: jnp.sum((x - 2) ** 2), jnp.array([0.1, 0.2]), method=METHOD, constraints=row)
    assert res.success
    np.testing.assert_allclose(res.x, [0.5**0.5] * 2, atol=1e-6)


def test_it_is_a_record_of_functions():
    method = jaxmin.augmented_lagrangian()
    assert isinstance(method, Method) and method is jaxmin.augmented_lagrangian("trust-ncg")
    assert "constraint_jacobian" not in method.wants
