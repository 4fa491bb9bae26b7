"""The same fits by SciPy, if it is installed: MINPACK's loop, with compiled residuals and Jacobian."""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmin._demo.fit import agreeing_digits, residuals, seconds
from jaxmin.datasets._models import Model
from jaxmin.datasets.nist import Regression, model

# With SciPy's own, 1e-8 each, many of these fits end early. These are near what rounding allows.
TIGHT = {"xtol": 1e-12, "ftol": 1e-15, "gtol": 1e-15, "max_nfev": 5_000}


class Pair(NamedTuple):
    """SciPy's fits of one data set from both starts."""

    digits: tuple[float, ...]  # of the worst parameter, from each start
    loose: tuple[float, ...]  # the same with SciPy's default tolerances
    nfev: int  # evaluations from both starts
    first: float  # seconds of the first calls, with compilation of residuals and Jacobian
    second: float  # seconds of the same calls, once more


def is_installed() -> bool:
    return importlib.util.find_spec("scipy") is not None


@functools.cache
def _compiled(curve: Model) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The residuals and their Jacobian."""
    return jax.jit(residuals(curve)), jax.jit(jax.jacfwd(residuals(curve)))


def fit_both(data: Regression) -> Pair:
    """Fit a data set from both starts, twice, and once more with SciPy's default tolerances."""
    from scipy.optimize import least_squares

    fun, jac = _compiled(model(data.name))
    x, y = jax.device_put((data.x, data.y))  # once: otherwise each evaluation copies them

    def fit(start: np.ndarray, **tolerances: Any) -> Any:
        settings = {"method": "lm", "x_scale": "jac", **tolerances}  # MINPACK's scaling, as in curve_fit
        return least_squares(lambda b: np.asarray(fun(b, x, y)), start, lambda b: np.asarray(jac(b, x, y)), **settings)

    both = lambda: [fit(start, **TIGHT) for start in data.starts]
    tight, first = seconds(both)
    _, second = seconds(both)
    digits = lambda fits: tuple(float(agreeing_digits(res.x, data.certified).min()) for res in fits)
    loose = digits([fit(start) for start in data.starts])
    return Pair(digits(tight), loose, sum(res.nfev for res in tight), first, second)
