"""CUTEst problems, as sif2jax writes them in JAX: solvers run on them, their answers judged, counted and drawn."""

import argparse
import contextlib
import itertools
import json
import math
import pathlib
import queue
import signal
import threading
import time
import warnings
from typing import Any, NamedTuple

import one_thread  # isort: skip  # noqa: F401
import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import peers
import profiles
import records
import scipy.optimize
from cutest_problems import load, posed, x64
from jax import lax
from workers import Worker

import jaxmin

LIMITS = peers.Limits(gtol=1e-5, maxiter=5_000, maxfun=15_000)
STEPS = 50_000  # evaluations and Hessian-vector products together
SLACK = {"float64": 1e-4, "float32": 2e-2}  # of the projected gradient, relative to max(1, |f|)
PRECONDITIONERS = ("diagonal", "banded")
LONG = 2_000  # evaluations: a solve that goes past them without an answer stands still
PRODUCTS = profiles.Cost("nhev", 1, "products")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
REFERENCE = pathlib.Path(__file__).with_name("cutest_reference.json")
# Seconds. The first run of a program has its own cost, and while a limit of processor time is set, Linux counts that
# time in ticks of some ms: a solve that took less than QUICK is made again, for as long as SAMPLE.
QUICK, SAMPLE = 1.0, 0.1


class Task(NamedTuple):
    """A problem as a solver is given it."""

    fun: Any
    x0: Any  # [n]
    bounds: Any = None  # (lower, upper), [n] each


class Answer(NamedTuple):
    x: Any
    nit: Any
    nfev: Any
    claim: bool | None = None  # None: the library makes none
    status: Any = None
    message: str = ""
    nhev: Any = None


# Solvers: build(task) -> run, tell. run() solves, which is timed, and may be called again; tell(what it returned) is
# the Answer.


def jaxmin_solver(method, how=None):
    """A method, with its line search or its preconditioner."""

    def build(task):
        options, given = LIMITS._asdict(), {}
        if method == "auto" or getattr(jaxmin, method)().wants & {"hv", "H"}:
            options["maxhev"] = STEPS - LIMITS.maxfun
        if how in PRECONDITIONERS:
            options["preconditioner"] = how
        elif how is not None:
            given["linesearch"] = how
        if task.bounds is not None:
            given["bounds"] = scipy.optimize.Bounds(*task.bounds)
        solve = lambda x0: jaxmin.minimize(task.fun, x0, method=method, options=options, **given)
        program = jax.jit(solve).lower(task.x0).compile()

        def tell(res):
            nhev = getattr(res, "nhev", None)
            return Answer(res.x, res.nit, res.nfev, bool(res.success), int(res.status), res.message, nhev)

        return lambda: program(task.x0), tell

    return build


def peer(adapter):
    def build(task):
        if task.bounds is not None:
            raise NotImplementedError("it takes no bounds")
        return adapter(task.fun, task.x0, (), LIMITS), lambda found: Answer(*found)

    return build


def jaxopt_lbfgsb(task):
    """Its own test is of the 2-norm, so its ``update`` is driven here."""
    method = jaxopt.LBFGSB(task.fun, implicit_diff=False)

    def solve(_, x0, limits):
        def goes_on(carry):
            x, state = carry
            far = _projected(x, state.grad, task.bounds, jnp) > limits.gtol
            return far & (state.iter_num < limits.maxiter) & (state.num_fun_eval < limits.maxfun)

        step = lambda carry: tuple(method.update(*carry, task.bounds))
        x, state = lax.while_loop(goes_on, step, (x0, method.init_state(x0, task.bounds)))
        return peers.Found(x, state.iter_num, state.num_fun_eval)

    return peers.whole(solve)(task.fun, task.x0, (), LIMITS), lambda found: Answer(*found)


class _Spent(Exception):
    """The evaluations that a solver may make are used up."""


def scipy_solver(method, products=False, **options):
    """SciPy on the host, value, gradient and product compiled; its tests of other things than the gradient are off."""

    def build(task):
        dtype, fun = task.x0.dtype, task.fun
        value_and_grad = jax.jit(jax.value_and_grad(fun)).lower(task.x0).compile()
        if products:
            hessp = jax.jit(lambda x, v: jax.jvp(jax.grad(fun), (x,), (v,))[1]).lower(task.x0, task.x0).compile()
        asked, least = {}, []

        def evaluate(x):
            if asked["nfev"] == LIMITS.maxfun:
                raise _Spent
            asked["nfev"] += 1
            value, grad = value_and_grad(np.asarray(x, dtype))
            if value < least[0]:
                least[:] = float(value), np.array(x)
            return float(value), np.asarray(grad, float)

        def multiply(x, v):
            asked["nhev"] += 1
            return np.asarray(hessp(np.asarray(x, dtype), np.asarray(v, dtype)), float)

        def after_iteration(xk):
            asked["nit"] += 1
            # With products its own test is of the 2-norm.
            if products and np.max(np.abs(value_and_grad(np.asarray(xk, dtype))[1])) <= LIMITS.gtol:
                raise StopIteration

        def run():
            asked.update(dict.fromkeys(("nfev", "nit", "nhev"), 0))
            least[:] = math.inf, task.x0
            given = {"bounds": scipy.optimize.Bounds(*task.bounds)} if task.bounds is not None else {}
            if products:
                given["hessp"] = multiply
            limits = {"gtol": LIMITS.gtol, "maxiter": LIMITS.maxiter} | options
            limits = {name: value for name, value in limits.items() if value is not None}
            try:
                res = scipy.optimize.minimize(
                    evaluate, task.x0, method=method, jac=True, callback=after_iteration, options=limits, **given
                )
            except _Spent:
                return Answer(least[1], **asked, claim=False, message=f"{LIMITS.maxfun} evaluations were made")
            claim = bool(res.success or res.status == 99)  # 99: our callback stopped it
            return Answer(res.x, **asked, claim=claim, status=int(res.status), message=str(res.message))

        return run, lambda answer: answer

    return build


PEERS = {
    "optax-lbfgs": peer(peers.optax_lbfgs),
    "jaxopt-lbfgs": peer(peers.jaxopt_lbfgs),
    "jaxopt-lbfgsb": jaxopt_lbfgsb,
    "optimistix-bfgs": peer(peers.optimistix_bfgs),
    "optimistix-lbfgs": peer(peers.optimistix_lbfgs),
    "tfp-lbfgs": peer(peers.tfp_lbfgs),
    "tfp-bfgs": peer(peers.tfp_bfgs),
    "jax-scipy-bfgs": peer(peers.jax_bfgs),
    "scipy-l-bfgs-b": scipy_solver("L-BFGS-B", ftol=0, maxfun=LIMITS.maxfun),
    "scipy-bfgs": scipy_solver("BFGS"),
    "scipy-trust-krylov": scipy_solver("trust-krylov", products=True),
    "scipy-tnc": scipy_solver("TNC", ftol=0, xtol=0, maxfun=LIMITS.maxfun, maxiter=None),
}


def solver_of(name):
    """A peer by its name, or jaxmin-METHOD, jaxmin-METHOD-SEARCH and jaxmin-METHOD-PRECONDITIONER."""
    library, *parts = name.split("-")
    if library == "jaxmin" and len(parts) in (1, 2):
        return jaxmin_solver(*parts)
    if name not in PEERS:
        raise argparse.ArgumentTypeError(
            f"{name!r}: jaxmin-METHOD, jaxmin-METHOD-SEARCH, jaxmin-METHOD-PRECONDITIONER, {', '.join(PEERS)}"
        )
    return PEERS[name]


# Judging, in float64 whatever the solver's dtype


def _projected(x, g, bounds, xp=np):
    """Infinity norm of the gradient without the variables that are at a bound where f falls outwards."""
    if bounds is not None:
        lower, upper = bounds
        g = xp.where(((x <= lower) & (g >= 0)) | ((x >= upper) & (g <= 0)), 0, g)
    return xp.max(xp.abs(g))


class Judge:
    """What f and its gradient are at the point that a solver returned."""

    def __init__(self, problem, dtype):
        self.x0, self.bounds = posed(problem, dtype)
        self.dtype = dtype
        with x64(True):
            fun = lambda x: problem.objective(x, problem.args)
            self._evaluate = jax.jit(jax.value_and_grad(fun)).lower(self.x0.astype(np.float64)).compile()
        self.f0, _ = self.evaluate(self.x0)

    def evaluate(self, x):
        with x64(True):
            value, grad = self._evaluate(np.asarray(x, np.float64))
            return float(value), np.asarray(grad)

    def verdict(self, x):
        f, g = self.evaluate(x)
        x = np.asarray(x, np.float64)
        bounds = self.bounds and tuple(side.astype(np.float64) for side in self.bounds)
        pg = float(_projected(x, g, bounds))
        inside = bounds is None or bool(np.all(np.abs(x - np.clip(x, *bounds)) <= 1e-12 * np.maximum(1, np.abs(x))))
        flat = pg <= SLACK[self.dtype] * max(1, abs(f))
        bounded = abs(f) <= 1e20 * max(1, abs(self.f0))
        solved = flat and bounded and inside and not f > self.f0
        return {"solved": solved, "f": f, "f0": self.f0, "pg": pg, "inside": inside}


def _task(problem, judge):
    """The problem for a solver, and the list of the evaluations that it makes outside of the box."""
    outside = []

    def fun(x):
        if judge.bounds is not None:
            lower, upper = judge.bounds
            count = lambda: jax.debug.callback(lambda: outside.append(1))
            lax.cond(jnp.any((x < lower) | (x > upper)), count, lambda: None)
        return problem.objective(x, problem.args)

    found = jax.eval_shape(fun, judge.x0)
    if found.dtype != judge.dtype or found.shape:
        raise TypeError(f"f comes out as {found.dtype}{list(found.shape)}")
    return Task(fun, judge.x0, judge.bounds), outside


def _warm(run, clock):
    """Seconds of a solve, of those that fit into a sample."""
    begin, calls, seconds = clock(), 0, 0.0
    while seconds < SAMPLE:
        jax.block_until_ready(run())
        calls += 1
        seconds = clock() - begin
    return seconds / calls


def attempt(problem, judge, build, clock):
    """The record of one solve."""
    task, outside = _task(problem, judge)
    jax.clear_caches()
    begin = clock()
    run, tell = build(task)
    compiled = clock()
    found = jax.block_until_ready(run())
    first = clock() - compiled
    jax.effects_barrier()
    answer, count = tell(found), len(outside)
    seconds = _warm(run, clock) if first < QUICK else first
    number = lambda value: None if value is None else int(value)
    verdict, nfev, nhev = judge.verdict(answer.x), number(answer.nfev), number(answer.nhev)
    if (nfev or 0) + (nhev or 0) > STEPS:  # as if it had been stopped there
        verdict["solved"] = False
        answer = answer._replace(claim=False, message=f"more than {STEPS} steps; {answer.message}")
    return {
        **verdict,
        "nfev": nfev, "nit": number(answer.nit), "nhev": nhev,
        "compile": compiled - begin, "run": seconds, "first": first,
        "claim": answer.claim, "status": answer.status, "message": answer.message,
        "outside": count if task.bounds is not None else None,
    }  # fmt: skip


# Processes


def serve(pipe, options):
    """A worker: sends the sizes of the problems, then a record for each (name, solver) that it is sent."""
    warnings.simplefilter("ignore")
    problems = load(options.set)
    jax.config.update("jax_enable_x64", options.dtype == "float64")
    jax.config.update("jax_enable_compilation_cache", False)
    pipe.send({name: math.prod(problem.y0.shape) for name, problem in problems.items()})
    # The processor time that a stage may take; when it is spent, the signal ends the process, whatever it does.
    patience = options.time_limit if options.clock == "cpu" else 0
    judged, judge = None, None
    with contextlib.suppress(EOFError):
        while True:
            name, solver = pipe.recv()
            try:
                signal.setitimer(signal.ITIMER_PROF, patience)
                if judged != name:
                    judged, judge = name, Judge(problems[name], options.dtype)
                pipe.send("judge is ready")
                signal.setitimer(signal.ITIMER_PROF, patience)
                record = attempt(problems[name], judge, solver_of(solver), CLOCKS[options.clock])
            except Exception as error:
                record = {"reason": records.reason(error)}
                judged = None
            signal.setitimer(signal.ITIMER_PROF, 0)
            pipe.send(record)


def run(options):
    key = lambda record: tuple(record[name] for name in profiles.KEY)
    done = {key(record) for record in profiles.read([options.out])} if options.out.exists() else set()
    cpu = options.clock == "cpu"
    worker = lambda: Worker(serve, options, stages=2 * [options.time_limit], cpu=cpu)
    first = worker()
    sizes = first.start()
    unknown = set(options.only or ()) - set(sizes)
    if unknown:
        raise SystemExit(f"--only: no such problems: {', '.join(sorted(unknown))}")
    chosen = sorted((n, name) for name, n in sizes.items() if n <= options.max_n and name in (options.only or sizes))
    chosen = chosen[:: options.every]
    tasks = queue.SimpleQueue()
    for n, name in chosen:
        for solver in options.solver:
            about = {"set": options.set, "problem": name, "n": n, "dtype": options.dtype, "solver": solver}
            if key(about) not in done:
                tasks.put(about)
    total = tasks.qsize()
    print(f"{len(chosen)} problems, {len(options.solver)} solvers: {total} to run, {len(done)} in the file", flush=True)
    best, lock, finished = References(), threading.Lock(), itertools.count(1)

    def work(worker):
        with contextlib.suppress(queue.Empty):
            while True:
                about = tasks.get_nowait()
                record = about | {"solved": False} | worker.record(about["problem"], about["solver"])
                with lock:
                    writer.write(record)
                    print(f"[{next(finished)}/{total}] {line(record, best)}", flush=True)
        worker.stop()

    wanted = ("dtype", "clock", "time_limit")
    setting = records.setting(gtol=LIMITS.gtol, **{name: getattr(options, name) for name in wanted})
    writer = records.Writer(options.out, setting, continues=True)
    workers = [first] + [worker() for _ in range(options.workers - 1)]
    threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# Results


class References:
    """The least f that any solver reached, by set and problem."""

    def __init__(self):
        self.table = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {}

    def add(self, record):
        f, f0 = record.get("f", math.nan), record.get("f0", math.nan)
        if not (f <= f0 and abs(f) <= 1e20 * max(1, abs(f0)) and record["inside"]):
            return
        row = self.table.setdefault(record["set"], {}).setdefault(record["problem"], {"f": math.inf, "solved": False})
        row["solved"] |= record["solved"] and record["dtype"] == "float64"
        if f < row["f"]:
            row |= {"f": f, "solver": record["solver"], "dtype": record["dtype"]}

    def write(self):
        rows = {which: dict(sorted(table.items())) for which, table in sorted(self.table.items())}
        REFERENCE.write_text(json.dumps(rows, indent=1) + "\n")

    def best(self, record):
        """Whether f is within 1e-3 of the least; None: no reference."""
        row = self.table.get(record["set"], {}).get(record["problem"])
        if row is None:
            return None
        return record.get("f", math.nan) <= row["f"] + 1e-3 * max(1, abs(row["f"]))


def line(record, references):
    """A record for people."""
    head = f"{record['problem']:<12}{record['n']:>6} {record['solver']:<22}"
    if "reason" in record:
        return f"{head} {record['reason']}"
    claim = {True: "success", False: "failure", None: ""}[record["claim"]]
    return (
        f"{head} {'solved' if record['solved'] else '-':<6} {'best' if references.best(record) else '-':<4} "
        f"f {record['f']:<14.7g} pg {record['pg']:<9.2e} nfev {record['nfev']:<5} nit {record['nit']:<5} "
        f"compile {record['compile']:.2f} run {record['run']:.3f}"
        f"{' outside ' + str(record['outside']) if record['outside'] else ''}"
        f" | {claim} {'' if record['status'] is None else record['status']} {record['message']}"
    )


def reference(options):
    references = References()
    for record in profiles.read(options.results):
        references.add(record)
    references.write()
    for which, table in references.table.items():
        print(f"{which}: {len(table)} problems, {sum(row['solved'] for row in table.values())} solved in float64")


def report(options):
    groups, references = profiles.groups(profiles.read(options.results)), References()
    for (which, dtype), solvers in groups.items():
        counts(which, dtype, solvers, references)
        pairs(solvers)
        if dtype == "float32":
            near(solvers, groups.get((which, "float64"), {}))
        for solver, table in solvers.items():
            details(solver, table, references)
    if options.picture:
        draw(groups, options.picture)


def near(solvers, in_float64):
    """How many float32 solves end at a float64 solution, any of those that the same results hold, and say success.

    A claim elsewhere is false, unless the gradient is small there.
    """
    known = {}
    for table in in_float64.values():
        for problem, record in table.items():
            if record["solved"]:
                known.setdefault(problem, []).append(record["f"])
    for solver, table in solvers.items():
        run = {problem: table[problem] for problem in known if problem in table}
        met = [name for name, row in run.items() if any(_agree(row.get("f", math.nan), f) for f in known[name])]
        claims = [problem for problem, row in run.items() if row.get("claim")]
        false = [problem for problem in claims if problem not in met and not run[problem]["solved"]]
        print(
            f"{solver}: within 1e-3 max(1, |f|) of a float64 solution: {len(met)} of {len(run)} with one known; "
            f"{sum(problem in met for problem in claims)} of them say success; claims elsewhere: {len(false)}"
            f"{' (' + ', '.join(false) + ')' if false else ''}"
        )
    print()


def _agree(f, known):
    return abs(f - known) <= 1e-3 * max(1, abs(known))


def counts(which, dtype, solvers, references):
    problems = set().union(*solvers.values())
    print(f"{which}, {dtype}: {len(problems)} problems")
    names = ("run", "solved", "best", "claims", "false", f">{LONG}", "no answer", "outside", "compile s", "run s")
    print(f"{'solver':<24}" + "".join(f"{name:>10}" for name in names))
    for solver, table in solvers.items():
        rows = list(table.values())
        count = lambda test, rows=rows: sum(bool(test(row)) for row in rows)
        cells = (
            len(rows), count(lambda row: row["solved"]), count(references.best) if references.table else "-",
            count(lambda row: row.get("claim")),
            count(false_claim), count(lambda row: (row.get("nfev") or 0) > LONG), count(lambda row: "reason" in row),
            sum(row.get("outside") or 0 for row in rows), *(_median(rows, name) for name in ("compile", "run")),
        )  # fmt: skip
        print(f"{solver:<24}" + "".join(f"{cell:>10}" for cell in cells))
    print()


def false_claim(record):
    return record.get("claim") and not record["solved"]


def _median(rows, name):
    values = [row[name] for row in rows if row["solved"]]
    return f"{np.median(values):.3g}" if values else "-"


def pairs(solvers):
    """Evaluations, and products, on the problems that two solvers both solve."""
    for ours, others in itertools.combinations(solvers.items(), 2):
        both = profiles.both(ours[1], others[1])
        for cost in (profiles.COSTS[0], PRODUCTS) if both else ():
            if all(any(table[name][cost.field] for name in both) for _, table in (ours, others)):
                _pair(ours, others, both, cost)
    print()


def _pair(ours, others, both, cost):
    """What two solvers, (name, table) each, spend on the problems that both solve."""
    (one, first), (two, second) = ours, others
    mine, theirs = (profiles.costs(table, both, cost) for table in (first, second))
    mean = profiles.mean
    print(
        f"{cost.label}, geometric mean over the {len(both)} that both solve: {one} {mean(mine):.1f}, "
        f"{two} {mean(theirs):.1f}, ratio {mean(mine / theirs):.3f}"
    )
    for text, ratio in (("at least twice as many", mine / theirs), ("at most half as many", theirs / mine)):
        extreme = [i for i in np.argsort(-ratio)[:8] if ratio[i] >= 2]
        shown = ", ".join(f"{both[i]} {mine[i]}:{theirs[i]}" for i in extreme)
        print(f"  {text}: {np.sum(ratio >= 2)}{', as ' + shown if shown else ''}")


def details(solver, table, references):
    """The claims that are wrong and the problems left unsolved, each in a line."""
    rows = sorted(table.values(), key=lambda row: (row["n"], row["problem"]))
    for title, test in (("false claims", false_claim), ("unsolved", lambda row: not row["solved"])):
        chosen = [row for row in rows if test(row)]
        print(f"{solver}, {title}: {len(chosen)}")
        for row in chosen:
            print("  " + line(row, references))
    print()


def draw(groups, path):
    """Performance profiles, one row of two pictures for each set and dtype."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(groups), 2, figsize=(11, 4.2 * len(groups)), squeeze=False)
    for ((which, dtype), solvers), row in zip(groups.items(), axes):
        for axis, cost in zip(row, profiles.COSTS):
            profiles.draw(axis, solvers, cost)
            axis.set_title(f"{which}, {dtype}")
            axis.grid(alpha=0.3)
        row[0].legend(loc="lower right", fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("run", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    command.set_defaults(command=run)
    command.add_argument("--solver", nargs="+", action="extend", required=True, help=f"jaxmin-..., {', '.join(PEERS)}")
    command.add_argument("--set", default="unconstrained", choices=("unconstrained", "bounded"))
    command.add_argument("--dtype", default="float64", choices=SLACK)
    command.add_argument("--max-n", type=int, default=10_000, help="the largest number of variables")
    command.add_argument("--every", type=int, default=1, metavar="K", help="every K-th problem alone, by size")
    command.add_argument("--time-limit", type=float, default=60.0, help="seconds for a solve with its compilation")
    command.add_argument("--clock", default="wall", choices=CLOCKS, help="cpu: processor time of the worker")
    command.add_argument("--workers", type=int, default=1, help="processes at once")
    command.add_argument("--only", nargs="+", metavar="NAME", help="these problems alone")
    command.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results.jsonl"), help="appended to")

    command = commands.add_parser("report")
    command.set_defaults(command=report)
    command.add_argument("results", nargs="+", type=pathlib.Path)
    command.add_argument("--picture", type=pathlib.Path, default=pathlib.Path("profiles.png"))

    command = commands.add_parser("reference")
    command.set_defaults(command=reference)
    command.add_argument("results", nargs="+", type=pathlib.Path)

    return records.parsed(parser, argv, solver_of)


if __name__ == "__main__":
    raise SystemExit(records.main(parse))
