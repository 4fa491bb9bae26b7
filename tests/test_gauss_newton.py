"""The Gauss-Newton model: its factor and its minimiser in a ball, for sound and for ill-conditioned Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import each_dtype

from jaxmin.methods._gauss_newton import factor, holding, linearised, minimizer


def problem(condition, seed=0, m=12, n=5, dtype="float64"):
    """J with this condition number and columns of very different lengths, and r."""
    rng = np.random.default_rng(seed)
    U, _, VT = np.linalg.svd(rng.normal(size=(m, n)), full_matrices=False)
    J = (U * np.geomspace(1, 1 / condition, n)) @ VT * np.geomspace(1e-3, 1e3, n)
    return J.astype(dtype), rng.normal(size=m).astype(dtype)


def found(J, r, free=None):
    return factor(linearised(jnp.asarray(r), jnp.asarray(J)), free)


@each_dtype
@pytest.mark.parametrize("condition", [1.5, 1e3, 1e6])
def test_the_factor_is_that_of_householder(condition, dtype):
    J, r = problem(condition, dtype=dtype)
    R, Qr, sound = found(J, r)
    eps = np.finfo(dtype).eps
    assert bool(sound) == (condition < (1e2 if dtype == "float32" else 1e5))
    lengths = np.linalg.norm(J, axis=0)
    np.testing.assert_allclose(R.T @ R / np.outer(lengths, lengths), (J / lengths).T @ (J / lengths), atol=50 * eps)
    np.testing.assert_allclose(R.T @ Qr / lengths, J.T @ r / lengths, atol=100 * eps)
    np.testing.assert_allclose(np.tril(R, -1), 0)


@pytest.mark.parametrize("condition", [10.0, 1e3, 1e7])
@pytest.mark.parametrize("radius", [1e-3, 0.3, 1e9])
def test_the_step_minimizes_the_model_within_the_ball(condition, radius):
    J, r = problem(condition)
    D = np.linalg.norm(J, axis=0)
    step = minimizer(found(J, r), jnp.asarray(D), jnp.asarray(radius))
    length = np.linalg.norm(D * step.p)
    assert length <= 1.1 * radius * (1 + 1e-12)
    assert bool(step.is_newton) == (radius > 1e8)
    # At its own length no step is better: (A^T A + lam I) q = -A^T r for some lam >= 0.
    A, q = J / D, D * np.asarray(step.p)
    slope = A.T @ (A @ q + r)
    lam = -slope @ q / (q @ q)
    assert lam >= -1e-9
    np.testing.assert_allclose(slope, -lam * q, atol=1e-8)
    newton = np.linalg.lstsq(A, -r, rcond=None)[0]
    np.testing.assert_allclose(D * step.newton, newton, rtol=1e-5, atol=1e-6 * np.linalg.norm(newton))
    Q = np.linalg.qr(J)[0]
    np.testing.assert_allclose(step.reached, np.linalg.norm(Q.T @ r), rtol=1e-7)


@pytest.mark.parametrize("condition", [10.0, 1e7])
def test_held_variables_make_their_step_and_the_rest_the_best_one(condition):
    J, r = problem(condition)
    D = np.linalg.norm(J, axis=0)
    held, p = np.array([False, True, False, True, False]), np.array([9.0, 2.0, 9.0, -3.0, 9.0]) / D
    rest = minimizer(holding(found(J, r), jnp.asarray(held), jnp.asarray(p)), jnp.asarray(D), jnp.asarray(1e12))
    A = J / D
    best = np.linalg.lstsq(A[:, ~held], -(r + A[:, held] @ (D * p)[held]), rcond=None)[0]
    np.testing.assert_allclose((D * rest.p)[~held], best, rtol=1e-5, atol=1e-6 * np.linalg.norm(best))
    np.testing.assert_array_equal(rest.p[held], 0)


def test_variables_that_are_not_free_and_those_without_influence_make_no_step():
    J, r = problem(10.0)
    J[:, 2] = 0
    free = np.array([True, False, True, True, True])
    D = np.where(J.any(axis=0), np.linalg.norm(J, axis=0), 1)
    step = minimizer(found(J, r, jnp.asarray(free)), jnp.asarray(D), jnp.asarray(1e9))
    np.testing.assert_array_equal(step.p[1:3], 0)
    best = np.linalg.lstsq((J / D)[:, [0, 3, 4]], -r, rcond=None)[0]
    np.testing.assert_allclose((D * np.asarray(step.p))[[0, 3, 4]], best, rtol=1e-8)


def test_an_ill_conditioned_lane_leaves_the_others_as_they_are():
    lanes = [problem(condition, seed) for seed, condition in enumerate((10.0, 1e9, 3.0, 1e9, 20.0))]
    J, r = (np.stack(part) for part in zip(*lanes))
    D = np.linalg.norm(J, axis=1)

    def step(J, r, D):
        return minimizer(found(J, r), D, jnp.asarray(0.2))

    together = jax.jit(jax.vmap(step))(J, r, D)
    for i in range(5):
        alone = step(J[i], r[i], D[i])
        for one, other in zip(alone, together):
            np.testing.assert_allclose(other[i], one, rtol=1e-7, atol=1e-12)
