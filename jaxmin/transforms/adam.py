"""Adam: steps scaled by estimates of the gradient's first two moments."""

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
    zeros,
)


class AdamState(NamedTuple):
    k: Any  # [] int32: updates made
    m: Any  # like params: first moment
    v: Any  # like params, real: second moment


@builder
def adam(learning_rate: Rate, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Transformation:
    r"""Divide the mean gradient by the root of the mean square, both estimated by moving averages.

    .. math:: m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2) |g_t|^2,

    .. math:: x_t = x_{t-1} - \alpha_t \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    Args:
      learning_rate: :math:`\alpha`, the step length: a number, a traced scalar, or a schedule (a callable of the
        iteration index, from 0). No default.
      b1: :math:`\beta_1`, the weight of the old first moment in the new one, in [0, 1), 0.9 by default.
      b2: :math:`\beta_2`, the same for the second moment, in [0, 1), 0.999 by default.
      eps: :math:`\epsilon`, added to the denominator, >= 0, 1e-8 by default.

    Returns:
      A ``Transformation``.

    Raises:
      ValueError: for a constant out of its range.
      TypeError: for an argument of another type.

    >>> import jax.numpy as jnp
    >>> from jaxmin.transforms import adam
    >>> tx = adam(0.5)
    >>> updates, state = tx.update(jnp.array([2.0, -4.0]), tx.init(jnp.zeros(2)))
    >>> print(updates.round(3))
    [-0.5  0.5]

    References:
      D. P. Kingma and J. Ba, arXiv:1412.6980, ICLR 2015, Algorithm 1.
    """
    check_averages(b1=b1, b2=b2)
    check_eps(eps)

    def start(x):
        return zeros(x), real_zeros(x)

    def step(alpha, t, g, m, v):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * abs2(g)
        m_hat = m / (1 - b1**t)
        v_hat = v / (1 - b2**t)
        return -alpha * quotient(m_hat, jnp.sqrt(v_hat) + eps), m, v

    return leafwise(AdamState, learning_rate, start, step)
