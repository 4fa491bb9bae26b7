"""The loop: one evaluation a step, and the only counters."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmin._core import vector as vec
from jaxmin._core.box import Unbounded, gradient_norm
from jaxmin._core.protocol import Method, check_state
from jaxmin._core.status import Status
from jaxmin._driver import history as ring
from jaxmin._driver.evaluation import Evaluation, counters, empty_cache, evaluate
from jaxmin._driver.stopping import Limits, Stopping, tested
from jaxmin.transforms._lookup import reuse, searches


class Carry(NamedTuple):
    """What changes from step to step."""

    state: Any  # the method's
    aux: Any  # of the iterate
    nfev: Any  # [] int32: points at which f was asked for
    status: Any  # [] int32
    njev: Any = None  # [] int32: Jacobians, for methods that want them in steps of their own
    nhev: Any = None  # [] int32: Hessians or products with them, for methods that want them
    history: Any = None  # a ``History``, if one is recorded
    cache: Any = None  # the user's Hessian, if it is used: a ``CachedHessian``


class Loop(NamedTuple):
    """What all steps of a solve share."""

    evaluation: Evaluation
    rounded: Callable[[Any], Any]  # x -> x as the user's dtypes hold it
    method: Method
    stopping: Stopping
    limits: Limits
    box: Any = Unbounded()
    watch: Any = None  # (accepted, iterate, gnorm, nit, nfev, status) -> status, or None


def begin(evaluation, method, x0, aux0, history=0, keep_x=False):
    """The ``Carry`` before the first step; nothing is evaluated.

    Args:
      evaluation: an ``Evaluation``.
      method: a ``Method``.
      x0: the start, a vector.
      aux0: anything built like aux.
      history: how many iterates are recorded.
      keep_x: whether their points are recorded too.
    """
    state = method.init(x0)
    check_state(state)
    none = jnp.zeros((), jnp.int32)
    carry = Carry(state, aux0, none, jnp.full((), Status.RUNNING, jnp.int32))
    record = ring.empty(history, state.iterate.f.dtype, x0 if keep_x else None) if history else None
    cache = empty_cache(evaluation, method.wants, x0)
    return carry._replace(history=record, cache=cache, **dict.fromkeys(counters(method.wants), none))


def run(loop, carry, steps=None, unrolled=None):
    """Steps until a status ends them.

    Args:
      loop: a ``Loop``.
      carry: a ``Carry``; one that has ended comes back as it is.
      steps: [] int32: so many steps at most; None for as many as it takes.
      unrolled: a number known while compiling: so many steps; those after the end do nothing. The loop then has
        derivatives, and stores what they need of every step.

    Returns:
      The last ``Carry``.
    """
    one = functools.partial(step, loop)
    if unrolled is not None:
        going = lambda carry, _: (lax.cond(carry.status == Status.RUNNING, one, lambda carry: carry, carry), None)
        return lax.scan(going, carry, length=unrolled)[0]
    if steps is None:
        return lax.while_loop(lambda carry: carry.status == Status.RUNNING, one, carry)
    goes_on = lambda both: (both[0].status == Status.RUNNING) & (both[1] > 0)
    return lax.while_loop(goes_on, lambda both: (one(both[0]), both[1] - 1), (carry, steps))[0]


def step(loop, old, ended=None):
    """One step: :func:`advance`, the record, and the watcher."""
    new = advance(loop, old, ended)
    if old.history is None and loop.watch is None:
        return new
    # In a batch the steps of a lane that has ended are made and dropped.
    iterated = (new.state.nit > old.state.nit) & (old.status == Status.RUNNING)
    gnorm = gradient_norm(new.state.iterate.x, new.state.iterate.g, loop.box)
    if old.history is not None:
        new = new._replace(history=ring.record(old.history, iterated, old.state, new.state, gnorm, new.nfev))
    if loop.watch is not None:
        status = loop.watch(iterated, new.state.iterate, gnorm, new.state.nit, new.nfev, new.status)
        new = new._replace(status=status)
    return new


def step_in_batch(loop, old):
    """The step of one lane of a batch: where it has ended, its result stays, and no new point is evaluated.

    It selects only the fields that the result needs, since selecting the whole carry would copy it. A method that
    wants ``ended`` leaves its iterate unchanged itself.
    """
    running, method = old.status == Status.RUNNING, loop.method
    waits = "ended" in method.wants
    new = step(loop, old, ended=~running)
    if method.observe is not None or (method.inverse_hessian is not None and not waits):
        return vec.where(running, new, old)
    fields = ("trial",) if waits else ("trial", "iterate", "nit")
    state = {name: vec.where(running, getattr(new.state, name), getattr(old.state, name)) for name in fields}
    rest = {name: vec.where(running, getattr(new, name), getattr(old, name)) for name in new._fields if name != "state"}
    return new._replace(state=new.state._replace(**state), **rest)


def advance(loop, carry, ended=None):
    """Evaluate the method's trial, hand it what it wants, count, and test."""
    method = loop.method
    x = loop.box.clip(loop.rounded(carry.state.trial))
    if method.observe is not None:
        return _advance_observed(loop, carry, x)

    found, wanted, cache = evaluate(loop.evaluation, method.wants, carry, x)
    settings = {"box": loop.box, "xtol": loop.limits.xtol} | ({} if ended is None else {"ended": ended})
    wanted |= {name: setting for name, setting in settings.items() if name in method.wants}
    _, state = method.update(found.grad, carry.state, x, value=found.value, **wanted)
    counts = _counts(carry, counters(method.wants))
    status = loop.stopping.status(tested(carry.state, state, counts["nfev"], loop.limits, loop.box))
    return carry._replace(
        state=state, aux=vec.where(state.accepted, found.aux, carry.aux), status=status, cache=cache, **counts
    )


def _counts(carry, of_stays):
    """The counters after a step: f, or what the method asked for while it stays at the iterate."""
    nfev = carry.nfev + 1
    if not of_stays:
        return {"nfev": nfev}
    stays = carry.state.stays.astype(jnp.int32)
    return {"nfev": nfev - stays} | {name: getattr(carry, name) + stays for name in of_stays}


def _advance_observed(loop, carry, x):
    """A step of a transformation: every point is an iterate, tested before the update, which may search by itself."""
    evaluation, method = loop.evaluation, loop.method
    known = method.stored(carry.state) if not carry.aux else None
    if known is None:
        value, grad, aux, _ = evaluation(x)
        nfev = carry.nfev + 1
    else:
        (value, grad), missing = reuse(known, lambda: tuple(evaluation(x)[:2]))
        aux, nfev = carry.aux, carry.nfev + missing.astype(jnp.int32)

    state = method.observe(grad, carry.state, x, value=value)
    status = loop.stopping.status(tested(carry.state, state, nfev, loop.limits, loop.box))
    value_fn, asked = _value_fn(evaluation)
    going = functools.partial(method.update, grad, state, x, value=value, value_fn=value_fn)
    state = lax.cond(status == Status.RUNNING, lambda: going()[1], lambda: state)
    nested = searches(state)
    if nested is not None:
        nfev = nfev + jnp.where(status == Status.RUNNING, nested, 0).astype(jnp.int32)
    elif asked:  # nothing counts these evaluations: no number is better than a wrong number
        nfev = jnp.full((), -1, jnp.int32)
    if loop.box.bounded and (asked or known is not None):
        raise ValueError(
            "bounds: this transformation searches by itself, or stores a value that a projection would outdate; "
            "use a method of jaxmin's, or a transformation without a search"
        )
    return carry._replace(state=state, aux=vec.where(state.accepted, aux, carry.aux), nfev=nfev, status=status)


def _value_fn(evaluation):
    """f alone, for searches that ask for it, and a list that is empty until one does.

    Its derivative is the gradient that was traced, not a new trace.
    """
    asked = []

    @jax.custom_jvp
    def value_fn(x):
        asked.append(True)
        return evaluation(x).value

    @value_fn.defjvp
    def derivative(primals, tangents):
        found = evaluation(*primals)
        along = jax.tree.leaves(jax.tree.map(lambda g, v: jnp.sum(g * v), found.grad, tangents[0]))
        return found.value, functools.reduce(jnp.add, along).astype(found.value.dtype)

    return value_fn, asked
