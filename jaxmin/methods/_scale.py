r"""The scale of the variables, learnt from products of the Hessian with vectors of random signs.

With :math:`v_i = \pm 1` at random, the i-th number of :math:`S H S v` is as large, on average, as the i-th row of
:math:`S H S`. S is divided again and again by a power of these numbers, until all rows are about equally long [1].

References:
  [1] A. M. Bradley and W. Murray, Matrix-free approximate equilibration, arXiv:1110.2805, 2011.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._core import vector as vec

# The products of a round. A round is due after ten times as many that a better S may save.
ROUND = 10
_DUE = 10 * ROUND
# A round has at most the weight that a product has among so many: the Hessian changes.
_MOST = 40
# S is used if the logarithms of its squares have at least this standard deviation. Below it, the products that are
# saved are fewer than those that its noise costs.
_SPREAD = 2.0
# Rows shorter than this, relative to the others, count as this long.
_FLOOR = 1e-8


class Scale(NamedTuple):
    """S, and how far it is learnt."""

    S: Any  # like x: a step so long in a variable counts as 1
    used: Any  # [] bool: the method steps in units of S; else in units of x
    seen: Any  # [] int32: products that S was learnt from
    left: Any  # [] int32: products to come in this round
    spent: Any  # [] int32: products since the last round that a better S may save

    @classmethod
    def unknown(cls, x):
        """Before the first round."""
        zero = jnp.zeros((), jnp.int32)
        return cls(jax.tree.map(lambda u: jnp.ones(u.shape, u.real.dtype), x), jnp.zeros((), bool), zero, zero, zero)

    @property
    def has_units(self):
        """Whether rounds find the same M where H is the same; else they find it but for a number."""
        return False

    @property
    def is_left(self):
        """Whether another round may say more."""
        return True

    @property
    def is_due(self):
        """[] bool: enough products were spent since the last round."""
        return self.spent >= _DUE

    @property
    def goes_on(self):
        """[] bool: a round goes on."""
        return self.left > 0

    def unit(self):
        """Like x: S, or 1 where it is not used."""
        return jax.tree.map(lambda u: jnp.where(self.used, u, 1), self.S)

    def as_last_resort(self, when):
        """The scale before a round that the solve depends on: as it is."""
        del when
        return self

    def counted(self, spends, starts):
        """The scale after a product for a step, where ``spends``; at the beginning of a round, where ``starts``."""
        return self._replace(spent=self.spent + spends, left=jnp.where(starts, ROUND, self.left))

    def apply(self, r):
        """S^2 r; in a round S v, whose product with H comes next."""
        S = self.unit()
        probe = vec.times(self.S, jax.tree.map(lambda u: signs(u, self.seen), r))
        return vec.where(self.goes_on, probe, vec.times(S, vec.times(S, r)))

    def learnt(self, d, Hd, when):
        """The scale after a product with the vector d of a round, where ``when``."""
        del d
        return vec.where(when, self._learnt(Hd), self)

    def _learnt(self, Hd):
        y = jax.tree.map(lambda s, u: jnp.abs(s * u), self.S, Hd)
        n, (square,) = vec.size(y), vec.measure((y, y))
        mean = jnp.sqrt(square / n)
        usable = (mean > 0) & (mean < jnp.inf)
        # By half the power at first: a row of S H S has S on both sides. Then less, so that the noise averages out.
        power = 1 / (jnp.minimum(self.seen, _MOST) + 2)
        rows = jax.tree.map(lambda u: jnp.maximum(u / mean, _FLOOR), y)
        S = jax.tree.map(lambda s, u: jnp.where(usable, s * u**-power, s).astype(s.dtype), self.S, rows)
        last = self.left == 1
        return Scale(
            S=S,
            used=jnp.where(last, _spread(S) >= _SPREAD, self.used),
            seen=self.seen + 1,
            left=self.left - 1,
            spent=jnp.where(last, 0, self.spent),
        )


def signs(u, seed):
    """1 and -1 like u, in an order that differs with ``seed``: the finalizer of MurmurHash3."""
    h = jnp.arange(u.size, dtype=jnp.uint32) * jnp.uint32(0x9E3779B1) + seed.astype(jnp.uint32) * jnp.uint32(0x85EBCA77)
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return jnp.where((h ^ (h >> 16)) >> 31, 1, -1).reshape(u.shape).astype(u.dtype)


def _spread(S):
    """The standard deviation of the logarithms of the squares of S."""
    logs = jax.tree.map(lambda s: 2 * jnp.log(s.astype(vec.scalar_dtype(S))), S)
    ones = jax.tree.map(jnp.ones_like, logs)
    total, square = vec.measure((ones, logs), (logs, logs))
    n = vec.size(S)
    return jnp.sqrt(jnp.maximum(square / n - (total / n) ** 2, 0))
