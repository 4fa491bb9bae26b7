"""The Levenberg-Marquardt method for least squares: Gauss-Newton steps in a trust region."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.box import Unbounded
from jaxmin._core.inverse_hessian import Normal, times
from jaxmin._core.loss import KNOWN, rho_of, scaled
from jaxmin._core.protocol import Defaults, Iterate, Method, PerDtype
from jaxmin._core.status import Status
from jaxmin.methods._gauss_newton import Factor, factor, holding, linearised, minimizer

# A step is accepted where f falls by more than this fraction of the promise of the model [1, Section 5].
_ETA = 1e-4
# The radius shrinks below the first of these fractions, and grows above the second one.
_POOR, _GOOD = 0.25, 0.75
# So often variables that a step would take beyond a bound are held there, and the step is made again.
_BENDS = 3
# f is known to so many times its estimated rounding.
_NOISE = 10.0
# Where the promise of a step is below that, the slopes tell whether f falls, unless f moves by so many times as much.
_DRIFT = 100.0
# Where no step helps, but the model promises more than so many times the rounding, it is the model that is wrong.
_DOUBT = 1e4


class LevenbergMarquardtState(NamedTuple):
    # changes with every step
    trial: Any  # [n]
    predicted: Any  # [] the fall of f that the model promises there
    slope: Any  # [] of f along the step
    length: Any  # [] of the step, |D p|
    is_newton: Any  # [] bool: it is the Gauss-Newton step
    radius: Any  # [] the largest |D p|
    accepted: Any  # [] bool
    status: Any  # [] int32
    # changes with every iterate
    iterate: Iterate
    least: Any  # [] f of all iterates
    factor: Factor  # of J, for the variables that no bound holds
    residuals: Any  # [] int32: how many there are
    lost: Any  # [] bool: their squares underflow at x0, so that nothing is known of the sum
    D: Any  # [n] the scales of the variables
    norms: Any  # [n] those of the columns of J
    cosine: Any  # [] of the angle between r and what J reaches
    reach: Any  # [] the length of the Gauss-Newton step relative to x, both in the scales of the columns
    nit: Any  # [] int32

    @property
    def size(self):
        """[] of the numbers that r is a difference of: r has their rounding."""
        return vec.norm(self.norms * self.iterate.x)

    @property
    def root(self):
        """[] of the number of residuals."""
        return jnp.sqrt(jnp.maximum(self.residuals, 1).astype(self.D.dtype))

    @property
    def noise(self):
        """f is known to within so much, usually and at worst, [] each.

        The rounding of r is usually of either sign from one residual to the next, at worst of the sign of r. Steps are
        tried while the usual leaves hope; the worst case is the judge.
        """
        f, eps = self.iterate.f, jnp.finfo(self.D.dtype).eps
        r, rounding = jnp.sqrt(2 * f), eps * self.size
        noise = lambda r: _NOISE * (eps * f + r * rounding + rounding * rounding)
        return noise(r / self.root), noise(r)

    def hides(self, value):
        """[] bool: whether f, at a trial with this f, is not known well enough to compare its fall with the promise."""
        usual, worst = self.noise
        near = jnp.abs(self.least - value) <= _DRIFT * worst
        return (self.nit >= 0) & (self.predicted <= usual) & near

    def takes(self, value):
        """[] bool: whether a trial with this f may become the iterate; where rounding hides that, the slopes tell."""
        lower = (self.iterate.f - value >= _ETA * self.predicted) | self.hides(value)
        return (self.nit < 0) | (lower & (self.predicted > 0))

    def falls(self, value, g):
        """[] the fall of f at a trial with this f and gradient."""
        by_slopes = -vec.dot(self.iterate.g + g, self.trial - self.iterate.x) / 2
        return jnp.where(self.hides(value), by_slopes, self.iterate.f - value)


@builder(aliases=("levenberg-marquardt", "lm", "gauss_newton", "gauss-newton"), converters={"loss": rho_of})
def levenberg_marquardt(
    radius: float = 1.0, loss: str | Callable[..., Any] = "linear", f_scale: float | jax.Array = 1.0
) -> Method:
    r"""Least squares by the Levenberg-Marquardt method: ``fun`` returns the residuals r, and f = r.r / 2.

    Each step is the minimiser of :math:`\|J p + r\|^2` over :math:`\|D p\| \le \Delta`, where D holds the largest
    norms of the columns of J so far [1]. It comes from a QR factor of J and the singular values of R, so that the
    condition number of J may be near 1 / eps; from Cholesky factors of :math:`J^T J + \lambda D^2` only where columns
    of length 1 leave at least half of the digits. A direction that the residuals do not depend on gets no step.
    Variables at a bound where f falls outwards are held; a step that leaves the box is bent along its bounds. A step
    evaluates r, and J where f is lower.

    The solve ends where the cosine of the angle between r and all that J reaches is at most ``gtol``, or the
    Gauss-Newton step is at most ``xtol`` of \|D x\|. Both are without units, and 1e-8 in float64; in float32 they are
    1e-4 and 1e-5. ``ftol``, relative to f, is off. Where a step promises less than the rounding of f, the slopes at its
    ends decide: J is then evaluated whatever f is.

    Args:
      radius: the first :math:`\Delta`, in units of :math:`\|D x_0\|`, > 0; 1 by default.
      loss: "linear" (default), "soft_l1", "huber", "cauchy" or "arctan", as in SciPy's ``least_squares``, or a function
        rho: see :func:`~jaxmin.sum_of_squares`. Residuals and rows of J are then weighted by Triggs's correction [2].
      f_scale: the scale of the loss, in units of the residuals, > 0; 1 by default. It may be traced.

    Returns:
      A ``Method``. ``res.fun`` is half the sum of squares, ``res.njev`` counts its Jacobians, and ``res.hess_inv`` is
      :math:`(J^T J)^{-1}`.

    Raises:
      ValueError: for an argument out of its range, or an unknown loss.

    >>> import jax.numpy as jnp, jaxmin
    >>> t, y = jnp.arange(4.0), jnp.array([2.0, 1.2, 0.7, 0.5])
    >>> res = jaxmin.minimize(lambda b: y - b[0] * jnp.exp(-b[1] * t), [1.0, 1.0], method="levenberg_marquardt")
    >>> res.success, res.x.round(2).tolist()
    (True, [1.99, 0.5])

    References:
      [1] J. J. Moré, The Levenberg-Marquardt algorithm: implementation and theory, in Numerical Analysis, Lecture Notes
      in Mathematics 630, 1978, 105-116.
      [2] B. Triggs et al., Bundle adjustment - a modern synthesis, LNCS 1883, 2000, 298-372, Section 4.3.
    """
    if not radius > 0:
        raise ValueError(f"radius={radius!r}: give a number > 0")
    return _method(radius)._replace(loss=scaled(loss, "f_scale", f_scale))


@functools.cache
def _method(radius):
    """The method, whatever the loss is: with another loss nothing else is compiled."""

    def update(grad, state, params, /, *, value, residual, jacobian, box=Unbounded(), **_):
        first, f = state.nit < 0, jnp.asarray(value, state.iterate.f.dtype)
        linear = linearised(residual, jacobian)
        # Where J is not finite the trial is as bad as one where f is not.
        f = jnp.where(first | jnp.all(jnp.isfinite(linear.norms)), f, jnp.inf)
        falls = state.falls(f, linear.g)
        accepted = first | ((falls >= _ETA * state.predicted) & (state.predicted > 0))
        state = _judged(state, falls, accepted)
        state = vec.where(accepted, _moved(state, params, f, linear, box), state)
        size = vec.norm(state.D * state.iterate.x)
        state = state._replace(radius=jnp.where(first, radius * jnp.where(size > 0, size, 1), state.radius))
        state = _continued(state, box)
        return vec.sub(state.trial, params), state

    return Method(
        _start,
        update,
        wants=frozenset({"residual", "jacobian", "box"}),
        inverse_hessian=lambda state: Normal(state.factor.R, state.D, state.residuals),
        defaults=Defaults(
            tol=("ftol", "xtol", "gtol"), limits=(("gtol", PerDtype(1e-8, 1e-4)), ("xtol", PerDtype(1e-8, 1e-5)))
        ),
    )


def _start(x):
    """The state before x0."""
    dtype = vec.scalar_dtype(x)
    zero, no = jnp.zeros((), dtype), jnp.zeros((), bool)
    nothing = Factor(jnp.zeros((x.size, x.size), x.dtype), jnp.zeros_like(x), no)
    infinite = jnp.full((), jnp.inf, dtype)
    return LevenbergMarquardtState(
        trial=x, predicted=zero, slope=zero, length=zero, is_newton=no, radius=infinite, accepted=no,
        status=jnp.full((), Status.RUNNING, jnp.int32), iterate=Iterate(x, zero, jnp.zeros_like(x)),
        least=infinite, factor=nothing, residuals=jnp.zeros((), jnp.int32), lost=no, D=jnp.zeros_like(x),
        norms=jnp.zeros_like(x), cosine=infinite, reach=infinite, nit=jnp.full((), -1, jnp.int32),
    )  # fmt: skip


def _judged(state, falls, accepted):
    """The state with its next radius [1, Section 5], and its status where a rejected step shows only rounding."""
    promised = state.predicted
    ratio = jnp.where(jnp.isfinite(falls), falls / jnp.where(promised > 0, promised, 1), -jnp.inf)
    # The minimiser of the parabola through both values and the slope.
    bent = jnp.where(falls >= 0, 0.5, 0.5 * state.slope / (state.slope + falls))
    shorter = jnp.clip(jnp.where(jnp.isfinite(bent), bent, 0.1), 0.1, 0.5) * jnp.minimum(
        state.radius, 10 * state.length
    )
    grows = state.is_newton | (ratio >= _GOOD)
    radius = jnp.where(ratio <= _POOR, shorter, jnp.where(grows, 2 * state.length, state.radius))
    searched = state.nit >= 0
    return state._replace(
        radius=jnp.where(searched, radius, state.radius),
        accepted=accepted,
        nit=state.nit + accepted.astype(jnp.int32),
        status=jnp.where(searched & ~accepted, _ending(state), Status.RUNNING).astype(jnp.int32),
    )


def _ending(state):
    """The status after a rejected step: whether rounding is all that is left."""
    (x, f, _), size, (usual, worst) = state.iterate, state.size, state.noise
    eps, left = jnp.finfo(f.dtype).eps, (state.cosine**2) * f
    # The slope along a step is known to within so much, in the usual case: it tells where f does not.
    of_slope = _NOISE * eps * (jnp.sqrt(2 * f) + size) / state.root * vec.norm(state.norms * (state.trial - x))
    nothing = state.predicted <= jnp.where(left <= worst, usual, jnp.minimum(usual, of_slope))
    # A radius of 0, or NaN, allows no step, whatever has been made of it.
    still = jnp.all(state.trial == x) | ~(jnp.minimum(state.length, state.radius) > eps * size)
    lost = jnp.where(left <= _DOUBT * worst, Status.PRECISION_LOSS, Status.SEARCH_FAILED)
    ended = jnp.where((left <= worst) & (worst <= KNOWN * f), Status.PRECISION, lost)
    return jnp.where(nothing | still, ended, Status.RUNNING)


def _moved(state, x, f, linear, box):
    """The state at a new iterate: its factor R and its scales D."""
    r, g, norms = linear.r, linear.g, linear.norms
    # The largest norm so far, but not so much larger that rounding hides the column.
    D = jnp.maximum(norms, jnp.where(norms > 0, jnp.minimum(state.D, norms * jnp.finfo(x.dtype).eps ** -0.5), state.D))
    D = jnp.where(D > 0, D, 1)
    return state._replace(
        iterate=Iterate(x, f, g),
        least=jnp.minimum(state.least, f),
        factor=factor(linear, box.free(x, g)),
        residuals=jnp.full((), r.size, jnp.int32),
        lost=(state.nit == 0) & (f < jnp.finfo(f.dtype).tiny) & jnp.any(r != 0),
        D=D,
        norms=norms,
    )


def _continued(state, box):
    """The state with the next trial."""
    x, f, _ = state.iterate
    step = minimizer(state.factor, state.D, state.radius)
    size, newton = state.size, vec.norm(state.norms * step.newton)
    p, trial = step.p, x + step.p
    if box.bounded:
        trial = _bent(state, p, box)
        p = trial - x
    predicted, slope = _promised(state, p)
    return state._replace(
        trial=trial,
        predicted=predicted,
        slope=slope,
        length=vec.norm(state.D * p),
        is_newton=step.is_newton,
        cosine=jnp.where(state.lost, jnp.inf, step.reached / jnp.where(f > 0, jnp.sqrt(2 * f), 1)),
        reach=jnp.where(state.lost, jnp.inf, newton / jnp.where(size > 0, size, 1)),
    )


def _bent(state, p, box):
    """The trial within the box: the better one of two steps, by the promise of the model.

    Variables at a bound that the step would leave are held, and the rest is made again. Then the step is cut where it
    meets a bound; or it is bent: what would leave the box goes to its bound, and the rest is made again for that.
    """
    x = state.iterate.x
    inside = lambda p: box.clip(x + p) - x
    leaves = lambda p: box.clip(x + p) != x + p
    at_bound = _remade(state, p, lambda p: leaves(p) & (inside(p) == 0), inside)
    part = jnp.where(leaves(at_bound), inside(at_bound) / jnp.where(at_bound == 0, 1, at_bound), 1)
    cut, bent = (inside(q) for q in (jnp.min(part, initial=1) * at_bound, _remade(state, p, leaves, inside)))
    p = jnp.where(_promised(state, bent)[0] >= _promised(state, cut)[0], bent, cut)
    # A sum that rounds beside a bound is meant to be at it.
    trial, little = box.clip(x + p), 4 * jnp.finfo(x.dtype).eps
    for bound in (box.lower, box.upper):
        near = jnp.abs(trial - bound) <= little * jnp.maximum(jnp.abs(x), jnp.abs(bound))
        trial = jnp.where(near & (p != 0) & jnp.isfinite(bound), bound, trial)
    return trial


def _remade(state, p, is_held, inside):
    """The step with the variables for which ``is_held(p)`` at ``inside(p)``, and the rest made again, a few times."""

    def goes_on(carry):
        p, held, bends = carry
        return jnp.any(is_held(p) & ~held) & (bends < _BENDS)

    def again(carry):
        p, held, bends = carry
        held = held | is_held(p)
        rest = minimizer(holding(state.factor, held, inside(p)), state.D, state.radius)
        return jnp.where(held, inside(p), rest.p), held, bends + 1

    return lax.while_loop(goes_on, again, (p, jnp.zeros(p.shape, bool), 0))[0]


def _promised(state, p):
    """(what the model promises for a step, the slope of f along it)."""
    Rp, slope = times(state.factor.R, p), vec.dot(state.iterate.g, p)
    return -(slope + vec.dot(Rp, Rp) / 2), slope
