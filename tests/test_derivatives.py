"""Derivatives of a solution agree with closed forms and finite differences, and are NaN where there are none."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import asks_for, assert_close, each_dtype, mostly
from problems import FEATURES, LABELS, rosenbrock

from jaxmin import Bounds, minimize
from jaxmin._cache.registry import entries
from jaxmin._core.box import Box, Unbounded
from jaxmin._core.protocol import RESIDUALS
from jaxmin._driver.compiled import Functions
from jaxmin._driver.implicit import implicit
from jaxmin._driver.loop import Limits
from jaxmin._driver.newton import DENSE_MAX
from jaxmin._driver.solution import Solution

TIGHT = {"gtol": 1e-10}


def squares(x, target):
    return jnp.sum((x - target) ** 2)


def both_modes(solution):
    """The Jacobians of a function in forward and in reverse mode, one program."""
    return jax.jit(lambda *args: (jax.jacfwd(solution)(*args), jax.jacrev(solution)(*args)))


def differences(fun, a, h=1e-4):
    """The Jacobian of fun at the vector a, by central differences."""
    rows = [(fun(a + h * e) - fun(a - h * e)) / (2 * h) for e in np.eye(a.size)]
    return np.stack(rows, axis=-1)


# ---- methods, dtypes, modes


@each_dtype
def test_the_point_nearest_to_a_target_moves_with_it(dtype):
    target = jnp.arange(3, dtype=dtype)
    for J in both_modes(lambda t: minimize(squares, np.zeros(3, dtype), args=(t,)).x)(target):
        assert J.dtype == dtype
        assert_close(J, np.eye(3), atol=1e-6)


METHODS = {
    **{name: name for name in entries("methods") if asks_for(name) & {"grad", "constraints", *RESIDUALS} == {"grad"}},
    "optax.adam": optax.adam(0.3),
}


@pytest.mark.parametrize("name", mostly(METHODS, "lbfgs", "cg", "trust_exact", "trust_ncg", "optax.adam"))
def test_every_method_has_the_same_derivatives(name):
    """min of exp(x) - t x is at log t."""
    fun = lambda x, t: jnp.sum(jnp.exp(x) - t * x)
    solve = lambda t: minimize(fun, np.zeros(2), args=(t,), method=METHODS[name], options={"gtol": 1e-7}).x
    t, t_dot = jnp.array([2.0, 0.5]), jnp.array([1.0, -3.0])
    x, x_dot = jax.jit(lambda: jax.jvp(solve, (t,), (t_dot,)))()
    assert_close(x, np.log(t), atol=1e-6)
    assert_close(x_dot, t_dot / t, rtol=1e-6)


# ---- problems with an answer of their own

_rng = np.random.default_rng(5)
DATA = {"X": FEATURES[:40, :3], "y": FEATURES[:40, 3] + 0.3 * LABELS[:40], "lam": 0.7}


def ridge(w, data, power=2):
    return jnp.sum((data["X"] @ w - data["y"]) ** power) + data["lam"] * w @ w


def ridge_solution(data):
    X = data["X"]
    return jnp.linalg.solve(X.T @ X + data["lam"] * jnp.eye(3), X.T @ data["y"])


def test_ridge_regression_with_a_tree_of_arguments():
    solution = lambda data: minimize(ridge, np.zeros(3), args=(data,), options=TIGHT).x
    expected = jax.jacfwd(ridge_solution)(DATA)
    for J in both_modes(solution)(DATA):
        assert J.keys() == DATA.keys()
        assert_close(J, expected, atol=1e-8)


def test_integers_have_no_derivative():
    """They may steer the objective all the same."""
    fun = lambda w, data, n: ridge(w, data) + n * w @ w
    x, pull = jax.vjp(lambda data, n: minimize(fun, np.zeros(3), args=(data, n), options=TIGHT).x, DATA, jnp.int32(2))
    by_data, by_n = pull(jnp.ones(3))
    assert by_n.dtype == jax.dtypes.float0
    heavier = lambda data: ridge_solution(data | {"lam": data["lam"] + 2})
    assert_close(x, heavier(DATA), atol=1e-8)
    assert_close(by_data, jax.vjp(heavier, DATA)[1](jnp.ones(3))[0], atol=1e-8)


def test_arrays_that_fun_closes_over():
    def solution(data):
        return minimize(lambda w: ridge(w, data), np.zeros(3), options=TIGHT).x

    gradient = jax.jit(jax.grad(lambda data: jnp.sum(solution(data) ** 3)))(DATA)
    assert_close(gradient, jax.grad(lambda data: jnp.sum(ridge_solution(data) ** 3))(DATA), atol=1e-8)


def test_batches_of_derivatives():
    weights = jnp.array([0.1, 1.0, 10.0])
    solution = lambda lam: minimize(ridge, np.zeros(3), args=(DATA | {"lam": lam},), options=TIGHT).x
    lanes = jax.jit(jax.vmap(jax.jacrev(solution)))(weights)
    assert_close(lanes, jax.vmap(jax.jacfwd(lambda lam: ridge_solution(DATA | {"lam": lam})))(weights), atol=1e-8)


def test_logistic_regression_with_a_weight_on_the_2_norm():
    def loss(w, log_weight):
        return jnp.mean(jax.nn.softplus(-LABELS * (FEATURES @ w))) + jnp.sum(jnp.exp(log_weight) * w**2)

    solution = jax.jit(lambda p: minimize(loss, np.zeros(5), args=(p[0],), options=TIGHT).x)
    at = np.array([-3.0])
    assert_close(jax.jacrev(solution)(at), differences(solution, at), rtol=1e-6, atol=1e-9)


def test_length_scale_of_a_gaussian_process():
    """With respect to the data: how the fitted scales answer to each observation."""
    t = np.sort(_rng.uniform(0, 10, 15))
    y = np.sin(t) + 0.1 * _rng.normal(size=15)

    def negative_log_likelihood(p, y):
        length, noise = jnp.exp(p)
        K = jnp.exp(-(((t[:, None] - t[None, :]) / length) ** 2) / 2) + noise * jnp.eye(15)
        L = jnp.linalg.cholesky(K)
        z = jax.scipy.linalg.solve_triangular(L, y, lower=True)
        return z @ z / 2 + jnp.sum(jnp.log(jnp.diag(L)))

    res = jax.jit(lambda y: minimize(negative_log_likelihood, np.log([1.0, 0.1]), args=(y,), options={"gtol": 1e-9}))
    solution = lambda y: res(y).x
    assert res(y).success
    assert_close(jax.jacrev(solution)(y), differences(solution, y), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n", [DENSE_MAX, DENSE_MAX + 1])
def test_few_variables_and_many(n):
    """A factorisation up to the limit, conjugate gradients beyond."""
    curvature = jnp.linspace(1, 3, n)
    fun = lambda x, t: jnp.sum(curvature * (x - t) ** 2) / 2 + jnp.sum(x) ** 2 / (2 * n)
    H = jnp.diag(curvature) + jnp.ones((n, n)) / n
    solution = lambda t: minimize(fun, np.zeros(n), args=(t,), options=TIGHT).x
    v = _rng.normal(size=n)
    push, pull = jax.jit(
        lambda t: (jax.jvp(solution, (t,), (v,))[1], jax.vjp(solution, t)[1](v)[0])
    )(jnp.ones(n))  # fmt: skip
    assert_close(push, jnp.linalg.solve(H, curvature * v), atol=1e-9)
    assert_close(pull, curvature * jnp.linalg.solve(H, v), atol=1e-9)


# ---- second derivatives, the value, the aux


def test_value_and_aux_and_second_derivatives():
    """min of exp(x) - t x: x = log t; f = t - t log t, of which the derivative is that at fixed x, -log t."""

    def solve(t):
        res = minimize(
            lambda x, t: (jnp.exp(x) - t * x, {"product": x * t}), 0.5, args=(t,), has_aux=True, options=TIGHT
        )
        return res.x, res.fun, res.aux["product"]

    first, second = jax.jit(lambda t: (jax.jacrev(solve)(t), jax.hessian(solve)(t)))(2.0)
    assert_close(first, (1 / 2, -np.log(2), np.log(2) + 1), atol=1e-8)
    assert_close(second, (-1 / 4, -1 / 2, 1 / 2), atol=1e-7)


@pytest.mark.parametrize("method", ["lbfgs", "nelder_mead"])
def test_second_derivatives_of_the_value_by_a_bound(method):
    """min of (x - t)^2 / 2 + x^4 / 4 up to u < t: the value at x = u."""

    def value(u, t):
        fun = lambda x, t: (x - t) ** 2 / 2 + x**4 / 4
        return minimize(fun, 0.0, args=(t,), bounds=Bounds(-9.0, u), method=method).fun

    u, t = 0.5, 2.0
    first, second = jax.jit(lambda u, t: (jax.grad(value, (0, 1))(u, t), jax.hessian(value, (0, 1))(u, t)))(u, t)
    assert_close(first, (u - t + u**3, t - u))
    assert_close(second, ((1 + 3 * u**2, -1.0), (-1.0, 1.0)))


@pytest.mark.parametrize("bounds", [None, Bounds(-9.0, 9.0)], ids=["free", "bounded"])
def test_value_has_a_derivative_where_the_solution_has_none(bounds):
    """A valley without a slope: its floor has a height, but no one lowest point."""
    fun = lambda x, t: (x[0] - t) ** 2 + t**2 + 0 * x[1]
    slope = jax.grad(lambda t: minimize(fun, [0.0, 0.0], args=(t,), bounds=bounds).fun)(1.5)
    assert_close(slope, 3.0, atol=1e-6)


# ---- leaves of every kind


def test_complex_variables():
    """The least squares solution of z t = c."""

    def fun(z, t):
        e = z * t - jnp.array([1 + 2j, 3 - 1j])
        return jnp.sum(e.real**2 + e.imag**2)

    J = jax.jacfwd(lambda t: minimize(fun, np.zeros(2, complex), args=(t,), options=TIGHT).x)(2.0)
    assert_close(J, -np.array([1 + 2j, 3 - 1j]) / 4, atol=1e-8)


def test_modules_with_leaves_that_do_not_vary():
    model = eqx.nn.Linear(2, 1, key=jax.random.key(0), dtype="float64")
    X, y = FEATURES[:30, :2], FEATURES[:30, 2]

    def loss(tree, weight):
        model, offset, label = tree
        assert label == "label"
        e = jax.vmap(model)(X)[:, 0] + offset["b"] - y
        return e @ e + weight * (jnp.sum(model.weight**2) + jnp.sum(model.bias**2) + jnp.sum(offset["b"] ** 2))

    def solution(weight):
        (fitted, offset, _) = minimize(loss, (model, {"b": 0.0}, "label"), args=(weight,), options=TIGHT).x
        return jnp.concatenate([fitted.weight[0], fitted.bias, offset["b"][None]])

    A = np.concatenate([X, np.ones((30, 2))], axis=1)
    expected = jax.jacfwd(lambda weight: jnp.linalg.solve(A.T @ A + weight * jnp.eye(4), A.T @ y))(0.5)
    assert_close(jax.jit(jax.jacrev(solution))(0.5), expected, atol=1e-8)


def test_the_start_has_no_influence():
    J = jax.jit(jax.jacrev(lambda x0: minimize(squares, x0, args=(3.0,)).x))(jnp.ones(2))
    assert_close(J, np.zeros((2, 2)))


# ---- bounds


def test_bounded_quadratic():
    """What is held at a bound goes with the bound, the others with what is left."""
    Q = _rng.normal(size=(5, 5))
    H = Q @ Q.T + np.eye(5)
    held = np.array([1, 0, -1, 0, 0])
    lower, upper = np.array([-9.0, -9, -0.3, -9, -9]), np.array([0.4, 9, 9, 9, 9])
    inner = np.where(held > 0, upper, np.where(held < 0, lower, _rng.normal(size=5)))
    c = H @ inner + 3 * held

    def solve(c, lower, upper):
        fun = lambda x: x @ H @ x / 2 - c @ x
        res = minimize(fun, np.zeros(5), bounds=Bounds(lower, upper), options=TIGHT)
        return res.x, res.fun, res.active_mask

    def expected(c, lower, upper):
        at = jnp.where(held > 0, upper, jnp.where(held < 0, lower, 0))
        free = np.diag(held == 0).astype(float)
        x = at + jnp.linalg.solve(free @ H @ free + np.diag(held != 0), free @ (c - H @ at))
        return x, x @ H @ x / 2 - c @ x

    at = c, lower, upper
    assert_close(solve(*at), (*expected(*at), held), atol=1e-8)
    two = lambda *args: solve(*args)[:2]
    wanted = jax.jacfwd(expected, (0, 1, 2))(*at)
    assert_close(wanted[0][2][0], np.eye(5)[0])  # the row of a variable at its upper bound
    assert_close(jax.jit(jax.jacrev(two, (0, 1, 2)))(*at), wanted, atol=1e-7)
    at_dot = tuple(_rng.normal(size=(3, 5)))
    wanted = jax.jvp(expected, at, at_dot)[1]
    assert_close(jax.jit(lambda *at: jax.jvp(two, at, at_dot)[1])(*at), wanted, atol=1e-7)


def test_float32_follows_a_bound_in_float64():
    """Also where the bound was rounded inwards: 0.1 and 0.3 are between two numbers in float32."""
    solution = lambda upper: minimize(squares, np.zeros(2, np.float32), args=(2,), bounds=Bounds(-1.0, upper)).x
    for J in both_modes(solution)(jnp.array([0.1, 0.3])):
        assert_close(J, np.eye(2), rtol=1e-6)


def test_a_variable_fixed_by_equal_bounds():
    fun = lambda x: jnp.sum((x - 2) ** 2) + x[0] * x[1]
    J = jax.jacrev(lambda t: minimize(fun, [0.0, 0.0], bounds=Bounds(jnp.stack([t, -9.0]), jnp.stack([t, 9.0]))).x)
    assert_close(J(0.7), np.array([1, -1 / 2]), atol=1e-6)


def test_next_to_a_bound_is_at_the_bound():
    """The solve ends where f can fall no further than gtol; a minimum is the bound, and does not move."""
    solution = lambda t: minimize(squares, np.full(2, 1e-6), args=(t,), bounds=Bounds(0.0, 9.0)).x
    assert_close(jax.jacrev(solution)(-3.0), np.zeros(2), atol=1e-6)


@each_dtype
def test_far_from_the_bounds_a_box_changes_no_derivative(dtype):
    """However large the gradient is at which ftol, or rounding, ends the solve."""
    at = jnp.linspace(0, 1, 20, dtype=dtype)
    data = (0.6 * np.exp(-0.7 * np.asarray(at)) + 1e-3 * _rng.normal(size=20)).astype(dtype)

    def solve(data, bounds):
        misfit = lambda p: jnp.sum(((p[0] * jnp.exp(-p[1] * at) - data) / 1e-4) ** 2)
        res = minimize(misfit, jnp.array([0.5, 0.5], dtype), bounds=bounds, tol=1e-6 if dtype == "float64" else None)
        return res.x, (res.status, res.jac)

    for bounds in (Bounds(0.0, 1.0), Bounds(-1.0, 0.8)):
        J, (status, g) = jax.jacrev(lambda data, bounds=bounds: solve(data, bounds), has_aux=True)(data)
        assert status in (2, 4, 7, 11) and np.abs(g).max() > 1e-3
        assert_close(J, jax.jacrev(lambda data: solve(data, None)[0])(data), rtol=1e-2 if dtype == "float32" else 1e-5)


# ---- where there is no derivative


def _hill(x, t, sign):
    del sign
    return jnp.sum(jnp.exp(t * x) + jnp.exp(-x))


@jax.jit
def _stopped(t, x0, sign, maxiter, maxfun):
    def solve(t):
        options = {"maxiter": maxiter, "maxfun": maxfun}
        res = minimize(_hill, x0, args=(t, sign), jac=lambda *a: a[-1] * jax.grad(_hill)(*a), options=options)
        return res.x, res.fun, res.status

    return jax.jvp(solve, (t,), (jnp.ones_like(t),))


STOPPED = {  # x0, sign of the gradient, maxiter, maxfun
    "at a minimum": (0, (1.0, -1.0), 1, 100, 100),
    "at the start": (1, (1.0, -1.0), 1, 0, 100),
    "after an iteration": (1, (1.0, -1.0), 1, 1, 100),
    "by maxfun": (6, (1.0, -1.0), 1, 100, 2),
    "by NaN": (3, (1.0, np.nan), 1, 100, 100),
    "by a wrong gradient": (8, (1.0, -1.0), -1, 100, 100),
}


@pytest.mark.parametrize("name", STOPPED)
def test_a_solve_that_failed_has_no_derivative(name):
    status, x0, *rest = STOPPED[name]
    (_, _, ended), (x_dot, _, _) = _stopped(2.0, np.array(x0), *map(float, rest))
    assert ended == status
    assert np.isfinite(x_dot).all() if status == 0 else np.isnan(x_dot).all()


class Given(NamedTuple):
    """The inputs of a solve, as far as its derivatives go by them."""

    t: Any
    box: Any
    rows: Any = None


@pytest.mark.parametrize(
    ("n", "bounded"),
    [(3, False), (150, True), *(pytest.param(*given, marks=pytest.mark.slow) for given in ((3, True), (150, False)))],
)
def test_what_rounding_stopped_has_a_derivative_near_a_minimum_and_none_far_away(n, bounded):
    """The solve is made up: none is known that rounding stops so far away."""
    f = lambda x, t: 1 + jnp.sum(jnp.log(jnp.cosh(x - t)))
    evaluate = lambda x, inputs: (*jax.value_and_grad(f)(x, inputs.t), ())
    box = Box(jnp.full(n, -9.0), jnp.full(n, 9.0)) if bounded else Unbounded()

    @functools.partial(jax.jit, static_argnums=0)
    def slope(derivative, status, distance):
        def solve(x0, inputs, limits):
            x = x0 + inputs.t + distance
            f, g, _ = evaluate(x, inputs)
            return Solution(x, f, g, (), status, None)

        limits = Limits(1e-5, -1.0, -1.0, 100, 100)
        return derivative(lambda t: implicit(solve, Functions(evaluate, None))(jnp.zeros(n), Given(t, box), limits).x)(
            0.7
        )

    for derivative in (jax.jacfwd, jax.jacrev):
        assert_close(slope(derivative, 2, 1e-3), np.ones(n), rtol=1e-5)
        assert np.isnan(slope(derivative, 2, 0.3)).all()
        assert_close(slope(derivative, 0, 0.3), np.ones(n), rtol=1e-5)  # by a gtol that was met


def test_a_value_on_the_way_has_no_derivative():
    """It depends on where x stopped, and that nobody has followed."""
    for name in ("after an iteration", "by maxfun"):
        _, x0, *rest = STOPPED[name]
        assert np.isnan(_stopped(2.0, np.array(x0), *map(float, rest))[1][1])


@pytest.mark.parametrize("maxiter", [1, 15_000])
def test_a_solve_that_failed_has_none_by_what_its_gradient_does_not_see(maxiter):
    """At the kink x = t a gradient on either side knows nothing of t."""
    solution = lambda t: minimize(lambda x, t: jnp.abs(x - t) + x / 2, 0.3, args=(t,), options={"maxiter": maxiter}).x
    for derivative in both_modes(solution)(2.0):
        assert np.isnan(derivative)


@jax.jit
@jax.jacrev
def _along_a_valley(t, scale):
    return minimize(lambda x: scale * (x[0] + x[1] - t) ** 2, [0.0, 0.0]).x


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0, 3.0])
def test_a_singular_hessian_gives_nan(scale):
    """Whatever rounding makes of its second pivot."""
    assert np.isnan(_along_a_valley(1.5, scale)).all()


@pytest.mark.parametrize("n", [DENSE_MAX, DENSE_MAX + 1])
def test_a_singular_hessian_gives_nan_also_where_the_derivative_lies_outside_its_null_space(n):
    solution = lambda t: minimize(lambda x, t: (jnp.sum(x) - t) ** 2, np.zeros(n), args=(t,)).x
    for J in both_modes(solution)(2.0):
        assert np.isnan(J).all()


@each_dtype
def test_many_variables_of_an_ill_conditioned_hessian(dtype):
    """Conjugate gradients are as good as factors, or give NaN."""
    n = DENSE_MAX + 50
    Q = jnp.asarray(np.linalg.qr(_rng.normal(size=(n, n)))[0], dtype)
    v = jnp.asarray(_rng.normal(size=n), dtype)

    @jax.jit
    def x_dot(condition):
        scales = condition ** jnp.linspace(0, 1, n, dtype=dtype)
        fun = lambda x, t: jnp.sum(scales * (Q @ (x - t)) ** 2) / 2
        solution = lambda t: minimize(fun, jnp.ones(n, dtype), args=(t,)).x
        return jax.jvp(solution, (jnp.ones(n, dtype),), (v,))[1]

    eps = jnp.finfo(dtype).eps
    for condition in (1e2, 1e4, 1e6, 1e8, 1e14):
        error = np.abs(x_dot(condition) - v).max()
        assert error < 10 * condition * eps or np.isnan(error)
        assert np.isnan(error) == (condition * n * eps > 1)


@pytest.mark.parametrize("n", [2, DENSE_MAX + 1])
def test_a_saddle_point_gives_nan(n):
    """The solve begins there, and finds no slope."""
    fun = lambda x, t: jnp.sum((x[1:] - t) ** 2) - (x[0] - t) ** 2
    solution = lambda t: minimize(fun, np.ones(n), args=(t,)).x
    x, x_dot = jax.jit(lambda: jax.jvp(solution, (1.0,), (1.0,)))()
    np.testing.assert_array_equal(x, np.ones(n))
    assert np.isnan(x_dot).all() and np.isnan(jax.jacrev(solution)(1.0)).all()


# ---- the user's own rules


def test_rules_of_the_objective_are_respected():
    """softplus and logaddexp overflow where their derivatives are taken as they are written."""

    def fun(x, t):
        steep = jax.nn.softplus(900 + x) + jnp.logaddexp(0, -900 - x) + jnp.logaddexp(900 + x, 900.0)
        return jnp.sum(steep) + jnp.sum((x - t) ** 2) / 2

    x, x_dot = jax.jit(
        lambda t: jax.jvp(lambda t: minimize(fun, [3.0, 30.0], args=(t,), options=TIGHT).x, (t,), (1.0,))
    )(40.0)
    assert_close(x, np.full(2, 38.0), atol=1e-6)
    assert_close(x_dot, np.ones(2), atol=1e-6)


def test_a_gradient_of_the_users_own():
    flat = lambda x, t: jax.lax.stop_gradient(squares(x, t))
    J = jax.jacrev(lambda t: minimize(flat, [0.0, 0.0], args=(t,), jac=lambda x, t: 2 * (x - t)).x)(2.0)
    assert_close(J, np.ones(2), atol=1e-6)


# ---- options


def test_derivatives_may_be_switched_off():
    solve = lambda t: minimize(squares, [0.0, 0.0], args=(t,), options={"diff": "none"}).fun
    assert solve(2.0) < 1e-9
    for derivative in (jax.grad(solve), jax.jacfwd(solve), jax.jit(jax.grad(solve))):
        with pytest.raises(NotImplementedError, match=r"'diff'.*'none'"):
            derivative(2.0)


@pytest.mark.parametrize("diff", ["implicitly", None, 1, ["none"]])
def test_unknown_diff_lists_the_choices(diff):
    with pytest.raises((TypeError, ValueError), match=r"diff.*'implicit'.*'none'"):
        minimize(squares, [0.0, 0.0], args=(1.0,), options={"diff": diff})


# ---- through the trips themselves

A = jnp.array([[3.0, 1.0], [1.0, 2.0]])


def five_steps(x0, t, rate):
    options = {"learning_rate": rate, "maxiter": 5, "gtol": 0, "diff": "unroll"}
    return minimize(lambda x, t: x @ A @ x / 2 - t @ x, x0, args=(t,), method="sgd", options=options)


@pytest.mark.parametrize("jac", (jax.jacfwd, jax.jacrev))
def test_unrolled_derivatives_are_those_of_the_steps_made(jac):
    x0, t, rate = jnp.array([1.0, -1.0]), jnp.array([0.5, 2.0]), 0.1
    M = np.eye(2) - rate * np.asarray(A)  # x <- M x + rate t
    powers = [np.linalg.matrix_power(M, k) for k in range(6)]
    np.testing.assert_allclose(jac(lambda x0: five_steps(x0, t, rate).x)(x0), powers[5], rtol=1e-12)
    np.testing.assert_allclose(jac(lambda t: five_steps(x0, t, rate).x)(t), rate * sum(powers[:5]), rtol=1e-12)


def test_an_unrolled_solve_has_a_derivative_by_the_learning_rate_that_matches_differences():
    x0, t = jnp.array([1.0, -1.0]), jnp.array([0.5, 2.0])
    f = lambda rate: five_steps(x0, t, rate).fun
    difference = (f(0.1 + 1e-5) - f(0.1 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.jit(jax.grad(f))(0.1), difference, rtol=1e-7)


@jax.custom_jvp
def half_square(x):
    return 0.5 * x**2


half_square.defjvp(lambda primals, tangents: (half_square(*primals), 2 * primals[0] * tangents[0]))  # twice its slope


def test_an_unrolled_solve_by_the_learning_rate_goes_by_the_rules_of_fun():
    def after_two_steps(rate):  # x <- (1 - 2 rate) x, by the rule
        options = {"learning_rate": rate, "diff": "unroll", "maxfun": 3, "gtol": -1}
        return minimize(lambda x: half_square(x), 1.0, method="sgd", options=options).x

    assert float(after_two_steps(0.1)) == pytest.approx(0.64)
    for transform in (lambda f: f, jax.jit):
        assert float(transform(jax.grad(after_two_steps))(0.1)) == pytest.approx(-4 * 0.8)


@pytest.mark.parametrize("diff", ("implicit", "none"))
def test_the_learning_rate_has_no_influence_on_where_a_minimum_is(diff):
    def solution(rate):
        return minimize(lambda x: (x - 1) ** 2, 0.0, method="sgd", options={"learning_rate": rate, "diff": diff}).x

    if diff == "implicit":
        assert jax.grad(solution)(0.1) == jax.jacfwd(solution)(0.1) == 0
    else:
        with pytest.raises(NotImplementedError, match="'none'"):
            jax.grad(solution)(0.1)


def test_an_unrolled_solve_ends_where_the_same_solve_ends():
    run = lambda diff: minimize(
        rosenbrock,
        jnp.zeros(2),
        method="adam",
        options={"learning_rate": 0.1, "maxfun": 800, "gtol": 1e-3, "diff": diff},
    )
    unrolled, implicit = run("unroll"), run("implicit")
    assert unrolled.success
    assert unrolled.nit == implicit.nit < 800
    np.testing.assert_allclose(unrolled.x, implicit.x, rtol=1e-6)


def test_unrolling_is_refused_where_it_means_nothing():
    with pytest.raises(ValueError, match=r"'unroll'.*search"):
        options = {"learning_rate": 0.1, "maxiter": 2, "diff": "unroll"}
        minimize(rosenbrock, jnp.zeros(2), method="sgd", linesearch="backtracking", options=options)
    with pytest.raises(ValueError, match=r"options\['diff'\]='unroll'.*'implicit'"):
        minimize(rosenbrock, jnp.zeros(2), options={"diff": "unroll"})
    solve = lambda n: minimize(
        rosenbrock, jnp.zeros(2), method="sgd", options={"learning_rate": 1e-3, "maxiter": n, "diff": "unroll"}
    )
    with pytest.raises(TypeError, match=r"'maxiter'.*known while compiling"):
        jax.jit(solve)(3)
