"""A box: what bounds on the variables do to points and gradients."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._core import vector as vec


class Box(NamedTuple):
    """The bounds of a vector: one array, or a pytree of them."""

    lower: Any  # like x
    upper: Any  # like x

    @property
    def bounded(self) -> bool:
        """True: known while compiling, whatever the bounds are."""
        return True

    def clip(self, x):
        """The point of the box nearest to x."""
        return jax.tree.map(jnp.clip, x, *self)

    def reflect(self, x):
        """x with what lies beyond a bound reflected at it, then clipped."""

        def one(x, low, high):
            return jnp.where(x > high, 2 * high - x, jnp.where(x < low, 2 * low - x, x))

        return self.clip(jax.tree.map(one, x, *self))

    def active(self, x, g):
        """Where x is held at a bound, f falling outwards: -1 at the lower one, 1 at the upper one, else 0."""
        return jax.tree.map(_active, x, g, *self)

    def binding(self, x, g, gtol):
        """Where a bound holds x or, by a projected gradient within gtol, is about to: -1, 1 or 0 as in ``active``."""

        def one(x, g, low, high):
            near = jnp.minimum(jnp.abs(g), gtol)
            lower, upper = low - x > -near, high - x < near
            pressed = jnp.where(lower & (g > 0), -1, jnp.where(upper & (g < 0), 1, 0)).astype(jnp.int32)
            return jnp.where(pressed == 0, _active(x, g, low, high), pressed)

        return jax.tree.map(one, x, g, *self)

    def free(self, x, g):
        """Where x may move downhill."""
        return jax.tree.map(lambda x, g, low, high: (_active(x, g, low, high) == 0) & (low < high), x, g, *self)

    def only(self, free, v, other=None):
        """v where x is free, else the other, or 0."""
        if other is None:
            return jax.tree.map(lambda free, v: jnp.where(free, v, 0), free, v)
        return jax.tree.map(jnp.where, free, v, other)

    def moving(self, x, d):
        """d without what leads out of the box at x: the direction of the bent path there."""

        def one(x, d, low, high):
            return jnp.where(((x <= low) & (d < 0)) | ((x >= high) & (d > 0)), 0, d)

        return jax.tree.map(one, x, d, *self)

    def projected(self, x, g):
        """The projected gradient: the step from x to where -g leads, kept inside the box, with its sign changed."""
        # The difference itself would lose a small g beside x.
        return jax.tree.map(lambda x, g, low, high: jnp.clip(g, x - high, x - low), x, g, *self)

    def differ(self, x, y):
        """Whether two points do."""
        return functools.reduce(jnp.logical_or, jax.tree.leaves(jax.tree.map(lambda u, v: jnp.any(u != v), x, y)))


def _active(x, g, low, high):
    at_lower = (x <= low) & (g >= 0)
    at_upper = (x >= high) & (g <= 0)
    return jnp.where(at_lower, -1, jnp.where(at_upper, 1, 0)).astype(jnp.int32)


class Unbounded(NamedTuple):
    """The unbounded box: every method of :class:`Box` as a no-op, on any pytree x."""

    @property
    def bounded(self) -> bool:
        """False: known while compiling."""
        return False

    def clip(self, x):
        """x itself."""
        return x

    def reflect(self, x):
        """x itself."""
        return x

    def active(self, x, g):
        """No bound holds anything: None."""
        del x, g

    def binding(self, x, g, gtol):
        """No bound holds anything: None."""
        del x, g, gtol

    def free(self, x, g):
        """All variables are free: None stands for a mask that is true everywhere."""
        del x, g

    def only(self, free, v, other=None):
        """v itself."""
        del free, other
        return v

    def moving(self, x, d):
        """d itself."""
        del x
        return d

    def projected(self, x, g):
        """g itself."""
        del x
        return g

    def differ(self, x, y):
        """False: no point was moved."""
        del x, y
        return jnp.zeros((), bool)


def gradient_norm(x, g, box=Unbounded()):
    """The norm that gtol is compared with: the infinity norm of the projected gradient; None without g."""
    return None if g is None else vec.max_abs(box.projected(x, g))
