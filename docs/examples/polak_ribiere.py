"""The conjugate gradients of Polak and Ribière."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin.extend import Direction, LineSearch, Method, builder, descend, search
from jaxmin.extend import vector as vec


class PolakRibiereState(NamedTuple):
    d: Any  # like x: the last direction; 0 at first


# Conjugacy needs a step near the minimiser along d.
@builder(aliases=("prp",), converters={"linesearch": search(curvature=0.2)})
def polak_ribiere(linesearch: LineSearch | str | None = None) -> Method:
    r"""Nonlinear conjugate gradients with the beta of Polak and Ribière, cut off at 0.

    :math:`d = -g + \beta d_{old}` with :math:`\beta = \max(g^T (g - g_{old}) / g_{old}^T g_{old}, 0)`
    [1, eqs. (5.44), (5.45)].

    Args:
      linesearch: a ``LineSearch``, or the name of a search, which is built with ``curvature=0.2``; "backtracking" by
        default.

    Returns:
      A ``Method``.

    Raises:
      ValueError: for an unknown search.

    References:
      [1] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006.
    """

    def init(x):
        return PolakRibiereState(vec.zeros(x))

    def update(g, state, x, *, previous, accepted, restart):
        del x
        y, gg_old = vec.sub(g, previous.g), vec.dot(previous.g, previous.g)
        restart = restart | ~(gg_old > 0)  # at x0 the previous gradient is 0
        beta = jnp.where(restart, 0, jnp.maximum(vec.dot(g, y) / jnp.where(restart, 1, gg_old), 0))
        d = vec.axpy(beta, state.d, vec.scale(-1, g))
        return d, vec.where(accepted, PolakRibiereState(d), state)

    return descend(Direction(init, update), linesearch, first_step="decrease")
