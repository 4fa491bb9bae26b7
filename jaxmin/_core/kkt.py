"""A point of a constrained problem: the rows with their limits, the multipliers, and how far it is from a solution."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._core.box import Box, Within
from jaxmin._core.typing import Scalar, Vector


class Rows(NamedTuple):
    """The constraints at a point, all in one vector: lower <= c <= upper.

    An infinite limit is no limit. Equal limits make the row an equality.

    >>> import jax.numpy as jnp
    >>> from jaxmin.extend import Rows
    >>> rows = Rows(jnp.array([2.0, 5.0]), lower=jnp.array([0.0, 6.0]), upper=jnp.array([1.0, 6.0]))
    >>> rows.violations.tolist(), rows.equal.tolist()
    ([1.0, 1.0], [False, True])
    """

    c: jax.Array  # [m]
    lower: jax.Array  # [m]
    upper: jax.Array  # [m]

    @property
    def equal(self) -> jax.Array:
        """[m] bool: the row is an equality."""
        return self.lower == self.upper

    @property
    def violations(self) -> jax.Array:
        """[m] how far each row is outside its limits, in its own units; 0 inside."""
        return jnp.maximum(jnp.maximum(self.lower - self.c, self.c - self.upper), 0)


class Kkt(NamedTuple):
    """What the tests of a constrained solve read at an iterate, with the Lagrangian L = f + v.c + w.x.

    >>> import jax.numpy as jnp
    >>> from jaxmin.extend import Kkt, Rows
    >>> Kkt(Rows(jnp.ones(1), jnp.ones(1), jnp.ones(1)), v=jnp.zeros(1), w=jnp.zeros(2), slope=jnp.zeros(2),
    ...     unit=jnp.ones(1)).rows.equal.tolist()
    [True]
    """

    rows: Rows
    v: jax.Array  # [m] the multipliers of the rows; positive at an upper limit, negative at a lower one
    w: Vector  # [n] those of the bounds, with the same signs
    slope: Vector  # [n] the gradient of f + v.c
    unit: jax.Array  # [m] the largest derivative of each row, without sign

    def active(self, x: Vector, box: Box) -> jax.Array:
        """[n] int32: -1 where x is at its lower bound, 1 at its upper one, else 0.

        A method that stays inside comes near a bound only: x counts as there where it is nearer than 1e-6.
        """
        near = 1e-6 * jnp.maximum(jnp.abs(x), 1)
        return jnp.where(x - box.lower <= near, -1, jnp.where(box.upper - x <= near, 1, 0)).astype(jnp.int32)


class Multipliers(NamedTuple):
    """The multipliers of an earlier solve, with which a method may begin.

    >>> import jax.numpy as jnp
    >>> from jaxmin.extend import Multipliers
    >>> Multipliers(v=jnp.ones(3), w=jnp.zeros(2)).v.shape
    (3,)
    """

    v: jax.Array  # [m] of the rows
    w: Vector  # [n] of the bounds; with the signs of ``Kkt``


class Residuals(NamedTuple):
    """How far a point is from a solution of a constrained problem."""

    optimality: Scalar  # [] the infinity norm of the gradient of L
    violation: Scalar  # [] the largest violation of a row
    distance: Scalar  # [] the largest of all violations over their units: a distance in x
    complementarity: Scalar  # [] the largest product of a multiplier and the distance from its limit


def residuals(kkt: Kkt, x: Vector, box: Within) -> Residuals:
    """The ``Residuals`` at an iterate."""
    (c, lower, upper), v, w = kkt.rows, kkt.v, kkt.w
    violations = kkt.rows.violations
    # Where a row has no derivatives at all, x cannot change it.
    distances = violations / jnp.maximum(kkt.unit, jnp.finfo(c.dtype).tiny)
    gap = jnp.where(v > 0, upper - c, c - lower)
    products = jnp.abs(v) * jnp.where(kkt.rows.equal | (v == 0), 0, jnp.maximum(gap, 0))
    optimality, at_bounds = kkt.slope, jnp.zeros((), c.dtype)
    if isinstance(box, Box):
        gap = jnp.where(w > 0, box.upper - x, x - box.lower)
        at_bounds = _largest(w * jnp.where(w == 0, 0, gap))
        optimality = jnp.where(box.lower < box.upper, optimality + w, 0)
    return Residuals(
        _largest(optimality), _largest(violations), _largest(distances), jnp.maximum(_largest(products), at_bounds)
    )


def _largest(a: jax.Array) -> Scalar:
    return jnp.max(jnp.abs(a), initial=0)
