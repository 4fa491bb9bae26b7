"""AdaGrad: the rate of a coordinate falls as its squared gradients add up."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin.transforms._schedules import Rate
from jaxmin.transforms._transformation import (
    Transformation,
    abs2,
    check_averages,
    leafwise,
    quotient,
    real_zeros,
    zeros,
)


class AdagradState(NamedTuple):
    k: Any  # [] int32: updates made
    m: Any  # like params: moving average of the scaled gradients
    G: Any  # like params, real: sum of squares


@builder
def adagrad(learning_rate: Rate, momentum: float = 0.9) -> Transformation:
    r"""Divide each coordinate by the root of the sum of its squared gradients.

    .. math:: G_t = G_{t-1} + |g_t|^2, \qquad m_t = \beta m_{t-1} + (1 - \beta) g_t / \sqrt{G_t},
              \qquad x_{t+1} = x_t - \eta_t m_t

    with 0 / 0 = 0. :math:`\beta = 0` is the paper's update (1) in its diagonal form.

    Args:
      learning_rate: :math:`\eta`, the step length: a number, a traced scalar, or a schedule (a callable of the
        iteration index, from 0). No default.
      momentum: :math:`\beta`, the weight of the old average in the new one, in [0, 1), 0.9 by default.

    Returns:
      A ``Transformation``.

    Raises:
      ValueError: for a constant out of its range.
      TypeError: for an argument of another type.

    >>> import jax.numpy as jnp
    >>> from jaxmin.transforms import adagrad
    >>> tx = adagrad(0.5, momentum=0.0)
    >>> updates, state = tx.update(jnp.array([2.0, -4.0]), tx.init(jnp.zeros(2)))
    >>> print(updates.round(3))
    [-0.5  0.5]

    References:
      J. Duchi, E. Hazan and Y. Singer, JMLR 12 (2011), 2121-2159, eq. (1) and Figure 1.
    """
    check_averages(momentum=momentum)
    beta = momentum

    def start(x):
        return zeros(x), real_zeros(x)

    def step(eta, t, g, m, G):
        G = G + abs2(g)
        m = beta * m + (1 - beta) * quotient(g, jnp.sqrt(G))
        return -eta * m, m, G

    return leafwise(AdagradState, learning_rate, start, step)
