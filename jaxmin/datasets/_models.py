"""The models of NIST's nonlinear regressions: the mean of the response at x, for parameters b."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

Model: TypeAlias = Callable[[Any, Any], jax.Array]


def _saturation(b: Any, x: Any) -> jax.Array:
    return b[0] * (1 - jnp.exp(-b[1] * x))


def _chwirut(b: Any, x: Any) -> jax.Array:
    return jnp.exp(-b[0] * x) / (b[1] + b[2] * x)


def _two_peaks(b: Any, x: Any) -> jax.Array:
    peak = lambda height, centre, width: height * jnp.exp(-(((x - centre) / width) ** 2))
    return b[0] * jnp.exp(-b[1] * x) + peak(*b[2:5]) + peak(*b[5:8])


def _three_exponentials(b: Any, x: Any) -> jax.Array:
    return b[0] * jnp.exp(-b[1] * x) + b[2] * jnp.exp(-b[3] * x) + b[4] * jnp.exp(-b[5] * x)


def _cubic_ratio(b: Any, x: Any) -> jax.Array:
    return jnp.polyval(b[3::-1], x) / (1 + x * jnp.polyval(b[:3:-1], x))


def _enso(b: Any, x: Any) -> jax.Array:
    cycle = lambda period, c, s: c * jnp.cos(2 * jnp.pi * x / period) + s * jnp.sin(2 * jnp.pi * x / period)
    return b[0] + cycle(12, b[1], b[2]) + cycle(b[3], b[4], b[5]) + cycle(b[6], b[7], b[8])


MODELS: dict[str, Model] = {
    "Misra1a": _saturation,
    "Chwirut2": _chwirut,
    "MGH17": lambda b, x: b[0] + b[1] * jnp.exp(-x * b[3]) + b[2] * jnp.exp(-x * b[4]),
    "Eckerle4": lambda b, x: b[0] / b[1] * jnp.exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
    "MGH09": lambda b, x: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
    "Thurber": _cubic_ratio,
    "BoxBOD": _saturation,
    "Rat43": lambda b, x: b[0] / (1 + jnp.exp(b[1] - b[2] * x)) ** (1 / b[3]),
    "Bennett5": lambda b, x: b[0] * (b[1] + x) ** (-1 / b[2]),
    "Chwirut1": _chwirut,
    "DanWood": lambda b, x: b[0] * x ** b[1],
    "ENSO": _enso,
    "Gauss1": _two_peaks,
    "Gauss2": _two_peaks,
    "Gauss3": _two_peaks,
    "Hahn1": _cubic_ratio,
    "Kirby2": lambda b, x: (b[0] + b[1] * x + b[2] * x**2) / (1 + b[3] * x + b[4] * x**2),
    "Lanczos1": _three_exponentials,
    "Lanczos2": _three_exponentials,
    "Lanczos3": _three_exponentials,
    "MGH10": lambda b, x: b[0] * jnp.exp(b[1] / (x + b[2])),
    "Misra1b": lambda b, x: b[0] * (1 - (1 + b[1] * x / 2) ** -2),
    "Misra1c": lambda b, x: b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5),
    "Misra1d": lambda b, x: b[0] * b[1] * x / (1 + b[1] * x),
    "Nelson": lambda b, x: b[0] - b[1] * x[:, 0] * jnp.exp(-b[2] * x[:, 1]),
    "Rat42": lambda b, x: b[0] / (1 + jnp.exp(b[1] - b[2] * x)),
    "Roszman1": lambda b, x: b[0] - b[1] * x - jnp.arctan(b[2] / (x - b[3])) / jnp.pi,
}
