"""Sobol points, scrambled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

_BITS = 32
# Of each dimension after the first: a primitive polynomial over {0, 1}, its coefficients as the bits of a number, and
# the first direction numbers. The table of Joe and Kuo (2008), "new-joe-kuo-6", up to polynomials of degree 7.
_TABLE = (
    (3, 1), (7, 1, 3), (11, 1, 3, 1), (13, 1, 1, 1), (19, 1, 1, 3, 3), (25, 1, 3, 5, 13), (37, 1, 1, 5, 5, 17),
    (41, 1, 1, 5, 5, 5), (47, 1, 1, 7, 11, 19), (55, 1, 1, 5, 1, 1), (59, 1, 1, 1, 3, 11), (61, 1, 3, 5, 5, 31),
    (67, 1, 3, 3, 9, 7, 49), (91, 1, 1, 1, 15, 21, 21), (97, 1, 3, 1, 13, 27, 49), (103, 1, 1, 1, 15, 7, 5),
    (109, 1, 3, 1, 15, 13, 25), (115, 1, 1, 5, 5, 19, 61), (131, 1, 3, 7, 11, 23, 15, 103),
    (137, 1, 3, 7, 13, 13, 15, 69), (143, 1, 1, 3, 13, 7, 35, 63), (145, 1, 3, 5, 9, 1, 25, 53),
    (157, 1, 3, 1, 13, 9, 35, 107), (167, 1, 3, 1, 5, 27, 61, 31), (171, 1, 1, 5, 11, 19, 41, 61),
    (185, 1, 3, 5, 3, 3, 13, 69), (191, 1, 1, 7, 13, 1, 19, 1), (193, 1, 3, 7, 5, 13, 19, 59),
    (203, 1, 1, 3, 9, 25, 29, 41), (211, 1, 3, 5, 13, 23, 1, 55), (213, 1, 3, 7, 3, 13, 59, 17),
    (229, 1, 3, 1, 3, 5, 53, 69), (239, 1, 1, 5, 5, 23, 33, 13), (241, 1, 1, 7, 7, 1, 61, 123),
    (247, 1, 1, 7, 9, 13, 61, 49), (253, 1, 3, 3, 5, 3, 55, 33),
)  # fmt: skip
DIMENSIONS = 1 + len(_TABLE)


def scrambled(key: jax.Array, n: int, d: int) -> jax.Array:
    """The first n points of a Sobol sequence in d dimensions, [n, d] uint32: fractions of 2^32.

    Matousek's linear scrambling (1998) and a digital shift, both random, keep what makes the points even: of 2^k points
    each of the 2^k equal parts of an axis holds one.

    Args:
      key: a random key.
      n: the number of points, at most 2^32.
      d: the number of dimensions, at most ``DIMENSIONS``.
    """
    for_matrix, for_shift = jax.random.split(key)
    columns = _mixed(for_matrix, jnp.asarray(directions(d)))
    shift = jax.random.bits(for_shift, (1, d), jnp.uint32)
    count = jnp.arange(n, dtype=jnp.uint32)[:, None]
    points = jnp.broadcast_to(shift, (n, d))
    for j in range((n - 1).bit_length()):
        points = jnp.where((count >> j) & 1 == 1, points ^ columns[None, :, j], points)
    return points


@functools.cache
def directions(d: int) -> np.ndarray:
    """The direction numbers, [d, 32] uint32: the j-th one is what bit j of a point's number contributes."""
    rows = [[1] * _BITS]
    for polynomial, *m in _TABLE[: d - 1]:
        s = polynomial.bit_length() - 1
        for k in range(len(m), _BITS):
            new = m[k - s]  # the recurrence of Bratley and Fox (1988), eq. (2)
            for i in range(1, s + 1):
                if polynomial >> (s - i) & 1:
                    new ^= m[k - i] << i
            m.append(new)
        rows.append(m)
    return np.array([[m[k] << (_BITS - 1 - k) for k in range(_BITS)] for m in rows], np.uint32)


def _mixed(key: jax.Array, columns: jax.Array) -> jax.Array:
    """The direction numbers times a random lower triangular matrix of bits for each dimension, [d, 32]."""
    diagonal = jnp.asarray(1 << np.arange(_BITS - 1, -1, -1, dtype=np.uint32), jnp.uint32)  # from the first digit on
    above = ~((diagonal << 1) - 1)  # the digits before each one
    masks = jax.random.bits(key, (columns.shape[0], _BITS), jnp.uint32) & above | diagonal
    parity = jax.lax.population_count(columns[:, :, None] & masks[:, None, :]) & 1
    return jnp.sum(parity * diagonal, axis=-1, dtype=jnp.uint32)
