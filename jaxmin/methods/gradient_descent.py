"""Gradient descent; in a convex set, the spectral projected gradient method."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.box import Unbounded
from jaxmin._core.protocol import Direction, LineSearch, Method
from jaxmin.linesearches import search
from jaxmin.methods._descend import descend
from jaxmin.methods._noise_floor import MEMORY


class Spectral(NamedTuple):
    """What the method stores in a set."""

    earlier: Any  # [9] f at the iterates before the last one; -inf before x0

    @property
    def highest(self):
        """[] the highest of them."""
        return jnp.max(self.earlier)


@builder(aliases=("gd", "steepest_descent"), converters={"linesearch": search()})
def gradient_descent(linesearch: LineSearch | str | None = None) -> Method:
    r"""Go down the gradient: d = -g.

    In a set of ``jaxmin.sets`` it is the spectral projected gradient method [2, Section 2, SPG2]:

    .. math:: d = P(x - \lambda g) - x, \qquad \lambda = \frac{s^T s}{s^T y},

    with the last step s and the change y of the gradient along it. Each search begins at x + d and goes along d with
    steps of at most 1, so that its trials are in the set. It compares f with the highest of the last 10 values, so that
    f may rise between iterates. Where s.y is not positive, and at x0,
    :math:`\lambda = \max(1, \|x\|_\infty) / \|P(x - g) - x\|_\infty`.

    Args:
      linesearch: a ``LineSearch``, or the name of a search; "backtracking" by default.

    Returns:
      A ``Method``. A search begins at the step that would repeat the last decrease; in a set at 1.

    Raises:
      ValueError: if ``linesearch`` is neither a ``LineSearch`` nor the name of one.
      TypeError: if it is a builder that was not called, such as ``jaxmin.wolfe``.

    >>> import jax.numpy as jnp, jaxmin
    >>> f = lambda x: jnp.sum((x - 2) ** 2)
    >>> bool(jnp.allclose(jaxmin.minimize(f, [0.0, 5.0], method=jaxmin.gradient_descent()).x, 2))
    True

    References:
      [1] A. Cauchy, C. R. Acad. Sci. Paris 25 (1847), 536-538.
      [2] E. G. Birgin, J. M. Martínez and M. Raydan, SIAM J. Optim. 10 (2000), 1196-1211.
    """

    def init(x, *, box=Unbounded()):
        return Spectral(jnp.full(MEMORY - 1, -jnp.inf, vec.scalar_dtype(x))) if box.is_set else ()

    def update(g, state, x, *, previous, accepted, restart, box):
        if not box.is_set:
            return vec.scale(-1, g), state
        earlier = jnp.where(restart, -jnp.inf, jnp.append(state.earlier[1:], previous.f))
        state = Spectral(jnp.where(accepted, earlier, state.earlier))
        return vec.scale(-_length(g, x, previous, box), g), state

    direction = Direction(init, update, wants=frozenset({"grad", "set"}), trees=True)
    return descend(direction, linesearch, first_step="decrease")


def _length(g, x, previous, box):
    """The spectral length of a step: the inverse of the latest curvature, kept in range [2]."""
    s, y = vec.sub(x, previous.x), vec.sub(g, previous.g)
    ss, sy, size, moved = vec.measure((s, s), (s, y), largest=(x, box.projected(x, g)))
    curved = sy > 0  # at x0 s is 0
    length = jnp.where(curved, ss / jnp.where(curved, sy, 1), jnp.maximum(size, 1) / moved)
    # Far enough from the ends of the dtype's range for a product with g.
    least = jnp.sqrt(jnp.finfo(length.dtype).tiny)
    return jnp.clip(length, least, 1 / least)
