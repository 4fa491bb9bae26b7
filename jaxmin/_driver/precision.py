"""Whether a solve that stopped by rounding has converged to the precision of f."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxmin._core import vector as vec
from jaxmin._core.box import Within
from jaxmin._core.typing import Scalar, Vector
from jaxmin._driver.newton import DENSE_MAX, conjugate_gradients, flat

# The rounding of f is taken as so many units in its last place.
_ULPS = 16
# Conjugate gradients that have not decided after so many products do not say that a solve has converged.
_PRODUCTS = 200
# They have solved Newton's equations if the residual is this fraction of g.
_RESIDUAL = 0.1


def may_be_examined(x: Vector) -> bool:
    """Whether solves for vectors like x are examined; known while compiling.

    In float64 rounding rarely ends a solve before gtol does: the second derivatives would be compiled for nothing.
    """
    return all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(x))


def has_converged(
    gradient: Callable[[Vector], Vector], f: Scalar, x: Vector, g: Vector, box: Within, known: float | None = None
) -> Scalar:
    r"""Whether Newton's step from x would lower f by less than the rounding of f, [] bool.

    The Hessian H at x among the free variables must not be negative in any direction by more than rounding, and

    .. math:: \tfrac12 g^T H^{-1} g \le \epsilon_f, \qquad
        \epsilon_f = 16 \epsilon |f| + \tfrac12 \epsilon^2 \sum_i H_{ii} x_i^2.

    The first :math:`\epsilon` is that of the dtype of f, the second that of x. The second part of :math:`\epsilon_f` is
    how far f moves if each variable changes by its rounding. Where :math:`\epsilon_f` underflows to 0 nothing is known.

    Args:
      gradient: x -> the gradient of f.
      f, x, g: the value, the point, and the gradient there.
      box: the box of x.
      known: the rounding of f must be at most this fraction of it; None for no such test.
    """
    free = box.free(x, g)
    g = box.only(free, g)

    def product(v: Vector) -> Vector:
        return box.only(free, jax.jvp(gradient, (x,), (box.only(free, v),))[1])

    small = vec.is_small(vec.size(x), DENSE_MAX) and not isinstance(x, tuple)
    found, rounding = (_by_factors if small else _by_products)(product, f, x, g)
    is_known = (rounding > 0) & (True if known is None else rounding <= known * f)
    return found & is_known


def _by_factors(product, f, x, g):
    H = jax.vmap(product)(jnp.eye(x.size, dtype=x.dtype))
    diagonal = jnp.diagonal(H)
    # A variable that is held has a row of zeros.
    H = H + jnp.diag(jnp.where((diagonal == 0) & (g == 0), 1, 0).astype(H.dtype))
    # Flat directions are allowed: those in which H is 0 up to rounding get a curvature just above it.
    L = jnp.linalg.cholesky((H + H.T) / 2 + flat(H.shape[0], H.dtype) * jnp.diag(jnp.diagonal(H)))
    w = jax.scipy.linalg.solve_triangular(L, g, lower=True)
    rounding = _rounding(f, diagonal @ (x * x))
    return w @ w / 2 <= rounding, rounding  # not so for NaN, where H has no factor


def _rounding(f: Scalar, moves: Scalar) -> Scalar:
    """The rounding of f, whose dtype may be wider than that of x; ``moves`` is the sum of H_ii x_i^2."""
    eps = jnp.finfo(moves.dtype).eps
    return _ULPS * jnp.finfo(f.dtype).eps * jnp.abs(f) + 0.5 * eps * eps * moves


def _by_products(product, f, x, g):
    swing = jax.tree.map(lambda u, v: u * jnp.sign(v), x, vec.probe(x))
    rounding = _rounding(f, jnp.abs(vec.dot(swing, product(swing))))
    tiny = 10 * jnp.finfo(rounding.dtype).eps

    def hidden(inner):
        """The model is at its minimum, which is lower by less than the rounding of f."""
        return (inner.rr <= _RESIDUAL**2 * gg) & (inner.falls + 0.5 * inner.rr / inner.least <= rounding)

    def goes_on(inner):
        decided = (inner.falls > rounding) | hidden(inner)
        return inner.is_positive(tiny) & ~decided & (inner.products < _PRODUCTS)

    gg = vec.dot(g, g)
    end = conjugate_gradients(product, g, goes_on)
    return (gg == 0) | (end.is_positive(tiny) & hidden(end)), rounding
