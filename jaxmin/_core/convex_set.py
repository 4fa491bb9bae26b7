"""A closed convex set, given by its projection, and what it does to points and gradients."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._core.promotion import standard
from jaxmin._core.typing import PyTree, Scalar, Vector
from jaxmin._core.variables import Variables, canonical_x0, is_inexact


class Piece(NamedTuple):
    """A part of x that a set limits: how it is built, and the dtype of its vector."""

    like: PyTree  # of shapes; None for a leaf that does not vary
    dtype: np.dtype

    @property
    def variables(self) -> Variables:
        """The conversion between its leaves and its vector."""
        return Variables(jax.tree.leaves(self.like), wide=self.dtype)

    @property
    def size(self) -> int:
        """How many variables it has."""
        return self.variables.size

    def build(self, leaves: Sequence[jax.Array]) -> PyTree:
        """The part of x with these leaves."""
        return jax.tree.unflatten(jax.tree.structure(self.like), leaves)


class ConvexSet:
    """A closed convex set, which ``bounds=`` of :func:`~jaxmin.minimize` takes; ``jaxmin.sets`` makes them.

    A set is a pytree whose leaves are its parameters, so these may be traced.

    >>> import jax.numpy as jnp, jaxmin
    >>> jaxmin.sets.simplex().project(jnp.array([2.0, 0.0])).tolist()
    [1.0, 0.0]
    """

    def at(self, piece: Piece) -> "ConvexSet":
        """The set with its parameters checked and converted, for vectors of this ``Piece``."""
        raise NotImplementedError

    def onto(self, v: jax.Array) -> jax.Array:
        """The point of the set nearest to the vector v, [n]; of a set that ``at`` returned."""
        raise NotImplementedError

    def move(self, x: jax.Array, d: jax.Array) -> jax.Array:
        """P(x + d) - x, from a point x of the set; of a set that ``at`` returned.

        A set overrides this where it can say it without the rounding of x + d, which hides a small result of a large d.
        """
        return self.onto(x + d) - x

    @property
    def has_rules(self) -> bool:
        """Whether its projection has derivative rules that the program of a solve leaves out; of such a set too."""
        return False

    def exact(self) -> "ConvexSet":
        """The set with these rules."""
        return self

    @standard
    def project(self, x: PyTree) -> PyTree:
        """The point of the set nearest to x.

        Args:
          x: an array or a pytree of real arrays, which count as one vector.

        Returns:
          The point, like x.

        Raises:
          TypeError, ValueError: if the parameters do not fit x; the message names them.
        """
        x = canonical_x0(x)
        leaves, tree = jax.tree.flatten(x)
        if not all(map(is_inexact, leaves)) or any(map(jnp.iscomplexobj, leaves)):
            raise TypeError("x: it has leaves that are not arrays of real numbers")
        variables = Variables(leaves)
        like = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*shape) for shape in variables.shapes])
        point = self.at(Piece(like, variables.dtype)).onto(variables.ravel(leaves))
        return jax.tree.unflatten(tree, variables.unravel(point))


@functools.partial(jax.tree_util.register_dataclass, data_fields=["within"], meta_fields=["variables"])
@dataclasses.dataclass(frozen=True, eq=False)
class Region:
    """A convex set as the loop and the methods see it: it has the methods of :class:`~jaxmin.extend.Box`.

    No variable is held by itself, so that all count as free. A method that wants ``set`` may receive a ``Region`` as
    ``box``.

    >>> import jax.numpy as jnp, jaxmin
    >>> from jaxmin.extend import Method
    >>> "set" in jaxmin.gradient_descent().wants, "set" in jaxmin.lbfgs().wants
    (True, False)
    """

    within: ConvexSet  # that ``at`` returned
    variables: Variables  # of x; its vector is flat

    @property
    def bounded(self) -> bool:
        """True, a Python bool: known while compiling."""
        return True

    @property
    def is_set(self) -> bool:
        """True, a Python bool: known while compiling."""
        return True

    @property
    def max_step(self) -> float:
        """1: a longer step along a direction of :meth:`step` may leave the set."""
        return 1.0

    def clip(self, x: Vector) -> Vector:
        """The point of the set nearest to x, rounded to the dtypes of the user's leaves."""
        return self.variables.rounded(self.within.onto(x))

    def reflect(self, x: Vector) -> Vector:
        """The same as :meth:`clip`."""
        return self.clip(x)

    def active(self, x: Vector, g: Vector) -> None:
        """None: no variable is held by itself."""
        del x, g

    def free(self, x: Vector, g: Vector) -> None:
        """None, which stands for a mask that is true everywhere."""
        del x, g

    def only(self, free: PyTree, v: Vector, other: Vector | None = None) -> Vector:
        """v itself."""
        del free, other
        return v

    def moving(self, x: Vector, d: Vector) -> Vector:
        """d itself: the path from x is straight."""
        del x
        return d

    def step(self, x: Vector, d: Vector) -> Vector:
        """P(x + d) - x: the part of d that stays in the set, from a point x of it."""
        return self.within.move(x, d)

    def projected(self, x: Vector, g: Vector) -> Vector:
        """x - P(x - g), which is 0 where x is stationary; x is in the set."""
        return -self.within.move(x, -g)

    def exact(self) -> "Region":
        """The same with all derivative rules: see :meth:`ConvexSet.exact`."""
        return dataclasses.replace(self, within=self.within.exact())

    def differ(self, x: Vector, y: Vector) -> Scalar:
        """Whether two points differ, [] bool."""
        return jnp.any(x != y)


def region(bounds: ConvexSet, variables: Variables, like: PyTree) -> Region:
    """A set as a ``Region``.

    Args:
      bounds: the set.
      variables: the ``Variables`` of x0.
      like: x0 as a pytree of shapes, with None for leaves that do not vary.

    Raises:
      TypeError, ValueError: for parameters that do not fit x0, or a kind of x0 that has no sets.
    """
    if any(dtype.kind == "c" for _, dtype in variables.shapes):
        raise TypeError("bounds: x0 has complex leaves; sets are for a real x0")
    if not variables.flat:
        raise TypeError("bounds: a set works on one flat vector of x0's leaves; give options={'flat': True}, or Bounds")
    return Region(bounds.at(Piece(like, variables.dtype)), variables)
