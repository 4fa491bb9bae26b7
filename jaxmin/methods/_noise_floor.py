"""The noise floor: what rounding hides of f, and whether there is anything left to gain."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._core.status import Status

# A change of f below this many units in its last place is certainly rounding.
_ULPS = 4
# A rise of f, relative, up to this power of the unit may still be rounding (sums of many terms, cancellation). Such a
# trial is tested by its slope. 2e-12 in float64, 6e-6 in float32.
_DOUBT = 0.75
# An expected decrease this many times larger would certainly have been seen.
_CERTAIN = 100
# Rounding may move f this many times farther than it was once seen to.
_SEEN = 10
# Stop after this many iterates, or failed searches, in a row without progress.
STALLS_MAX = 6
# A nonmonotone search compares f with the highest value of so many iterates.
MEMORY = 10
# A solve that rounding has stopped stands on a kink if its gradient is larger than this fraction of the first one,
# and would lower f, over the length of x, by more than this fraction of f. A smooth f is flat there.
_KINK, _STEEP = 1e-2, 1e-3
# A gradient norm below this fraction of the lowest is progress.
_IMPROVED = 0.9
# An expected decrease above this multiple of the row's highest is progress (leaving a saddle point).
_GROWN = 1.5


class Noise(NamedTuple):
    """What is known about the noise of f, and the lowest values so far."""

    f_lowest: Any  # [] the lowest f so far
    g_first: Any  # [] the norm of the gradient at x0
    g_lowest: Any  # [] the lowest norm of the gradient so far
    stalls: Any  # [] int32: iterates in a row without progress; a descent also counts failed searches
    seen: Any  # [] the largest change of f by rounding that was observed

    @classmethod
    def unknown(cls, zero):
        """Before x0."""
        return cls(zero + jnp.inf, zero, zero + jnp.inf, jnp.zeros((), jnp.int32), zero)

    def is_kinked(self, f, gnorm, xnorm):
        """Whether fun has a kink at a point that no step improves, [] bool."""
        return (gnorm > _KINK * self.g_first) & (gnorm * xnorm > _STEEP * jnp.abs(f))

    def doubt(self, ulp):
        """How far rounding alone may move f from the lowest f."""
        return jnp.maximum(ulp**_DOUBT * jnp.abs(self.f_lowest), self.seen)

    def hides(self, f, ulp):
        """How far rounding may raise f. It counts from the lowest f so far, so that many such rises do not add up."""
        return jnp.maximum(self.f_lowest + self.doubt(ulp) - f, 0)

    def is_gain(self, f, gnorm, ulp):
        """Whether f or the norm of the gradient is certainly lower than the lowest so far."""
        lower = f < self.f_lowest - _ULPS * ulp * jnp.abs(f)
        return lower | (gnorm < _IMPROVED * self.g_lowest)


def unit(value, dtype):
    """The relative rounding of f, whose dtype may be narrower than that of the search."""
    return max(float(jnp.finfo(value.dtype).eps), float(jnp.finfo(dtype).eps))


class Floor(NamedTuple):
    """What a descent stores to distinguish the noise floor from slow progress.

    A row is a run of iterates without progress.
    """

    noise: Noise
    highest: Any  # [] the highest expected decrease in the row
    lost: Any  # [] bool: the natural step from the iterate was within rounding of f or of x
    rise: Any  # [] how far f rose from the iterate to the last trial at which the gradient says that it still falls
    contradicted: Any  # [] bool: such a rise was larger than rounding
    retried: Any  # [] bool: the method has restarted in the row

    @classmethod
    def unknown(cls, zero):
        """Before x0."""
        no = jnp.zeros((), bool)
        return cls(Noise.unknown(zero), zero, no, zero, no, no)


class Progress(NamedTuple):
    """What a step shows about the progress of a descent."""

    at_x0: Any  # [] bool: it evaluated x0
    accepted: Any  # [] bool: there is a new iterate
    failed: Any  # [] bool: the search failed
    f0: Any  # [] f at the last iterate
    f: Any  # [] f at the trial
    falls: Any  # [] bool: at the trial f still falls at half the slope of the iterate or more
    gnorm: Any  # [] the infinity norm of the gradient at the new iterate
    xnorm: Any  # [] the infinity norm of the new iterate
    expected: Any  # [] the decrease that the slope predicts for a unit step from it
    natural: Any  # [] the first step of the search from it
    patience: int = STALLS_MAX  # so many iterates may be without progress
    reference: Any = None  # [] what a nonmonotone search compared f with; None: f0


def floor_after(floor, ulp, step):
    """The floor after a step.

    Args:
      floor: the ``Floor`` before it.
      ulp: of :func:`unit`.
      step: a ``Progress``.

    Returns:
      The ``Floor``, and [] bool: call :func:`judge`, since the search failed or there is no progress.
    """
    at_x0, accepted, failed, f0, f, falls, gnorm, xnorm, expected, natural, patience, reference = step
    before = floor.noise
    gained = at_x0 | before.is_gain(f, gnorm, ulp)
    if reference is not None:  # the last iterates differ by more than rounding: nonmonotone steps may rise between
        gained |= f < reference - before.doubt(ulp)
    progress = gained | (expected > _GROWN * floor.highest)
    stalls = jnp.where(accepted, jnp.where(progress, 0, before.stalls + 1), before.stalls + failed.astype(jnp.int32))
    highest = jnp.where(accepted, jnp.where(gained, 0, jnp.maximum(expected, floor.highest)), floor.highest)
    noise = Noise(
        g_first=jnp.where(at_x0, gnorm, before.g_first),
        f_lowest=jnp.where(accepted, jnp.minimum(f, before.f_lowest), before.f_lowest),
        g_lowest=jnp.where(accepted, jnp.minimum(gnorm, before.g_lowest), before.g_lowest),
        stalls=stalls,
        seen=before.seen,
    )

    rounding_of_x = _ULPS * ulp * gnorm * xnorm  # how far rounding of x may move f
    # A smooth f that falls at both ends of a short step does not rise in between. If it does, the rise shows how far
    # rounding moves f, which may be more than its last place.
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
    return new, failed | (stalls >= patience)


class Verdict(NamedTuple):
    """How a descent has ended, if it has, and the fields of the floor that this changes.

    Only these pass through the branch of a batch, since each array is copied there.
    """

    status: Any  # [] int32, RUNNING if it has not ended
    stalls: Any
    seen: Any
    retried: Any

    @classmethod
    def none(cls, floor):
        """The descent goes on."""
        running = jnp.full((), Status.RUNNING, jnp.int32)
        return cls(running, floor.noise.stalls, floor.noise.seen, floor.retried)

    def on(self, floor):
        """The floor with these fields."""
        return floor._replace(noise=floor.noise._replace(stalls=self.stalls, seen=self.seen), retried=self.retried)


class Doubt(NamedTuple):
    """What :func:`judge` needs to know if a descent makes no progress."""

    failed: Any  # [] bool: the search failed
    last_resort: Any  # [] bool: it was along the steepest descent
    f: Any  # [] at the iterate
    xnorm: Any  # [] the infinity norm of the iterate
    gnorm: Any  # [] that of the gradient there
    g_lowest: Any  # [] the lowest norm at earlier iterates
    expected: Any  # [] the decrease that the slope predicts for a unit step from the iterate
    promise: Any  # [] the decrease that the gradient predicts if each variable changes by its own size
    patience: int = STALLS_MAX  # as in ``Progress``


def judge(floor, ulp, why):
    """How the descent has ended, if it has.

    Args:
      floor: the ``Floor`` after the step.
      ulp: of :func:`unit`.
      why: a ``Doubt``.

    Returns:
      The ``Verdict``, and [] bool: the method should discard what it has learnt and restart.
    """
    failed, last_resort, f, xnorm, gnorm, g_lowest, expected, promise, patience = why
    stalls, doubt = floor.noise.stalls, floor.noise.doubt(ulp)
    in_rounding = floor.lost & ~floor.contradicted
    ended_by_search = jnp.where(in_rounding, Status.PRECISION_LOSS, Status.SEARCH_FAILED)
    status = jnp.where(failed & last_resort, ended_by_search, Status.RUNNING)
    # Rounding may move the steps between a good point and its poorer neighbours: end at a good one.
    settled = (stalls >= patience) & (gnorm <= 2 * g_lowest) | (stalls >= 2 * patience)
    hidden = expected <= _CERTAIN * doubt
    # If the gradient predicts a large decrease, rounding may have spoilt what the method has learnt. Restart it once.
    ended = settled | (failed & last_resort)
    retry = ended & ~floor.retried & (promise > _CERTAIN * doubt)
    status = jnp.where(settled, jnp.where(hidden, Status.PRECISION_LOSS, Status.SEARCH_FAILED), status)
    kinked = (status == Status.PRECISION_LOSS) & floor.noise.is_kinked(f, gnorm, xnorm)
    status = jnp.where(kinked, Status.SEARCH_FAILED, status)
    status = jnp.where(retry, Status.RUNNING, status)
    return Verdict(
        status=status.astype(jnp.int32),
        stalls=jnp.where(retry, 0, stalls),
        seen=jnp.where(failed, jnp.maximum(floor.noise.seen, _SEEN * floor.rise), floor.noise.seen),
        retried=floor.retried | retry,
    ), retry
