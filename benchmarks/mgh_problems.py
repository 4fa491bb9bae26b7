"""The 35 problems of Moré, Garbow and Hillstrom: residuals, standard starts, known minima of the sum of squares.

J. J. Moré, B. S. Garbow and K. E. Hillstrom, Testing unconstrained optimization software, ACM Transactions on
Mathematical Software 7 (1981), 17-41, Section 3. Each function has the number of its problem there, and the paper's
letters: n variables x, m residuals, data t and y. In (11) the paper prints "y_i m i x_2"; it means y_i - x_2, as in
Algorithm 566 of the same volume. The sizes are those of MINPACK's driver of lmder, and of hybrj where lmder's has none.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class Problem(NamedTuple):
    number: int  # in the paper
    name: str
    residuals: Callable[[Any], Any]  # [n] -> [m], in the dtype of x
    start: Any  # [n] the standard start
    minima: tuple[float, ...]  # sums of squares, the least first, with the digits that the paper prints

    def start_times(self, factor):
        """[n] so many times the standard start; if that is zero, the factor in each entry, as in MINPACK's driver."""
        return factor * self.start if np.any(self.start) or factor == 1 else np.full(self.start.shape, float(factor))


def _like(x, values):
    """Data in the dtype of x."""
    return jnp.asarray(values, x.dtype)


def _count(x, m, first=1):
    """first, first + 1, ..., m numbers."""
    return jnp.arange(first, first + m).astype(x.dtype)


def rosenbrock(x):  # (1)
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def freudenstein_roth(x):  # (2)
    return jnp.stack([-13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1], -29 + x[0] + ((x[1] + 1) * x[1] - 14) * x[1]])


def powell_badly_scaled(x):  # (3)
    return jnp.stack([1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001])


def brown_badly_scaled(x):  # (4)
    return jnp.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2])


def beale(x):  # (5)
    return _like(x, [1.5, 2.25, 2.625]) - x[0] * (1 - x[1] ** _count(x, 3))


def jennrich_sampson(x):  # (6)
    i = _count(x, 10)
    return 2 + 2 * i - (jnp.exp(i * x[0]) + jnp.exp(i * x[1]))


def helical_valley(x):  # (7)
    # The paper's angle is within (-1/4, 3/4) of a turn.
    angle = 0.25 + jnp.arctan2(-x[0], x[1]) / (2 * math.pi)
    return jnp.stack([10 * (x[2] - 10 * angle), 10 * (jnp.sqrt(x[0] ** 2 + x[1] ** 2) - 1), x[2]])


_BARD = [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39]


def bard(x):  # (8)
    u = _count(x, 15)
    v, y = 16 - u, _like(x, _BARD)
    return y - (x[0] + u / (v * x[1] + jnp.minimum(u, v) * x[2]))


_GAUSSIAN = [0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521]


def gaussian(x):  # (9)
    t = (8 - _count(x, 15)) / 2
    return x[0] * jnp.exp(-x[1] * (t - x[2]) ** 2 / 2) - _like(x, [*_GAUSSIAN, 0.3989, *_GAUSSIAN[::-1]])


_MEYER = [
    34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872
]  # fmt: skip


def meyer(x):  # (10)
    t = 45 + 5 * _count(x, 16)
    return x[0] * jnp.exp(x[1] / (t + x[2])) - _like(x, _MEYER)


def gulf(x, m=99):  # (11)
    t = np.arange(1, m + 1) / 100
    y = 25 + (-50 * np.log(t)) ** (2 / 3)
    return jnp.exp(-(jnp.abs(_like(x, y) - x[1]) ** x[2]) / x[0]) - _like(x, t)


def box(x, m=10):  # (12)
    t = _count(x, m) / 10
    return jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * (jnp.exp(-t) - jnp.exp(-10 * t))


def powell_singular(x):  # (13)
    a, b = math.sqrt(5), math.sqrt(10)
    return jnp.stack([x[0] + 10 * x[1], a * (x[2] - x[3]), (x[1] - 2 * x[2]) ** 2, b * (x[0] - x[3]) ** 2])


def wood(x):  # (14)
    a, b = math.sqrt(90), math.sqrt(10)
    first = [10 * (x[1] - x[0] ** 2), 1 - x[0], a * (x[3] - x[2] ** 2), 1 - x[2]]
    return jnp.stack([*first, b * (x[1] + x[3] - 2), (x[1] - x[3]) / b])


_KOWALIK = (
    [4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625],  # u
    [0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246],  # y
)


def kowalik_osborne(x):  # (15)
    u, y = _like(x, _KOWALIK)
    return y - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def brown_dennis(x, m=20):  # (16)
    t = _count(x, m) / 5
    return (x[0] + t * x[1] - jnp.exp(t)) ** 2 + (x[2] + x[3] * jnp.sin(t) - jnp.cos(t)) ** 2


_OSBORNE_1 = [
    0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751, 0.718, 0.685, 0.658, 0.628, 0.603,
    0.580, 0.558, 0.538, 0.522, 0.506, 0.490, 0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411,
    0.406,
]  # fmt: skip


def osborne_1(x):  # (17)
    t = 10 * _count(x, 33, first=0)
    return _like(x, _OSBORNE_1) - (x[0] + x[1] * jnp.exp(-t * x[3]) + x[2] * jnp.exp(-t * x[4]))


def biggs(x, m=13):  # (18)
    t = _count(x, m) / 10
    y = jnp.exp(-t) - 5 * jnp.exp(-10 * t) + 3 * jnp.exp(-4 * t)
    return x[2] * jnp.exp(-t * x[0]) - x[3] * jnp.exp(-t * x[1]) + x[5] * jnp.exp(-t * x[4]) - y


_OSBORNE_2 = [
    1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746, 0.679, 0.608, 0.655, 0.616, 0.606,
    0.602, 0.626, 0.651, 0.724, 0.649, 0.649, 0.694, 0.644, 0.624, 0.661, 0.612, 0.558, 0.533, 0.495, 0.500, 0.423,
    0.395, 0.375, 0.372, 0.391, 0.396, 0.405, 0.428, 0.429, 0.523, 0.562, 0.607, 0.653, 0.672, 0.708, 0.633, 0.668,
    0.645, 0.632, 0.591, 0.559, 0.597, 0.625, 0.739, 0.710, 0.729, 0.720, 0.636, 0.581, 0.428, 0.292, 0.162, 0.098,
    0.054,
]  # fmt: skip


def osborne_2(x):  # (19)
    t = _count(x, 65, first=0) / 10
    peaks = [x[i] * jnp.exp(-((t - x[i + 7]) ** 2) * x[i + 4]) for i in (1, 2, 3)]
    return _like(x, _OSBORNE_2) - (x[0] * jnp.exp(-t * x[4]) + sum(peaks))


def watson(x):  # (20)
    powers = (np.arange(1, 30) / 29)[:, None] ** np.arange(x.size)  # [29, n]
    derivatives = np.arange(1, x.size) * powers[:, :-1]
    sums = _like(x, derivatives) @ x[1:] - (_like(x, powers) @ x) ** 2 - 1
    return jnp.concatenate([sums, jnp.stack([x[0], x[1] - x[0] ** 2 - 1])])


def extended_rosenbrock(x):  # (21)
    return jnp.concatenate([10 * (x[1::2] - x[::2] ** 2), 1 - x[::2]])


def extended_powell(x):  # (22)
    a, b, c, d = (x[i::4] for i in range(4))
    linear, squares = [a + 10 * b, math.sqrt(5) * (c - d)], [(b - 2 * c) ** 2, math.sqrt(10) * (a - d) ** 2]
    return jnp.concatenate(linear + squares)


def penalty_1(x):  # (23)
    return jnp.append(math.sqrt(1e-5) * (x - 1), jnp.sum(x**2) - 0.25)


def penalty_2(x):  # (24)
    n, a = x.size, math.sqrt(1e-5)
    e = lambda v: jnp.exp(v / 10)
    i = _count(x, n)
    sums = a * (e(x[1:]) + e(x[:-1]) - (e(i[1:]) + e(i[:-1])))
    last = jnp.sum((n + 1 - i) * x**2) - 1
    return jnp.concatenate([x[:1] - 0.2, sums, a * (e(x[1:]) - math.exp(-0.1)), last[None]])


def variably_dimensioned(x):  # (25)
    total = jnp.sum(_count(x, x.size) * (x - 1))
    return jnp.concatenate([x - 1, jnp.stack([total, total**2])])


def trigonometric(x):  # (26)
    return x.size - jnp.sum(jnp.cos(x)) + _count(x, x.size) * (1 - jnp.cos(x)) - jnp.sin(x)


def brown_almost_linear(x):  # (27)
    return jnp.append(x[:-1] + jnp.sum(x) - (x.size + 1), jnp.prod(x) - 1)


def _grid(x):
    """The step h, the points t, and the cubes (x + t + 1)^3."""
    h = 1 / (x.size + 1)
    t = h * _count(x, x.size)
    return h, t, (x + t + 1) ** 3


def discrete_boundary_value(x):  # (28)
    h, _, cubes = _grid(x)
    padded = jnp.pad(x, 1)
    return 2 * x - padded[:-2] - padded[2:] + h**2 * cubes / 2


def discrete_integral_equation(x):  # (29)
    h, t, cubes = _grid(x)
    left, right = jnp.cumsum(t * cubes), (1 - t) * cubes
    return x + h * ((1 - t) * left + t * (jnp.sum(right) - jnp.cumsum(right))) / 2


def broyden_tridiagonal(x):  # (30)
    padded = jnp.pad(x, 1)
    return (3 - 2 * x) * x - padded[:-2] - 2 * padded[2:] + 1


def broyden_banded(x):  # (31)
    i = np.arange(x.size)
    below = i[:, None] - i
    band = (below <= 5) & (below >= -1) & (below != 0)
    return x * (2 + 5 * x**2) + 1 - _like(x, band) @ (x * (1 + x))


def linear_full_rank(x, m):  # (32)
    return jnp.pad(x, (0, m - x.size)) - 2 / m * jnp.sum(x) - 1


def linear_rank_1(x, m):  # (33)
    return _count(x, m) * jnp.sum(_count(x, x.size) * x) - 1


def linear_rank_1_zeros(x, m):  # (34)
    inner = jnp.sum(_count(x, x.size)[1:-1] * x[1:-1])
    return jnp.pad(_count(x, m - 2) * inner, 1) - 1


def chebyquad(x, m):  # (35)
    shifted, before = 2 * x - 1, jnp.ones_like(x)
    now, means = shifted, []
    for i in range(1, m + 1):
        means.append(jnp.mean(now) + (1 / (i * i - 1) if i % 2 == 0 else 0))
        before, now = now, 2 * shifted * now - before
    return jnp.stack(means)


def _grid_start(n):
    t = np.arange(1, n + 1) / (n + 1)
    return t * (t - 1)


def _fixed():
    """Number, residuals, start and minima of the problems of one size."""
    yield 1, rosenbrock, [-1.2, 1], (0,)
    yield 2, freudenstein_roth, [0.5, -2], (0, 48.9842)
    yield 3, powell_badly_scaled, [0, 1], (0,)
    yield 4, brown_badly_scaled, [1, 1], (0,)
    yield 5, beale, [1, 1], (0, 0.452008)  # the second, which the paper does not list, where x_1 goes to -infinity
    yield 6, jennrich_sampson, [0.3, 0.4], (124.362,)
    yield 7, helical_valley, [-1, 0, 0], (0,)
    yield 8, bard, [1, 1, 1], (8.21487e-3, 17.4286)
    yield 9, gaussian, [0.4, 1, 0], (1.12793e-8,)
    yield 10, meyer, [0.02, 4000, 250], (87.9458,)
    yield 11, gulf, [5, 2.5, 0.15], (0,)
    yield 12, box, [0, 10, 20], (0,)
    yield 13, powell_singular, [3, -1, 0, 1], (0,)
    yield 14, wood, [-3, -1, -3, -1], (0,)
    yield 15, kowalik_osborne, [0.25, 0.39, 0.415, 0.39], (3.07505e-4, 1.02734e-3)
    yield 16, brown_dennis, [25, 5, -5, -1], (85822.2,)
    yield 17, osborne_1, [0.5, 1.5, -1, 0.01, 0.02], (5.46489e-5,)
    yield 18, biggs, [1, 2, 1, 1, 1, 1], (0, 5.65565e-3)
    yield 19, osborne_2, [1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5], (4.01377e-2,)


def _of_size():
    """Number, residuals, n, start and minima of the problems with m determined by n."""
    for n, least in ((6, 2.28767e-3), (9, 1.39976e-6), (12, 4.72238e-10)):
        yield 20, watson, n, np.zeros(n), (least,)
    yield 21, extended_rosenbrock, 10, np.tile([-1.2, 1], 5), (0,)
    yield 22, extended_powell, 12, np.tile([3, -1, 0, 1], 3), (0,)
    for n, least in ((4, 2.24997e-5), (10, 7.08765e-5)):
        yield 23, penalty_1, n, np.arange(1, n + 1), (least,)
    for n, least in ((4, 9.37629e-6), (10, 2.93660e-4)):
        yield 24, penalty_2, n, np.full(n, 0.5), (least,)
    yield 25, variably_dimensioned, 10, 1 - np.arange(1, 11) / 10, (0,)
    yield 26, trigonometric, 10, np.full(10, 0.1), (0, 2.79506e-5)
    for n in (10, 30, 40):
        yield 27, brown_almost_linear, n, np.full(n, 0.5), (0, 1)
    yield 28, discrete_boundary_value, 10, _grid_start(10), (0,)
    yield 29, discrete_integral_equation, 10, _grid_start(10), (0,)
    yield 30, broyden_tridiagonal, 10, np.full(10, -1), (0,)
    yield 31, broyden_banded, 10, np.full(10, -1), (0,)


def _of_sizes():
    """Number, residuals, n, m, start and minima of the problems with any m >= n."""
    for m in (10, 50):
        yield 32, linear_full_rank, 5, m, np.ones(5), (m - 5,)
        yield 33, linear_rank_1, 5, m, np.ones(5), (m * (m - 1) / (2 * (2 * m + 1)),)
        yield 34, linear_rank_1_zeros, 5, m, np.ones(5), ((m * m + 3 * m - 6) / (2 * (2 * m - 3)),)
    # The paper has none for n = 1, and for n = 10 only the second one.
    for n, m, minima in (
        (1, 8, (3.06652, 3.55039)),
        (8, 8, (3.51687e-3,)),
        (9, 9, (0,)),
        (10, 10, (4.77271e-3, 6.50395e-3)),
    ):
        yield 35, chebyquad, n, m, np.arange(1, n + 1) / (n + 1), minima


def problems():
    """All problems with their sizes, by name."""
    rows = [(number, fun, fun.__name__, start, minima) for number, fun, start, minima in _fixed()]
    rows += [(number, fun, f"{fun.__name__} {n}", start, minima) for number, fun, n, start, minima in _of_size()]
    rows += [
        (number, functools.partial(fun, m=m), f"{fun.__name__} {n}x{m}", start, minima)
        for number, fun, n, m, start, minima in _of_sizes()
    ]
    found = [
        Problem(number, name, fun, np.asarray(start, float), tuple(map(float, minima)))
        for number, fun, name, start, minima in rows
    ]
    return {problem.name: problem for problem in sorted(found, key=lambda problem: problem.number)}
