"""Newton's equations at one point: H v = b with a positive definite Hessian H."""

from collections.abc import Callable
from typing import Any, NamedTuple

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
    return factor_beside(H, jnp.diagonal(H))


def factor_beside(H: jax.Array, terms: jax.Array) -> tuple[jax.Array, Scalar]:
    """The same, where rounding of H is relative to ``terms``, [n], and not to its diagonal."""
    L = jnp.linalg.cholesky((H + H.T) / 2)
    pivots = jnp.diagonal(L) ** 2 / jnp.maximum(terms, jnp.finfo(H.dtype).tiny)
    return L, jnp.all(pivots > flat(H.shape[0], H.dtype))


def flat(size: int, dtype: Any) -> float:
    """Less curvature than this, relative to the largest, is rounding."""
    return 10 * size * float(jnp.finfo(dtype).eps)


class Inner(NamedTuple):
    """The conjugate gradients for H v = b."""

    v: Vector  # the solution so far
    r: Vector  # the residual
    d: Vector  # the direction
    rr: Scalar  # [] r . r
    falls: Scalar  # [] how far the model v.Hv/2 - b.v has fallen
    least: Scalar  # [] the least curvature met
    most: Scalar  # [] the largest
    products: Scalar  # [] int32

    def is_positive(self, rounding: Any) -> Scalar:
        """Whether all curvatures met are above ``rounding`` times the largest."""
        return self.least > rounding * self.most


def conjugate_gradients(hessian: Callable[[Vector], Vector], b: Vector, goes_on: Callable[[Inner], Scalar]) -> Inner:
    """The conjugate gradients for H v = b from v = 0, for as long as ``goes_on`` holds."""

    def step(inner: Inner) -> Inner:
        v, r, d, rr, *_ = inner
        Hd = hessian(d)
        dHd = vec.dot(d, Hd)
        alpha, curvature = rr / dHd, dHd / vec.dot(d, d)
        r = vec.axpy(-alpha, Hd, r)
        rr_new = vec.dot(r, r)
        return Inner(
            v=vec.axpy(alpha, d, v),
            r=r,
            d=vec.axpy(rr_new / rr, d, r),
            rr=rr_new,
            falls=inner.falls + 0.5 * alpha * rr,
            least=jnp.minimum(inner.least, curvature),
            most=jnp.maximum(inner.most, curvature),
            products=inner.products + 1,
        )

    rr = vec.dot(b, b)
    zero = jnp.zeros_like(rr)
    begin = Inner(vec.zeros(b), b, b, rr, zero, zero + jnp.inf, zero, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(goes_on, step, begin)


def solve_positive(hessian: Callable[[Vector], Vector], b: Vector) -> Vector:
    """The solution of H v = b for a positive definite H; NaN where it is not, or not solved."""
    size = vec.size(b)
    if size <= DENSE_MAX and not isinstance(b, tuple):
        L, regular = factor(jax.vmap(hessian)(jnp.eye(size, dtype=b.dtype)))
        return jax.scipy.linalg.cho_solve((L, True), b) * jnp.where(regular, 1, jnp.nan).astype(b.dtype)

    def solve(matvec, b):
        return solved_by_steps(matvec, b, None if isinstance(b, tuple) else vec.probe(b))

    return jax.lax.custom_linear_solve(hessian, b, solve, symmetric=True)


def solved_by_steps(matvec: Callable[[Vector], Vector], b: Vector, probe: Vector | None) -> Vector:
    """The solution of H v = b by conjugate gradients; NaN where they show that H is not positive definite, or fail.

    Args:
      probe: b may have no part in a direction in which H is flat or falls. The probe has a part in all.
    """
    eps, rounding = float(jnp.finfo(vec.scalar_dtype(b)).eps), flat(vec.size(b), vec.scalar_dtype(b))

    def steps(b):
        bb = vec.dot(b, b)

        def goes_on(inner):
            far = inner.rr > (10 * eps) ** 2 * bb
            return inner.is_positive(rounding) & far & (inner.products < _STEPS_MAX)

        return conjugate_gradients(matvec, b, goes_on)

    inner = steps(b)
    # As good as by factors: the residual, not as the steps carry it on, is what rounding of H would make.
    residual = vec.norm(vec.sub(b, matvec(inner.v)))
    solved = residual <= 100 * eps * (inner.most * vec.norm(inner.v) + vec.norm(b))
    regular = inner.is_positive(rounding)
    if probe is not None:
        regular &= steps(probe).is_positive(rounding)
    return vec.scale(jnp.where(solved & regular, 1, jnp.nan), inner.v)
