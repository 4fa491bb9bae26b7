"""Gradient descent with momentum: the heavy ball."""

from typing import Any, NamedTuple

from jaxmin._cache.builder import builder
from jaxmin.transforms._schedules import Rate
from jaxmin.transforms._transformation import Transformation, check_mass, leafwise, zeros


class MomentumState(NamedTuple):
    k: Any  # [] int32: updates made
    v: Any  # like params: the velocity


@builder
def momentum(learning_rate: Rate, mass: float) -> Transformation:
    r"""Move along a velocity: a sum of the gradients, with exponentially less weight for older ones.

    .. math:: v_{k+1} = \mu v_k + g_k, \qquad x_{k+1} = x_k - \eta_k v_{k+1}

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
    >>> from jaxmin.transforms import momentum
    >>> tx = momentum(0.5, 0.9)
    >>> updates, state = tx.update(jnp.array([2.0, -4.0]), tx.init(jnp.zeros(2)))
    >>> print(updates.round(3))
    [-1.  2.]

    References:
      B. T. Polyak, USSR Comput. Math. Math. Phys. 4 (1964), 1-17, eq. (9).
    """
    check_mass(mass=mass)
    mu = mass

    def start(x):
        return (zeros(x),)

    def step(eta, t, g, v):
        v = mu * v + g
        return -eta * v, v

    return leafwise(MomentumState, learning_rate, start, step)
