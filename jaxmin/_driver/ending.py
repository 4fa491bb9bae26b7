"""Where a solve has ended: whether that is a minimum, for all that is worked out at its point."""

import jax
import jax.numpy as jnp

from jaxmin._core import vector as vec
from jaxmin._core.batch_cond import anywhere
from jaxmin._core.status import SUCCESSES, Status

# Endings by changes of f and x: the minimum may be far.
_LOOSE = (Status.FTOL, Status.XTOL, Status.SPREAD)
# Endings whose point is a minimum if Newton's step from there is shorter than so much of x.
_DOUBTFUL = (Status.PRECISION_LOSS, Status.SEARCH_FAILED, *_LOOSE)
_NEAR = 1e-2


def is_loose(solution):
    """Whether a solve has ended by changes of f and x, [] bool: its minimum may be far."""
    return jnp.isin(solution.status, jnp.asarray(_LOOSE))


def is_success(solution):
    """Whether a stopping test held where a solve ended, [] bool."""
    return jnp.isin(solution.status, jnp.asarray(SUCCESSES))


def is_at_minimum(solution, newton):
    """Whether a solve has ended at a minimum; ``newton()`` is Newton's step from where the derivatives are taken."""

    def is_near():
        return vec.max_abs(newton()) <= _NEAR * jnp.maximum(vec.max_abs(solution.x), 1)

    doubtful = jnp.isin(solution.status, jnp.asarray(_DOUBTFUL))
    near = jax.lax.cond(anywhere(doubtful), is_near, lambda: jnp.ones((), bool))
    return jnp.where(doubtful, near, is_success(solution))


def nearer(solution, x, step):
    """x, or where a solve has ended far from its minimum, x after two of Newton's steps; ``step(x)`` makes one."""
    loose = is_loose(solution)
    return jax.lax.cond(anywhere(loose), lambda: vec.where(loose, step(step(x)), x), lambda: x)
