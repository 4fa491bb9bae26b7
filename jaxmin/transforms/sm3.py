"""SM3: AdaGrad with the memory of one number per row and per column."""

from functools import reduce
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


class SM3State(NamedTuple):
    k: Any  # [] int32: updates made
    m: Any  # like params: moving average of the scaled gradients
    mu: Any  # a tuple for each leaf: for each axis, the largest nu of each of its slices; the leaf's rank


@builder
def sm3(learning_rate: Rate, momentum: float = 0.9) -> Transformation:
    r"""Divide each coordinate by the root of a bound on the sum of its squared gradients.

    .. math:: \nu_t(i) = \min_{r \ni i} \mu_{t-1}(r) + |g_t(i)|^2, \qquad
              \mu_t(r) = \max_{i \in r} \nu_t(i), \qquad
              m_t = \beta m_{t-1} + (1 - \beta) g_t / \sqrt{\nu_t}, \qquad x_{t+1} = x_t - \eta_t m_t

    with 0 / 0 = 0, where the sets r are the slices of an array along each axis: m + n sets for an m by n matrix.

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
    >>> from jaxmin.transforms import sm3
    >>> tx = sm3(0.5, momentum=0.0)
    >>> updates, state = tx.update(jnp.array([2.0, -4.0]), tx.init(jnp.zeros(2)))
    >>> print(updates.round(3))
    [-0.5  0.5]

    References:
      R. Anil, V. Gupta, T. Koren and Y. Singer, arXiv:1901.11150, NeurIPS 2019, Algorithm SM3-II and Section 4.
    """
    check_averages(momentum=momentum)
    beta = momentum

    def slices(nu):
        axes = range(nu.ndim)
        others = [tuple(axis for axis in axes if axis != own) for own in axes] or [()]  # a scalar is its own slice
        return tuple(jnp.max(nu, axis=axis, keepdims=True, initial=0) for axis in others)

    def start(x):
        return zeros(x), slices(real_zeros(x))

    def step(eta, t, g, m, mu):
        nu = reduce(jnp.minimum, mu) + abs2(g)
        m = beta * m + (1 - beta) * quotient(g, jnp.sqrt(nu))
        return -eta * m, m, slices(nu)

    return leafwise(SM3State, learning_rate, start, step)
