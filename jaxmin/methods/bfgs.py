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
    H: Any  # [n, n]; not to be read where it is empty
    empty: Any  # [] bool: no pair has been used yet, or all were forgotten


@builder(spellings={"scale_init": "initial_scale"}, converters={"linesearch": search()})
def bfgs(initial_scale: bool = True, linesearch: LineSearch | str | None = None) -> Method:
    r"""The BFGS quasi-Newton method, with an n by n approximation of the inverse Hessian.

    After each step s with gradient change y, where s.y > eps \|s.g\|,

    .. math:: H \leftarrow (I - \rho s y^T) H (I - \rho y s^T) + \rho s s^T, \quad \rho = 1 / y^T s

    [1, eq. (6.17)], worked out as a change of rank two. Memory and time grow as n squared: for more than
    a thousand or so numbers take ``lbfgs``.

    Args:
      initial_scale: True (the default) gives H the scale s.y / y.y before its first change
        [1, eq. (6.20)]; False begins with the identity, as SciPy does.
      linesearch: a ``LineSearch``, or a search's name; "backtracking" by default.

    Returns:
      A ``Method``. Its natural step is 1; the very first step has length min(1, \|g\|).

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

        # H before the pair; without others a multiple of the identity. H y is selected after the product, since XLA
        # would write out a matrix that is selected before it, a pass over it more.
        scale = sy / yy if initial_scale else 1
        before = jnp.where(empty, scale * jnp.eye(s.size, dtype=s.dtype), state.H)
        Hy = jnp.where(empty, scale * y, Dense(state.H).times(y))
        rho = 1 / sy
        # H - rho (s (Hy)^T + Hy s^T) + rho (1 + rho y.Hy) s s^T = H + rho (s v^T + v s^T)
        v = 0.5 * (1 + rho * vec.dot(y, Hy)) * s - Hy
        H = jnp.where(store, before + rho * (s[:, None] * v[None, :] + v[:, None] * s[None, :]), state.H)

        empty = empty & ~store
        # Without a pair d = 0, which does not lead downhill and is replaced by the steepest descent.
        d = jnp.where(empty, 0, -Dense(H).times(g.astype(H.dtype)))
        return unravel(d), BFGSState(H, empty)

    def warm_start(state, H):
        if not isinstance(H, Dense):
            H = Dense(jax.vmap(H.times)(jnp.eye(H.size, dtype=state.H.dtype)))
        return BFGSState(H.H, jnp.zeros((), bool))

    def inverse_hessian(state):
        return Dense(jnp.where(state.empty, jnp.eye(state.H.shape[0], dtype=state.H.dtype), state.H))

    return descend(Direction(init, update, inverse_hessian, warm_start), linesearch)
