"""RMSProp with momentum."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin.transforms._schedules import Rate
from jaxmin.transforms._transformation import (
    Transformation,
    abs2,
    check_averages,
    check_eps,
    check_mass,
    leafwise,
    quotient,
    real_zeros,
    zeros,
)


class RMSPropMomentumState(NamedTuple):
    k: Any  # [] int32: updates made
    delta: Any  # like params: the last step, downhill
    n: Any  # like params, real: moving average of the squares


@builder
def rmsprop_momentum(
    learning_rate: Rate, gamma: float = 0.9, eps: float = 1e-8, momentum: float = 0.9
) -> Transformation:
    r"""Add up steps of RMSProp, with exponentially less weight for older steps.

    .. math:: n_t = \gamma n_{t-1} + (1 - \gamma) |g_t|^2, \qquad
              \Delta_t = \beta \Delta_{t-1} + \eta_t g_t / \sqrt{n_t + \epsilon}, \qquad x_{t+1} = x_t - \Delta_t

    Args:
      learning_rate: :math:`\eta`, the step length: a number, a traced scalar, or a schedule (a callable of the
        iteration index, from 0). No default.
      gamma: :math:`\gamma`, the weight of the old average in the new one, in [0, 1), 0.9 by default.
      eps: :math:`\epsilon`, added under the root, >= 0, 1e-8 by default.
      momentum: :math:`\beta`, the fraction of the last step that remains: a finite number, 0.9 by default.

    Returns:
      A ``Transformation``.

    Raises:
      ValueError: for a constant out of its range.
      TypeError: for an argument of another type.

    >>> import jax.numpy as jnp
    >>> from jaxmin.transforms import rmsprop_momentum
    >>> tx = rmsprop_momentum(0.5, gamma=0.75)
    >>> updates, state = tx.update(jnp.array([2.0, -4.0]), tx.init(jnp.zeros(2)))
    >>> print(updates.round(3))
    [-1.  1.]

    References:
      A. Graves, arXiv:1308.0850 (2013), eqs. (38), (40) to (42), without the mean gradient.
    """
    check_averages(gamma=gamma)
    check_eps(eps)
    check_mass(momentum=momentum)
    beta = momentum

    def start(x):
        return zeros(x), real_zeros(x)

    def step(eta, t, g, delta, n):
        n = gamma * n + (1 - gamma) * abs2(g)
        delta = beta * delta + eta * quotient(g, jnp.sqrt(n + eps))
        return -delta, delta, n

    return leafwise(RMSPropMomentumState, learning_rate, start, step)
