"""The covariance of fitted parameters, from the curvature of the objective."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmin._core.inverse_hessian import Normal, times
from jaxmin._core.promotion import standard
from jaxmin._core.typing import Scalar

# A variable with a larger part in what the data leave open is not determined.
_OPEN = 1e-6


class Covariance(NamedTuple):
    """A covariance matrix, and what the data say nothing of."""

    C: jax.Array  # [n, n]
    undetermined: jax.Array  # [n] bool
    unscaled: jax.Array | bool = False  # [] bool: no residual is left over to estimate their variance


@standard
def of_residuals(normal: Normal, f: Scalar, held: jax.Array, absolute: bool) -> Covariance:
    """(J^T J)^-1 times the variance of the residuals, or with ``absolute`` times 1.

    Args:
      f: half the sum of squares.
      held: [n] bool: variables at a bound, or fixed; they have no variance.
    """
    s, V = normal._replace(R=_without_derivative(normal.R, f)).spectrum()
    W = V * jnp.where(s > 0, 1 / jnp.where(s > 0, s, 1), 0) / normal.D[:, None]
    C = times(W, W.T)
    if absolute:
        return _opened(C, V * (s == 0), held)
    free = normal.residuals - jnp.sum(~held)
    C = jnp.where(free > 0, C * 2 * f / jnp.maximum(free, 1), jnp.inf)
    return _opened(C, V * (s == 0), held)._replace(unscaled=(free <= 0) & ~jnp.all(held))


@jax.custom_jvp
def _without_derivative(R: jax.Array, f: Scalar) -> jax.Array:
    """R, whose derivative is not known: NaN, and not the 0 that a solution has for it."""
    return R


@_without_derivative.defjvp
def _(primals: Any, tangents: Any) -> Any:
    # By f, which depends on all inputs: reverse mode does not see the 0 of R.
    return primals[0], jnp.full_like(primals[0], jnp.nan) * tangents[1].astype(primals[0].dtype)


@standard
def of_hessian(H: jax.Array, held: jax.Array) -> Covariance:
    """H^-1 among the variables that are not held; NaN where H has a negative eigenvalue there."""
    both = ~held[:, None] & ~held
    H = jnp.where(both, (H + H.T) / 2, jnp.diag(jnp.where(held, 1, 0)).astype(H.dtype))
    D = jnp.sqrt(jnp.abs(jnp.diagonal(H)))
    D = jnp.where(D > 0, D, 1)
    H = H / D / D[:, None]
    # Eigenvectors have no derivatives where eigenvalues are equal, and the inverse has.
    lam, V = jnp.linalg.eigh(lax.stop_gradient(H))
    little = lam.size * jnp.finfo(lam.dtype).eps * jnp.max(jnp.abs(lam))
    nothing = V * (jnp.abs(lam) <= little)
    P = times(nothing, nothing.T)
    C = (jnp.linalg.inv(H + P) - P) / D / D[:, None]
    C = jnp.where(jnp.any(lam < -little), jnp.nan, C)
    return _opened(C, nothing, held)


def _opened(C: jax.Array, nothing: jax.Array, held: jax.Array) -> Covariance:
    """C with infinities in the directions ``nothing`` [n, n]: its columns that are not 0."""
    P = times(nothing, nothing.T)
    both = ~held[:, None] & ~held
    is_open = (jnp.abs(P) > _OPEN) & both
    C = jnp.where(both, jnp.where(is_open, jnp.sign(P) * jnp.inf, C), 0)
    return Covariance(C, jnp.diagonal(is_open))


def in_blocks(C: Any, shapes: Sequence[tuple[int, ...]]) -> list[list[Any]]:
    """C in blocks, one for each pair of leaves, each in the shapes of both."""
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    cut = list(zip(ends[:-1], ends[1:], shapes))
    return [[C[a:b, c:d].reshape(*rows, *columns) for c, d, columns in cut] for a, b, rows in cut]
