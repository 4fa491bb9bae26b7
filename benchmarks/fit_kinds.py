"""Kinds of fits that many make: models, parameters drawn at random, and data of them with noise."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Kind(NamedTuple):
    model: Any  # (b [p], t [m]) -> [m], in the dtype of both
    t: Any  # [m]
    truth: Any  # [fits, p]
    noise: Any  # the standard deviation of y, a number, or a function of the model
    start: Any  # [p]
    bounds: Any = None  # None or (lower [p], upper [p])

    def data(self, rng):
        """y [fits, m] and its standard deviations [fits, m]."""
        mean = np.asarray(jax.vmap(lambda b: self.model(b, jnp.asarray(self.t)))(jnp.asarray(self.truth)))
        sigma = np.broadcast_to(self.noise(mean) if callable(self.noise) else self.noise, mean.shape)
        return mean + sigma * rng.normal(size=mean.shape), sigma


def uniform(rng, count, *ends):
    """[count, p] numbers, each column between its own ends."""
    return np.stack([rng.uniform(*pair, count) for pair in ends], axis=1)


def peaks(rng, count):
    """Three Gaussians with bounds: nine parameters, 100 points."""
    sizes, centres = ((0.5, 2.0),) * 3, ((0.15, 0.25), (0.45, 0.55), (0.75, 0.85))
    truth = uniform(rng, count, *sizes, *centres, *((0.04, 0.1),) * 3)
    model = lambda b, t: sum(b[i] * jnp.exp(-0.5 * ((t - b[3 + i]) / b[6 + i]) ** 2) for i in range(3))
    start = np.array([1, 1, 1, 0.2, 0.5, 0.8, 0.07, 0.07, 0.07])
    lower, upper = [0, 0, 0, 0, 0.3, 0.6, 0.01, 0.01, 0.01], [5, 5, 5, 0.4, 0.7, 1, 0.3, 0.3, 0.3]
    return Kind(model, np.linspace(0, 1, 100), truth, 0.02, start, (np.array(lower), np.array(upper)))


def decay(rng, count):
    """An exponential on a constant: three parameters, 60 points."""
    truth = uniform(rng, count, (1, 3), (0.2, 1), (-0.5, 0.5))
    return Kind(lambda b, t: b[0] * jnp.exp(-b[1] * t) + b[2], np.linspace(0, 10, 60), truth, 0.05, np.ones(3))


def line(rng, count):
    """Counts of a Lorentzian line on a sloping ground, by channel: five parameters of 0.01 to 10,000, 200 points."""
    truth = uniform(rng, count, (1e3, 1e4), (480, 520), (8, 20), (100, 300), (-0.05, 0.05))
    model = lambda b, t: b[0] / (1 + ((t - b[1]) / b[2]) ** 2) + b[3] + b[4] * (t - 500)
    return Kind(model, np.linspace(400, 600, 200), truth, np.sqrt, np.array([5e3, 500, 12, 200, 0]))


def dose(rng, count):
    """The response to a dose in percent, a logistic curve of its logarithm: four parameters, 40 points."""
    truth = uniform(rng, count, (0, 10), (80, 110), (-7, -5), (0.7, 2))
    model = lambda b, t: b[0] + (b[1] - b[0]) / (1 + 10.0 ** (b[3] * (b[2] - t)))
    return Kind(model, np.linspace(-9, -3, 40), truth, 3.0, np.array([0, 100, -6, 1]))


def ringing(rng, count):
    """A damped wave on a constant: five parameters, 150 points."""
    truth = uniform(rng, count, (1, 3), (0.1, 0.5), (2.8, 3.2), (-0.5, 0.5), (10, 20))
    model = lambda b, t: b[0] * jnp.exp(-b[1] * t) * jnp.cos(b[2] * t + b[3]) + b[4]
    return Kind(model, np.linspace(0, 10, 150), truth, 0.1, np.array([2, 0.3, 3, 0, 15]))


def faint(rng, count):
    """A Gaussian line as high as the noise, on a ground of 100: four parameters, 100 points; some have no minimum."""
    truth = uniform(rng, count, (0.5, 2), (-2, 2), (0.3, 1), (99, 101))
    model = lambda b, t: b[0] * jnp.exp(-0.5 * ((t - b[1]) / b[2]) ** 2) + b[3]
    return Kind(model, np.linspace(-5, 5, 100), truth, 1.0, np.array([1, 0, 0.6, 100]))


KINDS = {"peaks": peaks, "decay": decay, "line": line, "dose": dose, "ringing": ringing, "faint": faint}
