"""The default method finds a minimum in float32 and float64 where others fail, and never reports a false success."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import DTYPES
from problems import ALL, one_in, recorded

import jaxmin
from jaxmin import Status

GTOL = 1e-5  # the default
# Evaluations: two rows of six iterates that gain nothing, before and after the one retry, and trials that fail.
HANDFUL = 32

# By default each problem in one dtype, by turns; in the other with `pytest -m slow`.
each_solve = pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=() if i % 2 == k else pytest.mark.slow)
        for k, dtype in enumerate(DTYPES)
        for i, name in enumerate(ALL)
    ],
)


@functools.partial(jax.jit, static_argnums=0)
def figures(fun, x):
    f, g = jax.value_and_grad(fun)(x)
    return f, jnp.max(jnp.abs(g)), jnp.max(jnp.abs(jax.hessian(fun)(x)) @ jnp.abs(x))


def exact(fun, x, dtype):
    """f and the norm of g at x in float64, and how far a rounding of x to the dtype moves g."""
    f, gnorm, moved = map(float, figures(fun, jnp.asarray(x, jnp.float64)))
    return f, gnorm, 4 * float(np.finfo(dtype).eps) * moved


@functools.cache
def solved(name, dtype):
    """By the default method; one solve for all tests."""
    problem = ALL[name]
    return jaxmin.minimize(problem.fun, jnp.asarray(problem.x0, dtype))


@each_solve
def test_the_default_method_finds_a_minimum(name, dtype):
    problem, res = ALL[name], solved(name, dtype)
    f, gnorm, moved = exact(problem.fun, res.x, dtype)
    gap = min(abs(f - least) for least in problem.minima)
    assert gap <= 1e-5 * max(1, abs(f))
    if res.success:
        assert res.status in (Status.CONVERGED, Status.PRECISION_FLOOR, Status.PRECISION)
        assert (
            res.status == Status.PRECISION
            or gnorm <= GTOL * (max(1, abs(f)) if res.status == Status.PRECISION_FLOOR else 1) + moved
        )
    else:  # no neighbour of x in this dtype is sure to be better
        assert res.status in (Status.PRECISION_LOSS, Status.SEARCH_FAILED)
        assert GTOL * max(1, abs(f)) < gnorm <= moved


@pytest.mark.parametrize("name", one_in(2, 1))
def test_in_float64_every_problem_is_a_success(name):
    res = solved(name, "float64")
    assert res.success
    assert res.status == Status.CONVERGED


@each_solve
def test_no_solve_needs_many_evaluations(name, dtype):
    res = solved(name, dtype)
    assert res.nit < res.nfev <= ALL[name].nfev


@pytest.mark.rounding
@pytest.mark.parametrize("name", one_in(2))
def test_a_float32_solve_ends_when_rounding_hides_what_is_left(name):
    """With an offset, the noise of f is above what gtol asks for on most of the problems."""
    problem = ALL[name]
    exactly = jax.jit(jax.vmap(problem.fun))
    fun, points = recorded(lambda x, offset: problem.fun(x) + offset)
    for offset in (1.0, 100.0):
        points.clear()
        res = jaxmin.minimize(fun, jnp.asarray(problem.x0, jnp.float32), np.float32(offset))
        jax.effects_barrier()
        f = np.asarray(exactly(jnp.asarray([res.x, *points], jnp.float64))) + offset
        noise = 4 * np.finfo(np.float32).eps * f[0]
        assert f[0] <= np.nanmin(f) + 2 * noise  # the best point, as far as float32 can tell
        first = int(np.argmax(f[1:] <= np.nanmin(f) + noise)) + 1
        assert res.nfev - first <= HANDFUL
        assert res.status in (Status.CONVERGED, Status.PRECISION_LOSS, Status.PRECISION_FLOOR, Status.SEARCH_FAILED)
        bound = np.float32(GTOL) * max(1, abs(res.fun))
        assert (np.abs(res.jac).max() <= bound) == res.success
