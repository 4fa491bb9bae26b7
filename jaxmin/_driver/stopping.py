"""When a solve ends: the limits, the input of the tests, and the tests in order."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmin._core import vector as vec
from jaxmin._core.box import Sizes, Within, sizes
from jaxmin._core.kkt import Residuals, residuals
from jaxmin._core.protocol import SECOND_ORDER
from jaxmin._core.status import Status
from jaxmin._core.typing import MaybeNone, Scalar


class Limits(NamedTuple):
    """When to stop; every entry may be traced. A negative tolerance is never met."""

    gtol: Any  # infinity norm of the gradient, or with bounds of the projected gradient
    ftol: Any  # change of f between two iterates, relative to max(|f_old|, |f|, 1)
    xtol: Any  # change of x between two iterates, relative to max(|x|, 1), in the infinity norm
    maxiter: Any  # iterations after x0
    maxfun: Any  # evaluations
    ctol: Any = None  # violation of a row over its largest derivative
    barrier_tol: Any = None  # product of a multiplier and the distance from its limit, relative to max(|f|, 1)
    gtol_relative: Any = None  # gtol is at least so much of the norm of the (projected) gradient at x0; None: off
    maxhev: Any = None  # Hessians, or products with them; None: off


class Tested(NamedTuple):
    """The input of the tests after a step."""

    before: Any  # the method's state before the step
    after: Any  # the method's state after the step
    counts: Mapping[str, Scalar]  # [] int32 each, so far: "nfev", and "njev", "nhev" where the method wants them
    limits: Limits
    sizes: Sizes | MaybeNone  # after the step; None for a method without a gradient
    residuals: Residuals | MaybeNone = None  # after the step, of a constrained solve
    gnorm0: Scalar | MaybeNone = None  # [] the norm of the (projected) gradient at x0; None without gtol_relative

    @property
    def gtol(self) -> Any:
        """The norm of the gradient that is small enough."""
        limits = self.limits
        return limits.gtol if self.gnorm0 is None else jnp.maximum(limits.gtol, limits.gtol_relative * self.gnorm0)

    @property
    def moved(self) -> jax.Array:
        """Whether this step made an iteration; x0 does not count."""
        return (self.after.nit > self.before.nit) & (self.after.nit > 0)


class Test(NamedTuple):
    """One way to end: the solve gets this status where ``holds`` is true."""

    status: Status | Callable[[Tested], Scalar]
    holds: Callable[[Tested], Scalar]  # -> [] bool


class Stopping(NamedTuple):
    """The tests of one kind of solve.

    A solution is a point at which all conditions hold. The first test that holds gives the status.
    """

    conditions: tuple[Callable[[Tested], Scalar], ...]
    tests: tuple[Test, ...]

    def status(self, tested: Tested) -> Scalar:
        """RUNNING, or how the solve has ended."""
        status = jnp.full((), Status.RUNNING, jnp.int32)
        for test in reversed(self._rows()):
            code = test.status(tested) if callable(test.status) else test.status
            status = jnp.where(test.holds(tested), code, status)
        return status

    def _rows(self) -> tuple[Test, ...]:
        """All tests in order: trouble, a solution, the tests of this kind, the method's own status, the limits."""
        solved = [Test(Status.CONVERGED, self._is_solution)] if self.conditions else []
        return (*_TROUBLE, *solved, *self.tests, *_LAST)

    def _is_solution(self, tested: Tested) -> Scalar:
        first, *others = [condition(tested) for condition in self.conditions]
        for holds in others:
            first &= holds
        return first


def tested(
    before: Any,
    after: Any,
    counts: Mapping[str, Scalar],
    limits: Limits,
    box: Within,
    gnorm0: Scalar | MaybeNone = None,
) -> Tested:
    """The ``Tested`` of a step; ``gnorm0`` is that of the step before."""
    x, _, g = after.iterate
    size: Sizes | MaybeNone = None if g is None else sizes(x, g, box)
    if gnorm0 is not None:
        gnorm0 = jnp.where(before.nit < 0, size.projected, gnorm0).astype(gnorm0.dtype)
    kkt = getattr(after, "kkt", None)
    of_rows = None if kkt is None else residuals(kkt, x, box)
    return Tested(before, after, counts, limits, size, of_rows, gnorm0)


def of_method(wants: frozenset[str]) -> Stopping:
    """The ``Stopping`` of a method with these ``wants``."""
    if "grad" not in wants:
        return OF_RESIDUALS if "residual" in wants else WITHOUT_GRADIENT
    if "constraints" in wants:
        return CONSTRAINED
    return WITH_SECOND_DERIVATIVES if wants & SECOND_ORDER else WITH_GRADIENT


def stationary(t: Tested) -> Scalar:
    """The gradient is small."""
    return t.sizes.projected <= t.gtol


def _is_kkt_stationary(t: Tested) -> Scalar:
    """The gradient of the Lagrangian is small beside that of f."""
    return t.residuals.optimality <= t.gtol * jnp.maximum(t.sizes.g, 1)


def is_feasible(t: Tested) -> Scalar:
    """x is near a point that keeps to all rows."""
    return t.residuals.distance <= t.limits.ctol


def _is_complementary(t: Tested) -> Scalar:
    """Rows and bounds with a multiplier are at their limits, to what f could gain there."""
    return t.residuals.complementarity <= t.limits.barrier_tol * jnp.maximum(jnp.abs(t.after.iterate.f), 1)


def _is_orthogonal(t: Tested) -> Scalar:
    """The residuals are orthogonal to all that the Jacobian reaches."""
    return t.after.cosine <= t.limits.gtol


def _is_short(t: Tested) -> Scalar:
    """The Gauss-Newton step from here is short."""
    return t.after.reach <= t.limits.xtol


def _is_flat_fit(t: Tested) -> Scalar:
    """The sum of squares has hardly changed since the last iterate, relative to itself."""
    f_old, f = t.before.iterate.f, t.after.iterate.f
    return t.moved & t.after.accepted & (t.limits.ftol >= 0) & (jnp.abs(f_old - f) <= t.limits.ftol * f_old)


def _is_no_saddle(t: Tested) -> Scalar:
    """The second derivatives do not say, and are not still to say, that f falls from x0."""
    return ~jnp.asarray(getattr(t.after, "saddle", False))


def _is_finite(t: Tested) -> Scalar:
    _, f, g = t.after.iterate
    finite = jnp.isfinite(f) if g is None else jnp.isfinite(f) & jnp.isfinite(t.sizes.g)
    return finite if t.residuals is None else finite & jnp.isfinite(t.residuals.violation)


def _is_flat(t: Tested) -> Scalar:
    """f has hardly changed since the last iterate."""
    f_old, f = t.before.iterate.f, t.after.iterate.f
    scale = jnp.maximum(jnp.maximum(jnp.abs(f_old), jnp.abs(f)), 1)
    return t.moved & (t.limits.ftol >= 0) & (jnp.abs(f_old - f) <= t.limits.ftol * scale)


def _is_still(t: Tested) -> Scalar:
    """x has hardly changed since the last iterate. The test costs a pass over x, so it runs only where xtol is on."""
    x_old, x = t.before.iterate.x, t.after.iterate.x
    return t.moved & lax.cond(
        t.limits.xtol >= 0,
        lambda: vec.max_abs(vec.sub(x, x_old)) <= t.limits.xtol * jnp.maximum(vec.max_abs(x), 1),
        lambda: jnp.zeros((), bool),
    )


def _is_at_floor(t: Tested) -> Scalar:
    """Rounding stopped the method where the relative gradient of Dennis and Schnabel (1983, eq. (7.2.5)) is small.

    The relative gradient does not depend on the units of x and f. ``gtol_relative`` is meant for any units of f, so
    that |f| takes the place of max(|f|, 1).
    """
    f = t.after.iterate.f
    # Multiplied out: XLA makes a kernel of each division.
    size, allowed = t.sizes.projected * jnp.maximum(t.sizes.x, 1), t.limits.gtol * jnp.maximum(jnp.abs(f), 1)
    if t.gnorm0 is not None:
        allowed = jnp.maximum(allowed, t.limits.gtol_relative * jnp.abs(f))
    small = size <= allowed
    return (t.after.status == Status.PRECISION_LOSS) & small


def _is_narrow(t: Tested) -> Scalar:
    """The spreads of f and of x are within the tolerances that are on."""
    (df, dx), ftol, xtol = t.after.spread, t.limits.ftol, t.limits.xtol
    given = (ftol >= 0) | (xtol >= 0)
    return given & ((df <= ftol) | (ftol < 0)) & ((dx <= xtol) | (xtol < 0))


def _is_spent(t: Tested) -> Scalar:
    """The limit of the second derivatives is reached."""
    spent = t.counts.get("nhev")
    if t.limits.maxhev is None or spent is None:
        return jnp.zeros((), bool)
    return spent >= t.limits.maxhev


_TROUBLE = (
    Test(Status.UNBOUNDED, lambda t: t.after.iterate.f == -jnp.inf),
    Test(Status.NAN, lambda t: ~_is_finite(t)),
)
_LAST = (
    Test(lambda t: t.after.status, lambda t: t.after.status != Status.RUNNING),
    Test(Status.MAXITER, lambda t: t.after.nit >= t.limits.maxiter),
    Test(Status.MAXFUN, lambda t: t.counts["nfev"] >= t.limits.maxfun),
    Test(Status.MAXHEV, _is_spent),
)
WITH_GRADIENT = Stopping(
    conditions=(stationary,),
    tests=(Test(Status.FTOL, _is_flat), Test(Status.XTOL, _is_still), Test(Status.PRECISION_FLOOR, _is_at_floor)),
)
WITH_SECOND_DERIVATIVES = WITH_GRADIENT._replace(conditions=(stationary, _is_no_saddle))
CONSTRAINED = Stopping(
    conditions=(_is_kkt_stationary, is_feasible, _is_complementary),
    tests=(
        Test(Status.FTOL, lambda t: is_feasible(t) & _is_flat(t)),
        Test(Status.XTOL, lambda t: is_feasible(t) & _is_still(t)),
    ),
)
OF_RESIDUALS = Stopping(
    conditions=(_is_orthogonal,),
    tests=(Test(Status.XTOL, _is_short), Test(Status.FTOL, _is_flat_fit)),
)
WITHOUT_GRADIENT = Stopping(conditions=(), tests=(Test(Status.SPREAD, _is_narrow),))
