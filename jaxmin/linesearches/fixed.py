"""No search: every step is taken."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin._core.protocol import LineSearch


class FixedState(NamedTuple):
    step: Any  # [] the step
    done: Any  # [] bool: f and the slope are finite there
    failed: Any  # [] bool: one of them is not


@builder
def fixed(step: float | None = 1.0) -> LineSearch:
    """Take every step as it is: t = ``step``, whatever f does there.

    Args:
      step: the step length, > 0; 1.0 by default. None uses the length that the method proposes.

    Returns:
      A ``LineSearch``. It fails only where f or its slope is NaN or infinite.

    Raises:
      ValueError: if the step is not > 0.
      TypeError: if it is neither a number nor None.

    >>> import jax.numpy as jnp, jaxmin
    >>> f = lambda x: 0.5 * jnp.sum(x**2)
    >>> jaxmin.minimize(f, [1.0, 2.0], method="gradient_descent", linesearch=jaxmin.fixed(0.5)).success
    True

    References:
      Yu. Nesterov, Introductory Lectures on Convex Optimization, 2004, Section 1.2.3 (the constant step).
    """
    if step is not None and not step > 0:
        raise ValueError(f"step={step!r}: give a length > 0, or None")

    def init(start, first_step):
        t = first_step if step is None else jnp.full_like(first_step, step)
        no = jnp.zeros((), bool)
        return FixedState(jnp.minimum(t, start.max_step), no, no)

    def advance(state, start, f, slope, predicted):
        del start, predicted
        finite = (f < jnp.inf) & (jnp.isfinite(slope) | (f == -jnp.inf))
        return state._replace(done=finite, failed=~finite)

    return LineSearch(init, advance)
