"""Approximations of the inverse Hessian: what a quasi-Newton method multiplies by, and hands out in the end."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin import _vector as vec


class Compact(NamedTuple):
    r"""The L-BFGS matrix of m pairs, :math:`H = \gamma I + [S\; \gamma Y] M [S\; \gamma Y]^T` with

    .. math:: M = \begin{bmatrix} R^{-T}(D + \gamma Y^T Y) R^{-1} & -R^{-T} \\ -R^{-1} & 0 \end{bmatrix}

    (Byrd, Nocedal and Schnabel, Math. Programming 63 (1994), 129-156, eq. (3.1)). The pairs stand in any
    order; an empty slot has zeros in R_inv, which keeps it out of every product.
    """

    S: Any  # [m] rows like x
    Y: Any  # [m] rows like x
    R_inv: Any  # [m, m] inverse of R: R_ij = s_i . y_j where pair i is not younger than pair j, else 0
    YY: Any  # [m, m] y_i . y_j
    D: Any  # [m] s_i . y_i
    gamma: Any  # []

    def times(self, v):
        """H v."""
        S, Y, R_inv, YY, D, gamma = self
        p = times(R_inv, vec.rows_dot(S, v))
        a = times(R_inv.T, D * p + gamma * (times(YY, p) - vec.rows_dot(Y, v)))
        return vec.axpy(gamma, v, vec.add(vec.rows_sum(a, S), vec.rows_sum(-gamma * p, Y)))


class Dense(NamedTuple):
    """H as it stands."""

    H: Any  # [n, n]

    def times(self, v):
        """H v."""
        return times(self.H, v)


def times(A, v):
    """A v for a matrix."""
    return jnp.dot(A, v, precision=jax.lax.Precision.HIGHEST)


@jax.tree_util.register_pytree_node_class
class InverseHessian:
    """The approximate inverse Hessian at the returned point, as an operator.

    ``H @ v`` takes v like x0 (or, where x0 is an array of shape [n], also [n, k]) and gives the same;
    ``todense()`` is the [n, n] matrix and ``diagonal()`` its diagonal, over the numbers of x0 in the
    order of its leaves, a complex number being its real part, then, after the leaf's others, its imaginary one.
    For a batch: ``jax.vmap(lambda H: H.todense())(res.hess_inv)``.
    """

    def __init__(self, core, variables, x_static):
        self._core, self._variables, self._x_static = core, variables, x_static

    @property
    def shape(self):
        """(n, n)"""
        n = self._variables.size
        return n, n

    @property
    def dtype(self):
        """The dtype of the matrix."""
        return self._variables.dtype

    def __matmul__(self, v):
        if jax.tree_util.treedef_is_leaf(self._x_static.treedef):
            v = jnp.asarray(v)
            like = self._variables.shapes[0][0]
            if v.ndim == 2 and len(like) == 1:
                return jax.vmap(self.__matmul__, in_axes=1, out_axes=1)(v)
            if v.shape != like:
                raise ValueError(f"hess_inv @ v: v has the shape {v.shape}, x0 {like}")
        leaves = [jnp.asarray(leaf) for leaf in self._x_static.pick(v)]
        product = self._core.times(self._variables.ravel(leaves))
        return self._x_static.only(self._variables.unravel(product))

    def todense(self):
        """The matrix, [n, n]."""
        return jax.vmap(self._core.times)(jnp.eye(self.shape[0], dtype=self.dtype))

    def diagonal(self):
        """The diagonal, [n]: the variances where fun is half a sum of squared residuals, each over its sigma."""
        return jnp.diagonal(self.todense())

    def __array__(self, dtype=None, copy=None):
        del copy  # it is made anew
        return np.asarray(self.todense(), dtype=dtype)

    def __repr__(self):
        return f"InverseHessian(shape={self.shape}, dtype={self.dtype})"

    def tree_flatten(self):
        return (self._core,), (self._variables, self._x_static)

    @classmethod
    def tree_unflatten(cls, edge, children):
        return cls(children[0], *edge)
