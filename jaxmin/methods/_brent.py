"""Brent's search for a minimum of a function of one variable, by its values alone, one evaluation a step.

The minimum lies between two ends, of which one may not be known yet. While it is not, the search goes on that way in
growing steps [2]; once both are, it takes Brent's [1]: to the vertex of the parabola through the three lowest points,
or, where that is not to be trusted, the golden section.

References:
  [1] R. P. Brent, Algorithms for Minimization without Derivatives, 1973, chapter 5.
  [2] W. H. Press et al., Numerical Recipes, third edition, 2007, sections 10.1 and 10.3.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

# The golden section: the part of the longer side that a step takes, and the growth of steps that keeps it.
_GOLD, _GROWTH = 0.381966, 1.618034
# A step to the vertex of a parabola may be so many times the last one, while an end is not known.
_GROWTH_MAX = 110


class Search(NamedTuple):
    """A search for a minimum of phi(t); phi(0) is known and finite."""

    # the same throughout
    lower: Any  # [] <= 0; nothing is evaluated below
    upper: Any  # [] >= 0; nothing is evaluated above
    least: Any  # [] the least distance of t that is worth telling apart
    # changes with every step
    step: Any  # [] the t to evaluate next
    done: Any  # [] bool: x is the minimum, as exact as was asked for
    a: Any  # [] the minimum is not below; -inf while that end is not known
    b: Any  # [] the minimum is not above; inf while that end is not known
    x: Any  # [] where phi is lowest
    w: Any  # [] where it is second lowest
    v: Any  # [] where it is third lowest, or was second lowest before
    fx: Any
    fw: Any
    fv: Any
    d: Any  # [] the last step
    e: Any  # [] the one before, or the longer side where the last was by the golden section


def begin(f, lower, upper, least):
    """The search before its first trial, which is t = 1, more where that is little beside x, or as near as can be.

    Args:
      f: phi(0).
      lower, upper: where it may look, infinite where there is no limit.
      least: the least distance of t that is worth telling apart, above 0.
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


def tell(search, f, tol, ulp, nothing=0):
    """The search after its trial.

    Args:
      f: phi(search.step); no NaN.
      tol: the minimum is sought to within 2 (tol |t| + least).
      ulp: the relative rounding of f.
      nothing: a difference of f that is none, however small f is.
    """
    search = _placed(search, f)
    _, _, least, _, _, a, b, x, w, v, fx, fw, fv, d, e = search
    tol1 = tol * jnp.abs(x) + least
    tol2 = 2 * tol1

    # Whether it has ended: Brent's test, or three points that f does not tell apart.
    known = (a > -jnp.inf) & (b < jnp.inf)
    xm = (a + b) / 2
    narrow = known & (jnp.abs(x - xm) <= tol2 - (b - a) / 2)
    apart = (x != w) & (x != v) & (v != w)
    flat = known & apart & (jnp.maximum(fw, fv) - fx <= 2 * ulp * jnp.abs(fx) + nothing)

    # An end is not known: on that way, no shorter than before, lest steps to vertices shrink and never pass it.
    vertex, has_vertex, straight = _vertex(w - x, v - x, fw - fx, fv - fx)
    way = jnp.where(b == jnp.inf, 1, -1).astype(x.dtype)
    last, ahead = jnp.abs(x - w), jnp.where(straight, jnp.inf, way * vertex)
    passed = has_vertex & (search.step == x) & (ahead < -tol1) & (ahead > -last)
    far = (has_vertex | straight) & (ahead > 0)
    grown = jnp.where(far, jnp.clip(ahead, last, _GROWTH_MAX * last), _GROWTH * last)
    outward = jnp.where(passed, vertex, way * jnp.maximum(grown, tol1))

    # Both are known: Brent's step. x is an end itself only at a limit, where the minimum then is, most likely.
    longer = jnp.where(x >= xm, a - x, b - x)
    at_limit = (x == a) | (x == b)
    inside = (x + vertex > a) & (x + vertex < b)
    parabolic = has_vertex & inside & (jnp.abs(e) > tol1) & (jnp.abs(vertex) < jnp.abs(e) / 2)
    by_the_end = (x + vertex - a < tol2) | (b - x - vertex < tol2)
    side = jnp.where(x <= xm, 1, -1).astype(x.dtype)
    section = jnp.where(at_limit, tol, _GOLD).astype(x.dtype) * longer
    inward = jnp.where(parabolic, jnp.where(by_the_end, side * tol1, vertex), section)
    # The sign of a vertex so near may be rounding: to the longer side, where Brent's goes by the sign.
    inward = jnp.where(jnp.abs(inward) < tol1, side * tol1, inward)

    step = jnp.clip(x + jnp.where(known, inward, outward), search.lower, search.upper)
    return search._replace(
        step=step,
        done=narrow | flat,
        d=step - x,
        e=jnp.where(known & ~parabolic, longer, d),
    )


def _placed(search, f):
    """The trial in its place among the points and the ends."""
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
    """Where the parabola through (0, 0), (w, fw) and (v, fv) is level, whether it is, and whether it is a line."""
    highest = jnp.maximum(fw, fv)
    usable = (highest > 0) & (highest < jnp.inf) & (w != 0) & (v != 0) & (w != v)
    fw, fv = (jnp.where(usable, f / jnp.where(usable, highest, 1), 0) for f in (fw, fv))
    below, scale = 2 * (w * fv - v * fw), 2 * (jnp.abs(w * fv) + jnp.abs(v * fw))
    straight = usable & (jnp.abs(below) <= float(jnp.finfo(w.dtype).eps) ** 0.5 * scale)
    level = (w * w * fv - v * v * fw) / jnp.where(below == 0, 1, below)
    return level, usable & ~straight & jnp.isfinite(level), straight
