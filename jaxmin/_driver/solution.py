"""What a solve gives, as arrays."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxmin._core import vector as vec
from jaxmin._core.box import gradient_norm
from jaxmin._core.status import SUCCESSES, Status


class Counts(NamedTuple):
    """What of a solution has no derivative."""

    nit: Any  # [] int32: iterations
    nfev: Any  # [] int32: evaluations
    nhev: Any  # [] int32: products or Hessians, or None
    curvature: Any  # what the method knows of it, or None
    history: Any  # a ``History``, or None
    njev: Any  # [] int32: Jacobians of residuals, or None
    cosine: Any  # [] of the angle between r and what J reaches, or None
    gnorm0: Any  # [] the norm of the (projected) gradient at x0, or None


class Solution(NamedTuple):
    """What a solve gives, as arrays."""

    x: Any  # [n], or a tuple of arrays
    f: Any  # []
    g: Any  # like x
    aux: Any
    status: Any  # [] int32
    others: Counts
    kkt: Any = None  # a ``Kkt``, of a constrained solve
    residuals: Any = None  # ``Residuals``, of one


def or_feasible(solution, best):
    """The solution of a constrained solve, or the best feasible iterate where the solve ended without success.

    Args:
      best: the ``Feasible`` of the loop.
    """
    status = solution.status
    # What a callback chose, or where f is -inf, is the last iterate.
    ended_well = jnp.isin(status, jnp.asarray([*SUCCESSES, Status.CALLBACK, Status.UNBOUNDED]))
    takes = best.found & ~ended_well
    x, f, g = best.iterate
    # With a feasible iterate the problem is not infeasible.
    status = jnp.where(takes & (status == Status.INFEASIBLE), Status.SEARCH_FAILED, status)
    other = solution._replace(
        x=x, f=f.astype(solution.f.dtype), g=g, aux=best.aux, status=status, kkt=best.kkt, residuals=best.residuals
    )
    return vec.where(takes, other, solution)


class Bounded(NamedTuple):
    """What a result says of bounds; None where there are none."""

    gnorm: Any = None  # [] the infinity norm of the projected gradient; also of leaves that are not joined
    active: Any = None  # -1, 0 or 1 for each variable, in the leaves' shapes
    w: Any = None  # of a constrained solve: the multipliers of the bounds, in the leaves' shapes


def bounded(variables, within, solution):
    """The ``Bounded`` of a solution."""
    x, g, kkt = solution.x, solution.g, solution.kkt
    if kkt is not None:
        if not within.bounded:
            return Bounded(None, None, variables.parts(kkt.w))
        # A method need not know the multiplier of a fixed variable.
        w = jnp.where(within.lower == within.upper, -kkt.slope, kkt.w)
        return Bounded(None, variables.parts(kkt.active(x, within)), variables.parts(w))
    if not within.bounded:  # the norm of a sharded gradient would have to gather it
        return Bounded(None if variables.flat else gradient_norm(x, g))
    if within.is_set:  # its active variables have no names; a projection need not have derivatives
        return Bounded(gradient_norm(*lax.stop_gradient((x, g, within))))
    gnorm = gradient_norm(x, g, within)
    g = vec.zeros(x) if g is None else g  # without a gradient: where x is at a bound
    return Bounded(gnorm, variables.parts(within.active(x, g)))
