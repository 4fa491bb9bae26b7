"""A product of sets: one for each part of a pytree."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxmin._core.convex_set import ConvexSet, Piece
from jaxmin._core.typing import PyTree


@functools.partial(jax.tree_util.register_dataclass, data_fields=["sets"], meta_fields=[])
@dataclasses.dataclass(frozen=True, eq=False)
class Product(ConvexSet):
    """What :func:`product` makes."""

    sets: PyTree  # of sets, and of None

    def at(self, piece: Piece) -> "Pieces":
        """The sets in a row, each for its piece of the vector."""
        sets, tree = jax.tree.flatten(self.sets, is_leaf=_is_part)
        try:
            parts = tree.flatten_up_to(piece.like)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"bounds: sets.product is built as {tree}, x0 as {jax.tree.structure(piece.like)}"
            ) from error
        pieces = [Piece(part, piece.dtype) for part in parts]
        found = [None if part is None or not each.size else part.at(each) for part, each in zip(sets, pieces)]
        return Pieces(tuple(found), tuple(each.size for each in pieces))


@functools.partial(jax.tree_util.register_dataclass, data_fields=["sets"], meta_fields=["sizes"])
@dataclasses.dataclass(frozen=True, eq=False)
class Pieces(ConvexSet):
    """Sets for pieces of a vector that follow each other; None for a free piece."""

    sets: tuple[ConvexSet | None, ...]
    sizes: tuple[int, ...]

    def onto(self, v: jax.Array) -> jax.Array:
        """The nearest points, piece by piece."""
        pieces = zip(self.sets, self._cut(v))
        return jnp.concatenate([v[:0], *(v if part is None else part.onto(v) for part, v in pieces)])

    def move(self, x: jax.Array, d: jax.Array) -> jax.Array:
        """P(x + d) - x, piece by piece."""
        pieces = zip(self.sets, self._cut(x), self._cut(d))
        return jnp.concatenate([d[:0], *(d if part is None else part.move(x, d) for part, x, d in pieces)])

    @property
    def has_rules(self) -> bool:
        """Whether that of any part has."""
        return any(part is not None and part.has_rules for part in self.sets)

    def exact(self) -> "Pieces":
        """Each with all derivative rules."""
        return Pieces(tuple(None if part is None else part.exact() for part in self.sets), self.sizes)

    def _cut(self, v: jax.Array) -> list[jax.Array]:
        pieces, start = [], 0
        for size in self.sizes:
            pieces.append(v[start : start + size])
            start += size
        return pieces


def product(sets: PyTree) -> ConvexSet:
    """One set for each part of a pytree: the parts do not limit each other.

    Args:
      sets: a pytree of sets, built like x0 or like the top of its tree; None leaves what is below free. A set at the
        top of a subtree limits all leaves below it as one vector. Products may be nested.

    Returns:
      A :class:`~jaxmin.sets.ConvexSet`, for ``bounds=``.

    Raises:
      TypeError: if a leaf is neither a set nor None.
      ValueError: from ``minimize``, if the tree does not fit x0.

    >>> import jax.numpy as jnp, jaxmin
    >>> f = lambda x: jnp.sum((x["shares"] - 1) ** 2) + (x["level"] + 2) ** 2
    >>> sets = jaxmin.sets.product({"shares": jaxmin.sets.simplex(), "level": None})
    >>> x0 = {"shares": jnp.zeros(2), "level": jnp.zeros(())}
    >>> res = jaxmin.minimize(f, x0, method="gradient_descent", bounds=sets)
    >>> res.x["shares"].round(3).tolist(), round(float(res.x["level"]), 3)
    ([0.5, 0.5], -2.0)

    References:
      N. Parikh and S. Boyd, Foundations and Trends in Optimization 1 (2014), 127-239, Section 2.1: separable sums.
    """
    for part in jax.tree.leaves(sets, is_leaf=_is_part):
        if not _is_part(part):
            raise TypeError(f"sets.product: {part!r} is not a set of jaxmin.sets, nor None")
    return Product(sets)


def _is_part(node: Any) -> bool:
    return node is None or isinstance(node, ConvexSet)
