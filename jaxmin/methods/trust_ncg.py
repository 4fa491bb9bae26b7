"""Newton's method with a trust region, its steps by truncated conjugate gradients."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin import _trust_region
from jaxmin import _vector as vec
from jaxmin._builder import builder
from jaxmin._method import Iterate, Method

names = ("trust-ncg", "steihaug", "newton-tr")
options = _trust_region.OPTIONS


class TrustNCGState(NamedTuple):
    # changes with every trip
    trial: Any  # like params: where to evaluate next
    along: Any  # like params: the direction of the product wanted next, d
    stays: Any  # [] bool: the trial is the iterate; a product is wanted, not a value
    # of the conjugate gradients
    z: Any  # like params: the step so far
    Hz: Any  # like params
    r: Any  # like params: the residual H z + g, over |g|, so that no product overflows
    inner: Any  # [] int32: products since the iterate
    # changes with every iterate
    iterate: Iterate
    nit: Any  # [] int32; -1 before x0
    radius: Any  # []
    f_lowest: Any  # []
    status: Any  # [] int32


@builder
def trust_ncg(radius=1.0, max_radius=math.inf, eta=0.15, max_inner=200):
    r"""Newton's method in a trust region, by conjugate gradients that stop at its edge or at negative curvature.

    The step z makes :math:`m(z) = f + g^T z + \frac12 z^T H z` small over :math:`\|z\| \le \Delta`
    [1; 2, Algorithm 7.2]. H is never formed: each trip of the loop evaluates f and g at a trial, or the product
    H d at the iterate. A step is taken where
    :math:`\rho = (f(x) - f(x + z)) / (m(0) - m(z)) > \eta`; :math:`\Delta` shrinks to a quarter of the step where
    :math:`\rho < 1/4`, and doubles where :math:`\rho > 3/4` at the edge [2, Algorithm 4.1].

    Args:
      radius: the first :math:`\Delta`, in units of x, > 0; 1.0 by default.
      max_radius: the largest, >= radius; infinite by default (SciPy has 1000).
      eta: the agreement that a step needs, in [0, 1/4); 0.15 by default.
      max_inner: products for one step at most, >= 1; 200 by default.

    Returns:
      A ``Method``. ``res.nhev`` counts its products, ``res.nfev`` its trials.

    >>> import jax.numpy as jnp, jaxmin
    >>> rosen = lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    >>> jaxmin.minimize(rosen, [-1.2, 1.0], method="trust-ncg").success
    True

    References:
      [1] T. Steihaug, SIAM J. Numer. Anal. 20 (1983), 626-637.
      [2] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006.
    """
    _trust_region.check(radius, max_radius, eta)
    if not max_inner >= 1:
        raise ValueError(f"max_inner={max_inner!r}: at least 1")
    first_radius = radius

    def init(x):
        zeros = vec.zeros(x)
        return TrustNCGState(
            trial=x,
            along=zeros,
            stays=jnp.zeros((), bool),
            z=zeros,
            Hz=zeros,
            r=zeros,
            inner=jnp.zeros((), jnp.int32),
            **_trust_region.start(x, first_radius),
        )

    def update(grad, state, params, /, *, value, hv, **_):
        value = jnp.asarray(value)
        evaluated = _judge(grad, state, params, value)
        searched = _conjugate_gradient(state, hv)
        new = vec.where(state.stays, searched, evaluated)
        return vec.sub(new.trial, params), new

    def _judge(g, state, x, value):
        """The trial was evaluated: take the step or not, and begin a new one from the iterate."""
        state, _ = _trust_region.judge(state, g, x, value, state.Hz, eta=eta, max_radius=max_radius)
        iterate, zeros = state.iterate, vec.zeros(x)
        return state._replace(
            trial=iterate.x,
            along=vec.scale(-1 / vec.norm(iterate.g), iterate.g),
            stays=jnp.ones((), bool),
            z=zeros,
            Hz=zeros,
            r=vec.scale(1 / vec.norm(iterate.g), iterate.g),
            inner=jnp.zeros((), jnp.int32),
        )

    def _conjugate_gradient(state, Hd):
        """One iteration of conjugate gradients for H z = -g [2, Algorithm 7.2]."""
        d, z, r = state.along, state.z, state.r
        rr, dHd, gnorm = vec.dot(r, r), vec.dot(d, Hd), vec.norm(state.iterate.g)
        alpha = gnorm * rr / dHd
        inside = vec.axpy(alpha, d, z)
        leaves = ~(dHd > 0) | ~(vec.norm(inside) < state.radius)
        # tau >= 0 with |z + tau d| = Delta.
        dd, zd, zz = vec.dot(d, d), vec.dot(z, d), vec.dot(z, z)
        gap = jnp.maximum(state.radius**2 - zz, 0)
        tau = gap / (zd + jnp.sqrt(zd**2 + dd * gap))
        t = jnp.where(leaves, tau, alpha)
        z, Hz, r = vec.axpy(t, d, z), vec.axpy(t, Hd, state.Hz), vec.axpy(t / gnorm, Hd, r)
        rr_new = vec.dot(r, r)
        inner = state.inner + 1
        small = jnp.sqrt(rr_new) <= jnp.minimum(0.5, jnp.sqrt(gnorm))
        ends = leaves | small | (inner >= max_inner)
        return state._replace(
            trial=vec.where(ends, vec.add(state.iterate.x, z), state.iterate.x),
            along=vec.axpy(rr_new / rr, d, vec.scale(-1, r)),
            stays=~ends,
            z=z,
            Hz=Hz,
            r=r,
            inner=inner,
        )

    return Method(init, update, wants="product")
