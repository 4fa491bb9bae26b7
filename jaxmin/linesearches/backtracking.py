"""Backtracking: shorten the step until f has decreased enough for it."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin._core.protocol import LineSearch


class BacktrackingState(NamedTuple):
    step: Any  # [] t, the next one
    low: Any  # [] the longest step known to be too short; 0 at first
    high: Any  # [] the shortest step known to be too long; inf at first
    trials: Any  # [] int32: told so far
    done: Any  # [] bool
    failed: Any  # [] bool


@builder(aliases=("armijo",))
def backtracking(
    sufficient: float = 1e-4,
    curvature: float | None = 0.9,
    max_trials: int = 40,
    interpolate: bool = True,
    decrease: float = 0.8,
    increase: float = 1.5,
    max_step: float = 1.0,
) -> LineSearch:
    r"""Shorten the step until f has decreased enough for it, by interpolation from f and the slope.

    A step t is taken where :math:`\phi(t) \le \phi(0) + c_1 t \phi'(0)` (Armijo) or, within rounding of
    :math:`\phi(0)`, where the slopes say the same:
    :math:`(2 c_1 - 1) \phi'(0) \ge \phi'(t) \ge c_2 \phi'(0)` (the approximate conditions of Hager and
    Zhang). Else the next trial is the minimiser of the cubic through the values and slopes at 0 and t, kept within 0.01
    and 0.5 of t. A trial at which f still falls about as steeply as at 0, :math:`\phi'(t) < c_2 \phi'(0)`, was
    timid, and is lengthened if there is room, by the secant of the slopes at 0 and t, 2 to 10 times. A step too
    long after a timid one goes back to a quarter of the way between the two.
    A step at which f or the slope is NaN or infinite is too long; where none was timid before, it is halved.

    Args:
      sufficient: c1, in (0, 1/2); 1e-4 by default.
      curvature: c2, in (c1, 1); 0.9 by default. None never lengthens a step.
      max_trials: after so many trials the search has failed; 40 by default.
      interpolate: False is Optax's rule: no slopes, each trial ``decrease`` times the last, the first
        one ``increase`` times the step accepted last and at most ``max_step``. The three constants
        count only then.

    Returns:
      A ``LineSearch``.

    >>> import jax.numpy as jnp, jaxmin
    >>> f = lambda x: jnp.sum((x - 1) ** 4)
    >>> jaxmin.minimize(f, [3.0, -2.0], linesearch=jaxmin.backtracking(max_trials=10)).success
    True

    References:
      J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006, Algorithm 3.1 and Section 3.5;
      W. W. Hager and H. Zhang, SIAM J. Optim. 16 (2005), 170-192, eq. (4.1).
    """
    if not 0 < sufficient < 0.5:
        raise ValueError(f"sufficient={sufficient!r}: c1 lies in (0, 0.5)")
    if curvature is not None and not sufficient < curvature < 1:
        raise ValueError(f"curvature={curvature!r}: c2 lies in (sufficient, 1), or is None")
    if max_trials < 1:
        raise ValueError(f"max_trials={max_trials!r}: at least 1")
    if not 0 < decrease < 1:
        raise ValueError(f"decrease={decrease!r}: a factor in (0, 1)")
    if not increase >= 1:
        raise ValueError(f"increase={increase!r}: a factor >= 1")
    if not max_step > 0:
        raise ValueError(f"max_step={max_step!r}: a step length is > 0")

    def init(start, first_step):
        zero, no = jnp.zeros_like(start.f), jnp.zeros((), bool)
        longest = start.max_step if interpolate else jnp.minimum(start.max_step, max_step)
        return BacktrackingState(
            step=jnp.minimum(first_step, longest),
            low=zero,
            high=zero + jnp.inf,
            trials=jnp.zeros((), jnp.int32),
            done=no,
            failed=no,
        )

    def advance(state, start, f, slope, predicted):
        t, trials = state.step, state.trials + 1
        unbounded = f == -jnp.inf
        finite = jnp.isfinite(f) & jnp.isfinite(slope)
        armijo = f <= start.f + sufficient * predicted
        if not interpolate:
            done = (finite & armijo) | unbounded
            return state._replace(
                step=jnp.where(done, t, decrease * t), trials=trials, done=done, failed=~done & (trials >= max_trials)
            )

        # A slope that is as steep as at 0 asks for a longer step, if there is room for one.
        steep = jnp.zeros((), bool) if curvature is None else slope < curvature * start.slope
        room = (t < 0.1 * state.high) & (t < start.max_step)
        approximate = (f <= start.f + start.noise) & (slope <= (2 * sufficient - 1) * start.slope) & (~steep | room)
        enough = finite & (armijo | approximate) & (predicted < 0)
        timid = enough & steep & room
        spent = trials >= max_trials
        done = unbounded | (enough & (~timid | spent))
        # No shorter step can do better than one whose promised decrease is already lost in the last place.
        hopeless = finite & ~enough & (jnp.abs(predicted) <= jnp.finfo(f.dtype).eps * jnp.abs(start.f))
        failed = ~done & (hopeless | spent)

        # Too long: the minimiser of the cubic between 0 and t, as a part of t [Nocedal & Wright, eq. (3.59)].
        d1 = start.slope + slope - 3 * (f - start.f) / t
        root = jnp.sqrt(jnp.maximum(d1 * d1 - start.slope * slope, 0))
        cubic = 1 - (slope + root - d1) / (slope - start.slope + 2 * root)
        fraction = jnp.where(finite & jnp.isfinite(cubic), jnp.clip(cubic, 0.01, 0.5), 0.5)
        # Too long after too short: about the geometric mean of a step and ten times it.
        shorter = jnp.where(state.low > 0, state.low + 0.25 * (t - state.low), fraction * t)
        # Too short: where the secant of the slopes at 0 and t vanishes, 2 to 10 times as far; 10 where c2 = 0.9.
        secant = start.slope / (start.slope - slope)
        stretch = jnp.where((secant > 0) & jnp.isfinite(secant), jnp.clip(secant, 2, 10), 10)
        longer = state.low + stretch * (t - state.low)
        longer = jnp.minimum(longer, jnp.minimum(0.5 * state.high, start.max_step))

        return state._replace(
            step=jnp.where(done, t, jnp.where(timid, longer, shorter)),
            low=jnp.where(timid, t, state.low),
            high=jnp.where(timid, state.high, t),
            trials=trials,
            done=done,
            failed=failed,
        )

    return LineSearch(init, advance, growth=None if interpolate else increase)
