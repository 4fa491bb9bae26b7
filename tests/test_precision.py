"""In float32 a solve that rounding stops says whether it has converged to the precision of f."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmin
from jaxmin import Status, minimize, minimize_many

AT = np.linspace(-5, 5, 100, dtype=np.float32)
START = np.float32([3, 0, 1, 0])


def line(p, at):
    return p[0] * jnp.exp(-0.5 * ((at - p[1]) / p[2]) ** 2) + p[3]


def chi2(p, y):
    return jnp.sum((line(p, AT.astype(p.dtype)) - y) ** 2) / 0.05**2


@pytest.fixture(scope="module")
def spectra():
    """Forty noisy lines."""
    rng = np.random.default_rng(0)
    true = [rng.uniform(*ends, (40, 1)) for ends in ((1, 10), (-1, 1), (0.5, 2), (0, 1))]
    return np.float32(np.asarray(line(true, AT)) + 0.05 * rng.standard_normal((40, AT.size)))


@pytest.mark.parametrize("method", ("lbfgs", "bfgs", "trust_ncg"))
def test_good_fits_are_successes(method, spectra):
    """They were called failures: rounding stops them before gtol does."""
    res = jax.jit(jax.vmap(lambda y: minimize(chi2, START, (y,), method)))(spectra)
    assert np.sum(res.status == Status.PRECISION) > 30
    assert res.success.all()
    exact = jax.vmap(lambda x, y: minimize(chi2, x, (y,), options={"gtol": 1e-8}).fun)
    best = exact(np.asarray(res.x, float), np.asarray(spectra, float))
    np.testing.assert_allclose(res.fun, best, rtol=1e-5)


def test_every_way_to_solve_gives_the_same_status(spectra):
    y = spectra[0]
    solve = lambda y: minimize(chi2, START, (y,))
    solver = jaxmin.Solver(chi2)
    ways = [
        solve(y).status,
        jax.jit(solve)(y).status,
        jax.vmap(solve)(spectra[:2]).status[0],
        minimize_many(chi2, np.tile(START, (5, 1)), (spectra[:5],)).status[0],
        jax.jit(lambda y: minimize_many(chi2, np.tile(START, (5, 1)), (y,)).status)(spectra[:5])[0],
        solver.result(solver.run(solver.init(START, y))).status,
    ]
    assert {int(status) for status in ways} == {Status.PRECISION}
    assert "precision of fun" in solve(y).message


def test_the_solution_has_its_derivatives(spectra):
    solve = lambda y: minimize(chi2, START, (y,)).x
    found = jax.jacobian(solve)(spectra[0])
    exact = jax.jacobian(lambda y: minimize(chi2, START.astype(float), (y,), options={"gtol": 1e-8}).x)(
        np.asarray(spectra[0], float)
    )
    np.testing.assert_allclose(found, exact, atol=1e-4)


def test_bounds_hold_what_is_not_free(spectra):
    bounds = [(None, None), (None, None), (None, None), (1.5, None)]
    res = minimize(chi2, np.float32([3, 0, 1, 2]), (spectra[0],), bounds=bounds)
    assert res.success
    assert res.active_mask[3] == -1
    assert np.abs(res.jac).max() > 10


def test_a_solve_that_is_stuck_is_no_success():
    """A stiff curved valley (MARATOSB): f is 1 here, and -1 at its minimum."""
    res = minimize(lambda x: x[0] + 1e6 * (x[0] ** 2 + x[1] ** 2 - 1) ** 2, np.float32([1.1, 0.1]))
    assert res.fun > 0.9
    assert not res.success


@pytest.mark.parametrize("n", (8, 300))
def test_many_variables(n):
    """Above 100 variables by conjugate gradients."""
    rng = np.random.default_rng(1)
    A = np.float32(rng.standard_normal((3 * n, n)))
    b = np.float32(rng.standard_normal(3 * n) * 30)
    res = minimize(lambda x: jnp.sum((A @ x - b) ** 2), np.zeros(n, np.float32), options={"gtol": 1e-9})
    assert res.status == Status.PRECISION
    best = np.linalg.lstsq(A.astype(float), b.astype(float), rcond=None)[1][0]
    np.testing.assert_allclose(res.fun, best, rtol=1e-5)


def test_flat_directions_are_allowed():
    """Ten columns and their sum: the minimum is a line."""
    rng = np.random.default_rng(2)
    A = np.float32(rng.standard_normal((200, 10)))
    A = np.column_stack([A, A.sum(1)])
    b = np.float32(rng.standard_normal(200) * 10)
    res = minimize(lambda x: jnp.sum((A @ x - b) ** 2), np.zeros(11, np.float32), options={"gtol": 1e-9})
    assert res.status == Status.PRECISION


def test_a_function_without_second_derivatives_is_not_examined(spectra):
    @jax.custom_vjp
    def fun(p, y):
        return jax.pure_callback(lambda p, y: np.float32(chi2(p, y)), jax.ShapeDtypeStruct((), jnp.float32), p, y)

    def backward(saved, change):
        p, y = saved
        g = jax.pure_callback(
            lambda p, y: np.float32(jax.grad(chi2)(p, y)), jax.ShapeDtypeStruct(p.shape, p.dtype), p, y
        )
        return change * g, jnp.zeros_like(y)

    fun.defvjp(lambda p, y: (fun(p, y), (p, y)), backward)
    res = minimize(fun, START, (spectra[0],))
    assert res.status == Status.PRECISION_LOSS


def test_an_effect_is_not_repeated(spectra):
    calls = []

    def fun(p, y):
        jax.debug.callback(lambda: calls.append(1))
        return chi2(p, y)

    res = minimize(fun, START, (spectra[0],))
    jax.effects_barrier()
    assert res.status == Status.PRECISION_LOSS
    assert len(calls) == res.nfev
