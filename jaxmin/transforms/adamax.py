"""AdaMax: Adam with the infinity norm."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin.transforms._schedules import Rate
from jaxmin.transforms._transformation import (
    Transformation,
    check_averages,
    check_eps,
    leafwise,
    quotient,
    real_zeros,
    zeros,
)


class AdamaxState(NamedTuple):
    k: Any  # [] int32: updates made
    m: Any  # like params: first moment
    u: Any  # like params, real: infinity norm, weighted by age


@builder
def adamax(learning_rate: Rate, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Transformation:
    r"""Divide the mean gradient by the largest gradient, where older gradients have exponentially less weight.

    .. math:: m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad u_t = \max(\beta_2 u_{t-1}, |g_t|),

    .. math:: x_t = x_{t-1} - \frac{\alpha_t}{1 - \beta_1^t} \frac{m_t}{u_t + \epsilon}

    The paper has no :math:`\epsilon`.

    Args:
      learning_rate: :math:`\alpha`, the step length: a number, a traced scalar, or a schedule (a callable of the
        iteration index, from 0). No default.
      b1: :math:`\beta_1`, the weight of the old first moment in the new one, in [0, 1), 0.9 by default.
      b2: :math:`\beta_2`, the same for the norm, in [0, 1), 0.999 by default.
      eps: :math:`\epsilon`, added to the denominator, >= 0, 1e-8 by default.

    Returns:
      A ``Transformation``.

    Raises:
      ValueError: for a constant out of its range.
      TypeError: for an argument of another type.

    >>> import jax.numpy as jnp
    >>> from jaxmin.transforms import adamax
    >>> tx = adamax(0.5)
    >>> updates, state = tx.update(jnp.array([2.0, -4.0]), tx.init(jnp.zeros(2)))
    >>> print(updates.round(3))
    [-0.5  0.5]

    References:
      D. P. Kingma and J. Ba, arXiv:1412.6980, ICLR 2015, Section 7.1, Algorithm 2.
    """
    check_averages(b1=b1, b2=b2)
    check_eps(eps)

    def start(x):
        return zeros(x), real_zeros(x)

    def step(alpha, t, g, m, u):
        m = b1 * m + (1 - b1) * g
        u = jnp.maximum(b2 * u, jnp.abs(g))
        return -alpha / (1 - b1**t) * quotient(m, u + eps), m, u

    return leafwise(AdamaxState, learning_rate, start, step)
