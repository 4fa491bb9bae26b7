"""How a solve went: the last iterates' figures, kept in a ring of fixed length inside the loop."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmin import _vector as vec


class History(NamedTuple):
    """The last N iterates of a solve, the oldest first; x0 is iterate 0.

    Of fewer than N the rest is NaN, and -1 where the numbers are whole. Under ``vmap`` a leading batch axis.

    - ``nit`` [N] int32: the iterate's number.
    - ``fun`` [N]: the objective.
    - ``gnorm`` [N]: the infinity norm of the gradient; NaN for methods without.
    - ``step`` [N]: the largest change of x since the iterate before; NaN at x0.
    - ``nfev`` [N] int32: evaluations so far.
    """

    nit: Any
    fun: Any
    gnorm: Any
    step: Any
    nfev: Any


def empty(length, dtype):
    """A history of nothing yet."""
    whole, real = jnp.full(length, -1, jnp.int32), jnp.full(length, jnp.nan, dtype)
    return History(whole, real, real, real, whole)


def record(history, accepted, before, after, nfev):
    """The history with the iterate of the state ``after``, where a trip accepted one."""
    x, f, g = after.iterate
    moved = jnp.where(after.nit > 0, vec.max_abs(vec.sub(x, before.iterate.x)), jnp.nan)
    row = History(after.nit, f, jnp.nan if g is None else vec.max_abs(g), moved, nfev)
    length = history.nit.shape[0]
    here = (jnp.arange(length) == after.nit % length) & accepted
    return jax.tree.map(lambda kept, new: jnp.where(here, jnp.asarray(new, kept.dtype), kept), history, row)


def in_order(history, nit):
    """The ring, its oldest entry first."""
    length = history.nit.shape[0]
    start = jnp.where(nit + 1 > length, (nit + 1) % length, 0)
    return jax.tree.map(lambda kept: jnp.roll(kept, -start), history)
