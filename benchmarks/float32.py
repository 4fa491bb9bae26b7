"""float32: how many good answers say success, and whether a wrong one does.

    python benchmarks/float32.py
    python benchmarks/float32.py --methods lbfgs bfgs --problems 1000 --jsonl float32.jsonl

Many problems of each kind are solved in float32 with the default options. Each answer is judged in float64: f at the
point, against the minimum that a float64 solve reaches from there. An answer is good within 1e-5 max(1, |f|) of the
minimum, and wrong beyond 1e-3. Printed are the good ones, those of them that say success, and the wrong ones that do.
"""

import argparse
import collections
from typing import Any, NamedTuple

import one_thread  # isort: skip  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
import records

import jaxmin

GOOD, WRONG = 1e-5, 1e-3
METHODS = ("lbfgs", "bfgs", "trust_ncg")


class Kind(NamedTuple):
    fun: Any  # (x, data) -> f
    x0: Any  # [n]
    data: Any  # arrays [problems, ...]


def spectra(rng, count):
    """Chi-square fits of a line on a constant: 100 channels, noise 0.05, four parameters."""
    at = np.linspace(-5, 5, 100)
    true = [rng.uniform(*ends, (count, 1)) for ends in ((1, 10), (-1, 1), (0.5, 2), (0, 1))]
    line = lambda p, at: p[0] * jnp.exp(-0.5 * ((at - p[1]) / p[2]) ** 2) + p[3]
    y = np.asarray(line(true, at)) + 0.05 * rng.standard_normal((count, at.size))
    return Kind(lambda p, y: jnp.sum((line(p, at.astype(y.dtype)) - y) ** 2) / 0.05**2, [3.0, 0, 1, 0], y)


def posterior(rng, count):
    """The largest density of a model in levels: 8 groups of 20 rows, their means, a slope, three log scales."""
    t = rng.standard_normal((count, 8, 20))
    y = 2 + rng.standard_normal((count, 8, 1)) + 0.7 * t + 0.5 * rng.standard_normal(t.shape)

    def fun(p, data):
        t, y = data
        means, slope, mean, log_noise, log_spread = p[:8], p[8], p[9], p[10], p[11]
        noise = 0.5 * jnp.sum(((y - means[:, None] - slope * t) / jnp.exp(log_noise)) ** 2) + y.size * log_noise
        spread = 0.5 * jnp.sum(((means - mean) / jnp.exp(log_spread)) ** 2) + 8 * log_spread
        prior = 0.5 * (slope**2 + mean**2 / 100) + 0.5 * (log_noise**2 + (log_spread / 0.5) ** 2)
        return noise + spread + prior

    return Kind(fun, np.zeros(12), (t, y))


def logistic(rng, count):
    """Logistic regressions on raw scores of 30 to 100: two columns and a constant, 100 rows."""
    scores = rng.uniform(30, 100, (count, 100, 2))
    chance = 1 / (1 + np.exp(-(scores.sum(-1) - 130) / 10))
    passed = (rng.uniform(size=chance.shape) < chance).astype(float)

    def fun(w, data):
        scores, passed = data
        z = scores @ w[:2] + w[2]
        return jnp.sum(jnp.logaddexp(0, z) - passed * z)

    return Kind(fun, np.zeros(3), (scores, passed))


def poisson(rng, count):
    """Poisson regressions: 300 counts, five columns of different scale."""
    rows = rng.standard_normal((count, 300, 5)) * np.array([1, 0.1, 10, 3, 0.3])
    rate = np.exp(1 + rows @ (np.array([0.3, 2, 0.02, -0.1, 1])))
    counts = rng.poisson(np.minimum(rate, 1e4)).astype(float)

    def fun(w, data):
        rows, counts = data
        log_rate = rows @ w[:5] + w[5]
        return jnp.sum(jnp.exp(log_rate) - counts * log_rate)

    return Kind(fun, np.zeros(6), (rows, counts))


KINDS = {"spectra": spectra, "posterior": posterior, "logistic": logistic, "poisson": poisson}


def measure(kind, method):
    """One record: how the answers and what they say go together."""
    x0 = np.asarray(kind.x0, np.float32)
    narrow = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), kind.data)
    solve = lambda data: jaxmin.minimize(kind.fun, x0, (data,), method)
    res = jax.jit(jax.vmap(solve))(narrow)

    # What float32 has made of the data is the problem.
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), narrow)
    x = np.asarray(res.x, np.float64)
    best = jax.jit(jax.vmap(lambda x, data: jaxmin.minimize(kind.fun, x, (data,), "lbfgs", options={"gtol": 1e-9}).fun))
    f = np.asarray(jax.vmap(kind.fun)(x, wide))
    gap = (f - np.minimum(f, best(x, wide))) / np.maximum(1, np.abs(f))
    success = np.asarray(res.success)
    statuses = collections.Counter(np.asarray(res.status).tolist())
    return {
        "solves": f.size,
        "good": int(np.sum(gap <= GOOD)),
        "good and success": int(np.sum((gap <= GOOD) & success)),
        "wrong": int(np.sum(~(gap <= WRONG))),
        "wrong and success": int(np.sum(~(gap <= WRONG) & success)),
        "statuses": {jaxmin.Status(code).name: n for code, n in sorted(statuses.items())},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--problems", type=int, default=10_000)
    records.add_option(parser)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    file = records.Writer(options.jsonl, records.setting(problems=options.problems))
    print(f"{'kind':<12}{'method':<12}{'good':>8}{'success':>9}{'wrong':>7}{'success':>9}   statuses")
    for name in options.kinds:
        kind = KINDS[name](np.random.default_rng(0), options.problems)
        for method in options.methods:
            row = measure(kind, method)
            file.write({"kind": name, "method": method, **row})
            counts = f"{row['good']:>8}{row['good and success']:>9}{row['wrong']:>7}{row['wrong and success']:>9}"
            print(f"{name:<12}{method:<12}{counts}   {row['statuses']}", flush=True)


if __name__ == "__main__":
    main()
