"""Large problems: time of an iteration and memory of ``lbfgs``, against the least that its algorithm can do.

    python benchmarks/large.py
    python benchmarks/large.py --sizes 10000 1000000 --jsonl large.jsonl

The least is one evaluation of f with its gradient, and four products with the histories of m pairs: H g needs two with
S and two with Y. Memory is what XLA plans for the program (arguments, results and temporary arrays), in vectors like x;
two histories of 10 pairs are 20. float32, one thread; times are the least of several runs, of processor time.
"""

import argparse
import time

import one_thread  # isort: skip  # noqa: F401
import jax
import jax.numpy as jnp
import peers
import records
import speed

import jaxmin

PAIRS = 10
COLUMNS = ("n", "bounds", "iteration ms", "least ms", "ratio", "evaluation ms", "product ms", "vectors")


def least_time(run, repeats):
    """Seconds of processor time."""
    jax.block_until_ready(run())
    return min(speed.sample(run, 1, time.process_time) for _ in range(repeats))


def repeated(step, times):
    """``step`` (a vector from a vector) so many times, in one program."""
    return lambda x, *rest: jax.lax.fori_loop(0, times, lambda _, x: step(x, *rest), x)


def per_call(step, arguments, repeats, times=20):
    """Seconds of one step in a loop."""
    program = jax.jit(repeated(step, times)).lower(*arguments).compile()
    return least_time(lambda: program(*arguments), repeats) / times


def measure(n, bounded, options):
    y, args = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), speed.smoothing_start(n))
    bounds = jaxmin.Bounds(-1.0, 2.0) if bounded else None

    def solve(x0, args, maxiter):
        limits = {"gtol": 0.0, "maxiter": maxiter}
        res = jaxmin.minimize(speed.smoothing, x0, args, bounds=bounds, options=limits)
        return res.x, res.fun, res.nit, res.nfev

    program = jax.jit(solve).lower(y, args, 0).compile()
    few, many = (
        least_time(lambda k=k: program(y, args, k), options.repeats) for k in (PAIRS, PAIRS + options.iterations)
    )
    *_, nfev = program(y, args, PAIRS + options.iterations)
    evaluations = (int(nfev) - int(program(y, args, PAIRS)[3])) / options.iterations
    iteration = (many - few) / options.iterations

    evaluation = per_call(lambda x, *args: x - 1e-3 * jax.grad(speed.smoothing)(x, *args), (y, *args), options.repeats)
    rows = jnp.ones((PAIRS, n), jnp.float32) * 1e-3
    product = per_call(lambda x, rows: x + 1e-6 * (rows @ x)[0], (y, rows), options.repeats)
    least = evaluations * evaluation + 4 * product
    vectors = peers.planned(program) / y.nbytes
    row = (n, bounded, iteration, least, iteration / least, evaluation, product, vectors)
    return dict(zip(COLUMNS, row, strict=True)) | {"evaluations an iteration": evaluations}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**4, 10**5, 10**6, 10**7])
    parser.add_argument("--iterations", type=int, default=30, help="that are timed, after the first 10")
    parser.add_argument("--repeats", type=int, default=3)
    records.add_option(parser)
    options = parser.parse_args()
    setting = records.setting(clock="cpu", dtype="float32", gtol=0.0, repeats=options.repeats)
    writer = records.Writer(options.jsonl, setting)
    print("".join(f"{name:>15}" for name in COLUMNS))
    for n in options.sizes:
        for bounded in (False, True):
            row = measure(n, bounded, options)
            values = (row[name] * (1e3 if name.endswith("ms") else 1) for name in COLUMNS)
            cells = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)
            print("".join(f"{cell:>15}" for cell in cells), flush=True)
            writer.write(row)


if __name__ == "__main__":
    main()
