"""A box: what bounds on the variables do to points and gradients."""

import functools
import math
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxmin._core import vector as vec
from jaxmin._core.convex_set import Region
from jaxmin._core.typing import MaybeNone, PyTree, Scalar, Vector


class Box(NamedTuple):
    """The bounds of a vector x, lower <= x <= upper, and what they do to points and gradients.

    Both are like x, an array or a pytree of arrays; -inf and inf mean no bound. A method that wants ``box`` receives a
    ``Box``, or :class:`Unbounded`, which has the same methods.

    >>> import jax.numpy as jnp
    >>> from jaxmin.extend import Box
    >>> box, x, g = Box(jnp.zeros(2), jnp.ones(2)), jnp.array([0.0, 0.5]), jnp.array([1.0, 0.25])
    >>> box.clip(jnp.array([-1.0, 0.5])).tolist(), box.projected(x, g).tolist(), box.active(x, g).tolist()
    ([0.0, 0.5], [0.0, 0.25], [-1, 0])
    """

    lower: Vector  # like x
    upper: Vector  # like x

    @property
    def bounded(self) -> bool:
        """True, a Python bool: known while compiling."""
        return True

    @property
    def is_set(self) -> bool:
        """False, a Python bool: this is a box, and no other set."""
        return False

    @property
    def max_step(self) -> float:
        """inf: trials are bent along the bounds."""
        return math.inf

    @property
    def is_empty(self) -> Scalar:
        """[] bool: whether no point is inside, as where a bound is NaN."""
        sides = zip(jax.tree.leaves(self.lower), jax.tree.leaves(self.upper))
        return functools.reduce(jnp.logical_or, (jnp.any(~(low <= high)) for low, high in sides))

    def clip(self, x: Vector) -> Vector:
        """The point of the box nearest to x."""
        return jax.tree.map(jnp.clip, x, *self)

    def reflect(self, x: Vector) -> Vector:
        """x with each component beyond a bound reflected at the bound, then clipped."""

        def one(x: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
            return jnp.where(x > high, 2 * high - x, jnp.where(x < low, 2 * low - x, x))

        return self.clip(jax.tree.map(one, x, *self))

    def active(self, x: Vector, g: Vector) -> PyTree:
        """-1 where the lower bound holds x, 1 where the upper one does, else 0: f decreases there beyond the bound."""
        return jax.tree.map(_active, x, g, *self)

    def free(self, x: Vector, g: Vector) -> PyTree:
        """A mask: where x may move downhill."""
        return jax.tree.map(lambda x, g, low, high: (_active(x, g, low, high) == 0) & (low < high), x, g, *self)

    def only(self, free: PyTree, v: Vector, other: Vector | None = None) -> Vector:
        """v where the mask ``free`` holds; elsewhere ``other``, 0 by default."""
        if other is None:
            return jax.tree.map(lambda free, v: jnp.where(free, v, 0), free, v)
        return jax.tree.map(jnp.where, free, v, other)

    def moving(self, x: Vector, d: Vector) -> Vector:
        """d with 0 for each component that leads out of the box at x: the direction of the bent path there."""

        def one(x: jax.Array, d: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
            return jnp.where(((x <= low) & (d < 0)) | ((x >= high) & (d > 0)), 0, d)

        return jax.tree.map(one, x, d, *self)

    def step(self, x: Vector, d: Vector) -> Vector:
        """d itself: the path along it is bent, not d. In a ``Region`` it is P(x + d) - x."""
        del x
        return d

    def projected(self, x: Vector, g: Vector) -> Vector:
        """The projected gradient: g with 0 for each variable that a bound holds."""
        # Not x - clip(x - g): it is as small as the distance from a bound, however steep f is there.
        return jax.tree.map(lambda x, g, low, high: jnp.where(_active(x, g, low, high) == 0, g, 0), x, g, *self)

    def differ(self, x: Vector, y: Vector) -> Scalar:
        """Whether two points differ, [] bool."""
        return functools.reduce(jnp.logical_or, jax.tree.leaves(jax.tree.map(lambda u, v: jnp.any(u != v), x, y)))


def _active(x: jax.Array, g: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    at_lower = (x <= low) & (g >= 0)
    at_upper = (x >= high) & (g <= 0)
    return jnp.where(at_lower, -1, jnp.where(at_upper, 1, 0)).astype(jnp.int32)


class Unbounded(NamedTuple):
    """The unbounded box: every method of :class:`Box` as a no-op, on any pytree x.

    >>> import jax.numpy as jnp
    >>> from jaxmin.extend import Unbounded
    >>> Unbounded().clip(jnp.array([-1.0, 2.0])).tolist(), Unbounded().bounded
    ([-1.0, 2.0], False)
    """

    @property
    def bounded(self) -> bool:
        """False, a Python bool: known while compiling."""
        return False

    @property
    def is_set(self) -> bool:
        """False, a Python bool: known while compiling."""
        return False

    @property
    def max_step(self) -> float:
        """inf: no step is too long."""
        return math.inf

    def clip(self, x: Vector) -> Vector:
        """x itself."""
        return x

    def reflect(self, x: Vector) -> Vector:
        """x itself."""
        return x

    def active(self, x: Vector, g: Vector) -> None:
        """None: no bound holds x."""
        del x, g

    def free(self, x: Vector, g: Vector) -> None:
        """None, which stands for a mask that is true everywhere."""
        del x, g

    def only(self, free: PyTree, v: Vector, other: Vector | None = None) -> Vector:
        """v itself."""
        del free, other
        return v

    def moving(self, x: Vector, d: Vector) -> Vector:
        """d itself."""
        del x
        return d

    def step(self, x: Vector, d: Vector) -> Vector:
        """d itself."""
        del x
        return d

    def projected(self, x: Vector, g: Vector) -> Vector:
        """g itself."""
        del x
        return g

    def differ(self, x: Vector, y: Vector) -> Scalar:
        """False, [] bool: no bound moves a point."""
        del x, y
        return jnp.zeros((), bool)


# Where x may be: what methods receive as ``box``.
Within: TypeAlias = Box | Unbounded | Region


class Sizes(NamedTuple):
    """The norms at a point."""

    x: Scalar  # [] the infinity norm of x
    g: Scalar  # [] that of the gradient
    projected: Scalar  # [] that of the projected gradient, which the stopping test compares with gtol
    free: Scalar  # [] the 2-norm of the projected gradient


def sizes(x: Vector, g: Vector, box: Within) -> Sizes:
    """The :class:`Sizes` at x, measured in one pass."""
    projected = box.projected(x, g)
    of_free, of_x, of_g, largest = vec.measure(norms=(projected,), largest=(x, g, projected))
    return Sizes(of_x, of_g, largest, of_free)


def gradient_norm(x: Vector, g: Vector | None, box: Within = Unbounded()) -> Scalar | MaybeNone:
    """The infinity norm of the projected gradient, which the stopping test compares with gtol; None without g."""
    return None if g is None else vec.max_abs(box.projected(x, g))
