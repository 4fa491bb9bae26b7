r"""Losses of residuals: functions of their squares that let outliers count less.

A loss rho turns half a sum of squares into :math:`f = \frac{C^2}{2} \sum_i \rho(z_i)` with :math:`z_i = (r_i / C)^2`.

References:
  B. Triggs, P. McLauchlan, R. Hartley and A. Fitzgibbon, Bundle adjustment - a modern synthesis, in Vision Algorithms:
  Theory and Practice, LNCS 1883, 2000, 298-372, Section 4.3 [T].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._core.typing import Scalar

# A sum of squares is known where its rounding is at most this fraction of it.
KNOWN = 1e-2


def _huber(z: jax.Array) -> jax.Array:
    far = z > 1
    return jnp.where(far, 2 * jnp.sqrt(jnp.where(far, z, 1)) - 1, z)


# SciPy's names.
LOSSES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "linear": lambda z: z,
    "soft_l1": lambda z: 2 * z / (jnp.sqrt(1 + z) + 1),
    "huber": _huber,
    "cauchy": jnp.log1p,
    "arctan": jnp.arctan,
}


class Loss(NamedTuple):
    """A loss and its scale C."""

    rho: Callable[[jax.Array], jax.Array]
    scale: Any

    @property
    def is_linear(self) -> bool:
        """Whether f is half the sum of squares itself."""
        return self.rho is LOSSES["linear"]

    def of(self, r: jax.Array) -> Scalar:
        """f."""
        if self.is_linear:
            return jnp.dot(r, r) / 2
        C = jnp.asarray(self.scale, r.dtype)
        return C * C * jnp.sum(self.rho((r / C) ** 2)) / 2

    def weights(self, r: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Factors [m] of the residuals and of the rows of their Jacobian, so that J^T r is the gradient of f.

        J^T J is then the Gauss-Newton matrix of f [T, (4.12)], where the loss bends downwards with what is positive of
        its curvature.
        """
        if self.is_linear:
            return jnp.ones_like(r), jnp.ones_like(r)
        z, one = (r / jnp.asarray(self.scale, r.dtype)) ** 2, jnp.ones_like(r)
        slope = lambda z: jax.jvp(self.rho, (z,), (one,))[1]
        first, second = jax.jvp(slope, (z,), (one,))
        of_rows = jnp.sqrt(jnp.maximum(first + 2 * second * z, jnp.finfo(r.dtype).eps))
        return first / of_rows, of_rows


LINEAR = Loss(LOSSES["linear"], 1.0)


def rho_of(loss: Any) -> Callable[[jax.Array], jax.Array]:
    """The function rho of a name, or itself.

    Raises:
      ValueError: for an unknown name.
    """
    if callable(loss):
        return loss
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ValueError(f"loss={loss!r}: one of {', '.join(map(repr, LOSSES))}, or a function z -> rho(z)")
    return LOSSES[loss]


def scaled(loss: Any, name: str, scale: Any) -> Loss:
    """The ``Loss`` of a name or a function rho, with a scale, which is the argument ``name``.

    Raises:
      ValueError: for an unknown loss, or a scale that is not > 0; it may be traced.
    """
    if not isinstance(scale, jax.core.Tracer) and not scale > 0:
        raise ValueError(f"{name}={scale!r}: give a number > 0")
    return Loss(rho_of(loss), scale)
