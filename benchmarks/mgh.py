"""The problems of Moré, Garbow and Hillstrom, by solvers of least squares and by general minimizers.

    python benchmarks/mgh.py run --out benchmarks/results/mgh.jsonl
    python benchmarks/mgh.py run --dtype float32 --out benchmarks/results/mgh.jsonl
    python benchmarks/mgh.py report benchmarks/results/mgh.jsonl --details
    python benchmarks/mgh.py reference benchmarks/results/mgh.jsonl

Each solver gets the standard start of each problem, ten times it and a hundred times it; a start where the sum of
squares is not finite in the dtype of the run is left out. A result is one JSON line. Results already in the file are
not computed again. The returned points are judged in float64.
"""

import argparse
import collections
import json
import math
import pathlib
import warnings
from typing import Any, NamedTuple

import one_thread  # isort: skip  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
import records
import scipy.optimize
from cutest_problems import x64
from mgh_judge import FITS, GTOL, measure, verdict
from mgh_problems import problems

import jaxmin

FACTORS = (1, 10, 100)
MAXFUN = 3_000  # evaluations
# Tolerances of MINPACK and optimistix, as tight as they stay sensible.
TIGHT = {"float64": 1e-12, "float32": 1e-6}
REFERENCE = pathlib.Path(__file__).with_name("mgh_reference.json")
KEY = ("problem", "factor", "dtype", "solver")


class Answer(NamedTuple):
    x: Any
    nfev: Any
    njev: Any = None
    claim: Any = None
    status: Any = None


# Solvers: build(residuals, x0, dtype) -> solve(x0) -> Answer. What can be compiled is compiled once for all starts.


def jaxmin_fit(residuals, x0, dtype):
    """Levenberg-Marquardt with its own tolerances."""
    options = {"maxfun": MAXFUN, "maxiter": MAXFUN}
    solve = lambda x0: jaxmin.minimize(residuals, x0, method="levenberg_marquardt", options=options)
    program = jax.jit(solve).lower(x0).compile()

    def run(x0):
        res = program(x0)
        return Answer(res.x, res.nfev, res.njev, res.success, jaxmin.Status(int(res.status)).name)

    return run


def jaxmin_general(method):
    """Any method for half the sum of squares; "auto" has the Hessian."""

    def build(residuals, x0, dtype):
        fun = jaxmin.sum_of_squares(residuals)
        options = {"gtol": GTOL[dtype], "maxfun": MAXFUN, "maxiter": MAXFUN}
        given = {"hess": jax.hessian(fun)} if method == "auto" else {}
        solve = lambda x0: jaxmin.minimize(fun, x0, method=method, options=options, **given)
        program = jax.jit(solve).lower(x0).compile()

        def run(x0):
            res = program(x0)
            return Answer(res.x, res.nfev, None, res.success, jaxmin.Status(int(res.status)).name)

        return run

    return build


def minpack(residuals, x0, dtype):
    """SciPy's least_squares(method="lm") with the exact Jacobian; its arithmetic is in float64."""
    fun, jac = (jax.jit(f).lower(x0).compile() for f in (residuals, jax.jacfwd(residuals)))
    tolerances = {"xtol": TIGHT[dtype], "ftol": TIGHT[dtype] / 1000, "gtol": TIGHT[dtype] / 1000}
    of = lambda f: lambda x: np.asarray(f(np.asarray(x, dtype)), float)

    def run(x0):
        res = scipy.optimize.least_squares(
            of(fun), np.asarray(x0, float), jac=of(jac), method="lm", max_nfev=MAXFUN, **tolerances
        )
        return Answer(res.x, res.nfev, res.njev, res.success, str(res.status))

    return run


def _optimistix(solve):
    """It counts steps, each with an evaluation."""

    def build(residuals, x0, dtype):
        program = jax.jit(lambda x0: solve(residuals, x0, TIGHT[dtype])).lower(x0).compile()

        def run(x0):
            value, steps, success = program(x0)
            return Answer(value, steps, None, success, "" if success else "failed")

        return run

    return build


def _optimistix_fit(residuals, x0, tolerance):
    import optimistix

    solver = optimistix.LevenbergMarquardt(rtol=tolerance, atol=tolerance)
    res = optimistix.least_squares(lambda x, _: residuals(x), solver, x0, max_steps=MAXFUN, throw=False)
    return res.value, res.stats["num_steps"], res.result == optimistix.RESULTS.successful


def _optimistix_bfgs(residuals, x0, tolerance):
    import optimistix

    fun, solver = jaxmin.sum_of_squares(residuals), optimistix.BFGS(rtol=tolerance, atol=tolerance)
    res = optimistix.minimise(lambda x, _: fun(x), solver, x0, max_steps=MAXFUN, throw=False)
    return res.value, res.stats["num_steps"], res.result == optimistix.RESULTS.successful


def scipy_lbfgsb(residuals, x0, dtype):
    """On the host, with its test of f's decrease off."""
    compiled = jax.jit(jax.value_and_grad(jaxmin.sum_of_squares(residuals))).lower(x0).compile()
    options = {"gtol": GTOL[dtype], "ftol": 0, "maxiter": MAXFUN, "maxfun": MAXFUN}

    def value_and_grad(x):
        value, grad = compiled(np.asarray(x, dtype))
        return float(value), np.asarray(grad, float)

    def run(x0):
        res = scipy.optimize.minimize(
            value_and_grad, np.asarray(x0, float), method="L-BFGS-B", jac=True, options=options
        )
        return Answer(res.x, res.nfev, None, res.success, str(res.status))

    return run


PEERS = {
    "minpack": minpack,
    "optimistix": _optimistix(_optimistix_fit),
    "optimistix-bfgs": _optimistix(_optimistix_bfgs),
    "scipy-l-bfgs-b": scipy_lbfgsb,
}
GENERAL = ("jaxmin-lbfgs", "jaxmin-trust_ncg", "jaxmin-auto", "scipy-l-bfgs-b", "optimistix-bfgs")


def solver_of(name):
    """``jaxmin``: Levenberg-Marquardt; a peer by its name; or jaxmin-METHOD."""
    if name == "jaxmin":
        return jaxmin_fit
    if name.startswith("jaxmin-"):
        return jaxmin_general(name.removeprefix("jaxmin-"))
    if name not in PEERS:
        raise argparse.ArgumentTypeError(f"{name!r}: jaxmin, jaxmin-METHOD, {', '.join(PEERS)}")
    return PEERS[name]


# Results


def reference():
    """Problem -> the least sum of squares that any solver reached, and the point."""
    return json.loads(REFERENCE.read_text("utf-8")) if REFERENCE.exists() else {}


def known_minima(problem, least):
    """Those of the paper, with the digits of the reference for the first one."""
    first, *others = problem.minima
    return (first, *others) if first == 0 or problem.name not in least else (least[problem.name]["sum"], *others)


# Commands


def attempt(problem, solver, factors, dtype):
    """The records of a solver on one problem."""
    with x64(dtype == "float64"):
        starts = {factor: problem.start_times(factor).astype(dtype) for factor in factors}
        finite = {f: x0 for f, x0 in starts.items() if np.isfinite(jnp.sum(problem.residuals(jnp.asarray(x0)) ** 2))}
        solve = None
        for factor, x0 in finite.items():
            about = {"problem": problem.name, "factor": factor, "dtype": dtype, "solver": solver}
            try:
                solve = solve or solver_of(solver)(problem.residuals, x0, dtype)
                yield about | _judged(problem, solve(x0), dtype)
            except Exception as error:
                yield about | {"reason": records.reason(error)}


def _judged(problem, answer, dtype):
    number = lambda value: None if value is None else int(value)
    x = np.asarray(answer.x, dtype)
    return {
        "nfev": number(answer.nfev), "njev": number(answer.njev), "claim": bool(answer.claim),
        "status": answer.status, **measure(problem, x, dtype), "x": [float(v) for v in x],
    }  # fmt: skip


def run(options):
    warnings.simplefilter("ignore")
    known = problems()
    key = lambda record: tuple(record[name] for name in KEY)
    done = {key(record) for record in records.read(options.out)[1]} if options.out.exists() else set()
    setting = records.setting(maxfun=MAXFUN, tight=TIGHT, gtol=GTOL)
    writer = records.Writer(options.out, setting, continues=True)
    for name in options.problems or known:
        problem = known[name]
        for solver in options.solver:
            factors = [f for f in FACTORS if (name, f, options.dtype, solver) not in done]
            for record in attempt(problem, solver, factors, options.dtype):
                writer.write(record)
                print(line(record, known_minima(problem, reference())), flush=True)
        jax.clear_caches()


def line(record, minima):
    head = f"{record['problem']:28}{'x' + str(record['factor']):>5} {record['dtype']} {record['solver']:18}"
    if "reason" in record:
        return f"{head} {record['reason']}"
    claim = "claim" if record["claim"] else "     "
    njev = "-" if record["njev"] is None else record["njev"]
    return (
        f"{head} {verdict(record, minima):11}{claim} {record['nfev']:6} {njev:>6}  {record['sum']:.6e} "
        f"cosines {record['reached']:.0e} {record['column']:.0e} {record['status']}"
    )


def table(found, minima):
    """A row for each solver, of records of one dtype."""
    print("| solver | starts | least | stationary | unsolved | claims | false | missing | evaluations | Jacobians |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    by_solver = collections.defaultdict(list)
    for record in found:
        by_solver[record["solver"]].append(record)
    solved = lambda record: "reason" not in record and verdict(record, minima[record["problem"]]) == "least"
    keys = [{(r["problem"], r["factor"]) for r in rows if solved(r)} for rows in by_solver.values()]
    common = set.intersection(*keys) if keys else set()
    for solver, rows in by_solver.items():
        answers = [record for record in rows if "reason" not in record]
        verdicts = [verdict(record, minima[record["problem"]]) for record in answers]
        counts = collections.Counter(verdicts)
        false = sum(record["claim"] and kind == "unsolved" for record, kind in zip(answers, verdicts))
        missing = sum(not record["claim"] and kind != "unsolved" for record, kind in zip(answers, verdicts))
        shared = [record for record in answers if (record["problem"], record["factor"]) in common]
        nfev = math.exp(np.mean([math.log(record["nfev"]) for record in shared])) if shared else math.nan
        jacobians = sum(r["njev"] for r in answers) if all(r["njev"] is not None for r in answers) else "–"
        print(
            f"| `{solver}` | {len(rows)} | {counts['least']} | {counts['stationary']} | "
            f"{len(rows) - counts['least'] - counts['stationary']} | {sum(r['claim'] for r in answers)} | {false} | "
            f"{missing} | {sum(r['nfev'] for r in answers)}, {nfev:.1f} | {jacobians} |"
        )
    print(f"\nThe second number of evaluations is the geometric mean over the {len(common)} that all solve.\n")


def report(options):
    known, least = problems(), reference()
    minima = {name: known_minima(problem, least) for name, problem in known.items()}
    found = [record for path in options.results for record in records.read(path)[1]]
    found = [r for r in found if not options.solver or r["solver"] in options.solver]
    for dtype in ("float64", "float32"):
        of_dtype = [record for record in found if record["dtype"] == dtype]
        for title, solvers in (("Least squares", FITS), ("General minimizers", GENERAL)):
            rows = [record for record in of_dtype if (record["solver"] in FITS) == (solvers is FITS)]
            if rows:
                print(f"{title}, {dtype}\n")
                table(rows, minima)
        if options.details:
            details(of_dtype, minima)


def details(found, minima):
    """One row for each problem and start, one column for each solver."""
    solvers = list(dict.fromkeys(record["solver"] for record in found))
    rows = collections.defaultdict(dict)
    for record in found:
        rows[record["problem"], record["factor"]][record["solver"]] = record
    print(f"{'':33}" + "".join(f"{solver:>18}" for solver in solvers))
    for (problem, factor), row in rows.items():
        cells = [_cell(row.get(solver), minima[problem]) for solver in solvers]
        print(f"{problem:28}{'x' + str(factor):>5}" + "".join(f"{cell:>18}" for cell in cells))
    print("Evaluations; s: another stationary point, -: unsolved, !: a wrong claim of success, or a missing one.\n")


def _cell(record, minima):
    if record is None or "reason" in record:
        return "no answer"
    kind = verdict(record, minima)
    mark = {"least": "", "stationary": "s", "unsolved": "-"}[kind]
    wrong = record["claim"] == (kind == "unsolved")
    return f"{record['nfev']}{mark}{'!' if wrong else ''}"


def update(options):
    """The reference, with the least sums in the given float64 results."""
    least = reference()
    for path in options.results:
        for record in records.read(path)[1]:
            if "reason" in record or record["dtype"] != "float64" or not math.isfinite(record["sum"]):
                continue
            if record["sum"] < least.get(record["problem"], {"sum": math.inf})["sum"]:
                least[record["problem"]] = {"sum": record["sum"], "x": record["x"], "solver": record["solver"]}
    rows = [f" {json.dumps(name)}: {json.dumps(least[name])}" for name in problems() if name in least]
    REFERENCE.write_text("{\n" + ",\n".join(rows) + "\n}\n", "utf-8")


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("run")
    command.set_defaults(command=run)
    command.add_argument("--solver", nargs="+", default=[*FITS, *GENERAL], help="jaxmin-METHOD too")
    command.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    command.add_argument("--problems", nargs="+", metavar="NAME", help="these alone, such as meyer and 'watson 6'")
    command.add_argument("--out", type=pathlib.Path, default=pathlib.Path("mgh.jsonl"), help="appended to")
    command = commands.add_parser("report")
    command.set_defaults(command=report)
    command.add_argument("results", nargs="+", type=pathlib.Path)
    command.add_argument("--solver", nargs="+", help="these alone")
    command.add_argument("--details", action="store_true", help="each problem too")
    command = commands.add_parser("reference", help="write the least sums of squares that were found")
    command.set_defaults(command=update)
    command.add_argument("results", nargs="+", type=pathlib.Path)
    return records.parsed(parser, argv, solver_of)


if __name__ == "__main__":
    raise SystemExit(records.main(parse))
