"""Problems of Hock and Schittkowski, from the book, with their solutions.

W. Hock and K. Schittkowski, Test Examples for Nonlinear Programming Codes, 1981.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class Problem(NamedTuple):
    """f and c, 0 <= c(x) <= upper, within bounds."""

    fun: Any
    c: Any
    upper: Any  # [m]: 0 for an equality, inf for an inequality
    x0: Any
    f: float  # at the solution
    bounds: Any = None


INF = np.inf


def _71(x):
    return x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2]


def _100(x):
    a, b, c, d, e, f, g = x
    rest = 10 * e**6 + 7 * f**2 + g**4 - 4 * f * g - 10 * f - 8 * g
    return (a - 10) ** 2 + 5 * (b - 12) ** 2 + c**4 + 3 * (d - 11) ** 2 + rest


def _100_rows(x):
    a, b, c, d, e, f, g = x
    return jnp.stack([
        127 - 2 * a**2 - 3 * b**4 - c - 4 * d**2 - 5 * e,
        282 - 7 * a - 3 * b - 10 * c**2 - d + e,
        196 - 23 * a - b**2 - 6 * f**2 + 8 * g,
        -4 * a**2 - b**2 + 3 * a * b - 2 * c**2 - 5 * f + 11 * g,
    ])  # fmt: skip


def _43_rows(x):
    a, b, c, d = x
    return jnp.stack([
        8 - a**2 - b**2 - c**2 - d**2 - a + b - c + d,
        10 - a**2 - 2 * b**2 - c**2 - 2 * d**2 + a + d,
        5 - 2 * a**2 - b**2 - c**2 - 2 * a + b + d,
    ])  # fmt: skip


def _76_rows(x):
    a, b, c, d = x
    return jnp.stack([5 - a - 2 * b - c - d, 4 - 3 * a - b - 2 * c + d, b + 4 * c - 1.5])


PROBLEMS = {
    "HS6": Problem(lambda x: (1 - x[0]) ** 2, lambda x: 10 * (x[1:] - x[0] ** 2), [0], [-1.2, 1], 0.0),
    "HS7": Problem(
        lambda x: jnp.log(1 + x[0] ** 2) - x[1], lambda x: (1 + x[0] ** 2) ** 2 + x[1:] ** 2 - 4, [0], [2, 2],
        -np.sqrt(3),
    ),
    "HS10": Problem(
        lambda x: x[0] - x[1], lambda x: -3 * x[0] ** 2 + 2 * x[0] * x[1:] - x[1:] ** 2 + 1, [INF], [-10, 10], -1.0
    ),
    "HS12": Problem(
        lambda x: x[0] ** 2 / 2 + x[1] ** 2 - x[0] * x[1] - 7 * x[0] - 7 * x[1],
        lambda x: 25 - 4 * x[0] ** 2 - x[1:] ** 2, [INF], [0, 0], -30.0,
    ),
    "HS14": Problem(
        lambda x: (x[0] - 2) ** 2 + (x[1] - 1) ** 2,
        lambda x: jnp.stack([x[0] - 2 * x[1] + 1, 1 - x[0] ** 2 / 4 - x[1] ** 2]), [0, INF], [2, 2],
        9 - 23 / 8 * np.sqrt(7),
    ),
    "HS22": Problem(
        lambda x: (x[0] - 2) ** 2 + (x[1] - 1) ** 2, lambda x: jnp.stack([2 - x[0] - x[1], x[1] - x[0] ** 2]),
        [INF, INF], [2, 2], 1.0,
    ),
    "HS28": Problem(
        lambda x: (x[0] + x[1]) ** 2 + (x[1] + x[2]) ** 2, lambda x: x[:1] + 2 * x[1] + 3 * x[2] - 1, [0],
        [-4, 1, 1], 0.0,
    ),
    "HS35": Problem(
        lambda x: 9 - 8 * x[0] - 6 * x[1] - 4 * x[2] + 2 * x[0] ** 2 + 2 * x[1] ** 2 + x[2] ** 2
        + 2 * x[0] * x[1] + 2 * x[0] * x[2],
        lambda x: 3 - x[:1] - x[1] - 2 * x[2], [INF], [0.5, 0.5, 0.5], 1 / 9, [(0, None)] * 3,
    ),
    "HS39": Problem(
        lambda x: -x[0], lambda x: jnp.stack([x[1] - x[0] ** 3 - x[2] ** 2, x[0] ** 2 - x[1] - x[3] ** 2]), [0, 0],
        [2, 2, 2, 2], -1.0,
    ),
    "HS40": Problem(
        lambda x: -jnp.prod(x),
        lambda x: jnp.stack([x[0] ** 3 + x[1] ** 2 - 1, x[0] ** 2 * x[3] - x[2], x[3] ** 2 - x[1]]), [0, 0, 0],
        [0.8, 0.8, 0.8, 0.8], -0.25,
    ),
    "HS43": Problem(
        lambda x: x[0] ** 2 + x[1] ** 2 + 2 * x[2] ** 2 + x[3] ** 2 - 5 * x[0] - 5 * x[1] - 21 * x[2] + 7 * x[3],
        _43_rows, [INF] * 3, [0, 0, 0, 0], -44.0,
    ),
    "HS51": Problem(
        lambda x: (x[0] - x[1]) ** 2 + (x[1] + x[2] - 2) ** 2 + (x[3] - 1) ** 2 + (x[4] - 1) ** 2,
        lambda x: jnp.stack([x[0] + 3 * x[1] - 4, x[2] + x[3] - 2 * x[4], x[1] - x[4]]), [0, 0, 0],
        [2.5, 0.5, 2, -1, 0.5], 0.0,
    ),
    "HS65": Problem(
        lambda x: (x[0] - x[1]) ** 2 + (x[0] + x[1] - 10) ** 2 / 9 + (x[2] - 5) ** 2,
        lambda x: 48 - jnp.sum(x**2)[None], [INF], [-5, 5, 0], 0.9535288567, [(-4.5, 4.5), (-4.5, 4.5), (-5, 5)],
    ),
    "HS71": Problem(
        _71, lambda x: jnp.stack([jnp.sum(x**2) - 40, jnp.prod(x) - 25]), [0, INF], [1, 5, 5, 1], 17.0140173,
        [(1, 5)] * 4,
    ),
    "HS76": Problem(
        lambda x: x[0] ** 2 + x[1] ** 2 / 2 + x[2] ** 2 + x[3] ** 2 / 2 - x[0] * x[2] + x[2] * x[3] - x[0] - 3 * x[1]
        + x[2] - x[3],
        _76_rows, [INF] * 3, [0.5, 0.5, 0.5, 0.5], -4.681818181, [(0, None)] * 4,
    ),
    "HS100": Problem(_100, _100_rows, [INF] * 4, [1, 2, 0, 4, 0, 1, 1], 680.6300573),
}  # fmt: skip
