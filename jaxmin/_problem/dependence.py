"""Whether fun depends on x, as far as its trace is certain of it."""

import math
from typing import Any

import jax.extend.core as jex
import numpy as np

from jaxmin._cache import rules

CONSTANT = (
    "fun does not depend on x, so no method leaves x0. Does it use another variable, such as x0 itself, in place of "
    "its argument?"
)
STEPS = (
    "the gradient of fun is 0 at every x, so no method that uses it leaves x0. Does fun pass x through stop_gradient, "
    "integers, comparisons, or functions such as round, floor and sign? Remove them, give the gradient as jac, or use "
    "'nelder_mead' or 'powell'."
)
_CALLS = {"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call"}
# What JAX makes the zeros of a gradient with.
_OF_ZEROS = {"broadcast_in_dim", "convert_element_type", "reshape"}


def flaw(jaxpr: Any, leaves: int, outputs: int, by_ad: bool) -> str | None:
    """What is wrong with fun, in words, where its trace is certain of it; None where nothing is known to be wrong.

    Args:
      jaxpr: x's leaves, others -> value, the leaves of the gradient, others.
      leaves: how many leaves x has.
      outputs: how many outputs are the value and the gradient.
      by_ad: whether the gradient is there, and by automatic differentiation.
    """
    inputs, found = jaxpr.invars, jaxpr.outvars[:outputs]
    if not any(math.prod(v.aval.shape) for v in inputs[:leaves]):
        return None
    if not (_has_hidden_ways(jaxpr) or any(_depends(jaxpr, [i < leaves for i in range(len(inputs))])[:outputs])):
        return CONSTANT
    made = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}
    return STEPS if by_ad and all(_is_zero(v, made) for v in found[1:]) else None


def _has_hidden_ways(jaxpr: Any) -> bool:
    """Whether numbers may pass by references or by the host."""
    return any(
        eqn.effects or "callback" in eqn.primitive.name or any(map(_has_hidden_ways, rules.inside(eqn)))
        for eqn in jaxpr.eqns
    )


def _depends(jaxpr: Any, inputs: list[bool]) -> list[bool]:
    """Which outputs may depend on these inputs."""
    reached = {v for v, is_one in zip(jaxpr.invars, inputs) if is_one}
    for eqn in jaxpr.eqns:
        given = [_is_reached(v, reached) for v in eqn.invars]
        body = _body(eqn)
        through = [any(given)] * len(eqn.outvars) if body is None else _depends(body, given)
        reached |= {v for v, is_one in zip(eqn.outvars, through) if is_one}
    return [_is_reached(v, reached) for v in jaxpr.outvars]


def _is_reached(v: Any, reached: set[Any]) -> bool:
    return not isinstance(v, jex.Literal) and v in reached


def _body(eqn: Any) -> Any:
    """The computation that an operation stands for, with the same inputs; None if it is not a call."""
    if eqn.primitive.name not in _CALLS:
        return None
    body = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    body = getattr(body, "jaxpr", body)
    return body if body is not None and len(body.invars) == len(eqn.invars) else None


def _is_zero(v: Any, made: dict[Any, Any]) -> bool:
    """Whether a variable is 0, whatever the inputs are."""
    while not isinstance(v, jex.Literal):
        eqn = made.get(v)
        if eqn is None or eqn.primitive.name not in _OF_ZEROS:
            return False
        v = eqn.invars[0]
    return bool(np.all(np.asarray(v.val) == 0))
