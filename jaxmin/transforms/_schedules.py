"""Schedules: the learning rate as a function of the iteration index, which counts from 0."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._cache.builder import builder

# A learning rate as a function of the iteration index, and every form that a learning rate may have.
Schedule = Callable[[Any], Any]
Rate = float | jax.Array | Schedule


@builder
def constant(step_size: float | jax.Array) -> Schedule:
    """The same rate at every iteration.

    Args:
      step_size: the rate, a number or a traced scalar.

    Returns:
      A schedule: a function of the iteration index.

    Raises:
      TypeError: if step_size is neither a number nor a traced scalar.

    >>> from jaxmin.transforms import constant
    >>> constant(0.5)(7)
    0.5

    References:
      H. Robbins and S. Monro, Ann. Math. Statist. 22 (1951), 400-407.
    """
    return lambda i: step_size


@builder
def exponential_decay(step_size: float | jax.Array, decay_steps: float, decay_rate: float) -> Schedule:
    """The rate changes by the factor decay_rate in decay_steps iterations: step_size decay_rate^(i / decay_steps).

    Args:
      step_size: the rate at i = 0, a number or a traced scalar.
      decay_steps: a number of iterations, > 0.
      decay_rate: the factor, > 0.

    Returns:
      A schedule: a function of the iteration index.

    Raises:
      ValueError: if decay_steps or decay_rate is not > 0.
      TypeError: for an argument of another type.

    >>> from jaxmin.transforms import exponential_decay
    >>> exponential_decay(1.0, 10, 0.5)(20)
    0.25

    References:
      Y. Bengio, Practical recommendations for gradient-based training of deep architectures, 2012, Section 3.1.1.
    """
    _check_steps(decay_steps)
    if not decay_rate > 0:
        raise ValueError(f"decay_rate={decay_rate!r}: give a factor > 0")
    return lambda i: step_size * decay_rate ** (i / decay_steps)


@builder
def inverse_time_decay(
    step_size: float | jax.Array, decay_steps: float, decay_rate: float, staircase: bool = False
) -> Schedule:
    """The rate falls as the inverse of time: step_size / (1 + decay_rate i / decay_steps).

    Args:
      step_size: the rate at i = 0, a number or a traced scalar.
      decay_steps: a number of iterations, > 0.
      decay_rate: the decrease of 1 / rate in decay_steps iterations, relative to 1 / step_size, >= 0.
      staircase: True uses the integer part of i / decay_steps, so that the rate falls in jumps; False by default.

    Returns:
      A schedule: a function of the iteration index.

    Raises:
      ValueError: if decay_steps is not > 0, or decay_rate is negative.
      TypeError: for an argument of another type.

    >>> from jaxmin.transforms import inverse_time_decay
    >>> inverse_time_decay(1.0, 10, 1.0)(10)
    0.5

    References:
      H. Robbins and S. Monro, Ann. Math. Statist. 22 (1951), 400-407, eqs. (6), (26).
    """
    _check_steps(decay_steps)
    if not decay_rate >= 0:
        raise ValueError(f"decay_rate={decay_rate!r}: give a number >= 0")
    if staircase:
        return lambda i: step_size / (1 + decay_rate * jnp.floor(i / decay_steps))
    return lambda i: step_size / (1 + decay_rate * i / decay_steps)


@builder
def polynomial_decay(
    step_size: float | jax.Array, decay_steps: float, final_step_size: float | jax.Array, power: float = 1.0
) -> Schedule:
    """The rate falls from step_size to final_step_size as (1 - i / decay_steps)^power, and stays there.

    Args:
      step_size: the rate at i = 0, a number or a traced scalar.
      decay_steps: a number of iterations, > 0.
      final_step_size: the rate from i = decay_steps on, a number or a traced scalar.
      power: the exponent, >= 0; 1.0 by default.

    Returns:
      A schedule: a function of the iteration index.

    Raises:
      ValueError: if decay_steps is not > 0, or power is negative.
      TypeError: for an argument of another type.

    >>> from jaxmin.transforms import polynomial_decay
    >>> print(polynomial_decay(1.0, 10, 0.0, power=2.0)(5), polynomial_decay(1.0, 10, 0.5)(15))
    0.25 0.5

    References:
      W. Liu, A. Rabinovich and A. C. Berg, ParseNet, arXiv:1506.04579 (2015), Section 4.1 ("poly").
    """
    _check_steps(decay_steps)
    if not power >= 0:
        raise ValueError(f"power={power!r}: give a number >= 0")

    def schedule(i: Any) -> Any:
        rest = (1 - jnp.minimum(i, decay_steps) / decay_steps) ** power
        return rest * (step_size - final_step_size) + final_step_size

    return schedule


def piecewise_constant(
    boundaries: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray
) -> Callable[[Any], jax.Array]:
    """The rate is the first value up to and including the first boundary, then the second one, and so on.

    Args:
      boundaries: iteration indices, a sequence of n numbers.
      values: the rates, a sequence of n + 1 numbers.

    Returns:
      A schedule: a function of the iteration index.

    Raises:
      ValueError: if one of the two is not a sequence, or their lengths do not fit.
      TypeError: if they do not hold numbers, or are traced.

    >>> from jaxmin.transforms import piecewise_constant
    >>> schedule = piecewise_constant([5, 10], [1.0, 0.5, 0.1])
    >>> print(schedule(5), schedule(6))
    1.0 0.5

    References:
      A. Krizhevsky, I. Sutskever and G. E. Hinton, NIPS 2012, Section 5: divided by 10 when progress stops.
    """
    given = f"boundaries={boundaries!r}, values={values!r}"
    try:
        ends, rates = np.asarray(boundaries, float), np.asarray(values, float)
    except (TypeError, ValueError):
        raise TypeError(f"{given}: give two sequences of numbers that are known while compiling (not traced)") from None
    if not ends.ndim == rates.ndim == 1:
        raise ValueError(f"{given}: give two sequences of numbers")
    if len(ends) != len(rates) - 1:
        raise ValueError(f"{given}: give one boundary fewer than values")
    return _piecewise_constant(tuple(ends.tolist()), tuple(rates.tolist()))


@functools.lru_cache(maxsize=256)
def _piecewise_constant(boundaries: tuple[float, ...], values: tuple[float, ...]) -> Callable[[Any], jax.Array]:
    return lambda i: jnp.asarray(values)[sum(i > boundary for boundary in boundaries)]


@builder
def make_schedule(learning_rate: Rate) -> Schedule:
    """Turn a rate into a schedule: a schedule is returned unchanged, a number is used at every iteration.

    Args:
      learning_rate: a number, a traced scalar, or a callable of the iteration index.

    Returns:
      A schedule: a function of the iteration index.

    Raises:
      TypeError: for a learning_rate of another type.

    >>> from jaxmin.transforms import make_schedule
    >>> make_schedule(0.5)(3), make_schedule(lambda i: 1 / (1 + i))(3)
    (0.5, 0.25)

    References:
      The function of the same name in ``jax.example_libraries.optimizers``.
    """
    return learning_rate if callable(learning_rate) else constant(learning_rate)


def _check_steps(decay_steps: float) -> None:
    if not decay_steps > 0:
        raise ValueError(f"decay_steps={decay_steps!r}: give a number of iterations > 0")
