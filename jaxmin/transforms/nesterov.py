"""Gradient descent with Nesterov's momentum."""

from typing import Any, NamedTuple

from jaxmin._cache.builder import builder
from jaxmin.transforms._schedules import Rate
from jaxmin.transforms._transformation import Transformation, check_mass, leafwise, zeros


class NesterovState(NamedTuple):
    k: Any  # [] int32: updates made
    v: Any  # like params: the velocity


@builder
def nesterov(learning_rate: Rate, mass: float) -> Transformation:
    r"""Move along the velocity that the next iteration would have if the gradient stayed the same.

    .. math:: v_{k+1} = \mu v_k + g_k, \qquad x_{k+1} = x_k - \eta_k (\mu v_{k+1} + g_k)

    This is Nesterov's method [1] with x as the point at which the gradient is evaluated: [2, eqs. (3), (4)], shifted by
    half an iteration.

    Args:
      learning_rate: :math:`\eta`, the step length: a number, a traced scalar, or a schedule (a callable of the
        iteration index, from 0). No default.
      mass: :math:`\mu`, the fraction of the velocity that remains: a finite number. No default.

    Returns:
      A ``Transformation``.

    Raises:
      ValueError: for a constant out of its range.
      TypeError: for an argument of another type.

    >>> import jax.numpy as jnp
    >>> from jaxmin.transforms import nesterov
    >>> tx = nesterov(0.5, 0.5)
    >>> updates, state = tx.update(jnp.array([2.0, -4.0]), tx.init(jnp.zeros(2)))
    >>> print(updates.round(3))
    [-1.5  3. ]

    References:
      [1] Yu. Nesterov, Soviet Math. Dokl. 27 (1983), 372-376.
      [2] I. Sutskever, J. Martens, G. Dahl and G. Hinton, ICML 2013, Section 2.
    """
    check_mass(mass=mass)
    mu = mass

    def start(x):
        return (zeros(x),)

    def step(eta, t, g, v):
        v = mu * v + g
        return -eta * (mu * v + g), v

    return leafwise(NesterovState, learning_rate, start, step)
