"""The trust-region subproblem for a diagonal Hessian, which every Hessian is in the basis of its eigenvectors."""

import jax.numpy as jnp
from jax import lax

from jaxmin._core import vector as vec

# The number of Newton steps. After 8 steps the model's decrease was within 1e-8 of the best one, after 4 within 1e-3,
# on 9,000 random problems with n up to 100 and curvatures of both signs between 1e-8 and 1e8.
STEPS = 8


def spectrum(H):
    """The eigenvalues of H and its eigenvectors, as columns. Eigenvalues within rounding of 0 are made positive.

    An H that is not finite counts as 0: the step then follows the gradient.
    """
    H = jnp.where(jnp.all(jnp.isfinite(H)), H, 0)
    lam, Q = jnp.linalg.eigh(H)
    rounding = lam.size * jnp.finfo(lam.dtype).eps * jnp.max(jnp.abs(lam), initial=0)
    return jnp.where(jnp.abs(lam) <= rounding, jnp.abs(lam), lam), Q


def minimizer(lam, c, radius, steps=STEPS):
    r"""The minimiser of :math:`c^T y + \frac12 \sum_i \lambda_i y_i^2` over :math:`\|y\| \le \Delta`.

    It is :math:`y_i = -c_i / (\lambda_i + \sigma)`, where :math:`\sigma \ge \max(0, -\lambda_1)` is 0 or gives y the
    length :math:`\Delta` [1, Theorem 4.1]. The iteration is on :math:`\mu = \sigma + \lambda_1`, since no digits cancel
    in it however near :math:`\sigma` is to :math:`-\lambda_1`. Newton's method on :math:`1/\|y\| = 1/\Delta` starts
    below the root, stays below and converges [2, Section 7.3.3]. In the hard case y is too short for every
    :math:`\sigma`, and an eigenvector of :math:`\lambda_1` makes up its length.

    Args:
      lam: [n], in any order.
      c: [n].
      radius: [] Delta.
      steps: the number of Newton steps.

    Returns:
      y, [n], never longer than Delta.

    References:
      [1] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006.
      [2] A. R. Conn, N. I. M. Gould and P. L. Toint, Trust-Region Methods, 2000.
    """
    if not lam.size:
        return c
    lam_1 = jnp.min(lam)
    delta = lam - lam_1

    def at(mu):
        shifted = delta + mu
        usable = shifted != 0  # c is 0 wherever this is 0: otherwise mu would be larger
        y = jnp.where(usable, -c / jnp.where(usable, shifted, 1), 0)
        return y, shifted, vec.norm(y)

    def newton(mu, _):
        y, shifted, length = at(mu)
        q2 = jnp.sum(jnp.where(y == 0, 0, y**2 / jnp.where(y == 0, 1, shifted)))
        ahead = length**2 / q2 * (length - radius) / radius  # [1, eq. (4.44)]
        return jnp.where(length > radius, mu + ahead, mu), None

    # No |y_i| may be larger than Delta.
    least = jnp.maximum(jnp.maximum(lam_1, 0), jnp.max(jnp.abs(c) / radius - delta))
    mu, _ = lax.scan(newton, least, length=steps)
    y, _, length = at(mu)
    y = y * jnp.where(length > radius, radius / length, 1)
    rest = jnp.sqrt(jnp.maximum((radius - length) * (radius + length), 0))
    hard = (lam_1 < 0) & (length < radius)
    first = jnp.arange(lam.size) == jnp.argmin(lam)
    return jnp.where(hard & first & (y == 0), rest, y)
