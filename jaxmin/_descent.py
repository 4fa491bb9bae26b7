"""descend: a direction and a line search make a method."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmin import _vector as vec
from jaxmin._method import Direction, Iterate, Method
from jaxmin._result import PRECISION_LOSS, RUNNING, SEARCH_FAILED

# A change of f below so many units in its last place is rounding for certain.
_ULPS = 4
# A rise of f by this power of the unit, relative, may still be rounding (sums of many terms, cancellation):
# within it a trial is judged by its slope. 2e-12 in float64, 6e-6 in float32.
_DOUBT = 0.75
# An expected decrease so many times above that would have shown for certain.
_CERTAIN = 100
# The floor of precision: so many iterates in a row that gained nothing ...
_STALLS_MAX = 6
# ... neither a lower f, nor a gradient norm this much below the lowest yet,
_IMPROVED = 0.9
# ... nor, as on the way off a saddle point, an expected decrease so much above the highest of the row.
_GROWN = 1.5


class DescentState(NamedTuple):
    # changes with every trial
    trial: Any  # like params: the point to evaluate next
    search: Any  # the line search's state
    # changes with every iterate
    iterate: Iterate
    nit: Any  # [] int32: accepted points; -1 before x0
    d: Any  # like params: the direction searched
    slope0: Any  # [] g . d
    direction: Any  # the direction's state
    step: Any  # [] t, the step accepted last; 1 at first
    # what ends a solve that cannot go on
    fresh: Any  # [] bool: d is the steepest descent, tried because another direction led nowhere
    stalls: Any  # [] int32: iterates in a row lost in rounding
    f_lowest: Any  # [] the lowest f yet
    g_lowest: Any  # [] the lowest norm of the gradient yet
    highest: Any  # [] the highest expected decrease in that row
    lost: Any  # [] bool: the natural step from the iterate was already within rounding, of f or of x
    contradicted: Any  # [] bool: f rose from the iterate to a trial at which it still falls, by the gradient
    status: Any  # [] int32


def descend(direction, linesearch, first_step="unit"):
    """A method: at each accepted iterate a direction, along it a line search, one trial an update.

    A direction that does not lead downhill is replaced by the steepest descent. So is, once, one along
    which the search failed; if that fails too, the solve cannot go on.

    Args:
      direction: a ``Direction``, or any Optax-style transformation (gradient in, update out).
      linesearch: a ``LineSearch``.
      first_step: where a search begins: "unit", at 1, is right for a direction with a scale of its own
        (quasi-Newton); "decrease", where a slope as steep as the one now would give the decrease of the
        last iteration again [1, eq. (3.60)], for one that has none.

    Returns:
      A ``Method``.

    References:
      [1] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006.
    """
    if first_step not in ("unit", "decrease"):
        raise ValueError(f"first_step={first_step!r}: one of 'unit', 'decrease'")
    if not isinstance(direction, Direction):
        direction = _from_transformation(direction)

    def init(params):
        dtype = vec.scalar_dtype(params)
        zero, g = jnp.zeros((), dtype), vec.zeros(params)
        return DescentState(
            trial=params,
            search=linesearch.init(zero, zero, zero + 1, zero + jnp.inf, zero),
            iterate=Iterate(params, zero, g),
            nit=jnp.full((), -1, jnp.int32),
            d=g,
            slope0=zero,
            direction=direction.init(params),
            step=zero + 1,
            fresh=jnp.ones((), bool),
            stalls=jnp.zeros((), jnp.int32),
            f_lowest=zero + jnp.inf,
            g_lowest=zero + jnp.inf,
            highest=zero,
            lost=jnp.zeros((), bool),
            contradicted=jnp.zeros((), bool),
            status=jnp.full((), RUNNING, jnp.int32),
        )

    def update(grad, state, params, *, value, **_):
        last, dtype = state.iterate, state.slope0.dtype
        ulp = max(float(jnp.finfo(value.dtype).eps), float(jnp.finfo(dtype).eps))
        f = value.astype(dtype)
        at_x0 = state.nit < 0

        # The trial, told to the search.
        predicted = vec.dot(last.g, vec.sub(params, last.x))
        slope_there = vec.dot(grad, state.d)
        search = linesearch.step(state.search, f, slope_there, predicted)
        accepted = at_x0 | search.done
        failed = search.failed & ~accepted
        iterate = Iterate(*(vec.where(accepted, new, old) for new, old in zip((params, f, grad), last)))
        step = jnp.where(accepted & ~at_x0, state.search.step, state.step)

        # The direction from the new iterate. After a failure: the steepest descent from the old one.
        d, memory = direction.update(
            grad, state.direction, params, previous=last, accepted=accepted, restart=state.fresh
        )
        gnorm, slope = vec.max_abs(iterate.g), vec.dot(grad, d)
        downhill = (slope < 0) & (slope > -jnp.inf)
        fresh = jnp.where(accepted, ~downhill, state.fresh | failed)
        norm = vec.norm(iterate.g)
        steepest = vec.scale(-jnp.minimum(1, 1 / norm), iterate.g)
        begins = accepted | (failed & ~state.fresh)
        d = vec.where(begins, vec.where(accepted & downhill, d, steepest), state.d)
        slope0 = jnp.where(accepted & downhill, slope, -norm * jnp.minimum(1, norm))
        slope0 = jnp.where(begins, slope0, state.slope0)

        # The search along it.
        f_lowest = jnp.where(accepted, jnp.minimum(f, state.f_lowest), state.f_lowest)
        doubt = ulp**_DOUBT * jnp.abs(f_lowest)
        noise = jnp.maximum(f_lowest + doubt - iterate.f, 0)
        if linesearch.growth is not None:
            t = jnp.where(at_x0, 1, linesearch.growth * step)
        elif first_step == "decrease":
            again = 2 * (last.f - f) / -slope0
            usable = accepted & ~at_x0 & (again > 0) & jnp.isfinite(again)
            t = jnp.where(usable, again, jnp.where(fresh, 1, jnp.minimum(1, 1 / vec.norm(d))))
        else:
            # A steepest descent after another, where f has no curvature to learn from: as far as the last one.
            t = jnp.where(fresh & state.fresh & ~at_x0, jnp.maximum(step, 1), 1)
        begun = linesearch.init(iterate.f, slope0, t.astype(dtype), jnp.full((), jnp.inf, dtype), noise)
        search = jax.tree.map(lambda new, old: jnp.where(begins, new, old), begun, search)

        # Is there anything left to gain?
        expected = jnp.abs(slope0)
        grown = expected > _GROWN * state.highest
        lower = f < state.f_lowest - _ULPS * ulp * jnp.abs(f)
        gained = at_x0 | lower | (gnorm < _IMPROVED * state.g_lowest)
        stalls = jnp.where(accepted, jnp.where(gained | grown, 0, state.stalls + 1), state.stalls)
        highest = jnp.where(accepted, jnp.where(gained, 0, jnp.maximum(expected, state.highest)), state.highest)
        rounding_of_x = _ULPS * ulp * gnorm * vec.max_abs(iterate.x)  # how far that alone may move f
        blur = jnp.maximum(doubt, rounding_of_x)
        lost = jnp.where(accepted, t * expected <= blur, state.lost)
        against_slopes = (f > last.f + blur) & (slope_there < 0.5 * state.slope0)
        contradicted = ~accepted & (state.contradicted | against_slopes)
        rounding = lost & ~contradicted
        status = jnp.where(failed & state.fresh, jnp.where(rounding, PRECISION_LOSS, SEARCH_FAILED), RUNNING)
        in_doubt = jnp.where(expected <= _CERTAIN * doubt, PRECISION_LOSS, SEARCH_FAILED)
        # Rounded steps may hop between a good point and its poorer neighbours: end at a good one.
        settled = (stalls >= _STALLS_MAX) & (gnorm <= 2 * state.g_lowest) | (stalls >= 2 * _STALLS_MAX)
        status = jnp.where(settled, in_doubt, status).astype(jnp.int32)

        new = DescentState(
            trial=vec.axpy(search.step, d, iterate.x),
            search=search,
            iterate=iterate,
            nit=state.nit + accepted,
            d=d,
            slope0=slope0,
            direction=memory,
            step=step,
            fresh=fresh,
            stalls=stalls,
            f_lowest=f_lowest,
            g_lowest=jnp.where(accepted, jnp.minimum(gnorm, state.g_lowest), state.g_lowest),
            highest=highest,
            lost=lost,
            contradicted=contradicted,
            status=status,
        )
        return vec.sub(new.trial, params), new

    def inverse_hessian(state):
        return direction.inverse_hessian(state.direction)

    return Method(init, update, inverse_hessian if direction.inverse_hessian else None)


def _from_transformation(transformation):
    """An Optax-style transformation as a direction."""

    def update(grad, state, params, *, previous, accepted, restart):
        del previous, restart
        d, new = transformation.update(grad, state, params)
        return d, vec.where(accepted, new, state)

    return Direction(transformation.init, update)
