"""L-BFGS that changes to Newton's method: where it creeps or is stuck, and nowhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import figures, identical, valley
from jax.scipy.special import gammainc

import jaxmin
from jaxmin import Status
from jaxmin._cache.builder import is_constant
from jaxmin._driver.loop import phases_of

N = 200
# Units over six orders of magnitude.
UNITS = np.logspace(-3, 3, N)


def in_units(x):
    """A chain of quartics whose variables have units: L-BFGS creeps on it."""
    z = x * UNITS
    return jnp.sum((z[1:] - z[:-1] ** 2) ** 2) + jnp.sum((z - 1) ** 2)


def solve(fun=in_units, x0=None, method="auto", **options):
    return jaxmin.minimize(fun, np.zeros(N) if x0 is None else x0, method=method, options=options)


# ---- where it changes


def test_newton_goes_on_where_lbfgs_creeps():
    alone = solve(method="lbfgs", maxiter=2_000)
    assert alone.status == Status.MAXITER and alone.nhev is None
    res = solve(maxiter=2_000)
    assert res.success and res.nhev > 0 and res.nit < 1_000
    assert np.abs(jax.grad(in_units)(res.x)).max() <= 1e-5
    assert res.fun < alone.fun


def test_what_does_not_creep_is_lbfgs_alone():
    x0 = -np.ones(100)
    alone, res = (solve(valley, x0, method) for method in ("lbfgs", "auto"))
    assert res.nit > 300  # it was looked at
    assert figures(res) == figures(alone) and res.nhev == 0
    assert identical((res.x, res.jac, res.hess_inv), (alone.x, alone.jac, alone.hess_inv))


def test_under_jit_it_is_the_same_solve():
    for fun, x0, units in ((in_units, np.zeros(N), UNITS), (valley, -np.ones(100), 1)):
        inside, outside = jax.jit(lambda x0, fun=fun: solve(fun, x0))(x0), solve(fun, x0)
        assert inside.success and outside.success
        assert (inside.nhev > 0) == (outside.nhev > 0) == (fun is in_units)
        np.testing.assert_allclose(inside.x * units, outside.x * units, atol=1e-4)


def test_a_fall_of_f_or_of_the_gradient_is_progress():
    # Along a gutter f falls by more than nine tenths in every 20 iterations, though the gradient does not.
    fun = lambda x: jnp.exp(-x[0] / 4) * 1e8 + 1e-9 * jnp.sum(x**2)
    steps = {"method": "lbfgs_newton", "maxiter": 60, "patience": 20}
    assert solve(fun, [0.0, 1.0], **steps, max_step=1.0).nhev == 0
    with pytest.raises(ValueError, match="patience=0: give at least 1"):
        solve(patience=0)


def test_it_goes_on_where_a_search_fails():
    # A gradient that is wrong beyond 0.5: there no step of a search is acceptable.
    fun = lambda x: jnp.sum(x**2)
    wrong = lambda x: jnp.where(jnp.abs(x) > 0.5, -2 * x, 2 * x)
    res = jaxmin.minimize(fun, [2.0], jac=wrong, method="lbfgs_newton")
    assert not res.success and res.nhev > 0


# A series of even powers, as a chemist fits it: the condition number is 1e6, that of the Hessian its square.
T = np.linspace(0.2, 1.9, 40)
POWERS, SHAPE = np.vander(T, 8, increasing=True) ** 2, np.exp(-T) * np.cos(3 * T)


def series(c):
    return jnp.sum((jnp.asarray(POWERS, c.dtype) @ c - jnp.asarray(SHAPE, c.dtype)) ** 2)


@pytest.mark.parametrize("wrapped", [lambda call: call, jax.jit])
def test_it_goes_on_where_rounding_stops_lbfgs(wrapped):
    alone, res = (wrapped(lambda x0, m=m: solve(series, x0, m))(np.ones(8, "float32")) for m in ("lbfgs", "auto"))
    assert not alone.success and res.success and res.nhev > 0
    least = np.sum((POWERS @ np.linalg.lstsq(POWERS, SHAPE)[0] - SHAPE) ** 2)
    true = lambda c: series(jnp.asarray(c, "float64"))
    assert true(alone.x) > 2 * least
    assert true(res.x) <= (1 + 1e-5) * least


def test_from_python_what_has_converged_to_the_precision_of_f_does_not_go_on():
    """The second derivatives of the loop are then not compiled."""
    fun = lambda x: 1e4 + jnp.sum((x - 1) ** 4) + jnp.sum(x**2)
    alone, res = (solve(fun, np.full(8, 4, "float32"), method, gtol=0) for method in ("lbfgs", "auto"))
    assert alone.status == Status.PRECISION
    assert figures(res) == figures(alone) and res.nhev == 0


# ---- in batches, in the loop, and around it


def test_each_lane_changes_by_itself():
    def fun(x, unit):
        z = x * UNITS**unit
        return jnp.sum((z[1:] - z[:-1] ** 2) ** 2) + jnp.sum((z - 1) ** 2)

    one = lambda unit: jaxmin.minimize(fun, jnp.zeros(N), unit, method="auto")
    units = jnp.asarray([1.0, 0.0, 0.9])
    lanes = jax.jit(jax.vmap(one))(units)
    assert lanes.success.all()
    assert (lanes.nhev > 0).tolist() == [True, False, True]
    single = one(units[1])
    assert (int(lanes.nit[1]), int(lanes.nfev[1])) == (single.nit, single.nfev)
    many = jaxmin.minimize_many(fun, np.zeros((3, N)), (units,), in_axes=(0, (0,)), method="auto")
    assert many.success.all() and (many.nhev > 0).tolist() == [True, False, True]


def test_the_iterates_are_numbered_through():
    seen = []
    res = jaxmin.minimize(
        in_units, np.zeros(N), method="auto", options={"history": 2_000, "patience": 50},
        callback=lambda intermediate_result: seen.append(int(intermediate_result.nit)),
    )  # fmt: skip
    assert res.success and res.nhev > 0
    assert seen == list(range(1, int(res.nit) + 1))
    f = res.history.fun[: int(res.nit) + 1]
    np.testing.assert_array_equal(res.history.nit[: f.size], np.arange(f.size))
    assert np.all(np.diff(f) <= 1e-12 * np.abs(f[:-1])) and f[-1] == res.fun


def test_derivatives_and_bounds_go_through():
    fun = lambda x, a: in_units(x) + jnp.sum((x - a) ** 2)
    best = lambda a: jaxmin.minimize(fun, jnp.zeros(N), a, method="auto", options={"gtol": 1e-9, "patience": 50})
    slope = jax.grad(lambda a: best(a).fun)(0.3)
    np.testing.assert_allclose(slope, jnp.sum(2 * (0.3 - best(0.3).x)), rtol=1e-6)
    res = jaxmin.minimize(in_units, np.zeros(N), method="auto", bounds=jaxmin.Bounds(-1, 0.5), options={"patience": 50})
    assert res.success and res.nhev > 0 and res.x.max() <= 0.5


def test_it_is_built_once_and_has_two_phases():
    method = jaxmin.lbfgs_newton(memory=5)
    assert method is jaxmin.lbfgs_newton(memory=5)
    assert is_constant(method) and phases_of(method) == 2
    assert phases_of(jaxmin.slsqp()) == phases_of(jaxmin.lbfgs()) == 1


def test_a_solver_goes_on_too():
    solver = jaxmin.Solver(in_units, method=jaxmin.lbfgs_newton(patience=50))
    state = solver.init(np.zeros(N))
    while solver.result(state).status == Status.RUNNING:
        state = solver.run(state, max_steps=70)
    res = solver.result(state)
    assert res.success and res.nhev > 0


# ---- without second derivatives


def test_auto_is_lbfgs_where_there_are_first_derivatives_only():
    on_the_host = lambda shape, call, x: jax.pure_callback(
        call, jax.ShapeDtypeStruct(shape, x.dtype), x, vmap_method="sequential"
    )
    gradient = jax.jit(jax.grad(valley))
    res = jaxmin.minimize(
        lambda x: on_the_host((), lambda x: np.asarray(valley(x)), x), [-1.2, 1.0], method="auto",
        jac=lambda x: on_the_host(x.shape, lambda x: np.asarray(gradient(x)), x),
    )  # fmt: skip
    assert res.success and res.nhev is None
    # The options of the second part are of no use then, and no error.
    assert solve(first_derivatives, [0.1], patience=5, maxhev=5).nhev is None


def first_derivatives(x):
    """JAX has no second derivative of the incomplete gamma function with respect to its parameter."""
    return jnp.sum((gammainc(jnp.exp(x), 2.0) - 0.4) ** 2)


def test_a_primitive_without_second_derivatives_is_no_obstacle():
    alone = solve(first_derivatives, [0.1], "lbfgs")
    inside = jax.jit(lambda x0: solve(first_derivatives, x0))(jnp.array([0.1]))
    many = jaxmin.minimize_many(first_derivatives, np.full((3, 1), 0.1), method="auto")
    assert alone.success and inside.success and many.success.all()
    np.testing.assert_array_equal(inside.x, alone.x)


# ---- limits and ends in the step of the change


def test_limits_are_exact_under_jit_too():
    """One of the limits is met in the step in which L-BFGS creeps, at its 50th iterate."""
    call = lambda name, most: solve(in_units, np.zeros(N), patience=50, **{name: most})
    for name, count in (("maxfun", "nfev"), ("maxiter", "nit")):
        inside = jax.jit(lambda most, name=name: call(name, most))
        for most in range(48, 70 if name == "maxfun" else 54):
            for res in (inside(most), call(name, most)):
                assert (int(res[count]), res.status) == (most, Status[name.upper()])


def test_maxhev_ends_the_second_part():
    call = lambda x0: solve(in_units, x0, patience=50, maxhev=7)
    for res in (call(np.zeros(N)), jax.jit(call)(np.zeros(N))):
        assert res.status == Status.MAXHEV and res.nhev == 7
    assert solve(valley, -np.ones(5), maxhev=7).success


def test_lanes_that_are_not_begun_say_nothing():
    low = np.array([-1.0, 2.0, np.nan])[:, None] * np.ones((3, 2))
    res = jaxmin.minimize_many(
        lambda x: jnp.sum((x - 3) ** 2), np.zeros((3, 2)), method="auto", bounds=jaxmin.Bounds(low, np.ones((3, 2)))
    )
    assert res.status.tolist() == [Status.CONVERGED, Status.BOUNDS, Status.BOUNDS]
    assert res.nit.tolist()[1:] == [0, 0] and np.isnan(res.fun[1:]).all()


def test_who_watches_sees_one_solve():
    ended = []
    status = lambda intermediate_result: ended.append(int(intermediate_result.status))
    res = jaxmin.minimize(in_units, np.zeros(N), method="auto", options={"patience": 50}, callback=status)
    assert res.success and Status.SEARCH_FAILED not in ended
    stop = lambda x: jnp.abs(x * UNITS - 1).max() < 0.9
    stopped = jaxmin.minimize(
        in_units, np.zeros(N), method="auto", options={"patience": 50}, callback=jaxmin.traced(stop)
    )
    assert stopped.status == Status.CALLBACK and stopped.nhev > 0
