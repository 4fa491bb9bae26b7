r"""Elastic rows: constraints whose violation has a price, smoothed by logarithms.

A row has two sides, :math:`h = c - l \ge 0` and :math:`h = u - c \ge 0`. An elastic side has slacks :math:`a - b = h`
with :math:`a, b > 0`. The violation b costs p a unit, and for an equality so does a (w = p, else w = 0):

.. math:: \psi(h) = \min_{a - b = h} \; w a + p b - \mu \log a - \mu \log b

is smooth in h, has a closed form, and needs no feasible point. Its derivative is -y, where the multiplier
:math:`y = p - \mu / b = \mu / a - w` is between -w and p. Bounds are hard: :math:`-\mu \log` of the distance.

References:
  N. I. M. Gould, D. Orban and Ph. L. Toint, An interior-point l1-penalty method for nonlinear optimization, in
  Numerical Analysis and Optimization, 2015, Section 2. A. Forsgren, P. E. Gill and M. H. Wright, SIAM Rev. 44 (2002),
  525-597, Section 6. A. Wächter and L. T. Biegler, Math. Program. 106 (2006), 25-57 [WB].
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.linalg import cho_solve

from jaxmin._core import vector as vec
from jaxmin._core.kkt import Kkt
from jaxmin._core.protocol import PerDtype
from jaxmin._core.status import Status

# What a method wants, by its parameter ``hessian``.
_FIRST = frozenset({"grad", "constraints", "constraint_jacobian", "box"})
WANTS = {"exact": _FIRST | {"lagrangian_hessian"}, "bfgs": _FIRST}
# How far x0 is moved into the box.
_PUSH = 1e-2
# f and the rows are scaled so that no derivative at x0 is larger.
_STEEP = 100.0
# A row with derivatives and a violation below this at x0 is scaled to 1.
_FLAT = 1e-2
# Scaled multipliers that are as large, where a method cannot go on, have no bound.
_UNBOUNDED = 1e4
# The defaults of the stopping tests.
TOLERANCES = (
    ("gtol", PerDtype(1e-6, 1e-3)),
    ("ctol", PerDtype(1e-6, 1e-3)),
    ("barrier_tol", PerDtype(1e-8, 1e-4)),
)
# The sign of c and of x in the distances of both sides.
_SIGN = np.array([[1.0], [-1.0]])


class Sides(NamedTuple):
    """The limits of rows and variables, as two sides each; a side that is not on has no limit."""

    limits: Any  # [2, m] lower, upper
    on: Any  # [2, m] bool; an equality has its lower side alone
    equal: Any  # [2, m] bool: this side is an equality
    bounds: Any  # [2, n]
    bounded: Any  # [2, n] bool; a fixed variable has no side
    free: Any  # [n] bool: it is not fixed


def sides(rows, box, x):
    """The ``Sides`` of a problem."""
    limits = jnp.stack([rows.lower, rows.upper])
    first = jnp.array([[True], [False]])
    equal = rows.equal & first
    on = jnp.isfinite(limits) & (~rows.equal | first)
    if box.bounded:
        bounds, free = jnp.stack([box.lower, box.upper]), box.lower < box.upper
    else:
        bounds, free = jnp.stack([jnp.full_like(x, -jnp.inf), jnp.full_like(x, jnp.inf)]), jnp.ones(x.shape, bool)
    return Sides(limits, on, equal, bounds, jnp.isfinite(bounds) & free, free)


def inside(x, box, push=_PUSH):
    """x0, moved to the inside of the box by a small part of its width or of max(|bound|, 1) [WB, Section 3.6]."""
    if not box.bounded:
        return x
    width = box.upper - box.lower
    into = lambda bound: push * jnp.minimum(jnp.where(jnp.isfinite(bound), jnp.maximum(jnp.abs(bound), 1), 1), width)
    return jnp.minimum(jnp.maximum(x, box.lower + into(box.lower)), box.upper - into(box.upper))


def scales(g, J, rows):
    """(scale of f, units [m] of the rows in units of f), from the first derivatives at x0 [WB, Section 3.8].

    A row in large units is scaled up too, or its violation would cost next to nothing.
    """
    of = lambda largest: jnp.clip(_STEEP / jnp.maximum(largest, 1e-12), 1e-8, 1)
    scale, steepest = of(vec.max_abs(g)), jnp.max(jnp.abs(J), axis=1, initial=0)
    largest = jnp.maximum(steepest, rows.violations)
    flat = (largest < _FLAT) & (largest > 0)
    return scale, jnp.where(flat, jnp.minimum(1 / jnp.where(flat, largest, 1), 1e6), of(steepest)) / scale


def scaled(state, g, J, rows):
    """The state with ``scale`` and ``unit``, which are those of x0."""
    first, (scale, unit) = state.nit < 0, scales(g, J, rows)
    return state._replace(scale=jnp.where(first, scale, state.scale), unit=jnp.where(first, unit, state.unit))


def of_sides(u, equal):
    """[2, k] the multipliers of the sides, from those of rows or bounds; the inverse of -:func:`net`."""
    lower = jnp.where(equal, -u, jnp.maximum(-u, 0))
    return jnp.stack([lower, jnp.where(equal, 0, jnp.maximum(u, 0))])


def warm(state, multipliers, equal):
    """The state with the ``Multipliers`` of an earlier solve."""
    v, w = (jnp.nan_to_num(u) for u in multipliers)
    return state._replace(y=of_sides(v, equal), z=of_sides(w, jnp.zeros(w.shape, bool)))


def is_warm(state):
    """[] bool: whether the state had multipliers before x0."""
    return jnp.any(state.y != 0) | jnp.any(state.z != 0)


def pressure(y, unit):
    """[] the largest multiplier of a row, in its unit."""
    return jnp.max(jnp.abs(y) / unit, initial=0)


def above_multipliers(state):
    """[] the price, or a larger one that is above all multipliers that are known."""
    return jnp.maximum(state.nu, 2 * pressure(state.y, state.unit))


def highest(x):
    """The largest price, by the precision of x."""
    return 1e9 if jnp.finfo(x.dtype).bits > 32 else 1e6


def failure(state, infeasible):
    """The status of a method that cannot go on: why no multipliers balance f there, or that no step helps."""
    violation = jnp.max(state.rows.violations * state.unit, initial=0) * state.scale
    unbounded = violation <= jnp.finfo(violation.dtype).eps ** 0.375
    unbounded &= pressure(state.y, state.unit) >= _UNBOUNDED
    lost = jnp.where(infeasible, Status.INFEASIBLE, Status.SEARCH_FAILED)
    return jnp.where(unbounded, Status.MULTIPLIERS, lost).astype(jnp.int32)


def kkt(state):
    """The ``Kkt`` of a state with ``iterate``, ``rows``, ``J``, and the multipliers ``y`` and ``z`` of the sides."""
    v = -net(state.y)
    unit = jnp.max(jnp.abs(state.J), axis=1, initial=0)
    return Kkt(state.rows, v, -net(state.z), state.iterate.g + state.J.T @ v, unit)


def check(nu, hessian, mu=1.0):
    """Raise unless the builder's parameters are in their ranges."""
    for name, value in (("mu", mu), ("nu", nu)):
        if not value > 0:
            raise ValueError(f"{name}={value!r}: give a number > 0")
    if hessian not in WANTS:
        raise ValueError(f"hessian={hessian!r}: one of {', '.join(map(repr, WANTS))}")


class Weights(NamedTuple):
    """The weights in the merit function."""

    mu: Any  # [] of the logarithms
    p: Any  # [2, m] the price of b
    w: Any  # [2, m] the price of a


def weights(s, mu, price):
    """The ``Weights`` for a price [m] of each row's violation."""
    return Weights(mu, jnp.broadcast_to(price, s.on.shape), jnp.where(s.equal, price, 0))


def signed(u):
    """[2, k]: u for the lower side, -u for the upper one."""
    return _sign(u) * u


def net(u):
    """[k]: what the two sides add up to, in the direction of c or x."""
    return jnp.sum(_sign(u) * u, axis=0)


def _sign(u):
    return jnp.asarray(_SIGN, u.dtype)


def heights(s, c):
    """[2, m] h, the distances of c from its limits; negative where violated, 1 where there is no limit."""
    return jnp.where(s.on, signed(c - s.limits), 1)


def gaps(s, x):
    """[2, n] the distances of x from its bounds; 1 without a bound."""
    return jnp.where(s.bounded, signed(x - s.bounds), 1)


def slacks(s, weights, h):
    r"""(a, b), each [2, m]: the minimisers of :math:`\psi`, without cancellation.

    With K = w + p, each is a root of :math:`K a b = \mu (a + b)`, :math:`a - b = h`.
    """
    mu, p, w = weights
    K = jnp.where(s.on, w + p, 1)
    large = jnp.sqrt((K * h) ** 2 + 4 * mu * mu) + K * jnp.abs(h)
    small = 4 * mu * mu / large
    a, b = jnp.where(h > 0, large, small), jnp.where(h > 0, small, large)
    return (a + 2 * mu) / (2 * K), (b + 2 * mu) / (2 * K)


def merit(s, weights, x, f, c):
    r""":math:`f + \sum \psi(h) - \mu \sum \log` of the distances of x from its bounds."""
    mu, p, w = weights
    a, b = slacks(s, weights, heights(s, c))
    rows = jnp.where(s.on, w * a + p * b - mu * (jnp.log(a) + jnp.log(b)), 0)
    return f + jnp.sum(rows) - mu * jnp.sum(jnp.log(gaps(s, x)))


class Barriers(NamedTuple):
    """The second derivatives that rows and bounds add, for multipliers y [2, m] and z [2, n]."""

    za: Any  # [2, m] w + y, the multiplier of a > 0
    zb: Any  # [2, m] p - y, that of b > 0
    per_row: Any  # [2, m] 1 / (a / za + b / zb); 0 where there is no limit
    per_variable: Any  # [2, n] z over the distance; 0 where there is no bound


def barriers(s, weights, a, b, y, gap, z):
    """The ``Barriers`` at a point."""
    za, zb = jnp.where(s.on, weights.w + y, 1), jnp.where(s.on, weights.p - y, 1)
    return Barriers(za, zb, jnp.where(s.on, 1 / (a / za + b / zb), 0), jnp.where(s.bounded, z / gap, 0))


def condensed(s, B, H, J):
    r"""The matrix of Newton's equations in x alone, :math:`H + \Sigma + J^T E^{-1} J`; the identity for fixed x."""
    W = H + (J.T * jnp.sum(B.per_row, axis=0)) @ J
    both = s.free[:, None] & s.free
    W = jnp.where(both, (W + W.T) / 2, 0)
    return W + jnp.diag(jnp.where(s.free, jnp.sum(B.per_variable, axis=0), 1))


def factor(W, H, shift):
    """(L, shift): of W plus the least multiple of I tried that makes it positive definite [WB, Section 3.1].

    shift is the last multiple that was needed, here or before.
    """
    first = jnp.where(shift > 0, jnp.maximum(shift / 3, 1e-20), 1e-4 * jnp.maximum(vec.max_abs(H), 1))
    growth = jnp.where(shift > 0, 8, 100)
    identity = jnp.eye(W.shape[0], dtype=W.dtype)

    def bad(carry):
        L, _, tries = carry
        return ~jnp.all(jnp.isfinite(L)) & (tries < 40)

    def again(carry):
        _, added, tries = carry
        new = jnp.where(tries == 0, 0, jnp.where(tries == 1, first, growth * added))
        return jnp.linalg.cholesky(W + new * identity), new, tries + 1

    L, added, _ = lax.while_loop(bad, again, (jnp.full_like(W, jnp.nan), jnp.zeros_like(shift), 0))
    return L, jnp.where(added > 0, added, shift)


def learnt_at(state, at, J, y):
    """The learnt Hessian at a point that follows the iterate, by the point's multipliers y [2, m]."""
    v = net(y)
    r = (at.g - J.T @ v) - (state.iterate.g - state.J.T @ v)
    B = learnt(state.B, at.x - state.iterate.x, r, state.nit == 0)
    return jnp.where(state.nit < 0, state.B, B)


def learnt(B, s, r, is_first):
    """B after Powell's damped BFGS update by a step s and the change r of the Lagrangian's gradient.

    J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006, Procedure 18.2. The first pair sets the scale
    (6.20). A step of length 0 changes nothing.
    """
    sr, rr = vec.dot(s, r), vec.dot(r, r)
    tiny = jnp.finfo(s.dtype).tiny
    identity = jnp.eye(s.size, dtype=B.dtype)
    B = jnp.where(is_first & (sr > 0), jnp.clip(rr / jnp.where(sr > 0, sr, 1), 1e-4, 1e4) * identity, B)
    Bs = B @ s
    sBs = vec.dot(s, Bs)
    theta = jnp.where(sr >= 0.2 * sBs, 1, 0.8 * sBs / jnp.maximum(sBs - sr, tiny))
    r = theta * r + (1 - theta) * Bs
    new = B - jnp.outer(Bs, Bs) / jnp.maximum(sBs, tiny) + jnp.outer(r, r) / jnp.maximum(vec.dot(s, r), tiny)
    fine = (sBs > tiny) & jnp.all(jnp.isfinite(new))
    return jnp.where(fine, (new + new.T) / 2, B)


class Change(NamedTuple):
    """A change of x and of the multipliers."""

    x: Any  # [n]
    y: Any  # [2, m]
    z: Any  # [2, n]


def newton(s, weights, B, L, g, J, point, h):
    """Newton's step for the multipliers and x, by the Cholesky factor L of :func:`condensed`.

    Args:
      point: the ``Change`` that holds x, y and z themselves.
      h: [2, m] the distances of the rows; those of a second-order correction include what the rows bent away.
    """
    mu = weights.mu
    gap = gaps(s, point.x)
    q = h - mu / B.za + mu / B.zb
    away = jnp.where(s.bounded, mu / gap, 0)
    rhs = J.T @ net(point.y - B.per_row * q) + net(away) - g
    d = cho_solve((L, True), jnp.where(s.free, rhs, 0))
    dy = -B.per_row * (signed(J @ d) + q)
    return Change(d, dy, away - jnp.where(s.bounded, point.z, 0) - B.per_variable * signed(d))


def fraction(v, dv, tau):
    """The largest t <= 1 for which no v + t dv is below (1 - tau) v: the fraction to the boundary [WB, (8)]."""
    # As the largest relative fall: a quotient by v > 0 is safe.
    return tau / jnp.maximum(jnp.max(-dv / v, initial=0), tau)


def relative(d, x):
    """The largest change of a variable, relative to max(|x|, 1)."""
    return jnp.max(jnp.abs(d) / jnp.maximum(jnp.abs(x), 1), initial=0)
