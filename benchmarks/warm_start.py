"""Evaluations along a path of ridge fits to real data: each fit from zeros, from the last one, and with its curvature.

    python benchmarks/warm_start.py

A polynomial is fitted to NIST's Chwirut2 (ultrasonic response against distance) with a weight on its coefficients that
falls from 1 to 1e-4 in 25 steps.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import jaxmin
from jaxmin.datasets import nist

STARTS = {"from zeros": "", "from the last": "x", "and its curvature": "xH"}


def objective(w, weight, features, response):
    return jnp.mean((features @ w - response) ** 2) + weight * w @ w


def path(keeps, method, features, response, weights):
    """Evaluations of the fits after the first, and the largest gradient norm at their ends."""
    total, norm, res = 0, 0.0, None
    for weight in weights:
        options, x0 = {"gtol": 1e-6}, jnp.zeros(features.shape[1])
        if res is not None and "x" in keeps:
            x0 = res.x
        if res is not None and "H" in keeps:
            options["warm_start"] = res
        following = jaxmin.minimize(objective, x0, (weight, features, response), method, options=options)
        total += 0 if res is None else int(following.nfev)
        res, norm = following, max(norm, float(jnp.abs(following.jac).max()))
    return total, norm


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--degrees", type=int, nargs="+", default=[8, 30])
    parser.add_argument("--methods", nargs="+", default=["lbfgs", "bfgs"])
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)

    data = nist.load("Chwirut2")
    distance = 2 * (data.x - data.x.min()) / (data.x.max() - data.x.min()) - 1
    response = jnp.asarray((data.y - data.y.mean()) / data.y.std())
    weights = np.geomspace(1, 1e-4, 25)
    print(f"{'degree':>6} {'method':>8}" + "".join(f"{name:>20}" for name in STARTS) + "   largest gradient")
    for degree in options.degrees:
        features = jnp.asarray(np.polynomial.chebyshev.chebvander(distance, degree))
        for method in options.methods:
            totals, norms = zip(*(path(keeps, method, features, response, weights) for keeps in STARTS.values()))
            print(f"{degree:6} {method:>8}" + "".join(f"{total:20}" for total in totals) + f"{max(norms):19.1e}")


if __name__ == "__main__":
    main()
