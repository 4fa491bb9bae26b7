"""The floor of precision: what rounding hides of f, and whether there is anything left to gain."""

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
# The floor: so many iterates (or failed searches) in a row that gained nothing ...
STALLS_MAX = 6
# ... neither a lower f, nor a gradient norm this much below the lowest yet,
_IMPROVED = 0.9
# ... nor, as on the way off a saddle point, an expected decrease so much above the highest of the row.
_GROWN = 1.5


class Floor(NamedTuple):
    """What a descent remembers to tell the floor of precision from slow progress."""

    f_lowest: Any  # [] the lowest f yet
    g_lowest: Any  # [] the lowest norm of the gradient yet
    stalls: Any  # [] int32: iterates, and searches that failed, in a row that gained nothing
    highest: Any  # [] the highest expected decrease in that row
    lost: Any  # [] bool: the natural step from the iterate was already within rounding, of f or of x
    rise: Any  # [] how far f rose from the iterate to the last trial at which it still falls, by the gradient
    contradicted: Any  # [] bool: such a rise was more than rounding
    measured: Any  # [] how far rounding moves f, by the rises that made searches fail
    retried: Any  # [] bool: the method has begun anew in that row

    @classmethod
    def unknown(cls, zero):
        """Before x0."""
        no = jnp.zeros((), bool)
        return cls(zero + jnp.inf, zero + jnp.inf, jnp.zeros((), jnp.int32), zero, no, zero, no, zero, no)


class Verdict(NamedTuple):
    """How a descent has ended, Status.RUNNING in most cases, and what of the floor is known better then."""

    status: Any  # [] int32
    stalls: Any
    measured: Any
    retried: Any

    @classmethod
    def none(cls, floor):
        """It goes on."""
        return cls(jnp.full((), Status.RUNNING, jnp.int32), floor.stalls, floor.measured, floor.retried)

    def of_floor(self):
        """The fields of the floor."""
        return {"stalls": self.stalls, "measured": self.measured, "retried": self.retried}


def unit(value, dtype):
    """The relative rounding of f, which may be of a narrower dtype than the search."""
    return max(float(jnp.finfo(value.dtype).eps), float(jnp.finfo(dtype).eps))


def noise(f_lowest, f, ulp, measured=0):
    """How far rounding may raise f. It counts from the lowest f yet, so that many such rises don't add up."""
    return jnp.maximum(f_lowest + _doubt(f_lowest, ulp, measured) - f, 0)


def _doubt(f_lowest, ulp, measured):
    return jnp.maximum(ulp**_DOUBT * jnp.abs(f_lowest), measured)


def gains(f, gnorm, lowest, ulp):
    """Whether f or the norm of the gradient is lower for certain than ``f_lowest`` and ``g_lowest`` of ``lowest``."""
    lower = f < lowest.f_lowest - _ULPS * ulp * jnp.abs(f)
    return lower | (gnorm < _IMPROVED * lowest.g_lowest)


def floor_after(floor, ulp, *, at_x0, accepted, failed, f0, f, falls, gnorm, xnorm, expected, natural):
    """The floor after one trip.

    Args:
      floor: the ``Floor`` before it.
      ulp: of :func:`unit`.
      at_x0, accepted, failed: [] bool, of the trial.
      f0: [] f at the iterate before.
      f: [] at the trial.
      falls: [] bool: at the trial f still falls, by its gradient, at half the slope of the iterate or more.
      gnorm, xnorm: [] the infinity norms of the gradient and of x at the iterate now.
      expected: [] the decrease that a unit step from it promises.
      natural: [] the first step of the search from it.

    Returns:
      The ``Floor``, and [] bool: it is time to :func:`judge`, since the search failed or nothing is gained.
    """
    f_lowest = jnp.where(accepted, jnp.minimum(f, floor.f_lowest), floor.f_lowest)
    gained = at_x0 | gains(f, gnorm, floor, ulp)
    progress = gained | (expected > _GROWN * floor.highest)
    stalls = jnp.where(accepted, jnp.where(progress, 0, floor.stalls + 1), floor.stalls + failed.astype(jnp.int32))
    highest = jnp.where(accepted, jnp.where(gained, 0, jnp.maximum(expected, floor.highest)), floor.highest)

    rounding_of_x = _ULPS * ulp * gnorm * xnorm  # how far that alone may move f
    # A smooth f that falls at both ends of a short step has not risen in between. If it has, that is how far
    # rounding moves it, whatever its last place says.
    risen = ~accepted & (f > f0) & falls
    rise = jnp.where(accepted, 0, jnp.where(risen, f - f0, floor.rise))
    blur = jnp.maximum(_doubt(f_lowest, ulp, floor.measured), rounding_of_x)
    new = Floor(
        f_lowest=f_lowest,
        g_lowest=jnp.where(accepted, jnp.minimum(gnorm, floor.g_lowest), floor.g_lowest),
        stalls=stalls,
        highest=highest,
        lost=jnp.where(accepted, natural * expected <= blur, floor.lost),
        rise=rise,
        contradicted=~accepted & (floor.contradicted | (risen & (rise > blur))),
        measured=floor.measured,
        retried=floor.retried & ~(accepted & progress),
    )
    return new, failed | (stalls >= STALLS_MAX)


def judge(floor, ulp, *, failed, last_resort, gnorm, g_lowest, expected, promise):
    """How the descent has ended, if it has.

    Args:
      floor: the ``Floor`` after the trip.
      ulp: of :func:`unit`.
      failed: [] bool: the search failed.
      last_resort: [] bool: it was along steepest descent.
      gnorm: [] the infinity norm of the gradient at the iterate.
      g_lowest: [] the lowest of the iterates before.
      expected: [] the decrease that a unit step from it promises.
      promise: [] what the gradient there promises where each variable changes by its own size.

    Returns:
      The ``Verdict``, and [] bool: the method should forget all and begin anew.
    """
    doubt = _doubt(floor.f_lowest, ulp, floor.measured)
    in_rounding = floor.lost & ~floor.contradicted
    status = jnp.where(
        failed & last_resort, jnp.where(in_rounding, Status.PRECISION_LOSS, Status.SEARCH_FAILED), Status.RUNNING
    )
    # Rounded steps may hop between a good point and its poorer neighbours: end at a good one.
    settled = (floor.stalls >= STALLS_MAX) & (gnorm <= 2 * g_lowest) | (floor.stalls >= 2 * STALLS_MAX)
    hidden = expected <= _CERTAIN * doubt
    # Where the gradient promises much, the word that nothing is left rests on what the method has learnt, which
    # rounding may have spoilt. It begins anew, once.
    ended = settled | (failed & last_resort)
    retry = ended & ~floor.retried & (promise > _CERTAIN * doubt)
    status = jnp.where(settled, jnp.where(hidden, Status.PRECISION_LOSS, Status.SEARCH_FAILED), status)
    status = jnp.where(retry, Status.RUNNING, status)
    return Verdict(
        status=status.astype(jnp.int32),
        stalls=jnp.where(retry, 0, floor.stalls),
        measured=jnp.where(failed, jnp.maximum(floor.measured, _SEEN * floor.rise), floor.measured),
        retried=floor.retried | retry,
    ), retry
