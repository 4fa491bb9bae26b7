"""What ``wolfe`` and ``hager_zhang`` share: points of phi, interpolation between two of them, and when to give up."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._core.protocol import Start


class Point(NamedTuple):
    """phi at one step length."""

    t: jax.Array  # []  the step length
    f: jax.Array  # []  phi(t) - phi(0): the difference keeps digits that the sum would lose
    g: jax.Array  # []  phi'(t)


class Trial(NamedTuple):
    """The trial just evaluated, compared with the start of the search."""

    point: Point  # f = inf outside the domain
    predicted: jax.Array  # [] t phi'(0)
    unbounded: jax.Array  # [] bool: phi(t) = -inf
    moved: jax.Array  # [] bool: the step changes x, downhill
    within: jax.Array  # [] bool: it moved x, and f rose by no more than the noise
    flat: jax.Array  # [] bool: the noise may hide the decrease, so the slopes give it
    sufficient: jax.Array  # [] bool: the step has the sufficient decrease


def measure(start: Start, point: Point, predicted: jax.Array, part: float, outside: jax.Array | float) -> Trial:
    """Compare phi at a trial with phi(0).

    Args:
      start: the start of the search.
      point: the step length, phi(t) itself and the slope, as they were evaluated.
      predicted: t phi'(0).
      part: the part of the predicted decrease that is sufficient.
      outside: the slope to assume outside the domain, where f or its slope is not finite.

    Returns:
      The ``Trial``.
    """
    t, f, slope = point
    noise = start.noise
    inside = jnp.isfinite(f) & jnp.isfinite(slope)
    unbounded = f == -jnp.inf
    f = jnp.where(inside, f - start.f, jnp.inf)
    g = jnp.where(inside, slope, outside)

    # Where the noise may hide the decrease, the trapezoid rule gives it from the slopes.
    moved = predicted < 0
    within = moved & (f <= noise)
    flat = within & (f >= -noise) & (-part * predicted <= noise)
    f = jnp.where(flat, predicted * (1 + g / start.slope) / 2, f)
    sufficient = moved & (f <= part * predicted)
    return Trial(Point(t, f, g), predicted, unbounded, moved, within, flat, sufficient)


def hopeless(trial: Trial, trials: jax.Array, noise: jax.Array) -> jax.Array:
    """Whether a shorter step can't succeed; always true in a direction that does not lead downhill.

    A step that promises less than the noise gets three more trials at most. If f still rises by more than the noise
    then, the noise is larger than it was given. If f is flat, exact slopes find a step within two or three trials.
    A step that does not change x is never shortened.
    """
    return ~(-trial.predicted > noise) & (~trial.moved | ((trials >= 4) & (~trial.within | (trial.point.g > 0))))


def collapsed(bracketed: jax.Array, width: jax.Array, longer: jax.Array) -> jax.Array:
    """Whether the bracket, whose longer end is ``longer``, is as narrow as rounding allows."""
    return bracketed & (width <= 4 * float(jnp.finfo(width.dtype).eps) * longer)


def longest(start: Start) -> jax.Array:
    """The longest step allowed, as a finite number: inf - inf would be NaN."""
    return jnp.minimum(start.max_step, float(jnp.finfo(start.f.dtype).max)).astype(start.f.dtype)


def select(condition: jax.Array, p: Point, q: Point) -> Point:
    """``p`` where the condition holds, else ``q``."""
    return Point(*(jnp.where(condition, a, b) for a, b in zip(p, q, strict=True)))


def cubic(b: Point, o: Point) -> jax.Array:
    """Step to the minimiser of the cubic with the values and slopes of ``b`` and ``o``.

    The result is measured from ``b``, so ``b`` should be the end that is likely to be nearer to the minimiser. It is
    NaN where the cubic has no minimiser, or an end is not finite.
    """
    h = o.t - b.t
    theta = 3 * (b.f - o.f) / h + b.g + o.g
    s = jnp.maximum(jnp.abs(theta), jnp.maximum(jnp.abs(b.g), jnp.abs(o.g)))  # the squares stay near 1
    square = (theta / s) ** 2 - (b.g / s) * (o.g / s)
    gamma = jnp.sign(h) * s * jnp.where(square > 0, jnp.sqrt(square), jnp.nan)
    return b.t + h * ((gamma - b.g) + theta) / ((gamma - b.g) + gamma + o.g)


def secant(b: Point, o: Point) -> jax.Array:
    """Step at which the slope, linear between ``b`` and ``o``, vanishes; not finite where it never vanishes."""
    return b.t - b.g * ((o.t - b.t) / (o.g - b.g))
