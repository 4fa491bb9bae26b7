"""A half-space: one linear inequality."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._core import vector as vec
from jaxmin._core.convex_set import ConvexSet, Piece
from jaxmin._core.pytree import any_traced
from jaxmin._core.typing import PyTree
from jaxmin.sets._parameters import as_array, check_finite, check_number, is_real_tree, scalar, vector


@functools.partial(jax.tree_util.register_dataclass, data_fields=["a", "b"], meta_fields=[])
@dataclasses.dataclass(frozen=True, eq=False)
class HalfSpace(ConvexSet):
    """What :func:`half_space` makes."""

    a: Any  # [n], or like x
    b: Any  # []

    def at(self, piece: Piece) -> "HalfSpace":
        """The set with a vector and a number in the dtype of x."""
        return HalfSpace(vector("sets.half_space: a", self.a, piece), scalar(self.b, piece))

    def onto(self, v: jax.Array) -> jax.Array:
        """The nearest point: along a, as far as v is outside."""
        return v - self._beyond(vec.dot(self.a, v) - self.b) * self.a

    def move(self, x: jax.Array, d: jax.Array) -> jax.Array:
        """P(x + d) - x: what of d leads outside is taken away."""
        return d - self._beyond(vec.dot(self.a, d) - (self.b - vec.dot(self.a, x))) * self.a

    def _beyond(self, excess: jax.Array) -> jax.Array:
        """How many a lie between the set and a point with this excess of a . x over b."""
        outside = ~(excess <= 0)
        return jnp.where(outside, excess / jnp.where(outside, vec.dot(self.a, self.a), 1), 0).astype(self.a.dtype)


def half_space(a: PyTree, b: float | jax.Array) -> ConvexSet:
    r"""The vectors with :math:`a \cdot x \le b`.

    Args:
      a: an array of shape [n], or coefficients built like x0; not 0. They may be traced.
      b: a number; it may be traced.

    Returns:
      A :class:`~jaxmin.sets.ConvexSet`, for ``bounds=``. A projection takes n operations.

    Raises:
      TypeError: if ``a`` is not of real numbers, or ``b`` is not one.
      ValueError: if ``a`` is 0, a number is not finite, or, from ``minimize``, if ``a`` does not fit x0.

    >>> import jax.numpy as jnp, jaxmin
    >>> jaxmin.sets.half_space(jnp.array([1.0, 1.0]), 1.0).project(jnp.array([2.0, 1.0])).tolist()
    [1.0, 0.0]

    References:
      N. Parikh and S. Boyd, Foundations and Trends in Optimization 1 (2014), 127-239, Section 6.2.
    """
    a = as_array(a)
    if not is_real_tree(a):
        raise TypeError(f"sets.half_space: a={a!r}: give real numbers, an array or built like x0")
    check_finite("sets.half_space: a", a)
    if not any_traced(a) and not any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(a)):
        raise ValueError("sets.half_space: a is 0; give a vector that is not")
    check_number("sets.half_space: b", b)
    return HalfSpace(a, b)
