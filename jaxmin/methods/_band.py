r"""A band of the Hessian, learnt from products, and the positive definite matrix M that is made from it.

B is the part of H within h of the diagonal: :math:`B_{ij} = H_{ij}` for :math:`|i - j| \le h`, else 0. If H has no
other part, a product with a vector that is :math:`\pm 1` at every (2 h + 1)-th variable and 0 elsewhere shows one
number of each row, and 2 h + 1 such products show all [1]. If B is all of H, n products do.

With its rows made even by a diagonal S [2], B is tridiagonal in blocks: :math:`S B S = L D L^T`, where the blocks of D
are :math:`Q \Lambda Q^T`. M is :math:`S^{-1} L |D| L^T S^{-1} = C C^T`, with :math:`|D|` of the blocks
:math:`Q |\Lambda| Q^T`. Where H is B, the eigenvalues of :math:`C^{-1} H C^{-T}` are 1 and -1, so that conjugate
gradients in these units take one or two products.

References:
  [1] A. R. Curtis, M. J. D. Powell and J. K. Reid, J. Inst. Math. Appl. 13 (1974), 117-119.
  [2] D. Ruiz, A scaling algorithm to equilibrate both rows and columns norms in matrices, RAL-TR-2001-034, 2001.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmin._core.batch_cond import branch
from jaxmin._core.variables import Variables
from jaxmin.methods._scale import signs

# A bandwidth is tried after so many times the products that it costs. Once M is used, a round is due after as many
# products as it costs. Only products that a better M may save count.
_DUE, _AGAIN = 5, 1
# M is used if S (H - B) d is at most this large, in the root mean square, for a d with numbers 1 and -1 in S M d.
_NEAR = 0.5
# Eigenvalues of D, which the scale S makes about 1 or less, count as at least this large. Steps along smaller ones are
# too long for the quadratic model, and the region would shorten the good parts of a step with them.
_FLOOR = 1e-4
# Passes that make the rows even.
_PASSES = 5


class Factors(NamedTuple):
    """The factors of M, in k blocks of m variables."""

    S: Any  # [n]
    L: Any  # [k, m, m]: the blocks below the diagonal, which is 1; the first is 0
    Q: Any  # [k, m, m]
    values: Any  # [k, m]: Lambda


class Band(NamedTuple):
    """B and the factors of M, and how far they are learnt."""

    B: Any  # [b + 1, n], b the largest h: B[j + d, j] at [d, j]
    factors: Any  # Factors
    level: Any  # [] int32: h is this one of the bandwidths
    used: Any  # [] bool: the method steps in units of M; else in units of x
    rounds: Any  # [] int32
    left: Any  # [] int32: products to come in this round
    spent: Any  # [] int32: products since the last round that a better M may save

    @classmethod
    def unknown(cls, x, bandwidth):
        """Before the first round."""
        variables = Variables(jax.tree.leaves(x))
        n, dtype = variables.size, variables.dtype
        b = max(min(bandwidth, n - 1), 1)
        m = n if n <= b + 1 else b
        k = -(-n // m)
        ones, zero = jnp.broadcast_to(jnp.eye(m, dtype=dtype), (k, m, m)), jnp.zeros((), jnp.int32)
        return cls(
            B=jnp.zeros((b + 1, n), dtype),
            factors=Factors(jnp.ones(n, dtype), 0 * ones, ones, jnp.ones((k, m), dtype)),
            level=zero,
            used=jnp.zeros((), bool),
            rounds=zero,
            left=zero,
            spent=zero,
        )

    @property
    def has_units(self):
        """Whether rounds find the same M where H is the same; else they find it but for a number."""
        return True

    @property
    def _tried(self):
        """The bandwidths, in their order."""
        rows, n = self.B.shape
        return _bandwidths(rows - 1, n)

    def _of_level(self, numbers):
        """[] int32: the one for the bandwidth that is tried or used."""
        return jnp.asarray(numbers)[jnp.minimum(self.level, len(numbers) - 1)]

    @property
    def h(self):
        """[] int32: the bandwidth."""
        return self._of_level(self._tried)

    @property
    def period(self):
        """[] int32: the products that show B."""
        return self.products - ~self.is_whole

    @property
    def is_whole(self):
        """[] bool: B is all of H, so that no product need test M."""
        return self.h >= self.B.shape[1] - 1

    @property
    def products(self):
        """[] int32: the products of a round."""
        return self._of_level(_products(self._tried, self.B.shape[1]))

    @property
    def turn(self):
        """[] int32: which product of the round comes next; one after the ``period`` tests M."""
        return self.products - self.left

    @property
    def is_left(self):
        """[] bool: a bandwidth is left to try."""
        return self.level < len(self._tried)

    @property
    def is_due(self):
        """[] bool: enough products were spent since the last round, and a bandwidth is left to try."""
        return self.is_left & (self.spent >= jnp.where(self.used, _AGAIN, _DUE) * self.products)

    @property
    def goes_on(self):
        """[] bool: a round goes on."""
        return self.left > 0

    def as_last_resort(self, when):
        """The band before a round that the solve depends on, where ``when``: at its widest, if no width is in use."""
        widest = jnp.where(self.used, self.level, len(self._tried) - 1).astype(jnp.int32)
        return self._replace(level=jnp.where(when, widest, self.level), used=self.used & ~when)

    def counted(self, spends, starts):
        """The band after a product for a step, where ``spends``; at the beginning of a round, where ``starts``."""
        return self._replace(spent=self.spent + spends, left=jnp.where(starts, self.products, self.left))

    def learnt(self, d, Hd, when):
        """The band after a product with the vector d of a round, where ``when``."""
        d, Hd = _flat(d), _flat(Hd)
        last, shown = when & (self.left == 1), when & ~self._tests
        B = branch(shown, lambda: self._shown(d, Hd), lambda: self.B)
        is_known = shown & (self.turn == self.period - 1)
        factors = branch(is_known, lambda: _factored(B, self.factors), lambda: self.factors)
        near = branch(when & self._tests, lambda: _lacks(factors.S, B, d, Hd) <= _NEAR, lambda: self.is_whole)
        used = jnp.where(last, near, self.used)
        return self._replace(
            B=B,
            factors=factors,
            level=self.level + (last & ~used),
            used=used,
            rounds=self.rounds + last,
            left=self.left - when,
            spent=jnp.where(last, 0, self.spent),
        )

    def apply(self, r):
        """M^-1 r; in a round the vector whose product with H comes next."""
        v, tests = self._signs(), self._tests
        solves = tests | (self.used & ~self.goes_on)
        u = jnp.where(tests, v / self.factors.S, _flat(r))
        u = branch(solves, lambda: _solved(self.factors, u), lambda: u)
        column = jnp.arange(v.size) % self.period == self.turn
        return _like(r, jnp.where(self.goes_on & ~tests, jnp.where(column, v, 0), u))

    @property
    def _tests(self):
        """[] bool: the next product tests M."""
        return (self.left == 1) & ~self.is_whole

    def _signs(self):
        """[n]: 1 and -1, in an order that differs with the round."""
        return signs(self.factors.S, self.rounds)

    def _shown(self, v, Hv):
        """B with the numbers that a product shows."""
        (b, n), h, p = (self.B.shape[0] - 1, self.B.shape[1]), self.h, self.period
        # In row i the column j = i + d is the nearest of those in the product.
        i = jnp.arange(n)
        d = (self.turn - i + h) % p - h
        d = jnp.where(i + d < 0, d + p, jnp.where(i + d >= n, d - p, d))  # the others are near only if p = n
        # A number beside the diagonal is shown twice, by its row and by its column: B has the mean.
        number = Hv * _at(v, i + d) * jnp.where(d == 0, 1, 0.5)
        near = (i + d >= 0) & (i + d < n) & (jnp.abs(d) <= b)
        B = jnp.where(self.turn == 0, 0, self.B)
        return B.at[jnp.where(near, jnp.abs(d), b + 1), jnp.minimum(i, i + d)].add(number, mode="drop")


def _lacks(S, B, d, Hd):
    """The root mean square of S (H - B) d, for a d with S M d of 1 and -1."""
    return jnp.sqrt(jnp.mean((S * (Hd - _times(B, d))) ** 2))


def _bandwidths(b, n):
    """Those that are tried, up to b: each at most about a third of the next, and learnt from at most half of its
    products.
    """
    found, h = [b], b
    while h > 1:
        h = max(1, round(h / 3))
        if 2 * _products(h, n) <= _products(found[0], n):
            found.insert(0, h)
    return np.array(found, np.int32)


def _products(h, n):
    """Those that show B, and one that tests M unless B is all of H; h: a number, or an array."""
    return np.int32(np.minimum(2 * h + 1, n) + (h < n - 1))


def _flat(x):
    """[n]: the real numbers of x."""
    leaves = jax.tree.leaves(x)
    return Variables(leaves).ravel(leaves)


def _like(x, v):
    """The numbers v, like x."""
    leaves, tree = jax.tree.flatten(x)
    return jax.tree.unflatten(tree, Variables(leaves).unravel(v))


# ---- the factors


def _factored(B, before):
    """The factors of M; ``before``: factors of the same shapes."""
    S = _even(B)
    on, below = _as_blocks(B * S[None] * _later(S, B.shape[0]), *before.values.shape)

    def eliminate(last, blocks):
        Q, values = last
        A, E = blocks
        L = (E @ Q / values[None]) @ Q.T
        values, Q = jnp.linalg.eigh(A - L @ E.T)
        values = jnp.where(values < 0, -1, 1) * jnp.maximum(jnp.abs(values), _FLOOR)
        return (Q, values), (L, Q, values)

    first = jnp.zeros_like(before.Q[0]), jnp.ones_like(before.values[0])
    _, (L, Q, values) = lax.scan(eliminate, first, (on, below))
    return Factors(S, L, Q, values)


def _even(B):
    """[n]: S, with which the largest number of each row of S B S is about 1."""
    rows, n = B.shape

    def once(_, S):
        A = jnp.abs(B) * S[None] * _later(S, rows)
        largest = jnp.maximum(jnp.max(A, axis=0), jnp.max(_by_rows(A), axis=0)[:n])
        return jnp.where(largest > 0, S / jnp.sqrt(largest), S)

    return lax.fori_loop(0, _PASSES, once, jnp.ones_like(B[0]))


def _later(v, rows):
    """[rows, n]: v[j + d] at [d, j], and 0 past the end."""
    # Row d of the longer rows begins d places later in the memory of the shorter ones: no gather.
    n = v.size
    wide = jnp.broadcast_to(jnp.pad(v, (0, rows - 1)), (rows, n + rows - 1))
    return jnp.pad(wide.ravel(), (0, rows)).reshape(rows, n + rows)[:, :n]


def _by_rows(B):
    """[rows, n + rows - 1]: B[d, j] at [d, j + d], so that columns are rows of the matrix left of its diagonal."""
    rows, n = B.shape
    return jnp.pad(B, ((0, 0), (0, rows))).ravel()[: rows * (n + rows - 1)].reshape(rows, n + rows - 1)


def _as_blocks(B, k, m):
    """[k, m, m], twice: the blocks on the diagonal and those below it; the first of these is 0."""
    rows, n = B.shape
    B = jnp.pad(B, ((0, 0), (0, k * m - n))).at[0, n:].set(1)
    block, i, j = jnp.indices((k, m, m))
    d, first = jnp.abs(i - j), m * block
    on = jnp.where(d < rows, _at(B, d, first + jnp.minimum(i, j)), 0)
    d = m + i - j
    return on, jnp.where(d < rows, _at(B, d, first - m + j), 0)


def _at(array, *indices):
    """The numbers there; 0 for indices outside."""
    return array.at[indices].get(mode="fill", fill_value=0, wrap_negative_indices=False)


# ---- products


def _times(B, v):
    """B v."""
    rows, n = B.shape
    below = jnp.sum(_by_rows(B * v[None]), axis=0)[:n]
    return below + jnp.sum(B[1:] * _later(v, rows)[1:], axis=0)


def _solved(F, r):
    """M^-1 r."""
    u = _down(F, r)
    u = jnp.einsum("kij,kj->ki", F.Q, jnp.einsum("kij,ki->kj", F.Q, u) / jnp.abs(F.values))
    return _up(F, u)


def _down(F, r):
    """[k, m]: L^-1 S r."""

    def step(u, row):
        r, L = row
        u = r - L @ u
        return u, u

    r = _blocks(F, F.S * r)
    return lax.scan(step, jnp.zeros_like(r[0]), (r, F.L))[1]


def _up(F, w):
    """[n]: S L^-T w."""

    def step(above, row):
        w, L = row
        u = w - above
        return L.T @ u, u

    _, u = lax.scan(step, jnp.zeros_like(w[0]), (w, F.L), reverse=True)
    return F.S * u.ravel()[: F.S.size]


def _blocks(F, v):
    """[k, m]: the numbers v, and zeros."""
    k, m = F.values.shape
    return jnp.pad(v, (0, k * m - v.size)).reshape(k, m)
