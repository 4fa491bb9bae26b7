"""Newton's method with a trust region, its steps along Powell's dogleg."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.protocol import Iterate, Method
from jaxmin.methods import _trust_region
from jaxmin.methods._noise_floor import Noise
from jaxmin.methods._trust_region import Trial

# A length beyond any trust region that matters.
_FAR = 1e9


class DoglegState(NamedTuple):
    # changes with every step
    trial: Any  # [n] where to evaluate next
    stays: Any  # [] bool: the trial is the iterate; the next step evaluates the Hessian there
    Bz: Any  # [n] the product of B and the step to the trial
    # changes with every iterate
    p_U: Any  # [n] from the iterate to the minimiser of the model along the steepest descent
    Bp_U: Any  # [n]
    p_B: Any  # [n] from the iterate to the minimiser of the model; B p_B = -g
    iterate: Iterate
    accepted: Any  # [] bool: it is the trial given last
    nit: Any  # [] int32; -1 before x0
    radius: Any  # []
    noise: Noise
    bend: Any  # [] the mean of the negative eigenvalues of the Hessian, 0 if there are none
    status: Any  # [] int32

    @property
    def saddle(self):
        """[] bool: at x0 the Hessian has a negative eigenvalue, or is still to be evaluated."""
        return (self.nit == 0) & (self.stays | (self.bend < 0))


@builder(spellings=_trust_region.SPELLINGS)
def dogleg(radius: float = 1.0, max_radius: float = math.inf, eta: float = 0.15) -> Method:
    r"""Newton's method in a trust region: each step is the best one on a path of two straight legs.

    The path leads from the iterate to :math:`p^U = -(g^T g / g^T B g)\, g`, the minimiser of
    :math:`m(z) = f + g^T z + \frac12 z^T B z` along the steepest descent, and on to :math:`p^B = -B^{-1} g`. The step
    ends where the path leaves :math:`\|z\| \le \Delta`, or at the end of the path [1; 2, eq. (4.16)]. B is the Hessian.
    A separate step evaluates it once per iterate, and a Cholesky decomposition factorises it. If the Hessian is not
    positive definite, B has its eigenvectors and the absolute values of its eigenvalues; SciPy's method fails there.
    Steps are accepted as in :func:`~jaxmin.trust_ncg`. ``trust_exact`` costs about as much per iterate, and needs fewer
    iterates.

    Args:
      radius: the first :math:`\Delta`, in units of x, > 0; 1.0 by default.
      max_radius: the largest :math:`\Delta`, in units of x, >= radius; infinite by default (SciPy has 1000).
      eta: the agreement of model and function that an accepted step needs, in [0, 1/4); 0.15 by default.

    Returns:
      A ``Method``. ``res.nhev`` counts its Hessians, ``res.nfev`` its trials.

    Raises:
      ValueError: for an argument out of its range.
      TypeError: for an argument that is not a number.

    >>> import jax.numpy as jnp, jaxmin
    >>> rosen = lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    >>> jaxmin.minimize(rosen, [-1.2, 1.0], method="dogleg").success
    True

    References:
      [1] M. J. D. Powell, in P. Rabinowitz (ed.), Numerical Methods for Nonlinear Algebraic Equations, 1970, 87-114.
      [2] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006.
    """
    region = _trust_region.region(radius, max_radius, eta)

    def init(x):
        zeros = vec.zeros(x)
        return DoglegState(
            trial=x,
            stays=jnp.zeros((), bool),
            Bz=zeros,
            p_U=zeros,
            Bp_U=zeros,
            p_B=zeros,
            bend=jnp.zeros((), x.dtype),
            **_trust_region.start(x, radius),
        )

    def update(grad, state, params, /, *, value, H, **_):
        known = state.p_U, state.Bp_U, state.p_B, state.bend
        p_U, Bp_U, p_B, bend = lax.cond(state.stays, lambda: _legs(H, state.iterate.g), lambda: known)
        judged = _trust_region.judge(region, state, Trial(params, jnp.asarray(value), grad, state.Bz))
        accepted = judged.accepted & ~state.stays
        state = vec.where(state.stays, state, judged)
        x, g = state.iterate.x, state.iterate.g
        along_U, towards_B = _lengths(p_U, p_B, state.radius)
        z = along_U * p_U + towards_B * (p_B - p_U)
        Bp_B = jnp.where(jnp.any(g != 0), -g, bend * p_B)
        Bz = along_U * Bp_U + towards_B * (Bp_B - Bp_U)
        trial = jnp.where(accepted, x, x + z)
        state = state._replace(
            trial=trial, stays=accepted, Bz=Bz, p_U=p_U, Bp_U=Bp_U, p_B=p_B, bend=bend, accepted=accepted
        )
        return vec.sub(trial, params), state

    return Method(init, update, wants=frozenset({"grad", "H"}))


def _legs(H, g):
    """p_U, B p_U, p_B, and the mean of the negative eigenvalues of H, 0 if there are none.

    Where g is 0, p_B goes far along the sum of their eigenvectors. An H that is not finite counts as 0.
    """
    H = jnp.where(jnp.all(jnp.isfinite(H)), H, 0)
    gnorm = vec.norm(g)
    u = jnp.where(gnorm > 0, g / gnorm, 0)  # so that no product overflows
    L = jnp.linalg.cholesky(H)
    positive = jnp.all(jnp.isfinite(L))

    def as_it_is():
        return vec.rows_dot(H, u), -jax.scipy.linalg.cho_solve((L, True), u), jnp.zeros_like(u), jnp.zeros((), u.dtype)

    def made_positive():
        lam, Q = jnp.linalg.eigh(H)
        largest = jnp.max(jnp.abs(lam), initial=0)
        least = jnp.where(largest > 0, lam.size * jnp.finfo(lam.dtype).eps * largest, 1)
        falls = jnp.where(lam < -least, 1, 0).astype(lam.dtype)
        count = jnp.maximum(jnp.sum(falls), 1)
        along, bend = vec.rows_dot(Q, falls / jnp.sqrt(count)), jnp.sum(falls * lam) / count
        lam = jnp.maximum(jnp.abs(lam), least)
        c = vec.rows_sum(u, Q)
        return vec.rows_dot(Q, lam * c), -vec.rows_dot(Q, c / lam), along, bend

    Bu, towards_B, along, bend = lax.cond(positive, as_it_is, made_positive)
    to_U = jnp.where(gnorm > 0, -gnorm / vec.dot(u, Bu), 0)
    p_B = jnp.where((gnorm == 0) & (bend < 0), _FAR * along, gnorm * towards_B)
    return to_U * u, to_U * Bu, p_B, bend


def _lengths(p_U, p_B, radius):
    """The fractions of the first and of the second leg that the step covers, each in [0, 1]."""
    first = vec.norm(p_U)
    inside, whole = first < radius, vec.norm(p_B) <= radius
    leg = p_B - p_U
    inner_products = vec.measure((p_U, p_U), (p_U, leg), (leg, leg))
    second = jnp.where(whole, 1, _trust_region.to_edge(radius, *inner_products))
    return jnp.where(inside | whole, 1, radius / first), jnp.where(inside | whole, second, 0)
