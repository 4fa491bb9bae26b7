"""Time of many problems at once, for jaxmin and its peers, on one thread of a CPU."""

import argparse
import statistics

import one_thread  # isort: skip  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
import peers
import records
from speed import CLOCKS, rosenbrock, text

import jaxmin

LIMITS = peers.Limits(gtol=1e-5, maxiter=5_000, maxfun=5_000)
REFERENCE = "jaxmin lbfgs, vmap"


def batched(name):
    """The solver of that name in ``peers``, under vmap."""

    def build(x0):
        solve = peers.SOLVERS[name].build.solve
        program = jax.jit(jax.vmap(lambda x: solve(rosenbrock, x, LIMITS))).lower(x0).compile()
        return lambda: program(x0)

    return build


def on_lanes(method):
    def build(x0):
        run = lambda: jaxmin.minimize_many(rosenbrock, x0, method=method, options=LIMITS._asdict())
        run()  # compiles
        return run

    return build


def of_tfp(name):
    """TensorFlow Probability's own batches."""

    def build(x0):
        value_and_grad = jax.vmap(jax.value_and_grad(rosenbrock))
        program = jax.jit(lambda x0: peers.tfp_found(name, value_and_grad, x0, LIMITS)).lower(x0).compile()
        return lambda: program(x0)

    return build


def in_turn(x0):
    """SciPy, one start after the other, with a compiled value and gradient."""
    program = jax.jit(jax.value_and_grad(rosenbrock)).lower(x0[0]).compile()
    from scipy.optimize import minimize

    def value_and_grad(x):
        value, grad = program(x)
        return float(value), np.asarray(grad)

    options = {"gtol": LIMITS.gtol, "ftol": 0, "maxiter": LIMITS.maxiter, "maxfun": LIMITS.maxfun}

    def run():
        ends = [minimize(value_and_grad, x, method="L-BFGS-B", jac=True, options=options) for x in np.asarray(x0)]
        return peers.Found(*(np.stack([getattr(end, part) for end in ends]) for part in ("x", "nit", "nfev")))

    return run


SOLVERS = {
    REFERENCE: batched("jaxmin lbfgs"),
    "jaxmin lbfgs, minimize_many": on_lanes("lbfgs"),
    "jaxmin bfgs, vmap": batched("jaxmin bfgs"),
    "jaxmin bfgs, minimize_many": on_lanes("bfgs"),
    "optax lbfgs": batched("optax lbfgs"),
    "optimistix LBFGS": batched("optimistix LBFGS"),
    "optimistix BFGS": batched("optimistix BFGS"),
    "jaxopt LBFGS": batched("jaxopt LBFGS"),
    "jax.scipy BFGS": batched("jax.scipy BFGS"),
    "TFP lbfgs": of_tfp("lbfgs_minimize"),
    "TFP bfgs": of_tfp("bfgs_minimize"),
    "scipy L-BFGS-B, a loop": in_turn,
}


def sample(run, clock):
    begin = clock()
    found = jax.block_until_ready(run())
    return clock() - begin, found


def starts(n, names, options):
    """Random starts of the Rosenbrock chain, a record a solver: every solver compiled, then timed in turn."""
    clock = CLOCKS[options.clock]
    x0 = jnp.asarray(np.random.default_rng(0).uniform(-2, 2, (options.starts, n)))
    rows, ready = [], []
    for name in names:
        record = {"n": n, "starts": options.starts, "solver": name}
        rows.append(record)
        try:
            run = SOLVERS[name](x0)
            seconds, found = sample(run, clock)
        except Exception as error:
            record["reason"] = records.reason(error)
            continue
        slow = seconds > options.patience
        record |= {"samples": [seconds] if slow else [], **ends(found)}
        if not slow:
            ready.append((record, run))
    for _ in range(options.repeats):
        for record, run in ready:
            record["samples"].append(sample(run, clock)[0])
    return rows


def ends(found):
    """How the lanes of a batch ended. One number of evaluations for all lanes has no mean."""
    gnorm = np.abs(jax.vmap(jax.grad(rosenbrock))(jnp.asarray(found.x))).max(axis=1)
    nfev = np.asarray(found.nfev)
    return {
        "stationary": int(np.sum(gnorm <= LIMITS.gtol * (1 + 1e-3))),
        "nfev mean": float(nfev.mean()) if nfev.ndim else None,
        "nfev": int(nfev.max()),
    }


def show(n, rows, options):
    print(f"\nRosenbrock chain, n = {n}, {options.starts:,} starts, evaluations a lane")
    print(f"{'solver':<30}{'ms':>9}{'median':>9}{'/ours':>8}{'stationary':>12}{'mean':>8}{'max':>8}")
    medians = {row["solver"]: statistics.median(row["samples"]) for row in rows if "samples" in row}
    ours = medians.get(REFERENCE, float("nan"))
    for row in rows:
        name = row["solver"]
        if "reason" in row:
            print(f"{name:<30}  {row['reason']}")
            continue
        print(
            f"{name:<30}{text(min(row['samples']), 1e3):>9}{text(medians[name], 1e3):>9}"
            f"{text(medians[name] / ours):>8}{row['stationary']:>12}{text(row['nfev mean']):>8}{row['nfev']:>8}"
        )


def valley(x, steepness):
    return jnp.sum(steepness * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def skewed(options):
    """Most problems are easy, a few take a hundred times as many evaluations. A record for each way to solve them."""
    clock, count = CLOCKS[options.clock], options.problems
    rng = np.random.default_rng(1)
    x0 = rng.uniform(-2, 2, (count, 4))
    steepness = np.full(count, 3.0)
    steepness[rng.choice(count, 10, replace=False)] = options.steepness
    settings = {"maxiter": 20_000, "maxfun": 20_000}
    batch = jax.jit(jax.vmap(lambda x, a: jaxmin.minimize(valley, x, (a,), options=settings))).lower(x0, steepness)
    batch = batch.compile()
    runs = {"vmap": lambda: batch(x0, steepness)}
    for lanes in options.lanes:
        runs[f"minimize_many, {lanes or 'default'} lanes"] = lambda lanes=lanes: jaxmin.minimize_many(
            valley, x0, (steepness,), lanes=lanes, options=settings
        )
    nfev = np.asarray(runs["vmap"]().nfev)
    print(
        f"\nSkewed batch of {count:,}: evaluations median {int(np.median(nfev))}, "
        f"99 % up to {int(np.percentile(nfev, 99))}, max {nfev.max()}, {np.sum(nfev > 1000)} above 1,000"
    )
    for lanes in options.lanes:  # compiles, and tells the occupancy
        jaxmin.minimize_many(valley, x0, (steepness,), lanes=lanes, options={**settings, "disp": True})
    samples = {name: [] for name in runs}
    for _ in range(max(options.repeats // 2, 1)):
        for name, run in runs.items():
            samples[name].append(sample(run, clock)[0])
    for name, seconds in samples.items():
        print(f"{name:<30}{text(min(seconds), 1e3):>9} ms{text(min(samples['vmap']) / min(seconds)):>8} times as fast")
    return [{"skewed": count, "solver": name, "samples": seconds} for name, seconds in samples.items()]


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sizes", nargs="*", type=int, default=[2, 10, 50], help="numbers of variables, n")
    parser.add_argument("--solvers", nargs="+", default=list(SOLVERS), choices=SOLVERS)
    parser.add_argument("--starts", type=int, default=1_000, help="random starts of a batch")
    parser.add_argument("--repeats", type=int, default=7, help="samples of each solver, taken in turn")
    parser.add_argument("--patience", type=float, default=3.0, help="seconds: a slower solver is run once")
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="cpu: for a machine that others use as well")
    parser.add_argument("--problems", type=int, default=10_000, help="of the skewed batch; 0: none")
    parser.add_argument("--steepness", type=float, default=4e7, help="of its few hard problems")
    parser.add_argument("--lanes", nargs="+", type=int, default=[16, 64, 0], help="of the skewed batch; 0: the default")
    records.add_option(parser)
    options = parser.parse_args(argv)
    options.lanes = [lanes or None for lanes in options.lanes]
    return options


def main(argv=None):
    options = parse(argv)
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_enable_compilation_cache", False)
    setting = records.setting(dtype="float64", gtol=LIMITS.gtol, clock=options.clock, repeats=options.repeats)
    writer = records.Writer(options.jsonl, setting)
    records.show(setting)
    print(f"the least of {options.repeats} samples")
    for n in options.sizes:
        rows = starts(n, options.solvers, options)
        writer.write(*rows)
        show(n, rows, options)
    if options.problems:
        writer.write(*skewed(options))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
