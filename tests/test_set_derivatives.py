"""Derivatives of solutions in a set agree with differences and closed forms, and are NaN where there are none.

All sets are parts of one product, so that one program solves in all of them; f couples the parts.
"""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, mostly_float64

from jaxmin import Bounds, Status, minimize, sets

TOLERANCES = {"float64": {"rtol": 1e-5, "atol": 1e-5}, "float32": {"rtol": 2e-2, "atol": 2e-2}}
N = 4  # variables of each part
INF = np.inf
_rng = np.random.default_rng(3)


class Part(NamedTuple):
    """A set, made from its parameters, and where they are."""

    make: Any
    at: Any = ()


def twice(A, b):
    """Equations of which each is given twice, in other units: their singular values are 0 and otherwise equal."""
    return sets.affine(jnp.concatenate([A, 2 * A]), jnp.concatenate([b, 2 * b]))


def around(center, radius):
    """A ball around a center, as a function of the user's."""
    return sets.projection(lambda x: center + sets.ball(radius).project(x - center))


NORMAL = np.array([1.0, -0.5, 2.0, 0.3])
EQUAL = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0]])
PARTS = {
    "simplex": Part(sets.simplex, (1.3,)),
    "ball 1": Part(lambda r: sets.ball(r, norm=1), (0.9,)),
    "ball 1, inside": Part(lambda r: sets.ball(r, norm=1), (90.0,)),
    "ball 2": Part(sets.ball, (0.8,)),
    "ball 2, inside": Part(sets.ball, (50.0,)),
    "ball inf": Part(lambda r: sets.ball(r, norm=INF), (0.35,)),
    "half-space": Part(sets.half_space, (NORMAL, -1.0)),
    "half-space, inside": Part(sets.half_space, (NORMAL, 40.0)),
    "affine": Part(sets.affine, (_rng.normal(size=(2, N)), np.array([0.5, -0.3]))),
    "affine, twice": Part(twice, (EQUAL, np.array([0.4, 0.1]))),
    "nonnegative": Part(sets.nonnegative),
    "function": Part(around, (np.array([0.3, 0.2, -0.1, 0.0]), 0.5)),
    "function with a rule": Part(lambda s: sets.projection(lambda x: optax.projections.projection_simplex(x, s)), (0.7,)),
    "free": Part(lambda: None),
}  # fmt: skip
_C = np.eye(len(PARTS) * N) + 0.1 * _rng.normal(size=(len(PARTS) * N,) * 2)
_T = _rng.normal(size=len(PARTS) * N)
THETA = {name: part.at for name, part in PARTS.items()} | {"args": np.array([1.0, 0.3])}
AT, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.asarray, THETA))


def objective(x, p):
    v = jnp.concatenate(list(x.values()))
    return jnp.sum((_C @ v - p[0] * _T) ** 2) / 2 + p[1] * jnp.sum(jnp.log(jnp.cosh(v))), p[0] * v[:2] ** 2


def solved(theta):
    """x, the value and the aux of the solution, and whether it is one."""
    theta = unravel(theta)
    within = sets.product({name: part.make(*theta[name]) for name, part in PARTS.items()})
    x0 = {name: jnp.zeros(N) for name in PARTS}
    # Steps of one length go on where f no longer falls by more than rounding.
    options = {"learning_rate": 0.4, "gtol": 1e-12}
    res = minimize(objective, x0, args=(theta["args"],), has_aux=True, method="sgd", bounds=within, options=options)
    return {**res.x, "fun": res.fun, "aux": res.aux}, res.success


H = 1e-4


def both_modes(solution, at):
    """What a function gives, and its Jacobians in forward and in reverse mode, with one solve."""
    value, push, aux = jax.linearize(solution, at, has_aux=True)
    return (value, aux), jax.jacfwd(push)(at), jax.jacrev(push)(at)


@functools.cache
def compared():
    """The solution, its Jacobians in both modes and by differences."""
    (value, success), *jacobians = jax.jit(functools.partial(both_modes, solved))(AT)
    steps = H * np.eye(AT.size)
    around, successes = jax.jit(lambda at: jax.lax.map(solved, at))(AT[None] + np.concatenate([steps, -steps]))
    by_differences = jax.tree.map(lambda leaf: np.moveaxis(leaf[: AT.size] - leaf[AT.size :], 0, -1) / (2 * H), around)
    return value, jacobians, by_differences, success and successes.all()


ACTIVE = {
    "simplex": lambda x: (x == 0).any() and (x > 0).sum() > 1,
    "ball 1": lambda x: (x == 0).any() and (x != 0).sum() > 1,
    "ball 2": lambda x: np.isclose(np.linalg.norm(x), 0.8),
    "ball inf": lambda x: (np.abs(x) == 0.35).any() and (np.abs(x) < 0.35).any(),
    "half-space": lambda x: np.isclose(NORMAL @ x, -1),
    "nonnegative": lambda x: (x == 0).any() and (x > 0).any(),
    "function": lambda x: np.isclose(np.linalg.norm(x - PARTS["function"].at[0]), 0.5),
}


@pytest.mark.parametrize("name", [*PARTS, "fun", "aux"])
def test_derivatives_agree_with_differences(name):
    """By the arguments, and by the parameters of all sets."""
    solution, (forward, reverse), by_differences, success = compared()
    assert success
    assert name not in ACTIVE or ACTIVE[name](np.asarray(solution[name]))
    assert_close(reverse[name], forward[name], rtol=1e-9, atol=1e-9)
    assert_close(forward[name], by_differences[name], rtol=1e-6, atol=1e-6)
