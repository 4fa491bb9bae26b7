"""What the trust-region methods share: when a step is taken, how the region changes, and when nothing is left."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._core import vector as vec
from jaxmin._core.box import Unbounded
from jaxmin._core.protocol import Iterate
from jaxmin._core.status import Status
from jaxmin.methods._noise_floor import STALLS_MAX, Noise, unit

# What SciPy calls the parameters of their builders.
SPELLINGS = {"initial_trust_radius": "radius", "max_trust_radius": "max_radius"}
# An agreement of model and function below the first shrinks the region, above the second lets it grow.
_POOR, _GOOD = 0.25, 0.75
# The decreases by model and by slopes agree within it.
_AGREE = 0.1
# A first step that moves x has so many units in its last place.
_HELD = 1000


class Region(NamedTuple):
    """The constants of a trust region."""

    radius: float  # the first
    max_radius: float
    eta: float  # the least agreement of model and function of a step that is taken


def region(radius, max_radius, eta):
    """The ``Region``, checked."""
    if not radius > 0:
        raise ValueError(f"radius={radius!r}: a length > 0")
    if not max_radius >= radius:
        raise ValueError(f"max_radius={max_radius!r}: not below radius")
    if not 0 <= eta < _POOR:
        raise ValueError(f"eta={eta!r}: in [0, 1/4)")
    return Region(radius, max_radius, eta)


def start(x, radius):
    """The fields of a state that :func:`judge` reads and renews, before x0, with the first radius."""
    zero = jnp.zeros((), vec.scalar_dtype(x))
    # Steps that x can hold, however large it is.
    least = _HELD * jnp.finfo(zero.dtype).eps * vec.norm(x)
    return {
        "iterate": Iterate(x, zero, vec.zeros(x)),
        "accepted": jnp.zeros((), bool),
        "nit": jnp.full((), -1, jnp.int32),
        "radius": jnp.maximum(zero + radius, jnp.where(jnp.isfinite(least), least, 0)),
        "noise": Noise.unknown(zero),
        "status": jnp.full((), Status.RUNNING, jnp.int32),
    }


def to_edge(z, d, radius):
    """The tau >= 0 with |z + tau d| = Delta, for z inside."""
    dd, zd = vec.dot(d, d), vec.dot(z, d)
    gap = jnp.maximum(radius**2 - vec.dot(z, z), 0)
    return gap / (zd + jnp.sqrt(zd**2 + dd * gap))


class Trial(NamedTuple):
    """What was found at a trial."""

    x: Any  # like params
    value: Any  # []
    g: Any  # like params
    Hs: Any  # like params: the product of the model's Hessian with the step s


class Agreement(NamedTuple):
    """How model and function agree about a step."""

    rho: Any  # [] the decrease over the decrease that the model predicts
    predicted: Any  # []
    length: Any  # [] of the step
    finite: Any  # [] bool: f and g are, at the trial
    hidden: Any  # [] bool: rounding hides the decrease, so that rho is that of the slopes
    seen: Any  # [] how far rounding was seen to move f


def judge(region, state, trial, at_edge=None, box=Unbounded()):
    r"""Take the step to a trial or not, and change the region, by
    :math:`\rho = (f(x) - f(x + s)) / (m(0) - m(s))` [1, Algorithm 4.1].

    Args:
      region: a ``Region``.
      state: a method's, with the fields of :func:`start`.
      trial: a ``Trial``.
      at_edge: [] bool: whether the region kept the step short; by default, whether its length is the radius.
      box: the ``Box``, or ``Unbounded``.

    Returns:
      The state with those fields renewed, ``accepted`` among them: whether the trial is the new iterate.

    References:
      [1] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006.
    """
    dtype, at_x0 = state.radius.dtype, state.nit < 0
    f, ulp = trial.value.astype(dtype), unit(trial.value, dtype)
    agreement = _agreement(state, trial, f, ulp)
    accepted = at_x0 | (agreement.finite & (agreement.rho > region.eta)) | (f == -jnp.inf)
    found = Iterate(trial.x, f, trial.g)
    iterate = Iterate(*(vec.where(accepted, new, old) for new, old in zip(found, state.iterate)))
    noise = _noise_after(state.noise, iterate, accepted, vec.max_abs(box.projected(iterate.x, iterate.g)), ulp)
    return state._replace(
        iterate=iterate,
        accepted=accepted,
        nit=state.nit + accepted.astype(jnp.int32),
        radius=_next_radius(region, state, agreement, at_edge),
        noise=noise._replace(seen=agreement.seen),
        status=_status(state, agreement, accepted, noise, ulp),
    )


def _agreement(state, trial, f, ulp):
    """What the values, the slopes and the model say of the step."""
    last, noise, at_x0 = state.iterate, state.noise, state.nit < 0
    x, _, g, Hs = trial
    s = vec.sub(x, last.x)
    length = vec.norm(s)
    predicted = -(vec.dot(last.g, s) + vec.dot(s, Hs) / 2)
    doubt = noise._replace(seen=0).hides(last.f, ulp)  # what was seen counts below, where the slopes agree
    # Within rounding of f the slopes tell the decrease: the trapezoid of both ends.
    by_slopes = -(vec.dot(last.g, s) + vec.dot(g, s)) / 2
    hidden = (jnp.abs(f - last.f) <= doubt) & (predicted <= doubt)
    # Where slopes and model agree and f alone does not, f is blurred by more than its last place shows. A step that
    # is short beside x tells by how much.
    finite = jnp.isfinite(f) & jnp.isfinite(vec.max_abs(g))
    agree = jnp.abs(by_slopes - predicted) <= _AGREE * predicted
    short = length <= jnp.sqrt(ulp) * vec.norm(x)
    strays = jnp.where(~at_x0 & finite & agree & short, jnp.abs(last.f - f - by_slopes), 0)
    seen = jnp.maximum(noise.seen, strays)
    widest = jnp.maximum(jnp.sqrt(ulp) * jnp.abs(noise.f_lowest), 2 * seen)
    hidden |= agree & (predicted <= widest) & (f <= noise.f_lowest + widest)
    rho = jnp.where(hidden, by_slopes, last.f - f) / predicted
    return Agreement(rho, predicted, length, finite, hidden, seen)


def _next_radius(region, state, agreement, at_edge):
    """The radius after a step: a quarter of its length where it was poor, twice as large where it was good."""
    rho, _, length, finite, *_ = agreement
    longest = min(region.max_radius, 0.1 * math.sqrt(jnp.finfo(state.radius.dtype).max))  # its square must not overflow
    at_edge = length >= 0.99 * state.radius if at_edge is None else at_edge
    radius = jnp.where(finite & (rho >= _POOR), state.radius, length / 4)
    radius = jnp.where(finite & (rho > _GOOD) & at_edge, jnp.minimum(2 * radius, longest), radius)
    return jnp.where(state.nit < 0, state.radius, radius)


def _noise_after(noise, iterate, accepted, gnorm, ulp):
    """The lowest values, and for how many iterates in a row nothing was gained."""
    return noise._replace(
        f_lowest=jnp.where(accepted, jnp.minimum(iterate.f, noise.f_lowest), noise.f_lowest),
        g_lowest=jnp.where(accepted, jnp.minimum(gnorm, noise.g_lowest), noise.g_lowest),
        stalls=jnp.where(noise.is_gain(iterate.f, gnorm, ulp), 0, noise.stalls + accepted.astype(jnp.int32)),
    )


def _status(state, agreement, accepted, noise, ulp):
    """Why the method cannot go on, or RUNNING."""
    _, predicted, length, _, hidden, _ = agreement
    # A step that x cannot hold, or that promises less than f resolves and was refused: there is no better step.
    unresolved = (length == 0) | (hidden & (predicted <= ulp * jnp.abs(state.iterate.f)))
    lost = ~(state.nit < 0) & ~accepted & unresolved
    # Nor is there a better step where iterates come and go, and nothing is gained.
    lost |= noise.stalls >= 2 * STALLS_MAX
    status = jnp.where(lost, Status.PRECISION_LOSS, Status.RUNNING)
    # Derivatives that are not finite lead nowhere.
    return jnp.where(jnp.isfinite(length) & ~jnp.isnan(predicted), status, Status.NAN).astype(jnp.int32)
