"""The numbers of the last iterates, in a ring buffer of fixed length inside the loop."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._core import vector as vec
from jaxmin._core.typing import MaybeNone, PyTree, Scalar, Vector
from jaxmin._driver.report import Report


class History(NamedTuple):
    """The last N iterates of a solve, the oldest first; x0 is iterate 0.

    ``minimize(..., options={"history": N})`` returns it as ``res.history``. Unused entries are NaN, and -1 in the
    integer fields. Under ``vmap`` each array has a leading batch axis. ``fun``, ``gnorm`` and ``step`` have the dtype
    of the solve: float32, or the widest dtype of x0 and fun.

    - ``nit`` [N] int32: the number of the iterate.
    - ``fun`` [N]: the objective.
    - ``gnorm`` [N]: the infinity norm of the gradient, with bounds of the projected gradient, with constraints of the
      gradient of the Lagrangian; NaN for methods without gradients.
    - ``step`` [N]: the largest change of a variable since the last iterate; NaN at x0.
    - ``nfev`` [N] int32: evaluations so far.
    - ``violation`` [N]: with constraints, the largest violation, in the constraint's own units; else None.
    - ``x``: the iterates, like x0 with a leading axis N (None for leaves that do not vary), with
      ``options={"history_x": True}``; else None.

    >>> import jax.numpy as jnp, jaxmin
    >>> options = {"history": 3, "history_x": True}
    >>> history = jaxmin.minimize(lambda x: jnp.sum((x - 1) ** 2), jnp.zeros(2), options=options).history
    >>> history.nit.tolist(), history.nfev.tolist(), history.x.shape
    ([0, 1, 2], [1, 2, 3], (3, 2))
    """

    nit: jax.Array
    fun: jax.Array
    gnorm: jax.Array
    step: jax.Array
    nfev: jax.Array
    x: PyTree = None
    violation: jax.Array | MaybeNone = None


def empty(length: int, dtype: Any, x: Vector = None, constrained: bool = False) -> History:
    """A history without entries. It has room for points like the vector x, unless x is None."""
    whole, real = jnp.full(length, -1, jnp.int32), jnp.full(length, jnp.nan, dtype)
    points = jax.tree.map(lambda u: jnp.full((length, *u.shape), jnp.nan, u.dtype), x)
    return History(whole, real, real, real, whole, points, real if constrained else None)


def record(history: History, accepted: Scalar, before: Any, after: Any, report: Report) -> History:
    """The history with the iterate of the state ``after`` added, if the step accepted one."""
    x, f, _ = after.iterate
    moved = jnp.where(after.nit > 0, vec.max_abs(vec.sub(x, before.iterate.x)), jnp.nan)
    norm: Any = jnp.nan if report.gnorm is None else report.gnorm
    points = None if history.x is None else x
    row = History(after.nit, f, norm, moved, report.nfev, points, report.violation)
    length = history.nit.shape[0]
    here = (jnp.arange(length) == after.nit % length) & accepted

    def put(stored: jax.Array, new: Any) -> jax.Array:
        return jnp.where(here.reshape(-1, *[1] * (stored.ndim - 1)), jnp.asarray(new, stored.dtype), stored)

    return jax.tree.map(put, history, row)


def in_order(history: History, nit: Scalar) -> History:
    """The ring with its oldest entry first."""
    length = history.nit.shape[0]
    start = jnp.where(nit + 1 > length, (nit + 1) % length, 0)
    return jax.tree.map(lambda stored: jnp.roll(stored, -start, axis=0), history)
