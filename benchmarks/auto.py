"""What it costs that ``lbfgs`` may be followed by Newton's method: ``lbfgs_newton`` beside ``lbfgs``, where both do the
same.

    python benchmarks/auto.py

Chains of Rosenbrock functions from random starts, a fixed number of iterations, float64, one thread, under ``jit`` and
in batches under ``vmap``. Times are the least of several runs in turn, of processor time; compilation is timed once.
"""

import time

import one_thread  # isort: skip  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
import speed

import jaxmin

jax.config.update("jax_enable_x64", True)

METHODS = ("lbfgs", "lbfgs_newton")
# (variables, iterations, lanes or None)
CASES = ((10, 50, None), (100, 200, None), (100_000, 200, None), (1_000_000, 50, None), (10, 60, 1000), (100, 100, 200))
ROUNDS, REPEATS = 3, 3


def chain(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def compiled(method, n, iterations, lanes):
    """(a run of the solve, seconds of processor time that its compilation took)."""

    def solve(x0):
        res = jaxmin.minimize(chain, x0, method=method, options={"maxiter": iterations, "gtol": 0.0})
        return res.x, res.nit, res.nfev

    x0 = np.random.default_rng(0).uniform(-2, 2, (n,) if lanes is None else (lanes, n))
    begin = time.process_time()
    program = jax.jit(solve if lanes is None else jax.vmap(solve)).lower(x0).compile()
    took = time.process_time() - begin
    return (lambda: program(x0)), took


def main():
    print("| variables | lanes | iterations | ratio of times | ratio of compile times |\n|---|---|---|---|---|")
    for n, iterations, lanes in CASES:
        runs = {method: compiled(method, n, iterations, lanes) for method in METHODS}
        for run, _ in runs.values():
            jax.block_until_ready(run())
        least = dict.fromkeys(METHODS, np.inf)
        for _ in range(ROUNDS * REPEATS):
            for method, (run, _) in runs.items():
                least[method] = min(least[method], speed.sample(run, 1, time.process_time))
        ratio = least["lbfgs_newton"] / least["lbfgs"]
        compile_ratio = runs["lbfgs_newton"][1] / runs["lbfgs"][1]
        print(f"| {n} | {lanes or 1} | {iterations} | {ratio:.2f} | {compile_ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()
