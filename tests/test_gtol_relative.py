"""gtol_relative: a solve ends where the gradient is a fraction of what it was at x0, in any units of fun."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    UNCONSTRAINED,
    asks_for,
    assert_close,
    assert_refused,
    compilations,
    figures,
    identical,
    mostly,
    mostly_float64,
    unlike,
    valley,
)

import jaxmin
from jaxmin import Bounds, Status, minimize, minimize_many

START = np.array([-1.2, 1.0, 0.5])
UNITS = 2.0**-30, 1.0, 2.0**30  # about 1e-9 and 1e9; powers of 2 scale every number without rounding
METHODS = [name for name in UNCONSTRAINED if "grad" in asks_for(name)]


def _of(names):
    return mostly(names, "lbfgs", "newton_cg")


_KINDS = "lbfgs", "newton_cg", "adam"


def in_units(x, unit):
    return unit.astype(x.dtype) * valley(x)


def solved(unit, method="lbfgs", dtype="float64", relative=1e-6, **options):
    if method == "adam":
        options |= {"learning_rate": 0.1, "maxfun": 300}
    options["gtol_relative"] = relative
    return minimize(in_units, START.astype(dtype), (jnp.asarray(unit),), method, options=options)


# ---- the test


@pytest.mark.parametrize("method", _of(METHODS))
def test_it_ends_at_the_first_iterate_with_so_small_a_gradient(method):
    g0 = np.abs(jax.grad(valley)(START)).max()
    res = minimize(valley, START, method=method, options={"gtol_relative": 1e-3, "history": 1000})
    norms = np.asarray(res.history.gnorm)[np.asarray(res.history.nit) >= 0]
    assert res.status == Status.CONVERGED
    np.testing.assert_allclose(res.gnorm0, g0)
    assert norms[-1] <= 1e-3 * g0 < norms[:-1].min()


def test_the_larger_tolerance_holds_and_gtol_is_0_where_it_is_not_given():
    norm = lambda **options: float(np.abs(minimize(valley, START, options=options).jac).max())
    g0 = float(np.abs(jax.grad(valley)(START)).max())
    assert norm(gtol_relative=1e-12) <= 1e-12 * g0 < 1e-5
    assert norm(gtol_relative=1e-12, gtol=1e-2) == norm(gtol=1e-2) > 1e-5
    assert norm(gtol_relative=1e-2, gtol=1e-12) == norm(gtol_relative=1e-2) > 1e-2
    assert minimize(valley, START, tol=1e-2, options={"gtol_relative": 0.0}).status in (Status.CONVERGED, Status.FTOL)
    assert minimize(valley, START, options={"gtol_relative": 1.0}).nit == 0


@mostly_float64
@pytest.mark.parametrize("method", _of(("lbfgs", "cg", "newton_cg", "trust_ncg", "trust_exact")))
def test_units_of_fun_do_not_matter(method, dtype):
    for unit in UNITS:
        res = solved(unit, method, dtype, 1e-5 if dtype == "float32" else 1e-8)
        assert res.status == Status.CONVERGED
        np.testing.assert_allclose(res.x, 1, atol=5e-2 if dtype == "float32" else 1e-5)


@pytest.mark.parametrize("method", _of(name for name in METHODS if name != "trust_ncg"))
def test_the_same_iterates_in_large_units(method):
    """In small ones, where |g| < 1 at x0, a descent begins with a shorter step; trust_ncg solves for sqrt |g|."""
    one, large = (solved(unit, method) for unit in UNITS[1:])
    assert figures(one) == figures(large)
    np.testing.assert_array_equal(one.x, large.x)


def test_a_variance_of_a_portfolio():
    """w'Sw with S near 1e-4: by default x0 is small enough, and with gtol_relative the weights have four digits."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(12, 40))
    S = 1e-4 * (factors @ factors.T) / 40
    weights = lambda w: jnp.append(w, 1 - jnp.sum(w))
    fun = lambda w: weights(w) @ S @ weights(w)
    best = np.linalg.solve(S, np.ones(12))
    best /= best.sum()
    w0 = np.full(11, 1 / 12)
    assert np.abs(minimize(fun, w0).x - best[:-1]).max() > 5e-3
    res = minimize(fun, w0, options={"gtol_relative": 1e-6})
    assert res.status == Status.CONVERGED
    np.testing.assert_allclose(weights(res.x), best, atol=1e-6)


# ---- bounds


def test_with_bounds_both_norms_are_of_the_projected_gradient():
    """x[0] is held at x0, where f falls outwards with a slope of 1e6."""
    fun = lambda x: -1e6 * x[0] + jnp.sum((x[1:] - 0.3) ** 4)
    bounds = Bounds(np.zeros(3), np.array([1.0, 5.0, 5.0]))
    res = minimize(fun, np.array([1.0, 1.0, 2.0]), bounds=bounds, options={"gtol_relative": 1e-3})
    np.testing.assert_allclose(res.gnorm0, 4 * 1.7**3)
    assert res.status == Status.CONVERGED
    assert res.nit > 0
    assert res.gnorm <= 1e-3 * res.gnorm0


def test_x0_is_moved_inside_the_bounds_first():
    res = minimize(lambda x: jnp.sum(x**2), [9.0], bounds=[(None, 2)], options={"gtol_relative": 1e-3, "maxiter": 0})
    assert (res.gnorm0, res.x[0]) == (4, 2)


# ---- jit, vmap, many problems, step by step


@pytest.mark.parametrize("method", mostly(_KINDS, "lbfgs", "adam"))
def test_lanes_of_different_units_are_single_solves(method):
    lanes = jax.vmap(lambda unit: solved(unit, method))(jnp.asarray(UNITS))
    for i, unit in enumerate(UNITS):
        one = jax.jit(lambda unit: solved(unit, method))(unit)
        assert figures(one) == figures(jax.tree.map(lambda leaf, i=i: leaf[i], lanes))
        np.testing.assert_allclose(lanes.x[i], one.x, rtol=1e-6)
        np.testing.assert_allclose(lanes.gnorm0[i], one.gnorm0, rtol=1e-12)


def test_each_lane_may_have_its_own():
    relative = jnp.array([1e-1, 1e-4, 1e-8])
    lanes = jax.vmap(lambda r: solved(1.0, relative=r))(relative)
    assert np.all(np.abs(lanes.jac).max(1) <= relative * lanes.gnorm0)
    assert lanes.nit[0] < lanes.nit[1] < lanes.nit[2]


@pytest.mark.parametrize(
    "relative", (pytest.param(1e-6, marks=pytest.mark.slow), np.array([1e-2, 1e-4, 1e-6])), ids=["one", "each its own"]
)
def test_many_problems_are_those_of_vmap(relative):
    starts, units = np.stack([START, START + 0.5, START - 0.3]), np.array(UNITS)
    many = minimize_many(in_units, starts, (units,), options={"gtol_relative": relative}, lanes=2)
    one = lambda x0, unit, r: minimize(in_units, x0, (unit,), options={"gtol_relative": r})
    lanes = jax.vmap(one)(starts, units, np.broadcast_to(relative, 3))
    np.testing.assert_array_equal(many.status, Status.CONVERGED)
    np.testing.assert_allclose(many.gnorm0, lanes.gnorm0)
    assert np.all(np.abs(many.jac).max(1) <= relative * many.gnorm0)
    np.testing.assert_allclose(many.x, lanes.x, atol=1e-3)
    assert "gtol_relative" in many.message[0]
    best = minimize_many(
        in_units, starts, (jnp.ones(1),), options={"gtol_relative": 1e-6}, best_of=3, lanes=3, in_axes=(0, 0)
    )
    assert best.gnorm0.shape == (1,)


@pytest.mark.rounding
@pytest.mark.parametrize("method", _KINDS[:2])
def test_a_solver_is_minimize_bit_for_bit(method, tmp_path):
    options = {"gtol_relative": 1e-6}
    solver = jaxmin.Solver(valley, method, options=options)
    whole = minimize(valley, START, method=method, options=options)
    state = solver.run(solver.init(START), max_steps=5)
    assert not state.done
    solver.save(tmp_path / "state", state)
    for begun in (state, solver.load(tmp_path / "state", START)):
        assert identical(solver.result(solver.run(begun)), whole)
    for _ in range(200):
        state = state if state.done else solver.step(state)
    assert identical(solver.result(state), whole)
    with pytest.raises(ValueError, match="another solver"):
        jaxmin.Solver(valley, method).step(solver.init(START))


def test_before_the_first_step_the_norm_at_x0_is_unknown():
    solver = jaxmin.Solver(valley, options={"gtol_relative": 1e-6})
    assert np.isnan(solver.result(solver.init(START)).gnorm0)


# ---- compilations and derivatives


def test_another_value_compiles_nothing():
    scale = unlike()
    solve = lambda r: minimize(lambda x: scale * valley(x), START, options={"gtol_relative": r})
    solve(1e-3)
    with compilations() as programs:
        solve(1e-6), solve(np.float32(1e-4)), solve(0)
    assert not programs


def test_without_it_the_program_is_as_it_was():
    program = lambda **options: str(jax.make_jaxpr(lambda x: minimize(valley, x, options=options).x)(START))
    assert program() == program(gtol_relative=None) != program(gtol_relative=1e-5)
    assert minimize(valley, START).gnorm0 is None


@pytest.mark.parametrize("derivative", (jax.jacfwd, jax.jacrev))
def test_derivatives_of_the_solution(derivative):
    """The tolerance may depend on what they are taken with respect to; it has no influence."""
    fun = lambda x, a, unit: unit * (jnp.sum(jnp.cosh(x - a)) + 0.1 * jnp.sum(x) ** 2)
    solve = lambda a, unit: minimize(fun, START, (a, unit), options={"gtol_relative": 1e-9 * a}).x
    curvatures = np.cosh(np.asarray(solve(1.0, 1.0)) - 1)
    slopes = jax.jit(derivative(solve))
    for unit in UNITS:
        assert_close(slopes(1.0, unit), np.linalg.solve(np.diag(curvatures) + 0.2, curvatures), rtol=1e-5)


def test_it_ends_a_solve_whose_steps_are_unrolled():
    fun = lambda x, a: jnp.sum((x - a) ** 2)
    options = {"learning_rate": 0.25, "gtol_relative": 1e-3, "maxiter": 30, "diff": "unroll"}
    solve = lambda a: minimize(fun, jnp.zeros(2), (a,), "sgd", options=options)
    assert solve(1.0).nit == 10  # each step halves the gradient
    assert_close(jax.jacfwd(lambda a: solve(a).x)(1.0), np.full(2, 1 - 2.0**-10), rtol=1e-12)


# ---- words


def test_the_message_says_what_held():
    res = minimize(valley, START, options={"gtol_relative": 1e-3})
    gnorm = np.abs(res.jac).max()
    assert res.message == (
        f"Converged: the gradient norm {gnorm:.3g} is within gtol, or within gtol_relative times that at x0, "
        f"{res.gnorm0:.3g}."
    )
    assert "gtol_relative" not in minimize(valley, START).message


@pytest.mark.parametrize("unit", UNITS)
def test_a_start_at_the_minimum_is_a_success_in_any_units(unit):
    """There no step makes the gradient smaller by much; what counts is how small it is relative to |fun|."""
    t = np.linspace(0, 1, 50)
    y = 2 * np.exp(-1.3 * t) + 0.01 * np.sin(50 * t)
    fun = lambda p: unit * jnp.sum((p[0] * jnp.exp(-p[1] * t) - y) ** 2)
    x0 = minimize(fun, np.ones(2), options={"gtol_relative": 1e-15}).x
    res = minimize(fun, x0, options={"gtol_relative": 1e-6})
    assert res.status == Status.PRECISION_FLOOR
    assert np.abs(res.jac).max() <= 1e-6 * res.fun
    assert "is within gtol * max(1, |fun|) or gtol_relative * |fun|" in res.message
    res = minimize(fun, x0, options={"gtol_relative": 0})
    assert res.status == Status.PRECISION_LOSS
    assert "above what gtol and gtol_relative ask for" in res.message


@pytest.mark.parametrize("value", (-1e-3, np.nan, np.inf, -np.inf))
def test_values_out_of_range_are_refused(value):
    assert_refused(ValueError, ("options['gtol_relative']", ">= 0"), {"options": {"gtol_relative": value}})


@pytest.mark.parametrize("value", ("1e-3", [1e-3], np.ones(2), 1j))
def test_what_is_no_number_is_refused(value):
    assert_refused(TypeError, ("options['gtol_relative']",), {"options": {"gtol_relative": value}})


@pytest.mark.parametrize("method", ("nelder_mead", "powell"))
def test_a_method_without_a_gradient_refuses_it(method):
    words = "options['gtol_relative']", "no gradient"
    assert_refused(ValueError, words, {"method": method, "options": {"gtol_relative": 1e-3}})
