"""Shorten gradients that are too long."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.typing import PyTree, Scalar
from jaxmin.transforms._transformation import Transformation


def l2_norm(tree: PyTree) -> Scalar:
    """The 2-norm of all numbers in a pytree. It is correct if their squares overflow, and differentiable at 0.

    Args:
      tree: a pytree of real or complex numbers and arrays.

    Returns:
      A real scalar, at least float32. Its derivative at 0 is 0.

    >>> from jaxmin.transforms import l2_norm
    >>> print(l2_norm({"w": [3.0, 4.0], "b": 12.0}))
    13.0

    References:
      N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 2002, Section 27.8: the numbers are
      divided by the largest before they are squared.
    """
    tree = jax.tree.map(jnp.asarray, tree)
    largest = lax.stop_gradient(vec.max_abs(tree))
    s = jnp.where((largest > 0) & (largest < jnp.inf), largest, 1)
    scaled = jax.tree.map(lambda x: x.astype(jnp.result_type(x, s)) / s, tree)
    square = vec.dot(scaled, scaled)
    return jnp.where(square == 0, 0, s * jnp.sqrt(jnp.where(square == 0, 1, square)))


def clip_grads(tree: PyTree, max_norm: float | jax.Array) -> PyTree:
    """Shorten gradients to the 2-norm ``max_norm`` if they are longer.

    Args:
      tree: the gradients, a pytree of numbers and arrays.
      max_norm: the largest norm, >= 0; a number or a traced scalar. It is not checked.

    Returns:
      The gradients, each leaf in its dtype. They are unchanged if their norm is at most max_norm or NaN.

    >>> import jax.numpy as jnp
    >>> from jaxmin.transforms import clip_grads
    >>> print(clip_grads(jnp.array([3.0, 4.0]), 2.5))
    [1.5 2. ]

    References:
      R. Pascanu, T. Mikolov and Y. Bengio, ICML 2013, Algorithm 1.
    """
    tree = jax.tree.map(jnp.asarray, tree)
    norm = l2_norm(tree)
    too_long = norm > max_norm
    safe = jnp.where(too_long, norm, 1)
    return jax.tree.map(lambda g: jnp.where(too_long, g / safe * max_norm, g).astype(g.dtype), tree)


@builder
def clip_by_global_norm(max_norm: float | jax.Array) -> Transformation:
    """Shorten the gradients, all leaves together, to the 2-norm ``max_norm`` if they are longer.

    Args:
      max_norm: the largest norm, a number >= 0 or a traced scalar. No default.

    Returns:
      A ``Transformation`` without a state. Chain it before an optimizer.

    Raises:
      ValueError: if max_norm is negative or NaN.
      TypeError: if it is neither a number nor a traced scalar.

    >>> import jax.numpy as jnp
    >>> from jaxmin.transforms import chain, clip_by_global_norm, sgd
    >>> tx = chain(clip_by_global_norm(2.5), sgd(1.0))
    >>> updates, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
    >>> print(updates)
    [-1.5 -2. ]

    References:
      R. Pascanu, T. Mikolov and Y. Bengio, ICML 2013, Algorithm 1.
    """
    if isinstance(max_norm, float) and not max_norm >= 0:
        raise ValueError(f"max_norm={max_norm!r}: give a number >= 0")

    def update(grads: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        del params, extra
        return clip_grads(grads, max_norm), state

    return Transformation(lambda params: (), update)
