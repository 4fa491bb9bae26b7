"""In trouble that depends on values the status is true, and the point returned is the best."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import each_dtype, figures, mostly_float64
from problems import ALL, like, recorded, rosenbrock

import jaxmin
from jaxmin import Status
from jaxmin._cache.registry import entries

# Those that search: what their searches meet is what this file is about. By default one with a scale of its own and one
# without; the others, which share their code, with `pytest -m slow`.
METHODS = [name for name, entry in entries("methods").items() if entry.takes_search]
_ALWAYS = ("lbfgs", "cg")
_marks = {name: () if name in _ALWAYS else pytest.mark.slow for name in METHODS}
each_method = pytest.mark.parametrize("method", [pytest.param(name, marks=_marks[name]) for name in METHODS])
each_solver = pytest.mark.parametrize(  # every method in float32, and the default one in float64
    ("method", "dtype"),
    [*(pytest.param(name, "float32", marks=_marks[name]) for name in METHODS), ("lbfgs", "float64")],
)


@jax.custom_jvp
def square_without_slope(x):
    """sum(x^2), whose gradient is NaN for x <= 1/2."""
    return jnp.sum(x**2)


@square_without_slope.defjvp
def _(primals, tangents):
    (x,), (v,) = primals, tangents
    return square_without_slope(x), jnp.sum(jnp.where(x > 0.5, 2 * x, jnp.nan) * v)


# ---- NaN and infinity

AT_THE_START = {
    "nan": (lambda x: jnp.sum(jnp.sqrt(x - 10)), [1.0, 20.0], Status.NAN),
    "inf": (lambda x: jnp.sum(1 / x), [0.0, 1.0], Status.NAN),
    "nan in x0": (lambda x: jnp.sum(x**2), [1.0, np.nan], Status.NAN),
    "inf in x0": (lambda x: jnp.sum(x**2), [1.0, np.inf], Status.NAN),
    "nan in the gradient only": (square_without_slope, [0.3, 2.0], Status.NAN),
    "inf in the gradient only": (lambda x: jnp.sum(jnp.sqrt(x)), [0.0, 1.0], Status.NAN),
    "-inf": (lambda x: jnp.sum(jnp.log(x)), [0.0, 1.0], Status.UNBOUNDED),
}


@each_dtype
@pytest.mark.parametrize("name", AT_THE_START)
def test_trouble_at_the_start_returns_the_start(name, dtype):
    fun, x0, status = AT_THE_START[name]
    x0 = jnp.asarray(x0, dtype)
    res = jaxmin.minimize(fun, x0)
    assert figures(res) == (status, 0, 1)
    assert not res.success
    np.testing.assert_array_equal(res.x, x0)
    np.testing.assert_array_equal(res.fun, fun(x0))


@pytest.mark.parametrize("method", ["lbfgs", "cg", "trust_ncg", "adam"])
@pytest.mark.parametrize("lanes", [None, 1000])
def test_one_gradient_of_nan_among_very_many_numbers_is_no_success(method, lanes):
    """XLA's maximum of very many numbers, on a CPU, may leave out NaN."""
    n = 30_000 if lanes is None else 10
    x0 = np.zeros(n) if lanes is None else np.zeros((lanes, n))
    x0[..., n // 2] = 0.3
    options = {"learning_rate": 0.1, "maxfun": 9} if method == "adam" else {}
    solve = lambda x0: jaxmin.minimize(square_without_slope_there, x0, method=method, options=options)
    res = solve(x0) if lanes is None else jax.vmap(solve)(x0)
    assert np.all(res.status == Status.NAN) and not np.any(res.success) and np.all(np.isfinite(res.fun))


def square_without_slope_there(x):
    """sum(x^2), of which the gradient is NaN where x is 0.3."""
    return square_without_slope(jnp.where(x == 0.3, x, 1)) + jnp.sum(jnp.where(x == 0.3, 0, x**2))


INSIDE = {  # the first trial of the first search is outside the domain
    "nan": (lambda x: 10 * jnp.sum(x - jnp.sqrt(x)), [0.5, 0.6], 0.25),
    "inf": (lambda x: jnp.sum(jnp.where(x < 0.1, jnp.inf, 4 * (x - 0.2) ** 2)), [0.3, 0.9], 0.2),
    "nan and inf": (lambda x: jnp.sum(10 * x - jnp.log(x)), [0.5, 0.6], 0.1),
    "nan in the gradient only": (lambda x: square_without_slope(x) - jnp.sum(1.2 * x), [0.8, 0.7], 0.6),
}


@each_solver
@pytest.mark.parametrize("name", INSIDE)
def test_a_search_that_meets_nan_or_inf_takes_a_shorter_step(name, method, dtype):
    fun, x0, best = INSIDE[name]
    res = jaxmin.minimize(fun, jnp.asarray(x0, dtype), method=method)
    assert res.success or (dtype == "float32" and res.status == Status.PRECISION_LOSS)
    np.testing.assert_allclose(res.x, best, rtol=1e-3)
    assert res.nfev < 200


@pytest.mark.parametrize("name", INSIDE)
def test_the_searches_above_do_meet_nan_or_inf(name):
    fun, x0, _ = INSIDE[name]
    wrapped, points = recorded(fun)
    jaxmin.minimize(wrapped, jnp.asarray(x0))
    jax.effects_barrier()
    everywhere = jax.jit(jax.vmap(lambda x: (fun(x), jax.grad(fun)(x))))
    assert not all(np.isfinite(part).all() for part in everywhere(jnp.asarray(points)))


@each_solver
def test_a_minimum_at_the_border_of_the_domain_is_no_success(method, dtype):
    """The gradient is NaN where f still falls: the last good point comes back."""
    res = jaxmin.minimize(square_without_slope, jnp.asarray([3.0, 2.0], dtype), method=method)
    assert not res.success
    assert res.status in (Status.PRECISION_LOSS, Status.SEARCH_FAILED)
    assert np.all(res.x > 0.5)
    assert res.fun < 3
    assert np.isfinite(res.jac).all()


# ---- wrong gradients

WRONG = {
    "sign": lambda x: -2 * x,
    "one of two signs": lambda x: like(x, [2, -4]) * x,
    "another function's": lambda x: jnp.stack([x[1], -x[0]]),
}


@each_solver
@pytest.mark.parametrize("name", WRONG)
@pytest.mark.rounding
def test_a_wrong_gradient_is_a_failed_search(name, method, dtype):
    x0 = jnp.asarray([1.0, 2.0], dtype)
    res = jaxmin.minimize(lambda x: jnp.sum(x**2), x0, method=method, jac=WRONG[name])
    assert res.status == Status.SEARCH_FAILED
    assert not res.success
    assert res.nfev <= 200
    assert "gradient right" in res.message


@each_dtype
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_gradient_leads_up_by_no_more_than_rounding_might(name, dtype):
    for maxfun in (10, 20, 50, 100, 400):
        res = jaxmin.minimize(
            lambda x: jnp.sum(x**2), jnp.asarray([1.0, 2.0], dtype), jac=WRONG[name], options={"maxfun": maxfun}
        )
        assert res.fun <= 5 * (1 + float(np.finfo(dtype).eps) ** 0.75)


@each_solver
def test_a_kink_is_a_failed_search_at_the_lowest_point(method, dtype):
    fun = lambda x: jnp.sum(jnp.abs(x - 1 / 3)) + 1
    res = jaxmin.minimize(fun, jnp.asarray([1.0, 2.0], dtype), method=method)
    assert not res.success
    assert res.status in (Status.SEARCH_FAILED, Status.PRECISION_LOSS)
    np.testing.assert_array_equal(res.fun, jax.jit(fun)(res.x))
    assert res.fun < 1.5


# ---- unbounded problems

FALLING = {
    "line": lambda x: -jnp.sum(x),
    "parabola": lambda x: -jnp.sum(x**2),
    "exponential": lambda x: -jnp.sum(jnp.exp(x)),
    "logarithm": lambda x: jnp.sum(jnp.log(x)),
    "cliff": lambda x: jnp.sum(jnp.where(x < 0, -jnp.inf, x)),
    "cubic": lambda x: -jnp.sum(x**3),
}


@mostly_float64
@each_method
@pytest.mark.parametrize("name", FALLING)
def test_an_unbounded_problem_is_no_success(name, method, dtype):
    fun = FALLING[name]
    x0 = jnp.asarray([0.6, 0.5], dtype)
    res = jaxmin.minimize(fun, x0, method=method)
    assert not res.success
    # Down a pole of the logarithm the square of the gradient overflows before f does.
    pole = (Status.PRECISION_LOSS,) if name == "logarithm" else ()
    assert res.status in (Status.UNBOUNDED, Status.MAXFUN, Status.SEARCH_FAILED, *pole)
    assert res.fun < fun(x0) - 10
    assert not np.isnan(res.x).any()
    if res.status == Status.UNBOUNDED:
        assert "unbounded" in res.message


@each_dtype
def test_minus_infinity_ends_the_solve_at_once(dtype):
    fun, points = recorded(FALLING["cliff"])
    res = jaxmin.minimize(fun, jnp.asarray([0.6, 0.5], dtype))
    jax.effects_barrier()
    assert res.status == Status.UNBOUNDED
    assert res.fun == -jnp.inf
    np.testing.assert_array_equal(res.x, points[-1])
    assert sum(np.isinf(FALLING["cliff"](jnp.asarray(x))) for x in points) == 1


# ---- nothing to do, and limits


@each_solver
@pytest.mark.parametrize("x0", ([], {"a": [], "b": [[], []]}), ids=("array", "tree"))
def test_no_variables_are_converged(x0, method, dtype):
    x0 = jax.tree.map(lambda u: jnp.asarray(u, dtype), x0, is_leaf=lambda u: isinstance(u, list))
    res = jaxmin.minimize(lambda x: sum(map(jnp.sum, jax.tree.leaves(x))) + 7.0, x0, method=method)
    assert figures(res) == (Status.CONVERGED, 0, 1)
    assert res.success
    assert res.fun == 7
    assert jax.tree.map(jnp.shape, res.x) == jax.tree.map(jnp.shape, x0)


@each_solver
def test_a_start_at_the_minimum_is_converged(method, dtype):
    res = jaxmin.minimize(rosenbrock, jnp.ones(2, dtype), method=method)
    assert figures(res) == (Status.CONVERGED, 0, 1)
    assert res.success


@each_solver
def test_maxiter_0_evaluates_the_start_only(method, dtype):
    x0 = jnp.asarray([-1.2, 1.0], dtype)
    res = jaxmin.minimize(rosenbrock, x0, method=method, options={"maxiter": 0})
    assert figures(res) == (Status.MAXITER, 0, 1)
    np.testing.assert_array_equal(res.x, x0)
    np.testing.assert_allclose(res.jac, [-215.6, -88.0], rtol=1e-5)


@each_solver
def test_tol_0_goes_on_until_nothing_is_left(method, dtype):
    fun = lambda x: jnp.sum(jnp.cosh(like(x, [1, 2]) * x - 0.1))
    res = jaxmin.minimize(fun, jnp.asarray([0.3, -0.4], dtype), method=method, tol=0)
    by_rounding = Status.PRECISION_LOSS if dtype == "float64" else Status.PRECISION
    assert res.status in (Status.CONVERGED, by_rounding, Status.FTOL)
    assert (res.status == by_rounding) == (np.abs(res.jac).max() > 0 and res.status != Status.FTOL)
    np.testing.assert_allclose(res.x, [0.1, 0.05], atol=4 * np.sqrt(np.finfo(dtype).eps))
    assert res.nfev < 300


@each_dtype
def test_gtol_0_goes_on_to_the_precision_of_the_gradient(dtype):
    logreg = ALL["logreg"]
    res = jaxmin.minimize(logreg.fun, jnp.asarray(logreg.x0, dtype), options={"gtol": 0})
    assert res.status in (Status.CONVERGED, Status.PRECISION_LOSS if dtype == "float64" else Status.PRECISION)
    assert (res.status == Status.CONVERGED) == (np.abs(res.jac).max() == 0)
    assert np.abs(res.jac).max() < 100 * np.finfo(dtype).eps


@each_dtype
@pytest.mark.parametrize(
    ("option", "status"),
    [({"ftol": 1e-3, "gtol": 0}, Status.FTOL), ({"xtol": 1e-3, "gtol": 0}, Status.XTOL)],
    ids=("ftol", "xtol"),
)
def test_ftol_and_xtol_compare_the_last_two_iterates(option, status, dtype):
    """The last two points that an exact count of the iterations gives are as near as the status says."""
    solve = lambda **more: jaxmin.minimize(rosenbrock, jnp.asarray([-1.2, 1.0], dtype), options=option | more)
    res = solve()
    assert (int(res.status), res.success) == (status, True)
    before, two_before = solve(maxiter=res.nit - 1), solve(maxiter=res.nit - 2)
    assert before.status == two_before.status == Status.MAXITER

    def near(old, new):
        if status == Status.FTOL:
            return old.fun - new.fun <= 1e-3 * max(1, abs(old.fun))
        return np.abs(new.x - old.x).max() <= 1e-3 * max(1, np.abs(new.x).max())

    assert near(before, res)
    assert not near(two_before, before)


# ---- the floor of precision


def steep_and_flat(x, offset):
    return offset + jnp.sum(like(x, [1, 10, 100]) * (x - 1) ** 2)


@each_method
@pytest.mark.parametrize("offset", (1e6, -1e6))
def test_a_large_offset_in_float32_ends_in_a_true_word(offset, method):
    res = jaxmin.minimize(steep_and_flat, jnp.zeros(3, jnp.float32), np.float32(offset), method=method)
    assert res.status in (Status.CONVERGED, Status.PRECISION_FLOOR)
    assert np.abs(res.jac).max() <= (1e-5 if res.status == Status.CONVERGED else 1e-5 * abs(res.fun))
    left = float(steep_and_flat(res.x.astype(jnp.float64), offset)) - offset
    assert left <= 8 * np.finfo(np.float32).eps * 1e6  # nothing that f shows
    assert res.nfev < 100


DATA = np.random.default_rng(3).normal(size=(2000, 4))


def noisy_sum(x):
    """A least-squares fit with a large residual: the sum of many squares, each rounded."""
    return jnp.sum((like(x, DATA) @ x - like(x, np.cos(np.arange(2000)))) ** 2)


@each_method
def test_the_noise_of_a_sum_ends_in_a_true_word(method):
    best = np.linalg.lstsq(DATA, np.cos(np.arange(2000)))[0]
    res = jaxmin.minimize(noisy_sum, jnp.ones(4, jnp.float32), method=method)
    exact = jnp.asarray(best)
    assert res.status in (Status.CONVERGED, Status.PRECISION_FLOOR, Status.PRECISION)
    assert res.status == Status.PRECISION or np.abs(res.jac).max() <= np.float32(1e-5) * max(1, res.fun)
    left = float(noisy_sum(res.x.astype(jnp.float64)) - noisy_sum(exact))
    assert left <= 8 * np.finfo(np.float32).eps * float(noisy_sum(exact))
    assert res.nfev < 100


@pytest.mark.rounding
@pytest.mark.parametrize("method", ("lbfgs", "bfgs"))
@pytest.mark.parametrize("search", sorted(entries("linesearches").keys() - {"fixed"}))
def test_noise_far_above_the_last_place_of_f_is_measured_and_lived_with(search, method):
    x0 = jnp.asarray([-1.2, 1.0], jnp.float32)
    noisy = lambda x: rosenbrock(x) + 1e-4 * jnp.sin(1e9 * jnp.sum(x))  # at the minimum f = 0, and the noise 1e-4
    res = jaxmin.minimize(noisy, x0, method=method, linesearch=search, jac=jax.grad(rosenbrock))
    assert res.success
    np.testing.assert_allclose(res.x, 1, atol=1e-4)


def test_the_floor_says_whether_gtol_times_f_was_reached():
    """The same solve under two tolerances: what it reached is enough for one of them, and the best for both."""
    fun = lambda x: noisy_sum(x) + 1e4
    loose, tight = (jaxmin.minimize(fun, jnp.ones(4, jnp.float32), options={"gtol": gtol}) for gtol in (1e-6, 1e-12))
    assert loose.status == Status.PRECISION_FLOOR
    assert tight.status == Status.PRECISION
    assert np.abs(tight.jac).max() <= 1e-6 * tight.fun


# ---- messages


def with_an_effect(x):
    """It is not evaluated once more, so that its Hessian stays unknown."""
    jax.debug.callback(lambda: None)
    return noisy_sum(jnp.tile(x, 2)) + 1e4


MESSAGES = {  # how to get it, and the figures that the message has to name
    Status.CONVERGED: (rosenbrock, {}, "gnorm"),
    Status.MAXITER: (rosenbrock, {"options": {"maxiter": 3}}, "gnorm"),
    Status.MAXFUN: (rosenbrock, {"options": {"maxfun": 3}}, "gnorm"),
    Status.PRECISION_LOSS: (with_an_effect, {"options": {"gtol": 1e-12}}, "gnorm fun"),
    Status.PRECISION: (lambda x: noisy_sum(jnp.tile(x, 2)) + 1e4, {"options": {"gtol": 1e-12}}, "gnorm fun"),
    Status.PRECISION_FLOOR: (
        lambda x: 1e6 + jnp.sum(like(x, [1, 100]) * x**2),
        {"method": "gradient_descent"},
        "gnorm fun",
    ),
}


@pytest.mark.parametrize("status", MESSAGES)
def test_a_message_names_the_figures(status):
    fun, how, named = MESSAGES[status]
    res = jaxmin.minimize(fun, jnp.asarray([-1.2, 1.0], jnp.float32), **how)
    assert res.status == status
    assert f"{np.abs(res.jac).max():.3g}" in res.message
    if "fun" in named:
        assert f"{float(res.fun):.8g}" in res.message
    assert not re.search(r"[{}]|nan", res.message)


def test_every_status_has_a_sentence_of_its_own():
    sentences = [status.sentence for status in Status]
    assert len(set(sentences)) == len(sentences)
    assert {status for status in Status if status.success} == {
        Status.CONVERGED, Status.FTOL, Status.XTOL, Status.PRECISION_FLOOR, Status.SPREAD, Status.PRECISION,
    }  # fmt: skip


@each_dtype
def test_each_lane_has_its_own_status_success_and_message(dtype):
    """One function, four endings; and what a lane meets is nobody else's."""

    def fun(x, kind):
        choices = (
            rosenbrock,
            lambda x: jnp.sum(jnp.sqrt(x - 10)),
            lambda x: jnp.sum(jnp.where(x < 0, -jnp.inf, x)),
            lambda x: jnp.sum(x**2),
        )
        return jax.lax.switch(kind, choices, x)

    x0 = jnp.asarray([[-1.2, 1.0], [1.0, 2.0], [0.6, 0.5], [0.0, 0.0]], dtype)
    lanes = jax.jit(jax.vmap(lambda x0, kind: jaxmin.minimize(fun, x0, kind)))(x0, jnp.arange(4))
    assert lanes.status.tolist() == [Status.CONVERGED, Status.NAN, Status.UNBOUNDED, Status.CONVERGED]
    assert lanes.success.tolist() == [True, False, False, True]
    starts = ("Converged", "Stopped: fun or its gradient", "Stopped: fun is unbounded", "Converged")
    assert [message.startswith(start) for message, start in zip(lanes.message, starts)] == [True] * 4
    assert f"{np.abs(lanes.jac[0]).max():.3g} is within" in lanes.message[0]
    for i in range(4):
        single, lane = jaxmin.minimize(fun, x0[i], i), jax.tree.map(lambda u, i=i: u[i], lanes)
        assert single.status == lane.status
        # In float32 a batch rounds otherwise than a single solve, which may cost an evaluation.
        assert abs(single.nfev - lane.nfev) <= (3 if dtype == "float32" else 0)
