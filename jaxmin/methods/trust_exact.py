"""Newton's method with a trust region: each step is the exact minimiser of the model in it."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.protocol import Iterate, Method
from jaxmin.methods import _secular, _trust_region
from jaxmin.methods._noise_floor import Noise
from jaxmin.methods._trust_region import Trial


class TrustExactState(NamedTuple):
    # changes with every step
    trial: Any  # [n] where to evaluate next
    stays: Any  # [] bool: the trial is the iterate; the next step evaluates the Hessian there
    Hz: Any  # [n] the product of the Hessian and the step to the trial
    # changes with every iterate
    lam: Any  # [n] the eigenvalues of the Hessian
    Q: Any  # [n, n] the eigenvectors, as columns
    c: Any  # [n] the gradient in the basis of the eigenvectors
    iterate: Iterate
    accepted: Any  # [] bool: it is the trial given last
    nit: Any  # [] int32; -1 before x0
    radius: Any  # []
    noise: Noise
    status: Any  # [] int32

    @property
    def saddle(self):
        """[] bool: at x0 the Hessian has a negative eigenvalue, or is still to be evaluated."""
        return (self.nit == 0) & (self.stays | jnp.any(self.lam < 0))


@builder(
    aliases=("trust-exact", "more-sorensen"), spellings=_trust_region.SPELLINGS | {"subproblem_maxiter": "max_inner"}
)
def trust_exact(
    radius: float = 1.0, max_radius: float = math.inf, eta: float = 0.15, max_inner: int = _secular.STEPS
) -> Method:
    r"""Newton's method in a trust region: each step is the exact minimiser of the model, from the full Hessian.

    The step z is the minimiser of :math:`m(z) = f + g^T z + \frac12 z^T H z` over :math:`\|z\| \le \Delta`: there is a
    :math:`\sigma \ge 0` with :math:`(H + \sigma I) z = -g`, :math:`H + \sigma I` positive semidefinite and
    :math:`\sigma (\Delta - \|z\|) = 0` [1; 2, Theorem 4.1]. The step follows negative curvature even if the gradient
    has no component along it (the hard case), so the method leaves saddle points. A separate step evaluates H once per
    iterate. In the basis of its eigenvectors the equation for :math:`\sigma` has n terms. After a rejected step only
    this equation is solved again, for a smaller :math:`\Delta`. Steps are accepted as in :func:`~jaxmin.trust_ncg`. The
    method is for n up to a few hundred: an iterate costs n products H v and an eigenvalue problem.

    Args:
      radius: the first :math:`\Delta`, in units of x, > 0; 1.0 by default.
      max_radius: the largest :math:`\Delta`, in units of x, >= radius; infinite by default (SciPy has 1000).
      eta: the agreement of model and function that an accepted step needs, in [0, 1/4); 0.15 by default.
      max_inner: steps of Newton's method on the equation for :math:`\sigma`, >= 1; 8 by default, which
        is exact to rounding in nearly all cases.

    Returns:
      A ``Method``. ``res.nhev`` counts its Hessians, ``res.nfev`` its trials.

    Raises:
      ValueError: for an argument out of its range.
      TypeError: for an argument that is not a number.

    >>> import jax.numpy as jnp, jaxmin
    >>> saddle = lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4 / 4  # the gradient at x0 leads to the saddle point
    >>> jnp.abs(jaxmin.minimize(saddle, [1.0, 0.0], method="trust-exact").x).round(3).tolist()
    [0.0, 1.414]

    References:
      [1] J. J. Moré and D. C. Sorensen, SIAM J. Sci. Stat. Comput. 4 (1983), 553-572.
      [2] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006.
    """
    region = _trust_region.region(radius, max_radius, eta)
    if not max_inner >= 1:
        raise ValueError(f"max_inner={max_inner!r}: give at least 1")

    def init(x):
        zeros = vec.zeros(x)
        return TrustExactState(
            trial=x,
            stays=jnp.zeros((), bool),
            Hz=zeros,
            lam=zeros,
            Q=jnp.zeros((x.size, x.size), x.dtype),
            c=zeros,
            **_trust_region.start(x, radius),
        )

    def update(grad, state, params, /, *, value, H, **_):
        known = state.lam, state.Q, state.c

        def decomposed():
            lam, Q = _secular.spectrum(H)
            return lam, Q, vec.rows_sum(state.iterate.g, Q)

        lam, Q, c = lax.cond(state.stays, decomposed, lambda: known)
        judged = _trust_region.judge(region, state, Trial(params, jnp.asarray(value), grad, state.Hz))
        accepted = judged.accepted & ~state.stays
        state = vec.where(state.stays, state, judged)
        y = _secular.minimizer(lam, c, state.radius, max_inner)
        z, Hz = vec.rows_dot(Q, y), vec.rows_dot(Q, lam * y)
        x = state.iterate.x
        trial = jnp.where(accepted, x, x + z)
        state = state._replace(trial=trial, stays=accepted, Hz=Hz, lam=lam, Q=Q, c=c, accepted=accepted)
        return vec.sub(state.trial, params), state

    return Method(init, update, wants=frozenset({"grad", "H"}))
