"""An affine set: linear equations."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._core.convex_set import ConvexSet, Piece
from jaxmin._core.promotion import standard
from jaxmin._core.pytree import any_traced
from jaxmin.sets._parameters import as_array, check_array, unless


@functools.partial(jax.tree_util.register_dataclass, data_fields=["A", "b"], meta_fields=[])
@dataclasses.dataclass(frozen=True, eq=False)
class Affine(ConvexSet):
    """What :func:`affine` makes."""

    A: Any  # [m, n]
    b: Any  # [m]

    def at(self, piece: Piece) -> "Orthonormal":
        """The set in rows that are orthonormal: factorised once, and not at each projection."""
        if np.shape(self.A)[1] != piece.size:
            raise ValueError(
                f"bounds: sets.affine: A is an array of shape {np.shape(self.A)}, for {piece.size} variables; give one "
                f"of shape (m, {piece.size}), its columns in the order of x0's leaves"
            )
        return _factorised(self.A, self.b, piece.dtype)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["Q", "c"], meta_fields=[])
@dataclasses.dataclass(frozen=True, eq=False)
class Orthonormal(ConvexSet):
    """The vectors with Q x = c, where the rows of Q are orthonormal, or 0 with c = 0."""

    Q: jax.Array  # [min(m, n), n]
    c: jax.Array  # [min(m, n)]

    def onto(self, v: jax.Array) -> jax.Array:
        """The nearest point: the part of v along the rows is replaced."""
        return v - _times(_times(self.Q, v) - self.c, self.Q)

    def move(self, x: jax.Array, d: jax.Array) -> jax.Array:
        """P(x + d) - x: d without its part along the rows."""
        return d - _times(_times(self.Q, d) + (_times(self.Q, x) - self.c), self.Q)


def _times(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _factorised(A: Any, b: Any, dtype: np.dtype) -> Orthonormal:
    """A x = b by the singular value decomposition of A: rows that depend on others are dropped.

    What is known is factorised by NumPy in float64. Equations that contradict each other are an error if they are
    known, and NaN if they are traced.
    """
    traced = any_traced((A, b))
    xp: Any = jnp if traced else np
    given = [np.dtype(part.dtype) for part in (A, b) if np.dtype(part.dtype).kind == "f"]
    eps = max(float(jnp.finfo(kind).eps) for kind in (*given, dtype if traced else np.dtype(np.float64)))
    A, b = (jnp.asarray(part, dtype) if traced else np.asarray(part, np.float64) for part in (A, b))
    if min(A.shape) == 0:
        return Orthonormal(jnp.zeros((0, A.shape[1]), dtype), jnp.zeros(0, dtype))
    Q, M = _traced_rows(A, eps) if traced else _rows(np, A, eps)
    c = _times(M, b) if traced else M @ b
    # M is U^T / s, for A = U s Q.
    U = M / xp.maximum(xp.linalg.norm(M, axis=1, keepdims=True), np.finfo(M.dtype).tiny)
    gap, size = xp.max(xp.abs(b - (U @ b) @ U)), xp.max(xp.abs(b))
    solvable = gap <= np.sqrt(eps) * size
    if not traced and not solvable:
        raise ValueError(f"sets.affine: no x satisfies A x = b: its rows contradict each other by {gap:.3g}")
    return Orthonormal(jnp.asarray(Q, dtype), unless(~solvable, jnp.asarray(c, dtype)))


def _rows(xp: Any, A: Any, eps: float) -> tuple[Any, Any]:
    """Orthonormal rows Q that span those of A, 0 for those that depend on others, and M with M A = Q."""
    U, s, Q = xp.linalg.svd(A, full_matrices=False)
    held = s > max(A.shape) * eps * s[:1]
    M = xp.where(held, U, 0).T / xp.where(held, s, 1)[:, None]
    return xp.where(held[:, None], Q, 0), M


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _traced_rows(A: jax.Array, eps: float) -> tuple[jax.Array, jax.Array]:
    return _rows(jnp, A, eps)


@_traced_rows.defjvp
@standard
def _rows_dot(eps: float, primals: Any, tangents: Any) -> Any:
    """Of all Q that span the rows, the one that turns least; M is the pseudoinverse of A Q^T.

    Those of the decomposition itself do not exist where singular values are equal. A change that makes rows
    independent counts only as far as it keeps them dependent.

    References:
      G. H. Golub and V. Pereyra, SIAM J. Numer. Anal. 10 (1973), 413-432: the derivative of a pseudoinverse.
    """
    (A,), (A_dot,) = primals, tangents
    Q, M = _traced_rows(A, eps)
    turned = _times(M, A_dot)
    along = _times(turned, Q.T)
    rest = _times(along, M)  # of M_dot: - M (A_dot Q^T) M + M M^T (A_dot Q^T)^T (I - A Q^T M)
    B_dot = _times(A_dot, Q.T)
    across = B_dot.T - _times(_times(B_dot.T, _times(A, Q.T)), M)
    return (Q, M), (turned - _times(along, Q), _times(_times(M, M.T), across) - rest)


def affine(A: jax.Array, b: jax.Array) -> ConvexSet:
    r"""The vectors with :math:`A x = b`.

    Args:
      A: an array [m, n], a column for each variable, in the order of x0's leaves. Rows may depend on each other.
      b: an array [m]. Both may be traced; equations that contradict each other then give NaN.

    Returns:
      A :class:`~jaxmin.sets.ConvexSet`, for ``bounds=``. A solve factorises A once, in m² n operations for m ≤ n; a
      projection takes 4 m n.

    Raises:
      TypeError: if ``A`` is not a real matrix, or ``b`` not a real vector.
      ValueError: if their lengths differ or a number is not finite; from ``minimize``, if ``A`` does not fit x0, or the
        equations contradict each other.

    >>> import jax.numpy as jnp, jaxmin
    >>> A, b = jnp.array([[1.0, 1.0, 1.0]]), jnp.array([3.0])
    >>> res = jaxmin.minimize(lambda x: jnp.sum(x**2), jnp.zeros(3), method="gradient_descent",
    ...                       bounds=jaxmin.sets.affine(A, b))
    >>> res.x.round(3).tolist()
    [1.0, 1.0, 1.0]

    References:
      G. H. Golub and C. F. Van Loan, Matrix Computations, 4th ed., 2013, Sections 5.5 and 6.2.
    """
    A, b = as_array(A), as_array(b)
    check_array("sets.affine: A", A, 2)
    check_array("sets.affine: b", b, 1)
    if np.shape(A)[0] != np.shape(b)[0]:
        raise ValueError(f"sets.affine: A has {np.shape(A)[0]} rows, and b {np.shape(b)[0]}")
    return Affine(A, b)
