"""Newton's method with a trust region: each step minimises the model in a Krylov space."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.protocol import Iterate, Method
from jaxmin.methods import _secular, _trust_region
from jaxmin.methods._noise_floor import Noise
from jaxmin.methods._probe import steepest
from jaxmin.methods._trust_region import Trial

# The residual, relative to g, at which a space is large enough: at the edge, where the model is least accurate, and
# inside.
_LOOSE, _TIGHT = 0.5, 0.1


class TrustKrylovState(NamedTuple):
    # changes with every step
    trial: Any  # like params: where to evaluate next
    along: Any  # like params: the direction of the next product, which is the last vector of the basis
    stays: Any  # [] bool: the trial is the iterate; the next step evaluates a product there
    Hz: Any  # like params: the product of the Hessian and the step to the trial, projected on the basis
    # of the basis at the iterate
    V: Any  # m rows like params: an orthonormal basis; the first k + 1 rows are in use
    alpha: Any  # [m] the diagonal of T = V H V^T
    beta: Any  # [m] next to the diagonal: beta[j] couples j and j + 1
    k: Any  # [] int32: products made
    concave: Any  # [] bool: negative curvature was found in the space
    # changes with every iterate
    iterate: Iterate
    accepted: Any  # [] bool: it is the trial given last
    nit: Any  # [] int32; -1 before x0
    radius: Any  # []
    noise: Noise
    status: Any  # [] int32

    @property
    def saddle(self):
        """[] bool: at x0 negative curvature was found, or the products go on."""
        return (self.nit == 0) & (self.stays | self.concave)


@builder(aliases=("trust-krylov", "gltr"), spellings=_trust_region.SPELLINGS | {"subproblem_maxiter": "max_inner"})
def trust_krylov(
    radius: float = 1.0,
    max_radius: float = math.inf,
    eta: float = 0.15,
    max_inner: int = 50,
    inexact: bool = True,
) -> Method:
    r"""Newton's method in a trust region, with steps by Lanczos' method, which continues along the edge.

    The step z minimises :math:`m(z) = f + g^T z + \frac12 z^T H z` over :math:`\|z\| \le \Delta` and the space of
    :math:`g, Hg, H^2 g, \dots`. In an orthonormal basis of this space H is a tridiagonal T [1]. H is never formed. Each
    step evaluates either f and g at a trial, or the product of H and the last vector of the basis at the iterate. The
    space is large enough when the residual of :math:`(H + \sigma I) z = -g` is small compared with g. ``trust_ncg``
    stops where its path meets the edge. This method finds the best point of the edge, and after a rejected step it
    finds a shorter one without a new product. It stores the basis and keeps it orthogonal to rounding. Steps are
    accepted as in :func:`~jaxmin.trust_ncg`.

    Args:
      radius: the first :math:`\Delta`, in units of x, > 0; 1.0 by default.
      max_radius: the largest :math:`\Delta`, in units of x, >= radius; infinite by default (SciPy has 1000).
      eta: the agreement of model and function that an accepted step needs, in [0, 1/4); 0.15 by default.
      max_inner: the largest number of products for one step, and of vectors stored, >= 1; 50 by default.
      inexact: True (default) stops at a residual, relative to g, of :math:`\min(1/10, \sqrt{\|g\|})`, or of 1/2 at the
        edge. False stops at 1e-8.

    Returns:
      A ``Method``. ``res.nhev`` counts its products, ``res.nfev`` its trials.

    Raises:
      ValueError: for an argument out of its range.
      TypeError: for an argument of another type.

    >>> import jax.numpy as jnp, jaxmin
    >>> rosen = lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    >>> jaxmin.minimize(rosen, [-1.2, 1.0], method="trust-krylov").success
    True

    References:
      [1] N. I. M. Gould, S. Lucidi, M. Roma and P. L. Toint, SIAM J. Optim. 9 (1999), 504-525.
    """
    region = _trust_region.region(radius, max_radius, eta)
    if not max_inner >= 1:
        raise ValueError(f"max_inner={max_inner!r}: give at least 1")

    def init(x):
        m = max(min(max_inner, vec.size(x)), 1)
        zeros, row = vec.zeros(x), jnp.zeros(m, vec.scalar_dtype(x))
        return TrustKrylovState(
            trial=x,
            along=zeros,
            stays=jnp.zeros((), bool),
            Hz=zeros,
            V=vec.history(m, x),
            alpha=row,
            beta=row,
            k=jnp.zeros((), jnp.int32),
            concave=jnp.zeros((), bool),
            **_trust_region.start(x, radius),
        )

    def update(grad, state, params, /, *, value, hv, **_):
        # A product that is not finite counts as 0: the step then follows the gradient.
        hv = vec.where(jnp.isfinite(vec.dot(state.along, hv)), hv, vec.zeros(hv))
        judged = _trust_region.judge(region, state, Trial(params, jnp.asarray(value), grad, state.Hz))
        accepted = judged.accepted & ~state.stays
        w, alpha, beta = _lanczos(state, hv)
        m = state.alpha.size
        here = (jnp.arange(m) == state.k) & state.stays
        # The basis of a new iterate begins with the gradient.
        first = steepest(judged.iterate.g, vec.norm(judged.iterate.g), vec.probe(params))
        row = vec.where(accepted, first, w)
        k = jnp.where(accepted, 0, state.k + state.stays.astype(jnp.int32))
        state = vec.where(state.stays, state, judged)._replace(
            along=vec.where(accepted | state.stays, row, state.along),
            V=vec.write_row(state.V, k, row, (accepted | state.stays) & (k < m)),
            alpha=jnp.where(here, alpha, state.alpha),
            beta=jnp.where(here, beta, state.beta),
            k=k,
        )
        z, Hz, residual, at_edge, concave = _step(state)
        ends = ~accepted & (_small(residual, state, at_edge, concave) | (state.k >= m))
        x = state.iterate.x
        trial = vec.where(ends, vec.add(x, z), x)
        return vec.sub(trial, params), state._replace(
            trial=trial, stays=~ends, Hz=Hz, concave=concave, accepted=accepted
        )

    def _small(residual, state, at_edge, concave):
        gnorm = vec.norm(state.iterate.g)
        enough = jnp.where(at_edge, _LOOSE, jnp.minimum(_TIGHT, jnp.sqrt(gnorm))) if inexact else 1e-8
        # Without a gradient the space grows until it shows negative curvature, or has all directions that it can have.
        exhausted = jnp.any((jnp.arange(state.beta.size) == state.k - 1) & (state.beta == 0))
        return jnp.where(gnorm > 0, ~(residual > enough * gnorm), concave | exhausted)

    return Method(init, update, wants=frozenset({"grad", "hv"}), trees=True)


def _lanczos(state, Hv):
    """The next vector of the basis, and the two elements of T that the product with the last vector gives."""
    V, k = state.V, state.k
    known = jnp.arange(state.alpha.size) <= k

    def without_known(w):
        parts = jnp.where(known, vec.rows_dot(V, w), 0)
        return vec.sub(w, vec.rows_sum(parts, V)), parts

    w, parts = without_known(Hv)
    w, _ = without_known(w)  # once more, since rounding leaves a part the first time
    beta = vec.norm(w)
    # In an exhausted space only rounding is left.
    beta = jnp.where(beta > 10 * jnp.finfo(beta.dtype).eps * vec.norm(Hv), beta, 0)
    w = vec.scale(jnp.where(beta > 0, 1 / beta, 0), w)
    return w, jnp.sum(jnp.where(jnp.arange(parts.size) == k, parts, 0)), beta


def _step(state):
    """The step z in the space so far, H z, |(H + sigma I) z + g|, whether |z| = Delta, and whether H is concave."""
    m, k = state.alpha.size, state.k
    used = jnp.arange(m) < k
    alpha, beta = jnp.where(used, state.alpha, 0), jnp.where(jnp.arange(m) < k - 1, state.beta, 0)
    # Unused elements get a curvature above all others, so that the minimiser does not use them.
    above = jnp.max(jnp.abs(alpha)) + 2 * jnp.max(jnp.abs(beta))
    T = jnp.diag(jnp.where(used, alpha, above)) + jnp.diag(beta[:-1], 1) + jnp.diag(beta[:-1], -1)
    lam, S = _secular.spectrum(T)
    y = _secular.minimizer(lam, vec.norm(state.iterate.g) * S[0], state.radius)
    h, Th = (jnp.where(used, vec.rows_dot(S, v), 0) for v in (y, lam * y))
    last = jnp.arange(m) == k - 1
    residual = jnp.sum(jnp.where(last, state.beta * jnp.abs(h), 0))
    at_edge = vec.norm(y) >= 0.99 * state.radius
    return vec.rows_sum(h, state.V), vec.rows_sum(Th, state.V), residual, at_edge, jnp.any(lam < 0)
