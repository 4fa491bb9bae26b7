"""descend: a method from a direction and a line search."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._core import vector as vec
from jaxmin._core.batch_cond import cond_in_batch
from jaxmin._core.box import Sizes, Unbounded, sizes
from jaxmin._core.protocol import Direction, Iterate, LineSearch, Method, Start
from jaxmin._core.pytree import check_tree
from jaxmin._core.status import Status
from jaxmin._core.typing import TransformationLike
from jaxmin.linesearches import search
from jaxmin.methods._noise_floor import MEMORY, STALLS_MAX, Doubt, Floor, Progress, Verdict, floor_after, judge, unit


class DescentState(NamedTuple):
    # changes with every trial
    trial: Any  # like params: the point to evaluate next
    search: Any  # the line search's state
    # changes with every iterate
    iterate: Iterate
    accepted: Any  # [] bool: it is the trial given last
    nit: Any  # [] int32: accepted points; -1 before x0
    d: Any  # like params: the direction of the search
    slope0: Any  # [] g . d
    direction: Any  # the direction's state
    step: Any  # [] t, the step length accepted last; 1 at first
    # how to end a solve that cannot go on
    fresh: Any  # [] bool: d is the steepest descent, tried because another direction failed
    floor: Floor
    status: Any  # [] int32

    # for a direction that needs products

    @property
    def along(self):
        """Like params: the direction of the next product."""
        return self.direction.along

    @property
    def stays(self):
        """[] bool: the trial is the iterate, and the next step evaluates a product there."""
        return ~self.direction.ready

    @property
    def saddle(self):
        """[] bool: at x0 the direction has found negative curvature, or the products go on."""
        return (self.nit == 0) & getattr(self.direction, "saddle", False)


class Parts(NamedTuple):
    """The parts of a descent."""

    direction: Direction
    linesearch: LineSearch
    first_step: str

    @property
    def products(self):
        """Whether the direction needs products of the Hessian."""
        return "hv" in self.direction.wants


class Given(NamedTuple):
    """The arguments of an update."""

    x: Any  # like params: the trial
    f: Any  # [] in the dtype of inner products
    g: Any  # like params
    hv: Any  # like params, or None
    box: Any
    ulp: Any  # the relative rounding of f
    going: Any  # [] bool: the solve has not ended
    at_x0: Any  # [] bool: this is the first evaluation


class Outcome(NamedTuple):
    """What the line search decides about a trial."""

    search: Any  # the state of the search
    accepted: Any  # [] bool: the trial is the new iterate
    failed: Any  # [] bool: the search found no acceptable step
    iterate: Iterate  # the new one if accepted, else the old one
    step: Any  # [] the step length accepted last
    slope: Any  # [] phi' at the trial


class Heading(NamedTuple):
    """The direction from the iterate."""

    memory: Any  # the direction's state
    d: Any  # like params
    found: Any  # [] bool: the direction has just been computed
    usable: Any  # [] bool: it leads downhill
    steepest: Any  # [] bool: the steepest descent replaces it
    fresh: Any  # [] bool: the search is along the steepest descent, since another direction failed
    g: Any  # like params: the gradient at the iterate, 0 for variables that are not free
    sizes: Sizes  # at the iterate
    slope0: Any  # [] the slope along the direction of the search


class NextSearch(NamedTuple):
    """The search that goes on from the iterate."""

    d: Any
    slope0: Any
    retry: Any  # [] bool: the method restarts, along d
    verdict: Verdict


def descend(
    direction: Direction | TransformationLike, linesearch: LineSearch | str | None, first_step: str = "unit"
) -> Method:
    """Make a method: at each iterate a direction, and along it a line search, with one trial per update.

    The steepest descent replaces a direction that does not lead downhill. It also replaces, once, a direction along
    which the search failed. If that search fails too, or there is no more progress although the gradient predicts a
    large decrease, the method tries once the steepest descent in the units of x [2, Section 7.1]. Then the solve ends.

    In a box the trials lie on the path x + t d, bent along the bounds. d moves only the free variables. A variable at a
    bound is not free if f falls outwards there (two-metric projection [3]).

    A direction that needs products is computed in steps that stay at the iterate. Its search begins when it is ready.

    Args:
      direction: a ``Direction``, or any Optax-style transformation (gradient in, update out). Inside ``minimize`` it is
        given x as one flat vector. Pass a transformation that needs the user's tree to ``minimize`` as ``method``,
        together with ``linesearch``.
      linesearch: a ``LineSearch``, or a search's name; None is "backtracking".
      first_step: the first step length of a search. "unit" (default) is 1, for directions with a natural length
        (quasi-Newton). "decrease" is the length that would repeat the decrease of the last iteration
        [1, eq. (3.60)], for directions without one.

    Returns:
      A ``Method``.

    Raises:
      ValueError: if ``first_step`` is neither "unit" nor "decrease", or ``linesearch`` is not a search or its name.
      TypeError: if ``direction`` has no ``init`` and ``update``.

    >>> import jax.numpy as jnp, jaxmin
    >>> from jaxmin.transforms import momentum
    >>> heavy_ball = jaxmin.descend(momentum(1.0, 0.5), jaxmin.backtracking())
    >>> jaxmin.minimize(lambda x: jnp.sum((x - 2) ** 2), [0.0, 5.0], method=heavy_ball).x.round(3).tolist()
    [2.0, 2.0]

    References:
      [1] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006.
      [2] J. E. Dennis and R. B. Schnabel, Numerical Methods for Unconstrained Optimization, 1983.
      [3] D. P. Bertsekas, SIAM J. Control Optim. 20 (1982), 221-246.
    """
    if first_step not in ("unit", "decrease"):
        raise ValueError(f"first_step={first_step!r}: give 'unit' or 'decrease'")
    if not isinstance(direction, Direction):
        if not (hasattr(direction, "init") and hasattr(direction, "update")):
            raise TypeError(f"direction={direction!r}: give a Direction, or an object with init and update")
        return descend(_from_transformation(direction), linesearch, first_step)
    return _method(Parts(direction, search()(linesearch), first_step))


def _method(parts: Parts) -> Method:
    """The ``Method`` of a descent."""
    direction: Any = parts.direction

    def init(params, *, box=Unbounded()):
        return _before_x0(parts, params, box)

    def update(grad, state, params, /, *, value, hv=None, box=Unbounded(), ended=None, **_):
        check_tree("grad", grad, params)
        value, dtype = jnp.asarray(value), state.slope0.dtype
        going = jnp.ones((), bool) if ended is None else ~ended
        ulp = unit(value, dtype)
        given = Given(params, value.astype(dtype), grad, hv, box, ulp, going, going & (state.nit < 0))
        outcome = _searched(parts, state, given)
        heading = _headed(parts, state, given, outcome)
        t = _first_trial(parts, state, given, outcome, heading)
        new = _state_after(parts, state, given, outcome, heading, t)
        return vec.sub(new.trial, params), new

    def inverse_hessian(state):
        return direction.inverse_hessian(state.direction)

    def warm_start(state, H):
        # If fresh were true, the direction would discard H at x0.
        return state._replace(direction=direction.warm_start(state.direction, H), fresh=jnp.zeros((), bool))

    return Method(
        init,
        update,
        wants=direction.wants | {"box", "ended"},
        inverse_hessian=inverse_hessian if direction.inverse_hessian else None,
        warm_start=warm_start if direction.warm_start else None,
        trees=direction.trees,
    )


def _before_x0(parts, params, box):
    """The state before the first evaluation."""
    zero, g = jnp.zeros((), vec.scalar_dtype(params)), vec.zeros(params)
    return DescentState(
        trial=params,
        search=parts.linesearch.init(Start(zero, zero, zero, jnp.inf), zero + 1),
        iterate=Iterate(params, zero, g),
        accepted=jnp.zeros((), bool),
        nit=jnp.full((), -1, jnp.int32),
        d=g,
        slope0=zero,
        direction=parts.direction.init(params, **({"box": box} if "set" in parts.direction.wants else {})),
        step=zero + 1,
        fresh=jnp.ones((), bool),
        floor=Floor.unknown(zero),
        status=jnp.full((), Status.RUNNING, jnp.int32),
    )


def _searched(parts, state, given):
    """Pass the trial to the search."""
    last, (x, f, g, _, box, ulp, going, at_x0) = state.iterate, given
    searching = going & state.direction.ready if parts.products else going
    predicted, slope = vec.measure((last.g, vec.sub(x, last.x)), (g, box.moving(x, state.d)))
    if parts.products:  # a direction of negative curvature from a point without gradient
        predicted = jnp.where(predicted == 0, state.search.step * state.slope0, predicted)
    f0 = _reference(state.direction, last.f)
    start = Start(f0, state.slope0, state.floor.noise.hides(f0, ulp), box.max_step)
    search = parts.linesearch.step(state.search, start, f, slope, predicted)
    accepted = at_x0 | (searching & search.done)
    return Outcome(
        search=search,
        accepted=accepted,
        failed=searching & search.failed & ~accepted,
        iterate=Iterate(*(vec.where(accepted, new, old) for new, old in zip((x, f, g), last))),
        step=jnp.where(accepted & ~at_x0, state.search.step, state.step),
        slope=slope,
    )


def _reference(memory, f):
    """What a search compares f with: f at its start; with a nonmonotone direction, the highest of the last values."""
    return jnp.maximum(f, memory.highest) if _is_nonmonotone(memory) else f


def _is_nonmonotone(memory):
    return hasattr(memory, "highest")


def _patience(memory):
    """How many iterates may be without progress."""
    return STALLS_MAX + MEMORY if _is_nonmonotone(memory) else STALLS_MAX


def _headed(parts, state, given, outcome):
    """The direction from the new iterate; in a box it moves only the variables that are free there.

    After a failed search it is the steepest descent from the old iterate.
    """
    last, (x, _, g, hv, box, _, going, _) = state.iterate, given
    _, accepted, failed, iterate, *_ = outcome
    free = box.free(x, g)
    previous = Iterate(box.only(free, last.x, x), last.f, box.only(free, last.g))
    wanted = {"hv": box.only(free, hv)} if parts.products else {}
    wanted |= {"box": box} if parts.direction.wants & {"box", "set"} else {}
    d, memory = parts.direction.update(
        box.only(free, g), state.direction, x, previous=previous, accepted=accepted, restart=state.fresh, **wanted
    )
    found = going & state.stays & memory.ready if parts.products else accepted
    d = box.step(x, box.only(free, d))
    (slope,) = vec.measure((g, d))
    if parts.products:
        # From a point without gradient: the average slope that the curvature gives along d.
        slope = jnp.where(slope == 0, 0.5 * getattr(memory, "bend", 0), slope)
    usable = found & (slope < 0) & (slope > -jnp.inf)
    steepest = (found & ~usable) | (failed & ~state.fresh)
    g = box.projected(iterate.x, iterate.g)
    size = sizes(iterate.x, iterate.g, box)
    return Heading(
        memory=memory,
        d=d,
        found=found,
        usable=usable,
        steepest=steepest,
        fresh=~usable & (state.fresh | steepest),
        g=g,
        sizes=size,
        slope0=jnp.where(usable, slope, jnp.where(steepest, -size.free * _length(size), state.slope0)),
    )


def _length(size):
    """The length of a step along the steepest descent: min(1, |g|), but enough to change x and g visibly.

    Where f is in small units, so is g, and a step as short as g would be lost in the rounding of x.
    """
    return jnp.maximum(jnp.minimum(1, size.free), jnp.sqrt(jnp.finfo(size.x.dtype).eps) * size.x)


def _first_trial(parts, state, given, outcome, heading):
    """The first step along the direction."""
    at_x0, step, fresh = given.at_x0, outcome.step, heading.fresh
    if parts.linesearch.growth is not None:
        return jnp.where(at_x0, 1, parts.linesearch.growth * step)
    if parts.first_step == "decrease" and not given.box.is_set:
        again = 2 * (state.iterate.f - given.f) / -heading.slope0
        known = outcome.accepted & ~at_x0 & (again > 0) & jnp.isfinite(again)
        return jnp.where(known, again, jnp.where(fresh, 1, jnp.minimum(1, 1 / vec.norm(heading.d))))
    # After another steepest descent there was no curvature to learn from: as far as the last step.
    return jnp.where(fresh & state.fresh & ~at_x0, jnp.maximum(step, 1), 1)


def _state_after(parts, state, given, outcome, heading, t):
    """The state after the step, with the next trial."""
    box, ulp, iterate = given.box, given.ulp, outcome.iterate
    floor, doubtful = _floor_after(state, given, outcome, heading, t)
    d = vec.where(heading.usable, heading.d, state.d)
    usual = NextSearch(d, heading.slope0, jnp.zeros((), bool), Verdict.none(floor))
    # The direction must be replaced if it failed or if there is no progress.
    on = cond_in_batch(
        given.going & (heading.steepest | doubtful),
        lambda: _replaced(state, given, outcome, heading, floor, d),
        lambda: usual,
        vec.size(given.x),
    )
    floor = on.verdict.on(floor)
    f0 = _reference(heading.memory, iterate.f)
    ahead = Start(f0, on.slope0, floor.noise.hides(f0, ulp), box.max_step)
    begins = heading.usable | heading.steepest
    search = vec.where(begins | on.retry, parts.linesearch.init(ahead, t.astype(state.slope0.dtype)), outcome.search)
    trial = box.clip(vec.axpy(search.step, on.d, iterate.x))
    return DescentState(
        trial=vec.where(heading.memory.ready, trial, iterate.x) if parts.products else trial,
        search=search,
        iterate=iterate,
        accepted=outcome.accepted,
        nit=state.nit + outcome.accepted.astype(jnp.int32),
        d=on.d,
        slope0=on.slope0,
        direction=heading.memory,
        step=outcome.step,
        fresh=heading.fresh | on.retry,
        floor=floor,
        status=on.verdict.status,
    )


def _floor_after(state, given, outcome, heading, t):
    """The noise floor after the step, and whether it is time to judge."""
    step = Progress(
        at_x0=given.at_x0,
        accepted=heading.found,
        failed=outcome.failed,
        f0=state.iterate.f,
        f=given.f,
        falls=outcome.slope < 0.5 * state.slope0,
        gnorm=heading.sizes.projected,
        xnorm=heading.sizes.x,
        expected=jnp.abs(heading.slope0),
        natural=t,
        patience=_patience(state.direction),
        reference=_reference(state.direction, state.iterate.f) if _is_nonmonotone(state.direction) else None,
    )
    return floor_after(state.floor, given.ulp, step)


def _replaced(state, given, outcome, heading, floor, d):
    """Search along the steepest descent if there is no better direction left; or end the solve."""
    x, _, _ = outcome.iterate
    g, size, slope0 = heading.g, heading.sizes, heading.slope0
    along = jnp.where(size.free > 0, _length(size) / size.free, 1)
    downhill = vec.where(heading.steepest, vec.scale(-along, g), d)
    # The steepest descent in the units of x: each variable moves in proportion to its size [2, Section 7.1].
    # In a set it may lead out, and is not tried.
    scaled = vec.zeros(x) if given.box.is_set else jax.tree.map(lambda g, x: -g * x * x, g, x)
    (slope_scaled,) = vec.measure((g, scaled))
    why = Doubt(
        failed=outcome.failed,
        last_resort=state.fresh,
        f=outcome.iterate.f,
        xnorm=heading.sizes.x,
        gnorm=heading.sizes.projected,
        g_lowest=state.floor.noise.g_lowest,
        expected=jnp.abs(slope0),
        promise=jnp.sqrt(-slope_scaled),
        patience=_patience(state.direction),
    )
    verdict, retry = judge(floor, given.ulp, why)
    return NextSearch(vec.where(retry, scaled, downhill), jnp.where(retry, slope_scaled, slope0), retry, verdict)


def _from_transformation(transformation):
    """An Optax-style transformation as a direction."""

    def update(grad, state, params, *, previous, accepted, restart):
        del previous, restart
        d, new = transformation.update(grad, state, params)
        return d, vec.where(accepted, new, state)

    return Direction(transformation.init, update)
