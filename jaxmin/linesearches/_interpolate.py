"""Points of phi on a line, and where the minimiser of the polynomial through two of them lies."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._core.protocol import Start


class Point(NamedTuple):
    """What is known of phi at one step length."""

    t: jax.Array  # []  the step length
    f: jax.Array  # []  phi(t) - phi(0): the difference keeps digits that the sum would lose
    g: jax.Array  # []  phi'(t)


def longest(start: Start) -> jax.Array:
    """The longest step allowed, as a finite number: inf - inf is no width."""
    return jnp.minimum(start.max_step, float(jnp.finfo(start.f.dtype).max)).astype(start.f.dtype)


def select(condition: jax.Array, p: Point, q: Point) -> Point:
    """``p`` where the condition holds, else ``q``."""
    return Point(*(jnp.where(condition, a, b) for a, b in zip(p, q, strict=True)))


def cubic(b: Point, o: Point) -> jax.Array:
    """Step to the minimiser of the cubic with the values and slopes of ``b`` and ``o``.

    The result is measured from ``b``, so ``b`` should be the end that the minimiser is thought to be
    nearer to. NaN where the cubic has no minimiser, or an end is not finite.
    """
    h = o.t - b.t
    theta = 3 * (b.f - o.f) / h + b.g + o.g
    s = jnp.maximum(jnp.abs(theta), jnp.maximum(jnp.abs(b.g), jnp.abs(o.g)))  # the squares stay near 1
    square = (theta / s) ** 2 - (b.g / s) * (o.g / s)
    gamma = jnp.sign(h) * s * jnp.where(square > 0, jnp.sqrt(square), jnp.nan)
    return b.t + h * ((gamma - b.g) + theta) / ((gamma - b.g) + gamma + o.g)


def secant(b: Point, o: Point) -> jax.Array:
    """Step at which the slope, linear between ``b`` and ``o``, vanishes; not finite where it never does."""
    return b.t - b.g * ((o.t - b.t) / (o.g - b.g))
