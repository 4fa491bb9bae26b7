"""The vectors without negative components."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jaxmin._core.convex_set import ConvexSet, Piece


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclasses.dataclass(frozen=True, eq=False)
class Nonnegative(ConvexSet):
    """What :func:`nonnegative` makes."""

    def at(self, piece: Piece) -> "Nonnegative":
        """The set itself."""
        del piece
        return self

    def onto(self, v: jax.Array) -> jax.Array:
        """The nearest point."""
        return jnp.maximum(v, 0)

    def move(self, x: jax.Array, d: jax.Array) -> jax.Array:
        """P(x + d) - x."""
        return jnp.maximum(d, -x)


def nonnegative() -> ConvexSet:
    """The vectors with components >= 0.

    ``bounds=jaxmin.Bounds(0, None)`` is the same set, and all methods with bounds take it. This one is for parts of a
    :func:`product`.

    Returns:
      A :class:`~jaxmin.sets.ConvexSet`, for ``bounds=``.

    >>> import jax.numpy as jnp, jaxmin
    >>> jaxmin.sets.nonnegative().project(jnp.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]

    References:
      N. Parikh and S. Boyd, Foundations and Trends in Optimization 1 (2014), 127-239, Section 6.2.
    """
    return Nonnegative()
