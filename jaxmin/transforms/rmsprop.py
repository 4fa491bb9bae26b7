"""RMSProp: each coordinate divided by the root of its mean squared gradient."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin.transforms._schedules import Rate
from jaxmin.transforms._transformation import (
    Transformation,
    abs2,
    check_averages,
    check_eps,
    leafwise,
    quotient,
    real_zeros,
)


class RMSPropState(NamedTuple):
    k: Any  # [] int32: updates made
    n: Any  # like params, real: moving average of the squares


@builder
def rmsprop(learning_rate: Rate, gamma: float = 0.9, eps: float = 1e-8) -> Transformation:
    r"""Divide each coordinate by the root of a moving average of its squared gradients.

    .. math:: n_t = \gamma n_{t-1} + (1 - \gamma) |g_t|^2, \qquad
              x_{t+1} = x_t - \eta_t g_t / \sqrt{n_t + \epsilon}

    Args:
      learning_rate: :math:`\eta`, the step length: a number, a traced scalar, or a schedule (a callable of the
        iteration index, from 0). No default.
      gamma: :math:`\gamma`, the weight of the old average in the new one, in [0, 1), 0.9 by default.
      eps: :math:`\epsilon`, added under the root, >= 0, 1e-8 by default.

    Returns:
      A ``Transformation``.

    Raises:
      ValueError: for a constant out of its range.
      TypeError: for an argument of another type.

    >>> import jax.numpy as jnp
    >>> from jaxmin.transforms import rmsprop
    >>> tx = rmsprop(0.5, gamma=0.75)
    >>> updates, state = tx.update(jnp.array([2.0, -4.0]), tx.init(jnp.zeros(2)))
    >>> print(updates.round(3))
    [-1.  1.]

    References:
      T. Tieleman and G. Hinton, Neural Networks for Machine Learning, Lecture 6.5, Coursera, 2012.
      A. Graves, arXiv:1308.0850 (2013), eqs. (38), (40), without the mean gradient.
    """
    check_averages(gamma=gamma)
    check_eps(eps)

    def start(x):
        return (real_zeros(x),)

    def step(eta, t, g, n):
        n = gamma * n + (1 - gamma) * abs2(g)
        return -eta * quotient(g, jnp.sqrt(n + eps)), n

    return leafwise(RMSPropState, learning_rate, start, step)
