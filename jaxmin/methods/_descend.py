"""descend: a direction and a line search make a method."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._core import vector as vec
from jaxmin._core.batch_cond import seldom
from jaxmin._core.box import EVERYWHERE
from jaxmin._core.protocol import Direction, Iterate, Method, Start
from jaxmin._core.pytree import check_tree
from jaxmin._core.status import Status
from jaxmin.methods._noise_floor import Floor, Verdict, floor_after, judge, noise, unit


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
    floor: Floor
    status: Any  # [] int32

    # of a direction that wants products

    @property
    def along(self):
        return self.direction.along

    @property
    def stays(self):
        return ~self.direction.ready


def descend(direction, linesearch, first_step="unit"):
    """A method: at each accepted iterate a direction, along it a line search, one trial an update.

    A direction that does not lead downhill is replaced by the steepest descent. So is, once, one along
    which the search failed. If that fails too, or nothing is gained any more although the gradient still
    promises much, so is, once, the direction by the steepest descent in the units of x. Then the solve ends.

    In a box the trials lie on the path x + t d bent along the bounds, and d moves only the variables that are
    free: not those at a bound where f falls outwards (two-metric projection [3]).

    A direction that wants products is worked out in trips that stay at the iterate; its search begins when it is ready.

    Args:
      direction: a ``Direction``, or any Optax-style transformation (gradient in, update out). Inside ``minimize``
        it sees x as one flat vector; a transformation that wants the user's tree goes in as ``method`` with
        ``linesearch`` beside it.
      linesearch: a ``LineSearch``.
      first_step: where a search begins: "unit", at 1, is right for a direction with a scale of its own
        (quasi-Newton), and the default; "decrease", where a slope as steep as the one now would give the
        decrease of the last iteration again [1, eq. (3.60)], for one that has none.

    Returns:
      A ``Method``.

    References:
      [1] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006.
      [2] J. E. Dennis and R. B. Schnabel, Numerical Methods for Unconstrained Optimization, 1983.
      [3] D. P. Bertsekas, SIAM J. Control Optim. 20 (1982), 221-246.
    """
    if first_step not in ("unit", "decrease"):
        raise ValueError(f"first_step={first_step!r}: one of 'unit', 'decrease'")
    if not isinstance(direction, Direction):
        direction = _from_transformation(direction)
    products = direction.wants == "product"

    def init(params):
        dtype = vec.scalar_dtype(params)
        zero, g = jnp.zeros((), dtype), vec.zeros(params)
        return DescentState(
            trial=params,
            search=linesearch.init(Start(zero, zero, zero, jnp.inf), zero + 1),
            iterate=Iterate(params, zero, g),
            nit=jnp.full((), -1, jnp.int32),
            d=g,
            slope0=zero,
            direction=direction.init(params),
            step=zero + 1,
            fresh=jnp.ones((), bool),
            floor=Floor.unknown(zero),
            status=jnp.full((), Status.RUNNING, jnp.int32),
        )

    def update(grad, state, params, /, *, value, hv=None, box=None, ended=None, **_):
        check_tree("grad", grad, params)
        value, edge = jnp.asarray(value), EVERYWHERE if box is None else box
        last, dtype = state.iterate, state.slope0.dtype
        ulp = unit(value, dtype)
        f = value.astype(dtype)
        going = jnp.ones((), bool) if ended is None else ~ended
        at_x0 = going & (state.nit < 0)
        searching = going & state.direction.ready if products else going

        # The trial, told to the search.
        predicted = vec.dot(last.g, vec.sub(params, last.x))
        slope_there = vec.dot(grad, edge.moving(params, state.d))
        start = Start(last.f, state.slope0, noise(state.floor.f_lowest, last.f, ulp, state.floor.measured), jnp.inf)
        search = linesearch.step(state.search, start, f, slope_there, predicted)
        accepted = at_x0 | (searching & search.done)
        failed = searching & search.failed & ~accepted
        iterate = Iterate(*(vec.where(accepted, new, old) for new, old in zip((params, f, grad), last)))
        step = jnp.where(accepted & ~at_x0, state.search.step, state.step)

        # The direction from the new iterate. After a failure: the steepest descent from the old one.
        # In a box: among the variables that are free at the new one.
        free = edge.free(params, grad)
        previous = Iterate(edge.only(free, last.x, params), last.f, edge.only(free, last.g))
        product = {"hv": edge.only(free, hv)} if products else {}
        d, memory = direction.update(
            edge.only(free, grad), state.direction, params,
            previous=previous, accepted=accepted, restart=state.fresh, **product,
        )  # fmt: skip
        found = going & ~searching & memory.ready if products else accepted
        d = edge.only(free, d)
        slope = vec.dot(grad, d)
        usable = found & (slope < 0) & (slope > -jnp.inf)
        steepest = (found & ~usable) | (failed & ~state.fresh)
        begins = usable | steepest
        fresh = ~usable & (state.fresh | steepest)
        g = edge.only(edge.free(iterate.x, iterate.g), iterate.g)
        norm = vec.norm(g)
        slope0 = jnp.where(usable, slope, jnp.where(steepest, -norm * jnp.minimum(1, norm), state.slope0))

        # The first trial along it.
        if linesearch.growth is not None:
            t = jnp.where(at_x0, 1, linesearch.growth * step)
        elif first_step == "decrease":
            again = 2 * (last.f - f) / -slope0
            known = accepted & ~at_x0 & (again > 0) & jnp.isfinite(again)
            t = jnp.where(known, again, jnp.where(fresh, 1, jnp.minimum(1, 1 / vec.norm(d))))
        else:
            # A steepest descent after another, where f has no curvature to learn from: as far as the last one.
            t = jnp.where(fresh & state.fresh & ~at_x0, jnp.maximum(step, 1), 1)

        gnorm = vec.max_abs(edge.projected(iterate.x, iterate.g))
        floor, doubtful = floor_after(
            state.floor,
            ulp,
            at_x0=at_x0,
            accepted=found,
            failed=failed,
            f0=last.f,
            f=f,
            falls=slope_there < 0.5 * state.slope0,
            gnorm=gnorm,
            xnorm=vec.max_abs(iterate.x),
            expected=jnp.abs(slope0),
            natural=t,
        )

        # Onward. Where the direction leads nowhere, or nothing is gained any more, there is something to mend first.
        d = vec.where(usable, d, state.d)

        def as_usual():
            return Onward(d, slope0, jnp.zeros((), bool), Verdict.none(floor))

        def mended():
            downhill = vec.where(steepest, vec.scale(-jnp.minimum(1, 1 / norm), g), d)
            # The steepest descent in the units of x: each variable in proportion to its size [2, Section 7.1].
            scaled = jax.tree.map(lambda g, x: -g * x * x, g, iterate.x)
            slope_scaled = vec.dot(g, scaled)
            verdict, retry = judge(
                floor,
                ulp,
                failed=failed,
                last_resort=state.fresh,
                gnorm=gnorm,
                g_lowest=state.floor.g_lowest,
                expected=jnp.abs(slope0),
                promise=jnp.sqrt(-slope_scaled),
            )
            return Onward(vec.where(retry, scaled, downhill), jnp.where(retry, slope_scaled, slope0), retry, verdict)

        on = seldom(going & (steepest | doubtful), mended, as_usual)
        ahead = Start(iterate.f, on.slope0, noise(floor.f_lowest, iterate.f, ulp, on.verdict.measured), jnp.inf)
        search = vec.where(begins | on.retry, linesearch.init(ahead, t.astype(dtype)), search)

        trial = edge.clip(vec.axpy(search.step, on.d, iterate.x))
        new = DescentState(
            trial=vec.where(memory.ready, trial, iterate.x) if products else trial,
            search=search,
            iterate=iterate,
            nit=state.nit + accepted.astype(jnp.int32),
            d=on.d,
            slope0=on.slope0,
            direction=memory,
            step=step,
            fresh=fresh | on.retry,
            floor=floor._replace(**on.verdict.of_floor()),
            status=on.verdict.status,
        )
        return vec.sub(new.trial, params), new

    def inverse_hessian(state):
        return direction.inverse_hessian(state.direction)

    def warm_start(state, H):
        # Not fresh: what the direction knows is not dropped at x0.
        return state._replace(direction=direction.warm_start(state.direction, H), fresh=jnp.zeros((), bool))

    return Method(
        init,
        update,
        inverse_hessian if direction.inverse_hessian else None,
        wants=direction.wants,
        warm_start=warm_start if direction.warm_start else None,
        trees=direction.trees,
    )


class Onward(NamedTuple):
    """How it goes on from the iterate."""

    d: Any
    slope0: Any
    retry: Any  # [] bool: the method begins anew, along d
    verdict: Verdict


def _from_transformation(transformation):
    """An Optax-style transformation as a direction."""

    def update(grad, state, params, *, previous, accepted, restart):
        del previous, restart
        d, new = transformation.update(grad, state, params)
        return d, vec.where(accepted, new, state)

    return Direction(transformation.init, update)
