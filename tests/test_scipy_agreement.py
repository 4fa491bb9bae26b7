"""Iterates are SciPy's where the same steps are taken, and minima are those of SciPy and jaxopt."""

import functools

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import pytest
import scipy.optimize
from helpers import mostly
from problems import (
    beale,
    broyden_tridiagonal,
    helical,
    like,
    logistic_regression,
    recorded,
    rosenbrock,
    variably_dimensioned,
    wood,
)

import jaxmin

TIGHT = 1e-9


def scipy_minimize(fun, x0, method, **options):
    """SciPy's result and its iterates, x0 included."""
    value_and_grad = jax.jit(jax.value_and_grad(fun))
    path = [np.array(x0, float)]
    res = scipy.optimize.minimize(
        lambda x: tuple(map(np.asarray, value_and_grad(x))),
        path[0],
        method=method,
        jac=True,
        callback=lambda x: path.append(x.copy()),
        options=options,
    )
    return res, path


def agree_for(steps, fun, x0, method, path):
    for k in range(1, steps + 1):
        res = jaxmin.minimize(fun, jnp.asarray(x0, float), method=method, options={"maxiter": k, "gtol": TIGHT})
        assert res.nit == k
        np.testing.assert_allclose(res.x, path[k], rtol=1e-6, atol=1e-9)


# ---- iterates. SciPy's first step has length 1 in L-BFGS-B, and in BFGS min(|g|, 1.01): the starts are such that
# ours is the same. In BFGS the Hessian is near the identity, so that SciPy tries the step 1 every time.


def quadratic(x):
    return jnp.sum(like(x, np.linspace(0.5, 1.5, x.size)) * (x - 0.3) ** 2) / 2


def scaled_cosh(x):
    return jnp.sum(jnp.cosh(like(x, [0.8, 1.0, 1.2]) * x))


def softplus(x):
    return jnp.sum(4 * jnp.logaddexp(x, 0) - like(x, [1.8, 2.0, 2.2]) * x + 0.1 * x**2)


def exponential(x):
    return jnp.sum(jnp.exp(x) - x) + 0.1 * jnp.sum(x) ** 2


def coupled(x):
    return jnp.sum((x - 1) ** 2) / 2 + 0.05 * jnp.sum((x[1:] - x[:-1] ** 2) ** 2)


BFGS = {
    "quadratic": (8, quadratic, [0.0] * 6),
    "cosh": (8, scaled_cosh, [0.5, -0.4, 0.4]),
    "softplus": (6, softplus, [0.5, -0.4, 0.4]),
    "exponential": (5, exponential, [0.5, -0.4, 0.4, -0.3]),
    "coupled": (8, coupled, [0.7, 0.8, 1.2, 0.7]),
}
LBFGS = {
    "quadratic": (9, quadratic, [3.0] * 6),
    "coupled": (8, coupled, [3.0, 1.0, -2.0, 4.0]),
    "rosenbrock": (8, rosenbrock, [-1.2, 1.0]),
    "beale": (12, beale, [1.0, 1.0]),
    "helical": (8, helical, [-1.0, 0.0, 0.0]),
    "vardim": (15, variably_dimensioned, [1 - i / 10 for i in range(1, 11)]),
    "broyden": (5, broyden_tridiagonal, [-1.0] * 10),
}


@pytest.mark.parametrize("name", mostly(BFGS, "quadratic", "coupled"))
def test_bfgs_makes_the_steps_of_scipy(name):
    steps, fun, x0 = BFGS[name]
    reference, path = scipy_minimize(fun, x0, "BFGS", gtol=TIGHT)
    assert reference.nfev == reference.nit + 1  # unit steps
    agree_for(steps, fun, x0, jaxmin.bfgs(initial_scale=False), path)


@pytest.mark.parametrize("name", mostly(LBFGS, "quadratic", "rosenbrock", "helical"))
def test_lbfgs_makes_the_steps_of_scipy(name):
    steps, fun, x0 = LBFGS[name]
    _, path = scipy_minimize(fun, x0, "L-BFGS-B", maxcor=10, gtol=TIGHT, ftol=0)
    agree_for(steps, fun, x0, jaxmin.lbfgs(memory=10), path)


@pytest.mark.parametrize("memory", (1, 3))
def test_lbfgs_drops_the_oldest_pair_as_scipy_does(memory):
    x0 = [3.0] * 6
    _, path = scipy_minimize(quadratic, x0, "L-BFGS-B", maxcor=memory, gtol=TIGHT, ftol=0)
    agree_for(8, quadratic, x0, jaxmin.lbfgs(memory=memory), path)


def test_the_inverse_hessian_of_bfgs_is_that_of_scipy():
    steps, fun, x0 = BFGS["coupled"]
    reference, _ = scipy_minimize(fun, x0, "BFGS", gtol=0, maxiter=steps)
    res = jaxmin.minimize(
        fun, jnp.asarray(x0), method=jaxmin.bfgs(initial_scale=False), options={"gtol": 0, "maxiter": steps}
    )
    assert res.nit == reference.nit == steps
    np.testing.assert_allclose(res.hess_inv, reference.hess_inv, rtol=1e-6, atol=1e-7)


def test_the_inverse_hessian_of_lbfgs_is_that_of_scipy():
    steps, fun, x0 = LBFGS["coupled"]
    _, path = scipy_minimize(fun, x0, "L-BFGS-B", maxcor=10, gtol=0, ftol=0, maxiter=steps)
    grads = [np.asarray(jax.grad(fun)(jnp.asarray(x))) for x in path]
    S, Y = np.diff(path, axis=0), np.diff(grads, axis=0)
    res = jaxmin.minimize(fun, jnp.asarray(x0), options={"gtol": 0, "maxiter": steps})
    # SciPy's operator begins with the identity where the methods begin with gamma I.
    gamma, V = S[-1] @ Y[-1] / (Y[-1] @ Y[-1]), np.eye(len(x0))
    for s, y in zip(S, Y):
        V = V @ (np.eye(len(x0)) - np.outer(y, s) / (s @ y))
    expected = scipy.optimize.LbfgsInvHessProduct(S, Y).todense() + (gamma - 1) * V.T @ V
    np.testing.assert_allclose(res.hess_inv.todense(), expected, rtol=1e-6, atol=1e-8)


# ---- results

SOLVED = {
    "rosenbrock": (rosenbrock, [-1.2, 1.0]),
    "beale": (beale, [1.0, 1.0]),
    "helical": (helical, [-1.0, 0.0, 0.0]),
    "wood": (wood, [-3.0, -1.0, -3.0, -1.0]),
    "logreg": (logistic_regression, [0.0] * 5),
    "broyden": (broyden_tridiagonal, [-1.0] * 10),
}
# By default these; the others with `pytest -m slow`.
_ALWAYS = {*((name, "lbfgs") for name in ("rosenbrock", "wood", "logreg")), ("helical", "bfgs")}


@functools.cache
def solved_by_others(name):
    """The solutions of SciPy and of jaxopt, for all methods."""
    fun, x0 = SOLVED[name]
    reference, _ = scipy_minimize(fun, x0, "BFGS", gtol=1e-8)
    return reference, jaxopt.LBFGS(fun, tol=1e-8, maxiter=500).run(jnp.asarray(x0))


@pytest.mark.parametrize(
    ("name", "method"),
    [
        pytest.param(name, method, marks=() if (name, method) in _ALWAYS else pytest.mark.slow)
        for name in SOLVED
        for method in ("lbfgs", "bfgs", "cg")
    ],
)
def test_the_minimum_is_that_of_scipy_and_jaxopt(name, method):
    fun, x0 = SOLVED[name]
    reference, other = solved_by_others(name)
    res = jaxmin.minimize(fun, jnp.asarray(x0), method=method, options={"gtol": 1e-8})
    assert res.success
    np.testing.assert_allclose(res.x, reference.x, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(res.fun, reference.fun, atol=1e-12)
    np.testing.assert_allclose(res.x, other.params, rtol=1e-6, atol=1e-7)


# ---- status numbers


ENDINGS = {
    0: (rosenbrock, [-1.2, 1.0], {}),
    1: (rosenbrock, [-1.2, 1.0], {"maxiter": 3}),
    2: (logistic_regression, [0.0] * 5, {"gtol": 1e-30}),
    3: (rosenbrock, [np.nan, 1.0], {}),
}


@pytest.mark.parametrize("method", ("lbfgs", "bfgs"))
@pytest.mark.parametrize("status", ENDINGS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # SciPy's, at NaN
def test_status_numbers_are_those_of_scipy(status, method):
    fun, x0, options = ENDINGS[status]
    reference, _ = scipy_minimize(fun, x0, "BFGS", **options)
    assert reference.status == status
    res = jaxmin.minimize(fun, jnp.asarray(x0), method=method, options=options)
    assert res.status == status
    assert res.success == reference.success
    assert (status == 1) == (res.nit == 3)


def test_the_counts_are_true_where_scipy_counts_the_same_steps():
    _, fun, x0 = BFGS["coupled"]
    reference, _ = scipy_minimize(fun, x0, "BFGS", gtol=1e-6)
    counted, points = recorded(fun)
    res = jaxmin.minimize(counted, jnp.asarray(x0), method=jaxmin.bfgs(initial_scale=False), options={"gtol": 1e-6})
    jax.effects_barrier()
    assert (res.nit, res.nfev, res.njev) == (reference.nit, reference.nfev, reference.njev)
    assert len(points) == res.nfev
