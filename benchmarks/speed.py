"""Time to a solution, per iteration and per evaluation, of jaxmin and its peers, on one thread of a CPU."""

import argparse
import math
import statistics
import time
from typing import Any, NamedTuple

import one_thread  # isort: skip  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
import peers
import records

SAMPLE = 0.02  # seconds: a sample is as many calls as fit into it
PATIENCE = 2.0  # seconds: a slower solve is run once, and timed in that run
REFERENCE = "jaxmin lbfgs"
FLOOR = "value_and_grad alone"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def rosenbrock_start(n):
    return np.where(np.arange(n) % 2, 1.0, -1.2), ()


def smoothing(x, y, weight):
    """A robust smoothing spline: strictly convex, its condition number much the same at every n."""
    r = x - y
    return jnp.sum(jnp.sqrt(1 + r * r) - 1) + weight * jnp.sum((x[1:] - x[:-1]) ** 2)


def smoothing_start(n):
    """A noisy wave with outliers, which is the start as well."""
    rng = np.random.default_rng(0)
    y = np.sin(2 * np.pi * np.arange(n) / 50) + 0.3 * rng.standard_normal(n) + 5 * (rng.random(n) < 0.05)
    return y, (y, np.asarray(20.0))


class Problem(NamedTuple):
    fun: Any
    start: Any  # n -> x0, args
    caps: dict  # n -> iterations that every solver may make


PROBLEMS = {
    # From this start the chain takes a number of iterations that grows as n.
    "rosenbrock": Problem(rosenbrock, rosenbrock_start, {10_000: 300, 100_000: 60}),
    "smoothing": Problem(smoothing, smoothing_start, {}),
}


def compiled(build, fun, x0, args, limits, times, clock):
    """Builds ``times`` times from nothing; returns the last program and the least seconds."""
    least = math.inf
    for _ in range(times):
        jax.clear_caches()
        fresh = lambda x, *args: fun(x, *args)
        begin = clock()
        run = build(fresh, x0, args, limits)
        least = min(least, clock() - begin)
    return run, least


def sample(run, calls, clock):
    """Seconds a call."""
    begin = clock()
    for _ in range(calls):
        jax.block_until_ready(run())
    return (clock() - begin) / calls


def verdict(fun, x, args, gtol):
    """What is true at the point that a solver returned."""
    value, grad = jax.value_and_grad(fun)(x, *args)
    gnorm = float(jnp.max(jnp.abs(grad)))
    return {"f": float(value), "gnorm": gnorm, "solved": gnorm <= gtol * (1 + 1e-3)}


def measure(problem_name, n, names, options):
    """One record a solver: all of them compiled, then timed in turn."""
    clock, problem = CLOCKS[options.clock], PROBLEMS[problem_name]
    x0, args = problem.start(n)
    x0, args = jax.tree.map(lambda leaf: jnp.asarray(leaf, options.dtype), (x0, args))
    limits = peers.Limits(options.gtol, problem.caps.get(n, options.maxiter))
    rows, ready = [], []

    def prepare(name, build):
        record = {"problem": problem_name, "n": n, "solver": name, "maxiter": limits.maxiter}
        rows.append(record)
        try:
            run, record["compile"] = compiled(build, problem.fun, x0, args, limits, options.compiles, clock)
            begin = clock()
            found = jax.block_until_ready(run())
            seconds = clock() - begin
        except Exception as error:
            record["reason"] = records.reason(error)
            return None
        if hasattr(run, "bytes"):
            record["bytes"] = run.bytes
        record["samples"] = [seconds]
        if seconds <= PATIENCE:
            record["samples"].clear()  # that run was the warm-up
            ready.append((record, run, math.ceil(SAMPLE / max(seconds, SAMPLE / 1000))))
        record["nit"], record["nfev"] = int(found.nit), int(found.nfev)
        return found

    for name in names:
        solver = peers.SOLVERS[name]
        if n > solver.most:
            continue
        found = prepare(name, solver.build)
        if found is None:
            continue
        rows[-1] |= verdict(problem.fun, jnp.asarray(found.x, options.dtype), args, options.gtol)
    counted = [record["nfev"] for record in rows if "nfev" in record]
    if counted:
        prepare(FLOOR, peers.bare(counted[0]))
    for _ in range(options.repeats):
        for record, run, calls in ready:
            record["samples"].append(sample(run, calls, clock))
    return rows


def figures(record):
    """The derived columns of a record."""
    samples = record["samples"]
    best, nit, nfev = min(samples), max(record["nit"], 1), record["nfev"]
    solved = record.get("solved", False)
    return {
        "compile": record["compile"],
        "time": best if solved else math.nan,
        "median": statistics.median(samples) if solved else math.nan,
        "per_nit": best / nit if record["solver"] != FLOOR else math.nan,
        "per_nfev": best / nfev,
        "nfev/nit": nfev / nit if record["solver"] != FLOOR else math.nan,
    }


def text(value, unit=1.0, digits=3):
    """A number in at most seven characters; '-' for none."""
    if value is None or not math.isfinite(value):
        return "-"
    value *= unit
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{min(decimals, digits)}f}"


COLUMNS = (
    ("solver", 26), ("compile s", 10), ("/ours", 6), ("to gtol ms", 11), ("median", 9), ("/ours", 6),
    ("nit", 7), ("nfev", 7), ("nfev/nit", 9), ("us/nit", 9), ("/ours", 6), ("us/nfev", 9), ("/ours", 6),
    ("f", 13), ("gradient", 9), ("", 9),
)  # fmt: skip


def show(rows):
    """Prints the table of one problem at one n."""
    print("".join(f"{name:<{width}}" if not i else f"{name:>{width}}" for i, (name, width) in enumerate(COLUMNS)))
    ours = next((figures(r) for r in rows if r["solver"] == REFERENCE and "samples" in r), None)
    for record in rows:
        if "samples" not in record:
            print(f"{record['solver']:<26}  {record['reason']}")
            continue
        own = figures(record)
        ratio = lambda name, own=own: text(own[name] / ours[name] if ours else None)
        gnorm = record.get("gnorm")
        cells = (
            text(own["compile"]), ratio("compile"),
            text(own["time"], 1e3), text(own["median"], 1e3), ratio("time"),
            str(record["nit"]) if record["solver"] != FLOOR else "-", str(record["nfev"]), text(own["nfev/nit"]),
            text(own["per_nit"], 1e6), ratio("per_nit"), text(own["per_nfev"], 1e6), ratio("per_nfev"),
            "-" if gnorm is None else f"{record['f']:.5e}", "-" if gnorm is None else f"{gnorm:.1e}",
            "" if gnorm is None else "solved" if record["solved"] else "limit" if _limited(record) else "stuck",
        )  # fmt: skip
        widths = [width for _, width in COLUMNS[1:]]
        print(f"{record['solver']:<26}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths)))
    print()


def _limited(record):
    return record["nit"] >= record["maxiter"] or record["nfev"] >= peers.Limits().maxfun


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    sizes = [2, 10, 100, 1_000, 10_000, 100_000]
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=PROBLEMS)
    parser.add_argument("--sizes", nargs="+", type=int, default=sizes, help="numbers of variables, n")
    parser.add_argument("--solvers", nargs="+", default=list(peers.SOLVERS), choices=peers.SOLVERS)
    parser.add_argument("--dtype", default="float64", choices=("float32", "float64"))
    parser.add_argument("--gtol", type=float, default=1e-5, help="infinity norm of the gradient")
    parser.add_argument("--maxiter", type=int, default=peers.Limits().maxiter, help="iterations where no cap is set")
    parser.add_argument("--repeats", type=int, default=7, help="samples of each solver, taken in turn")
    parser.add_argument("--compiles", type=int, default=2, help="compilations of each solver, the best counts")
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="cpu: for a machine that others use as well")
    records.add_option(parser)
    options = parser.parse_args(argv)
    if min(options.repeats, options.compiles, *options.sizes) < 1:
        parser.error("--repeats, --compiles and --sizes: at least 1")
    return options


def main(argv=None):
    options = parse(argv)
    jax.config.update("jax_enable_x64", options.dtype == "float64")
    jax.config.update("jax_enable_compilation_cache", False)
    wanted = ("dtype", "gtol", "clock", "repeats", "compiles")
    setting = records.setting(**{name: getattr(options, name) for name in wanted})
    writer = records.Writer(options.jsonl, setting)
    records.show(setting)
    print(f"the least of {options.repeats} samples, {options.compiles} for compile time\n")
    jax.jit(lambda x: x + 1).lower(jnp.ones(3)).compile()  # the start of the back end is not compile time

    for name in options.problems:
        for n in options.sizes:
            cap = PROBLEMS[name].caps.get(n)
            print(f"{name}, n = {n:,}" + (f", at most {cap} iterations" if cap else ""))
            rows = measure(name, n, options.solvers, options)
            writer.write(*rows)
            show(rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
