"""Gradient descent."""

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.protocol import Direction, LineSearch, Method
from jaxmin.linesearches import search
from jaxmin.methods._descend import descend


@builder(aliases=("gd", "steepest_descent"), converters={"linesearch": search()})
def gradient_descent(linesearch: LineSearch | str | None = None) -> Method:
    """Go down the gradient: d = -g.

    Args:
      linesearch: a ``LineSearch``, or the name of a search; "backtracking" by default.

    Returns:
      A ``Method``. A search begins at the step that would repeat the last decrease.

    Raises:
      ValueError: if ``linesearch`` is neither a ``LineSearch`` nor the name of one.
      TypeError: if it is a builder that was not called, such as ``jaxmin.wolfe``.

    >>> import jax.numpy as jnp, jaxmin
    >>> f = lambda x: jnp.sum((x - 2) ** 2)
    >>> bool(jnp.allclose(jaxmin.minimize(f, [0.0, 5.0], method=jaxmin.gradient_descent()).x, 2))
    True

    References:
      A. Cauchy, C. R. Acad. Sci. Paris 25 (1847), 536-538.
    """

    def update(g, state, x, *, previous, accepted, restart):
        del x, previous, accepted, restart
        return vec.scale(-1, g), state

    return descend(Direction(lambda x: (), update, trees=True), linesearch, first_step="decrease")
