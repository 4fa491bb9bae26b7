"""Two methods for constraints as one: the second one goes on where the first one cannot."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxmin._core import vector as vec
from jaxmin._core.batch_cond import anywhere
from jaxmin._core.protocol import Iterate, Method, Usual
from jaxmin._core.status import Status

# How a method for constraints ends where it cannot go on.
_FAILURES = frozenset({Status.SEARCH_FAILED, Status.INFEASIBLE, Status.MULTIPLIERS, Status.PRECISION_LOSS})


class FallbackState(NamedTuple):
    trial: Any  # [n]
    iterate: Iterate
    accepted: Any  # [] bool
    nit: Any  # [] int32
    status: Any  # [] int32
    kkt: Any  # the ``Kkt`` at the iterate
    multipliers: Any  # [m] v at the trial
    stays: Any  # [] bool
    first: Any  # the state of the first method
    second: Any  # that of the second one
    fallen: Any  # [] bool: the second one goes on


def or_else(first: Method, second: Method, begin: Callable[..., Any]) -> Method:
    """The first method, and from its last iterate on the second one, once the first one cannot go on.

    Args:
      first, second: methods with the same ``wants``, constraints among them.
      begin: (the first one's state, rows, box) -> the second one's state, before its first step.
    """

    def init(x, /, *, constraints, box):
        state = first.init(x, constraints=constraints, box=box)
        return _joined(state, begin(state, constraints, box), jnp.zeros((), bool))

    def warm_start(state, multipliers, *, x, box):
        assert first.warm_start is not None
        return _joined(first.warm_start(state.first, multipliers, x=x, box=box), state.second, state.fallen)

    def update(grad, state, params, /, **given):
        one = _advanced(first, ~state.fallen, state.first, grad, params, given)
        two = _advanced(second, state.fallen, state.second, grad, params, given)
        falls = ~state.fallen & (one.status != Status.RUNNING)
        two = vec.where(falls, begin(one, given["constraints"], given["box"]), two)
        fallen = state.fallen | falls
        new = _joined(one, two, fallen)
        return vec.sub(new.trial, params), new

    return Method(
        init, update, wants=first.wants, warm_start=warm_start, usual=Usual(first, _FAILURES), defaults=first.defaults,
    )  # fmt: skip


def _advanced(method, goes_on, state, grad, params, given):
    """The state after a step of the method, where it goes on."""
    new = lax.cond(anywhere(goes_on), lambda: method.update(grad, state, params, **given)[1], lambda: state)
    return vec.where(goes_on, new, state)


def _joined(one, two, fallen):
    """The ``FallbackState`` of two states."""
    # Until the second method has seen its start, the last iterate of the first one stands.
    begun = fallen & (two.nit >= 0)
    iterate, kkt = vec.where(begun, (two.iterate, two.kkt), (one.iterate, one.kkt))
    trial, multipliers = vec.where(fallen, (two.trial, two.multipliers), (one.trial, one.multipliers))
    return FallbackState(
        trial=trial,
        iterate=iterate,
        accepted=jnp.where(begun, two.accepted, one.accepted),
        nit=jnp.where(fallen, one.nit + two.nit + 1, one.nit),
        status=jnp.where(fallen, two.status, one.status),
        kkt=kkt,
        multipliers=multipliers,
        stays=fallen & two.stays,
        first=one,
        second=two,
        fallen=fallen,
    )
