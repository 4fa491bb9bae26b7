"""Limited-memory BFGS."""

import jax.numpy as jnp
from jax import lax

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.inverse_hessian import Compact, Unlimited, pair_between
from jaxmin._core.protocol import Direction, Iterate, LineSearch, Method
from jaxmin.linesearches import search
from jaxmin.methods._descend import descend

# Up to this many variables all pairs are stored, as matrices that are no larger than the pairs would be.
_FEW_VARIABLES = 16
# The default number of pairs for more variables.
_PAIRS = 10


@builder(
    aliases=("l-bfgs-b",),
    spellings={"maxcor": "memory", "history_size": "memory", "memory_size": "memory", "m": "memory"},
    tol=("ftol", "gtol"),
    converters={"linesearch": search()},
)
def lbfgs(
    memory: int | None = None, linesearch: LineSearch | str | None = None, preconditioner: str | None = None
) -> Method:
    r"""Limited-memory BFGS: a quasi-Newton method with the last few pairs of steps and gradient changes.

    The direction is :math:`d = -H g`, computed from the compact form of H [1, eq. (3.1)] by a few matrix-vector
    products. For up to 16 variables H is stored as matrices that represent all pairs [2, eq. (7.19)]. A pair is stored
    only if s.y > eps \|s.g\|, since any other pair would make H indefinite.

    With ``preconditioner="diagonal"`` the matrix :math:`H_0` that the pairs change is a diagonal, which is learnt from
    all pairs [3]. It pays where the variables have different curvatures, and costs a few passes over x.

    Args:
      memory: the number of pairs, >= 1; None (default) is all pairs for up to 16 variables, and 10 for more.
      linesearch: a ``LineSearch``, or the name of a search; "backtracking" by default.
      preconditioner: None (default): :math:`H_0` is a multiple of I; or "diagonal". With "diagonal" and few variables,
        ``memory=None`` is 10 pairs.

    Returns:
      A ``Method``. Its natural step is 1. The first step of a solve has length min(1, \|g\|).

    Raises:
      ValueError: if memory is below 1, and for an unknown search or preconditioner.
      TypeError: for an argument of another type.

    >>> import jax.numpy as jnp, jaxmin
    >>> rosen = lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    >>> jaxmin.minimize(rosen, [-1.2, 1.0], method=jaxmin.lbfgs(memory=20)).success
    True

    References:
      [1] R. H. Byrd, J. Nocedal and R. B. Schnabel, Math. Programming 63 (1994), 129-156.
      [2] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006, Section 7.2.
      [3] J. C. Gilbert and C. Lemaréchal, Math. Programming 45 (1989), 407-435.
    """
    if memory is not None and not memory >= 1:
        raise ValueError(f"memory={memory!r}: give at least 1, or None")
    if preconditioner not in (None, "diagonal"):
        raise ValueError(f"preconditioner={preconditioner!r}: give None or 'diagonal'")
    weighted = preconditioner is not None

    def init(x):
        few = getattr(x, "ndim", 0) == 1 and vec.is_small(x.size, _FEW_VARIABLES)
        few = few and not jnp.iscomplexobj(x) and not vec.typed_sharding(x)
        unlimited = memory is None and few and not weighted
        return Unlimited.empty(x) if unlimited else Compact.empty(memory or _PAIRS, x, weighted)

    def update(g, H, x, *, previous, accepted, restart):
        pair = pair_between(previous, x, g)
        H = H.update(pair, store=accepted & pair.curved, forget=accepted & restart)
        # Without a pair d = 0. It does not lead downhill, so the steepest descent replaces it.
        return vec.scale(-1, H.times(g)), H

    def inverse_hessian(H):
        return H._replace(gamma=jnp.where(H.gamma > 0, H.gamma, 1))

    def warm_start(empty, H):
        if isinstance(empty, Unlimited) and not isinstance(H, Compact):
            return H.reopened() if isinstance(H, Unlimited) else Unlimited.of(H.H.astype(empty.WZ.dtype))
        if not isinstance(H, Compact):
            raise ValueError(
                "options['warm_start']: hess_inv is a dense matrix, and this 'lbfgs' needs (s, y) pairs. "
                "Run the earlier solve with lbfgs(memory=...)."
            )

        def push(H, row):
            s, y, valid = row
            before = Iterate(vec.zeros(s), None, vec.zeros(y))  # type: ignore[arg-type]  # f is not used
            pair = pair_between(before, s, y)
            return H.update(pair, store=valid, forget=jnp.zeros((), bool)), None

        return lax.scan(push, empty, H.pairs())[0]

    return descend(Direction(init, update, inverse_hessian, warm_start, trees=True), linesearch)
