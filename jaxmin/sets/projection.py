"""A set that a function of the user's projects onto."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxmin._cache.computation import Computation, signed
from jaxmin._core.convex_set import ConvexSet, Piece
from jaxmin._core.typing import PyTree


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["fun"])
@dataclasses.dataclass(frozen=True, eq=False)
class Projection(ConvexSet):
    """What :func:`projection` makes."""

    fun: Callable[[PyTree], PyTree]

    def at(self, piece: Piece) -> "Traced":
        """The function, traced for vectors; the arrays that it closes over become parameters."""
        variables = piece.variables

        def onto(v: jax.Array) -> jax.Array:
            x = piece.build(variables.unravel(v))
            return variables.ravel(_checked(self.fun(x), x))

        v = jax.ShapeDtypeStruct((piece.size,), piece.dtype)
        signature, constants, with_rules = signed(jax.make_jaxpr(onto)(v), v)
        return Traced(constants, signature, Unkeyed(with_rules))


class Unkeyed:
    """Something that no program is keyed by: any two are equal."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unkeyed)

    def __hash__(self) -> int:
        return 0


@functools.partial(jax.tree_util.register_dataclass, data_fields=["constants"], meta_fields=["signature", "with_rules"])
@dataclasses.dataclass(frozen=True, eq=False)
class Traced(ConvexSet):
    """A traced function that projects; two are alike if they compute the same, whatever functions they came from."""

    constants: list[Any]
    signature: Computation
    with_rules: Unkeyed  # the same ``Computation`` with the derivative rules that no key can hold

    @property
    def has_rules(self) -> bool:
        """Whether its function has derivative rules that are not JAX's."""
        return self.with_rules.value is not None

    def exact(self) -> "Traced":
        """The function with all its rules."""
        return Traced(self.constants, self.with_rules.value, Unkeyed(None)) if self.has_rules else self

    def onto(self, v: jax.Array) -> jax.Array:
        """What the function gives."""
        return self.signature(*self.constants, v)[0]


def _checked(found: PyTree, x: PyTree) -> list[Any]:
    """The leaves of a projected x, in the shapes of x."""
    leaves, wanted = jax.tree.flatten(found)[0], jax.tree.leaves(x)
    if jax.tree.structure(found) != jax.tree.structure(x):
        raise TypeError(
            f"sets.projection: fun returns {jax.tree.structure(found)}, and x is built as {jax.tree.structure(x)}"
        )
    for leaf, like in zip(leaves, wanted):
        if np.shape(leaf) != like.shape or np.iscomplexobj(leaf):
            raise TypeError(
                f"sets.projection: fun returns real numbers like x; it returns shape {np.shape(leaf)} for {like.shape}"
            )
    return [jax.numpy.asarray(leaf) for leaf in leaves]


def projection(fun: Callable[[PyTree], PyTree]) -> ConvexSet:
    """The set that a function of yours projects onto.

    Args:
      fun: x -> the point of the set nearest to x, written with ``jax.numpy``. x is built like x0, with None for leaves
        that do not vary, and so is the point; in a :func:`product`, x is the part that the set stands for. The set must
        be closed and convex: nothing checks that, and the solve relies on it. fun may close over traced arrays.

    Returns:
      A :class:`~jaxmin.sets.ConvexSet`, for ``bounds=``. A new function that computes the same compiles nothing.

    Raises:
      TypeError: if fun is not callable; from ``minimize``, if it does not return an x.

    A ball around a center:

    >>> import jax.numpy as jnp, jaxmin
    >>> center = jnp.array([1.0, 1.0])
    >>> around = jaxmin.sets.projection(lambda x: center + jaxmin.sets.ball(0.5).project(x - center))
    >>> f = lambda x: jnp.sum(x**2 * jnp.array([1.0, 0.0]))
    >>> jaxmin.minimize(f, jnp.zeros(2), method="gradient_descent", bounds=around).x.round(3).tolist()
    [0.5, 1.0]

    References:
      H. H. Bauschke and P. L. Combettes, Convex Analysis and Monotone Operator Theory, 2nd ed., 2017, Section 3.2.
    """
    if not callable(fun):
        raise TypeError(f"sets.projection: fun={fun!r}: give a function that projects, x -> x")
    return Projection(fun)
