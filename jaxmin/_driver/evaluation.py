"""Second derivatives: the user's own, checked, or by automatic differentiation beside the one evaluation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

SECOND_ORDER = ("product", "hessian")


class Evaluation(NamedTuple):
    """What the loop evaluates: called, f, g and aux at x; and second derivatives, where the user gave them."""

    first: Any  # x -> (value, grad, aux)
    product: Any = None  # (x, v) -> H v; None: by automatic differentiation
    hessian: Any = None  # x -> H, [n, n]

    def __call__(self, x):
        return self.first(x)


class Kept(NamedTuple):
    """The user's Hessian at an iterate, for as long as the method stays there."""

    H: Any  # [n, n]
    nit: Any  # [] int32: the iterate's number


def nothing_kept(evaluate, wants, x):
    """What the loop carries for :func:`beside` before the first trip."""
    if wants not in SECOND_ORDER or getattr(evaluate, "hessian", None) is None:
        return None
    return Kept(jnp.zeros((x.size, x.size), x.dtype), jnp.full((), -1, jnp.int32))


def beside(evaluate, wants, state, aux, kept, x):
    """f, g and aux at the trial, and the Hessian there or its product, where the method stays to be told it.

    Automatic differentiation linearises the one evaluation; a Hessian is worked out of that under a ``cond``, at the
    trips alone that stay. With derivatives of the user's own a trip evaluates either those or fun.

    Args:
      evaluate: an ``Evaluation``, or a function of x like its ``first``.
      wants: "product" or "hessian".
      state: the method's, with ``stays``, and ``along`` for products.
      aux: of the iterate.
      kept: of the trip before.
      x: the trial.

    Returns:
      (value, grad, aux); the product H v ("product") or H ("hessian"), to be read only where the state stays; and
      what is kept for the next trip.
    """
    product: Any = getattr(evaluate, "product", None)
    hessian: Any = getattr(evaluate, "hessian", None)
    if product is None and hessian is None:
        return *(_by_products if wants == "product" else _by_columns)(evaluate, state, x), None

    def known():
        return state.iterate.f.astype(shapes[0].dtype), state.iterate.g, aux

    shapes = jax.eval_shape(lambda: evaluate(x))
    first = lax.cond(state.stays, known, lambda: tuple(evaluate(x)))
    if hessian is not None:
        due = state.stays & (kept.nit != state.nit)
        H = lax.cond(due, lambda: hessian(x), lambda: kept.H)
        kept = Kept(H, jnp.where(due, state.nit, kept.nit))
        told = H if wants == "hessian" else jnp.matmul(H, state.along, precision=lax.Precision.HIGHEST)
    elif wants == "hessian":
        told = _at_stays(state, lambda: _symmetric(lambda v: product(x, v), x))
    else:
        told = lax.cond(state.stays, lambda: product(x, state.along), lambda: jax.tree.map(jnp.zeros_like, x))
    return first, told, kept


def _by_products(evaluate, state, x):
    def gradient(x):
        value, grad, aux = evaluate(x)
        return grad, (value, aux)

    grad, hv, (value, aux) = jax.jvp(gradient, (x,), (state.along,), has_aux=True)
    return (value, grad, aux), hv


def _by_columns(evaluate, state, x):
    def gradient(x):
        value, grad, aux = evaluate(x)
        return grad, (value, aux)

    grad, pushed, (value, aux) = jax.linearize(gradient, x, has_aux=True)
    return (value, grad, aux), _at_stays(state, lambda: _symmetric(pushed, x))


def _at_stays(state, matrix):
    shape = jax.eval_shape(matrix)
    return lax.cond(state.stays, matrix, lambda: jnp.zeros(shape.shape, shape.dtype))


def _symmetric(product, x):
    H = jax.vmap(product)(jnp.eye(x.size, dtype=x.dtype))
    return (H + H.T) / 2
