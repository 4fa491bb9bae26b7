"""The extra-gradient method, for saddle points."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.pytree import check_tree
from jaxmin.transforms._schedules import Rate, make_schedule
from jaxmin.transforms._transformation import Transformation, inexact_dtype, zeros


class ExtraGradientState(NamedTuple):
    k: Any  # [] int32: updates made; odd at the half-way point
    x: Any  # like params: the point at which the pair began


@builder
def extra_gradient(learning_rate: Rate) -> Transformation:
    r"""Look ahead along the gradient, then step from the original point along the gradient found there.

    .. math:: x_{k+1/2} = x_k - \eta_k F(x_k), \qquad x_{k+1} = x_k - \eta_k F(x_{k+1/2})

    Updates come in pairs, one for each gradient. Through :func:`partition`, give one group of parameters a positive
    rate and the other a negative one. The method then finds saddle points, where plain descent and
    ascent spiral outwards.

    Args:
      learning_rate: :math:`\eta`, the step length: a number, a traced scalar, or a schedule (a callable of the number
        of pairs before). A negative one ascends. No default.

    Returns:
      A ``Transformation``. Its ``update`` needs ``params``.

    Raises:
      TypeError: for a rate of another type, and by ``update`` without ``params``.

    >>> import jax, jax.numpy as jnp
    >>> from jaxmin.transforms import apply_updates, extra_gradient, partition
    >>> tx = partition({"min": extra_gradient(0.5), "max": extra_gradient(-0.5)}, ("min", "max"))
    >>> game = jax.grad(lambda p: p[0] * p[1])
    >>> p = jnp.array(1.0), jnp.array(1.0)
    >>> state = tx.init(p)
    >>> for _ in range(2):
    ...     updates, state = tx.update(game(p), state, p)
    ...     p = apply_updates(p, updates)
    >>> print(*p)
    0.25 1.25

    References:
      G. M. Korpelevich, Ekonomika i Matematicheskie Metody 12 (1976), 747-756.
    """
    schedule = make_schedule(learning_rate)

    def init(params):
        return ExtraGradientState(jnp.zeros((), jnp.int32), jax.tree.map(zeros, params))

    def update(grads, state, params=None, **extra):
        del extra
        if params is None:
            raise TypeError(
                "params=None: extra_gradient needs params to return to the start of a pair; give (grads, state, params)"
            )
        check_tree("grads", grads, params)
        begins = state.k % 2 == 0
        x = jax.tree.map(lambda p, saved: jnp.where(begins, p, saved).astype(saved.dtype), params, state.x)
        eta = schedule(state.k // 2)

        def move(g, x, p):
            g = jnp.asarray(g, inexact_dtype(g))
            return ((x - p) - jnp.asarray(eta, vec.scalar_dtype(g)) * g).astype(g.dtype)

        return jax.tree.map(move, grads, x, params), ExtraGradientState(state.k + 1, x)

    return Transformation(init, update)
