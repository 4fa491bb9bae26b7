"""Least squares by products with the Jacobian: the same minima, bounds, losses, batches, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import mostly

import jaxmin
from jaxmin import Bounds, minimize

METHOD = "gauss_newton_krylov"
T = np.linspace(0, 10, 60)
RNG = np.random.default_rng(0)
Y = 2 * np.exp(-0.5 * T) + 0.05 * RNG.normal(size=60)
OUTLIERS = Y + np.where(np.arange(60) % 9 == 0, 3 * RNG.normal(size=60), 0)
START = {"a": 1.0, "k": 1.0, "c": 0.0}


def residuals(p, y=Y):
    return p["a"] * jnp.exp(-p["k"] * T) + p["c"] - y


def broyden(x):
    """Moré, Garbow and Hillstrom's problem 30, of any size."""
    p = jnp.pad(x, 1)
    return (3 - 2 * x) * x - p[:-2] - 2 * p[2:] + 1


def solve(fun=residuals, x0=START, method=METHOD, **more):
    return minimize(fun, x0, method=method, **more)


def close(x, other, rtol=1e-5):
    for one, two in zip(jax.tree.leaves(x), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(one, two, rtol=rtol)


def test_the_fit_is_that_of_levenberg_marquardt():
    res, other = solve(options={"gtol": 1e-9}), solve(method="lm")
    assert res.success
    close(res.x, other.x)
    assert float(res.fun) == pytest.approx(float(other.fun), rel=1e-10)
    np.testing.assert_allclose(jax.tree.leaves(res.jac), 0, atol=1e-9)


@pytest.mark.parametrize(
    "loss",
    [*mostly(("soft_l1", "huber", "cauchy", "arctan"), "soft_l1"), pytest.param(lambda z: jnp.log1p(z), id="own")],
)
def test_losses_are_those_of_levenberg_marquardt(loss):
    options = {"loss": loss, "f_scale": 0.1}
    res = solve(args=(OUTLIERS,), options=options | {"gtol": 1e-9})
    other = solve(args=(OUTLIERS,), method="lm", options=options)
    assert res.success and other.success
    close(res.x, other.x)


def test_the_product_is_that_of_gauss_and_newton():
    """For linear residuals J^T J is the Hessian: n products end a step, and the model is f itself."""
    rng = np.random.default_rng(1)
    A, b = rng.normal(size=(30, 6)), rng.normal(size=30)
    res = solve(lambda x: {"one": (A @ x - b)[:10], "two": (A @ x - b)[10:]}, jnp.zeros(6), options={"radius": 1e6})
    np.testing.assert_allclose(res.x, np.linalg.lstsq(A, b, rcond=None)[0], rtol=1e-6)
    assert int(res.nfev) == int(res.nit) + 1  # each trial is accepted
    assert int(res.nhev) <= 6 * int(res.nit)


def test_ten_thousand_variables_and_no_matrix():
    program = jax.jit(lambda x: solve(broyden, x)).lower(-jnp.ones(10_000)).compile()
    res = program(-jnp.ones(10_000))
    assert res.success and float(res.fun) < 1e-10
    assert int(res.nfev) < 30
    assert program.memory_analysis().temp_size_in_bytes < 100 * 10_000 * 8


def test_residuals_are_evaluated_at_trials_alone():
    seen = []

    def fun(p):
        jax.debug.callback(lambda: seen.append(1))
        return residuals(p)

    res = solve(fun)
    jax.effects_barrier()
    # A product evaluates the residuals too, since nothing of them is stored between two steps.
    assert len(seen) <= int(res.nfev) + 2 * int(res.nhev)


def test_bounds_hold_and_the_solution_is_that_of_levenberg_marquardt():
    bounds = Bounds({"a": 0.0, "k": 0.6, "c": -1.0}, {"a": 5.0, "k": 2.0, "c": 1.0})
    res, other = solve(bounds=bounds, options={"gtol": 1e-9}), solve(bounds=bounds, method="lm")
    assert res.success and float(res.x["k"]) == 0.6
    close(res.x, other.x)


def test_in_a_batch_and_with_derivatives():
    ys = np.stack([Y, 2 * Y, OUTLIERS])
    of = lambda y: solve(args=(y,), options={"gtol": 1e-10}).x["k"]
    each = np.array([of(y) for y in ys])
    np.testing.assert_allclose(jax.vmap(of)(ys), each, rtol=1e-7)
    forward, backward = jax.jvp(of, (Y,), (np.ones(60),))[1], jax.grad(of)(Y)
    h = 1e-5
    difference = (of(Y + h) - of(Y - h)) / (2 * h)
    np.testing.assert_allclose([forward, np.sum(backward)], [difference] * 2, rtol=1e-4, atol=1e-7)
    many = jaxmin.minimize_many(residuals, jax.tree.map(lambda u: np.full(3, u), START), args=(ys,), method=METHOD)
    np.testing.assert_allclose(many.x["k"], each, rtol=1e-4)


def test_complex_residuals_count_twice():
    z = lambda x: (x[0] + 1j * x[1] - (1 + 2j)) * jnp.array([1.0, 1j])
    res = solve(z, jnp.zeros(2))
    np.testing.assert_allclose(res.x, [1, 2], rtol=1e-5)


def test_what_it_does_not_do_is_said():
    with pytest.raises(ValueError, match=r"jac: this method forms no Jacobian.*levenberg_marquardt"):
        solve(jac=jax.jacobian(residuals))
    res = solve()
    with pytest.raises(ValueError, match=r"covariance: this method forms no Jacobian"):
        res.covariance()
    with pytest.raises(ValueError, match="f_scale"):
        solve(options={"f_scale": 0.0})
    with pytest.warns(RuntimeWarning, match="hessp"):
        solve(hessp=lambda x, p: p)
