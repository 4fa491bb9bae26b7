"""What the trust-region methods share: when a step is taken, how the region changes, and when nothing is left."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._core import vector as vec
from jaxmin._core.box import Unbounded
from jaxmin._core.protocol import Iterate
from jaxmin._core.status import Status
from jaxmin.methods._noise_floor import STALLS_MAX, gains, noise, unit

# What SciPy calls the parameters of their builders.
SPELLINGS = {"initial_trust_radius": "radius", "max_trust_radius": "max_radius"}
# An agreement of model and function below the first shrinks the region, above the second lets it grow.
_POOR, _GOOD = 0.25, 0.75
# The decreases by model and by slopes agree within it.
_AGREE = 0.1
# A first step that moves x has so many units in its last place.
_HELD = 1000


class Seen(NamedTuple):
    """What :func:`judge` remembers of f and its gradient."""

    f_lowest: Any  # [] the lowest f yet
    g_lowest: Any  # [] the lowest norm of the gradient yet
    stalls: Any  # [] int32: iterates in a row that lowered neither
    blur: Any  # [] how far f was seen to stray from its slopes


def check(radius, max_radius, eta):
    """Raise unless the constants of a trust region make sense."""
    if not radius > 0:
        raise ValueError(f"radius={radius!r}: a length > 0")
    if not max_radius >= radius:
        raise ValueError(f"max_radius={max_radius!r}: not below radius")
    if not 0 <= eta < _POOR:
        raise ValueError(f"eta={eta!r}: in [0, 1/4)")


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
        "seen": Seen(zero + jnp.inf, zero + jnp.inf, jnp.zeros((), jnp.int32), zero),
        "status": jnp.full((), Status.RUNNING, jnp.int32),
    }


def to_edge(z, d, radius):
    """The tau >= 0 with |z + tau d| = Delta, for z inside."""
    dd, zd = vec.dot(d, d), vec.dot(z, d)
    gap = jnp.maximum(radius**2 - vec.dot(z, z), 0)
    return gap / (zd + jnp.sqrt(zd**2 + dd * gap))


def judge(state, g, x, value, Hs, *, eta, max_radius, at_edge=None, box=Unbounded()):
    r"""Take the step to a trial or not, and change the region, by
    :math:`\rho = (f(x) - f(x + s)) / (m(0) - m(s))` [1, Algorithm 4.1].

    Args:
      state: a method's, with the fields of :func:`start`.
      g, x, value: what was found at the trial, and the trial.
      Hs: like x: the product of the model's Hessian with the step s.
      eta: the least :math:`\rho` of a step that is taken.
      max_radius: the largest radius.
      at_edge: [] bool: whether the region kept the step short; by default, whether its length is the radius.
      box: the ``Box``, or ``Unbounded``.

    Returns:
      The state with those fields renewed, ``accepted`` among them: whether the trial is the new iterate.

    References:
      [1] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006.
    """
    last, seen, dtype = state.iterate, state.seen, state.radius.dtype
    f, ulp, at_x0 = value.astype(dtype), unit(value, dtype), state.nit < 0
    s = vec.sub(x, last.x)
    length = vec.norm(s)
    predicted = -(vec.dot(last.g, s) + vec.dot(s, Hs) / 2)
    doubt = noise(seen.f_lowest, last.f, ulp)
    # Within rounding of f the slopes tell the decrease: the trapezoid of both ends.
    by_slopes = -(vec.dot(last.g, s) + vec.dot(g, s)) / 2
    hidden = (jnp.abs(f - last.f) <= doubt) & (predicted <= doubt)
    # Where slopes and model agree and f alone does not, f is blurred by more than its last place shows. By how
    # much, a step tells that is short beside x.
    finite = jnp.isfinite(f) & jnp.isfinite(vec.max_abs(g))
    agree = jnp.abs(by_slopes - predicted) <= _AGREE * predicted
    short = length <= jnp.sqrt(ulp) * vec.norm(x)
    strays = jnp.where(~at_x0 & finite & agree & short, jnp.abs(last.f - f - by_slopes), 0)
    blur = jnp.maximum(seen.blur, strays)
    widest = jnp.maximum(jnp.sqrt(ulp) * jnp.abs(seen.f_lowest), 2 * blur)
    hidden |= agree & (predicted <= widest) & (f <= seen.f_lowest + widest)
    rho = jnp.where(hidden, by_slopes, last.f - f) / predicted
    accepted = at_x0 | (finite & (rho > eta)) | (f == -jnp.inf)

    longest = min(max_radius, 0.1 * math.sqrt(jnp.finfo(dtype).max))  # lest its square overflow
    at_edge = length >= 0.99 * state.radius if at_edge is None else at_edge
    radius = jnp.where(finite & (rho >= _POOR), state.radius, length / 4)
    radius = jnp.where(finite & (rho > _GOOD) & at_edge, jnp.minimum(2 * radius, longest), radius)
    radius = jnp.where(at_x0, state.radius, radius)
    iterate = Iterate(*(vec.where(accepted, new, old) for new, old in zip((x, f, g), last)))
    # A step that x cannot hold, or that promises less than f resolves and was refused: there is no better one.
    lost = ~at_x0 & ~accepted & ((length == 0) | (hidden & (predicted <= ulp * jnp.abs(last.f))))
    # Nor is there one where iterates come and go, and nothing is gained.
    gnorm = vec.max_abs(box.projected(iterate.x, iterate.g))
    stalls = jnp.where(gains(iterate.f, gnorm, seen, ulp), 0, seen.stalls + accepted.astype(jnp.int32))
    lost |= stalls >= 2 * STALLS_MAX
    status = jnp.where(lost, Status.PRECISION_LOSS, Status.RUNNING)
    # Derivatives that are not finite lead nowhere.
    status = jnp.where(jnp.isfinite(length) & ~jnp.isnan(predicted), status, Status.NAN)
    return state._replace(
        iterate=iterate,
        accepted=accepted,
        nit=state.nit + accepted.astype(jnp.int32),
        radius=radius,
        seen=Seen(
            f_lowest=jnp.where(accepted, jnp.minimum(f, seen.f_lowest), seen.f_lowest),
            g_lowest=jnp.where(accepted, jnp.minimum(gnorm, seen.g_lowest), seen.g_lowest),
            stalls=stalls,
            blur=blur,
        ),
        status=status.astype(jnp.int32),
    )
