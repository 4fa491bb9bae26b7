"""The simplex: shares of a total."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxmin._core import vector as vec
from jaxmin._core.convex_set import ConvexSet, Piece
from jaxmin.sets._parameters import check_number, scalar, unless


@functools.partial(jax.tree_util.register_dataclass, data_fields=["total"], meta_fields=[])
@dataclasses.dataclass(frozen=True, eq=False)
class Simplex(ConvexSet):
    """What :func:`simplex` makes."""

    total: Any  # [] > 0

    def at(self, piece: Piece) -> "Simplex":
        """The set with a total in the dtype of x; NaN for one that is not positive, and traced."""
        if piece.size == 0:
            raise ValueError("bounds: sets.simplex has no variables there, and they cannot sum to its total")
        total = scalar(self.total, piece)
        return Simplex(unless(~(total > 0), total))

    def onto(self, v: jax.Array) -> jax.Array:
        """The nearest point, by sorting."""
        return onto_simplex(v, self.total)

    def move(self, x: jax.Array, d: jax.Array) -> jax.Array:
        """P(x + d) - x: a constant added to d changes nothing, and takes away what all of d has in common."""
        return onto_simplex(x + (d - vec.dot(x, d) / self.total), self.total) - x


def onto_simplex(v: jax.Array, total: jax.Array) -> jax.Array:
    r"""The point nearest to v with components >= 0 that sum to ``total``.

    It is max(v - theta, 0). With the components in falling order :math:`u_1 \ge u_2 \ge \dots`, the number of those
    that stay positive is the largest k with :math:`k u_k > u_1 + \dots + u_k - total`.

    References:
      [1] M. Held, P. Wolfe and H. P. Crowder, Math. Programming 6 (1974), 62-88.
      [2] J. Duchi, S. Shalev-Shwartz, Y. Singer and T. Chandra, ICML 2008, 272-279, Figure 1.
    """
    v = v - jnp.max(v)  # sums of small numbers round less, and a constant changes nothing
    u = jnp.sort(v)[::-1]
    excess = jnp.cumsum(u) - total
    k = jnp.arange(1, v.size + 1, dtype=v.dtype)
    count = jnp.maximum(jnp.sum(k * u > excess), 1)  # for a total of 0, which the ball of norm 1 may have
    theta = excess[count - 1] / count.astype(v.dtype)
    # Once more from a plain sum, which rounds less than a running one.
    held = v > theta
    theta = (jnp.sum(jnp.where(held, v, 0)) - total) / jnp.maximum(jnp.sum(held), 1).astype(v.dtype)
    return jnp.maximum(v - theta, 0)


def simplex(total: float | jax.Array = 1.0) -> ConvexSet:
    """The vectors with components >= 0 that sum to ``total``: probabilities, mixtures, weights of a portfolio.

    Args:
      total: the sum, a number > 0; 1.0 by default. It may be traced; one that is not positive then gives NaN.

    Returns:
      A :class:`~jaxmin.sets.ConvexSet`, for ``bounds=``. A projection sorts x: n log n operations.

    Raises:
      TypeError: if ``total`` is not one real number.
      ValueError: if it is not > 0.

    >>> import jax.numpy as jnp, jaxmin
    >>> f = lambda x: jnp.sum((x - jnp.array([0.6, 0.6, -1.0])) ** 2)
    >>> res = jaxmin.minimize(f, jnp.zeros(3), method="gradient_descent", bounds=jaxmin.sets.simplex())
    >>> res.x.round(3).tolist()
    [0.5, 0.5, 0.0]

    References:
      [1] M. Held, P. Wolfe and H. P. Crowder, Math. Programming 6 (1974), 62-88.
      [2] J. Duchi, S. Shalev-Shwartz, Y. Singer and T. Chandra, ICML 2008, 272-279, Figure 1.
    """
    check_number("sets.simplex: total", total, 0, strict=True)
    return Simplex(total)
