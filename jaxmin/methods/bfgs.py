"""BFGS with a dense inverse Hessian."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.inverse_hessian import Dense, pair_between
from jaxmin._core.protocol import Direction, LineSearch, Method
from jaxmin.linesearches import search
from jaxmin.methods._descend import descend


class BFGSState(NamedTuple):
    H: Any  # [n, n]; has no meaning while empty
    empty: Any  # [] bool: H holds no pair


@builder(spellings={"scale_init": "initial_scale"}, converters={"linesearch": search()})
def bfgs(initial_scale: bool = True, linesearch: LineSearch | str | None = None) -> Method:
    r"""The BFGS quasi-Newton method, with an n by n approximation of the inverse Hessian.

    After each step s with gradient change y, where s.y > eps \|s.g\|,

    .. math:: H \leftarrow (I - \rho s y^T) H (I - \rho y s^T) + \rho s s^T, \quad \rho = 1 / y^T s

    [1, eq. (6.17)], computed as a change of rank two. Memory and time per iteration grow as n squared. Use ``lbfgs``
    for more than about a thousand variables.

    Args:
      initial_scale: True (default) scales H by s.y / y.y before its first change [1, eq. (6.20)]. False starts with
        the identity, as SciPy does.
      linesearch: a ``LineSearch``, or the name of a search; "backtracking" by default.

    Returns:
      A ``Method``. Its natural step is 1. The first step of a solve has length min(1, \|g\|).

    Raises:
      ValueError: for an unknown search.
      TypeError: for an argument of another type.

    >>> import jax.numpy as jnp, jaxmin
    >>> res = jaxmin.minimize(lambda x: x @ x + x[0], [1.0, 2.0], method="bfgs")
    >>> bool(jnp.allclose(res.hess_inv, 0.5 * jnp.eye(2), atol=1e-3))
    True

    References:
      [1] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006, Section 6.1.
    """

    def init(x):
        n = vec.size(x)
        return BFGSState(jnp.zeros((n, n), vec.scalar_dtype(x)), jnp.ones((), bool))

    def update(g, state, x, *, previous, accepted, restart):
        s, y, sy, yy, curved = pair_between(previous, x, g)
        s, y = (ravel_pytree(v)[0].astype(state.H.dtype) for v in (s, y))
        g, unravel = ravel_pytree(g)
        store, forget = accepted & curved, accepted & restart
        empty = state.empty | forget

        # H before the pair; a multiple of the identity if there is no other pair. H y is selected after the product.
        # If H itself were selected first, XLA would write it out: one more pass over the matrix.
        scale = sy / yy if initial_scale else 1
        before = jnp.where(empty, scale * jnp.eye(s.size, dtype=s.dtype), state.H)
        Hy = jnp.where(empty, scale * y, Dense(state.H).times(y))
        rho = 1 / sy
        # H - rho (s (Hy)^T + Hy s^T) + rho (1 + rho y.Hy) s s^T = H + rho (s v^T + v s^T)
        (yHy,) = vec.measure((y, Hy))
        v = 0.5 * (1 + rho * yHy) * s - Hy
        H = jnp.where(store, before + rho * (s[:, None] * v[None, :] + v[:, None] * s[None, :]), state.H)

        empty = empty & ~store
        # Without a pair d = 0. It does not lead downhill, so the steepest descent replaces it.
        d = jnp.where(empty, 0, -Dense(H).times(g.astype(H.dtype)))
        return unravel(d), BFGSState(H, empty)

    def warm_start(state, H):
        if not isinstance(H, Dense):
            H = Dense(jax.vmap(H.times)(jnp.eye(H.size, dtype=state.H.dtype)))
        return BFGSState(H.H, jnp.zeros((), bool))

    def inverse_hessian(state):
        return Dense(jnp.where(state.empty, jnp.eye(state.H.shape[0], dtype=state.H.dtype), state.H))

    return descend(Direction(init, update, inverse_hessian, warm_start), linesearch)
