r"""A convex quadratic program with elastic rows, by a primal-dual interior-point method.

.. math:: \min_d \; g^T d + \tfrac12 d^T M d + \sum_i (p_i b_i + w_i a_i), \quad a - b = h + J d, \; a, b \ge 0

with d in a box. It has a solution whatever the rows are.

References:
  J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006, Algorithm 16.4, without its predictor.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxmin._core import vector as vec
from jaxmin.methods import _elastic
from jaxmin.methods._elastic import Change, Weights

_STEPS = 60
# Each step goes at most so much of the way to the boundary.
_TAU = 0.995
# The products fall to this fraction where the last step was long, and to the other one where it was short.
_FAST, _SLOW = 0.1, 0.5
# The margin inside the box at which d begins, as a fraction of the width.
_MARGIN = 0.1


class Program(NamedTuple):
    """The model at an iterate; the rows are those of the problem."""

    M: Any  # [n, n] positive definite
    g: Any  # [n]
    J: Any  # [m, n]
    h: Any  # [2, m] the distances of the rows from their limits at d = 0
    bounds: Any  # [2, n] of d


class Inner(NamedTuple):
    """An iterate of the program."""

    at: Change  # d, y, z
    a: Any  # [2, m]
    b: Any  # [2, m]
    mu: Any  # []
    error: Any  # []
    steps: Any  # [] int32


def solve(s, p, w, program, scale):
    """(d, y, z) of the solution.

    Args:
      s: the ``Sides`` of the problem.
      p, w: [2, m] the prices of b and of a.
      program: a ``Program``.
      scale: [] of f; it decides what is small.
    """
    M, g, J, h, bounds = program
    s = s._replace(bounds=bounds, bounded=jnp.isfinite(bounds) & s.free)
    eps = jnp.finfo(g.dtype).eps
    least = eps**0.65 / scale
    begin = _begin(s, p, w, program, scale)

    def goes_on(inner):
        return (inner.error > least) & (inner.steps < _STEPS)

    def step(inner):
        weights = Weights(inner.mu, p, w)
        d, y, z = inner.at
        gap = _elastic.gaps(s, d)
        B = _elastic.barriers(s, weights, inner.a, inner.b, y, gap, z)
        L = jnp.linalg.cholesky(_elastic.condensed(s, B, M, J))
        here = h + jnp.where(s.on, _elastic.signed(J @ d), 0)
        r = M @ d + g
        change = _elastic.newton(s, weights, B, L, r, J, inner.at, here)
        da = jnp.where(s.on, inner.mu / B.za - inner.a - inner.a / B.za * change.y, 0)
        db = jnp.where(s.on, inner.mu / B.zb - inner.b + inner.b / B.zb * change.y, 0)
        pairs = (
            (gap, jnp.where(s.bounded, _elastic.signed(change.x), 0)),
            (inner.a, da),
            (inner.b, db),
            (jnp.where(change.y < 0, B.za, B.zb), -jnp.abs(change.y)),
            (jnp.where(s.bounded, z, 1), change.z),
        )
        t = jnp.ones_like(inner.mu)
        for v, dv in pairs:
            t = jnp.minimum(t, _elastic.fraction(v, dv, _TAU))
        fine = jnp.isfinite(vec.dot(change.x, change.x)) & jnp.isfinite(jnp.sum(change.y))
        new = vec.where(fine, vec.add(inner.at, vec.scale(t, change)), inner.at)
        a, b = inner.a + jnp.where(fine, t, 0) * da, inner.b + jnp.where(fine, t, 0) * db
        mu, error = _measured(s, p, w, program, new, a, b, t)
        steps = jnp.where(fine, inner.steps + 1, _STEPS)
        return Inner(new, a, b, mu, error, steps)

    return lax.while_loop(goes_on, step, begin).at


def _begin(s, p, w, program, scale):
    """An interior d, and the multipliers and slacks that suit it."""
    lower, upper = s.bounds
    width = jnp.where(jnp.isfinite(upper - lower), upper - lower, jnp.inf)
    margin = jnp.minimum(_MARGIN * width, _MARGIN)
    d = jnp.clip(jnp.zeros_like(program.g), lower + margin, upper - margin)
    d = jnp.where(s.free, d, 0)
    h = program.h + jnp.where(s.on, _elastic.signed(program.J @ d), 0)
    mu = _FAST * jnp.maximum(1e-2 / scale, vec.max_abs(jnp.where(s.free, program.g, 0)))
    a, b = _elastic.slacks(s, Weights(mu, p, w), h)
    y = jnp.where(s.on, p - mu / b, 0)
    z = jnp.where(s.bounded, mu / _elastic.gaps(s, d), 0)
    return Inner(Change(d, y, z), a, b, mu, jnp.full_like(mu, jnp.inf), jnp.zeros((), jnp.int32))


def _measured(s, p, w, program, at, a, b, t):
    """(mu, error): the next barrier parameter, and how far d, y and z are from the solution."""
    M, g, J, h, _ = program
    d, y, z = at
    r = jnp.where(s.free, M @ d + g - J.T @ _elastic.net(y) - _elastic.net(z), 0)
    rows = jnp.where(s.on, h + _elastic.signed(J @ d) - a + b, 0)
    of_a, of_b = jnp.where(s.on, a * (w + y), 0), jnp.where(s.on, b * (p - y), 0)
    of_z = jnp.where(s.bounded, z * _elastic.gaps(s, d), 0)
    count = 2 * jnp.sum(s.on) + jnp.sum(s.bounded)
    mean = (jnp.sum(of_a) + jnp.sum(of_b) + jnp.sum(of_z)) / jnp.maximum(count, 1)
    mu = mean * jnp.where(t > 0.9, _FAST, _SLOW)
    # A row counts by what it costs to leave it so. Where a multiplier and its distance are both 0 at the solution, each
    # is the root of their product, which therefore has to be smaller than the rest.
    return mu, jnp.maximum(jnp.maximum(vec.max_abs(r), vec.max_abs(p * rows)), mean * jnp.finfo(g.dtype).eps ** -0.15)
