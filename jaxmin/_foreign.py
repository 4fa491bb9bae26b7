"""Optax-style transformations of other libraries as methods, and the value and gradient their states hold."""

import dataclasses
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmin import _vector as vec
from jaxmin._descent import descend
from jaxmin._method import Iterate, LineSearch, Method
from jaxmin._result import RUNNING


class ForeignState(NamedTuple):
    trial: Any  # [n] the point to evaluate next
    iterate: Iterate  # the point evaluated last: every one is an iterate
    nit: Any  # [] int32; -1 before x0
    status: Any  # [] int32: RUNNING
    inner: Any  # the transformation's own state


class Foreign(NamedTuple):
    """A transformation chosen as a method; it becomes one when it is told how params are built."""

    transformation: Any
    linesearch: LineSearch | None = None

    def bind(self, to_params, to_vector):
        """The ``Method`` on flat vectors; the transformation itself sees ``to_params(vector)``."""
        transformation = _on_vectors(self.transformation, to_params, to_vector)
        if self.linesearch is not None:
            return descend(transformation, self.linesearch)
        return _as_method(transformation, to_params, to_vector)


def is_transformation(thing):
    """Whether it has Optax's two functions."""
    return callable(getattr(thing, "init", None)) and callable(getattr(thing, "update", None))


class _OnVectors(NamedTuple):
    init: Any
    update: Any


def _on_vectors(transformation, to_params, to_vector):
    names = inspect.signature(transformation.update).parameters.values()
    takes_more = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in names)

    def init(x):
        return transformation.init(to_params(x))

    def update(g, state, x, **extra):
        extra = extra if takes_more else {}
        if "grad" in extra:
            extra["grad"] = to_params(extra["grad"])
        updates, state = transformation.update(to_params(g), state, to_params(x), **extra)
        return to_vector(updates), state

    return _OnVectors(init, update)


def _as_method(transformation, to_params, to_vector):
    def init(x):
        zero, zeros = jnp.zeros((), vec.scalar_dtype(x)), vec.zeros(x)
        count = jnp.full((), -1, jnp.int32)
        return ForeignState(x, Iterate(x, zero, zeros), count, count * 0 + RUNNING, transformation.init(x))

    def observe(grad, state, x, *, value):
        iterate = Iterate(x, value.astype(state.iterate.f.dtype), grad)
        return state._replace(trial=x, iterate=iterate, nit=state.nit + 1)

    def update(grad, state, x, *, value, value_fn):
        updates, inner = transformation.update(
            grad, state.inner, x, value=value, grad=grad, value_fn=lambda params: value_fn(to_vector(params))
        )
        inner = jax.tree.map(lambda new, old: new.astype(old.dtype), inner, state.inner)
        return updates, state._replace(trial=vec.axpy(1, updates, x), inner=inner)

    def stored(state):
        holder = _holder(state.inner, to_params(state.trial))
        return None if holder is None else (holder.value, to_vector(holder.grad))

    return Method(init, update, observe=observe, stored=stored)


def searches(state):
    """What a nested line search reports of the evaluations of its last update: a count, or None."""
    counts = [node.num_linesearch_steps for node in _records(state) if hasattr(node, "num_linesearch_steps")]
    return sum(counts) if counts else None


def value_and_grad_from_state(fun, has_aux=False):
    """``jax.value_and_grad`` that takes both from an optimiser's state where it holds them, as Optax's does.

    Args:
      fun: the objective, ``fun(params, *args, **kwargs) -> scalar``.
      has_aux: fun returns ``(value, aux)``. No state holds aux, so fun is always evaluated then.

    Returns:
      ``f(params, *args, state, **kwargs) -> (value, grad)``. ``state`` is searched for one record (a
      NamedTuple or a dataclass) with a scalar ``value`` and a ``grad`` built like params. Where that value
      is finite both are taken from it; else fun is evaluated.

    Raises:
      ValueError: when called with a state that holds no such record.

    >>> from typing import Any, NamedTuple
    >>> import jax.numpy as jnp, jaxmin
    >>> class State(NamedTuple):
    ...     value: Any
    ...     grad: Any
    >>> f = jaxmin.value_and_grad_from_state(lambda x: jnp.sum(x**2))
    >>> x = jnp.ones(2)
    >>> value, grad = f(x, state=State(jnp.inf, x))
    >>> float(value), float(f(x, state=State(value, grad))[0])
    (2.0, 2.0)

    References:
      The function of the same name in Optax.
    """
    value_and_grad = jax.value_and_grad(fun, has_aux=has_aux)

    def from_state(params, *args, state, **kwargs):
        holder = _holder(state, params)
        if holder is None:
            raise ValueError(
                "state: it holds no record with a scalar 'value' and a 'grad' built like params. Evaluate with "
                "jax.value_and_grad, or use a method that stores them (store_grad=True for Optax's searches)."
            )

        def evaluate():
            return value_and_grad(params, *args, **kwargs)

        if has_aux:
            return evaluate()
        return reuse((holder.value, holder.grad), evaluate)[0]

    return from_state


def reuse(known, evaluate):
    """(value, grad) as known where the value is finite, else as evaluated; and whether it was evaluated."""
    wanted = jax.eval_shape(evaluate)
    known = jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), known, wanted)
    missing = ~jnp.isfinite(known[0])
    return lax.cond(missing, evaluate, lambda: known), missing


def _holder(state, params):
    """The record in a state that holds the value and the gradient at params; decided on shapes alone."""
    shapes = jax.tree.map(jnp.shape, params)

    def fits(node):
        if not (hasattr(node, "value") and hasattr(node, "grad")):
            return False
        same_tree = jax.tree.structure(node.grad) == jax.tree.structure(params)
        return same_tree and jnp.shape(node.value) == () and jax.tree.map(jnp.shape, node.grad) == shapes

    return next((node for node in _records(state) if fits(node)), None)


def _records(node):
    """Every NamedTuple and dataclass in a state."""
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        children = [getattr(node, field.name) for field in dataclasses.fields(node)]
        yield node
    elif isinstance(node, tuple) and hasattr(node, "_fields"):
        children = list(node)
        yield node
    elif isinstance(node, dict):
        children = list(node.values())
    elif isinstance(node, (list, tuple)):
        children = list(node)
    else:
        children = []
    for child in children:
        yield from _records(child)
