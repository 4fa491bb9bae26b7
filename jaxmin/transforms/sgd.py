"""Stochastic gradient descent."""

from typing import Any, NamedTuple

from jaxmin._cache.builder import builder
from jaxmin.transforms._schedules import Rate
from jaxmin.transforms._transformation import Transformation, leafwise


class SGDState(NamedTuple):
    k: Any  # [] int32: updates made


@builder
def sgd(learning_rate: Rate) -> Transformation:
    r"""Go down the gradient.

    .. math:: x_{k+1} = x_k - \eta_k g_k

    Args:
      learning_rate: :math:`\eta`, the step length: a number, a traced scalar, or a schedule (a callable of the
        iteration index, from 0). No default.

    Returns:
      A ``Transformation``.

    Raises:
      TypeError: for an argument of another type.

    >>> import jax.numpy as jnp
    >>> from jaxmin.transforms import sgd
    >>> tx = sgd(0.5)
    >>> updates, state = tx.update(jnp.array([2.0, -4.0]), tx.init(jnp.zeros(2)))
    >>> print(updates.round(3))
    [-1.  2.]

    References:
      H. Robbins and S. Monro, Ann. Math. Statist. 22 (1951), 400-407, eq. (6).
    """

    def start(x):
        return ()

    def step(eta, t, g):
        return (-eta * g,)

    return leafwise(SGDState, learning_rate, start, step)
