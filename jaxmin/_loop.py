"""The loop: one evaluation a trip, the only stopping rule, the only counters."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxmin import _result as status_of
from jaxmin import _vector as vec
from jaxmin._result import RUNNING


class Limits(NamedTuple):
    """When to stop; every entry may be traced. A negative tolerance is never met."""

    gtol: Any  # infinity norm of the gradient
    ftol: Any  # decrease of f between two iterates, relative to max(|f_old|, |f|, 1)
    xtol: Any  # change of x between two iterates, relative to max(|x|, 1), in the infinity norm
    maxiter: Any  # iterates after x0
    maxfun: Any  # evaluations


class Carry(NamedTuple):
    state: Any  # the method's
    aux: Any  # of the iterate
    nfev: Any  # [] int32
    status: Any  # [] int32


def run(evaluate, rounded, method, x0, aux0, limits):
    """Minimise from x0: trips of :func:`advance` until a status ends them.

    Args:
      evaluate: x -> (value, grad, aux).
      rounded: x -> x as the user's dtypes hold it.
      method: a ``Method``.
      x0: the start, a vector.
      aux0: anything built like aux.
      limits: a ``Limits``.

    Returns:
      The last ``Carry``.
    """
    carry = Carry(method.init(x0), aux0, jnp.zeros((), jnp.int32), jnp.full((), RUNNING, jnp.int32))
    return lax.while_loop(
        lambda carry: carry.status == RUNNING,
        lambda carry: advance(evaluate, rounded, method, limits, carry),
        carry,
    )


def advance(evaluate, rounded, method, limits, carry):
    """One trip: evaluate the method's trial, tell it, count, and test."""
    x = rounded(carry.state.trial)
    value, grad, aux = evaluate(x)
    _, state = method.update(grad, carry.state, x, value=value)
    accepted = state.nit > carry.state.nit
    aux = vec.where(accepted, aux, carry.aux)
    nfev = carry.nfev + 1
    return Carry(state, aux, nfev, _status(carry.state, state, nfev, limits))


def _status(before, after, nfev, limits):
    """The stopping rule: RUNNING, or how the solve has ended."""
    x, f, g = after.iterate
    gnorm = vec.max_abs(g)
    moved = (after.nit > before.nit) & (after.nit > 0)

    scale = jnp.maximum(jnp.maximum(jnp.abs(before.iterate.f), jnp.abs(f)), 1)
    change = vec.max_abs(vec.sub(x, before.iterate.x))
    flat = moved & (limits.ftol >= 0) & (before.iterate.f - f <= limits.ftol * scale)
    still = moved & (limits.xtol >= 0) & (change <= limits.xtol * jnp.maximum(vec.max_abs(x), 1))
    at_floor = (after.status == status_of.PRECISION_LOSS) & (gnorm <= limits.gtol * jnp.maximum(1, jnp.abs(f)))

    # The first that holds.
    rows = (
        (f == -jnp.inf, status_of.UNBOUNDED),
        (~jnp.isfinite(f) | ~jnp.isfinite(gnorm), status_of.NAN),
        (gnorm <= limits.gtol, status_of.CONVERGED),
        (flat, status_of.FTOL),
        (still, status_of.XTOL),
        (at_floor, status_of.PRECISION_FLOOR),
        (after.status != RUNNING, after.status),
        (after.nit >= limits.maxiter, status_of.MAXITER),
        (nfev >= limits.maxfun, status_of.MAXFUN),
    )
    status = jnp.full((), RUNNING, jnp.int32)
    for holds, code in reversed(rows):
        status = jnp.where(holds, code, status)
    return status
