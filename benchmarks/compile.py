"""How long the first answer takes: compilation against the size of f, of jaxmin and its peers.

    python benchmarks/compile.py
    python benchmarks/compile.py --functions network scan --solvers "jaxmin lbfgs" "optax lbfgs" --jsonl compile.jsonl

Each solver is traced and compiled from nothing, several times, without a persistent cache; the least processor time
counts. "over f" is the ratio to f and its gradient alone, compiled the same way; "added" is the difference.
"""

import argparse
import time
from typing import Any, NamedTuple

import one_thread  # isort: skip  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
import peers
import records
import speed
from jax.flatten_util import ravel_pytree

import jaxmin

FLOOR = "value and gradient"
COLUMNS = ("function", "solver", "seconds", "over f", "added", "over ours")


class Function(NamedTuple):
    fun: Any
    x0: Any  # [n]


def rosenbrock(n):
    x0, _ = speed.rosenbrock_start(n)
    return Function(speed.rosenbrock, jnp.asarray(x0))


def network():
    """A residual network of 24 layers of 32 units, on 64 rows."""
    rng = np.random.default_rng(0)
    rows = jnp.asarray(rng.standard_normal((64, 32)), jnp.float32)
    flat, unravel = ravel_pytree([jnp.asarray(0.2 * rng.standard_normal((32, 32)), jnp.float32) for _ in range(24)])

    def fun(x):
        h = rows
        for W in unravel(x):
            h = h + jnp.tanh(h @ W)
        return jnp.mean((h - 1) ** 2)

    return Function(fun, flat)


def scan():
    """200 Euler steps of predator and prey, four parameters."""
    wanted = jnp.sin(jnp.arange(200.0))[:, None]

    def fun(p):
        def step(y, _):
            y = y + 0.02 * jnp.stack([p[0] * y[0] - p[1] * y[0] * y[1], p[3] * y[0] * y[1] - p[2] * y[1]])
            return y, y

        _, path = jax.lax.scan(step, jnp.ones(2), length=200)
        return jnp.mean((path - wanted) ** 2)

    return Function(fun, jnp.asarray([1.0, 0.5, 1.0, 0.5]))


FUNCTIONS = {
    "rosenbrock 2": lambda: rosenbrock(2),
    "rosenbrock 10": lambda: rosenbrock(10),
    "network": network,
    "scan": scan,
}


def value_and_gradient(fun, x0, args, limits):
    return jax.jit(jax.value_and_grad(fun)).lower(x0).compile()


@peers.whole
def bounded(fun, x0, limits):
    res = jaxmin.minimize(fun, x0, bounds=jaxmin.Bounds(-10.0, 10.0), options=limits._asdict())
    return peers.Found(res.x, res.nit, res.nfev)


OWN = {
    FLOOR: peers.Solver(value_and_gradient),
    "jaxmin lbfgs, bounds": peers.Solver(bounded),
    "jaxmin trust_ncg": peers.Solver(peers.jaxmin_whole("trust_ncg")),
}
COMPILED = (
    "jaxmin lbfgs", "jaxmin bfgs", "optax lbfgs", "jaxopt LBFGS", "optimistix LBFGS", "optimistix BFGS", "TFP lbfgs",
    "TFP bfgs", "jax.scipy BFGS",
)  # fmt: skip
SOLVERS = OWN | {name: peers.SOLVERS[name] for name in COMPILED}


def measure(name, solvers, times):
    """One record a solver, of the function of that name."""
    fun, x0 = FUNCTIONS[name]()
    found = {}
    for solver in dict.fromkeys([FLOOR, "jaxmin lbfgs", *solvers]):
        build, most = SOLVERS[solver]
        if x0.size > most:
            continue
        try:
            _, took = speed.compiled(build, fun, x0, (), peers.Limits(), times, time.process_time)
        except Exception as error:
            yield {"function": name, "solver": solver, "reason": records.reason(error)}
            continue
        found[solver] = took
        floor, ours = found[FLOOR], found.get("jaxmin lbfgs")
        yield dict(zip(COLUMNS, (name, solver, took, took / floor, took - floor, ours and took / ours), strict=True))


def show(record):
    values = (record.get(name) for name in COLUMNS[2:])
    cells = "".join(f"{'' if value is None else f'{value:.2f}':>11}" for value in values)
    print(f"{record['function']:<16}{record['solver']:<22}{record.get('reason', cells)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--functions", nargs="+", default=list(FUNCTIONS), choices=FUNCTIONS)
    parser.add_argument("--solvers", nargs="+", default=list(SOLVERS), choices=SOLVERS)
    parser.add_argument("--times", type=int, default=3)
    records.add_option(parser)
    options = parser.parse_args()
    writer = records.Writer(options.jsonl, records.setting(clock="cpu", compiles=options.times))
    jax.config.update("jax_enable_compilation_cache", False)
    jax.jit(lambda x: x + 1).lower(jnp.ones(3)).compile()  # the start of the back end is not compile time
    print(f"{COLUMNS[0]:<16}{COLUMNS[1]:<22}" + "".join(f"{name:>11}" for name in COLUMNS[2:]))
    for name in options.functions:
        for record in measure(name, options.solvers, options.times):
            show(record)
            writer.write(record)


if __name__ == "__main__":
    main()
