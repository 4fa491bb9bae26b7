"""Objective functions with their starts and known minima, and a recorder of evaluations.

Every function works in the dtype of its x: what is constant in it is cast. References:

- J. J. Moré, B. S. Garbow and K. E. Hillstrom, ACM Trans. Math. Software 7 (1981), 17-41: rosenbrock,
  beale, powell, helical, wood, box3d, brown_badly_scaled, variably_dimensioned, broyden_tridiagonal;
- M. Jamil and X.-S. Yang, Int. J. Math. Model. Numer. Optim. 4 (2013), 150-194: zakharov.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmin._cache.registry import entries
from jaxmin._core.protocol import RESIDUALS

# Every method for one number without constraints, with every search, or with None where it takes none.
PAIRS = [
    (name, search)
    for name, entry in entries("methods").items()
    if not entry.build().wants & {"constraints", *RESIDUALS}
    for search in (entries("linesearches") if entry.takes_search else (None,))
]
# The optimizers of jax.example_libraries, with a rate and what else they need.
OPTIMIZERS = {
    "sgd": (0.1,),
    "momentum": (0.05, 0.9),
    "nesterov": (0.05, 0.9),
    "adagrad": (0.5,),
    "rmsprop": (0.05,),
    "rmsprop_momentum": (0.01,),
    "adam": (0.1,),
    "adamax": (0.1,),
    "sm3": (0.5,),
}


class Problem(NamedTuple):
    """One problem."""

    fun: Callable
    x0: Any
    minima: tuple  # the values of fun at its minima
    nfev: int  # as many evaluations are enough for the default method in either dtype


def like(x, numbers):
    """The numbers as an array in the dtype of x."""
    return jnp.asarray(numbers, x.dtype)


def recorded(fun):
    """fun with a list of the points at which the compiled program evaluates it, in order."""
    points = []

    def recording(x, *args):
        jax.debug.callback(lambda x: points.append(jax.tree.map(np.array, x)), x, ordered=True)
        return fun(x, *args)

    return recording, points


# ---- functions


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def beale(x):
    a, b = x
    return (1.5 - a + a * b) ** 2 + (2.25 - a + a * b**2) ** 2 + (2.625 - a + a * b**3) ** 2


def powell(x):
    """Powell's singular function: the Hessian at the minimum has rank 2."""
    a, b, c, d = x
    return (a + 10 * b) ** 2 + 5 * (c - d) ** 2 + (b - 2 * c) ** 4 + 10 * (a - d) ** 4


def barrier(x):
    """A logarithmic barrier: NaN for x < 0, and the minimum is close to the border."""
    return jnp.sum(1e4 * x - jnp.log(x))


def ill_conditioned(x):
    """A quadratic with the curvatures 1 to 1e6."""
    return jnp.sum(like(x, np.logspace(0, 6, 10)) * (x - 1) ** 2) / 2


def zakharov(x):
    s = jnp.sum(like(x, np.arange(1, x.size + 1)) * x) / 2
    return jnp.sum(x**2) + s**2 + s**4


def shifted(x):
    """The squared distance to -y, whole numbers in y."""
    return jnp.sum((x + like(x, [2, 3, 4, 5, 6])) ** 2)


def helical(x):
    """Helical valley."""
    theta = jnp.arctan2(x[1], x[0]) / (2 * jnp.pi)
    return 100 * ((x[2] - 10 * theta) ** 2 + (jnp.hypot(x[0], x[1]) - 1) ** 2) + x[2] ** 2


def wood(x):
    a, b, c, d = x
    first = 100 * (b - a**2) ** 2 + (1 - a) ** 2 + 90 * (d - c**2) ** 2 + (1 - c) ** 2
    return first + 10.1 * ((b - 1) ** 2 + (d - 1) ** 2) + 19.8 * (b - 1) * (d - 1)


def box3d(x):
    """Box's three exponentials; f = 0 on the line x0 = x1, x2 = 0 too."""
    t = np.arange(1, 11) / 10
    known = like(x, np.exp(-t) - np.exp(-10 * t))
    t = like(x, t)
    return jnp.sum((jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * known) ** 2)


def brown_badly_scaled(x):
    return (x[0] - 1e6) ** 2 + (x[1] - 2e-6) ** 2 + (x[0] * x[1] - 2) ** 2


def variably_dimensioned(x):
    s = jnp.sum(like(x, np.arange(1, x.size + 1)) * (x - 1))
    return jnp.sum((x - 1) ** 2) + s**2 + s**4


def broyden_tridiagonal(x):
    zero = jnp.zeros(1, x.dtype)
    left, right = jnp.concatenate([zero, x[:-1]]), jnp.concatenate([x[1:], zero])
    return jnp.sum(((3 - 2 * x) * x - left - 2 * right + 1) ** 2)


_rng = np.random.default_rng(0)
FEATURES = _rng.normal(size=(200, 5))
LABELS = np.where(FEATURES.sum(axis=1) + _rng.normal(size=200) > 0, 1, -1)


def logistic_regression(w):
    margins = like(w, LABELS) * (like(w, FEATURES) @ w)
    return jnp.mean(jnp.logaddexp(0, -margins)) + 1e-3 * jnp.sum(w**2)


def exponential_fit(p):
    """A decay with an offset to data without noise: f = 0 at (2, 1.3, 0.5)."""
    t = np.linspace(0, 4, 30)
    y = like(p, 2 * np.exp(-1.3 * t) + 0.5)
    return jnp.sum((p[0] * jnp.exp(-p[1] * like(p, t)) + p[2] - y) ** 2)


def cosh(x):
    return jnp.sum(jnp.cosh(x))


def sin_log(x):
    """Waves in a valley: a sum over the coordinates, each with many minima."""
    return jnp.sum(jnp.sin(x) + 0.01 * x**2 + jnp.log1p(x**2))


# ---- tables

# The lowest minima of sin x + 0.01 x^2 + log(1 + x^2).
_SIN_LOG = (-0.2553800393176463, 2.2288802728986402, 3.669593366019976, 4.931291902207807, 7.581107253664349)

# Those that the rules of the default method were tuned on, and on which the other libraries fail now and then.
REFERENCE = {
    "rosen2": Problem(rosenbrock, [-1.2, 1.0], (0.0,), 80),
    "rosen10": Problem(rosenbrock, [-1.2, 1.0] * 5, (0.0, 3.9865791123471), 200),
    "beale": Problem(beale, [1.0, 1.0], (0.0,), 40),
    "powell4": Problem(powell, [3.0, -1.0, 0.0, 1.0], (0.0,), 80),
    "barrier": Problem(barrier, [1.0], (1 + float(np.log(1e4)),), 150),
    "illcond": Problem(ill_conditioned, [0.0] * 10, (0.0,), 1000),
    "zakharov6": Problem(zakharov, [600.0, 700.0, 200.0, 100.0, 90.0, 1e4], (0.0,), 130),
    "seed000": Problem(shifted, [1.0] * 5, (0.0,), 4),
}
# Those that nothing was tuned on.
HELD_OUT = {
    "helical": Problem(helical, [-1.0, 0.0, 0.0], (0.0,), 60),
    "wood": Problem(wood, [-3.0, -1.0, -3.0, -1.0], (0.0,), 250),
    "box3d": Problem(box3d, [0.0, 10.0, 20.0], (0.0,), 100),
    "brown_badly_scaled": Problem(brown_badly_scaled, [1.0, 1.0], (0.0,), 80),
    "vardim10": Problem(variably_dimensioned, [1 - i / 10 for i in range(1, 11)], (0.0,), 50),
    "broyden_tridiagonal10": Problem(broyden_tridiagonal, [-1.0] * 10, (0.0,), 50),
    "logreg": Problem(logistic_regression, [0.0] * 5, (0.28140926343045763,), 30),
    "expfit": Problem(exponential_fit, [1.0, 0.1, 0.0], (0.0,), 50),
    "cosh": Problem(cosh, [20.0, -10.0, 5.0], (3.0,), 80),
    "sinlog": Problem(
        sin_log, [3.0, -4.0, 10.0], tuple(map(sum, itertools.combinations_with_replacement(_SIN_LOG, 3))), 30
    ),
}
ALL = REFERENCE | HELD_OUT


def one_in(k, first=0):
    """The names of all, each kth by default. The others, a program each, with `pytest -m slow`."""
    return [pytest.param(name, marks=() if i % k == first else pytest.mark.slow) for i, name in enumerate(ALL)]
