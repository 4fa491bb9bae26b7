"""Brent's search for a minimum of a function of one variable, by its values only, with one evaluation a step.

The minimum lies between two ends. While one of them is unknown, the search takes growing steps towards it [2]. Once
both are known, it takes Brent's steps [1]: to the vertex of the parabola through the three lowest points, or a golden
section if that vertex is not reliable.

References:
  [1] R. P. Brent, Algorithms for Minimization without Derivatives, 1973, chapter 5.
  [2] W. H. Press et al., Numerical Recipes, third edition, 2007, sections 10.1 and 10.3.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

# The golden section: the fraction of the longer side that a step takes, and the growth of steps to match.
_GOLD, _GROWTH = 0.381966, 1.618034
# While an end is unknown, a step to the vertex of a parabola may be at most this many times the last one.
_GROWTH_MAX = 110


class Search(NamedTuple):
    """A search for a minimum of phi(t); phi(0) is known and finite."""

    # constant
    lower: Any  # [] <= 0; nothing is evaluated below
    upper: Any  # [] >= 0; nothing is evaluated above
    least: Any  # [] the least distance between two values of t that matters
    # changes with every step
    step: Any  # [] the t to evaluate next
    done: Any  # [] bool: x is the minimum, to within the tolerance
    a: Any  # [] the lower end; -inf while it is unknown
    b: Any  # [] the upper end; inf while it is unknown
    x: Any  # [] where phi is lowest
    w: Any  # [] where it is second lowest
    v: Any  # [] where it is third lowest, or was second lowest before
    fx: Any
    fw: Any
    fv: Any
    d: Any  # [] the last step
    e: Any  # [] the step before it, or the longer side if the last step was a golden section


def begin(f, lower, upper, least):
    """The search before its first trial.

    The first trial is t = 1, or farther if 1 is small compared with ``least``, or as far as the limits allow.

    Args:
      f: phi(0).
      lower, upper: the limits of t; infinite if there is no limit.
      least: the least distance between two values of t that matters, > 0.
    """
    zero = jnp.zeros_like(f)
    largest = float(jnp.finfo(f.dtype).max) / 8  # so that no distance overflows
    lower, upper = jnp.maximum(lower, -largest), jnp.minimum(upper, largest)
    first = jnp.maximum(1, least / float(jnp.finfo(f.dtype).eps) ** 0.5)
    forward = jnp.minimum(upper, first)
    step = jnp.where(forward > 0, forward, jnp.maximum(lower, -first)).astype(f.dtype)
    no = jnp.zeros((), bool)
    a, b = zero - jnp.inf, zero + jnp.inf
    return Search(lower, upper, least, step, no, a, b, zero, zero, zero, f, f, f, step, step)


def advance(search, f, tol, ulp, zero_change=0):
    """The search after its trial.

    Args:
      search: the ``Search``.
      f: phi(search.step), not NaN.
      tol: the minimum is wanted to within 2 (tol |t| + least).
      ulp: the relative rounding of f.
      zero_change: a change of f up to this size counts as 0, however small f is.

    Returns:
      The ``Search``, with the next trial or ``done``.
    """
    search = _placed(search, f)
    _, _, least, _, _, a, b, x, w, v, fx, fw, fv, d, _ = search
    tol1 = tol * jnp.abs(x) + least
    tol2 = 2 * tol1

    # The search is done by Brent's test, or if f does not differ between three points.
    known = (a > -jnp.inf) & (b < jnp.inf)
    xm = (a + b) / 2
    narrow = known & (jnp.abs(x - xm) <= tol2 - (b - a) / 2)
    apart = (x != w) & (x != v) & (v != w)
    flat = known & apart & (jnp.maximum(fw, fv) - fx <= 2 * ulp * jnp.abs(fx) + zero_change)

    vertex = _vertex(w - x, v - x, fw - fx, fv - fx)
    outward = _outward(search, vertex, tol1)
    inward, parabolic, longer = _inward(search, vertex, tol, tol1, xm)
    step = jnp.clip(x + jnp.where(known, inward, outward), search.lower, search.upper)
    return search._replace(
        step=step,
        done=narrow | flat,
        d=step - x,
        e=jnp.where(known & ~parabolic, longer, d),
    )


class Vertex(NamedTuple):
    """The parabola through the three lowest points."""

    ahead: Any  # [] from x to its vertex
    exists: Any  # [] bool: it has one
    straight: Any  # [] bool: it is a straight line


def _outward(search, vertex, tol1):
    """The step while an end is not known: towards that end, and no shorter than the last step.

    If steps to vertices could become shorter, they might never pass the minimum.
    """
    x, w, b = search.x, search.w, search.b
    way = jnp.where(b == jnp.inf, 1, -1).astype(x.dtype)
    last, ahead = jnp.abs(x - w), jnp.where(vertex.straight, jnp.inf, way * vertex.ahead)
    passed = vertex.exists & (search.step == x) & (ahead < -tol1) & (ahead > -last)
    far = (vertex.exists | vertex.straight) & (ahead > 0)
    grown = jnp.where(far, jnp.clip(ahead, last, _GROWTH_MAX * last), _GROWTH * last)
    return jnp.where(passed, vertex.ahead, way * jnp.maximum(grown, tol1))


def _inward(search, vertex, tol, tol1, xm):
    """Brent's step, between two known ends; whether it goes to the vertex; and the longer side.

    x is an end itself only at a limit, and then the minimum is probably there.
    """
    a, b, x, e = search.a, search.b, search.x, search.e
    ahead, tol2 = vertex.ahead, 2 * tol1
    longer = jnp.where(x >= xm, a - x, b - x)
    at_limit = (x == a) | (x == b)
    inside = (x + ahead > a) & (x + ahead < b)
    parabolic = vertex.exists & inside & (jnp.abs(e) > tol1) & (jnp.abs(ahead) < jnp.abs(e) / 2)
    by_the_end = (x + ahead - a < tol2) | (b - x - ahead < tol2)
    side = jnp.where(x <= xm, 1, -1).astype(x.dtype)
    section = jnp.where(at_limit, tol, _GOLD).astype(x.dtype) * longer
    inward = jnp.where(parabolic, jnp.where(by_the_end, side * tol1, ahead), section)
    # The sign of so short a step may be rounding: go to the longer side, where Brent's method follows the sign.
    return jnp.where(jnp.abs(inward) < tol1, side * tol1, inward), parabolic, longer


def _placed(search, f):
    """Put the trial in its place among the points and the ends."""
    lower, upper, _, u, _, a, b, x, w, v, fx, fw, fv, _, _ = search
    lowest, right = f < fx, u > x
    second = ~lowest & ((f <= fw) | (w == x))
    third = ~lowest & ~second & ((f <= fv) | (v == x) | (v == w))
    moved = lowest | second

    a = jnp.where(lowest, jnp.where(right, x, a), jnp.where(right, a, u))
    b = jnp.where(lowest, jnp.where(right, b, x), jnp.where(right, u, b))
    v, fv = (jnp.where(moved, *pair) for pair in ((w, jnp.where(third, u, v)), (fw, jnp.where(third, f, fv))))
    w, fw = (jnp.where(lowest, *pair) for pair in ((x, jnp.where(second, u, w)), (fx, jnp.where(second, f, fw))))
    x, fx = jnp.where(lowest, u, x), jnp.where(lowest, f, fx)
    a, b = jnp.where(x <= lower, x, a), jnp.where(x >= upper, x, b)
    return search._replace(a=a, b=b, x=x, w=w, v=v, fx=fx, fw=fw, fv=fv)


def _vertex(w, v, fw, fv):
    """The ``Vertex`` of the parabola through (0, 0), (w, fw) and (v, fv)."""
    highest = jnp.maximum(fw, fv)
    usable = (highest > 0) & (highest < jnp.inf) & (w != 0) & (v != 0) & (w != v)
    fw, fv = (jnp.where(usable, f / jnp.where(usable, highest, 1), 0) for f in (fw, fv))
    below, scale = 2 * (w * fv - v * fw), 2 * (jnp.abs(w * fv) + jnp.abs(v * fw))
    straight = usable & (jnp.abs(below) <= float(jnp.finfo(w.dtype).eps) ** 0.5 * scale)
    level = (w * w * fv - v * v * fw) / jnp.where(below == 0, 1, below)
    return Vertex(level, usable & ~straight & jnp.isfinite(level), straight)
