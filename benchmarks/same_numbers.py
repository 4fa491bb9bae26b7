"""Iterates of two versions of jaxmin on 60 CUTEst problems, compared bit by bit.

    python benchmarks/same_numbers.py --before main
    python benchmarks/same_numbers.py --save numbers.json
    python benchmarks/same_numbers.py --against numbers.json --methods lbfgs --dtypes float32

Each problem is solved as a user would, by a call of ``jaxmin.minimize``, once by each version. Printed are a line for
each method and dtype and the solves that differ in their counts, their status, or a bit of f or x; the exit code is 1
if one does. Results of an earlier run are of use on the machine that made them: the compiler's choices, and with them
the last bits, depend on the processor.
"""

import collections
import hashlib
import warnings

import one_thread  # isort: skip  # noqa: F401
import jax
import numpy as np
import scipy.optimize
import versions
from cutest_problems import load, posed, x64

LIMITS = {"gtol": 1e-5, "maxiter": 1_000, "maxfun": 3_000}
METHODS = ("lbfgs", "bfgs", "trust_ncg", "newton_cg")
DTYPES = ("float64", "float32")
BOXED = ("lbfgs",)  # the methods that solve the bounded problems too

# Chosen by name for their spread, before any was solved: easy ones, narrow valleys, plateaus and cliffs, sums of
# squares with and without a residual, bad scales, and some that in float32 end where f no longer tells points apart.
PROBLEMS = {
    "unconstrained": (
        "BEALE", "BROWNBS", "CLIFF", "CUBE", "DENSCHNA", "DJTL", "EXPFIT", "HAIRY", "HUMPS", "JENSMP", "MARATOSB",
        "MISRA1ALS", "ROSENBR", "SNAIL",  # n = 2
        "BARD", "BENNETT5LS", "BOX3", "ENGVAL2", "GROWTHLS", "HATFLDFL", "HELIX", "MGH10LS",  # 3
        "BROWNDEN", "DEVGLA1", "KOWOSB", "MGH09LS", "POWERSUM",  # 4
        "KIRBY2LS", "OSBORNEA", "BIGGS6", "HEART6LS", "HAHN1LS",  # 5 to 7
        "GAUSS1LS", "HEART8LS", "PALMER1C", "VIBRBEAM", "HILBERTB", "TRIGON1", "OSBORNEB",  # 8 to 11
        "VANDANMSLS", "CHNROSNB", "ERRINROS", "LUKSAN12LS", "QING",  # 22 to 100
    ),
    "bounded": (
        "CAMEL6", "HS1", "HS4", "LOGROS", "HS25", "PFIT1LS", "HATFLDB", "HS38", "PALMER1",  # 2 to 4
        "HS45", "HART6", "PALMER1A", "HS110", "HATFLDC", "BQPGABIM", "LEVYMONT",  # 5 to 100
    ),
}  # fmt: skip
KEY = ("problem", "method", "dtype")


def solve(problem, method, dtype):
    """What is compared: the counts, the status, f in hexadecimal and a digest of the bits of x."""
    import jaxmin  # here: the process that compares needs none

    x0, bounds = posed(problem, dtype)
    given = {} if bounds is None else {"bounds": scipy.optimize.Bounds(*bounds)}
    try:
        fun = lambda x: problem.objective(x, problem.args)
        res = jaxmin.minimize(fun, x0, method=method, options=LIMITS, **given)
        x = np.asarray(res.x)
        if x.dtype != dtype:
            raise TypeError(f"x comes out as {x.dtype}")
        nhev = getattr(res, "nhev", None)
        return {
            "nit": int(res.nit), "nfev": int(res.nfev), "nhev": None if nhev is None else int(nhev),
            "status": int(res.status), "f": float(res.fun).hex(), "x": hashlib.sha256(x.tobytes()).hexdigest()[:12],
        }  # fmt: skip
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}


def measure(options):
    warnings.simplefilter("ignore")
    sets = {which: load(which) for which in PROBLEMS}
    for which, names in PROBLEMS.items():
        for name in names[:: options.every]:
            for method in options.methods:
                if which == "bounded" and method not in BOXED:
                    continue
                for dtype in options.dtypes:
                    with x64(dtype == "float64"):
                        row = {"problem": name, "method": method, "dtype": dtype}
                        yield row | solve(sets[which][name], method, dtype)
            jax.clear_caches()


def text(row):
    if row is None:
        return "not there"
    if "error" in row:
        return row["error"]
    counts = " ".join(f"{name} {'-' if row[name] is None else row[name]:<5}" for name in ("nit", "nfev", "nhev"))
    return f"{counts} status {row['status']} f {float.fromhex(row['f']):<24.17g} x {row['x']}"


def compare(before, now, options):
    differ = [key for key in now if before is not None and before.get(key) != now[key]]
    for key, row in now.items():
        head = f"{key[0]:<11}{key[1]:<10}{key[2]:<8}"
        if key in differ:
            print(f"{head} before: {text(before.get(key))}\n{'':<29}    now: {text(row)}")
        elif options.all:
            print(f"{head} {text(row)}")
    for method in options.methods:
        for dtype in options.dtypes:
            keys = [key for key in now if key[1:] == (method, dtype)]
            print(f"{method:<10}{dtype:<8} {len(keys):3} solves: {tally(now, keys)}", end="")
            if before is not None:
                other = [key for key in keys if key in differ]
                print(f"; before: {tally(before, keys)}; {len(other) or 'none'} differ", end="")
            print()
    if before is not None:
        print(f"{len(now) - len(differ)} of {len(now)} solves are the same to the bit")
    return not differ


def tally(table, keys):
    """Evaluations of all, and how often each status."""
    rows = [table.get(key, {"error": "not there"}) for key in keys]
    statuses = collections.Counter(str(row.get("status", "error")) for row in rows)
    shown = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
    return f"nfev {sum(row.get('nfev', 0) for row in rows)}, statuses {shown}"


def main():
    parser = versions.parser_of(__doc__)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES)
    parser.add_argument("--every", type=int, default=1, metavar="K", help="every K-th problem of each set alone")
    return versions.main(parser, measure, KEY, compare)


if __name__ == "__main__":
    raise SystemExit(main())
