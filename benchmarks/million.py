"""Problems of 10^5 to 10^7 variables with real data, in float32: time, memory and products of jaxmin and two peers.

    python benchmarks/million.py run --jsonl benchmarks/results/million.jsonl
    python benchmarks/million.py run --problems deblur --sizes 10000000 --seconds 200 --jsonl deblur.jsonl
    python benchmarks/million.py spread --jsonl benchmarks/results/million.jsonl
    python benchmarks/million.py report benchmarks/results/million.jsonl

``million_problems.py`` has the problems. ``run`` solves each in a process of its own, on one thread, until the largest
component of the gradient is ``--gtol`` times that at x0. ``--maxfun`` evaluations and ``--seconds`` of processor time
(jaxmin and SciPy; a step that has begun ends) are the limits. The time is that of one solve without compilation. f and
its gradient are computed again at the returned x, f in float64. ``spread`` makes a few iterations on one device and
with x0 spread over two, and compares f and the memory of a device. A result that is in the file is not computed again.
"""

import argparse
import functools
import json
import math
import os
import pathlib
import subprocess
import sys
import time

import one_thread  # isort: skip  # noqa: F401
import jax
import jax.numpy as jnp
import million_problems
import numpy as np
import peers
import records
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding

import jaxmin

METHODS = ("lbfgs", "newton_cg", "trust_ncg")
PEERS = {"optax lbfgs": peers.optax_lbfgs, "scipy L-BFGS-B": peers.scipy_lbfgsb}
SOLVERS = (*(f"jaxmin {method}" for method in METHODS), *PEERS)
SIZES = {"deblur": (10**5, 10**6, 10**7), "ratings": (10**5, 10**6), "network": (10**6,)}
ITERATIONS = {"lbfgs": 20, "newton_cg": 3, "trust_ncg": 5}  # of a solve that is spread
TWO_DEVICES = "--xla_force_host_platform_device_count=2"
PATIENCE = 10  # times --seconds: a process that takes longer on the wall is ended
HEADS = {
    "run": ("problem", "n", "solver", "CPU s", "planned", "grown", "evaluations", "products", "iterations")
    + ("gradient", "f", "status", "score"),
    "spread": ("problem", "n", "method", "iterations", "f, one device", "f, two", "difference")
    + ("MB, one device", "MB, each of two", "gathers"),
}


# ---- one solve


def size(x):
    return sum(leaf.size for leaf in jax.tree.leaves(x))


def largest(tree):
    return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]))


class Deadline:
    """A callback of the compiled loop that ends a solve after so many seconds of processor time."""

    def __init__(self, seconds):
        self.seconds, self.end = seconds, math.inf

    def start(self):
        self.end = time.process_time() + self.seconds

    def late(self, nit):
        return np.asarray(time.process_time() > self.end)

    def __call__(self, intermediate_result):
        return jax.experimental.io_callback(self.late, jax.ShapeDtypeStruct((), bool), intermediate_result.nit)


def ours(method, problem, options):
    """jaxmin with x0 as it is, a program from x0 to the result; ``run() -> x, record``."""
    deadline = Deadline(options.seconds)
    limits = {"gtol_relative": options.gtol, "maxiter": options.maxfun, "maxfun": options.maxfun}

    def solve(x0, args):
        callback = jaxmin.traced(deadline)
        res = jaxmin.minimize(problem.fun, x0, args, method=method, callback=callback, options=limits)
        return res.x, res.nit, res.nfev, res.nhev, res.status

    program = jax.jit(solve).lower(problem.x0, problem.args).compile()

    def run():
        deadline.start()
        x, nit, nfev, nhev, status = jax.block_until_ready(program(problem.x0, problem.args))
        counts = {"nit": int(nit), "nfev": int(nfev), "nhev": 0 if nhev is None else int(nhev)}
        return x, counts | {"status": jaxmin.Status(int(status)).name}

    run.bytes = peers.planned(program)
    return run


def theirs(name, problem, options, first):
    """A peer, with x0 as one vector and ``first``, the gradient's norm there."""
    x0, tree = ravel_pytree(problem.x0)
    fun = lambda x, *args: problem.fun(tree(x), *args)
    limits = peers.Limits(options.gtol * first, options.maxfun, options.maxfun)
    solve = PEERS[name](fun, x0, problem.args, limits)

    def run():
        found = jax.block_until_ready(solve())
        return tree(jnp.asarray(found.x, jnp.float32)), {"nit": int(found.nit), "nfev": int(found.nfev), "nhev": 0}

    run.bytes = getattr(solve, "bytes", None)
    return run


def resident(field):
    """Bytes of this process, where Linux says it: VmRSS, or VmHWM, the most."""
    path = pathlib.Path("/proc/self/status")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(field)), math.nan)


def forget_peak():
    """VmHWM begins again; where the system does not allow it, it is the peak of the whole process."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5", "utf-8")
    except OSError:
        print("VmHWM is that of the whole process", file=sys.stderr)


def exact(problem, x):
    """f in float64."""
    with jax.enable_x64(True):
        wide = lambda leaf: np.asarray(leaf, float) if np.issubdtype(leaf.dtype, np.floating) else np.asarray(leaf)
        return float(jax.jit(problem.fun)(*jax.tree.map(wide, (x, *problem.args))))


def verdict(status, gnorm, gtol, nfev, maxfun):
    """What is true at the returned point, of a solver that says nothing itself."""
    return status or ("CONVERGED" if gnorm <= 1.001 * gtol else "MAXFUN" if nfev >= maxfun else "stuck")


def solved(options):
    """The record of one solve."""
    problem = made(options)
    count = size(problem.x0)
    gradient = jax.jit(lambda x, args: largest(jax.grad(problem.fun)(x, *args)))
    first = float(gradient(problem.x0, problem.args))
    build = functools.partial(theirs, first=first) if options.solver in PEERS else ours
    begin = time.process_time()
    run = build(options.solver.removeprefix("jaxmin "), problem, options)
    compiled = time.process_time() - begin
    forget_peak()
    before, begin = resident("VmRSS"), time.process_time()
    x, counts = run()
    seconds, grown = time.process_time() - begin, (resident("VmHWM") - before) / (4 * count)
    gnorm = float(gradient(x, problem.args))
    status = verdict(counts.pop("status", None), gnorm, options.gtol * first, counts["nfev"], options.maxfun)
    return key(options) | counts | {
        "variables": count, "seconds": seconds, "compile": compiled, "vectors": run.bytes and run.bytes / (4 * count),
        "grown": grown, "gnorm": gnorm, "gnorm0": first, "f": exact(problem, x), "status": status,
        "measure": problem.measure, "score": problem.score(x), "score0": problem.score(problem.x0),
    }  # fmt: skip


def made(options, spread=False):
    """The problem with arrays of JAX."""
    problem = million_problems.PROBLEMS[options.problem](options.n, spread)
    x0, args = jax.tree.map(jnp.asarray, (problem.x0, problem.args))
    return problem._replace(x0=x0, args=args)


def key(options):
    return {"kind": options.kind, "problem": options.problem, "n": options.n, "solver": options.solver}


# ---- the same on two devices


def on_devices(problem, method, count):
    """f, the bytes of each device, and the gathers in the program, after a few iterations."""
    mesh = Mesh(np.array(jax.devices()[:count]), (million_problems.EDGE,))
    place = lambda tree, split: jax.tree.map(
        lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec)), tree, split
    )
    x0, args = place(problem.x0, problem.split), place(problem.args, problem.split_args)
    limits = {"maxiter": ITERATIONS[method], "flat": False}

    def solve(x0, args):
        res = jaxmin.minimize(problem.fun, x0, args, method=method, options=limits)
        return res.x, res.fun, res.nit

    program = jax.jit(solve).lower(x0, args).compile()
    x, f, nit = program(x0, args)
    apart = all(leaf.sharding.is_equivalent_to(start.sharding, leaf.ndim) for leaf, start in both(x, x0))
    gathers = sum(" all-gather" in line.split("(")[0] for line in program.as_text().splitlines())
    return {"f": float(f), "nit": int(nit), "bytes": peers.planned(program), "gathers": gathers, "as x0": apart}


def both(*trees):
    return zip(*map(jax.tree.leaves, trees), strict=True)


def compared(options):
    """The record of a solve on one device and on two."""
    problem = made(options, spread=True)
    method = options.solver.removeprefix("jaxmin ")
    one, two = (on_devices(problem, method, count) for count in (1, 2))
    return key(options) | {"variables": size(problem.x0), "one": one, "two": two}


# ---- all of them


def child(kind, problem, n, solver, options):
    """A solve in a process of its own; what it printed last is its record."""
    asked = {"kind": kind, "problem": problem, "n": n, "solver": solver}
    limits = {"gtol": options.gtol, "maxfun": options.maxfun, "seconds": options.seconds}
    given = [f"--{name}={value}" for name, value in (asked | limits).items()]
    flags = (f"{TWO_DEVICES} " if kind == "spread" else "") + os.environ.get("XLA_FLAGS", "")
    try:
        ended = subprocess.run(
            [sys.executable, __file__, "solve", *given],
            env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True, check=False,
            timeout=PATIENCE * options.seconds,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return asked | {"reason": records.reason(error)}
    if ended.returncode:
        return asked | {"reason": (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1][:300]}
    return json.loads(ended.stdout.splitlines()[-1])


def every(options):
    """Solves what is not in the file; prints and writes each record."""
    path = options.jsonl
    there = records.read(path)[1] if path and path.exists() else []
    done = [tuple(record[name] for name in ("kind", "problem", "n", "solver")) for record in there]
    limits = {"gtol": options.gtol, "maxfun": options.maxfun, "seconds": options.seconds}
    writer = records.Writer(path, records.setting(clock="cpu", dtype="float32", **limits), continues=True)
    for problem in options.problems:
        for n in options.sizes or options.all_sizes[problem]:
            for solver in options.solvers:
                if (options.kind, problem, n, solver) not in done:
                    record = child(options.kind, problem, n, solver, options)
                    print(json.dumps(record), flush=True)
                    writer.write(record)


def alone(options):
    """The command of a child."""
    print(json.dumps((compared if options.kind == "spread" else solved)(options)))


# ---- the report


def digits(value, count=3):
    return "–" if value is None or not math.isfinite(value) else f"{value:.{count}g}"


def plain(value):
    """Three digits, without an exponent."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.0f}" if value >= 99.5 else f"{value:#.3g}"


def of_run(record):
    score = record["measure"].format(record["score"])
    relative = digits(record["gnorm"] / record["gnorm0"], 2)
    status = "limit of time" if record["status"] == "CALLBACK" else record["status"]
    return (
        plain(record["seconds"]), plain(record["vectors"]), plain(record["grown"]), str(record["nfev"]),
        str(record["nhev"]), str(record["nit"]), relative, digits(record["f"], 8), status, score,
    )  # fmt: skip


def of_spread(record):
    one, two = record["one"], record["two"]
    apart = digits(abs(two["f"] - one["f"]) / abs(one["f"]), 1)
    memory = (plain(part["bytes"] / 1e6) for part in (one, two))
    return str(two["nit"]), digits(one["f"], 8), digits(two["f"], 8), apart, *memory, str(two["gathers"])


def row(record, cells):
    name = record["solver"].removeprefix("jaxmin ") if record["kind"] == "spread" else record["solver"]
    begin = record["problem"], f"{record.get('variables', record['n']):,}", name
    return (*begin, *cells(record)) if "reason" not in record else (*begin, record["reason"])


def report(options):
    _, found = records.read(options.file)
    for kind, cells in (("run", of_run), ("spread", of_spread)):
        rows = [row(record, cells) for record in found if record["kind"] == kind]
        if rows:
            ruled = [HEADS[kind], ["---"] * len(HEADS[kind]), *rows]
            print("\n".join("| " + " | ".join(one) + " |" for one in ruled) + "\n")


def add_limits(parser):
    parser.add_argument("--gtol", type=float, default=1e-3, help="times the norm of the gradient at x0")
    parser.add_argument("--maxfun", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=80.0, help="of processor time")


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    kinds = {"run": (SOLVERS, SIZES), "spread": (SOLVERS[: len(METHODS)], dict.fromkeys(SIZES, (10**6,)))}
    for kind, (solvers, sizes) in kinds.items():
        command = commands.add_parser(kind)
        command.add_argument("--problems", nargs="+", default=list(SIZES), choices=SIZES)
        command.add_argument("--sizes", type=int, nargs="+")
        command.add_argument("--solvers", nargs="+", default=solvers, choices=solvers)
        command.set_defaults(command=every, kind=kind, all_sizes=sizes)
        add_limits(command)
        records.add_option(command)
    command = commands.add_parser("solve", help="one of them, in this process")
    for name in ("kind", "problem", "solver"):
        command.add_argument(f"--{name}", required=True)
    command.add_argument("--n", type=int, required=True)
    command.set_defaults(command=alone)
    add_limits(command)
    command = commands.add_parser("report")
    command.add_argument("file", type=pathlib.Path)
    command.set_defaults(command=report)
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(records.main(parse))
