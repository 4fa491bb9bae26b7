"""Backtracking: shorten the step until f has decreased enough for it."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin._core.protocol import LineSearch

# A step is lengthened so many times where f is concave along it: a longer one would leap over the valley. On 114 CUTEst
# problems 4 takes as many evaluations as 10, and 2 takes 1.07 times as many.
_BLIND = 4


class BacktrackingState(NamedTuple):
    step: Any  # [] t, the next one
    low: Any  # [] the longest step known to be too short; 0 at first
    high: Any  # [] the shortest step known to be too long; inf at first
    trials: Any  # [] int32: given so far
    done: Any  # [] bool: the trial just given is accepted
    failed: Any  # [] bool: no acceptable step was found


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

    A step t is accepted where :math:`\phi(t) \le \phi(0) + c_1 t \phi'(0)` (Armijo) [1, eq. (3.4)]. Within rounding of
    :math:`\phi(0)` the slopes decide instead: :math:`(2 c_1 - 1) \phi'(0) \ge \phi'(t) \ge c_2 \phi'(0)`
    [2, eq. (4.1)].

    - A step that is too long is shortened to the minimiser of the cubic through the values and slopes at 0 and t, but
      to no less than 0.01 and no more than 0.5 of its length. It is halved where f or the slope is not finite.
    - A step is too short where f still falls almost as steeply as at 0: :math:`\phi'(t) < c_2 \phi'(0)`. It is
      lengthened 2 to 10 times, by the secant of the slopes at 0 and t, as far as there is room; 4 times where f falls
      more steeply at t than at 0.
    - If a step is too long after one that was too short, the next one lies a quarter of the way between the two.

    Args:
      sufficient: c1, in (0, 1/2); 1e-4 by default.
      curvature: c2, in (c1, 1); 0.9 by default. None never lengthens a step.
      max_trials: the search fails after this many trials, >= 1; 40 by default.
      interpolate: True by default. False is Optax's rule, which uses no slopes: each trial is ``decrease`` times the
        last one. ``decrease``, ``increase`` and ``max_step`` have no effect otherwise.
      decrease: the factor from one trial to the next, in (0, 1); 0.8 by default.
      increase: the first trial is this many times the step accepted last, >= 1; 1.5 by default.
      max_step: the longest step, > 0; 1.0 by default.

    Returns:
      A ``LineSearch``. Equal constants give the same object.

    Raises:
      ValueError: for a constant out of its range.
      TypeError: for a constant of another type.

    >>> import jax.numpy as jnp, jaxmin
    >>> f = lambda x: jnp.sum((x - 1) ** 4)
    >>> jaxmin.minimize(f, [3.0, -2.0], linesearch=jaxmin.backtracking(max_trials=10)).success
    True

    References:
      [1] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006, Algorithm 3.1 and Section 3.5.
      [2] W. W. Hager and H. Zhang, SIAM J. Optim. 16 (2005), 170-192.
    """
    if not 0 < sufficient < 0.5:
        raise ValueError(f"sufficient={sufficient!r}: give a number in (0, 0.5)")
    if curvature is not None and not sufficient < curvature < 1:
        raise ValueError(f"curvature={curvature!r}: give a number in (sufficient, 1), or None")
    if max_trials < 1:
        raise ValueError(f"max_trials={max_trials!r}: give at least 1")
    if not 0 < decrease < 1:
        raise ValueError(f"decrease={decrease!r}: give a factor in (0, 1)")
    if not increase >= 1:
        raise ValueError(f"increase={increase!r}: give a factor >= 1")
    if not max_step > 0:
        raise ValueError(f"max_step={max_step!r}: give a length > 0")

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

        # A step is too short where the slope is about as steep as at 0. Lengthen it if there is room.
        steep = jnp.zeros((), bool) if curvature is None else slope < curvature * start.slope
        room = (t < 0.1 * state.high) & (t < start.max_step)
        approximate = (f <= start.f + start.noise) & (slope <= (2 * sufficient - 1) * start.slope) & (~steep | room)
        enough = finite & (armijo | approximate) & (predicted < 0)
        too_short = enough & steep & room
        spent = trials >= max_trials
        done = unbounded | (enough & (~too_short | spent))
        # No shorter step can succeed if the predicted decrease is already below one unit in the last place of f.
        hopeless = finite & ~enough & (jnp.abs(predicted) <= jnp.finfo(f.dtype).eps * jnp.abs(start.f))
        failed = ~done & (hopeless | spent)

        # Too long: the minimiser of the cubic between 0 and t, as a fraction of t [1, eq. (3.59)].
        d1 = start.slope + slope - 3 * (f - start.f) / t
        root = jnp.sqrt(jnp.maximum(d1 * d1 - start.slope * slope, 0))
        cubic = 1 - (slope + root - d1) / (slope - start.slope + 2 * root)
        fraction = jnp.where(finite & jnp.isfinite(cubic), jnp.clip(cubic, 0.01, 0.5), 0.5)
        # Too long after too short: about the geometric mean of the two if one is ten times the other.
        shorter = jnp.where(state.low > 0, state.low + 0.25 * (t - state.low), fraction * t)
        # Too short: to where the secant of the slopes at 0 and t vanishes. It is about 10 times as far if c2 = 0.9.
        # Where f falls more steeply at t than at 0, the slopes do not show how far the valley is.
        secant = start.slope / (start.slope - slope)
        stretch = jnp.where(secant > 0, jnp.clip(secant, 2, 10), jnp.where(slope < start.slope, _BLIND, 10))
        longer = state.low + stretch * (t - state.low)
        longer = jnp.minimum(longer, jnp.minimum(0.5 * state.high, start.max_step))

        return state._replace(
            step=jnp.where(done, t, jnp.where(too_short, longer, shorter)),
            low=jnp.where(too_short, t, state.low),
            high=jnp.where(too_short, state.high, t),
            trials=trials,
            done=done,
            failed=failed,
        )

    return LineSearch(init, advance, growth=None if interpolate else increase)
