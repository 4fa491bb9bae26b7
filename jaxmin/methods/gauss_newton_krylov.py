"""The Gauss-Newton method for large problems of least squares, which needs products with the Jacobian alone."""

import math
from collections.abc import Callable
from typing import Any

import jax

from jaxmin._cache.builder import builder
from jaxmin._core.loss import rho_of, scaled
from jaxmin._core.protocol import Method
from jaxmin.methods import _trust_region
from jaxmin.methods.trust_ncg import trust_ncg


@builder(
    aliases=("gauss-newton-krylov", "gauss_newton_cg", "cgls"),
    spellings=_trust_region.SPELLINGS,
    converters={"loss": rho_of},
)
def gauss_newton_krylov(
    radius: float = 1.0,
    max_radius: float = math.inf,
    eta: float = 0.15,
    max_inner: int | None = None,
    loss: str | Callable[..., Any] = "linear",
    f_scale: float | jax.Array = 1.0,
) -> Method:
    r"""Least squares with many variables: ``fun`` returns the residuals r, f = r.r / 2, and no Jacobian is formed.

    It is :func:`~jaxmin.trust_ncg` with :math:`J^T J` in place of the Hessian of f [1, Section 10.3]: each step
    evaluates either f and :math:`J^T r` at a trial, or one product :math:`J^T (J d)` at the iterate. It converges
    quickly where the residuals at the solution are small or nearly linear; where they are not, give
    :func:`~jaxmin.trust_ncg` a :func:`~jaxmin.sum_of_squares`. For up to some hundred variables
    :func:`~jaxmin.levenberg_marquardt` knows J, and with it the scales of the variables and their errors.

    The solve ends where the gradient :math:`J^T r` is small: ``gtol`` is in units of f over x, as for any other f.
    ``jac`` is not used, and there are no error bars: ``res.covariance()`` needs J.

    Args:
      radius: the first :math:`\Delta`, in units of x, > 0; 1.0 by default.
      max_radius: the largest :math:`\Delta`, in units of x, >= radius; infinite by default.
      eta: the agreement of model and function that an accepted step needs, in [0, 1/4); 0.15 by default.
      max_inner: the largest number of products for one step, >= 1; None (default) is 20 n.
      loss: "linear" (default), "soft_l1", "huber", "cauchy" or "arctan", as in SciPy's ``least_squares``, or a function
        rho: see :func:`~jaxmin.sum_of_squares`. Rows of J are then weighted by Triggs's correction [2].
      f_scale: the scale of the loss, in units of the residuals, > 0; 1 by default. It may be traced.

    Returns:
      A ``Method``. ``res.fun`` is half the sum of squares, ``res.nhev`` counts the products.

    Raises:
      ValueError: for an argument out of its range, or an unknown loss.
      TypeError: for an argument that is not a number.

    >>> import jax.numpy as jnp, jaxmin
    >>> def broyden(x):
    ...     p = jnp.pad(x, 1)
    ...     return (3 - 2 * x) * x - p[:-2] - 2 * p[2:] + 1
    >>> res = jaxmin.minimize(broyden, -jnp.ones(1000), method="gauss_newton_krylov")
    >>> res.success, bool(res.fun < 1e-8)
    (True, True)

    References:
      [1] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006.
      [2] B. Triggs et al., Bundle adjustment - a modern synthesis, LNCS 1883, 2000, 298-372, Section 4.3.
    """
    inner = trust_ncg(radius, max_radius, eta, max_inner)
    return inner._replace(wants=inner.wants | {"gauss_newton"}, loss=scaled(loss, "f_scale", f_scale))
