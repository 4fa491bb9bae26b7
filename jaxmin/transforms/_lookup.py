"""Find entries of an optimiser's state by name: a value and a gradient, the count of a search, an iterate."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmin._core.protocol import Iterate
from jaxmin._core.typing import PyTree, Scalar


def searches(state: PyTree) -> Any:
    """The number of evaluations that nested line searches report for their last update, or None."""
    counts = [node.num_linesearch_steps for node in _records(state) if hasattr(node, "num_linesearch_steps")]
    return sum(counts) if counts else None


def value_and_grad_from_state(fun: Callable[..., Any], has_aux: bool = False) -> Callable[..., tuple[Any, PyTree]]:
    """``jax.value_and_grad`` that reads both from an optimiser's state if it holds them, as in Optax.

    Args:
      fun: the objective, ``fun(params, *args, **kwargs) -> scalar``.
      has_aux: True if fun returns ``(value, aux)``; False by default. No state holds aux, so fun is then evaluated at
        each call.

    Returns:
      ``f(params, *args, state, **kwargs) -> (value, grad)``, or ``((value, aux), grad)``. It looks in ``state`` for a
      record (a NamedTuple or a dataclass) with a scalar ``value`` and a ``grad`` built like params. If that value is
      finite, it returns both from there; otherwise it evaluates fun.

    Raises:
      ValueError: by the returned function, if the state holds no such record.

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
    if has_aux:
        return lambda params, *args, state, **kwargs: value_and_grad(params, *args, **kwargs)

    def from_state(params: PyTree, *args: Any, state: PyTree, **kwargs: Any) -> tuple[Any, PyTree]:
        found = next((node for node in _records(state) if _holds(node, params)), None)
        if found is None:
            raise ValueError(
                "state: it holds no record with a scalar 'value' and a 'grad' built like params. Evaluate with "
                "jax.value_and_grad, or use a method that stores them (store_grad=True for Optax's searches)."
            )

        return reuse((found.value, found.grad), lambda: value_and_grad(params, *args, **kwargs))[0]

    return from_state


def iterate(state: PyTree) -> Iterate:
    """The last accepted point, with f and the gradient there, in the state of a jaxmin method.

    In a loop written by hand the parameters are the next trial of a line search. The result of the loop is
    ``iterate(state).x``.

    Args:
      state: a method's state, or a state that holds one: of a chain, of ``as_optax``, of a partition.

    Returns:
      The ``Iterate``: ``x`` and ``g`` like params, ``f`` a scalar. Before the first update f is 0.

    Raises:
      ValueError: if the state holds no iterate.

    >>> import jax, jax.numpy as jnp, jaxmin
    >>> f = lambda x: jnp.sum((x - 3) ** 2)
    >>> tx, x = jaxmin.lbfgs(), jnp.zeros(2)
    >>> state = tx.init(x)
    >>> for _ in range(5):
    ...     value, grad = jax.value_and_grad(f)(x)
    ...     updates, state = tx.update(grad, state, x, value=value)
    ...     x = x + updates
    >>> jaxmin.iterate(state).x.round(3).tolist()
    [3.0, 3.0]
    """
    for node in _records(state):
        if isinstance(getattr(node, "iterate", None), Iterate):
            return node.iterate
    raise ValueError("state: it holds no iterate; give the state of a jaxmin method")


def reuse(known: PyTree, evaluate: Callable[[], PyTree]) -> tuple[PyTree, Scalar]:
    """(value, grad): the known one if its value is finite, else an evaluated one; and whether it was evaluated."""
    wanted = jax.eval_shape(evaluate)
    known = jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), known, wanted)
    missing = ~jnp.isfinite(known[0])
    return lax.cond(missing, evaluate, lambda: known), missing


def stored(state: PyTree, params: PyTree) -> tuple[jax.Array, PyTree] | None:
    """(value, grad) at params from the last link of a chain, or None. The choice depends on shapes only.

    The value of an earlier link may belong to another point, since later links have changed the step.
    """
    for node in _records(state, last_link=True):
        if _holds(node, params):
            return node.value, node.grad
    return None


def _holds(node: Any, params: PyTree) -> bool:
    if not (hasattr(node, "value") and hasattr(node, "grad")):
        return False
    same_tree = jax.tree.structure(node.grad) == jax.tree.structure(params)
    shapes = jax.tree.map(jnp.shape, params)
    return same_tree and jnp.shape(node.value) == () and jax.tree.map(jnp.shape, node.grad) == shapes


def _records(node: PyTree, last_link: bool = False) -> Iterator[Any]:
    """Every NamedTuple and dataclass in a state; with ``last_link`` only those of the last link of a chain."""
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        children = [getattr(node, field.name) for field in dataclasses.fields(node)]
        yield node
    elif isinstance(node, tuple) and hasattr(node, "_fields"):
        children = list(node)
        yield node
    elif isinstance(node, dict):
        children = list(node.values())
    elif isinstance(node, (list, tuple)):
        children = list(node[-1:] if last_link else node)
    else:
        children = []
    for child in children:
        yield from _records(child, last_link)
