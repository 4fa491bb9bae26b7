"""What the trust-region methods share: whether to accept a step, how the region changes, and when to stop."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._core import vector as vec
from jaxmin._core.box import Unbounded
from jaxmin._core.protocol import Iterate
from jaxmin._core.status import Status
from jaxmin.methods._noise_floor import STALLS_MAX, Noise, unit

# SciPy's names of the parameters of their builders.
SPELLINGS = {"initial_trust_radius": "radius", "max_trust_radius": "max_radius"}
# The region shrinks if the agreement of model and function is below the first, and grows if it is above the second.
_POOR, _GOOD = 0.25, 0.75
# The decreases by the model and by the slopes agree if their relative difference is at most this.
_AGREE = 0.1
# The first radius is at least this many units in the last place of x.
_HELD = 1000


class Region(NamedTuple):
    """The constants of a trust region."""

    radius: float  # the first radius
    max_radius: float
    eta: float  # an accepted step has a larger agreement of model and function


def region(radius, max_radius, eta):
    """The ``Region``, checked."""
    if not radius > 0:
        raise ValueError(f"radius={radius!r}: give a length > 0")
    if not max_radius >= radius:
        raise ValueError(f"max_radius={max_radius!r}: give a length >= radius")
    if not 0 <= eta < _POOR:
        raise ValueError(f"eta={eta!r}: give a number in [0, 1/4)")
    return Region(radius, max_radius, eta)


def start(x, radius):
    """The fields of a state that :func:`judge` updates, before x0, with the first radius."""
    zero = jnp.zeros((), vec.scalar_dtype(x))
    # Steps that change x, however large x is.
    least = _HELD * jnp.finfo(zero.dtype).eps * vec.norm(x)
    return {
        "iterate": Iterate(x, zero, vec.zeros(x)),
        "accepted": jnp.zeros((), bool),
        "nit": jnp.full((), -1, jnp.int32),
        "radius": jnp.maximum(zero + radius, jnp.where(jnp.isfinite(least), least, 0)),
        "noise": Noise.unknown(zero),
        "status": jnp.full((), Status.RUNNING, jnp.int32),
    }


def to_edge(radius, zz, zd, dd):
    """The tau >= 0 with |z + tau d| = Delta, for z inside, from the inner products of z and d."""
    gap = jnp.maximum(radius**2 - zz, 0)
    return gap / (zd + jnp.sqrt(zd**2 + dd * gap))


class Trial(NamedTuple):
    """What was found at a trial."""

    x: Any  # like params
    value: Any  # []
    g: Any  # like params
    Hs: Any  # like params: the product of the model's Hessian and the step s


class Agreement(NamedTuple):
    """How model and function agree about a step."""

    rho: Any  # [] the decrease over the decrease that the model predicts
    predicted: Any  # []
    length: Any  # [] of the step
    finite: Any  # [] bool: f and g are finite at the trial
    hidden: Any  # [] bool: the noise hides the decrease, so rho is computed from the slopes
    seen: Any  # [] the largest change of f by rounding that was observed


def judge(region, state, trial, at_edge=None, box=Unbounded(), reach=None):
    r"""Accept or reject a trial, and change the region, by
    :math:`\rho = (f(x) - f(x + s)) / (m(0) - m(s))` [1, Algorithm 4.1].

    Args:
      region: a ``Region``.
      state: the state of a method, with the fields of :func:`start`.
      trial: a ``Trial``.
      at_edge: [] bool: whether the region limited the step; by default, whether its length is the radius.
      box: the ``Box``, or ``Unbounded``.
      reach: [] the length of the step in the norm of the region; by default its 2-norm.

    Returns:
      The state with those fields updated. ``accepted`` says whether the trial is the new iterate.

    References:
      [1] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006.
    """
    dtype, at_x0 = state.radius.dtype, state.nit < 0
    f, ulp = trial.value.astype(dtype), unit(trial.value, dtype)
    agreement = _agreement(state, trial, f, ulp)
    accepted = at_x0 | (agreement.finite & (agreement.rho > region.eta)) | (f == -jnp.inf)
    found = Iterate(trial.x, f, trial.g)
    iterate = Iterate(*(vec.where(accepted, new, old) for new, old in zip(found, state.iterate)))
    xnorm, gnorm = vec.measure(largest=(iterate.x, box.projected(iterate.x, iterate.g)))
    noise = _noise_after(state.noise, iterate, accepted, gnorm, ulp)
    noise = noise._replace(g_first=jnp.where(at_x0, gnorm, noise.g_first))
    kinked = noise.is_kinked(iterate.f, gnorm, xnorm)
    return state._replace(
        iterate=iterate,
        accepted=accepted,
        nit=state.nit + accepted.astype(jnp.int32),
        radius=_next_radius(region, state, agreement, at_edge, reach),
        noise=noise._replace(seen=agreement.seen),
        status=_status(state, agreement, accepted, noise, ulp, kinked),
    )


def _agreement(state, trial, f, ulp):
    """Compare the decreases by the values, the slopes and the model."""
    last, noise, at_x0 = state.iterate, state.noise, state.nit < 0
    x, _, g, Hs = trial
    s = vec.sub(x, last.x)
    products = (last.g, s), (s, Hs), (g, s)
    last_gs, s_Hs, gs, length, x_norm, g_max = vec.measure(*products, norms=(s, x), largest=(g,))
    predicted = -(last_gs + s_Hs / 2)
    doubt = noise._replace(seen=0).hides(last.f, ulp)  # ``seen`` counts below, where the slopes agree
    # Within the noise of f the slopes at both ends give the decrease, by the trapezoid rule.
    by_slopes = -(last_gs + gs) / 2
    hidden = (jnp.abs(f - last.f) <= doubt) & (predicted <= doubt)
    # If slopes and model agree and f does not, the noise of f is larger than its last place. A step that is short
    # compared with x shows how large.
    finite = jnp.isfinite(f) & jnp.isfinite(g_max)
    agree = jnp.abs(by_slopes - predicted) <= _AGREE * predicted
    short = length <= jnp.sqrt(ulp) * x_norm
    strays = jnp.where(~at_x0 & finite & agree & short, jnp.abs(last.f - f - by_slopes), 0)
    seen = jnp.maximum(noise.seen, strays)
    widest = jnp.maximum(jnp.sqrt(ulp) * jnp.abs(noise.f_lowest), 2 * seen)
    hidden |= agree & (predicted <= widest) & (f <= noise.f_lowest + widest)
    rho = jnp.where(hidden, by_slopes, last.f - f) / predicted
    return Agreement(rho, predicted, length, finite, hidden, seen)


def _next_radius(region, state, agreement, at_edge, reach):
    """The radius after a step: a quarter of its length if it was poor, twice the radius if it was good."""
    rho, _, length, finite, *_ = agreement
    length = length if reach is None else reach
    longest = min(region.max_radius, 0.1 * math.sqrt(jnp.finfo(state.radius.dtype).max))  # its square must not overflow
    at_edge = length >= 0.99 * state.radius if at_edge is None else at_edge
    radius = jnp.where(finite & (rho >= _POOR), state.radius, length / 4)
    radius = jnp.where(finite & (rho > _GOOD) & at_edge, jnp.minimum(2 * radius, longest), radius)
    return jnp.where(state.nit < 0, state.radius, radius)


def _noise_after(noise, iterate, accepted, gnorm, ulp):
    """The lowest values so far, and the number of iterates in a row without progress."""
    return noise._replace(
        f_lowest=jnp.where(accepted, jnp.minimum(iterate.f, noise.f_lowest), noise.f_lowest),
        g_lowest=jnp.where(accepted, jnp.minimum(gnorm, noise.g_lowest), noise.g_lowest),
        stalls=jnp.where(noise.is_gain(iterate.f, gnorm, ulp), 0, noise.stalls + accepted.astype(jnp.int32)),
    )


def _status(state, agreement, accepted, noise, ulp, kinked):
    """Why the method cannot go on, or RUNNING."""
    _, predicted, length, _, hidden, _ = agreement
    # The step does not change x, or it was rejected and predicts less than f resolves: there is no better step.
    unresolved = (length == 0) | (hidden & (predicted <= ulp * jnp.abs(state.iterate.f)))
    lost = ~(state.nit < 0) & ~accepted & unresolved
    # There is no better step either after many iterates without progress.
    lost |= noise.stalls >= 2 * STALLS_MAX
    status = jnp.where(lost, jnp.where(kinked, Status.SEARCH_FAILED, Status.PRECISION_LOSS), Status.RUNNING)
    # Without finite derivatives there is no step.
    return jnp.where(jnp.isfinite(length) & ~jnp.isnan(predicted), status, Status.NAN).astype(jnp.int32)
