"""Nonlinear conjugate gradients."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.protocol import Direction, LineSearch, Method
from jaxmin.linesearches import search
from jaxmin.methods._descend import descend


class CGState(NamedTuple):
    d: Any  # like x: the last direction; 0 at first
    age: Any  # [] int32: directions since the last restart


@builder(
    aliases=("ncg", "nonlinear_cg", "conjugate_gradient"),
    # Conjugacy needs a step near the minimiser along d, whatever the search.
    converters={"linesearch": search(curvature=0.4)},
)
def cg(eta: float = 0.4, linesearch: LineSearch | str | None = None) -> Method:
    r"""Nonlinear conjugate gradients with the beta of Hager and Zhang.

    :math:`d = -g + \beta d_{old}` with

    .. math:: \beta = \max\left(\left(y - 2 d \frac{y^T y}{d^T y}\right)^T \frac{g}{d^T y},\;
              \eta \frac{d^T g_{old}}{d^T d}\right)

    [1, eq. (1.4)] with the truncation of [2, eq. (2.1)]. d points downhill whatever the line search does. The method
    restarts from the steepest descent every n directions.

    Args:
      eta: the truncation, > 0; 0.4 by default [2].
      linesearch: a ``LineSearch``, or the name of a search; "backtracking" by default. A name is built with
        ``curvature=0.4``, since conjugacy needs a step near the minimiser along d.

    Returns:
      A ``Method``. A search begins at the step that would repeat the last decrease.

    Raises:
      ValueError: if eta is not > 0, and for an unknown search.
      TypeError: for an argument of another type.

    >>> import jax.numpy as jnp, jaxmin
    >>> rosen = lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    >>> jaxmin.minimize(rosen, [-1.2, 1.0], method=jaxmin.cg()).success
    True

    References:
      [1] W. W. Hager and H. Zhang, SIAM J. Optim. 16 (2005), 170-192.
      [2] W. W. Hager and H. Zhang, SIAM J. Optim. 23 (2013), 2150-2168.
    """
    if not eta > 0:
        raise ValueError(f"eta={eta!r}: give a factor > 0")

    def init(x):
        return CGState(vec.zeros(x), jnp.zeros((), jnp.int32))

    def update(g, state, x, *, previous, accepted, restart):
        d, age = state
        y = vec.sub(g, previous.g)
        dy, yg, yy, dg, dg_last, dd = vec.measure((d, y), (y, g), (y, y), (d, g), (d, previous.g), (d, d))
        n = vec.size(x)  # symbolic in jax.export
        restart = restart | (dy <= 0) | (age >= (max(n, 2) if isinstance(n, int) else n))
        safe = jnp.where(restart, 1, dy)
        beta = yg / safe - 2 * yy / safe * (dg / safe)
        least = eta * dg_last / jnp.where(restart, 1, dd)
        beta = jnp.where(restart, 0, jnp.maximum(beta, least))
        new = CGState(vec.axpy(beta, d, vec.scale(-1, g)), jnp.where(restart, 1, age + 1))
        return new.d, vec.where(accepted, new, state)

    return descend(Direction(init, update, trees=True), linesearch, first_step="decrease")
