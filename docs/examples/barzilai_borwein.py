"""The gradient method of Barzilai and Borwein."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin.extend import Iterate, Method, Status, builder
from jaxmin.extend import vector as vec


class BarzilaiBorweinState(NamedTuple):
    trial: Any  # like params: the point to evaluate next
    iterate: Iterate  # the last point accepted
    accepted: Any  # [] bool: the trial just given became the iterate
    nit: Any  # [] int32: accepted points after x0; -1 before it
    status: Any  # [] int32


@builder(aliases=("bb", "two_point"))
def barzilai_borwein(first_step: float = 1.0) -> Method:
    r"""Gradient descent with the step of Barzilai and Borwein, without a line search.

    With the last step s and the change y of the gradient along it,

    .. math:: x_{new} = x - \alpha g, \qquad \alpha = s^T s / s^T y

    [1]: the inverse of the latest curvature. f may rise; on a convex quadratic the method still converges. Where s.y
    is not positive, the step has length ``first_step``.

    Args:
      first_step: the length of the first step, in units of x, > 0; 1.0 by default. The step is never longer than |g|.

    Returns:
      A ``Method``.

    Raises:
      ValueError: if first_step is not > 0.

    References:
      [1] J. Barzilai and J. M. Borwein, IMA J. Numer. Anal. 8 (1988), 141-148.
    """
    if not first_step > 0:
        raise ValueError(f"first_step={first_step!r}: give a length > 0")

    def init(x):
        zero = jnp.zeros((), vec.scalar_dtype(x))
        nit, status = jnp.full((), -1, jnp.int32), jnp.full((), Status.RUNNING, jnp.int32)
        return BarzilaiBorweinState(x, Iterate(x, zero, vec.zeros(x)), nit >= 0, nit, status)

    def update(g, state, x, /, *, value, **_):
        last, at_x0 = state.iterate, state.nit < 0
        f = jnp.asarray(value).astype(last.f.dtype)
        s, y = vec.sub(x, last.x), vec.sub(g, last.g)
        sy, norm = vec.dot(s, y), vec.norm(g)

        accepted = at_x0 | (jnp.isfinite(f) & jnp.isfinite(norm))
        curved = ~at_x0 & (sy > 0)
        alpha = jnp.where(curved, vec.dot(s, s) / jnp.where(curved, sy, 1), jnp.minimum(1, first_step / norm))
        halfway = vec.axpy(-0.5, s, x)  # from a point where f is NaN or infinite, back to the iterate

        iterate = Iterate(*(vec.where(accepted, new, old) for new, old in zip((x, f, g), last)))
        trial = vec.where(accepted, vec.axpy(-alpha, g, x), halfway)
        nit = state.nit + accepted.astype(jnp.int32)
        return vec.sub(trial, x), BarzilaiBorweinState(trial, iterate, accepted, nit, state.status)

    return Method(init, update)
