"""Limited-memory BFGS."""

import jax.numpy as jnp
from jax import lax

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.inverse_hessian import Compact, Unlimited, pair_between
from jaxmin._core.protocol import Direction, Iterate, LineSearch, Method
from jaxmin.linesearches import search
from jaxmin.methods._descend import descend

# Up to so many variables all pairs are kept, in matrices no larger than the pairs would be.
_FEW_VARIABLES = 16
_PAIRS = 10


@builder(
    aliases=("l-bfgs-b",),
    spellings={"maxcor": "memory", "history_size": "memory", "memory_size": "memory", "m": "memory"},
    tol=("ftol", "gtol"),
    converters={"linesearch": search()},
)
def lbfgs(memory: int | None = None, linesearch: LineSearch | str | None = None) -> Method:
    r"""Limited-memory BFGS: a quasi-Newton method with the last few pairs of steps and gradient changes.

    The direction is :math:`d = -H g`, by the compact form of H [1, eq. (3.1)], a few matrix-vector products. For
    up to 16 variables all pairs are kept, as the matrices that they make [2, eq. (7.19)]. A pair is stored only
    where s.y > eps \|s.g\|: another would make H indefinite.

    Args:
      memory: pairs kept, >= 1; by default all for up to 16 variables, 10 for more.
      linesearch: a ``LineSearch``, or a search's name; "backtracking" by default.

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
    if memory is not None and not memory >= 1:
        raise ValueError(f"memory={memory!r}: at least 1 pair")

    def init(x):
        few = getattr(x, "ndim", 0) == 1 and x.size <= _FEW_VARIABLES
        few = few and not jnp.iscomplexobj(x) and not vec.typed_sharding(x)
        return Unlimited.empty(x) if memory is None and few else Compact.empty(memory or _PAIRS, x)

    def update(g, H, x, *, previous, accepted, restart):
        pair = pair_between(previous, x, g)
        H = H.update(pair, store=accepted & pair.curved, forget=accepted & restart)
        # Without a pair H = 0, and d, which does not lead downhill, is replaced by the steepest descent.
        return vec.scale(-1, H.times(g)), H

    def inverse_hessian(H):
        return H._replace(gamma=jnp.where(H.gamma > 0, H.gamma, 1))

    def warm_start(empty, H):
        if isinstance(empty, Unlimited) and not isinstance(H, Compact):
            return H.reopened() if isinstance(H, Unlimited) else Unlimited.of(H.H.astype(empty.WZ.dtype))
        if not isinstance(H, Compact):
            raise ValueError(
                "options['warm_start']: this 'lbfgs' wants pairs, which a hess_inv of 'bfgs' has not, nor that of an "
                "'lbfgs' for up to 16 variables without a memory; give that one a memory too"
            )

        def push(H, row):
            s, y, valid = row
            before = Iterate(vec.zeros(s), None, vec.zeros(y))  # type: ignore[arg-type]  # nobody looks at f
            pair = pair_between(before, s, y)
            return H.update(pair, store=valid, forget=jnp.zeros((), bool)), None

        return lax.scan(push, empty, H.pairs())[0]

    return descend(Direction(init, update, inverse_hessian, warm_start, trees=True), linesearch)
