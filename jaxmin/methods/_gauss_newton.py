"""The Gauss-Newton model of a sum of squares: the factor of J, and the model's minimiser within a ball."""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular

from jaxmin._core import vector as vec
from jaxmin._core.batch_cond import where_needed
from jaxmin._core.inverse_hessian import decomposed, times

# The length of a step at the edge may differ from the radius by this fraction.
_SIGMA = 0.1
_SECULAR_STEPS = 12


class Linear(NamedTuple):
    """The residuals r + J p near a point, with the products that the model needs."""

    r: Any  # [m]
    J: Any  # [m, n]
    g: Any  # [n] J^T r
    G: Any  # [n, n] J^T J
    norms: Any  # [n] those of the columns of J


def linearised(r, J):
    """The ``Linear`` of residuals and their Jacobian."""
    G = times(J.T, J)
    return Linear(r, J, vec.rows_dot(J.T, r), G, jnp.sqrt(jnp.diagonal(G)))


class Factor(NamedTuple):
    """J = Q R, where Q has orthonormal columns."""

    R: Any  # [n, n] upper triangular; columns of 0 for variables that are not free, or have no influence
    Qr: Any  # [n] Q^T r
    sound: Any  # [] bool: J^T J, with columns of length 1, loses at most half of the digits; rows of 0 in R, too


def factor(linear, free):
    """The ``Factor`` of J with r: from J^T J where that is sound, else from Householder's reflections.

    Args:
      linear: a ``Linear``.
      free: [n] bool: the variables that may change; None for all.
    """
    r, J, g, G, norms = linear
    moves = norms > 0 if free is None else free & (norms > 0)
    scale = jnp.where(moves, 1 / jnp.where(moves, norms, 1), 0)
    G, L = _cholesky(scale[:, None] * G * scale[None, :], moves)
    L_inv = solve_triangular(L, jnp.eye(g.size, dtype=G.dtype), lower=True)
    # The largest eigenvalue is at most the largest sum of a row, and the least one at least 1 / trace(G^-1).
    condition = jnp.max(jnp.sum(jnp.abs(G), axis=1), initial=0) * jnp.sum(L_inv * L_inv)
    sound = condition <= jnp.finfo(G.dtype).eps ** -0.5
    small = Factor(jnp.where(moves, L.T * norms[None, :], 0), times(L_inv, scale * g), sound)
    return where_needed(~sound, _by_reflections, small, J, r, moves)


def _cholesky(G, moves):
    """(G with the rows and columns of I for what does not move, its Cholesky factor)."""
    both = moves[:, None] & moves[None, :]
    G = jnp.where(both, G, jnp.eye(moves.size, dtype=G.dtype))
    return G, jnp.linalg.cholesky(G)


def _by_reflections(J, r, moves):
    """The ``Factor`` of any J by Householder's reflections."""
    n = moves.size
    R = jnp.linalg.qr(jnp.concatenate([jnp.where(moves, J, 0), r[:, None]], axis=1), mode="r")
    R = jnp.pad(R, [(0, max(n + 1 - R.shape[0], 0)), (0, 0)])
    return Factor(R[:n, :n], R[:n, n], jnp.zeros((), bool))


def holding(found, held, p):
    """The ``Factor`` for the other variables, where those ``held``, [n] bool, make the step p."""
    R, Qr, sound = found
    moves = ~held & (jnp.diagonal(R) != 0)
    Qr = Qr + times(R, jnp.where(held, p, 0))
    _, L = _cholesky(times(R.T, R), moves)
    c = solve_triangular(L, jnp.where(moves, vec.rows_sum(Qr, R), 0), lower=True)
    small = Factor(jnp.where(moves, L.T, 0), c, sound)
    return vec.where(sound, small, Factor(jnp.where(held, 0, R), Qr, sound))


class Spectrum(NamedTuple):
    """R D^-1 = U diag(s) V^T, for every J."""

    s: Any  # [n] singular values; 0 for directions without influence
    V: Any  # [n, n]
    b: Any  # [n] U^T Q^T r; 0 where s is

    @classmethod
    def of(cls, R, Qr, D):
        U, s, V = decomposed(R, D)
        return cls(s, V, jnp.where(s > 0, vec.rows_sum(Qr, U), 0))

    @property
    def reached(self):
        """[] the length of the part of r that J reaches."""
        return vec.norm(self.b)

    def newton(self):
        """:meth:`at` 0."""
        return self.at(jnp.zeros((), self.s.dtype))

    def at(self, lam):
        """(the step q = D p with the multiplier lam, |q|, its derivative by lam) [1, (3.4)]."""
        s = self.s
        along = -s * self.b / jnp.where(s > 0, s * s + lam, 1)
        length = vec.norm(along)
        # The squares of the step itself would overflow where s is tiny, and the radius would have no effect.
        direction = along / jnp.where(length > 0, length, 1)
        slope = -length * jnp.sum(direction * direction / jnp.where(s > 0, s * s + lam, 1))
        return vec.rows_dot(self.V, along), length, slope


class Normal(NamedTuple):
    """S = R D^-1, where S^T S is sound."""

    S: Any  # [n, n] upper triangular, with 1 on the diagonal for variables without a column
    Qr: Any  # [n] 0 for variables without a column

    @classmethod
    def of(cls, R, Qr, D):
        still = jnp.diagonal(R) == 0
        return cls(R / D[None, :] + jnp.diag(still.astype(R.dtype)), Qr)

    @property
    def reached(self):
        """[] the length of the part of r that J reaches."""
        return vec.norm(self.Qr)

    def newton(self):
        """:meth:`at` 0."""
        return _measured(self.S.T, self.Qr)

    def at(self, lam):
        """(the step q = D p with the multiplier lam, |q|, its derivative by lam) [1, (3.4)]."""
        L = jnp.linalg.cholesky(times(self.S.T, self.S) + lam * jnp.eye(self.Qr.size, dtype=self.Qr.dtype))
        return _measured(L, solve_triangular(L, vec.rows_sum(self.Qr, self.S), lower=True))


def _measured(L, b):
    """(q = -L^-T b, |q|, its derivative by lam, where L L^T = S^T S + lam I)."""
    q = -solve_triangular(L, b, lower=True, trans=1)
    w, length = solve_triangular(L, q, lower=True), vec.norm(q)
    return q, length, -vec.dot(w, w) / jnp.where(length > 0, length, 1)


class Step(NamedTuple):
    """The minimiser of the model within a ball."""

    p: Any  # [n]
    newton: Any  # [n] the minimiser without the ball
    is_newton: Any  # [] bool: whether they are the same
    reached: Any  # [] the length of the part of r that J reaches


def minimizer(found, D, radius):
    r"""The ``Step`` for :math:`\|J p + r\|` over :math:`\|D p\| \le \Delta` [1, Section 3].

    In directions without influence it is the shortest one.

    Args:
      found: the ``Factor`` of J.
      D: [n] the scales of the variables.
      radius: [] Delta.

    References:
      [1] J. J. Moré, The Levenberg-Marquardt algorithm: implementation and theory, in Numerical Analysis, Lecture Notes
      in Mathematics 630, 1978, 105-116.
    """
    R, Qr, sound = found
    small = _on_edge(Normal, R, Qr, D, radius)
    return where_needed(~sound, functools.partial(_on_edge, Spectrum), small, R, Qr, D, radius)


def _on_edge(kind, R, Qr, D, radius):
    """The ``Step`` by a kind of model: Newton's method for 1 / |q| = 1 / Delta, unless the ball is large enough."""
    model = kind.of(R, Qr, D)
    newton, longest, _ = at_0 = model.newton()
    within = longest <= (1 + _SIGMA) * radius

    def goes_on(carry):
        _, (_, length, _), steps = carry
        return ~within & (jnp.abs(length - radius) > _SIGMA * radius) & (steps < _SECULAR_STEPS)

    def better(carry):
        lam, (_, length, slope), steps = carry
        lam = lam - length / radius * (length - radius) / slope
        return lam, model.at(lam), steps + 1

    _, (q, _, _), _ = lax.while_loop(goes_on, better, (jnp.zeros_like(radius), at_0, 0))
    moves = jnp.any(R != 0, axis=0)
    of = lambda q: jnp.where(moves, q / D, 0)
    return Step(of(q), of(newton), within, model.reached)
