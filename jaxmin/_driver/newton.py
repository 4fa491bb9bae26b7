"""Newton's equations at one point: H v = b with a positive definite Hessian H."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmin._core import vector as vec
from jaxmin._core.typing import Scalar, Vector

# Up to so many variables the Hessian is formed and factorised. Conjugate gradients do for more, and for leaves that
# are not joined.
DENSE_MAX = 100
_STEPS_MAX = 10_000  # of conjugate gradients


def factor(H: jax.Array) -> tuple[jax.Array, Scalar]:
    """The Cholesky factor of H, and whether H is positive definite by more than rounding, in any units of x."""
    L = jnp.linalg.cholesky((H + H.T) / 2)
    pivots = jnp.diagonal(L) ** 2 / jnp.maximum(jnp.diagonal(H), jnp.finfo(H.dtype).tiny)
    return L, jnp.all(pivots > flat(H.shape[0], H.dtype))


def flat(size: int, dtype: Any) -> float:
    """Less curvature than this, relative to the largest, is rounding."""
    return 10 * size * float(jnp.finfo(dtype).eps)


def solve_positive(hessian: Callable[[Vector], Vector], b: Vector) -> Vector:
    """The solution of H v = b for a positive definite H; NaN where it is not, or not solved."""
    eps, size = float(jnp.finfo(vec.scalar_dtype(b)).eps), vec.size(b)
    rounding = flat(size, vec.scalar_dtype(b))
    if size <= DENSE_MAX and not isinstance(b, tuple):
        L, regular = factor(jax.vmap(hessian)(jnp.eye(size, dtype=b.dtype)))
        return jax.scipy.linalg.cho_solve((L, True), b) * jnp.where(regular, 1, jnp.nan).astype(b.dtype)

    def conjugate_gradients(matvec, b):
        bb = vec.dot(b, b)

        def goes_on(carry):
            _, r, _, k, least, most = carry
            return (least > rounding * most) & (vec.dot(r, r) > (10 * eps) ** 2 * bb) & (k < _STEPS_MAX)

        def step(carry):
            v, r, d, k, least, most = carry
            rr, Hd = vec.dot(r, r), matvec(d)
            dHd = vec.dot(d, Hd)
            alpha, curvature = rr / dHd, dHd / vec.dot(d, d)
            v, r = vec.axpy(alpha, d, v), vec.axpy(-alpha, Hd, r)
            d = vec.axpy(vec.dot(r, r) / rr, d, r)
            return v, r, d, k + 1, jnp.minimum(least, curvature), jnp.maximum(most, curvature)

        begin = vec.zeros(b), b, b, 0, jnp.full_like(bb, jnp.inf), jnp.zeros_like(bb)
        v, *_, least, most = jax.lax.while_loop(goes_on, step, begin)
        return v, most, least > rounding * most

    def solve(matvec, b):
        v, most, regular = conjugate_gradients(matvec, b)
        # As good as by factors: the residual, not as the steps carry it on, is what rounding of H would make.
        residual = vec.norm(vec.sub(b, matvec(v)))
        solved = residual <= 100 * eps * (most * vec.norm(v) + vec.norm(b))
        if not isinstance(b, tuple):
            # b may have no part in a direction in which H is flat or falls. The probe has a part in all.
            regular &= conjugate_gradients(matvec, vec.probe(b))[2]
        return vec.scale(jnp.where(solved & regular, 1, jnp.nan), v)

    return jax.lax.custom_linear_solve(hessian, b, solve, symmetric=True)
