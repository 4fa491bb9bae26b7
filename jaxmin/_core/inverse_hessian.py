"""Approximations of the inverse Hessian: quasi-Newton methods multiply by them, and results return them."""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._core import vector as vec
from jaxmin._core.protocol import Iterate
from jaxmin._core.pytree import Static
from jaxmin._core.typing import PyTree, Scalar, Vector
from jaxmin._core.variables import Variables


class Pair(NamedTuple):
    """A step and the change of the gradient along it."""

    s: Vector  # like x
    y: Vector  # like x
    sy: jax.Array  # [] s . y
    yy: jax.Array  # [] y . y
    curved: jax.Array  # [] bool: f curves upwards along s, by more than rounding


def pair_between(previous: Iterate, x: Vector, g: Vector) -> Pair:
    r"""The pair from the previous iterate to x; ``curved`` where :math:`s^T y > \epsilon |s^T g|`."""
    s, y = vec.sub(x, previous.x), vec.sub(g, previous.g)
    sy, yy, sg = vec.measure((s, y), (y, y), (previous.g, s))
    curved = (sy > jnp.finfo(sy.dtype).eps * jnp.abs(sg)) & (yy < jnp.inf)
    # Safe denominators: 1 where the pair is rejected.
    return Pair(s, y, jnp.where(curved, sy, 1), jnp.where(curved, yy, 1), curved)


class Unlimited(NamedTuple):
    r"""The L-BFGS matrix of all pairs, :math:`H = \gamma W + Z`: W comes from H_0 = gamma I, and Z from the pairs.

    With :math:`V = I - \rho y s^T`, each pair turns W into :math:`V^T W V`, and Z into
    :math:`V^T Z V + \rho s s^T` (Nocedal & Wright, 2nd ed., eq. (7.19)).
    """

    WZ: jax.Array  # [2, n, n]
    gamma: jax.Array  # []

    @classmethod
    def empty(cls, x: jax.Array) -> "Unlimited":
        """No pairs: W = I, and H = 0."""
        W = jnp.eye(x.size, dtype=vec.scalar_dtype(x))
        return cls(jnp.stack([W, jnp.zeros_like(W)]), jnp.zeros((), W.dtype))

    @classmethod
    def of(cls, H: jax.Array) -> "Unlimited":
        """From a known matrix, which becomes Z."""
        return cls(jnp.stack([jnp.zeros_like(H), H]), jnp.ones((), H.dtype))

    @property
    def size(self) -> int:
        """The number of variables."""
        return self.WZ.shape[-1]

    def update(self, pair: Pair, store: Scalar, forget: Scalar) -> "Unlimited":
        """H after the pair is added where ``store`` holds, and all earlier pairs are dropped where ``forget`` holds."""
        s, y, sy, yy, _ = pair
        s, y, rho = s.astype(sy.dtype), y.astype(sy.dtype), 1 / sy
        WZ = jnp.where(forget, Unlimited.empty(s).WZ, self.WZ)
        # V^T A V + b rho s s^T = A + rho (s v^T + v s^T), v = (b + rho y.Ay) s / 2 - Ay; b = 0 for W, 1 for Z
        Ay = times(WZ, y)
        b = jnp.arange(2, dtype=s.dtype)
        v = 0.5 * (b + rho * times(Ay, y))[:, None] * s[None, :] - Ay
        change = rho * (s[None, :, None] * v[:, None, :] + v[:, :, None] * s[None, None, :])
        return Unlimited(
            WZ=jnp.where(store, WZ + change, WZ),
            gamma=jnp.where(store, sy / yy, jnp.where(forget, 0, self.gamma)),
        )

    def reopened(self) -> "Unlimited":
        """H for the next solve; where there are no pairs, H = 0 again."""
        return self._replace(gamma=jnp.where(jnp.any(self.WZ[1] != 0), self.gamma, 0))

    def times(self, v: jax.Array) -> jax.Array:
        """H v."""
        Wv, Zv = times(self.WZ, v.astype(self.WZ.dtype))
        return (self.gamma * Wv + Zv).astype(v.dtype)


class Compact(NamedTuple):
    r"""The L-BFGS matrix of m pairs,

    .. math:: H = \gamma (I - Y R^{-1} S^T)^T (I - Y R^{-1} S^T) + S R^{-T} D R^{-1} S^T

    (Byrd, Nocedal and Schnabel, Math. Programming 63 (1994), 129-156: their eq. (3.1) before its brackets are
    multiplied out). The pairs may be in any order. An empty slot has zeros in R_inv, so it adds nothing to a product.

    With ``weights`` W, a diagonal, :math:`H_0 = \gamma W` takes the place of :math:`\gamma I`.
    """

    S: Vector  # [m] rows like x
    Y: Vector  # [m] rows like x
    R_inv: jax.Array  # [m, m] inverse of R: R_ij = s_i . y_j where pair i is as old as pair j or older, else 0
    D: jax.Array  # [m] s_i . y_i
    gamma: jax.Array  # []
    slot: jax.Array  # [] int32: the slot of the next pair, which holds the oldest one
    weights: Vector | None = None  # like x, real and > 0

    @classmethod
    def empty(cls, m: int, x: Vector, weighted: bool = False) -> "Compact":
        """No pairs: H = 0."""
        square = jnp.zeros((m, m), vec.scalar_dtype(x))
        pairs = vec.history(m, x)
        weights = jax.tree.map(lambda u: jnp.ones_like(u.real), x) if weighted else None
        return cls(pairs, pairs, square, square[0], square[0, 0], jnp.zeros((), jnp.int32), weights)

    @property
    def size(self) -> int:
        """The number of variables."""
        return vec.size(self.S) // self.D.shape[0]

    def pairs(self) -> tuple[Vector, Vector, jax.Array]:
        """(S, Y, a mask of the rows that hold pairs), the oldest first."""
        rows = self.S, self.Y, jnp.diagonal(self.R_inv) != 0
        return jax.tree.map(lambda u: jnp.roll(u, -self.slot, axis=0), rows)

    def update(self, pair: Pair, store: Scalar, forget: Scalar) -> "Compact":
        """H after the pair is added where ``store`` holds, and all earlier pairs are dropped where ``forget`` holds."""
        s, y, sy, yy, _ = pair
        m = self.D.shape[0]
        # The pair replaces the oldest one. The others stay unless all are forgotten.
        here = jnp.arange(m) == self.slot
        S = vec.write_row(self.S, self.slot, s, store)
        Y = vec.write_row(self.Y, self.slot, y, store)
        stay = ~(here & store) & ~forget
        R_inv = jnp.where(stay[:, None] & stay[None, :], self.R_inv, 0)

        # R gains the column r = S y above s.y. Its inverse gains the column -R_inv r / s.y above 1 / s.y.
        rho = 1 / sy
        r = jnp.where(stay, vec.rows_dot(S, y), 0)
        column = jnp.where(here, rho, -rho * times(R_inv, r))
        return Compact(
            S=S,
            Y=Y,
            R_inv=jnp.where(store & here[None, :], column[:, None], R_inv),
            D=jnp.where(store & here, sy, self.D),
            gamma=jnp.where(store, sy / yy, jnp.where(forget, 0, self.gamma)),
            slot=jnp.where(store, (self.slot + 1) % m, self.slot),
            weights=None if self.weights is None else self._weights(pair, store, forget),
        )

    def _weights(self, pair: Pair, store: Scalar, forget: Scalar) -> Vector:
        r"""W after a pair: :math:`1 / H_0` is the diagonal of the BFGS update of the last one, times y.H_0 y / s.y.

        The first pair gives gamma alone.

        Reference:
          J. C. Gilbert and C. Lemaréchal, Math. Programming 45 (1989), 407-435, Section 4.
        """
        s, y, sy, yy, _ = pair
        first, gamma = (self.gamma == 0) | forget, sy / yy
        H0 = jax.tree.map(lambda w: self.gamma.astype(w.dtype) * w, self.weights)
        Bs, Hy = vec.over(s, H0), vec.times(H0, y)
        yHy, sBs = vec.measure((y, Hy), (s, Bs))

        def one(h: jax.Array, yi: jax.Array, bs: jax.Array, w: jax.Array) -> jax.Array:
            ratio = yHy / sy
            inverse = ratio / h + jnp.abs(yi) ** 2 / sy - ratio * jnp.abs(bs) ** 2 / sBs
            new = 1 / (gamma * inverse)
            # Rounding, or numbers out of range, may leave nothing of it.
            return jnp.where((new > 0) & (new < jnp.inf) & ~first, new, jnp.where(first, 1, w)).astype(w.dtype)

        new = jax.tree.map(one, H0, y, Bs, self.weights)
        ones = jax.tree.map(jnp.ones_like, self.weights)
        return vec.where(store, new, vec.where(forget, ones, self.weights))

    def times(self, v: Vector) -> Vector:
        """H v."""
        S, Y, R_inv, D, gamma, _, weights = self
        p = times(R_inv, vec.rows_dot(S, v))
        q = vec.sub(v, vec.rows_sum(p, Y))
        if weights is not None:
            q = vec.scale(gamma, vec.times(weights, q))
            return vec.add(q, vec.rows_sum(times(R_inv.T, D * p - vec.rows_dot(Y, q)), S))
        a = times(R_inv.T, D * p - gamma * vec.rows_dot(Y, q))
        return vec.axpy(gamma, q, vec.rows_sum(a, S))


class Dense(NamedTuple):
    """H as one matrix."""

    H: jax.Array  # [n, n]

    @property
    def size(self) -> int:
        """The number of variables."""
        return self.H.shape[0]

    def times(self, v: jax.Array) -> jax.Array:
        """H v."""
        return times(self.H, v)


class Normal(NamedTuple):
    """(J^T J)^-1 of a least-squares problem, J = Q R; the pseudoinverse where J has not full rank."""

    R: jax.Array  # [n, n]
    D: jax.Array  # [n] scales of the variables: what is small is small in R / D
    residuals: jax.Array  # [] int32: how many there are

    @property
    def size(self) -> int:
        """The number of variables."""
        return self.R.shape[0]

    def spectrum(self) -> tuple[jax.Array, jax.Array]:
        """(s, V): the singular values [n] of R / D, 0 where they are rounding, and the right singular vectors."""
        return decomposed(self.R, self.D)[1:]

    def times(self, v: jax.Array) -> jax.Array:
        """H v."""
        s, V = self.spectrum()
        along = times(V.T, v / self.D)
        return times(V, jnp.where(s > 0, along / jnp.where(s > 0, s, 1) ** 2, 0)) / self.D


def decomposed(R: jax.Array, D: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(U, s, V): R / D = U diag(s) V^T, with 0 for singular values that are rounding."""
    U, s, VT = jnp.linalg.svd(R / D[None, :])
    return U, jnp.where(s > s.size * jnp.finfo(s.dtype).eps * jnp.max(s, initial=0), s, 0), VT.T


def times(A: jax.Array, v: jax.Array) -> jax.Array:
    """A v, for one matrix or for a stack of them."""
    return jnp.dot(A, v, precision=jax.lax.Precision.HIGHEST)


# An inverse Hessian as a method holds it.
Core: TypeAlias = Unlimited | Compact | Dense | Normal


@jax.tree_util.register_pytree_node_class
class InverseHessian:
    """The approximate inverse Hessian at the returned point: a symmetric operator on n numbers.

    ``minimize`` returns it as ``res.hess_inv``. n is the number of real numbers in x0: a complex number counts as two.

    - ``H @ v``, ``H.dot(v)``, ``H.matvec(v)``: the product with v, which is built like x0. The result is built like
      x0, in the dtypes of x0. Where x0 is an array of shape [n], v may also have shape [n, k].
    - ``H.todense()``: the matrix, [n, n], and ``H.diagonal()``: its diagonal, [n]; both of dtype ``H.dtype``. They
      follow the leaves of x0 in order. A complex leaf contributes all its real parts, then all its imaginary parts.

    Under ``vmap`` it is a batch of operators. Use a batch inside ``vmap`` only:
    ``jax.vmap(lambda H: H.todense())(res.hess_inv)``.

    Raises:
      ValueError: from a product or a matrix of a batch outside ``vmap``; or if the shape of v does not fit x0.

    >>> import jax, jax.numpy as jnp, jaxmin
    >>> def solve(x):
    ...     return jaxmin.minimize(lambda x: jnp.sum(x**2), x)
    >>> H = solve(jnp.ones(2)).hess_inv
    >>> H.diagonal().round(2).tolist(), (H @ jnp.array([2.0, 4.0])).round(2).tolist()
    ([0.5, 0.5], [1.0, 2.0])
    >>> lanes = jax.vmap(solve)(jnp.ones((3, 2)))
    >>> jax.vmap(lambda H: H.todense())(lanes.hess_inv).shape
    (3, 2, 2)
    """

    def __init__(self, core: Core, variables: Variables, x_static: Static, axes: tuple[int, ...] | None = None) -> None:
        self._core, self._variables, self._x_static = core, variables, x_static
        self._axes = _axes(core) if axes is None else axes  # without the axes of a batch

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n); in a batch, the shape of each operator."""
        n = self._variables.size
        return n, n

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the matrix."""
        return self._variables.dtype

    @property
    def T(self) -> "InverseHessian":
        """H itself, which is symmetric."""
        return self

    def __matmul__(self, v: PyTree) -> PyTree:
        core = self.core()
        if jax.tree_util.treedef_is_leaf(self._x_static.treedef):
            v = jnp.asarray(v)
            like = self._variables.shapes[0][0]
            if v.ndim == 2 and len(like) == 1:
                return jax.vmap(self.__matmul__, in_axes=1, out_axes=1)(v)
            if v.shape != like:
                raise ValueError(f"hess_inv @ v: v has the shape {v.shape}, x0 {like}")
        leaves = [jnp.asarray(leaf) for leaf in self._x_static.pick(v)]
        return self._x_static.only(self._variables.unravel(core.times(self._variables.ravel(leaves))))

    def dot(self, v: PyTree) -> PyTree:
        """``H @ v``."""
        return self @ v

    def matvec(self, v: PyTree) -> PyTree:
        """``H @ v``."""
        return self @ v

    def todense(self) -> jax.Array:
        """The matrix, [n, n]."""
        core, variables = self.core(), self._variables
        column = lambda e: variables.to_array(core.times(variables.from_array(e)))
        return jax.vmap(column)(jnp.eye(self.shape[0], dtype=self.dtype))

    def diagonal(self) -> jax.Array:
        """The diagonal, [n]: the variances, if fun is half a sum of squares of residuals divided by their sigmas."""
        return jnp.diagonal(self.todense())

    def core(self, name: str = "hess_inv") -> Core:
        """The matrix in the method's own form: ``Unlimited``, ``Compact`` or ``Dense``.

        Raises:
          ValueError: for a batch; the message begins with ``name``.
        """
        if any(now > then for now, then in zip(_axes(self._core), self._axes, strict=True)):
            raise ValueError(f"{name}: a batch of operators; write jax.vmap(lambda H: H.todense())(res.hess_inv)")
        return self._core

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # the array is always new
        return np.asarray(self.todense(), dtype=dtype)

    def __repr__(self) -> str:
        return f"InverseHessian(shape={self.shape}, dtype={self.dtype})"

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self._core,), (self._variables, self._x_static, self._axes)

    @classmethod
    def tree_unflatten(cls, edge: Any, children: Any) -> "InverseHessian":
        return cls(children[0], *edge)


def _axes(core: Core) -> tuple[int, ...]:
    """The number of axes of each array of a core."""
    return tuple(map(jnp.ndim, jax.tree.leaves(core)))
