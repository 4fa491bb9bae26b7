"""A certified regression, fitted from both of its official starts."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxmin
from jaxmin.datasets._models import Model
from jaxmin.datasets.nist import Regression, model

ENOUGH = 6  # digits that count as agreement
CERTIFIED_DIGITS = 11


class Fit(NamedTuple):
    """The fit from one start."""

    res: jaxmin.OptimizeResult
    errors: np.ndarray  # [p] standard errors
    digits: float  # of the worst parameter
    error_digits: float  # of the worst standard error


class Pair(NamedTuple):
    """The fits of one data set from both starts."""

    data: Regression
    fits: tuple[Fit, ...]
    first: float  # seconds of the first calls, with compilation
    second: float  # seconds of the same calls, once more


def residuals(curve: Model) -> Callable[..., jax.Array]:
    return lambda b, x, y: curve(b, x) - y


@functools.cache  # one function for each model: jit compiles it once for each shape of start and data
def program(curve: Model) -> Callable[..., tuple[jaxmin.OptimizeResult, jax.Array]]:
    """(start, x, y) -> the result and the standard errors, as one compiled program."""

    def fit(start: Any, x: Any, y: Any) -> tuple[jaxmin.OptimizeResult, jax.Array]:
        res = jaxmin.minimize(residuals(curve), start, args=(x, y), method="levenberg_marquardt")
        return res, res.standard_errors()

    return jax.jit(fit)


def agreeing_digits(found: Any, certified: Any) -> np.ndarray:
    """Decimal digits that agree, by the relative error: from 0 to 11, as many as NIST gives."""
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = -np.log10(np.abs(found - certified) / np.abs(certified))
    digits = np.nan_to_num(digits, nan=0.0, posinf=CERTIFIED_DIGITS)
    return np.clip(digits, 0.0, CERTIFIED_DIGITS)


def seconds(call: Callable[[], Any]) -> tuple[Any, float]:
    """Call `call` once; return its result, and the seconds until it was ready."""
    begin = time.perf_counter()
    answer = jax.block_until_ready(call())
    return answer, time.perf_counter() - begin


def fit_both(data: Regression) -> Pair:
    """Fit a data set from both starts, twice: the second time shows what a compiled program takes."""
    call = lambda: [program(model(data.name))(start, data.x, data.y) for start in data.starts]
    answers, first = seconds(call)
    _, second = seconds(call)
    return Pair(data, tuple(_judged(data, *answer) for answer in answers), first, second)


def _judged(data: Regression, res: jaxmin.OptimizeResult, errors: jax.Array) -> Fit:
    """The fit, compared with the certified values."""
    b, spread = np.asarray(res.x), np.asarray(errors)
    digits = agreeing_digits(b, data.certified), agreeing_digits(spread, data.deviation)
    return Fit(res, spread, *(float(each.min()) for each in digits))
