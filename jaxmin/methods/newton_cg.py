"""Newton's method with a line search, its directions by truncated conjugate gradients."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.protocol import Direction, LineSearch, Method
from jaxmin.linesearches import search
from jaxmin.methods._descend import descend
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
    converters={"linesearch": search()},
)
def newton_cg(max_inner: int | None = None, linesearch: LineSearch | str | None = None) -> Method:
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

    Returns:
      A ``Method``. ``res.nhev`` counts its products, ``res.nfev`` its trials. Its natural step is 1.

    Raises:
      ValueError: if max_inner is below 1, and for an unknown search.
      TypeError: for an argument of another type.

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
            concave=jnp.zeros((), bool),
            bend=zero,
            reach=zero,
        )

    def update(g, state, x, *, previous, accepted, restart, hv, box):
        del restart  # only ``reach`` carries over from one iterate to the next
        gnorm = vec.norm(g)
        begun = _begin(state, g, gnorm, vec.sub(x, previous.x), box.only(box.free(x, g), vec.probe(x)))
        new = vec.where(accepted, begun, vec.where(state.ready, state, _conjugate_gradient(state, hv, gnorm)))
        return new.z, new

    def _begin(state, g, gnorm, s, probe):
        r = steepest(g, gnorm, probe)
        # A step that f rises at the end of has passed a valley: the next one is shorter, or it may leap over it again.
        gs, length = vec.measure((g, s), norms=(s,))
        reach = jnp.where(gs > 0, 0.5, 2) * length
        return NewtonState(
            along=vec.scale(-1, r),
            ready=jnp.zeros((), bool),
            z=vec.zeros(g),
            r=r,
            falls=jnp.zeros_like(state.falls),
            inner=jnp.zeros((), jnp.int32),
            concave=jnp.zeros((), bool),
            bend=jnp.zeros_like(state.falls),
            reach=jnp.where(state.concave, reach, state.reach),
        )

    def _conjugate_gradient(state, Hd, gnorm):
        """One iteration of conjugate gradients for H z = -g [1, Algorithm 7.1]."""
        d, r, inner = state.along, state.r, state.inner + 1
        rr, dHd = vec.measure((r, r), (d, Hd))
        convex = dHd > 0
        far = jnp.maximum(vec.norm(state.z), state.reach)
        far = jnp.where(far > 0, far, 1)
        dd = vec.norm(d)
        z = vec.axpy(jnp.where(convex, gnorm * rr / dHd, far / dd), d, state.z)
        r = vec.axpy(rr / dHd, Hd, r)
        (rr_new,), fall = vec.measure((r, r)), rr * rr / dHd
        falls = state.falls + fall
        # The residual depends on the units of the variables. If they differ much, it is small long before the step has
        # moved all variables. The decrease of the model does not depend on the units [2].
        residual = jnp.sqrt(rr_new)
        small = residual <= jnp.minimum(_RESIDUAL, jnp.sqrt(gnorm))
        ceased = inner * fall <= _SHARE * falls
        exact = residual <= jnp.where(gnorm > 0, jnp.minimum(_EXACT, gnorm), PROBED)
        limit = 20 * vec.size(d) if max_inner is None else max_inner
        return state._replace(
            along=vec.axpy(rr_new / rr, d, vec.scale(-1, r)),
            ready=~convex | (small & ceased) | exact | (inner >= limit),
            z=z,
            r=r,
            falls=falls,
            inner=inner,
            concave=~convex & ((dHd < 0) | (gnorm > 0)),
            bend=jnp.where(convex | (gnorm > 0), 0, dHd * (far / dd) ** 2),
        )

    return descend(Direction(init, update, wants=frozenset({"grad", "hv", "box"}), trees=True), linesearch)
