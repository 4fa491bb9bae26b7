"""L-BFGS in compact form."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin import _vector as vec
from jaxmin._builder import builder
from jaxmin._descent import descend
from jaxmin._inverse_hessian import Compact, times
from jaxmin._method import Direction
from jaxmin.linesearches.backtracking import backtracking

names = ("l-bfgs-b",)
options = {"maxcor": "memory", "history_size": "memory", "memory_size": "memory", "m": "memory"}
tol_sets = ("ftol", "gtol")


class LBFGSState(NamedTuple):
    H: Compact
    slot: Any  # [] int32: where the next pair goes, which is where the oldest one is


@builder
def lbfgs(memory=10, linesearch=None):
    r"""Limited-memory BFGS: a quasi-Newton method with the last few pairs of steps and gradient changes.

    The direction is :math:`d = -H g` with H in the compact form [1, eq. (3.1)]: the two-loop recursion
    [2, Algorithm 7.4] written as a few matrix-vector products. A pair is stored only where
    s.y > eps \|s.g\|: another would make H indefinite.

    Args:
      memory: pairs kept, >= 1; 10 by default.
      linesearch: a ``LineSearch``; ``backtracking()`` by default.

    Returns:
      A ``Method``. Its natural step is 1; the very first step has length min(1, \|g\|).

    >>> import jax.numpy as jnp, jaxmin
    >>> rosen = lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    >>> jaxmin.minimize(rosen, [-1.2, 1.0], method=jaxmin.lbfgs(memory=20)).success
    True

    References:
      [1] R. H. Byrd, J. Nocedal and R. B. Schnabel, Math. Programming 63 (1994), 129-156.
      [2] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006, Section 7.2.
    """
    if not memory >= 1:
        raise ValueError(f"memory={memory!r}: at least 1 pair")
    m = memory

    def init(x):
        dtype = vec.scalar_dtype(x)
        square = jnp.zeros((m, m), dtype)
        H = Compact(vec.rows(m, x), vec.rows(m, x), square, square, square[0], jnp.zeros((), dtype))
        return LBFGSState(H, slot=jnp.zeros((), jnp.int32))

    def update(g, state, x, *, previous, accepted, restart):
        H, slot = state
        s, y = vec.sub(x, previous.x), vec.sub(g, previous.g)
        sy, yy = vec.dot(s, y), vec.dot(y, y)
        eps = jnp.finfo(sy.dtype).eps
        curved = (sy > eps * jnp.abs(vec.dot(previous.g, s))) & (yy < jnp.inf)
        store = accepted & curved
        forget = accepted & restart

        # The pair goes where the oldest one is; the others stay unless all are forgotten.
        here = jnp.arange(m) == slot
        S = vec.write_row(H.S, slot, s, store)
        Y = vec.write_row(H.Y, slot, y, store)
        stay = ~(here & store) & ~forget
        R_inv = jnp.where(stay[:, None] & stay[None, :], H.R_inv, 0)

        # R gains the column r = S y above s.y, and its inverse the column -R_inv r / s.y above 1 / s.y.
        rho = 1 / jnp.where(curved, sy, 1)
        r = jnp.where(stay, vec.rows_dot(S, y), 0)
        column = jnp.where(here, rho, -rho * times(R_inv, r))
        Yy = vec.rows_dot(Y, y)
        across, down = store & here[None, :], store & here[:, None]
        H = Compact(
            S=S,
            Y=Y,
            R_inv=jnp.where(across, column[:, None], R_inv),
            YY=jnp.where(across, Yy[:, None], jnp.where(down, Yy[None, :], H.YY)),
            D=jnp.where(store & here, sy, H.D),
            gamma=jnp.where(store, sy / jnp.where(curved, yy, 1), jnp.where(forget, 0, H.gamma)),
        )

        # Without a pair H = 0, and d, which does not lead downhill, is replaced by the steepest descent.
        d = vec.scale(-1, H.times(g))
        return d, LBFGSState(H, jnp.where(store, (slot + 1) % m, slot))

    def inverse_hessian(state):
        return state.H._replace(gamma=jnp.where(state.H.gamma > 0, state.H.gamma, 1))

    return descend(Direction(init, update, inverse_hessian), linesearch or backtracking())
