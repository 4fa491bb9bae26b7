"""The loop: one evaluation a trip, the only stopping rule, the only counters."""

import functools
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmin._core import vector as vec
from jaxmin._core.box import gradient_norm
from jaxmin._core.status import Status
from jaxmin._driver import history as ring
from jaxmin._driver.evaluation import SECOND_ORDER, beside, nothing_kept
from jaxmin.transforms._lookup import reuse, searches


class Limits(NamedTuple):
    """When to stop; every entry may be traced. A negative tolerance is never met."""

    gtol: Any  # infinity norm of the gradient, in a box of the projected one
    ftol: Any  # change of f between two iterates, relative to max(|f_old|, |f|, 1)
    xtol: Any  # change of x between two iterates, relative to max(|x|, 1), in the infinity norm
    maxiter: Any  # iterates after x0
    maxfun: Any  # evaluations


class Carry(NamedTuple):
    state: Any  # the method's
    aux: Any  # of the iterate
    nfev: Any  # [] int32: points at which f was asked for
    status: Any  # [] int32
    nhev: Any = None  # [] int32: Hessians or products with them, for methods that want them
    history: Any = None  # a ``History``, if one is kept
    kept: Any = None  # the user's Hessian, if it is used: a ``Kept``


def begin(evaluate, method, x0, aux0, history=0, keep_x=False):
    """The ``Carry`` before the first trip; nothing is evaluated.

    Args:
      evaluate: see :func:`run`.
      method: a ``Method``.
      x0: the start, a vector.
      aux0: anything built like aux.
      history: how many iterates to keep record of.
      keep_x: whether their points are kept too.
    """
    none = jnp.zeros((), jnp.int32)
    nhev = none if method.wants in SECOND_ORDER else None
    state = method.init(x0)
    hessian = nothing_kept(evaluate, method.wants, x0)
    kept = ring.empty(history, state.iterate.f.dtype, x0 if keep_x else None) if history else None
    return Carry(state, aux0, none, jnp.full((), Status.RUNNING, jnp.int32), nhev, kept, hessian)


def run(evaluate, rounded, method, limits, carry, box=None, watch=None, steps=None, unrolled=None):
    """Trips of :func:`advance` until a status ends them.

    Args:
      evaluate: x -> (value, grad, aux); grad is None for a method that wants none. An ``Evaluation`` where there are
        second derivatives by hand.
      rounded: x -> x as the user's dtypes hold it.
      method: a ``Method``.
      limits: a ``Limits``.
      carry: a ``Carry``; one that has ended comes back as it is.
      box: a ``Box``, or None.
      watch: (accepted, iterate, gnorm, nit, nfev, status) -> status, or None.
      steps: [] int32: so many trips at most; None for as many as it takes.
      unrolled: a number known while compiling: so many trips, of which those after the end do nothing. The loop
        then has derivatives, and keeps what they need of every trip.

    Returns:
      The last ``Carry``.
    """

    step = lambda old: trip(evaluate, rounded, method, limits, box, watch, old)
    if unrolled is not None:
        going = lambda carry, _: (lax.cond(carry.status == Status.RUNNING, step, lambda carry: carry, carry), None)
        return lax.scan(going, carry, length=unrolled)[0]
    if steps is None:
        return lax.while_loop(lambda carry: carry.status == Status.RUNNING, step, carry)
    goes_on = lambda both: (both[0].status == Status.RUNNING) & (both[1] > 0)
    return lax.while_loop(goes_on, lambda both: (step(both[0]), both[1] - 1), (carry, steps))[0]


def trip(evaluate, rounded, method, limits, box, watch, old, **told):
    """One trip of the loop: :func:`advance`, with the record that is kept and whoever watches."""
    new = advance(evaluate, rounded, method, limits, box, old, **told)
    # In a batch the trips of a lane that has ended are made and dropped.
    accepted = (new.state.nit > old.state.nit) & (old.status == Status.RUNNING)
    if old.history is None and watch is None:
        return new
    gnorm = gradient_norm(new.state.iterate.x, new.state.iterate.g, box)
    if old.history is not None:
        new = new._replace(history=ring.record(old.history, accepted, old.state, new.state, gnorm, new.nfev))
    if watch is not None:
        new = new._replace(status=watch(accepted, new.state.iterate, gnorm, new.state.nit, new.nfev, new.status))
    return new


def trip_in_batch(evaluate, rounded, method, limits, box, old):
    """The trip of one lane of a batch: where it has ended, its result stays, and no new point is evaluated.

    Only that is selected where that is enough: a select of all that a lane carries is a pass over it. A method that is
    told that it has ended keeps its iterate by itself.
    """
    running = old.status == Status.RUNNING
    waits = "ended" in inspect.signature(method.update).parameters
    new = trip(evaluate, rounded, method, limits, box, None, old, **({"ended": ~running} if waits else {}))
    fields = ("trial",) if waits else ("trial", "iterate", "nit")
    known = set(fields) <= set(getattr(old.state, "_fields", ()))
    if method.observe is not None or not known or (method.inverse_hessian is not None and not waits):
        return vec.where(running, new, old)
    state = {name: vec.where(running, getattr(new.state, name), getattr(old.state, name)) for name in fields}
    kept = {name: vec.where(running, getattr(new, name), getattr(old, name)) for name in new._fields if name != "state"}
    return new._replace(state=new.state._replace(**state), **kept)


def advance(evaluate, rounded, method, limits, box, carry, **told):
    """Evaluate the method's trial, tell it (beside what else is to be told), count, and test."""
    x = rounded(carry.state.trial)
    if box is not None:
        x = box.clip(x)
    if method.observe is not None:
        return _advance_foreign(evaluate, method, limits, box, carry, x)

    if box is not None:
        told["box"] = box
    if method.wants == "value":
        told["xtol"] = limits.xtol
    nfev, nhev = carry.nfev + 1, carry.nhev
    kept = carry.kept
    if method.wants in SECOND_ORDER:
        (value, grad, aux), second, kept = beside(evaluate, method.wants, carry.state, carry.aux, kept, x)
        told["hv" if method.wants == "product" else "H"] = second
        stays = carry.state.stays.astype(jnp.int32)
        nfev, nhev = nfev - stays, nhev + stays
    else:
        value, grad, aux = evaluate(x)
    _, state = method.update(grad, carry.state, x, value=value, **told)
    status = _status(carry.state, state, nfev, limits, box)
    accepted = state.improved if hasattr(state, "improved") else state.nit > carry.state.nit
    return Carry(state, vec.where(accepted, aux, carry.aux), nfev, status, nhev, kept=kept)


def _advance_foreign(evaluate, method, limits, box, carry, x):
    """A trip of a transformation: every point is an iterate, tested before the update, which may search by itself."""
    known = method.stored(carry.state) if not carry.aux else None
    if known is None:
        value, grad, aux = evaluate(x)
        nfev = carry.nfev + 1
    else:
        (value, grad), missing = reuse(known, lambda: evaluate(x)[:2])
        aux, nfev = carry.aux, carry.nfev + missing.astype(jnp.int32)

    state = method.observe(grad, carry.state, x, value=value)
    status = _status(carry.state, state, nfev, limits, box)
    value_fn, asked = _value_fn(evaluate)
    going = functools.partial(method.update, grad, state, x, value=value, value_fn=value_fn)
    state = lax.cond(status == Status.RUNNING, lambda: going()[1], lambda: state)
    nested = searches(state)
    if nested is not None:
        nfev = nfev + jnp.where(status == Status.RUNNING, nested, 0).astype(jnp.int32)
    elif asked:  # evaluations that nobody counts: no number is better than a wrong one
        nfev = jnp.full((), -1, jnp.int32)
    if box is not None and (asked or known is not None):
        raise ValueError(
            "bounds: this transformation searches by itself, or stores a value that a projection would outdate; "
            "take a method of jaxmin's, or a transformation without a search"
        )
    accepted = state.nit > carry.state.nit
    return Carry(state, vec.where(accepted, aux, carry.aux), nfev, status)


def _value_fn(evaluate):
    """f alone, for searches that ask for it, and a list that is empty until one does.

    Its derivative is the gradient that was traced, not a new trace.
    """
    asked = []

    @jax.custom_jvp
    def value_fn(x):
        asked.append(True)
        return evaluate(x)[0]

    @value_fn.defjvp
    def derivative(primals, tangents):
        value, grad, _ = evaluate(*primals)
        along = jax.tree.leaves(jax.tree.map(lambda g, v: jnp.sum(g * v), grad, tangents[0]))
        return value, functools.reduce(jnp.add, along).astype(value.dtype)

    return value_fn, asked


def _status(before, after, nfev, limits, box):
    """The stopping rule: Status.RUNNING, or how the solve has ended."""
    _, f, g = after.iterate
    if hasattr(after, "spread"):
        finite, tests = jnp.isfinite(f), _tests_of_spread(after.spread, limits)
    else:
        finite, tests = jnp.isfinite(f) & jnp.isfinite(vec.max_abs(g)), _tests(before, after, limits, box)

    # The first that holds.
    rows = (
        (f == -jnp.inf, Status.UNBOUNDED),
        (~finite, Status.NAN),
        *tests,
        (after.status != Status.RUNNING, after.status),
        (after.nit >= limits.maxiter, Status.MAXITER),
        (nfev >= limits.maxfun, Status.MAXFUN),
    )
    status = jnp.full((), Status.RUNNING, jnp.int32)
    for holds, code in reversed(rows):
        status = jnp.where(holds, code, status)
    return status


def _tests(before, after, limits, box):
    """Of the gradient, and of the change of f and of x between two iterates."""
    x, f, g = after.iterate
    gnorm = gradient_norm(x, g, box)
    moved = (after.nit > before.nit) & (after.nit > 0)

    scale = jnp.maximum(jnp.maximum(jnp.abs(before.iterate.f), jnp.abs(f)), 1)
    flat = moved & (limits.ftol >= 0) & (jnp.abs(before.iterate.f - f) <= limits.ftol * scale)
    # A pass over x that nobody pays for who does not ask.
    still = moved & lax.cond(
        limits.xtol >= 0,
        lambda: vec.max_abs(vec.sub(x, before.iterate.x)) <= limits.xtol * jnp.maximum(vec.max_abs(x), 1),
        lambda: jnp.zeros((), bool),
    )
    # A bound on the relative gradient of Dennis and Schnabel (1983, eq. (7.2.5)), which knows no units of x and f.
    relative = gnorm * jnp.maximum(vec.max_abs(x), 1) / jnp.maximum(jnp.abs(f), 1)
    at_floor = (after.status == Status.PRECISION_LOSS) & (relative <= limits.gtol)
    return (
        (gnorm <= limits.gtol, Status.CONVERGED),
        (flat, Status.FTOL),
        (still, Status.XTOL),
        (at_floor, Status.PRECISION_FLOOR),
    )


def _tests_of_spread(spread, limits):
    """Of a method without gradients: both spreads, of f and of x, within their tolerances, where those are given."""
    df, dx = spread
    given = (limits.ftol >= 0) | (limits.xtol >= 0)
    close = ((df <= limits.ftol) | (limits.ftol < 0)) & ((dx <= limits.xtol) | (limits.xtol < 0))
    return ((given & close, Status.SPREAD),)
