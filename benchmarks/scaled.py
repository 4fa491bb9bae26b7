"""Badly scaled fits in float32: how many of 100 end at the minimum, and what they claim."""

import collections

import jax
import jax.numpy as jnp
import numpy as np

import jaxmin

WAVELENGTHS, X = np.linspace(500, 560, 200), np.linspace(0, 100, 80)


def peak(p, x, y):
    """A Gaussian peak on a background, in raw counts."""
    return jnp.mean((p[0] * jnp.exp(-0.5 * ((x - p[1]) / p[2]) ** 2) + p[3] - y) ** 2)


def cubic(c, x, y):
    """A cubic over 0 to 100 in its raw coefficients: a condition of 1e12."""
    return jnp.mean((c[0] + c[1] * x + c[2] * x**2 + c[3] * x**3 - y) ** 2)


def scaled_cubic(u, x, y):
    """The same, f in units of the noise and the coefficients in millionths."""
    return 1e4 * cubic(u / 1e6, x, y)


def noisy_peak(rng):
    return 3e4 * np.exp(-0.5 * ((WAVELENGTHS - 532.3) / 1.7) ** 2) + 1e3 + rng.normal(0, 100, 200)


def noisy_parabola(rng):
    return 1e-3 * X**2 - 0.05 * X + 3 + rng.normal(0, 0.1, 80)


# fun, x, data, start, and a value that only fits near the minimum are below.
FITS = {
    "peak": (peak, WAVELENGTHS, noisy_peak, [2e4, 531.0, 3.0, 0.0], 2e4),
    "cubic": (cubic, X, noisy_parabola, [0.0] * 4, 0.02),
    "scaled cubic": (scaled_cubic, X, noisy_parabola, [0.0] * 4, 200),
}


def main():
    for name, (fun, x, data, start, good) in FITS.items():
        y = np.stack([data(np.random.default_rng(1000 + k)) for k in range(100)]).astype(np.float32)
        x, start = jnp.float32(x), jnp.float32(start)
        for method in ("lbfgs", "bfgs"):
            res = jax.jit(jax.vmap(lambda y: jaxmin.minimize(fun, start, args=(x, y), method=method)))(y)  # noqa: B023
            there = np.asarray(res.fun) < good
            false = int(np.sum(~there & res.success))
            statuses = dict(sorted(collections.Counter(res.status.tolist()).items()))
            print(
                f"{name:14}{method:7}{there.sum():4} of 100 at the minimum, {false} false successes, "
                f"median evaluations {int(np.median(res.nfev))}, statuses {statuses}"
            )


if __name__ == "__main__":
    main()
