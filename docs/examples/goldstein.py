"""Goldstein's conditions, by doubling and bisection."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin.extend import LineSearch, builder


class GoldsteinState(NamedTuple):
    step: Any  # [] t, the next one
    low: Any  # [] the longest step known to be too short; 0 at first
    high: Any  # [] the shortest step known to be too long; inf at first
    trials: Any  # [] int32: given so far
    done: Any  # [] bool: the trial just given is accepted
    failed: Any  # [] bool: no acceptable step was found


@builder
def goldstein(sufficient: float = 0.25, max_trials: int = 40) -> LineSearch:
    r"""Take a step along which f falls neither too little nor too much for its length.

    A step t is accepted where

    .. math:: \phi(0) + (1 - c)\, t \phi'(0) \le \phi(t) \le \phi(0) + c\, t \phi'(0)

    [1, eq. (3.11)]. A step that is too long is the upper end of a bracket; a step that is too short is the lower end.
    The next trial is the middle, or twice the step while there is no upper end. Where rounding hides the decrease,
    the slope decides [2, eq. (4.1)].

    Args:
      sufficient: c, in (0, 1/2); 0.25 by default.
      max_trials: the search fails after this many trials; 40 by default.

    Returns:
      A ``LineSearch``.

    Raises:
      ValueError: for a constant out of its range.

    References:
      [1] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006.
      [2] W. W. Hager and H. Zhang, SIAM J. Optim. 16 (2005), 170-192.
    """
    if not 0 < sufficient < 0.5:
        raise ValueError(f"sufficient={sufficient!r}: give a number in (0, 0.5)")
    if not max_trials >= 1:
        raise ValueError(f"max_trials={max_trials!r}: give at least 1")

    def init(start, first_step):
        zero, no = jnp.zeros_like(start.f), jnp.zeros((), bool)
        step = jnp.minimum(first_step, start.max_step)
        return GoldsteinState(step, zero, zero + jnp.inf, jnp.zeros((), jnp.int32), no, no)

    def step(state, start, f, slope, predicted):
        t, trials = state.step, state.trials + 1
        finite = jnp.isfinite(f) & jnp.isfinite(slope)
        hidden = (f <= start.f + start.noise) & (slope <= (2 * sufficient - 1) * start.slope)
        decreased = finite & ((f <= start.f + sufficient * predicted) | hidden)
        too_short = decreased & (f < start.f + (1 - sufficient) * predicted) & (t < start.max_step)

        spent = trials >= max_trials
        done = (decreased & (~too_short | spent)) | (f == -jnp.inf)
        failed = ~done & spent
        low, high = jnp.where(decreased, t, state.low), jnp.where(decreased, state.high, t)
        longer = jnp.minimum(2 * t, start.max_step)
        following = jnp.where(jnp.isinf(high), longer, 0.5 * (low + high))
        return GoldsteinState(jnp.where(done, t, following), low, high, trials, done, failed)

    return LineSearch(init, step)
