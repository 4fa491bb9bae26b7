"""Newton's method with a line search, its directions by truncated conjugate gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.protocol import Direction, LineSearch, Method
from jaxmin.linesearches import search
from jaxmin.methods._descend import descend
from jaxmin.methods._preconditioner import given, known, usable
from jaxmin.methods._probe import PROBED, steepest

# The conjugate gradients end if the residual is below this, and below sqrt |g| for a superlinear rate, ...
_RESIDUAL = 0.5
# ... and if the last product lowered the model by less than this fraction of the average.
_SHARE = 0.5
# They also end if the residual is below this and below |g|: the rate is quadratic then.
_EXACT = 0.01


class NewtonState(NamedTuple):
    # changes with every product
    along: Any  # like x: d, the direction of the next product
    ready: Any  # [] bool: z is the direction; no product is needed
    z: Any  # like x: the step so far
    r: Any  # like x: the residual H z + g, over |g|, so that no product overflows
    falls: Any  # [] the decrease of the model, over |g|^2 / 2
    inner: Any  # [] int32: products since the iterate
    ry: Any  # [] of r and y = M^-1 r
    # for directions of negative curvature
    concave: Any  # [] bool: the last direction was one
    bend: Any  # [] z . H z of a direction of negative curvature from a point without gradient, else 0
    reach: Any  # [] the length of the next one; 0 at first

    @property
    def saddle(self):
        """[] bool: negative curvature was found, or the products go on."""
        return ~self.ready | self.concave


@builder(
    aliases=("newton-cg", "tnc", "truncated_newton"),
    spellings={"maxcgit": "max_inner"},
    # SciPy sets xtol only. A small ``tol`` would then not lead to a smaller gradient.
    tol=("xtol", "gtol"),
    converters={"linesearch": search(), "preconditioner": known()},
)
def newton_cg(
    max_inner: int | None = None,
    linesearch: LineSearch | str | None = None,
    preconditioner: Callable[[Any], Any] | None = None,
) -> Method:
    r"""Newton's method with a line search: "Newton-CG", in a box "TNC".

    The direction z solves :math:`H z = -g` by conjugate gradients that stop early. They stop when the residual is small
    and the model :math:`g^T z + \frac12 z^T H z` has almost stopped falling [2], or at a direction d of negative
    curvature [1, Algorithm 7.1]. In the second case the direction is z + t d. The length of t d is that of z, or twice
    that of the last step along a direction of negative curvature; half of it if f rose at its end.
    H is never formed. Each step evaluates either f and g at a trial, or the product H d at the iterate. In a box the
    conjugate gradients move only the free variables.

    Args:
      max_inner: the largest number of products for one direction, >= 1; None (default) is 20 n, as in SciPy.
      linesearch: a ``LineSearch``, or the name of a search; "backtracking" by default.
      preconditioner: a function r -> M^-1 r, for a positive definite M near the Hessian: the conjugate gradients then
        take fewer products. If x is not an array [n], r is: its leaves end to end, of a complex one the real parts
        before the imaginary parts. None (default): M = I.

    Returns:
      A ``Method``. ``res.nhev`` counts its products, ``res.nfev`` its trials. Its natural step is 1.

    Raises:
      ValueError: if max_inner is below 1, and for an unknown search or preconditioner.
      TypeError: for an argument of another type, and if a preconditioner does not return what is shaped like r.

    >>> import jax.numpy as jnp, jaxmin
    >>> rosen = lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    >>> jaxmin.minimize(rosen, [-1.2, 1.0], method="Newton-CG").success
    True
    >>> jaxmin.minimize(rosen, [-1.2, 1.0], method="TNC", bounds=[(None, 0.5)] * 2).x.round(3).tolist()
    [0.5, 0.25]

    References:
      [1] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006.
      [2] S. G. Nash and A. Sofer, Operations Research Letters 9 (1990), 219-221.
    """
    if max_inner is not None and not max_inner >= 1:
        raise ValueError(f"max_inner={max_inner!r}: give at least 1, or None")

    def init(x):
        zero, zeros = jnp.zeros((), vec.scalar_dtype(x)), vec.zeros(x)
        return NewtonState(
            along=zeros,
            ready=jnp.ones((), bool),
            z=zeros,
            r=zeros,
            falls=zero,
            inner=jnp.zeros((), jnp.int32),
            ry=zero,
            concave=jnp.zeros((), bool),
            bend=zero,
            reach=zero,
        )

    def update(g, state, x, *, previous, accepted, restart, hv, box):
        del restart  # only ``reach`` carries over from one iterate to the next
        gnorm, free = vec.norm(g), box.free(x, g)  # g is 0 where a variable is held
        begun = _begin(state, g, gnorm, vec.sub(x, previous.x), box.only(free, vec.probe(x)))
        moved, ceased = _advance(state, hv, gnorm)
        r = vec.where(accepted, begun.r, moved.r)
        y, ry, rr = _preconditioned(r, box, free)
        begun = begun._replace(along=vec.scale(-1, y), ry=ry)
        moved = _turn(moved, y, ry, jnp.sqrt(rr), gnorm, ceased)
        new = vec.where(accepted, begun, vec.where(state.ready, state, moved))
        return new.z, new

    def _begin(state, g, gnorm, s, probe):
        # A step that f rises at the end of has passed a valley: the next one is shorter, or it may leap over it again.
        gs, length = vec.measure((g, s), norms=(s,))
        reach = jnp.where(gs > 0, 0.5, 2) * length
        return state._replace(
            ready=jnp.zeros((), bool),
            z=vec.zeros(g),
            r=steepest(g, gnorm, probe),
            falls=jnp.zeros_like(state.falls),
            inner=jnp.zeros((), jnp.int32),
            concave=jnp.zeros((), bool),
            bend=jnp.zeros_like(state.falls),
            reach=jnp.where(state.concave, reach, state.reach),
        )

    def _preconditioned(r, box, free):
        """y = M^-1 r, or r where r.y is not positive; r.y; r.r."""
        if preconditioner is None:
            (rr,) = vec.measure((r, r))
            return r, rr, rr
        y = box.only(free, given(preconditioner, r))
        rr, ry = vec.measure((r, r), (r, y))
        return *usable(y, ry, r, rr), rr

    def _advance(state, Hd, gnorm):
        """Go along d to the least value of the model, or far if it has no least value; also whether it hardly fell."""
        d, ry, inner = state.along, state.ry, state.inner + 1
        (dHd,) = vec.measure((d, Hd))
        convex = dHd > 0
        far = jnp.maximum(vec.norm(state.z), state.reach)
        far = jnp.where(far > 0, far, 1)
        dd = vec.norm(d)
        fall = ry * ry / dHd
        falls = state.falls + fall
        limit = 20 * vec.size(d) if max_inner is None else max_inner
        moved = state._replace(
            z=vec.axpy(jnp.where(convex, gnorm * ry / dHd, far / dd), d, state.z),
            r=vec.axpy(ry / dHd, Hd, state.r),
            falls=falls,
            inner=inner,
            ready=~convex | (inner >= limit),
            concave=~convex & ((dHd < 0) | (gnorm > 0)),
            bend=jnp.where(convex | (gnorm > 0), 0, dHd * (far / dd) ** 2),
        )
        return moved, inner * fall <= _SHARE * falls

    def _turn(state, y, ry, residual, gnorm, ceased):
        """The next direction of the conjugate gradients, and whether they end."""
        # The residual depends on the units of the variables. If they differ much, it is small long before the step has
        # moved all variables. The decrease of the model does not depend on the units [2].
        small = residual <= jnp.minimum(_RESIDUAL, jnp.sqrt(gnorm))
        exact = residual <= jnp.where(gnorm > 0, jnp.minimum(_EXACT, gnorm), PROBED)
        return state._replace(
            along=vec.axpy(ry / state.ry, state.along, vec.scale(-1, y)),
            ready=state.ready | (small & ceased) | exact,
            ry=ry,
        )

    return descend(Direction(init, update, wants=frozenset({"grad", "hv", "box"}), trees=True), linesearch)
