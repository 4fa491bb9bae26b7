"""The noise floor: what rounding hides of f, and whether there is anything left to gain."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._core.status import Status

# A change of f below so many units in its last place is rounding for certain.
_ULPS = 4
# A rise of f by this power of the unit, relative, may still be rounding (sums of many terms, cancellation):
# within it a trial is judged by its slope. 2e-12 in float64, 6e-6 in float32.
_DOUBT = 0.75
# An expected decrease so many times above that would have shown for certain.
_CERTAIN = 100
# Rounding may move f so many times farther than was seen once.
_SEEN = 10
# Stop after this many iterates, or failed searches, in a row without progress.
STALLS_MAX = 6
# A gradient norm below this fraction of the lowest is progress.
_IMPROVED = 0.9
# An expected decrease above this multiple of the highest in the row is progress (leaving a saddle point).
_GROWN = 1.5


class Noise(NamedTuple):
    """What is known of the noise of f, and of what has been reached above it."""

    f_lowest: Any  # [] the lowest f yet
    g_lowest: Any  # [] the lowest norm of the gradient yet
    stalls: Any  # [] int32: iterates in a row that gained nothing; in a descent searches that failed as well
    seen: Any  # [] how far rounding was seen to move f

    @classmethod
    def unknown(cls, zero):
        """Before x0."""
        return cls(zero + jnp.inf, zero + jnp.inf, jnp.zeros((), jnp.int32), zero)

    def doubt(self, ulp):
        """How far f may differ from the lowest f by rounding alone."""
        return jnp.maximum(ulp**_DOUBT * jnp.abs(self.f_lowest), self.seen)

    def hides(self, f, ulp):
        """How far rounding may raise f. It counts from the lowest f yet, so that many such rises do not add up."""
        return jnp.maximum(self.f_lowest + self.doubt(ulp) - f, 0)

    def is_gain(self, f, gnorm, ulp):
        """Whether f or the norm of the gradient is lower than the lowest for certain."""
        lower = f < self.f_lowest - _ULPS * ulp * jnp.abs(f)
        return lower | (gnorm < _IMPROVED * self.g_lowest)


def unit(value, dtype):
    """The relative rounding of f, which may be of a narrower dtype than the search."""
    return max(float(jnp.finfo(value.dtype).eps), float(jnp.finfo(dtype).eps))


class Floor(NamedTuple):
    """What a descent remembers to tell the noise floor from slow progress."""

    noise: Noise
    highest: Any  # [] the highest expected decrease in the row that gained nothing
    lost: Any  # [] bool: the natural step from the iterate was already within rounding, of f or of x
    rise: Any  # [] how far f rose from the iterate to the last trial at which it still falls, by the gradient
    contradicted: Any  # [] bool: such a rise was more than rounding
    retried: Any  # [] bool: the method has begun again in that row

    @classmethod
    def unknown(cls, zero):
        """Before x0."""
        no = jnp.zeros((), bool)
        return cls(Noise.unknown(zero), zero, no, zero, no, no)


class Progress(NamedTuple):
    """What a step shows of the descent."""

    at_x0: Any  # [] bool: it evaluated x0
    accepted: Any  # [] bool: there is a new iterate
    failed: Any  # [] bool: the search failed
    f0: Any  # [] f at the iterate before
    f: Any  # [] f at the trial
    falls: Any  # [] bool: at the trial f still falls, by its gradient, at half the slope of the iterate or more
    gnorm: Any  # [] the infinity norm of the gradient at the iterate now
    xnorm: Any  # [] that of the iterate
    expected: Any  # [] the decrease that a unit step from it promises
    natural: Any  # [] the first step of the search from it


def floor_after(floor, ulp, step):
    """The floor after a step.

    Args:
      floor: the ``Floor`` before it.
      ulp: of :func:`unit`.
      step: a ``Progress``.

    Returns:
      The ``Floor``, and [] bool: it is time to :func:`judge`, since the search failed or nothing is gained.
    """
    at_x0, accepted, failed, f0, f, falls, gnorm, xnorm, expected, natural = step
    before = floor.noise
    gained = at_x0 | before.is_gain(f, gnorm, ulp)
    progress = gained | (expected > _GROWN * floor.highest)
    stalls = jnp.where(accepted, jnp.where(progress, 0, before.stalls + 1), before.stalls + failed.astype(jnp.int32))
    highest = jnp.where(accepted, jnp.where(gained, 0, jnp.maximum(expected, floor.highest)), floor.highest)
    noise = Noise(
        f_lowest=jnp.where(accepted, jnp.minimum(f, before.f_lowest), before.f_lowest),
        g_lowest=jnp.where(accepted, jnp.minimum(gnorm, before.g_lowest), before.g_lowest),
        stalls=stalls,
        seen=before.seen,
    )

    rounding_of_x = _ULPS * ulp * gnorm * xnorm  # how far that alone may move f
    # A smooth f that falls at both ends of a short step has not risen in between. If it has, that is how far
    # rounding moves it, whatever its last place says.
    risen = ~accepted & (f > f0) & falls
    rise = jnp.where(accepted, 0, jnp.where(risen, f - f0, floor.rise))
    blur = jnp.maximum(noise.doubt(ulp), rounding_of_x)
    new = Floor(
        noise=noise,
        highest=highest,
        lost=jnp.where(accepted, natural * expected <= blur, floor.lost),
        rise=rise,
        contradicted=~accepted & (floor.contradicted | (risen & (rise > blur))),
        retried=floor.retried & ~(accepted & progress),
    )
    return new, failed | (stalls >= STALLS_MAX)


class Verdict(NamedTuple):
    """How a descent has ended, if it has, and the fields of the floor that are known better then.

    Only these pass through the branch of a batch: each array more would be copied there.
    """

    status: Any  # [] int32, RUNNING in most cases
    stalls: Any
    seen: Any
    retried: Any

    @classmethod
    def none(cls, floor):
        """It goes on."""
        running = jnp.full((), Status.RUNNING, jnp.int32)
        return cls(running, floor.noise.stalls, floor.noise.seen, floor.retried)

    def on(self, floor):
        """The floor with these fields."""
        return floor._replace(noise=floor.noise._replace(stalls=self.stalls, seen=self.seen), retried=self.retried)


class Doubt(NamedTuple):
    """What a descent is judged by where it leads nowhere."""

    failed: Any  # [] bool: the search failed
    last_resort: Any  # [] bool: it was along steepest descent
    gnorm: Any  # [] the infinity norm of the gradient at the iterate
    g_lowest: Any  # [] the lowest of the iterates before
    expected: Any  # [] the decrease that a unit step from it promises
    promise: Any  # [] what the gradient there promises where each variable changes by its own size


def judge(floor, ulp, why):
    """How the descent has ended, if it has.

    Args:
      floor: the ``Floor`` after the step.
      ulp: of :func:`unit`.
      why: a ``Doubt``.

    Returns:
      The ``Verdict``, and [] bool: the method should forget all and begin again.
    """
    failed, last_resort, gnorm, g_lowest, expected, promise = why
    stalls, doubt = floor.noise.stalls, floor.noise.doubt(ulp)
    in_rounding = floor.lost & ~floor.contradicted
    ended_by_search = jnp.where(in_rounding, Status.PRECISION_LOSS, Status.SEARCH_FAILED)
    status = jnp.where(failed & last_resort, ended_by_search, Status.RUNNING)
    # Rounded steps may hop between a good point and its poorer neighbours: end at a good one.
    settled = (stalls >= STALLS_MAX) & (gnorm <= 2 * g_lowest) | (stalls >= 2 * STALLS_MAX)
    hidden = expected <= _CERTAIN * doubt
    # Where the gradient promises much, the word that nothing is left rests on what the method has learnt, which
    # rounding may have spoilt. It begins again, once.
    ended = settled | (failed & last_resort)
    retry = ended & ~floor.retried & (promise > _CERTAIN * doubt)
    status = jnp.where(settled, jnp.where(hidden, Status.PRECISION_LOSS, Status.SEARCH_FAILED), status)
    status = jnp.where(retry, Status.RUNNING, status)
    return Verdict(
        status=status.astype(jnp.int32),
        stalls=jnp.where(retry, 0, stalls),
        seen=jnp.where(failed, jnp.maximum(floor.noise.seen, _SEEN * floor.rise), floor.noise.seen),
        retried=floor.retried | retry,
    ), retry
