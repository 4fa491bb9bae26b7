"""Balls of the norms 1, 2 and infinity."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._core import vector as vec
from jaxmin._core.convex_set import ConvexSet, Piece
from jaxmin.sets._parameters import check_number, scalar, unless
from jaxmin.sets.simplex import onto_simplex


@functools.partial(jax.tree_util.register_dataclass, data_fields=["radius"], meta_fields=["norm"])
@dataclasses.dataclass(frozen=True, eq=False)
class Ball(ConvexSet):
    """What :func:`ball` makes."""

    radius: Any  # [] >= 0
    norm: float

    def at(self, piece: Piece) -> "Ball":
        """The set with a radius in the dtype of x; NaN for one that is negative, and traced."""
        radius = scalar(self.radius, piece)
        return Ball(unless(~(radius >= 0), radius), self.norm)

    def onto(self, v: jax.Array) -> jax.Array:
        """The nearest point, by a formula for each norm."""
        return _ONTO[self.norm](v, self.radius)


def _onto_sum(v: jax.Array, radius: jax.Array) -> jax.Array:
    """Outside, the absolute values go to the simplex, and the signs stay [1, Section 4]."""
    if v.size == 0:
        return v
    size = jnp.abs(v)
    return jnp.where(jnp.sum(size) <= radius, v, jnp.sign(v) * onto_simplex(size, radius))


def _onto_euclidean(v: jax.Array, radius: jax.Array) -> jax.Array:
    """Outside, v is scaled down to the radius."""
    outside = vec.dot(v, v) > 0
    length = vec.norm(jnp.where(outside, v, 1))  # the norm has no derivative at 0
    return jnp.where(outside & ~(length <= radius), radius / length, 1).astype(v.dtype) * v


def _onto_largest(v: jax.Array, radius: jax.Array) -> jax.Array:
    return jnp.clip(v, -radius, radius)


_ONTO = {1.0: _onto_sum, 2.0: _onto_euclidean, np.inf: _onto_largest}


def ball(radius: float | jax.Array = 1.0, norm: float = 2) -> ConvexSet:
    r"""The vectors with :math:`\|x\| \le radius`.

    Args:
      radius: a number >= 0; 1.0 by default. It may be traced; one that is negative then gives NaN.
      norm: 1, 2 (default) or ``inf``: the sum of the absolute values, the Euclidean length, the largest absolute value.
        Known while compiling.

    Returns:
      A :class:`~jaxmin.sets.ConvexSet`, for ``bounds=``. A projection takes n operations, for norm 1 n log n.

    Raises:
      TypeError: if ``radius`` is not one real number.
      ValueError: if it is negative, or ``norm`` is another one.

    Least squares in a ball of norm 1 have few components that are not 0 (the lasso):

    >>> import jax.numpy as jnp, jaxmin
    >>> f = lambda x: jnp.sum((x - jnp.array([3.0, 0.5, -2.0])) ** 2)
    >>> ball = jaxmin.sets.ball(2.0, norm=1)
    >>> jaxmin.minimize(f, jnp.zeros(3), method="gradient_descent", bounds=ball).x.round(3).tolist()
    [1.5, 0.0, -0.5]

    References:
      [1] J. Duchi, S. Shalev-Shwartz, Y. Singer and T. Chandra, ICML 2008, 272-279, Section 4: norm 1.
      [2] N. Parikh and S. Boyd, Foundations and Trends in Optimization 1 (2014), 127-239, Chapter 6: all of them.
    """
    check_number("sets.ball: radius", radius, 0)
    if isinstance(norm, bool) or not isinstance(norm, (int, float, np.number)) or norm not in _ONTO:
        raise ValueError(f"sets.ball: norm={norm!r}: give 1, 2 or inf")
    return Ball(radius, float(norm))
